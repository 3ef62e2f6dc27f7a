//! The ledger's tables: keys, holds, requests, and the queues of waiters. All of them are
//! bounded, and keep the room that they once had (invariant I6).

use super::attempt::Permits;
use super::recovery::Recovery;
use super::waiting::STAYS_MAX;
use super::{Ledger, Op, OpKind};
use crate::clock::Time;
use crate::key::Key;
use crate::slab::append;
use crate::slots::{Mode, Ticket, Want};

/// A key that somebody here holds, asks for, or lets go of. There is one for each held lock, so
/// what seldom matters is kept elsewhere, and what is small is small here.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key in 64 bits; of a counted lock, that of its first slot.
    number: i64,
    space: Space,
    pub(super) attempt: Attempt,
    /// The request that the attempt is for, if there is one.
    attempted: Ticket,
    /// What the session has of the key once all statements queued so far were run, attempts apart.
    pub(super) held: Held,
    /// A downgrade is under way: shared on the server's side, but nobody may join yet.
    pub(super) downgrading: bool,
    /// How many holders there are here.
    pub(super) holders: u32,
    /// Statements queued or in flight for this key.
    pub(super) ops: u32,
    /// Releases among them.
    pub(super) releasing: u16,
    /// Whether what was released last had been kept from other processes for long.
    pub(super) was_long: bool,
    /// The first of the queue of waiting requests, by its slot.
    pub(super) head: u32,
    /// Set while the key is in `cooling`.
    pub(super) retry_at: Option<Time>,
    /// Notifications since the first waiter has begun to wait, or the session had the key last; no
    /// more than are of interest.
    pub(super) heard: u8,
    /// Whether it has pressed since the latest of them: see [`Ledger::is_passed_over`].
    pub(super) pressed: bool,
    /// Refusals in a row, for the backoff.
    pub(super) refusals: u8,
    /// Whether the session is registered as a waiter.
    pub(super) listed: bool,
    /// Registrations without a try that are not answered yet.
    pub(super) enlisting: u32,
    /// How often in a row a registration failed.
    pub(super) probed: u8,
    /// Whether the session keeps new sharers out.
    pub(super) gate: bool,
    /// Whether a notification came while a try was under way.
    pub(super) notified: bool,
    /// Since when the key has not been offered to other processes, and how often it was handed
    /// over here since then.
    pub(super) since: Time,
    pub(super) handed: u16,
}

/// What an entry's number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Bigint,
    /// The first number above the second.
    Pair,
    /// The first slot of a counted lock.
    Slots,
}

impl Entry {
    pub(super) fn new(key: Key, counted: bool) -> Self {
        let (number, space) = packed(key, counted);
        Self {
            number,
            space,
            attempt: Attempt::None,
            attempted: Ticket { slot: NONE, generation: 0 },
            held: Held::Nothing,
            downgrading: false,
            holders: 0,
            ops: 0,
            releasing: 0,
            was_long: false,
            head: NONE,
            retry_at: None,
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

    /// Of a counted lock, the key of its first slot.
    pub(super) fn key(&self) -> Key {
        match self.space {
            Space::Bigint | Space::Slots => Key::Bigint(self.number),
            Space::Pair => Key::Pair((self.number >> 32) as i32, self.number as i32),
        }
    }

    pub(super) fn is_of(&self, key: Key, counted: bool) -> bool {
        (self.number, self.space) == packed(key, counted)
    }

    /// The request that is being tried, or reconciled.
    pub(super) fn attempted(&self) -> Option<Ticket> {
        (!self.attempt.is_none()).then_some(self.attempted)
    }

    /// A try for the request begins, which is not sent yet.
    pub(super) fn attempt(&mut self, ticket: Ticket) {
        self.attempt = Attempt::Trying;
        self.attempted = ticket;
    }
}

fn packed(key: Key, counted: bool) -> (i64, Space) {
    match key {
        Key::Bigint(number) if counted => (number, Space::Slots),
        Key::Bigint(number) => (number, Space::Bigint),
        Key::Pair(high, low) => (i64::from(high) << 32 | i64::from(low as u32), Space::Pair),
    }
}

/// What is being done for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    None,
    Trying,
    /// The try is on its way.
    Sent,
    /// A try has failed. Its error is in `failures`.
    Failed,
    /// What it may have taken is given back.
    Reconciling,
}

impl Attempt {
    pub(super) fn is_none(self) -> bool {
        self == Self::None
    }

    pub(super) fn is_trying(self) -> bool {
        matches!(self, Self::Trying | Self::Sent)
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

/// A release that has failed, so that nobody knows what it has done: see
/// [`Ledger::let_go_in_doubt`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    pub(super) entry: u32,
    /// What makes sure.
    pub(super) kind: OpKind,
    /// Whether somebody waits until it is.
    pub(super) tells: bool,
    pub(super) sent: bool,
}

impl Doubt {
    pub(super) fn is_of(&self, entry: u32, kind: OpKind) -> bool {
        (self.entry, self.kind) == (entry, kind)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) generation: u32,
    /// [`NONE`] while free.
    pub(super) entry: u32,
    /// Of a counted lock.
    pub(super) slot: u16,
}

/// The chain of a counted lock's holds, by their places; other keys need none.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// The first of each entry's.
    first: Vec<u32>,
    /// What comes before and after each hold.
    beside: Vec<(u32, u32)>,
}

impl Chains {
    fn first(&self, entry: u32) -> u32 {
        self.first.get(entry as usize).copied().unwrap_or(NONE)
    }

    fn after(&self, hold: u32) -> u32 {
        self.beside.get(hold as usize).map_or(NONE, |(_, next)| *next)
    }

    fn add(&mut self, entry: u32, hold: u32) {
        reach(&mut self.first, entry as usize, NONE);
        reach(&mut self.beside, hold as usize, (NONE, NONE));
        let next = std::mem::replace(&mut self.first[entry as usize], hold);
        if let Some((previous, _)) = self.beside.get_mut(next as usize) {
            *previous = hold;
        }
        self.beside[hold as usize] = (NONE, next);
    }

    fn remove(&mut self, entry: u32, hold: u32) {
        let (previous, next) = self.beside[hold as usize];
        match self.beside.get_mut(previous as usize) {
            Some((_, after)) => *after = next,
            None => self.first[entry as usize] = next,
        }
        if let Some((before, _)) = self.beside.get_mut(next as usize) {
            *before = previous;
        }
    }
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
    /// Its neighbours in the queue, which is a ring.
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
        if let Some(entry) = self.index.find(&self.entries, key, counted) {
            return Some(entry);
        }
        let fresh = Entry::new(key, counted);
        let entry = match self.free_entries.pop() {
            Some(entry) => {
                self.entries[entry as usize] = fresh;
                entry
            }
            None if self.entries.len() < self.entries_max() => {
                append(&mut self.entries, fresh);
                self.entries.len() as u32 - 1
            }
            None => return None,
        };
        self.index.insert(&self.entries, entry);
        Some(entry)
    }

    /// Every key has a lock or a request, or an unlock under way; an unlock is answered before any
    /// lock that was granted after it, so there are never more of those than locks. With as much
    /// again for what follows a waiter's end, and for keys that are in doubt: where that is not
    /// enough, a request is refused.
    fn entries_max(&self) -> usize {
        2 * (self.limits.locks as usize + self.limits.requests as usize) + STAYS_MAX
    }

    pub(super) fn drop_if_unused(&mut self, entry: u32) {
        let state = &self.entries[entry as usize];
        if state.attempt == Attempt::Failed {
            return self.clear_up(entry);
        }
        if !self.doubts.is_empty() && state.ops == 0 && state.attempt.is_none() {
            self.make_sure(entry);
        }
        let state = &self.entries[entry as usize];
        let is_idle = state.attempt.is_none() && state.ops == 0;
        let is_used = !is_idle || state.holders > 0 || state.head != NONE || self.stays(entry);
        if !is_used && self.index.remove(&self.entries, entry) {
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
        let op = self.permitted(op);
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

    // ----- releases that have failed -----

    pub(super) fn is_made_sure(&self, op: Op) -> bool {
        self.doubts.iter().any(|doubt| doubt.sent && doubt.is_of(op.entry, op.kind))
    }

    pub(super) fn doubts_about(&self, entry: u32, kind: OpKind) -> bool {
        self.doubts.iter().any(|doubt| doubt.is_of(entry, kind))
    }

    /// Whether the session may have a key that nobody holds here.
    pub(super) fn is_in_doubt(&self, entry: u32) -> bool {
        self.doubts.iter().any(|doubt| doubt.entry == entry && !self.has_again(*doubt))
    }

    /// Whether what was let go of is held again.
    pub(super) fn has_again(&self, doubt: Doubt) -> bool {
        let state = &self.entries[doubt.entry as usize];
        match doubt.kind {
            // Nobody here can have it alone again while it is shared.
            OpKind::Unlock => state.held == Held::Exclusive,
            OpKind::UnlockSlot(slot) => self.slots_of(doubt.entry).any(|held| held == slot),
            OpKind::DropGate => state.gate,
            _ => state.holders > 0,
        }
    }

    // ----- holds -----

    /// A new hold of a key; there is room, since `locks_used` has counted it.
    pub(super) fn new_hold(&mut self, entry: u32, slot: u16) -> u32 {
        let fresh = Hold { generation: 0, entry: NONE, slot: 0 };
        let index = self.free_holds.pop().unwrap_or_else(|| {
            append(&mut self.holds, fresh);
            self.holds.len() as u32 - 1
        });
        let state = &mut self.entries[entry as usize];
        state.holders += 1;
        if state.space == Space::Slots {
            self.chains.add(entry, index);
        }
        let hold = &mut self.holds[index as usize];
        let generation = hold.generation.wrapping_add(1);
        *hold = Hold { generation, entry, slot };
        index
    }

    pub(super) fn drop_hold(&mut self, index: u32) -> Hold {
        let hold = self.holds[index as usize];
        let state = &mut self.entries[hold.entry as usize];
        state.holders -= 1;
        if state.space == Space::Slots {
            self.chains.remove(hold.entry, index);
        }
        self.holds[index as usize].entry = NONE;
        self.free_holds.push(index);
        hold
    }

    /// The slots that are held of a counted lock.
    pub(super) fn slots_of(&self, entry: u32) -> impl Iterator<Item = u16> + '_ {
        let mut next = self.chains.first(entry);
        std::iter::from_fn(move || {
            let hold = self.holds.get(next as usize)?;
            next = self.chains.after(next);
            Some(hold.slot)
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
        let ticket = self.entries[entry as usize].attempted()?;
        self.requests.get(ticket.slot as usize)
    }

    /// The last waiter of a key: it comes before the first, in a ring.
    pub(super) fn last(&self, entry: u32) -> Option<&Request> {
        let first = self.requests.get(self.entries[entry as usize].head as usize)?;
        self.requests.get(first.previous as usize)
    }

    pub(super) fn enqueue(&mut self, entry: u32, slot: u32, end: End) {
        let head = &mut self.entries[entry as usize].head;
        let (next, previous) = match self.requests.get(*head as usize) {
            Some(first) => (*head, first.previous),
            None => (slot, slot),
        };
        if next == slot || matches!(end, End::Front) {
            *head = slot;
        }
        self.requests[next as usize].previous = slot;
        self.requests[previous as usize].next = slot;
        let request = &mut self.requests[slot as usize];
        (request.next, request.previous) = (next, previous);
        request.queued = true;
        if !request.waits {
            request.waits = true;
            self.waiting += 1;
        }
    }

    pub(super) fn dequeue(&mut self, slot: u32) {
        let request = &mut self.requests[slot as usize];
        request.queued = false;
        let (entry, next, previous) = (request.entry, request.next, request.previous);
        let head = &mut self.entries[entry as usize].head;
        if *head == slot {
            *head = if next == slot { NONE } else { next };
        }
        self.requests[next as usize].previous = previous;
        self.requests[previous as usize].next = next;
    }

    pub(super) fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.free_entries.clear();
        self.chains.first.clear();
        self.owed.clear();
        self.failures.clear();
        self.doubts.clear();
        self.outbox.clear();
        self.tellers.clear();
        self.told.clear();
        self.recovery = Recovery::default();
        self.cooling.clear();
        self.stays.clear();
        self.next_retry = Time::NEVER;
        self.locks_used = 0;
        self.active = 0;
        self.waiting = 0;
        self.channels = Default::default();
        self.can_listen = true;
        self.permits = Permits::ALL;
        for request in &mut self.requests {
            request.entry = NONE;
        }
    }
}

/// Makes a list so long that it has this place.
fn reach<T: Clone>(list: &mut Vec<T>, place: usize, value: T) {
    if list.len() <= place {
        list.resize(place + 1, value);
    }
}
