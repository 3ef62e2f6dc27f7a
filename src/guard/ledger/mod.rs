//! Who holds what and who waits, on this side of the session. Pure data.
//!
//! Session-level advisory locks are re-entrant within a session, so the server would grant a key
//! twice to two threads of one process. This table, keyed by the number and never by the name, is
//! what excludes them (invariant I1). It decides which statements to send and which requests to
//! answer; the outcome of requests and holds goes to a [`Sink`].
//!
//! # A key
//!
//! has at most one *attempt* under way, for one request (trying; or reconciling after a failure,
//! I2), any number of *holders* as far as its mode allows, and a queue of requests that wait.
//!
//! | held | an exclusive request | a shared one | one for a slot |
//! |---|---|---|---|
//! | nothing | tried, if nobody is before it | the same | the same |
//! | exclusive | queued | queued | - |
//! | shared | queued | granted here, if nobody is before it | - |
//! | some slots | - | - | tried, if nobody is before it and the session has not all |
//!
//! A request that does not want to wait is refused where others are queued. A hold that is let go
//! is handed to the first of the queue without a word to the server, if that one wants the same
//! ([`attempt`]). [`waiting`] has what is done about keys that other processes hold.

mod answer;
mod attempt;
mod index;
mod inquiry;
mod op;
mod outbox;
mod recovery;
mod rivals;
mod tables;
#[cfg(test)]
mod tests;
mod turns;
mod waiting;

use std::collections::VecDeque;

use self::attempt::Permits;
use self::index::Index;
pub(crate) use self::op::{Op, OpKind};
pub(crate) use self::outbox::Next;
use self::recovery::Recovery;
use self::rivals::Rivals;
use self::tables::{Attempt, Chains, Doubt, End, Entry, Held, Hold, NONE, Request};
use self::waiting::{Channel, Cooling, STAYS_MAX, Stay};
use super::jitter::Jitter;
use crate::clock::Time;
use crate::context::Cause;
use crate::error::{Error, Outcome};
use crate::key::Key;
use crate::proto::companion::{self, CHANNELS};
use crate::proto::listing::Listing;
use crate::slab::ROOM;
use crate::slots::{HoldId, Mode, Ticket, Want, Wish};
use crate::token::Token;

/// Where the ledger's decisions go.
pub(crate) trait Sink {
    /// The lock is granted; `false` when the requester has gone, and the lock is to be released.
    fn granted(&mut self, ticket: Ticket, hold: HoldId, terms: Terms) -> bool;
    /// The lock is taken, and the request did not want to wait.
    fn refused(&mut self, ticket: Ticket);
    /// The request failed.
    fn failed(&mut self, ticket: Ticket, error: Error);
    /// The slot of a requester that has gone is of no more use here.
    fn forgotten(&mut self, ticket: Ticket);
    /// An awaited unlock or downgrade was answered.
    fn done(&mut self, ticket: Ticket);
    /// Who holds a key was asked, and this is the answer.
    fn listed(&mut self, ticket: Ticket, listing: Box<Listing>);
    /// Until when the session's locks are provably held, told before a grant is.
    fn believed(&mut self, _until: Time) {}
    /// A hold was let go. Its place may be that of the next one at once.
    fn released(&mut self, hold: HoldId);
    /// A held lock was lost.
    fn lost(&mut self, hold: HoldId, cause: Cause);
}

/// What comes with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The fencing token, where one was asked for.
    pub(crate) token: Option<Token>,
    /// Since when the session has the key, which it may have had other holders for.
    pub(crate) since: Time,
}

/// The most of everything (invariant I6).
#[derive(Debug, Clone, Copy)]
pub(crate) struct LedgerLimits {
    /// Locks held or being acquired.
    pub(crate) locks: u32,
    /// Requests under way: the slots.
    pub(crate) requests: u32,
    /// Requests that wait in a queue here.
    pub(crate) waiters: u32,
}

/// The ledger and the server disagree: the session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disagreement;

#[derive(Debug)]
pub(crate) struct Ledger {
    limits: LedgerLimits,
    online: bool,
    /// The time of the call: see [`Ledger::tick`].
    now: Time,
    index: Index,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    holds: Vec<Hold>,
    free_holds: Vec<u32>,
    chains: Chains,
    /// What holders of keys have let go of while a downgrade was under way, and who waits for the
    /// answer to that. Sent in the same breath, the release could get ahead of a downgrade that has
    /// to be sent again.
    owed: Vec<(u32, Option<Ticket>)>,
    /// Why the tries failed that are being reconciled.
    failures: Vec<(u32, Error)>,
    /// Releases that have failed.
    doubts: Vec<Doubt>,
    requests: Vec<Request>,
    outbox: VecDeque<Op>,
    /// Empty but while the outbox is put in order.
    gathered: Vec<Op>,
    /// Who waits for the answer to a release or downgrade, in their order.
    tellers: VecDeque<Teller>,
    /// Keys whose waiters are notified with the batch that is being answered.
    told: Vec<u32>,
    recovery: Recovery,
    cooling: Vec<Cooling>,
    stays: Vec<Stay>,
    /// No later than the earliest `retry_at`, or end of a stay or of listening.
    next_retry: Time,
    channels: [Channel; CHANNELS as usize],
    /// Whether the server takes LISTEN.
    can_listen: bool,
    permits: Permits,
    rivals: Rivals,
    /// Holds, and keys that are tried for one.
    locks_used: u32,
    /// Requests that have a statement under way.
    active: u32,
    waiting: u32,
    jitter: Jitter,
}

/// A request for a release or a downgrade.
#[derive(Debug, Clone, Copy)]
struct Teller {
    entry: u32,
    /// Of a counted lock.
    slot: u16,
    downgrades: bool,
    ticket: Ticket,
}

impl Teller {
    fn is_of(&self, op: Op) -> bool {
        let slot = match op.kind {
            OpKind::ReleaseSlot(slot) | OpKind::UnlockSlot(slot) => slot,
            _ => 0,
        };
        let downgrades =
            matches!(op.kind, OpKind::Downgrade | OpKind::ShareToo | OpKind::ShareOnly);
        (self.entry, self.slot, self.downgrades) == (op.entry, slot, downgrades)
    }
}

/// Batches that notify more keys than this do without a second notification should one be needed.
const TOLD_MAX: usize = 256;

impl Ledger {
    pub(crate) fn new(limits: LedgerLimits, seed: u64) -> Self {
        Self {
            limits,
            online: false,
            now: Time::ZERO,
            index: Index::new(seed),
            entries: Vec::with_capacity(ROOM),
            free_entries: Vec::with_capacity(ROOM),
            holds: Vec::with_capacity(ROOM),
            free_holds: Vec::with_capacity(ROOM),
            chains: Chains::default(),
            owed: Vec::new(),
            failures: Vec::new(),
            doubts: Vec::new(),
            requests: vec![Request::UNKNOWN; limits.requests as usize],
            outbox: VecDeque::with_capacity(ROOM),
            gathered: outbox::gathered(),
            tellers: VecDeque::with_capacity(ROOM),
            told: Vec::with_capacity(TOLD_MAX),
            recovery: Recovery::default(),
            cooling: Vec::with_capacity(ROOM),
            stays: Vec::with_capacity(STAYS_MAX),
            next_retry: Time::NEVER,
            channels: Default::default(),
            can_listen: true,
            permits: Permits::ALL,
            rivals: Rivals::new(seed),
            locks_used: 0,
            active: 0,
            waiting: 0,
            jitter: Jitter::new(seed),
        }
    }

    /// Tells the time at which the following calls are made.
    pub(crate) fn tick(&mut self, now: Time) {
        self.now = now;
    }

    /// Takes up a request.
    pub(crate) fn request(
        &mut self,
        ticket: Ticket,
        key: Key,
        wish: Wish,
        mode: Mode,
        sink: &mut impl Sink,
    ) {
        let (key, counted) = subject(key, wish.want);
        let Some(entry) = self.entry_of(key, counted) else {
            let limit = self.limits.requests;
            return sink.failed(ticket, Error::TooManyRequests { limit });
        };
        self.enter(ticket, entry, wish, mode);
        if self.online && self.entries[entry as usize].head == NONE {
            if self.can_join(entry, wish) {
                self.join(entry, ticket, sink);
                return self.drop_if_unused(entry);
            }
            let may_try = mode == Mode::Try || !self.has_to_yield(entry);
            if self.is_open(entry, wish.want) && may_try {
                self.begin_try(entry, ticket, sink);
                return self.drop_if_unused(entry);
            }
        }
        if mode != Mode::Wait && !self.goes_along(entry, wish) {
            self.forget(ticket);
            sink.refused(ticket);
        } else if mode == Mode::Wait && self.waiting >= self.limits.waiters {
            self.forget(ticket);
            sink.failed(ticket, Error::TooManyWaiters { limit: self.limits.waiters });
        } else {
            self.enqueue(entry, ticket.slot, End::Back);
            self.after_queueing(entry);
        }
        self.drop_if_unused(entry);
    }

    /// The requester has gone. Says whether its slot is of no more use here; if not,
    /// [`Sink::forgotten`] tells when.
    pub(crate) fn abandon(&mut self, ticket: Ticket, sink: &mut impl Sink) -> bool {
        let request = &mut self.requests[ticket.slot as usize];
        if request.entry == NONE || request.generation != ticket.generation {
            return true;
        }
        if !request.queued {
            request.abandoned = true;
            return false;
        }
        let (entry, want) = (request.entry, request.want);
        self.dequeue(ticket.slot);
        self.forget(ticket);
        // The one behind it may want less.
        if self.first(entry).is_none_or(|(_, first)| first.want != want) {
            self.stop_cooling(entry);
        }
        self.advance(entry, sink);
        self.settle(entry);
        self.drop_if_unused(entry);
        true
    }

    /// A holder let go. Says whether the hold was still its own (invariant I8).
    pub(crate) fn release(&mut self, hold: HoldId, sink: &mut impl Sink) -> bool {
        if self.entry_held(hold).is_none() {
            return false;
        }
        self.let_go(hold, None, sink);
        true
    }

    /// A holder let go and waits until the server has answered.
    pub(crate) fn release_and_tell(
        &mut self,
        ticket: Ticket,
        hold: HoldId,
        sink: &mut impl Sink,
    ) -> bool {
        let Some(entry) = self.entry_held(hold) else {
            let cause = Cause::ConnectionLost;
            sink.failed(ticket, Error::Lost { cause, outcome: Outcome::NotAcquired });
            return false;
        };
        self.enter(ticket, entry, Wish::PLAIN, Mode::Try);
        self.let_go(hold, Some(ticket), sink);
        true
    }

    /// Makes an exclusive hold a shared one, without letting go in between, and tells when it is.
    pub(crate) fn downgrade(&mut self, ticket: Ticket, hold: HoldId, sink: &mut impl Sink) {
        let Some(entry) = self.entry_held(hold) else {
            let cause = Cause::ConnectionLost;
            return sink.failed(ticket, Error::Lost { cause, outcome: Outcome::NotAcquired });
        };
        let Entry { held, downgrading, .. } = self.entries[entry as usize];
        if held != Held::Exclusive && !downgrading {
            // It is shared, or a slot, and stays what it is.
            return sink.done(ticket);
        }
        self.enter(ticket, entry, Wish::PLAIN, Mode::Try);
        self.active += 1;
        self.tellers.push_back(Teller { entry, slot: 0, downgrades: true, ticket });
        if downgrading {
            // Asked again by a holder that gave up the first time: told with the first.
            return;
        }
        let state = &mut self.entries[entry as usize];
        state.held = Held::Shared;
        state.downgrading = true;
        self.push_op(Op { kind: OpKind::Downgrade, tells: true, entry });
    }

    /// A session is there: whoever waits is tried now.
    pub(crate) fn online(&mut self, sink: &mut impl Sink) {
        self.online = true;
        for entry in 0..self.entries.len() as u32 {
            if self.entries[entry as usize].head != NONE {
                self.advance(entry, sink);
                self.drop_if_unused(entry);
            }
        }
    }

    /// The session has ended: every hold is lost and every request ends (invariants I8, I10).
    pub(crate) fn offline(&mut self, cause: Cause, sink: &mut impl Sink) {
        self.online = false;
        for index in 0..self.holds.len() as u32 {
            let hold = &mut self.holds[index as usize];
            if hold.entry != NONE {
                hold.entry = NONE;
                let id = HoldId { index, generation: hold.generation };
                self.free_holds.push(index);
                sink.lost(id, cause);
            }
        }
        for slot in 0..self.requests.len() as u32 {
            let request = self.requests[slot as usize];
            if request.entry == NONE {
                continue;
            }
            let ticket = Ticket { slot, generation: request.generation };
            let state = &self.entries[request.entry as usize];
            let outcome = match state.attempt {
                Attempt::Sent | Attempt::Failed | Attempt::Reconciling
                    if state.attempted() == Some(ticket) =>
                {
                    Outcome::Unknown
                }
                _ => Outcome::NotAcquired,
            };
            let error = match cause {
                Cause::ManagerClosed => Error::Closed,
                cause => Error::Lost { cause, outcome },
            };
            self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        }
        self.clear();
    }

    /// Whether a statement is under way for the request.
    pub(crate) fn is_active(&self, ticket: Ticket) -> bool {
        let request = &self.requests[ticket.slot as usize];
        request.generation == ticket.generation && request.entry != NONE && !request.queued
    }

    /// How many requests have a statement under way.
    pub(crate) fn active(&self) -> u32 {
        self.active
    }

    /// How many requests wait in a queue.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether a statement is to be sent.
    pub(crate) fn has_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether a request waits in a queue, or a statement to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting > 0 || self.has_to_send()
    }

    /// Whether anybody here waits, or somebody elsewhere did a moment ago: then no release is put
    /// off.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting > 0 || self.rivals.any(self.now)
    }

    /// The slot that a statement in flight will answer.
    pub(crate) fn slot_of(&self, op: Op) -> Option<u32> {
        if op.kind == OpKind::Inquire {
            return Some(op.entry);
        }
        if !op.is_about_key() {
            return None;
        }
        if op.tells {
            let mut tellers = self.tellers.iter();
            return tellers.find(|teller| teller.is_of(op)).map(|teller| teller.ticket.slot);
        }
        let state = &self.entries[op.entry as usize];
        let is_its = match op.kind {
            OpKind::Clear(_) => state.attempt == Attempt::Reconciling,
            kind => kind.is_try() && state.attempt.is_trying(),
        };
        state.attempted().filter(|_| is_its).map(|ticket| ticket.slot)
    }

    /// The keys held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> impl Iterator<Item = Key> + '_ {
        let held = self.holds.iter().filter(|hold| hold.entry != NONE);
        held.map(|hold| self.entries[hold.entry as usize].key())
    }

    /// The keys for which the session is registered and waits, and how the first one wants it.
    #[cfg(test)]
    fn registered(&self) -> impl Iterator<Item = (Key, Want)> + '_ {
        let known = self.index.numbers();
        known.filter(|entry| self.entries[*entry as usize].listed).filter_map(|entry| {
            let (_, first) = self.first(entry)?;
            let state = &self.entries[entry as usize];
            let is_ours = match first.want {
                Want::Slot(count) => state.holders >= u32::from(count),
                _ => state.held != Held::Nothing,
            };
            (!is_ours).then_some((state.key(), first.want))
        })
    }

    /// Whether the channel of a key is listened to.
    #[cfg(test)]
    fn hears_of(&self, key: Key) -> bool {
        self.channels[usize::from(companion::channel(op::parameters(key)))].is_open()
    }

    /// Whether a waiter does not listen for a while.
    #[cfg(test)]
    fn rests(&self) -> bool {
        self.cooling.iter().any(Cooling::rests)
    }

    fn entry_held(&self, hold: HoldId) -> Option<u32> {
        let state = self.holds.get(hold.index as usize)?;
        (state.generation == hold.generation && state.entry != NONE).then_some(state.entry)
    }

    /// Tells the requester, or, where it has gone, that its slot is free.
    fn conclude<S: Sink>(&mut self, ticket: Ticket, sink: &mut S, tell: impl FnOnce(&mut S)) {
        let abandoned = self.requests[ticket.slot as usize].abandoned;
        self.forget(ticket);
        if abandoned { sink.forgotten(ticket) } else { tell(sink) }
    }

    fn enter(&mut self, ticket: Ticket, entry: u32, wish: Wish, mode: Mode) {
        let request = &mut self.requests[ticket.slot as usize];
        debug_assert_eq!(request.entry, NONE, "a slot has one request at a time");
        let Wish { want, fenced } = wish;
        let generation = ticket.generation;
        *request = Request { generation, entry, want, fenced, mode, ..Request::UNKNOWN };
    }

    fn forget(&mut self, ticket: Ticket) {
        let request = &mut self.requests[ticket.slot as usize];
        request.entry = NONE;
        if std::mem::take(&mut request.waits) {
            self.waiting -= 1;
        }
    }
}

/// What the ledger knows a request's key by, and whether it is a counted lock.
fn subject(key: Key, want: Want) -> (Key, bool) {
    match want {
        Want::Slot(_) => (Key::Bigint(companion::first_slot(op::parameters(key))), true),
        Want::Exclusive | Want::Shared => (key, false),
    }
}
