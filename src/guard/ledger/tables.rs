//! The ledger's tables: keys, holds, requests, and the queues of waiters. All of them are
//! sized when the ledger is made and never grow (invariant I6).

use super::{Ledger, Op, OpKind};
use crate::clock::Time;
use crate::error::Error;
use crate::key::Key;
use crate::slots::{Mode, Ticket};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) phase: Phase,
    /// Statements queued or in flight for this key.
    pub(super) ops: u32,
    /// Queue of waiting requests, by slot.
    pub(super) head: u32,
    pub(super) tail: u32,
    /// Set while the key is in `cooling`.
    pub(super) retry_at: Option<Time>,
    /// Refusals in a row, for the backoff.
    pub(super) refusals: u32,
}

#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    Trying { ticket: Ticket, mode: Mode, sent: bool },
    Held,
    Reconciling { ticket: Ticket, error: Option<Error> },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) generation: u32,
    /// [`NONE`] while free.
    pub(super) entry: u32,
}

/// What the ledger knows of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) generation: u32,
    /// [`NONE`] when the slot is not known here.
    pub(super) entry: u32,
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
        queued: false,
        waits: false,
        abandoned: false,
        next: NONE,
        previous: NONE,
    };
}

/// The absence of an index.
pub(super) const NONE: u32 = u32::MAX;

impl Ledger {
    pub(super) fn new_entry(&mut self, key: Key) -> Option<u32> {
        let fresh = Entry {
            key,
            phase: Phase::Idle,
            ops: 0,
            head: NONE,
            tail: NONE,
            retry_at: None,
            refusals: 0,
        };
        let entry = match self.free_entries.pop() {
            Some(entry) => {
                self.entries[entry as usize] = fresh;
                entry
            }
            None if self.entries.len() < self.entries.capacity() => {
                self.entries.push(fresh);
                self.entries.len() as u32 - 1
            }
            None => return None,
        };
        self.index.insert(key, entry);
        Some(entry)
    }

    pub(super) fn drop_if_unused(&mut self, entry: u32) {
        let state = &self.entries[entry as usize];
        if matches!(state.phase, Phase::Idle) && state.head == NONE && state.ops == 0 {
            debug_assert!(state.retry_at.is_none(), "who cools has a waiter");
            if self.index.remove(&state.key).is_some() {
                self.free_entries.push(entry);
            }
        }
    }

    /// Whether nothing is held, asked for or being let go of.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn push_op(&mut self, kind: OpKind, entry: u32) {
        self.entries[entry as usize].ops += 1;
        self.outbox.push_back(Op { kind, entry });
    }

    pub(super) fn finish_op(&mut self, op: Op) {
        let ops = &mut self.entries[op.entry as usize].ops;
        *ops = ops.saturating_sub(1);
    }

    pub(super) fn enqueue(&mut self, entry: u32, slot: u32, end: End) {
        let state = &mut self.entries[entry as usize];
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
        self.unlockers.clear();
        self.resend_at = 0;
        self.cooling.clear();
        self.next_retry = Time::NEVER;
        self.locks_used = 0;
        self.active = 0;
        self.waiting = 0;
        for request in &mut self.requests {
            request.entry = NONE;
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum End {
    Front,
    Back,
}
