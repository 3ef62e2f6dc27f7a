//! How the link comes up, and what is tried when it does not: other addresses, the older protocol
//! version, another attempt after a pause.

use std::sync::Arc;
use std::time::Duration;

use super::{Attempt, Change, Core, Link};
use crate::clock::Time;
use crate::context::Cause;
use crate::error::{Error, Unsuitability};
use crate::guard::ledger::Sink;
use crate::proto::fields;
use crate::proto::handshake::{Startup, UNKEYED};
use crate::proto::session::{Event, Session};

/// The first pause before a reconnect, doubled with each failure up to [`BACKOFF_MAX`]; jitter
/// takes any part of it away but [`BACKOFF_MIN`].
pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that has lived for so long was a good one: the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(1);
/// What shorter ones count for at the most: pauses of up to 800 ms.
const FAILURES_FLAPPING: u32 = 4;
/// However lucky the jitter: reconnecting is never a hot loop.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// When the server says no (a wrong password, a standby), another try will hardly help.
pub(super) const BACKOFF_REFUSED: Duration = Duration::from_secs(2);

impl Core {
    /// Whether it is time for the shell to make a connection.
    pub(crate) fn wants_connection(&self, now: Time) -> bool {
        matches!(self.link, Link::Down { retry_at } if retry_at <= now)
    }

    pub(crate) fn begin_connecting(&mut self, now: Time) {
        self.link = Link::Connecting { began: now };
    }

    /// Whether the shell is to go on with connecting.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.link, Link::Connecting { .. })
    }

    /// The deadline of the whole attempt.
    pub(crate) fn connect_deadline(&self) -> Time {
        match &self.link {
            Link::Connecting { began } | Link::Starting { began, .. } => {
                began.after(self.config.connect_timeout)
            }
            Link::Down { .. } | Link::Ready { .. } | Link::Closed => Time::NEVER,
        }
    }

    /// The deadline of what is being tried just now, which may leave time for something else.
    pub(super) fn attempt_deadline(&self) -> Time {
        let deadline = self.connect_deadline();
        let Link::Starting { session, attempt, .. } = &self.link else { return deadline };
        let others = if attempt.others { attempt.give_up_at } else { Time::NEVER };
        let silence = if session.is_unanswered() { attempt.silent_until } else { Time::NEVER };
        deadline.min(others).min(silence)
    }

    /// The connection stands: start a session on it.
    pub(crate) fn connected(
        &mut self,
        now: Time,
        startup: Startup,
        attempt: Attempt,
        sink: &mut impl Sink,
    ) -> Option<Change> {
        let Link::Connecting { began } = self.link else { return None };
        match Session::new(startup, self.config.session) {
            Ok(session) => {
                self.link = Link::Starting { began, session, attempt };
                None
            }
            Err(fault) => Some(self.fault(now, fault, sink)),
        }
    }

    /// The connection, or the attempt to get one, has failed.
    pub(crate) fn fail(
        &mut self,
        now: Time,
        cause: Cause,
        error: Error,
        sink: &mut impl Sink,
    ) -> Change {
        if let Some(change) = self.way_out(now, &error) {
            return change;
        }
        if let Link::Ready { since, .. } = &self.link {
            // A session that ends as soon as it has begun is no success: a server that does that
            // over and over must not be asked 40 times a second.
            let steady = now >= since.after(STEADY);
            self.failures = if steady { 0 } else { self.failures.min(FAILURES_FLAPPING) };
            // Requests that wait for a reconnect have lost nothing; a session's have.
            self.ledger.offline(cause, sink);
        }
        let error = Arc::new(error);
        self.last_error = Some(Arc::clone(&error));
        self.link = Link::Down { retry_at: now.after(self.pause(&error)) };
        Change::Ended(error)
    }

    /// What is left to try within the attempt to connect that has failed here.
    fn way_out(&mut self, now: Time, error: &Error) -> Option<Change> {
        let Link::Starting { began, session, attempt } = &self.link else { return None };
        if now >= began.after(self.config.connect_timeout) {
            return None;
        }
        let can_ask_older =
            attempt.silent_until != Time::NEVER && may_be_about_version(session, error);
        // The rest of the time is that of the others.
        let can_ask_older = can_ask_older && !(attempt.others && now >= attempt.give_up_at);
        let change = if can_ask_older {
            Change::OlderProtocol
        } else if attempt.others && may_be_better_elsewhere(error) {
            Change::NextAddress(error.clone())
        } else {
            return None;
        };
        self.link = Link::Connecting { began: *began };
        Some(change)
    }

    /// What became of the witness.
    pub(crate) fn witnessed(
        &mut self,
        now: Time,
        testimony: Result<(), Error>,
        sink: &mut impl Sink,
    ) -> Option<Change> {
        if let Err(error) = testimony {
            return Some(self.fail(now, Cause::ConnectionLost, error, sink));
        }
        match self.session()?.witnessed() {
            Ok(None) => None,
            Ok(Some(Event::Ready(greeting))) => {
                self.become_ready(now, greeting.process_id, sink);
                Some(Change::Ready(greeting))
            }
            Ok(Some(_)) => None,
            Err(fault) => Some(self.fault(now, fault, sink)),
        }
    }

    /// Full-jitter backoff.
    fn pause(&mut self, error: &Error) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if error.is_auth() || matches!(error, Error::Unsuitable { .. } | Error::Config(_)) {
            return self.jitter.upper_half_of(BACKOFF_REFUSED);
        }
        let span = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        self.jitter.up_to(span).max(BACKOFF_MIN)
    }
}

/// Whether the server, or what stands in front of it, may have failed over the protocol version: at
/// the question itself, or at the key, which is longer in 3.2 (Pgpool-II 4.3 passes the version on,
/// and then cannot read the key).
///
/// Not between the two, where our answer to a password request may be on its way: a wrong password
/// can look the same (Pgpool-II says XX000 for that, too), and would be sent twice, which servers
/// count. Once AuthenticationOk is in, the password was right.
fn may_be_about_version(session: &Session, error: &Error) -> bool {
    match error {
        Error::Unsuitable { kind: Unsuitability::Protocol, .. } => true,
        // It hung up, or was silent.
        Error::Connect { .. } => session.is_unanswered() || session.state() == UNKEYED,
        Error::Server { sqlstate, .. } => {
            session.is_unanswered() && fields::may_be_about_version(sqlstate.as_str().as_bytes())
        }
        _ => false,
    }
}

/// Whether another server of the list may do what this one does not. As in libpq, a server that
/// refuses who we are is the last word.
fn may_be_better_elsewhere(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Unsuitable { .. } | Error::Protocol(_) => true,
        Error::Server { sqlstate, .. } => sqlstate.as_str().starts_with("57P0"),
        _ => false,
    }
}
