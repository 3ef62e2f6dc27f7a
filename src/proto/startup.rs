//! What a session starts with: who we are, what it is for, and what it has to stand up to. Values
//! only; [`handshake`](super::handshake) acts on them.

use super::authentication::Credentials;
use super::frontend::ProtocolVersion;
use super::probe::{Mark, Question};
use super::settings::SessionSettings;

/// The state (see [`Handshake::state`](super::handshake::Handshake::state)) of a session that was
/// let in with a protocol newer than 3.0, and was not yet sent what is different in it: the key.
pub const UNKEYED: &str = "before BackendKeyData and the first ReadyForQuery";

/// Everything that a session needs to start. Made afresh for every connection: nothing of an
/// earlier one is left in it.
#[derive(Debug)]
pub struct Startup {
    /// The protocol version to ask for.
    pub version: ProtocolVersion,
    /// Whether a server that does not speak that version is refused.
    pub refuse_older: bool,
    /// The role, and how it proves itself.
    pub credentials: Credentials,
    /// The database.
    pub database: String,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Command-line options for the server process (libpq's `options`), where there are any.
    pub options: Option<String>,
    /// What the session is for.
    pub purpose: Purpose,
}

/// What a session is for.
#[derive(Debug)]
pub enum Purpose {
    /// Locks.
    Locks(LockSession),
    /// To say whether another session's lock excludes.
    Testimony(Question),
}

/// How a session for locks is set up, and what it has to stand up to.
#[derive(Debug)]
pub struct LockSession {
    /// The session settings.
    pub settings: SessionSettings,
    /// Fresh randomness.
    pub mark: Mark,
    /// Whether a proxy may stand between that keeps each session on one server process. The marked
    /// key stays locked then, for it is what makes some of them do so.
    pub session_affine: bool,
    /// Whether the session has to be able to write.
    pub read_write: bool,
    /// Whether a witness has to be heard.
    pub witness: bool,
}
