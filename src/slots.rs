//! Where callers and the guard meet: request slots, and the queue of what callers ask for.
//!
//! A caller puts a request into a free slot and its number into the queue; the guard takes the
//! queue, works, and puts the result into the slot; the caller takes the result and gives the slot
//! back. Slots are [made in lots](places) and kept, and the queue keeps its room (invariant I6), so
//! nothing on this way allocates. A caller that gives up leaves its slot to the guard, which
//! gives it back: a lock that was granted in the meantime is released there (invariant I3).
//!
//! [`Drive`] is how callers reach the guard without knowing it.

mod places;

use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;
use std::task::Waker;

use self::places::{Phase, Places, Slot};
use crate::clock::Time;
use crate::context::Context;
use crate::error::Error;
use crate::foreign;
use crate::holders::Holders;
use crate::key::Key;
use crate::slab::ROOM;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::Thread;
use crate::sync::{Mutex, MutexGuard};
use crate::warning::Warning;

/// The guard, as callers see it.
pub(crate) trait Drive: Send + Sync + fmt::Debug {
    /// The slots and the queue.
    fn slots(&self) -> &Slots;
    /// Sees to it that the queue is looked at: now, by this thread, where that is possible without
    /// waiting, else by whoever is at it.
    fn kick(&self);
    /// The same for a task's request; may wait for the answer, for a moment. `true` if the task is
    /// to let others run and then ask again, with `has_yielded`.
    fn attend(&self, ticket: Ticket, has_yielded: bool) -> bool;
    /// The same for a release that was queued; it may be left to ride with the next request, where
    /// one is sure to come or somebody looks after it.
    fn kick_release(&self);
    /// Works for the guard until the slot has news, as long as nobody else does. Returns whether
    /// it did: if not, somebody else does, and wakes the slot's owner when there is news.
    fn drive(&self, ticket: Ticket, limit: Time) -> bool;
    /// A waker that pokes the slot's owner, for a context to be watched with.
    fn poker(&self, ticket: Ticket) -> &Waker;
    /// What somebody should know about the server.
    fn warnings(&self) -> Vec<Warning>;
    /// Ends the manager: all locks are lost, all requests end, the thread is joined.
    fn close(&self);
}

/// The right to one slot, until its result is taken or it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) slot: u32,
    /// Tells this use of the slot from all others (invariant I8).
    pub(crate) generation: u32,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Answer at once, whatever the answer is.
    Try,
    /// The same, but refused while others are let come first, as who waits lets them.
    InTurn,
    /// Wait until the lock is granted.
    Wait,
}

/// How a key is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Alone.
    Exclusive,
    /// With others who want it so.
    Shared,
    /// As one of so many holders.
    Slot(u16),
}

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) want: Want,
    /// With a fencing token.
    pub(crate) fenced: bool,
}

impl Wish {
    /// The key alone, and nothing else.
    pub(crate) const PLAIN: Self = Self { want: Want::Exclusive, fenced: false };
}

/// One held lock: a place in the table of holds, and which use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoldId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl HoldId {
    /// No hold: there is no such place.
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: 0 };
}

/// A granted lock on its way to its holder.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) hold: HoldId,
    /// It has the fencing token.
    pub(crate) context: Context,
    /// Since when the session has the key, which it may have had other holders for.
    pub(crate) since: Time,
}

/// What a request has come to.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The lock is granted.
    Granted(Grant),
    /// The lock is taken; or, to an unlock or a downgrade: it is done.
    Nothing,
    /// Who holds the key, to who asked that.
    Holders(Box<Holders>),
}

impl Reply {
    /// The grant, if it is one.
    pub(crate) fn granted(self) -> Option<Grant> {
        match self {
            Self::Granted(grant) => Some(grant),
            Self::Nothing | Self::Holders(_) => None,
        }
    }
}

pub(crate) type Answer = Result<Reply, Error>;

/// What callers ask the guard for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submission {
    /// The request in this slot.
    Request(Ticket),
    /// The request's owner has gone.
    Abandon(Ticket),
    /// A holder let go. Needs no slot, so it can never fail for lack of one.
    Release(HoldId),
}

/// What a slot asks for, and the context that may end the asking.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) work: Work,
    pub(crate) context: Context,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Acquire a key.
    Lock { key: Key, wish: Wish, mode: Mode },
    /// Release a held lock, and answer once the server has.
    Unlock(HoldId),
    /// Make an exclusive lock a shared one, and answer once the server has.
    Downgrade(HoldId),
    /// Ask who holds a key.
    Holders(Key),
}

/// Who waits for a slot's result.
#[derive(Debug)]
pub(crate) enum Waiter {
    Thread(Thread),
    Task(Waker),
}

/// The slots and the queue.
#[derive(Debug)]
pub(crate) struct Slots {
    places: Places,
    board: Mutex<Board>,
    /// Whether the queue has something in it; a hint that spares the lock.
    pending: AtomicBool,
    limit: u32,
    locks: u32,
    release_on_cancel: bool,
}

#[derive(Debug)]
struct Board {
    free: Vec<u32>,
    queue: VecDeque<Submission>,
    closed: bool,
}

impl Slots {
    /// `requests` slots. In the queue there are at most one Request and one Abandon for each, one
    /// Release for each of `locks` holds, and with `release_on_cancel` a second one when its `Lock`
    /// is dropped.
    pub(crate) fn new(requests: u32, locks: u32, release_on_cancel: bool) -> Self {
        Self {
            places: Places::new(requests),
            board: Mutex::new(Board {
                free: (0..requests).rev().collect(),
                queue: VecDeque::with_capacity(ROOM),
                closed: false,
            }),
            pending: AtomicBool::new(false),
            limit: requests,
            locks,
            release_on_cancel,
        }
    }

    // ----- the caller's side -----

    /// How many requests can be under way at once.
    pub(crate) fn max_requests(&self) -> u32 {
        self.limit
    }

    /// How many locks can be held at once.
    pub(crate) fn max_locks(&self) -> u32 {
        self.locks
    }

    /// Whether a lock is released as soon as its requester's context is done.
    pub(crate) fn releases_on_cancel(&self) -> bool {
        self.release_on_cancel
    }

    /// Puts a request into a slot and queues it.
    ///
    /// # Errors
    ///
    /// When there is no free slot, or the manager is closed.
    pub(crate) fn submit(&self, request: Request, waiter: Waiter) -> Result<Ticket, Error> {
        let mut board = self.board();
        if board.closed {
            return Err(Error::Closed);
        }
        // Returned from here, the waker is dropped after the lock is let go: it is foreign code.
        let Some(slot) = board.free.pop() else {
            return Err(Error::TooManyRequests { limit: self.limit });
        };
        Ok(self.put(&mut board, slot, request, Some(waiter)))
    }

    /// The same for several requests: all of them or none, with nothing else in between, so that
    /// whoever empties the queue next takes all of them.
    ///
    /// # Errors
    ///
    /// When there are not enough free slots, or the manager is closed.
    pub(crate) fn submit_all(
        &self,
        requests: Vec<(Request, Option<Waiter>)>,
    ) -> Result<VecDeque<Ticket>, Error> {
        // Set aside before the lock is taken. What is left of the requests on an error is dropped
        // after it is let go: wakers are foreign code.
        let mut tickets = VecDeque::with_capacity(requests.len());
        let mut board = self.board();
        if board.closed {
            return Err(Error::Closed);
        }
        if board.free.len() < requests.len() {
            return Err(Error::TooManyRequests { limit: self.limit });
        }
        for (request, waiter) in requests {
            let Some(slot) = board.free.pop() else { break };
            tickets.push_back(self.put(&mut board, slot, request, waiter));
        }
        Ok(tickets)
    }

    /// Puts a request into the slot, which is free, and queues it.
    fn put(
        &self,
        board: &mut Board,
        slot: u32,
        request: Request,
        waiter: Option<Waiter>,
    ) -> Ticket {
        let ticket = {
            let mut state = self.slot(slot);
            state.generation = state.generation.wrapping_add(1);
            state.phase = Phase::Asked(request);
            state.poked = false;
            state.waiter = waiter;
            Ticket { slot, generation: state.generation }
        };
        self.queue(board, Submission::Request(ticket));
        ticket
    }

    /// Takes the result, once it is there, and gives the slot back.
    pub(crate) fn take(&self, ticket: Ticket) -> Option<Answer> {
        let mut state = self.slot(ticket.slot);
        debug_assert_eq!(state.generation, ticket.generation, "a ticket is used once");
        state.poked = false;
        if !matches!(state.phase, Phase::Answered(_)) {
            return None;
        }
        let Phase::Answered(answer) = std::mem::replace(&mut state.phase, Phase::Free) else {
            return None;
        };
        let waiter = state.waiter.take();
        drop(state);
        drop(waiter);
        self.board().free.push(ticket.slot);
        Some(answer)
    }

    /// Gives the request up. If its result is there already it is handed over instead.
    pub(crate) fn abandon(&self, ticket: Ticket) -> Option<Answer> {
        if let Some(answer) = self.take(ticket) {
            return Some(answer);
        }
        let mut board = self.board();
        let mut state = self.slot(ticket.slot);
        if matches!(state.phase, Phase::Answered(_)) {
            drop((board, state));
            return self.take(ticket);
        }
        let phase = std::mem::replace(&mut state.phase, Phase::Abandoned);
        let waiter = state.waiter.take();
        drop(state);
        self.queue(&mut board, Submission::Abandon(ticket));
        drop(board);
        drop((phase, waiter));
        None
    }

    /// Sets who is to be woken, for a task that is polled by another waker than before.
    pub(crate) fn set_task(&self, ticket: Ticket, waker: &Waker) {
        // Cloning a waker and dropping one is foreign code: neither is done under the lock.
        let task = Waiter::Task(waker.clone());
        let former = self.slot(ticket.slot).waiter.replace(task);
        drop(former);
    }

    /// Queues the release of held locks, with nothing else in between; never fails. Says whether
    /// there was one.
    pub(crate) fn release(&self, holds: impl IntoIterator<Item = HoldId>) -> bool {
        let mut board = self.board();
        let mut has_any = false;
        for hold in holds {
            has_any = true;
            // Once closed, the session is over and with it the lock.
            if !board.closed {
                self.queue(&mut board, Submission::Release(hold));
            }
        }
        has_any
    }

    fn queue(&self, board: &mut Board, submission: Submission) {
        board.queue.push_back(submission);
        // Both change under the board's lock only: if it is set, this will be found with the rest.
        if !self.pending.load(Ordering::Relaxed) {
            self.pending.store(true, Ordering::SeqCst);
        }
    }

    /// Makes the slot's owner look at its context again. One poke too many does no harm.
    pub(crate) fn poke(&self, slot: u32) {
        let mut state = self.slot(slot);
        state.poked = true;
        wake(state);
    }

    /// Whether the owner has to look: the result is there, or it was poked.
    pub(crate) fn has_news(&self, ticket: Ticket) -> bool {
        let state = self.slot(ticket.slot);
        state.poked || matches!(state.phase, Phase::Answered(_))
    }

    // ----- the guard's side -----

    /// Whether something was queued since the last [`Slots::drain`].
    pub(crate) fn has_submissions(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Exchanges the queue for an empty one.
    pub(crate) fn drain(&self, into: &mut VecDeque<Submission>) {
        debug_assert!(into.is_empty(), "the last lot was worked off");
        let mut board = self.board();
        std::mem::swap(&mut board.queue, into);
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Takes up a request. `None` when its owner has gone already; the slot is free again once the
    /// Abandon that is behind it in the queue is seen.
    pub(crate) fn accept(&self, ticket: Ticket) -> Option<Work> {
        let mut state = self.slot(ticket.slot);
        match std::mem::replace(&mut state.phase, Phase::Abandoned) {
            Phase::Asked(Request { work, context }) => {
                state.phase = Phase::Pending(context);
                Some(work)
            }
            phase => {
                state.phase = phase;
                None
            }
        }
    }

    /// The context that the request was made with.
    pub(crate) fn context(&self, ticket: Ticket) -> Option<Context> {
        match &self.slot(ticket.slot).phase {
            Phase::Pending(context) => Some(context.clone()),
            _ => None,
        }
    }

    /// Puts the result in and wakes the owner; hands it back when that has gone.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) -> Result<(), Answer> {
        let mut state = self.slot(ticket.slot);
        debug_assert_eq!(state.generation, ticket.generation, "the guard frees what it answers");
        if matches!(state.phase, Phase::Abandoned) {
            return Err(answer);
        }
        let before = std::mem::replace(&mut state.phase, Phase::Answered(answer));
        wake(state);
        drop(before);
        Ok(())
    }

    /// Gives back the slot of an owner that has gone.
    pub(crate) fn free(&self, ticket: Ticket) {
        {
            let mut state = self.slot(ticket.slot);
            debug_assert!(matches!(state.phase, Phase::Abandoned), "only the abandoned");
            state.phase = Phase::Free;
        }
        self.board().free.push(ticket.slot);
    }

    /// Whether a thread, which could work for the guard, waits for this slot.
    pub(crate) fn is_waited_on_by_thread(&self, slot: u32) -> bool {
        matches!(self.slot(slot).waiter, Some(Waiter::Thread(_)))
    }

    /// Wakes the slot's owner without news, to take over the work.
    pub(crate) fn wake_owner(&self, slot: u32) {
        wake(self.slot(slot));
    }

    /// Takes no more requests; the guard ends those that were queued.
    pub(crate) fn close(&self) {
        self.board().closed = true;
    }

    fn slot(&self, slot: u32) -> MutexGuard<'_, Slot> {
        self.places.slot(slot)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a slot's owner, without the lock: a thread that is woken takes it at once. A task's waker
/// is foreign code, and is taken out; the task leaves a new one when it is polled.
fn wake(mut state: MutexGuard<'_, Slot>) {
    match &state.waiter {
        Some(Waiter::Thread(thread)) => {
            let thread = thread.clone();
            drop(state);
            thread.unpark();
        }
        Some(Waiter::Task(_)) => {
            let waiter = state.waiter.take();
            drop(state);
            if let Some(Waiter::Task(waker)) = waiter {
                foreign::wake(waker);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
