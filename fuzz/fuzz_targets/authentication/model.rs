//! What has to become of each message before the first statement (manual: protocol-flow,
//! "Start-up"; sasl-authentication), with what `proto_notes.md`, section 5, refuses beyond that.

use distlock::proto::frontend::ProtocolVersion;
use distlock::proto::scram::IterationLimits;
use distlock_fuzz::reference::{Message, Request};
use distlock_fuzz::scram::{Keys, ServerFirst};
use distlock_fuzz::{NONCE, message};
use md5::{Digest as _, Md5};

use super::CANARY;

/// The iteration counts that are taken.
pub const LIMITS: IterationLimits = IterationLimits { min: 2, max: 16 };

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// As for `distlock_fuzz::startup`: methods, and whether there is a password.
    pub mask: u8,
    /// Protocol 3.2 is asked for, or else 3.0.
    pub asks_3_2: bool,
    /// Nothing older is taken.
    pub refuse_older: bool,
}

impl Policy {
    /// Bits 0 to 4 are the mask, 5 asks for 3.0, 6 refuses what is older.
    pub fn new(byte: u8) -> Self {
        Self { mask: byte & 0x1f, asks_3_2: byte & 0x20 == 0, refuse_older: byte & 0x40 != 0 }
    }

    /// Whether there is a password.
    pub fn has_password(&self) -> bool {
        self.mask & 0x10 != 0
    }

    /// The version to ask for.
    pub fn version(&self) -> ProtocolVersion {
        if self.asks_3_2 { ProtocolVersion::V3_2 } else { ProtocolVersion::V3_0 }
    }

    fn allows(&self, bit: u8) -> bool {
        self.mask & (1 << bit) != 0
    }
}

/// What has to follow a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The end of the session.
    Refusal,
    /// These bytes, or none.
    Bytes(Vec<u8>),
    /// A proof in answer to this server-first-message.
    Proof(ServerFirst),
    /// The first statements.
    Statements,
}

/// The state of a session's start.
#[derive(Debug)]
pub struct Model {
    policy: Policy,
    at: At,
    version: i32,
    is_negotiated: bool,
    /// The authentication messages that were accepted.
    pub accepted: Vec<Request>,
    /// The process of BackendKeyData.
    pub announced: Option<i32>,
    /// The server's version.
    pub major: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Start,
    ServerFirst,
    ServerFinal(ServerFirst),
    AwaitingOk,
    Authenticated,
}

/// The keys of the password, with the salt and the count of a server-first-message.
pub fn keys(first: &ServerFirst) -> Keys {
    Keys::new(CANARY.as_bytes(), &first.salt, first.iterations)
}

/// A server-first-message, if it is one to take.
pub fn read(message: &[u8]) -> Option<ServerFirst> {
    ServerFirst::read(message, NONCE, LIMITS)
}

impl Model {
    /// Nothing was said.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            at: At::Start,
            version: policy.version().to_number(),
            is_negotiated: false,
            accepted: Vec::new(),
            announced: None,
            major: None,
        }
    }

    /// Whether the server has let us in.
    pub fn is_authenticated(&self) -> bool {
        self.at == At::Authenticated
    }

    /// The server-first-message that was answered.
    pub fn server_first(&self) -> Option<&ServerFirst> {
        match &self.at {
            At::ServerFinal(first) => Some(first),
            _ => None,
        }
    }

    /// Takes a message.
    pub fn expect(&mut self, message: &Message) -> Expected {
        let next = match (&self.at, message) {
            (At::Authenticated, message) => return self.settle(message),
            (_, Message::Authentication(request)) => self.authenticate(request),
            (At::Start, Message::NegotiateProtocolVersion { version, options }) => {
                let (oldest, newest) = (196_608, self.version);
                let is_good = !self.is_negotiated
                    && newest > oldest
                    && (oldest..=newest).contains(version)
                    && options.is_empty()
                    && (*version == newest || !self.policy.refuse_older);
                self.is_negotiated = true;
                self.version = *version;
                is_good.then(|| (At::Start, Vec::new()))
            }
            _ => None,
        };
        match next {
            None => Expected::Refusal,
            Some((At::ServerFinal(first), _)) => {
                self.at = At::ServerFinal(first.clone());
                Expected::Proof(first)
            }
            Some((at, answer)) => {
                self.at = at;
                Expected::Bytes(answer)
            }
        }
    }

    fn authenticate(&self, request: &Request) -> Option<(At, Vec<u8>)> {
        let allows = |bit| self.policy.allows(bit) && (bit == 0 || self.policy.has_password());
        match (&self.at, request) {
            (At::Start, Request::Ok) if allows(0) => Some((At::Authenticated, Vec::new())),
            (At::Start, Request::CleartextPassword) if allows(1) => {
                let answer = message(b'p', format!("{CANARY}\0").as_bytes());
                Some((At::AwaitingOk, answer))
            }
            (At::Start, Request::Md5Password(salt)) if allows(2) => {
                let stored = hex(&[CANARY.as_bytes(), b"fuzz"]);
                let digits = hex(&[stored.as_bytes(), salt]);
                let answer = message(b'p', format!("md5{digits}\0").as_bytes());
                Some((At::AwaitingOk, answer))
            }
            (At::Start, Request::Sasl(list)) if allows(3) && offers_ours(list) => {
                let first = format!("n,,n=,r={NONCE}");
                let length = (first.len() as i32).to_be_bytes();
                let body = [b"SCRAM-SHA-256\0", &length[..], first.as_bytes()].concat();
                Some((At::ServerFirst, message(b'p', &body)))
            }
            (At::ServerFirst, Request::SaslContinue(body)) => {
                Some((At::ServerFinal(read(body)?), Vec::new()))
            }
            (At::ServerFinal(first), Request::SaslFinal(body)) => {
                let right = keys(first).server_final(first.auth_message(NONCE).as_bytes());
                (body == right.as_bytes()).then(|| (At::AwaitingOk, Vec::new()))
            }
            (At::AwaitingOk, Request::Ok) => Some((At::Authenticated, Vec::new())),
            _ => None,
        }
    }

    /// From AuthenticationOk to the first ReadyForQuery.
    fn settle(&mut self, message: &Message) -> Expected {
        let is_good = match message {
            Message::BackendKeyData { process_id, key } => {
                let lengths = if self.version == 196_608 { 4..=4 } else { 4..=256 };
                self.announced.replace(*process_id).is_none() && lengths.contains(&key.len())
            }
            Message::ParameterStatus { name, value } => match &name[..] {
                b"server_version" => {
                    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let text = std::str::from_utf8(&value[..digits]).expect("ASCII");
                    self.major = text.parse().ok().filter(|major| *major >= 10);
                    self.major.is_some()
                }
                b"in_hot_standby" => value != b"on",
                name => name != b"crdb_version",
            },
            Message::NoticeResponse(report) => !report.is_shutdown(),
            Message::NotificationResponse { .. } => true,
            Message::ReadyForQuery(b'I') if self.major.is_some() => return Expected::Statements,
            _ => false,
        };
        if is_good { Expected::Bytes(Vec::new()) } else { Expected::Refusal }
    }
}

/// Whether a list of mechanisms ends as it has to, and ours is among them.
fn offers_ours(list: &[u8]) -> bool {
    let names: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    match &names[..] {
        [names @ .., b"", b""] => {
            names.contains(&&b"SCRAM-SHA-256"[..]) && !names.iter().any(|name| name.is_empty())
        }
        _ => false,
    }
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
