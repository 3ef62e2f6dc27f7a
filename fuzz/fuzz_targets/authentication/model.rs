//! What has to become of each message before the first statement (manual: protocol-flow,
//! "Start-up"; sasl-authentication), with what `proto_notes.md`, section 5, refuses beyond that.

use distlock::proto::authentication::{Channel, ChannelBinding};
use distlock::proto::frontend::ProtocolVersion;
use distlock::proto::scram::IterationLimits;
use distlock_fuzz::reference::{Message, Request};
use distlock_fuzz::scram::{Exchange, Keys, ServerFirst};
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
    /// The connection is said to have TLS.
    pub is_tls: bool,
    /// The server's certificate is said to have a hash.
    pub has_end_point: bool,
    /// Whether to bind.
    pub binding: ChannelBinding,
}

/// The hash of the certificate.
pub const END_POINT: [u8; 32] = [0x77; 32];

impl Policy {
    /// Bits 0 to 4 are the mask, 5 asks for 3.0, 6 refuses what is older; of the second byte bit 0
    /// is TLS, 1 its certificate's hash, and the rest the binding. Zero is a plain connection.
    pub fn new(byte: u8, channel: u8) -> Self {
        use ChannelBinding::{Disable, Prefer, Require};
        Self {
            mask: byte & 0x1f,
            asks_3_2: byte & 0x20 == 0,
            refuse_older: byte & 0x40 != 0,
            is_tls: channel & 1 != 0,
            has_end_point: channel & 2 != 0,
            binding: [Prefer, Require, Disable][usize::from(channel >> 2) % 3],
        }
    }

    /// As the library has it.
    pub fn channel(&self) -> Channel {
        let end_point = self.has_end_point.then(|| END_POINT.to_vec());
        Channel { is_tls: self.is_tls, end_point, binding: self.binding }
    }

    /// Whether we can bind, and want to.
    fn can_bind(&self) -> bool {
        self.is_tls && self.has_end_point && self.binding != ChannelBinding::Disable
    }

    /// The GS2 header, with what is bound, for a list of mechanisms; none where none will do.
    fn bound_to(&self, list: &[u8]) -> Option<Vec<u8>> {
        let (offers_plain, offers_plus) = offers(list)?;
        if offers_plus && self.can_bind() {
            return Some([&b"p=tls-server-end-point,,"[..], &END_POINT].concat());
        }
        // A server with TLS at the end of a connection without: somebody took it off.
        let is_stripped = offers_plus && !self.is_tls;
        let is_good = offers_plain && !is_stripped && self.binding != ChannelBinding::Require;
        let header = if self.can_bind() { b"y,," } else { b"n,," };
        is_good.then(|| header.to_vec())
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
    /// A proof that ends this exchange.
    Proof(Exchange),
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
    ServerFirst { bound_to: Vec<u8> },
    ServerFinal(Exchange),
    AwaitingOk,
    Authenticated,
}

/// The keys of the password in an exchange.
pub fn keys(exchange: &Exchange) -> Keys {
    Keys::new(CANARY.as_bytes(), &exchange.first.salt, exchange.first.iterations)
}

/// The one right server-final-message of an exchange.
pub fn right_final(exchange: &Exchange) -> String {
    keys(exchange).server_final(exchange.auth_message().as_bytes())
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

    /// The exchange that waits for the server's signature.
    pub fn exchange(&self) -> Option<&Exchange> {
        match &self.at {
            At::ServerFinal(exchange) => Some(exchange),
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
            Some((At::ServerFinal(exchange), _)) => {
                self.at = At::ServerFinal(exchange.clone());
                Expected::Proof(exchange)
            }
            Some((at, answer)) => {
                self.at = at;
                Expected::Bytes(answer)
            }
        }
    }

    fn authenticate(&self, request: &Request) -> Option<(At, Vec<u8>)> {
        let is_required = self.policy.binding == ChannelBinding::Require;
        let allows = |bit| {
            // Only SCRAM can be bound.
            self.policy.allows(bit)
                && (bit == 0 || self.policy.has_password())
                && (bit == 3 || !is_required)
        };
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
            (At::Start, Request::Sasl(list)) if allows(3) => {
                let bound_to = self.policy.bound_to(list)?;
                let is_plus = bound_to.starts_with(b"p=");
                let mechanism =
                    if is_plus { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" }.as_bytes();
                let header = &bound_to[..if is_plus { 24 } else { 3 }];
                let first = [header, format!("n=,r={NONCE}").as_bytes()].concat();
                let length = (first.len() as i32).to_be_bytes();
                let body = [mechanism, b"\0", &length, &first].concat();
                Some((At::ServerFirst { bound_to }, message(b'p', &body)))
            }
            (At::ServerFirst { bound_to }, Request::SaslContinue(body)) => {
                let first = ServerFirst::read(body, NONCE, LIMITS)?;
                let exchange =
                    Exchange { nonce: NONCE.to_owned(), first, bound_to: bound_to.clone() };
                Some((At::ServerFinal(exchange), Vec::new()))
            }
            (At::ServerFinal(exchange), Request::SaslFinal(body)) => {
                (body == right_final(exchange).as_bytes()).then(|| (At::AwaitingOk, Vec::new()))
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

/// Whether ours are in a list of mechanisms, without and with binding, if it ends as it has to.
fn offers(list: &[u8]) -> Option<(bool, bool)> {
    let names: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    let [names @ .., b"", b""] = &names[..] else { return None };
    let offers = |wanted: &str| names.contains(&wanted.as_bytes());
    let is_whole = !names.iter().any(|name| name.is_empty());
    is_whole.then(|| (offers("SCRAM-SHA-256"), offers("SCRAM-SHA-256-PLUS")))
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
