//! From the StartupMessage to the first ReadyForQuery of a prepared session (manual:
//! protocol-flow, "Start-up" and "Extended Query"; sasl-authentication).
//!
//! A whitelist: each state takes the messages of the table below and nothing else. Once
//! authentication is over, ParameterStatus, NoticeResponse and NotificationResponse may come
//! anywhere (manual: protocol-flow, "Asynchronous Operations").
//!
//! | state | takes | then |
//! |---|---|---|
//! | Authenticating | NegotiateProtocolVersion once | Authenticating |
//! | Authenticating | AuthenticationOk, if allowed | Settling |
//! | Authenticating | a password request; AuthenticationSASL | AwaitOk; SaslContinue |
//! | SaslContinue | AuthenticationSASLContinue | Deriving |
//! | Deriving | nothing: what comes waits until we have computed | SaslFinal |
//! | SaslFinal | AuthenticationSASLFinal | AwaitOk |
//! | AwaitOk | AuthenticationOk | Settling |
//! | Settling | BackendKeyData once, ReadyForQuery | Configuring |
//! | Configuring | the reply to Parse, Bind, Execute and Sync, in order | Preparing |
//! | Preparing | ParseComplete for each statement, ReadyForQuery | done |
//!
//! Configuring and Preparing have a Sync each and go out in one write.

use zeroize::Zeroizing;

use super::backend::{self, Authentication, BackendMessage};
use super::buffer::{Full, WriteBuf};
use super::fault::{AuthFault, Fault, Unsuitable, Violation};
use super::fields::{printable, split_string};
use super::frontend::{self, INT4_OID, INT8_OID, TEXT_OID};
use super::md5::md5_password;
use super::scram::{IterationLimits, NONCE_ENTROPY, ScramClient, ServerVerified};
use super::settings::{self, SessionSettings};

/// Everything that a session needs to start. Made afresh for every connection: nothing of an
/// earlier one is left in it.
pub struct Startup {
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// The password, where one is configured.
    pub password: Option<Zeroizing<String>>,
    /// The authentication methods that may be used.
    pub methods: Methods,
    /// Randomness for the SCRAM nonce.
    pub entropy: [u8; NONCE_ENTROPY],
    /// How many SCRAM iterations are accepted.
    pub iterations: IterationLimits,
    /// The session settings.
    pub settings: SessionSettings,
}

/// Which authentication methods the configuration allows, as libpq's `require_auth` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// AuthenticationOk without any exchange.
    pub none: bool,
    /// The password in clear.
    pub password: bool,
    /// The password through MD5.
    pub md5: bool,
    /// SCRAM-SHA-256.
    pub scram_sha_256: bool,
}

/// What is known of the server once the session is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The major version.
    pub server_major: u32,
    /// The server process of this session.
    pub process_id: i32,
}

/// The prepared lock statements: name, text, parameter types. The texts are not qualified, since
/// the settings statement has put nothing but `pg_catalog` on the search path.
pub const STATEMENTS: [(&str, &str, &[i32]); 4] = [
    ("t", "SELECT pg_try_advisory_lock($1)", &[INT8_OID]),
    ("u", "SELECT pg_advisory_unlock($1)", &[INT8_OID]),
    ("tp", "SELECT pg_try_advisory_lock($1, $2)", &[INT4_OID, INT4_OID]),
    ("up", "SELECT pg_advisory_unlock($1, $2)", &[INT4_OID, INT4_OID]),
];

/// The start of a session.
#[derive(Debug)]
pub struct Handshake {
    startup: Startup,
    state: State,
    negotiated: bool,
    server_major: Option<u32>,
    process_id: Option<i32>,
}

#[derive(Debug)]
enum State {
    Authenticating,
    SaslContinue(Box<ScramClient>),
    Deriving(Box<ScramClient>),
    SaslFinal(Box<ScramClient>),
    #[expect(dead_code, reason = "the proof is never read: that it exists is what it says")]
    AwaitOk(Authenticated),
    Settling,
    Configuring(Reply),
    Preparing {
        parsed: usize,
    },
    Done,
}

/// The next message of the settings statement's reply.
#[derive(Debug, Clone, Copy)]
enum Reply {
    ParseComplete,
    BindComplete,
    DataRow,
    CommandComplete,
    ReadyForQuery,
}

/// Proof that an allowed exchange took place; AuthenticationOk counts for nothing without it.
#[derive(Debug)]
enum Authenticated {
    /// A password was sent, in clear or through MD5: this side proved itself, the server did not.
    PasswordSent,
    /// The server's signature was verified.
    Scram(ServerVerified),
}

/// What follows a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More messages have to come.
    Continue,
    /// The session is ready.
    Done(Greeting),
}

impl Handshake {
    /// Writes the StartupMessage.
    ///
    /// # Errors
    ///
    /// When a parameter is too long or holds a NUL byte.
    pub fn new(startup: Startup, out: &mut WriteBuf) -> Result<Self, Fault> {
        frontend::startup_message(
            out,
            &[
                ("user", &startup.user),
                ("database", &startup.database),
                ("application_name", &startup.application_name),
                ("client_encoding", "UTF8"),
            ],
        )
        .map_err(|Full| Fault::Internal("the StartupMessage does not fit its buffer"))?;
        Ok(Self {
            startup,
            state: State::Authenticating,
            negotiated: false,
            server_major: None,
            process_id: None,
        })
    }

    /// Where the handshake is, for an error or a trace.
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Authenticating => "before an authentication request",
            State::SaslContinue(_) => "where AuthenticationSASLContinue has to follow",
            State::Deriving(_) => "before our SASL response was sent",
            State::SaslFinal(_) => "where AuthenticationSASLFinal has to follow",
            State::AwaitOk(_) => "where AuthenticationOk has to follow",
            State::Settling => "before the first ReadyForQuery",
            State::Configuring(_) => "in the reply to the settings statement",
            State::Preparing { .. } => "in the reply to the Parse messages",
            State::Done => "after the handshake",
        }
    }

    /// Takes one message; writes what is to be answered.
    ///
    /// # Errors
    ///
    /// The reason why this cannot become a session.
    pub fn handle(
        &mut self,
        message: &BackendMessage<'_>,
        out: &mut WriteBuf,
    ) -> Result<Step, Fault> {
        if let BackendMessage::ErrorResponse(report) = message {
            return Err(Fault::Server(Box::new(report.to_error())));
        }
        if self.is_authenticated() && self.handle_asynchronous(message)? {
            return Ok(Step::Continue);
        }
        let state = std::mem::replace(&mut self.state, State::Done);
        let unexpected =
            |state| Violation::Unexpected { message: backend::name(message), state }.into();
        self.state = match (state, message) {
            (State::Authenticating, BackendMessage::Authentication(request)) => {
                self.handle_request(request, out)?
            }
            (State::Authenticating, BackendMessage::NegotiateProtocolVersion { .. }) => {
                self.handle_negotiation(message)?
            }
            (
                State::SaslContinue(mut scram),
                BackendMessage::Authentication(Authentication::SaslContinue(body)),
            ) => {
                scram.server_first(body).map_err(AuthFault::from)?;
                State::Deriving(scram)
            }
            (
                State::SaslFinal(scram),
                BackendMessage::Authentication(Authentication::SaslFinal(body)),
            ) => {
                let proof = scram.server_final(body).map_err(AuthFault::from)?;
                State::AwaitOk(Authenticated::Scram(proof))
            }
            (State::AwaitOk(_), BackendMessage::Authentication(Authentication::Ok)) => {
                self.startup.password = None;
                State::Settling
            }
            (State::Settling, BackendMessage::BackendKeyData { process_id })
                if self.process_id.is_none() =>
            {
                self.process_id = Some(*process_id);
                State::Settling
            }
            (State::Settling, BackendMessage::ReadyForQuery(b'I')) => self.configure(out)?,
            (State::Configuring(reply), message) => self.handle_reply(reply, message)?,
            (State::Preparing { parsed }, BackendMessage::ParseComplete)
                if parsed < STATEMENTS.len() =>
            {
                State::Preparing { parsed: parsed.saturating_add(1) }
            }
            (State::Preparing { parsed }, BackendMessage::ReadyForQuery(b'I'))
                if parsed == STATEMENTS.len() =>
            {
                return Ok(Step::Done(self.greeting()));
            }
            (state, _) => {
                self.state = state;
                return Err(unexpected(self.state()));
            }
        };
        Ok(Step::Continue)
    }

    /// Whether [`Handshake::derive`] has work to do.
    pub fn is_deriving(&self) -> bool {
        matches!(self.state, State::Deriving(_))
    }

    /// Computes at most `rounds` rounds of the key derivation that the server's iteration count
    /// demands, and sends the response once it is through. In slices, so that a large count never
    /// keeps a deadline from being noticed.
    ///
    /// # Errors
    ///
    /// When the response cannot be made.
    pub fn derive(&mut self, rounds: u32, out: &mut WriteBuf) -> Result<(), Fault> {
        let State::Deriving(scram) = &mut self.state else { return Ok(()) };
        if !scram.derive(rounds) {
            return Ok(());
        }
        let response = scram.client_final().map_err(AuthFault::from)?;
        frontend::sasl_response(out, response)
            .map_err(|Full| Fault::Internal("the SASL response does not fit its buffer"))?;
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Deriving(scram) => State::SaslFinal(scram),
            other => other,
        };
        Ok(())
    }

    fn is_authenticated(&self) -> bool {
        matches!(
            self.state,
            State::Settling | State::Configuring(_) | State::Preparing { .. } | State::Done
        )
    }

    /// Takes the messages that may come at any time; says whether it was one.
    fn handle_asynchronous(&mut self, message: &BackendMessage<'_>) -> Result<bool, Fault> {
        match message {
            BackendMessage::ParameterStatus { name: b"server_version", value } => {
                self.server_major = Some(major_version(value)?);
                Ok(true)
            }
            // Also after the settings row has said otherwise: the last word counts.
            BackendMessage::ParameterStatus { name: b"in_hot_standby", value: b"on" } => {
                Err(Unsuitable::Standby.into())
            }
            BackendMessage::ParameterStatus { .. } | BackendMessage::NotificationResponse => {
                Ok(true)
            }
            BackendMessage::NoticeResponse(report) => report.check_shutdown().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Answers an authentication request, if the configuration allows its method.
    fn handle_request(
        &self,
        request: &Authentication<'_>,
        out: &mut WriteBuf,
    ) -> Result<State, Fault> {
        let methods = self.startup.methods;
        let permit = |allowed: bool, asked: &'static str| match asked {
            _ if allowed => Ok(()),
            "none" => Err(AuthFault::Unasked { allowed: methods.to_string().into() }),
            _ if self.startup.password.is_none() => Err(AuthFault::NoPassword),
            _ => Err(AuthFault::Refused { asked, allowed: methods.to_string().into() }),
        };
        let full = |Full| Fault::Internal("an authentication response does not fit its buffer");
        match request {
            Authentication::Ok => {
                permit(methods.none, "none")?;
                Ok(State::Settling)
            }
            Authentication::CleartextPassword => {
                permit(methods.password, "password")?;
                frontend::password_message(out, self.password()?).map_err(full)?;
                Ok(State::AwaitOk(Authenticated::PasswordSent))
            }
            Authentication::Md5Password(salt) => {
                permit(methods.md5, "md5")?;
                let response = md5_password(&self.startup.user, self.password()?, *salt);
                let response = std::str::from_utf8(&response)
                    .map_err(|_| Fault::Internal("an md5 response is hexadecimal"))?;
                frontend::password_message(out, response).map_err(full)?;
                Ok(State::AwaitOk(Authenticated::PasswordSent))
            }
            Authentication::Sasl(mechanisms) => {
                permit(methods.scram_sha_256, "scram-sha-256")?;
                choose_mechanism(mechanisms)?;
                let startup = &self.startup;
                let scram = ScramClient::new(self.password()?, startup.entropy, startup.iterations);
                frontend::sasl_initial_response(out, MECHANISM, scram.client_first())
                    .map_err(full)?;
                Ok(State::SaslContinue(Box::new(scram)))
            }
            Authentication::Unsupported(name) => Err(AuthFault::Unsupported(name).into()),
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                Err(Violation::Unexpected {
                    message: backend::name(&BackendMessage::Authentication(*request)),
                    state: "before an authentication request",
                }
                .into())
            }
        }
    }

    fn password(&self) -> Result<&str, AuthFault> {
        self.startup
            .password
            .as_ref()
            .map(|password| password.as_str())
            .ok_or(AuthFault::NoPassword)
    }

    /// Manual: protocol-flow, "Start-up": the server may offer an older minor version, before any
    /// authentication request. We send no protocol options, so it can know none of them.
    fn handle_negotiation(&mut self, message: &BackendMessage<'_>) -> Result<State, Fault> {
        let BackendMessage::NegotiateProtocolVersion { version, unknown_options } = message else {
            return Ok(State::Authenticating);
        };
        let acceptable = (OLDEST_PROTOCOL..=frontend::PROTOCOL_VERSION).contains(version);
        if self.negotiated || !acceptable || *unknown_options != 0 {
            let what = "it offers what was not asked for";
            return Err(Violation::Malformed { message: "NegotiateProtocolVersion", what }.into());
        }
        self.negotiated = true;
        Ok(State::Authenticating)
    }

    /// Sends the settings statement and the lock statements, in one write with a Sync each.
    fn configure(&self, out: &mut WriteBuf) -> Result<State, Fault> {
        let major = self.server_major.unwrap_or(0);
        if major < settings::OLDEST_SERVER {
            return Err(Unsuitable::Version("not announced".into()).into());
        }
        let (query, count) = settings::statement(major);
        let values = self.startup.settings.parameters();
        let values: Vec<&str> = values.iter().take(count).map(String::as_str).collect();
        let write = |out: &mut WriteBuf| -> Result<(), Full> {
            frontend::parse(out, "", query, &vec![TEXT_OID; count])?;
            frontend::bind_text(out, &values)?;
            frontend::execute(out)?;
            frontend::sync(out)?;
            for (name, query, types) in STATEMENTS {
                frontend::parse(out, name, query, types)?;
            }
            frontend::sync(out)
        };
        write(out).map_err(|Full| Fault::Internal("the statements do not fit their buffer"))?;
        Ok(State::Configuring(Reply::ParseComplete))
    }

    fn handle_reply(&self, reply: Reply, message: &BackendMessage<'_>) -> Result<State, Fault> {
        Ok(State::Configuring(match (reply, message) {
            (Reply::ParseComplete, BackendMessage::ParseComplete) => Reply::BindComplete,
            (Reply::BindComplete, BackendMessage::BindComplete) => Reply::DataRow,
            (Reply::DataRow, BackendMessage::DataRow(row)) => {
                if row.columns() != settings::columns(self.server_major.unwrap_or(0)) {
                    let what = "not the columns of the settings statement";
                    return Err(Violation::Malformed { message: "DataRow", what }.into());
                }
                let announced = self.process_id.unwrap_or(0);
                self.startup.settings.check(announced, row.values())??;
                Reply::CommandComplete
            }
            (Reply::CommandComplete, BackendMessage::CommandComplete) => Reply::ReadyForQuery,
            (Reply::ReadyForQuery, BackendMessage::ReadyForQuery(b'I')) => {
                return Ok(State::Preparing { parsed: 0 });
            }
            (_, message) => {
                let state = "in the reply to the settings statement";
                return Err(Violation::Unexpected { message: backend::name(message), state }.into());
            }
        }))
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            server_major: self.server_major.unwrap_or(0),
            process_id: self.process_id.unwrap_or(0),
        }
    }
}

/// The mechanism that we speak (manual: sasl-authentication).
const MECHANISM: &str = "SCRAM-SHA-256";

/// The oldest protocol version that is accepted: 3.0.
const OLDEST_PROTOCOL: i32 = 0x0003_0000;

/// Looks for our mechanism in a list of NUL-terminated names that ends with an empty one.
fn choose_mechanism(list: &[u8]) -> Result<(), Fault> {
    let malformed = |what| Violation::Malformed { message: "AuthenticationSASL", what };
    let mut found = false;
    let mut rest = list;
    loop {
        let (name, after) = split_string(rest).ok_or_else(|| malformed("the list has no end"))?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(malformed("bytes after the end of the list").into());
            }
            break;
        }
        found |= name == MECHANISM.as_bytes();
        rest = after;
    }
    if found { Ok(()) } else { Err(AuthFault::Unsupported("SASL other than SCRAM-SHA-256").into()) }
}

/// The first number of `server_version`, such as `15` of `15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(value: &[u8]) -> Result<u32, Unsuitable> {
    let digits = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    value
        .get(..digits)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .filter(|major| *major >= settings::OLDEST_SERVER)
        .ok_or_else(|| Unsuitable::Version(printable(value, 64)))
}

impl std::fmt::Display for Methods {
    /// As `require_auth` lists them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (self.none, "none"),
            (self.password, "password"),
            (self.md5, "md5"),
            (self.scram_sha_256, "scram-sha-256"),
        ];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(allowed, _)| *allowed) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl std::fmt::Debug for Startup {
    /// Neither the password nor the entropy is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Startup")
            .field("user", &self.user)
            .field("database", &self.database)
            .field("methods", &self.methods)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
