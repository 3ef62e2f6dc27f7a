//! Who holds what and who waits, on this side of the session. Pure data.
//!
//! Session-level advisory locks are re-entrant within a session, so the server would grant a key
//! twice to two threads of one process. This table, keyed by the number and never by the name, is
//! what excludes them (invariant I1). It decides which statements to send and which requests to
//! answer; the outcome of requests and holds goes to a [`Sink`].
//!
//! # States of a key
//!
//! | phase | meaning | a try | a wait |
//! |---|---|---|---|
//! | Idle, nobody queued | no entry, or an unlock under way | sent behind the unlock | as a try |
//! | Idle, waiters queued | held elsewhere; tried again at `retry_at` | refused | queued |
//! | Trying | one statement is under way for one request | refused | queued |
//! | Held | one hold | refused | queued |
//! | Reconciling | a try failed: unlock, whatever the answer, then report (I2) | refused | queued |

mod op;
mod retry;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

pub(crate) use self::op::{Op, OpKind};
use self::tables::{End, Entry, Hold, NONE, Phase, Request};
use super::jitter::{Jitter, KeyHasher};
use crate::clock::Time;
use crate::context::Cause;
use crate::error::{Error, Outcome};
use crate::key::Key;
use crate::slots::{HoldId, Mode, Ticket};

/// Where the ledger's decisions go.
pub(crate) trait Sink {
    /// The lock is granted; `false` when the requester has gone, and the lock is to be released.
    fn granted(&mut self, ticket: Ticket, hold: HoldId) -> bool;
    /// The lock is taken, and the request did not want to wait.
    fn refused(&mut self, ticket: Ticket);
    /// The request failed.
    fn failed(&mut self, ticket: Ticket, error: Error);
    /// The slot of a requester that has gone is of no more use here.
    fn forgotten(&mut self, ticket: Ticket);
    /// An awaited unlock was answered.
    fn unlocked(&mut self, ticket: Ticket);
    /// Until when the session's locks are provably held, told before a grant is.
    fn believed(&mut self, _until: Time) {}
    /// A held lock was lost.
    fn lost(&mut self, hold: HoldId, cause: Cause);
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
    index: HashMap<Key, u32, KeyHasher>,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    holds: Vec<Hold>,
    free_holds: Vec<u32>,
    requests: Vec<Request>,
    outbox: VecDeque<Op>,
    /// Who waits for the answer to an unlock of which entry, in the order of the unlocks.
    unlockers: VecDeque<(u32, Ticket)>,
    /// Where the next skipped statement goes: before everything newer, behind its elders.
    resend_at: usize,
    /// Entries whose first waiter is to be tried again at a time.
    cooling: Vec<u32>,
    /// No later than the earliest `retry_at`.
    next_retry: Time,
    /// Keys that are Trying, Reconciling or Held.
    locks_used: u32,
    /// Requests that are Trying or Reconciling.
    active: u32,
    waiting: u32,
    jitter: Jitter,
}

impl Ledger {
    pub(crate) fn new(limits: LedgerLimits, seed: u64) -> Self {
        let locks = limits.locks as usize;
        let requests = limits.requests as usize;
        // Every key has a lock or a request, or an unlock under way; an unlock is answered before
        // any lock that was granted after it, so there are never more of those than locks.
        let entries = 2 * locks + requests;
        Self {
            limits,
            online: false,
            // Twice the room, so that removals never make the table grow.
            index: HashMap::with_capacity_and_hasher(2 * entries, KeyHasher::new(seed)),
            entries: Vec::with_capacity(entries),
            free_entries: Vec::with_capacity(entries),
            holds: Vec::with_capacity(locks),
            free_holds: Vec::with_capacity(locks),
            requests: vec![Request::UNKNOWN; requests],
            outbox: VecDeque::with_capacity(entries + locks),
            unlockers: VecDeque::with_capacity(requests),
            resend_at: 0,
            cooling: Vec::with_capacity(requests),
            next_retry: Time::NEVER,
            locks_used: 0,
            active: 0,
            waiting: 0,
            jitter: Jitter::new(seed),
        }
    }

    /// Takes up a request.
    pub(crate) fn request(&mut self, ticket: Ticket, key: Key, mode: Mode, sink: &mut impl Sink) {
        let entry = match self.index.get(&key) {
            Some(entry) => *entry,
            None => match self.new_entry(key) {
                Some(entry) => entry,
                None => {
                    let limit = self.limits.requests;
                    return sink.failed(ticket, Error::TooManyRequests { limit });
                }
            },
        };
        self.enter(ticket, entry);
        let state = &self.entries[entry as usize];
        let is_free = matches!(state.phase, Phase::Idle) && state.head == NONE;
        if is_free && self.online {
            self.begin_try(entry, ticket, mode, sink);
        } else if mode == Mode::Try {
            self.forget(ticket);
            sink.refused(ticket);
        } else if self.waiting >= self.limits.waiters {
            self.forget(ticket);
            sink.failed(ticket, Error::TooManyWaiters { limit: self.limits.waiters });
        } else {
            self.enqueue(entry, ticket.slot, End::Back);
        }
        self.drop_if_unused(entry);
    }

    /// The requester has gone. Says whether its slot is of no more use here; if not,
    /// [`Sink::forgotten`] tells when.
    pub(crate) fn abandon(&mut self, ticket: Ticket) -> bool {
        let request = &mut self.requests[ticket.slot as usize];
        if request.entry == NONE || request.generation != ticket.generation {
            return true;
        }
        if !request.queued {
            request.abandoned = true;
            return false;
        }
        let entry = request.entry;
        self.dequeue(ticket.slot);
        self.forget(ticket);
        if self.entries[entry as usize].head == NONE {
            self.stop_cooling(entry);
        }
        self.drop_if_unused(entry);
        true
    }

    /// A holder let go. Says whether the hold was still its own (invariant I8).
    pub(crate) fn release(&mut self, hold: HoldId, sink: &mut impl Sink) -> bool {
        let Some(state) = self.holds.get(hold.index as usize) else { return false };
        if state.generation != hold.generation || state.entry == NONE {
            return false;
        }
        let entry = state.entry;
        self.unlock(entry, hold.index, OpKind::Unlock, sink);
        true
    }

    /// A holder let go and waits until the server has answered.
    pub(crate) fn release_and_tell(
        &mut self,
        ticket: Ticket,
        hold: HoldId,
        sink: &mut impl Sink,
    ) -> bool {
        let entry = match self.holds.get(hold.index as usize) {
            Some(state) if state.generation == hold.generation && state.entry != NONE => {
                state.entry
            }
            _ => {
                let cause = Cause::ConnectionLost;
                sink.failed(ticket, Error::Lost { cause, outcome: Outcome::NotAcquired });
                return false;
            }
        };
        self.enter(ticket, entry);
        self.active += 1;
        self.unlockers.push_back((entry, ticket));
        self.unlock(entry, hold.index, OpKind::UnlockAndTell, sink);
        true
    }

    /// The next statement to send.
    pub(crate) fn peek_op(&self) -> Option<(Op, Key)> {
        let op = *self.outbox.front()?;
        Some((op, self.entries[op.entry as usize].key))
    }

    /// Tells that the statement of [`Ledger::peek_op`] is on its way.
    pub(crate) fn pop_op(&mut self) {
        let Some(op) = self.outbox.pop_front() else { return };
        self.resend_at = self.resend_at.saturating_sub(1);
        if let (OpKind::Try, Phase::Trying { sent, .. }) =
            (op.kind, &mut self.entries[op.entry as usize].phase)
        {
            *sent = true;
        }
    }

    /// A statement was answered.
    ///
    /// # Errors
    ///
    /// When the answer contradicts the ledger.
    pub(crate) fn answered(
        &mut self,
        op: Op,
        value: bool,
        now: Time,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.finish_op(op);
        let state = &mut self.entries[op.entry as usize];
        match op.kind {
            OpKind::Unlock | OpKind::UnlockAndTell if !value => return Err(Disagreement),
            OpKind::Unlock => {}
            OpKind::UnlockAndTell => {
                let position = self.unlockers.iter().position(|(entry, _)| *entry == op.entry);
                let Some((_, ticket)) = position.and_then(|at| self.unlockers.remove(at)) else {
                    return Err(Disagreement);
                };
                self.active -= 1;
                self.conclude(ticket, sink, |sink| sink.unlocked(ticket));
            }
            OpKind::Try => {
                let Phase::Trying { ticket, mode, .. } = state.phase else {
                    return Err(Disagreement);
                };
                if value {
                    self.grant(op.entry, ticket, sink);
                } else {
                    self.refuse(op.entry, ticket, mode, now, sink);
                }
            }
            OpKind::Verify => {
                let Phase::Reconciling { ticket, error } = &mut state.phase else {
                    return Err(Disagreement);
                };
                let (ticket, error) = (*ticket, error.take().unwrap_or(Error::Closed));
                self.end_active(op.entry, ticket);
                self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
                self.advance(op.entry, sink);
            }
        }
        self.drop_if_unused(op.entry);
        Ok(())
    }

    /// A statement failed. For a try, nothing is known of the lock: it is unlocked before the
    /// requester is told (I2).
    ///
    /// # Errors
    ///
    /// When an unlock failed, so that a lock may be left that nobody owns.
    pub(crate) fn failed(&mut self, op: Op, error: Error) -> Result<(), Disagreement> {
        self.finish_op(op);
        let state = &mut self.entries[op.entry as usize];
        match (op.kind, &state.phase) {
            (OpKind::Try, Phase::Trying { ticket, .. }) => {
                let error = match error.sqlstate() {
                    Some(crate::error::SqlState::OUT_OF_MEMORY) => {
                        Error::LockTableFull { key: state.key }
                    }
                    _ => error,
                };
                state.phase = Phase::Reconciling { ticket: *ticket, error: Some(error) };
                self.push_op(OpKind::Verify, op.entry);
                Ok(())
            }
            _ => Err(Disagreement),
        }
    }

    /// A statement was not run, because one before it in its batch failed: send it again, before
    /// everything that is newer.
    pub(crate) fn skipped(&mut self, op: Op) {
        if let (OpKind::Try, Phase::Trying { sent, .. }) =
            (op.kind, &mut self.entries[op.entry as usize].phase)
        {
            *sent = false;
        }
        self.outbox.insert(self.resend_at.min(self.outbox.len()), op);
        self.resend_at += 1;
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
            let outcome = match &self.entries[request.entry as usize].phase {
                Phase::Trying { ticket: of, sent: true, .. } if *of == ticket => Outcome::Unknown,
                Phase::Reconciling { ticket: of, .. } if *of == ticket => Outcome::Unknown,
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
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The slot that a statement in flight will answer.
    pub(crate) fn slot_of(&self, op: Op) -> Option<u32> {
        match &self.entries[op.entry as usize].phase {
            _ if op.kind == OpKind::UnlockAndTell => {
                let mut unlockers = self.unlockers.iter();
                unlockers.find(|(entry, _)| *entry == op.entry).map(|(_, ticket)| ticket.slot)
            }
            Phase::Trying { ticket, .. } if op.kind == OpKind::Try => Some(ticket.slot),
            Phase::Reconciling { ticket, .. } if op.kind == OpKind::Verify => Some(ticket.slot),
            _ => None,
        }
    }

    /// The keys held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> impl Iterator<Item = Key> + '_ {
        let held = self.entries.iter().filter(|entry| matches!(entry.phase, Phase::Held));
        held.map(|entry| entry.key)
    }

    // ----- transitions -----

    fn begin_try(&mut self, entry: u32, ticket: Ticket, mode: Mode, sink: &mut impl Sink) {
        if self.locks_used >= self.limits.locks {
            let error = Error::TooManyLocks { limit: self.limits.locks };
            return self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        }
        self.locks_used += 1;
        self.active += 1;
        self.entries[entry as usize].phase = Phase::Trying { ticket, mode, sent: false };
        self.push_op(OpKind::Try, entry);
    }

    /// The request of a Trying or Reconciling key is through; the key is idle.
    fn end_active(&mut self, entry: u32, ticket: Ticket) {
        debug_assert!(self.requests[ticket.slot as usize].entry == entry, "the key's own request");
        self.entries[entry as usize].phase = Phase::Idle;
        self.locks_used -= 1;
        self.active -= 1;
    }

    fn grant(&mut self, entry: u32, ticket: Ticket, sink: &mut impl Sink) {
        self.end_active(entry, ticket);
        let index = match self.free_holds.pop() {
            Some(index) => index,
            None => {
                self.holds.push(Hold { generation: 0, entry: NONE });
                self.holds.len() as u32 - 1
            }
        };
        let hold = &mut self.holds[index as usize];
        hold.generation = hold.generation.wrapping_add(1);
        hold.entry = entry;
        let id = HoldId { index, generation: hold.generation };
        self.locks_used += 1;
        let state = &mut self.entries[entry as usize];
        state.phase = Phase::Held;
        state.refusals = 0;
        let mut wanted = false;
        self.conclude(ticket, sink, |sink| wanted = sink.granted(ticket, id));
        if !wanted {
            // Nobody is there to hold it (I3).
            self.unlock(entry, index, OpKind::Unlock, sink);
        }
    }

    fn refuse(&mut self, entry: u32, ticket: Ticket, mode: Mode, now: Time, sink: &mut impl Sink) {
        self.end_active(entry, ticket);
        let request = &self.requests[ticket.slot as usize];
        if mode == Mode::Try || request.abandoned {
            self.conclude(ticket, sink, |sink| sink.refused(ticket));
        } else if !request.waits && self.waiting >= self.limits.waiters {
            let error = Error::TooManyWaiters { limit: self.limits.waiters };
            self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        } else {
            self.enqueue(entry, ticket.slot, End::Front);
        }
        if self.entries[entry as usize].head != NONE {
            self.start_cooling(entry, now);
        }
    }

    /// Lets a hold go: an unlock is sent, and right behind it the try of the first waiter.
    fn unlock(&mut self, entry: u32, hold: u32, kind: OpKind, sink: &mut impl Sink) {
        self.holds[hold as usize].entry = NONE;
        self.free_holds.push(hold);
        self.locks_used -= 1;
        self.entries[entry as usize].phase = Phase::Idle;
        self.push_op(kind, entry);
        self.advance(entry, sink);
    }

    /// Starts the next waiter of an idle key that is not cooling.
    fn advance(&mut self, entry: u32, sink: &mut impl Sink) {
        while self.online {
            let state = &self.entries[entry as usize];
            if !matches!(state.phase, Phase::Idle) || state.retry_at.is_some() {
                return;
            }
            let slot = state.head;
            if slot == NONE {
                return;
            }
            self.dequeue(slot);
            let generation = self.requests[slot as usize].generation;
            self.begin_try(entry, Ticket { slot, generation }, Mode::Wait, sink);
        }
    }

    /// Tells the requester, or, where it has gone, that its slot is free.
    fn conclude<S: Sink>(&mut self, ticket: Ticket, sink: &mut S, tell: impl FnOnce(&mut S)) {
        let abandoned = self.requests[ticket.slot as usize].abandoned;
        self.forget(ticket);
        if abandoned { sink.forgotten(ticket) } else { tell(sink) }
    }

    fn enter(&mut self, ticket: Ticket, entry: u32) {
        let request = &mut self.requests[ticket.slot as usize];
        debug_assert_eq!(request.entry, NONE, "a slot has one request at a time");
        *request = Request { generation: ticket.generation, entry, ..Request::UNKNOWN };
    }

    fn forget(&mut self, ticket: Ticket) {
        let request = &mut self.requests[ticket.slot as usize];
        request.entry = NONE;
        if std::mem::take(&mut request.waits) {
            self.waiting -= 1;
        }
    }
}
