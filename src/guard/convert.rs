//! From the protocol's faults to the errors and causes that callers see.

use std::time::Duration;

use super::ledger::Disagreement;
use crate::context::Cause;
use crate::error::{Error, SqlState, Unsuitability};
use crate::holders::{Holder, Holders, Place, SessionInfo, Waiter};
use crate::key::Key;
use crate::proto::fault::{Fault, Unsuitable, Violation};
use crate::proto::fields::ServerError;
use crate::proto::frontend::KeyParameters;
use crate::proto::listing::{self, Entry, Listing, Role};
use crate::proto::statement;
use crate::token::Token;

/// The error that a fault is reported as.
pub(crate) fn error(fault: Fault) -> Error {
    match fault {
        Fault::Violation(violation) => Error::Protocol(violation.to_string().into()),
        Fault::Server(report) => statement_error(&report),
        Fault::Auth(fault) => Error::Auth(fault.to_string().into()),
        Fault::Unsuitable(reason) => {
            Error::Unsuitable { kind: kind(&reason), reason: reason.to_string().into() }
        }
        Fault::Internal(what) => Error::Config(what.into()),
    }
}

fn kind(reason: &Unsuitable) -> Unsuitability {
    match reason {
        Unsuitable::Standby => Unsuitability::Standby,
        Unsuitable::Pooler { .. } | Unsuitable::Unannounced | Unsuitable::Shared(_) => {
            Unsuitability::Pooler
        }
        Unsuitable::Fake(_) => Unsuitability::FakeLocks,
        Unsuitable::Engine(_) | Unsuitable::Foreign(..) | Unsuitable::Version(_) => {
            Unsuitability::Engine
        }
        Unsuitable::ReadOnly => Unsuitability::ReadOnly,
        Unsuitable::Protocol | Unsuitable::Unkeyed(..) => Unsuitability::Protocol,
        Unsuitable::Setting { .. } => Unsuitability::Setting,
    }
}

/// The cause that the contexts of the lost locks show.
pub(crate) fn cause(fault: &Fault) -> Cause {
    match fault {
        Fault::Violation(_) | Fault::Internal(_) => Cause::ProtocolViolation,
        Fault::Server(_) | Fault::Unsuitable(_) => Cause::ServerShutdown,
        Fault::Auth(_) => Cause::ConnectionLost,
    }
}

/// A report of the server about one statement.
pub(crate) fn statement_error(report: &ServerError) -> Error {
    Error::Server { sqlstate: SqlState::new(report.sqlstate), message: report.message.clone() }
}

/// An unlock that returned false, or an answer to nothing: the server's lock table is not what the
/// ledger says.
pub(crate) fn disagreement(_: Disagreement) -> Violation {
    Violation::Malformed {
        message: "DataRow",
        what: "the server denies a lock that this session holds, or failed to unlock it",
    }
}

impl From<statement::Token> for Token {
    fn from(statement::Token { timeline, lsn }: statement::Token) -> Self {
        Self { timeline, lsn }
    }
}

/// The connect deadline passed, or the share of it that this server had.
pub(crate) fn connect_timeout(limit: Duration, shared: bool, state: &str, server: &str) -> Error {
    let share = if shared { "its share of " } else { "" };
    Error::Connect {
        address: server.into(),
        reason: format!(
            "no usable session within {share}{limit:?} (it hung {state}); check that this is the \
             address of a PostgreSQL server, or raise connect_timeout"
        )
        .into(),
        source: None,
    }
}

/// What became of the witness, as the manager reports it.
pub(crate) fn testimony(error: Error) -> Error {
    const WHAT: &str = "the second connection, which tests the server's locks";
    const HINT: &str = "allow the role one connection more, or leave the test out with \
                        Config::witness(false)";
    match error {
        Error::Server { sqlstate, message } => {
            let message = format!("{WHAT}, was refused: {message} ({HINT})").into();
            Error::Server { sqlstate, message }
        }
        Error::Connect { address, reason, source } => {
            let reason = format!("{WHAT}, failed: {reason} ({HINT})").into();
            Error::Connect { address, reason, source }
        }
        other => other,
    }
}

/// The server did not answer in time.
pub(crate) fn reply_overdue(limit: Duration, server: &str) -> Error {
    Error::Disconnected {
        address: server.into(),
        reason: format!("no answer within {limit:?}; check the network, or raise reply_timeout")
            .into(),
        source: None,
    }
}

/// Who holds a key and who waits for it.
pub(crate) fn holders(listing: Listing) -> Holders {
    let mut holders = Holders {
        holders: Vec::new(),
        waiters: Vec::new(),
        holder_count: listing.holders,
        waiter_count: listing.waiters,
    };
    for entry in listing.entries {
        let (role, place) = (entry.role, place(entry.place));
        let session = session(entry);
        match role {
            Role::Holds { shared } => holders.holders.push(Holder { shared, place, session }),
            Role::Blocked { shared } => {
                holders.waiters.push(Waiter { shared: Some(shared), place, session });
            }
            Role::Registered => holders.waiters.push(Waiter { shared: None, place, session }),
        }
    }
    holders
}

fn place(place: listing::Place) -> Place {
    match place {
        listing::Place::Key => Place::Key,
        listing::Place::Slot(slot) => Place::Slot(slot),
        listing::Place::AnySlot => Place::AnySlot,
    }
}

fn session(entry: Entry) -> SessionInfo {
    SessionInfo {
        process_id: entry.process_id,
        is_own: entry.is_own,
        is_restricted: entry.is_restricted,
        application_name: entry.application_name.map(String::from),
        client_address: entry.address,
        client_port: entry.port,
        connected_for: entry.session,
        transaction_for: entry.transaction,
        statement_for: entry.statement,
    }
}

/// The key that a notification speaks of.
pub(crate) fn key(key: KeyParameters) -> Key {
    match key {
        KeyParameters::Bigint(key) => Key::Bigint(key),
        KeyParameters::Pair(high, low) => Key::Pair(high, low),
    }
}
