//! The ledger's tables: keys, holds, requests, and the queues of waiters. All of them are
//! bounded, and keep the room that they once had (invariant I6).

use super::{Ledger, Op};
use crate::clock::Time;
use crate::error::Error;
use crate::key::Key;
use crate::slots::{Mode, Ticket, Want};

/// A key that somebody here holds, asks for, or lets go of.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of a counted lock, the key of its first slot.
    pub(super) key: Key,
    pub(super) counted: bool,
    pub(super) attempt: Attempt,
    /// What the session has of the key once all statements queued so far were run, attempts apart.
    pub(super) held: Held,
    /// How many holders there are here, and the first of them.
    pub(super) holders: u32,
    pub(super) first_hold: u32,
    /// A downgrade is under way: shared on the server's side, but nobody may join yet.
    pub(super) downgrading: bool,
    /// The holder let go meanwhile, and may wait for the answer to that. Sent in the same breath,
    /// the release could get ahead of a downgrade that has to be sent again.
    pub(super) owed: Option<Option<Ticket>>,
    /// Statements queued or in flight for this key.
    pub(super) ops: u32,
    /// Releases among them.
    pub(super) releasing: u32,
    /// Whether what was released last had been kept from other processes for long.
    pub(super) was_long: bool,
    /// Queue of waiting requests, by slot.
    pub(super) head: u32,
    pub(super) tail: u32,
    /// Set while the key is in `cooling`.
    pub(super) retry_at: Option<Time>,
    /// When it is tried at the latest, whatever is heard of it.
    pub(super) poll_at: Time,
    /// Notifications since the first waiter has begun to wait, or the session had the key last.
    pub(super) heard: u32,
    /// Whether it has pressed since the latest of them: see [`Ledger::is_passed_over`].
    pub(super) pressed: bool,
    /// Refusals in a row, for the backoff.
    pub(super) refusals: u32,
    /// Whether the session is registered as a waiter.
    pub(super) listed: bool,
    /// Registrations without a try that are not answered yet.
    pub(super) enlisting: u32,
    /// How often in a row a registration failed.
    pub(super) probed: u32,
    /// Whether the session keeps new sharers out.
    pub(super) gate: bool,
    /// Whether a notification came while a try was under way.
    pub(super) notified: bool,
    /// Since when the key has not been offered to other processes, and how often it was handed
    /// over here since then.
    pub(super) since: Time,
    pub(super) handed: u32,
}

impl Entry {
    fn new(key: Key, counted: bool) -> Self {
        Self {
            key,
            counted,
            attempt: Attempt::None,
            held: Held::Nothing,
            holders: 0,
            first_hold: NONE,
            downgrading: false,
            owed: None,
            ops: 0,
            releasing: 0,
            was_long: false,
            head: NONE,
            tail: NONE,
            retry_at: None,
            poll_at: Time::NEVER,
            heard: 0,
            pressed: false,
            refusals: 0,
            listed: false,
            enlisting: 0,
            probed: 0,
            gate: false,
            notified: false,
            since: Time::ZERO,
            handed: 0,
        }
    }
}

/// What is being done for one request.
#[derive(Debug)]
pub(super) enum Attempt {
    None,
    Trying { ticket: Ticket, sent: bool },
    Reconciling { ticket: Ticket, error: Option<Box<Error>> },
}

impl Attempt {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::None => None,
            Self::Trying { ticket, .. } | Self::Reconciling { ticket, .. } => Some(*ticket),
        }
    }
}

/// How the session holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nothing,
    Exclusive,
    /// Once, however many sharers there are here.
    Shared,
    /// One slot for each holder.
    Slots,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) generation: u32,
    /// [`NONE`] while free.
    pub(super) entry: u32,
    /// Of a counted lock.
    pub(super) slot: u16,
    /// The chain of the key's holds.
    next: u32,
    previous: u32,
}

/// What the ledger knows of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) generation: u32,
    /// [`NONE`] when the slot is not known here.
    pub(super) entry: u32,
    pub(super) want: Want,
    pub(super) fenced: bool,
    pub(super) mode: Mode,
    pub(super) queued: bool,
    /// It was in a queue before, and counts as a waiter until it ends, also while it is tried.
    pub(super) waits: bool,
    pub(super) abandoned: bool,
    pub(super) next: u32,
    pub(super) previous: u32,
}

impl Request {
    pub(super) const UNKNOWN: Self = Self {
        generation: 0,
        entry: NONE,
        want: Want::Exclusive,
        fenced: false,
        mode: Mode::Try,
        queued: false,
        waits: false,
        abandoned: false,
        next: NONE,
        previous: NONE,
    };
}

/// The absence of an index.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
pub(super) enum End {
    Front,
    Back,
}

impl Ledger {
    pub(super) fn entry_of(&mut self, key: Key, counted: bool) -> Option<u32> {
        if let Some(entry) = self.index.get(&(key, counted)) {
            return Some(*entry);
        }
        let fresh = Entry::new(key, counted);
        let entry = match self.free_entries.pop() {
            Some(entry) => {
                self.entries[entry as usize] = fresh;
                entry
            }
            None if self.entries.len() < self.entries_max() => {
                self.entries.push(fresh);
                self.entries.len() as u32 - 1
            }
            None => return None,
        };
        self.index.insert((key, counted), entry);
        Some(entry)
    }

    /// Every key has a lock or a request, or an unlock under way; an unlock is answered before any
    /// lock that was granted after it, so there are never more of those than locks. With as much
    /// again for what follows a waiter's end.
    fn entries_max(&self) -> usize {
        2 * (self.limits.locks as usize + self.limits.requests as usize)
    }

    pub(super) fn drop_if_unused(&mut self, entry: u32) {
        let state = &self.entries[entry as usize];
        let is_used =
            !state.attempt.is_none() || state.holders > 0 || state.head != NONE || state.ops > 0;
        if !is_used && self.index.remove(&(state.key, state.counted)).is_some() {
            debug_assert!(state.retry_at.is_none(), "who cools has a waiter");
            debug_assert!(!state.listed && !state.gate, "nobody waits, nobody is registered");
            self.free_entries.push(entry);
        }
    }

    /// Whether nothing is held, asked for or being let go of.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    // ----- statements -----

    pub(super) fn push_op(&mut self, op: Op) {
        if op.is_about_key() {
            self.entries[op.entry as usize].ops += 1;
        }
        self.outbox.push_back(op);
    }

    pub(super) fn finish_op(&mut self, op: Op) {
        if op.is_about_key() {
            let ops = &mut self.entries[op.entry as usize].ops;
            *ops = ops.saturating_sub(1);
        }
    }

    // ----- holds -----

    /// A new hold of a key; there is room, since `locks_used` has counted it.
    pub(super) fn new_hold(&mut self, entry: u32, slot: u16) -> u32 {
        let fresh = Hold { generation: 0, entry: NONE, slot: 0, next: NONE, previous: NONE };
        let index = self.free_holds.pop().unwrap_or_else(|| {
            self.holds.push(fresh);
            self.holds.len() as u32 - 1
        });
        let state = &mut self.entries[entry as usize];
        let next = std::mem::replace(&mut state.first_hold, index);
        state.holders += 1;
        if let Some(next) = self.holds.get_mut(next as usize) {
            next.previous = index;
        }
        let hold = &mut self.holds[index as usize];
        let generation = hold.generation.wrapping_add(1);
        *hold = Hold { generation, entry, slot, next, previous: NONE };
        index
    }

    pub(super) fn drop_hold(&mut self, index: u32) -> Hold {
        let hold = self.holds[index as usize];
        let state = &mut self.entries[hold.entry as usize];
        state.holders -= 1;
        match self.holds.get_mut(hold.previous as usize) {
            Some(previous) => previous.next = hold.next,
            None => state.first_hold = hold.next,
        }
        if let Some(next) = self.holds.get_mut(hold.next as usize) {
            next.previous = hold.previous;
        }
        self.holds[index as usize].entry = NONE;
        self.free_holds.push(index);
        hold
    }

    /// The holds of a key.
    pub(super) fn holds_of(&self, entry: u32) -> impl Iterator<Item = &Hold> + '_ {
        let first = self.entries[entry as usize].first_hold;
        std::iter::successors(self.holds.get(first as usize), |hold| {
            self.holds.get(hold.next as usize)
        })
    }

    // ----- queues -----

    /// The first waiter of a key.
    pub(super) fn first(&self, entry: u32) -> Option<(Ticket, &Request)> {
        let slot = self.entries[entry as usize].head;
        let request = self.requests.get(slot as usize)?;
        Some((Ticket { slot, generation: request.generation }, request))
    }

    /// The request that the key's attempt is for.
    pub(super) fn attempted(&self, entry: u32) -> Option<&Request> {
        let ticket = self.entries[entry as usize].attempt.ticket()?;
        self.requests.get(ticket.slot as usize)
    }

    pub(super) fn enqueue(&mut self, entry: u32, slot: u32, end: End) {
        let state = &self.entries[entry as usize];
        let (next, previous) = match end {
            End::Front => (state.head, NONE),
            End::Back => (NONE, state.tail),
        };
        let request = &mut self.requests[slot as usize];
        request.queued = true;
        request.next = next;
        request.previous = previous;
        if !request.waits {
            request.waits = true;
            self.waiting += 1;
        }
        self.link(entry, previous, next, slot, slot);
    }

    pub(super) fn dequeue(&mut self, slot: u32) {
        let request = &mut self.requests[slot as usize];
        request.queued = false;
        let (entry, next, previous) = (request.entry, request.next, request.previous);
        self.link(entry, previous, next, next, previous);
    }

    /// Makes `previous` point forward to `forward`, and `next` back to `back`; the queue's ends
    /// stand in for what is [`NONE`].
    fn link(&mut self, entry: u32, previous: u32, next: u32, forward: u32, back: u32) {
        let state = &mut self.entries[entry as usize];
        match previous {
            NONE => state.head = forward,
            slot => self.requests[slot as usize].next = forward,
        }
        match next {
            NONE => state.tail = back,
            slot => self.requests[slot as usize].previous = back,
        }
    }

    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.free_entries.clear();
        self.outbox.clear();
        self.tellers.clear();
        self.told.clear();
        self.batch_failed = false;
        self.resend_at = 0;
        self.cooling.clear();
        self.next_retry = Time::NEVER;
        self.locks_used = 0;
        self.active = 0;
        self.waiting = 0;
        self.channels = Default::default();
        self.can_listen = true;
        for request in &mut self.requests {
            request.entry = NONE;
        }
    }
}
