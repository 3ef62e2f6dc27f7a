//! From the StartupMessage to the first ReadyForQuery of a prepared session (manual:
//! protocol-flow, "Start-up" and "Extended Query").
//!
//! A whitelist: each state takes the messages of the table below and nothing else. Once
//! authentication is over, ParameterStatus, NoticeResponse and NotificationResponse may come
//! anywhere (manual: protocol-flow, "Asynchronous Operations").
//!
//! | state | takes | then |
//! |---|---|---|
//! | Authenticating | NegotiateProtocolVersion once, first of all | Authenticating |
//! | Authenticating | what [`authentication`](super::authentication) takes | Settling |
//! | Settling | BackendKeyData once, ReadyForQuery | Identity; of a witness: Testimony |
//! | Identity | the reply to a statement, ReadyForQuery | Confirmation |
//! | Confirmation | the reply to a statement, ReadyForQuery | Witnessing; Settings |
//! | Witnessing | nothing: the witness is heard first | Settings |
//! | Settings | the reply to a statement | Preparing |
//! | Preparing | ParseComplete for each statement, ReadyForQuery | Release; done |
//! | Release | the reply to a statement, ReadyForQuery | done |
//! | Testimony | the reply to a statement, ReadyForQuery | done |
//!
//! [`probe`] says what is asked and why. The Sync behind the identity is the moment at which a
//! pooler may show itself. Only then, and when the witness was heard, are the settings made: the
//! server process of a session that is refused may be that of somebody else next. They share a Sync
//! with the Parse messages; that one and the release go out in one write.

use super::authentication::Authenticator;
use super::backend::{self, BackendMessage, DataRow};
use super::buffer::{Full, WriteBuf};
use super::fault::{Fault, Unsuitable, Violation};
use super::fields::{Fields, printable};
use super::frontend::{self, INT4_OID, INT8_OID, KeyParameters, ProtocolVersion, TEXT_OID};
use super::probe::{self, Expectation, Identity, Question};
use super::settings;
pub use super::startup::{LockSession, Purpose, Startup, UNKEYED};

/// What is known of the server once the session is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The major version.
    pub server_major: u32,
    /// The server process of this session.
    pub process_id: i32,
    /// How many locks the server's table has room for, where it says so.
    pub lock_table: Option<u64>,
}

/// The prepared lock statements: name, text, parameter types. The texts are not qualified, since
/// the settings statement has put nothing but `pg_catalog` on the search path.
pub const STATEMENTS: [(&str, &str, &[i32]); 4] = [
    ("t", "SELECT pg_try_advisory_lock($1)", &[INT8_OID]),
    ("u", UNLOCK.1, &[INT8_OID]),
    ("tp", "SELECT pg_try_advisory_lock($1, $2)", &[INT4_OID, INT4_OID]),
    ("up", "SELECT pg_advisory_unlock($1, $2)", &[INT4_OID, INT4_OID]),
];

/// Name and text of the statement that also gives the marked key back.
const UNLOCK: (&str, &str) = ("u", "SELECT pg_advisory_unlock($1)");

/// The start of a session.
#[derive(Debug)]
pub struct Handshake {
    purpose: Purpose,
    state: State,
    /// The version that both sides speak, as in the StartupMessage.
    version: i32,
    refuse_older: bool,
    negotiated: bool,
    server_major: Option<u32>,
    announced: Option<i32>,
    identity: Option<Identity>,
}

#[derive(Debug)]
enum State {
    Authenticating(Box<Authenticator>),
    Settling,
    Asking(Query, Reply),
    /// The query is answered, and its Sync is not.
    Answered(Query),
    Preparing {
        parsed: usize,
    },
    Witnessing,
    Done,
}

/// The statements of a session's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Query {
    Identity,
    Settings,
    Confirmation,
    Release,
    Testimony,
}

/// The next message of a statement's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    ParseComplete,
    BindComplete,
    DataRow,
    CommandComplete,
}

/// What follows a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More messages have to come.
    Continue,
    /// A witness is to answer this before it goes on.
    Witness(Question),
    /// The session is ready.
    Done(Greeting),
}

impl Handshake {
    /// Writes the StartupMessage.
    ///
    /// # Errors
    ///
    /// When a parameter is too long.
    pub fn new(startup: Startup, out: &mut WriteBuf) -> Result<Self, Fault> {
        let parameters = [
            ("user", startup.credentials.user.as_str()),
            ("database", &startup.database),
            ("application_name", &startup.application_name),
            ("client_encoding", "UTF8"),
            ("options", startup.options.as_deref().unwrap_or_default()),
        ];
        // An absent option is not sent, since not every pooler knows the parameter.
        let count = if startup.options.is_some() { 5 } else { 4 };
        let parameters = parameters.get(..count).unwrap_or_default();
        frontend::startup_message(out, startup.version, parameters)
            .map_err(|Full| Fault::Internal("the StartupMessage does not fit its buffer"))?;
        Ok(Self {
            purpose: startup.purpose,
            state: State::Authenticating(Box::new(Authenticator::new(startup.credentials))),
            version: startup.version.to_number(),
            refuse_older: startup.refuse_older,
            negotiated: false,
            server_major: None,
            announced: None,
            identity: None,
        })
    }

    /// Where the handshake is, for an error or a trace.
    pub fn state(&self) -> &'static str {
        match &self.state {
            State::Authenticating(authenticator) => authenticator.state(),
            State::Settling if self.announced.is_none() && self.version > OLDEST => UNKEYED,
            State::Settling => "before the first ReadyForQuery",
            State::Asking(query, _) | State::Answered(query) => match query {
                Query::Identity => "in the reply to the identity statement",
                Query::Settings => "in the reply to the settings statement",
                Query::Confirmation => "in the reply to the confirmation statement",
                Query::Release => "in the reply to the release of the marked key",
                Query::Testimony => "in the reply to the witness's statement",
            },
            State::Preparing { .. } => "in the reply to the Parse messages",
            State::Witnessing => {
                "while a second connection, which tests the server's locks, was waited for: allow \
                 the role or its pool one connection more, or leave the test out with \
                 Config::witness(false)"
            }
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
            return Err(self.reported(*report));
        }
        if self.is_authenticated() && self.handle_asynchronous(message)? {
            return Ok(Step::Continue);
        }
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match (state, message) {
            (State::Authenticating(mut authenticator), BackendMessage::Authentication(request)) => {
                match authenticator.handle(request, out)? {
                    true => State::Settling,
                    false => State::Authenticating(authenticator),
                }
            }
            (
                State::Authenticating(authenticator),
                BackendMessage::NegotiateProtocolVersion { version, unknown_options },
            ) if authenticator.is_untouched() => {
                self.negotiate(*version, *unknown_options)?;
                State::Authenticating(authenticator)
            }
            (State::Settling, BackendMessage::BackendKeyData { process_id, key_length })
                if self.announced.is_none() =>
            {
                self.check_key(*key_length)?;
                self.announced = Some(*process_id);
                State::Settling
            }
            (State::Settling, BackendMessage::ReadyForQuery(b'I')) => self.begin(out)?,
            (State::Asking(query, reply), message) => self.handle_reply(query, reply, message)?,
            (State::Answered(query), BackendMessage::ReadyForQuery(b'I')) => match query {
                Query::Identity => self.confirm(out)?,
                Query::Confirmation => return self.finish(out),
                Query::Settings | Query::Release | Query::Testimony => {
                    return Ok(Step::Done(self.greeting()));
                }
            },
            (State::Preparing { parsed }, BackendMessage::ParseComplete)
                if parsed < STATEMENTS.len() =>
            {
                State::Preparing { parsed: parsed.saturating_add(1) }
            }
            (State::Preparing { parsed }, BackendMessage::ReadyForQuery(b'I'))
                if parsed == STATEMENTS.len() =>
            {
                if matches!(&self.purpose, Purpose::Locks(session) if session.session_affine) {
                    return Ok(Step::Done(self.greeting()));
                }
                State::Asking(Query::Release, Reply::BindComplete)
            }
            (state, _) => {
                self.state = state;
                return Err(self.unexpected(message));
            }
        };
        Ok(Step::Continue)
    }

    /// The witness was heard, and content.
    ///
    /// # Errors
    ///
    /// When the next statement cannot be written.
    pub fn witnessed(&mut self, out: &mut WriteBuf) -> Result<Step, Fault> {
        match self.state {
            State::Witnessing => self.prepare(out),
            _ => Err(Fault::Internal("a testimony that nobody asked for")),
        }
    }

    /// Whether [`Handshake::derive`] has work to do.
    pub fn is_deriving(&self) -> bool {
        matches!(&self.state, State::Authenticating(authenticator) if authenticator.is_deriving())
    }

    /// Goes on with the key derivation; see [`Authenticator::derive`].
    ///
    /// # Errors
    ///
    /// When the response cannot be made.
    pub fn derive(&mut self, rounds: u32, out: &mut WriteBuf) -> Result<(), Fault> {
        match &mut self.state {
            State::Authenticating(authenticator) => authenticator.derive(rounds, out),
            _ => Ok(()),
        }
    }

    fn is_authenticated(&self) -> bool {
        !matches!(self.state, State::Authenticating(_))
    }

    /// An error of the server while it is looked at may say that it is no PostgreSQL; one before
    /// the key of the newer protocol, that it does not speak that one.
    fn reported(&self, report: Fields<'_>) -> Fault {
        let error = report.to_error();
        let sqlstate = printable(&error.sqlstate, 5);
        match self.state {
            State::Asking(query, _) | State::Answered(query)
                if error.is_lacking() && !matches!(query, Query::Settings | Query::Release) =>
            {
                Unsuitable::Foreign(sqlstate, error.message).into()
            }
            State::Settling if self.state() == UNKEYED && error.may_be_about_version() => {
                Unsuitable::Unkeyed(sqlstate, error.message).into()
            }
            _ => Fault::Server(Box::new(error)),
        }
    }

    /// Takes the messages that may come at any time; says whether it was one.
    fn handle_asynchronous(&mut self, message: &BackendMessage<'_>) -> Result<bool, Fault> {
        match message {
            BackendMessage::ParameterStatus { name: b"server_version", value } => {
                self.server_major = Some(settings::major_version(value)?);
                Ok(true)
            }
            BackendMessage::ParameterStatus { name: probe::COCKROACH_PARAMETER, .. } => {
                Err(Unsuitable::Engine(probe::COCKROACH).into())
            }
            // Also after the identity has said otherwise: the last word counts.
            BackendMessage::ParameterStatus { name: b"in_hot_standby", value: b"on" } => {
                Err(Unsuitable::Standby.into())
            }
            BackendMessage::ParameterStatus { .. }
            | BackendMessage::NotificationResponse { .. } => Ok(true),
            BackendMessage::NoticeResponse(report) => report.check_shutdown().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Manual: protocol-flow, "Start-up": the server may offer an older minor version, before any
    /// authentication request. We send no protocol options, so it can know none of them.
    fn negotiate(&mut self, version: i32, unknown_options: i32) -> Result<(), Fault> {
        // What was asked for stays what it is if it is not older; 3.0 has nothing older.
        let is_older = (OLDEST..=self.version).contains(&version);
        if self.negotiated || self.version == OLDEST || !is_older || unknown_options != 0 {
            let what = "it offers what was not asked for";
            return Err(Violation::Malformed { message: "NegotiateProtocolVersion", what }.into());
        }
        if self.refuse_older && version < self.version {
            return Err(Unsuitable::Protocol.into());
        }
        self.negotiated = true;
        self.version = version;
        Ok(())
    }

    /// Manual: protocol-message-formats, BackendKeyData: four bytes in protocol 3.0, and up to 256
    /// since 3.2.
    fn check_key(&self, length: usize) -> Result<(), Violation> {
        let what = match self.version {
            OLDEST if length != 4 => "a key that is not of 4 bytes, in protocol 3.0",
            _ if !(4..=256).contains(&length) => "a key that is not of 4 to 256 bytes",
            _ => return Ok(()),
        };
        Err(Violation::Malformed { message: "BackendKeyData", what })
    }

    /// Sends the first statements.
    fn begin(&self, out: &mut WriteBuf) -> Result<State, Fault> {
        let query = match &self.purpose {
            Purpose::Locks(session) => {
                let major = self.server_major.unwrap_or(0);
                if major < settings::OLDEST_SERVER {
                    return Err(Unsuitable::Version("not announced".into()).into());
                }
                let [token, key] = session.mark.parameters();
                let process = self.expectation(session).process();
                ask(out, probe::IDENTITY, &[token, key, process]).map_err(no_room)?;
                Query::Identity
            }
            Purpose::Testimony(question) => {
                ask(out, probe::TESTIMONY, &[question.parameter()]).map_err(no_room)?;
                Query::Testimony
            }
        };
        frontend::sync(out).map_err(no_room)?;
        Ok(State::Asking(query, Reply::ParseComplete))
    }

    /// Looks again behind a ReadyForQuery.
    fn confirm(&self, out: &mut WriteBuf) -> Result<State, Fault> {
        let Purpose::Locks(session) = &self.purpose else { return Ok(State::Done) };
        let [_, key] = session.mark.parameters();
        ask(out, probe::CONFIRMATION, &[key]).map_err(no_room)?;
        frontend::sync(out).map_err(no_room)?;
        Ok(State::Asking(Query::Confirmation, Reply::ParseComplete))
    }

    fn finish(&mut self, out: &mut WriteBuf) -> Result<Step, Fault> {
        if let (Purpose::Locks(LockSession { witness: true, mark, .. }), Some(identity)) =
            (&self.purpose, self.identity)
        {
            self.state = State::Witnessing;
            return Ok(Step::Witness(Question { process_id: identity.process_id, key: mark.key }));
        }
        self.prepare(out)
    }

    /// The server will do: makes the settings, prepares the lock statements, and gives the marked
    /// key back, unless it has to stay.
    fn prepare(&mut self, out: &mut WriteBuf) -> Result<Step, Fault> {
        let Purpose::Locks(session) = &self.purpose else { return Ok(Step::Continue) };
        let (statement, count) = settings::statement(self.server_major.unwrap_or(0));
        let values = session.settings.parameters();
        let write = |out: &mut WriteBuf| -> Result<(), Full> {
            ask(out, statement, values.get(..count).unwrap_or_default())?;
            for (name, query, types) in STATEMENTS {
                frontend::parse(out, name, query, types)?;
            }
            frontend::sync(out)?;
            if session.session_affine {
                return Ok(());
            }
            frontend::bind_key(out, UNLOCK.0, KeyParameters::Bigint(session.mark.key))?;
            frontend::execute(out)?;
            frontend::sync(out)
        };
        write(out).map_err(no_room)?;
        self.state = State::Asking(Query::Settings, Reply::ParseComplete);
        Ok(Step::Continue)
    }

    fn handle_reply(
        &mut self,
        query: Query,
        reply: Reply,
        message: &BackendMessage<'_>,
    ) -> Result<State, Fault> {
        let next = match (reply, message) {
            (Reply::ParseComplete, BackendMessage::ParseComplete) => Reply::BindComplete,
            (Reply::BindComplete, BackendMessage::BindComplete) => Reply::DataRow,
            (Reply::DataRow, BackendMessage::DataRow(row)) => {
                self.handle_row(query, row)?;
                Reply::CommandComplete
            }
            (Reply::CommandComplete, BackendMessage::CommandComplete) => {
                return Ok(match query {
                    Query::Settings => State::Preparing { parsed: 0 },
                    other => State::Answered(other),
                });
            }
            _ => {
                self.state = State::Asking(query, reply);
                return Err(self.unexpected(message));
            }
        };
        Ok(State::Asking(query, next))
    }

    fn handle_row(&mut self, query: Query, row: &DataRow<'_>) -> Result<(), Fault> {
        let columns = match query {
            Query::Identity => probe::IDENTITY_COLUMNS,
            Query::Settings => settings::columns(self.server_major.unwrap_or(0)),
            Query::Confirmation => probe::CONFIRMATION_COLUMNS,
            Query::Testimony => probe::TESTIMONY_COLUMNS,
            Query::Release => 1,
        };
        if row.columns() != columns {
            let what = "not as many columns as the statement has";
            return Err(Violation::Malformed { message: "DataRow", what }.into());
        }
        match (&self.purpose, query, self.identity) {
            (Purpose::Testimony(question), _, _) => question.judge(row.values())??,
            (Purpose::Locks(session), Query::Identity, _) => {
                let expectation = self.expectation(session);
                self.identity = Some(session.mark.identify(expectation, row.values())??);
            }
            (Purpose::Locks(session), Query::Confirmation, Some(identity)) => {
                session.mark.confirm(identity, row.values())??;
            }
            (Purpose::Locks(session), Query::Settings, _) => {
                session.settings.check(row.values())??;
            }
            (Purpose::Locks(_), _, _) => {
                if !row.boolean()? {
                    return Err(Unsuitable::Fake("a granted lock could not be released").into());
                }
            }
        }
        Ok(())
    }

    fn expectation(&self, session: &LockSession) -> Expectation {
        Expectation {
            announced: self.announced,
            session_affine: session.session_affine,
            read_write: session.read_write,
        }
    }

    fn unexpected(&self, message: &BackendMessage<'_>) -> Fault {
        Violation::Unexpected { message: backend::name(message), state: self.state() }.into()
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            server_major: self.server_major.unwrap_or(0),
            process_id: self.identity.map_or(0, |identity| identity.process_id),
            lock_table: self.identity.and_then(|identity| identity.lock_table),
        }
    }
}

/// The oldest protocol version that is accepted.
const OLDEST: i32 = ProtocolVersion::V3_0.to_number();

/// Writes a statement with text parameters and text results.
fn ask(out: &mut WriteBuf, query: &str, values: &[String]) -> Result<(), Full> {
    let types = [TEXT_OID; 8];
    let values: Vec<&str> = values.iter().take(types.len()).map(String::as_str).collect();
    frontend::parse(out, "", query, types.get(..values.len()).unwrap_or_default())?;
    frontend::bind_text(out, &values)?;
    frontend::execute(out)
}

fn no_room(Full: Full) -> Fault {
    Fault::Internal("the statements do not fit their buffer")
}
