//! Why a session could not start, or had to end.

use super::fields::ServerError;
use super::scram::ScramError;

/// The end of a session, seen from this side. There is no way back: a new session starts afresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server reported an error that ends the session, or one that no request explains.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The two sides could not authenticate each other.
    #[error(transparent)]
    Auth(#[from] AuthFault),
    /// The server works, but locks on it would not be safe.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// A broken invariant of our own, or a limit that a configuration made too small.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// A way to break the protocol. Small and without text of the server, so that it costs nothing to
/// make and can be shown anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No message has this type byte.
    #[error("no backend message has the type byte 0x{0:02x}")]
    UnknownMessage(u8),
    /// A message of a part of the protocol that this frontend never starts.
    #[error("{0} was never asked for")]
    Unsupported(&'static str),
    /// A length that the message cannot have.
    #[error("{message} with a length of {length}, expected {min} to {max}")]
    Length {
        /// The message.
        message: &'static str,
        /// The length in its header, which includes itself.
        length: i32,
        /// The least that makes sense.
        min: u32,
        /// The most that is accepted.
        max: u32,
    },
    /// A body that does not have the form the manual gives.
    #[error("{message} is malformed: {what}")]
    Malformed {
        /// The message.
        message: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A message that this state does not allow.
    #[error("{message} came {state}")]
    Unexpected {
        /// The message.
        message: &'static str,
        /// Where the session was.
        state: &'static str,
    },
    /// More messages or bytes than there can be need for.
    #[error("more than {limit} {what}")]
    Budget {
        /// What there was too much of, and where.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
}

/// Why authentication failed on this side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    /// The server asked for a method that the configuration does not allow.
    #[error(
        "the server asks for {asked} authentication, but only {allowed} is allowed here; \
         change the server's pg_hba.conf, or allow the method with require_auth"
    )]
    Refused {
        /// The method, as `require_auth` names it.
        asked: &'static str,
        /// The allowed methods, as `require_auth` lists them.
        allowed: Box<str>,
    },
    /// The server let us in without asking for the password that is configured.
    #[error(
        "the server asks for no password, so it has not proved that it is the right one, and only \
         {allowed} is allowed here; change the server's pg_hba.conf, or add none to require_auth, \
         or configure no password (PGPASSWORD counts, too)"
    )]
    Unasked {
        /// The allowed methods, as `require_auth` lists them.
        allowed: Box<str>,
    },
    /// The server asked for a method that this frontend does not speak.
    #[error("the server asks for {0} authentication, which this library does not speak")]
    Unsupported(&'static str),
    /// The server wants a password, and there is none.
    #[error(
        "the server asks for a password, and none is configured; set one (PGPASSWORD, or \
         password= in the connection string)"
    )]
    NoPassword,
    /// The server asked for what cannot be bound to the TLS channel.
    #[error(
        "channel_binding=require, but the server asks for {0}: it may be an impostor; change the \
         server's pg_hba.conf to scram-sha-256, and the role's password to be kept so"
    )]
    Unbound(&'static str),
    /// There is no TLS channel to bind to.
    #[error(
        "channel_binding=require, but the connection has no TLS; set sslmode=verify-full, or \
         connect over TCP instead of a Unix-domain socket"
    )]
    BindingWithoutTls,
    /// The hash of the server's certificate is not defined.
    #[error(
        "channel_binding=require, but the server's certificate is signed with an algorithm for \
         which RFC 5929 defines no hash (Ed25519, RSA-PSS); give the server one signed with ECDSA \
         or RSA (PKCS#1)"
    )]
    NoEndPoint,
    /// A server that has TLS, at the end of a connection that has none.
    #[error(
        "the server offers SCRAM-SHA-256-PLUS, which needs TLS, on a connection without: somebody \
         may have taken TLS off on the way; check what is between this program and the server"
    )]
    PlusWithoutTls,
    /// The SCRAM exchange failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// Why locks on a server would not be safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// A hot standby keeps a lock table of its own.
    #[error("it is a standby, whose locks the primary does not see; connect to the primary")]
    Standby,
    /// The session is not with the backend that runs the statements.
    #[error(
        "the session was opened with process {announced} and runs in process {actual}: a pooler \
         or proxy stands between; connect to PostgreSQL itself, or, if it keeps each session on \
         one server process (PgBouncer in session mode), say so with \
         Config::proxy(Proxy::SessionAffine)"
    )]
    Pooler {
        /// The process id of BackendKeyData.
        announced: i32,
        /// The answer of `pg_backend_pid()`.
        actual: i32,
    },
    /// Nobody said which process the session is with.
    #[error(
        "it announced no server process for the session: a proxy stands between; connect to \
         PostgreSQL itself, or, if the proxy keeps each session on one server process, say so \
         with Config::proxy(Proxy::SessionAffine)"
    )]
    Unannounced,
    /// The session shares a server process with others.
    #[error(
        "the session is not alone in its server process ({0}): a pooler hands processes round; \
         connect to PostgreSQL itself, or to a pooler in session mode"
    )]
    Shared(&'static str),
    /// A lock does not exclude.
    #[error("its advisory locks exclude nobody ({0}); use a PostgreSQL server")]
    Fake(&'static str),
    /// An engine whose locks are known not to exclude.
    #[error("it is {0}; use a PostgreSQL server")]
    Engine(&'static str),
    /// The server lacks what every PostgreSQL has.
    #[error("it cannot run what every PostgreSQL can (SQLSTATE {0}: {1}); use a PostgreSQL server")]
    Foreign(Box<str>, Box<str>),
    /// Only a session that can write was asked for.
    #[error(
        "its transactions are read-only, and target_session_attrs=read-write was asked for; \
         connect to another server, or set default_transaction_read_only=off"
    )]
    ReadOnly,
    /// A setting was not taken.
    #[error(
        "the server keeps {name} at '{actual}' where '{wanted}' was set; locks need that value"
    )]
    Setting {
        /// The setting.
        name: &'static str,
        /// The value that was asked for, in the setting's base unit.
        wanted: Box<str>,
        /// The value read back.
        actual: Box<str>,
    },
    /// An old protocol, where the configuration asks for a newer one.
    #[error(
        "it speaks protocol 3.0 only, and min_protocol_version=3.2 was asked for; use PostgreSQL \
         18 or later, or lower min_protocol_version"
    )]
    Protocol,
    /// An error before BackendKeyData, where the protocols differ: its SQLSTATE and message.
    #[error(
        "it let us in and then failed at the key that protocol 3.2 has (SQLSTATE {0}: {1}): a \
         pooler that speaks 3.0 only may stand between; ask for 3.0, by min_protocol_version and \
         max_protocol_version"
    )]
    Unkeyed(Box<str>, Box<str>),
    /// An old server.
    #[error("its version is '{0}'; PostgreSQL 10 or later is needed")]
    Version(Box<str>),
}
