//! The error type of the public interface.
//!
//! Every message says what failed, what was expected, and what to do about it. No message holds a
//! password or any other secret. The errors that a lock request can meet while all is well on the
//! wire ([`Error::Unavailable`], [`Error::Canceled`], the limits) are made without allocating.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::context::Cause;
use crate::key::Key;
use crate::token::Token;

/// What went wrong.
///
/// The `is_*` predicates answer the questions a program asks; match on the variants only where a
/// predicate is missing. New variants may be added in a minor release.
///
/// ```no_run
/// # fn example(manager: &distlock::Manager, ctx: &distlock::Context) {
/// match manager.try_lock(ctx, "invoice:42") {
///     Ok(Some(lock)) => println!("{} is ours", lock.key()),
///     Ok(None) => println!("somebody else is at it"),
///     Err(error) if error.is_unavailable() || error.is_session_lost() => println!("try later"),
///     Err(error) => eprintln!("{error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used. Nothing was sent to any server.
    #[error("invalid configuration: {0}")]
    Config(Box<str>),

    /// No connection to the server could be made within the connect deadline.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The host and port, or the socket's path, that was tried.
        address: Box<str>,
        /// What failed and what to do.
        reason: Box<str>,
        /// The operating system's error, where there was one.
        source: Option<Arc<io::Error>>,
    },

    /// The connection that was there is no more.
    #[error("the connection to {address} ended: {reason}")]
    Disconnected {
        /// The host and port, or the socket's path.
        address: Box<str>,
        /// What ended it.
        reason: Box<str>,
        /// The operating system's error, where there was one.
        source: Option<Arc<io::Error>>,
    },

    /// The server and this program could not agree on who they are.
    #[error("authentication failed: {0}")]
    Auth(Box<str>),

    /// The server sent something that the protocol does not allow here. The session was ended.
    #[error("the server broke the protocol: {0}; is this a PostgreSQL server?")]
    Protocol(Box<str>),

    /// The server answered with an error of its own.
    #[error("the server reported {sqlstate}: {message}{}", advice(*sqlstate))]
    Server {
        /// The five-character code of the error.
        sqlstate: SqlState,
        /// The server's text, with control characters escaped.
        message: Box<str>,
    },

    /// The server was reached, but locks taken there would not be safe.
    #[error("locks on this server would not be safe: {reason}")]
    Unsuitable {
        /// In a word.
        kind: Unsuitability,
        /// What was seen, and what to do.
        reason: Box<str>,
    },

    /// There is no session with the server now. The manager is reconnecting; nothing was sent.
    #[error(
        "no session with the server at the moment; the manager keeps reconnecting, try \
         again{}", Last(.last)
    )]
    Unavailable {
        /// What ended the last session, or the latest attempt to get one.
        #[source]
        last: Option<Arc<Self>>,
    },

    /// The session ended while the request was under way.
    #[error("the session ended ({cause}) before the request was answered: {outcome}")]
    Lost {
        /// Why the session ended.
        cause: Cause,
        /// Whether the server may have granted the lock.
        outcome: Outcome,
    },

    /// The request's context was done, or its time was up, before the lock was granted.
    #[error("gave up before the lock was granted: {0}")]
    Canceled(Cause),

    /// The manager holds as many locks as [`Config::max_locks`](crate::Config::max_locks) allows,
    /// with those that it is asking the server for. So a request needs a place even if it would
    /// only wait.
    #[error(
        "the manager may hold no more than {limit} locks; release some, ask for fewer, or raise \
         Config::max_locks (and the server's max_locks_per_transaction with it)"
    )]
    TooManyLocks {
        /// The limit in force.
        limit: u32,
    },

    /// As many calls are under way as [`Config::max_requests`](crate::Config::max_requests) allows.
    #[error(
        "no more than {limit} requests may be under way; wait for some of them, ask for fewer \
         locks at once, or raise Config::max_requests"
    )]
    TooManyRequests {
        /// The limit in force.
        limit: u32,
    },

    /// As many calls wait for a lock as [`Config::max_waiters`](crate::Config::max_waiters) allows.
    #[error(
        "{limit} requests are already waiting for a lock; use try_lock, or raise \
         Config::max_waiters"
    )]
    TooManyWaiters {
        /// The limit in force.
        limit: u32,
    },

    /// The lock could not be made a shared one, and is held alone as before: a client waits for the
    /// key in the server's own queue (`pg_advisory_lock`), and the server lets nobody share a key
    /// that such a client waits for (manual: explicit-locking, "Advisory Locks").
    #[error(
        "{key} cannot be shared while a client waits for it in the server's own queue; it is held \
         alone as before, release it or try again later"
    )]
    QueuedFor {
        /// The key.
        key: Key,
    },

    /// The server's lock table is full (SQLSTATE 53200). All other locks are untouched.
    #[error(
        "the server's lock table is full, key {key} was not locked; release locks, or raise \
         max_locks_per_transaction on the server"
    )]
    LockTableFull {
        /// The key that was asked for.
        key: Key,
    },

    /// The request contradicts itself, or asks for more than there can be.
    #[error("this cannot be asked for: {0}")]
    Request(&'static str),

    /// A fencing token does not fit into the number of [`Token::to_i64`].
    #[error(
        "the fencing token {token} does not fit into an i64 (timelines up to 32,767, 256 TiB of \
         log); store its two numbers"
    )]
    TokenTooLarge {
        /// The token.
        token: Token,
    },

    /// A set of locks was asked for, with no key in it: a lock on nothing would always be granted,
    /// and protect nothing.
    #[error("no key was given; a set of locks needs at least one")]
    NoKeys,

    /// The manager was closed.
    #[error("the manager is closed; make a new one with Manager::connect")]
    Closed,
}

/// Why locks on a server would not be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsuitability {
    /// It is a standby, whose lock table the primary does not see.
    Standby,
    /// A pooler or proxy stands between, or hands one server process to several clients.
    Pooler,
    /// Its advisory locks exclude nobody.
    FakeLocks,
    /// It is no PostgreSQL, or too old.
    Engine,
    /// It did not take a setting of the session.
    Setting,
    /// It is read-only, and `target_session_attrs` asks for one that is not.
    ReadOnly,
    /// It does not speak the protocol version that `min_protocol_version` asks for.
    Protocol,
}

/// Whether a lock request that failed may have been granted by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The lock was not granted to this request.
    NotAcquired,
    /// The server may have granted the lock before the session ended. It frees it with the
    /// session: at once if it knows that the session is gone, else within the server's timeout.
    Unknown,
}

/// A five-character SQLSTATE (manual: Appendix A, "PostgreSQL Error Codes").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl Error {
    /// There was no session when the request came; nothing was sent. Trying again later is safe.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The request's own context or time limit ended it.
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Canceled(_))
    }

    /// The request's time limit, or its context's deadline, ended it.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Canceled(Cause::DeadlineExceeded))
    }

    /// The manager's own limit on held locks was reached.
    pub fn is_max_locks(&self) -> bool {
        matches!(self, Self::TooManyLocks { .. })
    }

    /// A limit of this manager on locks, requests or waiters was reached.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TooManyLocks { .. } | Self::TooManyRequests { .. } | Self::TooManyWaiters { .. }
        )
    }

    /// The server has no room for another lock (SQLSTATE 53200).
    pub fn is_lock_table_full(&self) -> bool {
        matches!(self, Self::LockTableFull { .. })
    }

    /// The session ended while the request was under way.
    pub fn is_session_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Authentication failed, on either side.
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Auth(_))
            || self.sqlstate().is_some_and(|state| state.as_str().starts_with("28"))
    }

    /// A pooler or proxy stands between this process and the server, or hands one server process
    /// to several clients; see [`Config::proxy`](crate::Config::proxy).
    pub fn is_pooler(&self) -> bool {
        self.unsuitability() == Some(Unsuitability::Pooler)
    }

    /// The server is a standby.
    pub fn is_standby(&self) -> bool {
        self.unsuitability() == Some(Unsuitability::Standby)
    }

    /// Why locks on the server would not be safe; looks through the source chain of
    /// [`Error::Unavailable`].
    pub fn unsuitability(&self) -> Option<Unsuitability> {
        match self {
            Self::Unsuitable { kind, .. } => Some(*kind),
            Self::Unavailable { last: Some(last) } => last.unsuitability(),
            _ => None,
        }
    }

    /// The configuration was refused.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    /// The manager was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// The server's SQLSTATE, where the server reported one; looks through the source chain of
    /// [`Error::Unavailable`].
    ///
    /// ```no_run
    /// # fn example(error: distlock::Error) {
    /// if error.sqlstate().is_some_and(|state| state.as_str() == "53300") {
    ///     println!("the server has no connection left");
    /// }
    /// # }
    /// ```
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            Self::Server { sqlstate, .. } => Some(*sqlstate),
            Self::LockTableFull { .. } => Some(SqlState::OUT_OF_MEMORY),
            Self::Unavailable { last: Some(last) } => last.sqlstate(),
            _ => None,
        }
    }

    /// Whether the lock that was asked for may be held by the session that failed.
    ///
    /// ```no_run
    /// # fn example(error: distlock::Error) {
    /// if error.outcome() == distlock::Outcome::Unknown {
    ///     // the server may hold the lock for this session until it notices its end
    /// }
    /// # }
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Lost { outcome, .. } => *outcome,
            _ => Outcome::NotAcquired,
        }
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAcquired => "the lock was not acquired",
            Self::Unknown => {
                "the lock may have been granted, and is freed by the server with the session"
            }
        })
    }
}

impl SqlState {
    /// 53200: the server is out of (shared) memory; for a lock statement, out of lock table.
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");

    /// Wraps a code. Anything but five characters of `0-9A-Z` becomes `XX000` (internal error).
    ///
    /// ```
    /// assert_eq!(distlock::SqlState::new(*b"53200"), distlock::SqlState::OUT_OF_MEMORY);
    /// assert_eq!(distlock::SqlState::new(*b"?????").as_str(), "XX000");
    /// ```
    pub fn new(code: [u8; 5]) -> Self {
        if code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
            Self(code)
        } else {
            Self(*b"XX000")
        }
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // `new` admits ASCII only.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}

/// What to do about the errors that a user meets at connect.
fn advice(sqlstate: SqlState) -> &'static str {
    match sqlstate.as_str() {
        "28P01" => "; check the user and the password",
        "28000" => "; check the user and the database, and the server's pg_hba.conf",
        "3D000" => "; check dbname, or create the database",
        "42501" => "; grant the role what it lacks, or use another one",
        "53300" => "; close connections, or raise max_connections on the server",
        "57P03" => "; the server starts or stops, try again later",
        _ => "",
    }
}

/// Prints the reason behind the text of [`Error::Unavailable`].
struct Last<'a>(&'a Option<Arc<Error>>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(last) => write!(f, " (the last one ended so: {last})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stays_small_enough_to_return_by_value() {
        assert!(size_of::<Error>() <= 48, "{}", size_of::<Error>());
    }

    #[test]
    fn a_malformed_sqlstate_becomes_internal_error() {
        assert_eq!(SqlState::new(*b"53200").as_str(), "53200");
        assert_eq!(SqlState::new(*b"5320\n").as_str(), "XX000");
        assert_eq!(SqlState::new([0xff; 5]).as_str(), "XX000");
    }

    #[test]
    fn unavailable_shows_and_chains_the_latest_attempt() {
        let last = Error::Server { sqlstate: SqlState::new(*b"28P01"), message: "no".into() };
        let error = Error::Unavailable { last: Some(Arc::new(last)) };
        assert!(error.to_string().contains("28P01"), "{error}");
        assert!(error.is_unavailable() && error.is_auth());
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn only_a_lost_request_can_have_been_granted() {
        let lost = Error::Lost { cause: Cause::ConnectionLost, outcome: Outcome::Unknown };
        assert_eq!(lost.outcome(), Outcome::Unknown);
        assert_eq!(Error::Closed.outcome(), Outcome::NotAcquired);
    }
}
