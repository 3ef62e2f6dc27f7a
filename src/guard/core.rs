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

mod connecting;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::convert;
use super::jitter::Jitter;
use super::lease::{Lease, LeaseTimes};
use super::ledger::{Ledger, LedgerLimits, Next, Op, Sink};
use crate::clock::Time;
use crate::context::Cause;
use crate::error::Error;
use crate::key::Key;
use crate::proto::fault::Fault;
use crate::proto::handshake::Greeting;
use crate::proto::probe::Question;
use crate::proto::session::{Event, Refused, Session, SessionLimits};
use crate::slots::{HoldId, Mode, Ticket, Wish};

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
    Down {
        retry_at: Time,
    },
    Connecting {
        began: Time,
    },
    Starting {
        began: Time,
        session: Session,
        attempt: Attempt,
    },
    Ready {
        session: Session,
        lease: Lease,
        since: Time,
        /// Our server process.
        process_id: i32,
    },
    Closed,
}

/// What is left to do if a server does not answer, or will not do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// Whether there are more addresses to try.
    pub(crate) others: bool,
    /// Until when this one is tried, if there are.
    pub(crate) give_up_at: Time,
    /// Until when it may be silent before it is asked for an older protocol version; never, if
    /// there is none to ask for.
    pub(crate) silent_until: Time,
}

/// How the shell learns what became of the link.
#[derive(Debug)]
pub(crate) enum Change {
    /// A witness is to answer this; [`Core::witnessed`] goes on.
    Witness(Question),
    /// The server may not know the protocol version: connect and ask for the older one.
    OlderProtocol,
    /// The server will not do: go on with the next address.
    NextAddress(Error),
    /// The session is ready.
    Ready(Greeting),
    /// The session, or the attempt to get one, has ended: close the connection.
    Ended(Arc<Error>),
}

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

    /// Tells the time of the requests and releases that follow.
    pub(crate) fn tick(&mut self, now: Time) {
        self.ledger.tick(now);
    }

    pub(crate) fn request(
        &mut self,
        ticket: Ticket,
        key: Key,
        wish: Wish,
        mode: Mode,
        sink: &mut impl Sink,
    ) {
        match (&self.link, mode) {
            (Link::Ready { .. }, _) => self.ledger.request(ticket, key, wish, mode, sink),
            (Link::Closed, _) => sink.failed(ticket, Error::Closed),
            (_, Mode::Try | Mode::InTurn) => {
                sink.failed(ticket, Error::Unavailable { last: self.last_error.clone() });
            }
            // Who waits anyway waits for the reconnect as well.
            (_, Mode::Wait) => self.ledger.request(ticket, key, wish, mode, sink),
        }
    }

    /// Releases a held lock, and answers the ticket once the server has.
    pub(crate) fn unlock(&mut self, ticket: Ticket, hold: HoldId, sink: &mut impl Sink) {
        self.ledger.release_and_tell(ticket, hold, sink);
    }

    /// Makes an exclusive lock a shared one, and answers the ticket once the server has.
    pub(crate) fn downgrade(&mut self, ticket: Ticket, hold: HoldId, sink: &mut impl Sink) {
        self.ledger.downgrade(ticket, hold, sink);
    }

    /// Asks who holds a key.
    pub(crate) fn inquire(&mut self, ticket: Ticket, key: Key, sink: &mut impl Sink) {
        match &self.link {
            Link::Ready { .. } => self.ledger.inquire(ticket, key, sink),
            Link::Closed => sink.failed(ticket, Error::Closed),
            _ => sink.failed(ticket, Error::Unavailable { last: self.last_error.clone() }),
        }
    }

    pub(crate) fn abandon(&mut self, ticket: Ticket, sink: &mut impl Sink) -> bool {
        self.ledger.abandon(ticket, sink)
    }

    /// A hold that is not its owner's any more is passed over.
    pub(crate) fn release(&mut self, hold: HoldId, sink: &mut impl Sink) {
        self.ledger.release(hold, sink);
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
                Ok(Some(Event::Ready(greeting))) => {
                    self.become_ready(now, greeting.process_id, sink);
                    change = Some(Change::Ready(greeting));
                    continue;
                }
                Ok(Some(Event::Witness(question))) => return Some(Change::Witness(question)),
                Ok(Some(event)) => self.handle_event(event, now, sink),
                Ok(None) => return change,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                return Some(self.fault(now, fault, sink));
            }
        }
    }

    /// The server has closed the connection. Acts on what it said before and had to wait until we
    /// have computed, or heard a witness.
    pub(crate) fn handle_end(&mut self, now: Time, sink: &mut impl Sink) -> Option<Change> {
        if let Err(fault) = self.session()?.last_word() {
            return Some(self.fault(now, fault, sink));
        }
        self.handle_input(now, sink)
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
        if self.ledger.is_recovering() {
            return;
        }
        if !self.ledger.has_to_send() && now < lease.heartbeat_at() {
            return;
        }
        // Nothing is gained by more: they would wait in the server's socket, and every batch costs.
        if session.batches() >= BATCHES_MAX {
            return;
        }
        let mark = now.as_nanos();
        let (mut submitted, mut synced) = (false, true);
        while let Some(next) = self.ledger.next(session.room()) {
            let (count, taken) = match next {
                Next::One(op) => {
                    let statement = self.ledger.statement(op);
                    (1, session.submit(&statement, op.to_number()))
                }
                Next::Swap(swap, ops) => (2, session.submit_swap(swap, ops.map(Op::to_number))),
                Next::Several(run, count) => {
                    (count, session.submit_run(run, self.ledger.rows(count)))
                }
            };
            match taken {
                Ok(()) => {
                    (0..count).for_each(|_| self.ledger.pop_op());
                    (submitted, synced) = (true, false);
                }
                Err(Refused::SyncFirst) if !synced && session.sync(mark).is_ok() => synced = true,
                Err(_) => break,
            }
        }
        let is_idle = session.oldest_mark().is_none();
        let beat = !submitted && is_idle && now >= lease.heartbeat_at();
        if (!synced || beat) && session.sync(mark).is_err() {
            return;
        }
        match beat && self.ledger.is_empty() {
            true => lease.sent_idle(now),
            false if submitted || beat => lease.sent(now),
            false => {}
        }
    }

    /// Acts on the deadlines that have passed.
    pub(crate) fn handle_timeout(&mut self, now: Time, sink: &mut impl Sink) -> Option<Change> {
        if now >= self.attempt_deadline() {
            let state = match &self.link {
                Link::Starting { session, .. } => session.state(),
                _ => "before a connection was made",
            };
            let shared = self.attempt_deadline() < self.connect_deadline();
            let limit = self.config.connect_timeout;
            let error = convert::connect_timeout(limit, shared, state, &self.server);
            return Some(self.fail(now, Cause::ConnectionLost, error, sink));
        }
        if self.is_overdue(now) {
            let error = convert::reply_overdue(self.config.times.reply_timeout, &self.server);
            return Some(self.fail(now, Cause::ReplyOverdue, error, sink));
        }
        if now >= self.ledger.next_retry() {
            self.ledger.tick(now);
            self.ledger.retry(sink);
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
            Link::Connecting { .. } | Link::Starting { .. } => self.attempt_deadline(),
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

    /// Whether the request is to be tried again, after a notification or a pause.
    pub(crate) fn listens_for(&self, ticket: Ticket) -> bool {
        self.ledger.listens_for(ticket)
    }

    /// How many requests have a statement under way.
    pub(crate) fn active(&self) -> u32 {
        self.ledger.active()
    }

    /// Whether what the server says next is waited for: an answer, by somebody or by what is to be
    /// sent once it is here; or a notification.
    pub(crate) fn is_awaited(&self) -> bool {
        let Link::Ready { session, .. } = &self.link else { return self.ledger.active() > 0 };
        self.ledger.active() > 0
            || session.batches() > 0 && self.ledger.has_waiting()
            || self.ledger.listens()
    }

    /// Whether anybody waits for what is held here.
    pub(crate) fn is_wanted(&self) -> bool {
        self.ledger.is_wanted()
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

    fn become_ready(&mut self, now: Time, process_id: i32, sink: &mut impl Sink) {
        if let Link::Starting { began, session, .. } =
            std::mem::replace(&mut self.link, Link::Closed)
        {
            // Nothing was sent before `began`, so a lease from there is on the safe side.
            let lease = Lease::new(self.config.times, began);
            self.link = Link::Ready { session, lease, since: now, process_id };
            self.last_error = None;
            self.ledger.tick(now);
            self.ledger.online(sink);
        }
    }

    fn handle_event(&mut self, event: Event, now: Time, sink: &mut impl Sink) -> Result<(), Fault> {
        let result = match event {
            Event::Ready(_) | Event::Witness(_) => Ok(()),
            Event::Answer { ticket, value } => {
                // Nothing of it has to be dropped, which the compiler does not see.
                std::mem::forget(event);
                self.heard(sink);
                self.ledger.tick(now);
                self.ledger.answered(Op::from_number(ticket), value, sink)
            }
            Event::Listed { ticket, listing } => {
                self.heard(sink);
                self.ledger.tick(now);
                self.ledger.inquiry_answered(Op::from_number(ticket), listing, sink)
            }
            Event::Failed { ticket, error } => {
                let error = convert::statement_error(&error);
                self.ledger.tick(now);
                self.ledger.failed(Op::from_number(ticket), error, sink)
            }
            Event::Skipped { ticket } => {
                self.ledger.skipped(Op::from_number(ticket));
                Ok(())
            }
            Event::Notified { process_id, key } => {
                // Our own releases yield to others; see the ledger.
                let is_own = matches!(&self.link, Link::Ready { process_id: own, .. }
                    if *own == process_id);
                if !is_own {
                    self.ledger.tick(now);
                    self.ledger.notified(convert::key(key), process_id, sink);
                }
                Ok(())
            }
            Event::CommitFailed { .. } => {
                self.ledger.commit_failed();
                Ok(())
            }
            Event::Synced { mark } => {
                self.ledger.synced();
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
}

/// So many unanswered batches keep the server at work: one that it runs, and one that it has when
/// that is done. What is asked meanwhile goes out together, once one of them is answered.
const BATCHES_MAX: usize = 2;

/// How many rounds of key derivation run between two looks at the clock: about a millisecond.
pub(super) const DERIVE_ROUNDS: u32 = 1_000;
