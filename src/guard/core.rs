//! The guard without its socket: one value that takes requests, bytes and the time, and gives
//! bytes, answers and the time it wants to be called again. Pure: the same code runs under the
//! event loop, in the tests and in the fuzz targets.
//!
//! # States of the link
//!
//! | state | meaning | leaves by |
//! |---|---|---|
//! | Down | no connection; the next attempt is due at `retry_at` | [`Core::begin_connecting`] |
//! | Connecting | the shell resolves and dials | [`Core::connected`], [`Core::fail`] |
//! | Starting | the session's handshake is under way | its Ready event, [`Core::fail`] |
//! | Ready | statements flow | [`Core::fail`] |
//! | Closed | for good | - |

use std::sync::Arc;
use std::time::Duration;

use super::convert;
use super::jitter::Jitter;
use super::lease::{Lease, LeaseTimes};
use super::ledger::{Ledger, LedgerLimits, Op, OpKind, Sink};
use crate::clock::Time;
use crate::context::Cause;
use crate::error::Error;
use crate::key::Key;
use crate::proto::fault::Fault;
use crate::proto::frontend::KeyParameters;
use crate::proto::handshake::Startup;
use crate::proto::session::{Event, Session, SessionLimits, Statement};
use crate::slots::{HoldId, Mode, Ticket};

/// What the core takes from the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoreConfig {
    pub(crate) limits: LedgerLimits,
    pub(crate) session: SessionLimits,
    pub(crate) times: LeaseTimes,
    /// From the first step of connecting to the first ReadyForQuery of a prepared session.
    pub(crate) connect_timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Core {
    config: CoreConfig,
    /// The server's name in errors.
    server: Box<str>,
    ledger: Ledger,
    link: Link,
    /// Why the latest attempt to connect failed, or the session ended.
    last_error: Option<Arc<Error>>,
    /// Attempts in a row that failed.
    failures: u32,
    jitter: Jitter,
}

#[derive(Debug)]
enum Link {
    Down { retry_at: Time },
    Connecting { began: Time },
    Starting { began: Time, session: Session },
    Ready { session: Session, lease: Lease, since: Time },
    Closed,
}

/// How the shell learns what became of the link.
#[derive(Debug)]
pub(crate) enum Change {
    /// The session is ready.
    Ready,
    /// The session, or the attempt to get one, has ended: close the connection.
    Ended(Arc<Error>),
}

/// The first pause before a reconnect, doubled with each failure up to [`BACKOFF_MAX`]; jitter
/// takes any part of it away but [`BACKOFF_MIN`].
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A session that has lived for so long was a good one: the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(1);
/// What shorter ones count for at the most: pauses of up to 800 ms.
const FAILURES_FLAPPING: u32 = 4;
/// However lucky the jitter: reconnecting is never a hot loop.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// When the server says no (a wrong password, a standby), another try will hardly help.
const BACKOFF_REFUSED: Duration = Duration::from_secs(2);

impl Core {
    pub(crate) fn new(config: CoreConfig, seed: u64) -> Self {
        Self {
            config,
            server: "the server".into(),
            ledger: Ledger::new(config.limits, seed),
            link: Link::Down { retry_at: Time::ZERO },
            last_error: None,
            failures: 0,
            jitter: Jitter::new(seed.rotate_left(32)),
        }
    }

    /// How the server is called in errors.
    pub(crate) fn with_server(mut self, server: String) -> Self {
        self.server = server.into();
        self
    }

    // ----- what callers ask for -----

    pub(crate) fn request(&mut self, ticket: Ticket, key: Key, mode: Mode, sink: &mut impl Sink) {
        match (&self.link, mode) {
            (Link::Ready { .. }, _) => self.ledger.request(ticket, key, mode, sink),
            (Link::Closed, _) => sink.failed(ticket, Error::Closed),
            (_, Mode::Try) => {
                sink.failed(ticket, Error::Unavailable { last: self.last_error.clone() });
            }
            // Who waits anyway waits for the reconnect as well.
            (_, Mode::Wait) => self.ledger.request(ticket, key, mode, sink),
        }
    }

    /// Releases a held lock, and answers the ticket once the server has. Says whether the hold was
    /// still its own.
    pub(crate) fn unlock(&mut self, ticket: Ticket, hold: HoldId, sink: &mut impl Sink) -> bool {
        self.ledger.release_and_tell(ticket, hold, sink)
    }

    pub(crate) fn abandon(&mut self, ticket: Ticket) -> bool {
        self.ledger.abandon(ticket)
    }

    pub(crate) fn release(&mut self, hold: HoldId, sink: &mut impl Sink) -> bool {
        self.ledger.release(hold, sink)
    }

    // ----- connecting -----

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

    /// The connection stands: start a session on it.
    pub(crate) fn connected(
        &mut self,
        now: Time,
        startup: Startup,
        sink: &mut impl Sink,
    ) -> Option<Change> {
        let Link::Connecting { began } = self.link else { return None };
        match Session::new(startup, self.config.session) {
            Ok(session) => {
                self.link = Link::Starting { began, session };
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

    // ----- the session -----

    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.link {
            Link::Starting { session, .. } | Link::Ready { session, .. } => Some(session),
            Link::Down { .. } | Link::Connecting { .. } | Link::Closed => None,
        }
    }

    /// Decodes what has arrived, and acts on it.
    pub(crate) fn handle_input(&mut self, now: Time, sink: &mut impl Sink) -> Option<Change> {
        let mut change = None;
        loop {
            let Some(session) = self.session() else { return change };
            let result = match session.poll_event() {
                Ok(Some(Event::Ready(_))) => {
                    self.become_ready(now, sink);
                    change = Some(Change::Ready);
                    continue;
                }
                Ok(Some(event)) => self.handle_event(event, now, sink),
                Ok(None) => return change,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                return Some(self.fault(now, fault, sink));
            }
        }
    }

    /// Does a slice of what the handshake has to compute; says whether there is more.
    pub(crate) fn work(&mut self, now: Time, sink: &mut impl Sink) -> (bool, Option<Change>) {
        let Some(session) = self.session().filter(|session| session.is_deriving()) else {
            return (false, None);
        };
        match session.derive(DERIVE_ROUNDS) {
            Ok(()) if session.is_deriving() => (true, None),
            // What came in the meantime waits in the session.
            Ok(()) => (false, self.handle_input(now, sink)),
            Err(fault) => (false, Some(self.fault(now, fault, sink))),
        }
    }

    /// Hands the ledger's statements to the session, under one Sync; a heartbeat if there are none
    /// and one is due.
    pub(crate) fn encode(&mut self, now: Time) {
        let Link::Ready { session, lease, .. } = &mut self.link else { return };
        let mut submitted = false;
        while let Some((op, key)) = self.ledger.peek_op() {
            if session.submit(statement(op, key), op.to_number()).is_err() {
                break;
            }
            self.ledger.pop_op();
            submitted = true;
        }
        let is_idle = session.oldest_mark().is_none();
        let beat = !submitted && is_idle && now >= lease.heartbeat_at();
        if (submitted || beat) && session.sync(now.as_nanos()).is_ok() {
            match beat && self.ledger.is_empty() {
                true => lease.sent_idle(now),
                false => lease.sent(now),
            }
        }
    }

    /// Acts on the deadlines that have passed.
    pub(crate) fn handle_timeout(&mut self, now: Time, sink: &mut impl Sink) -> Option<Change> {
        if now >= self.connect_deadline() {
            let state = match &self.link {
                Link::Starting { session, .. } => session.state(),
                _ => "before a connection was made",
            };
            let error = convert::connect_timeout(self.config.connect_timeout, state, &self.server);
            return Some(self.fail(now, Cause::ConnectionLost, error, sink));
        }
        if self.is_overdue(now) {
            let error = convert::reply_overdue(self.config.times.reply_timeout, &self.server);
            return Some(self.fail(now, Cause::ReplyOverdue, error, sink));
        }
        if now >= self.ledger.next_retry() {
            self.ledger.retry(now, sink);
        }
        None
    }

    /// Whether there is a session that statements can go to.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.link, Link::Ready { .. })
    }

    /// Whether the server has not answered in time.
    pub(crate) fn is_overdue(&self, now: Time) -> bool {
        let Link::Ready { session, lease, .. } = &self.link else { return false };
        let mark = session.oldest_mark();
        mark.is_some_and(|mark| now >= lease.overdue_at(Time::from_nanos(mark)))
    }

    /// When [`Core::handle_timeout`] or [`Core::encode`] has to be called at the latest.
    pub(crate) fn next_timeout(&self) -> Time {
        match &self.link {
            Link::Down { retry_at } => *retry_at,
            Link::Connecting { .. } | Link::Starting { .. } => self.connect_deadline(),
            Link::Ready { session, lease, .. } => {
                let beat = match session.oldest_mark() {
                    Some(mark) => lease.overdue_at(Time::from_nanos(mark)),
                    None => lease.heartbeat_at(),
                };
                beat.min(self.ledger.next_retry())
            }
            Link::Closed => Time::NEVER,
        }
    }

    /// Until when the session's locks are provably held.
    pub(crate) fn lease_until(&self) -> Time {
        match &self.link {
            Link::Ready { lease, .. } => lease.until(),
            _ => Time::ZERO,
        }
    }

    /// Whether the request has a statement under way, so that driving the session helps it.
    pub(crate) fn is_active(&self, ticket: Ticket) -> bool {
        self.ledger.is_active(ticket)
    }

    /// How many requests have a statement under way.
    pub(crate) fn active(&self) -> u32 {
        self.ledger.active()
    }

    /// How many requests wait in a queue.
    pub(crate) fn waiting(&self) -> u32 {
        self.ledger.waiting()
    }

    /// The slots whose statements are in flight, oldest first.
    pub(crate) fn slots_in_flight(&self) -> impl Iterator<Item = u32> + '_ {
        let session = match &self.link {
            Link::Ready { session, .. } => Some(session),
            _ => None,
        };
        session
            .into_iter()
            .flat_map(|session| session.tickets())
            .filter_map(|number| self.ledger.slot_of(Op::from_number(number)))
    }

    /// Ends everything for good.
    pub(crate) fn close(&mut self, sink: &mut impl Sink) {
        self.ledger.offline(Cause::ManagerClosed, sink);
        if let Some(session) = self.session() {
            session.terminate();
        }
    }

    /// After [`Core::close`], once the goodbye was sent as far as it goes.
    pub(crate) fn closed(&mut self) {
        self.link = Link::Closed;
    }

    fn become_ready(&mut self, now: Time, sink: &mut impl Sink) {
        if let Link::Starting { began, session } = std::mem::replace(&mut self.link, Link::Closed) {
            // Nothing was sent before `began`, so a lease from there is on the safe side.
            let lease = Lease::new(self.config.times, began);
            self.link = Link::Ready { session, lease, since: now };
            self.last_error = None;
            self.ledger.online(sink);
        }
    }

    fn handle_event(&mut self, event: Event, now: Time, sink: &mut impl Sink) -> Result<(), Fault> {
        let result = match event {
            Event::Ready(_) => Ok(()),
            Event::Answer { ticket, value } => {
                self.heard(sink);
                self.ledger.answered(Op::from_number(ticket), value, now, sink)
            }
            Event::Failed { ticket, error } => {
                self.ledger.failed(Op::from_number(ticket), convert::statement_error(&error))
            }
            Event::Skipped { ticket } => {
                self.ledger.skipped(Op::from_number(ticket));
                Ok(())
            }
            Event::Synced { mark } => {
                if let Link::Ready { lease, .. } = &mut self.link {
                    lease.answered(Time::from_nanos(mark));
                }
                Ok(())
            }
        };
        result.map_err(|disagreement| convert::disagreement(disagreement).into())
    }

    /// A statement was answered: so the server has read its batch, which was sent at the mark of
    /// the Sync behind it. Told before a grant is: after a start that took longer than the lease,
    /// a lock would else be doubted, and with that lost, before its ReadyForQuery is in.
    fn heard(&mut self, sink: &mut impl Sink) {
        let Link::Ready { session, lease, .. } = &mut self.link else { return };
        if let Some(mark) = session.oldest_mark() {
            lease.answered(Time::from_nanos(mark));
            sink.believed(lease.until());
        }
    }

    fn fault(&mut self, now: Time, fault: Fault, sink: &mut impl Sink) -> Change {
        let cause = convert::cause(&fault);
        self.fail(now, cause, convert::error(fault), sink)
    }

    /// Full-jitter backoff.
    fn pause(&mut self, error: &Error) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if error.is_auth() || matches!(error, Error::Unsuitable(_) | Error::Config(_)) {
            return self.jitter.upper_half_of(BACKOFF_REFUSED);
        }
        let span = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        self.jitter.up_to(span).max(BACKOFF_MIN)
    }
}

/// How many rounds of key derivation run between two looks at the clock: about a millisecond.
const DERIVE_ROUNDS: u32 = 1_000;

fn statement(op: Op, key: Key) -> Statement {
    let parameters = match key {
        Key::Bigint(key) => KeyParameters::Bigint(key),
        Key::Pair(high, low) => KeyParameters::Pair(high, low),
    };
    match op.kind {
        OpKind::Try => Statement::TryLock(parameters),
        OpKind::Unlock | OpKind::UnlockAndTell | OpKind::Verify => Statement::Unlock(parameters),
    }
}

#[cfg(test)]
mod tests;
