//! From the protocol's faults to the errors and causes that callers see.

use std::time::Duration;

use super::ledger::Disagreement;
use crate::context::Cause;
use crate::error::{Error, SqlState};
use crate::proto::fault::{Fault, Violation};
use crate::proto::fields::ServerError;

/// The error that a fault is reported as.
pub(crate) fn error(fault: Fault) -> Error {
    match fault {
        Fault::Violation(violation) => Error::Protocol(violation.to_string().into()),
        Fault::Server(report) => statement_error(&report),
        Fault::Auth(fault) => Error::Auth(fault.to_string().into()),
        Fault::Unsuitable(reason) => Error::Unsuitable(reason.to_string().into()),
        Fault::Internal(what) => Error::Config(what.into()),
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

/// The connect deadline passed.
pub(crate) fn connect_timeout(limit: Duration, state: &str, server: &str) -> Error {
    Error::Connect {
        address: server.into(),
        reason: format!(
            "no usable session within {limit:?} (it hung {state}); check that this is the \
             address of a PostgreSQL server, or raise connect_timeout"
        )
        .into(),
        source: None,
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
