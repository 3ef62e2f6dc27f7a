//! The contexts of the held locks, and the way of decisions from the ledger to callers.
//!
//! Contexts are used again: when a lock is released and nobody has kept its context, the next
//! grant takes it, so that a cycle of lock and release allocates nothing.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use super::Shared;
use super::convert;
use super::ledger::{Sink, Terms};
use crate::clock::Time;
use crate::context::{Cause, Context, HoldContext};
use crate::error::Error;
use crate::proto::listing::Listing;
use crate::slab::{ROOM, append};
use crate::slots::{Drive, Grant, HoldId, Reply, Ticket};
use crate::timer::{self, Alarm};

/// The contexts of the held locks, by the hold's place.
#[derive(Debug)]
pub(crate) struct Holds {
    held: Vec<Option<HoldContext>>,
    /// With `release_on_cancel`: what releases each lock when the requester's deadline passes.
    alarms: Vec<Option<Alarm>>,
    /// Contexts that nobody has a clone of.
    unused: Vec<HoldContext>,
    limit: usize,
    release_on_cancel: bool,
}

impl Holds {
    pub(crate) fn new(limit: u32, release_on_cancel: bool) -> Self {
        let limit = limit as usize;
        Self {
            held: Vec::with_capacity(ROOM),
            alarms: Vec::new(),
            unused: Vec::with_capacity(ROOM),
            limit,
            release_on_cancel,
        }
    }

    /// The sink for the ledger's decisions.
    pub(crate) fn settler<'a>(&'a mut self, shared: &'a Shared) -> Settler<'a> {
        Settler { holds: self, shared }
    }

    fn take_unused(&mut self) -> HoldContext {
        self.unused.pop().unwrap_or_else(HoldContext::new)
    }

    fn keep_unused(&mut self, mut context: HoldContext) {
        if self.unused.len() < self.limit && context.is_unshared() {
            append(&mut self.unused, context);
        }
    }
}

/// Puts the ledger's decisions where callers find them.
#[derive(Debug)]
pub(crate) struct Settler<'a> {
    holds: &'a mut Holds,
    shared: &'a Shared,
}

impl Settler<'_> {
    /// A hold is over: its context is done, and its memory is kept for the next.
    fn retire(&mut self, hold: HoldId, cause: Cause) {
        let place = hold.index as usize;
        let Some(context) = self.holds.held.get_mut(place).and_then(Option::take) else { return };
        if self.holds.release_on_cancel {
            context.notice_deadline();
        }
        context.finish(cause);
        self.holds.keep_unused(context);
        drop(self.holds.alarms.get_mut(place).and_then(Option::take));
    }

    /// For `release_on_cancel`.
    fn watch(&mut self, hold: HoldId, context: &Context) {
        let waker = Waker::from(Arc::new(Releaser { shared: self.shared.this.clone(), hold }));
        // A context that is done already is not watched: it is released at once.
        if context.watch(&waker).is_none() {
            waker.wake_by_ref();
        }
        let alarm = timer::wake_at(context.deadline_time(), &waker);
        put(&mut self.holds.alarms, hold.index as usize, alarm);
    }
}

impl Sink for Settler<'_> {
    fn granted(&mut self, ticket: Ticket, hold: HoldId, terms: Terms) -> bool {
        let Some(parent) = self.shared.slots.context(ticket) else { return false };
        let mut held = self.holds.take_unused();
        let Terms { token, since } = terms;
        let renewed = held.renew(&parent, &self.shared.home, token);
        debug_assert!(renewed, "unused contexts are unshared");
        let context = held.context();
        if self.holds.release_on_cancel {
            self.watch(hold, &context);
        }
        // In its place before anybody hears of it: a loss must find it.
        put(&mut self.holds.held, hold.index as usize, Some(held));
        let grant = Grant { hold, context, since };
        let wanted = self.shared.slots.answer(ticket, Ok(Reply::Granted(grant))).is_ok();
        if !wanted {
            self.retire(hold, Cause::Released);
        }
        wanted
    }

    fn refused(&mut self, ticket: Ticket) {
        // Who has gone does not want to know; the slot is freed with its Abandon.
        let _ = self.shared.slots.answer(ticket, Ok(Reply::Nothing));
    }

    fn failed(&mut self, ticket: Ticket, error: Error) {
        let _ = self.shared.slots.answer(ticket, Err(error));
    }

    fn done(&mut self, ticket: Ticket) {
        let _ = self.shared.slots.answer(ticket, Ok(Reply::Nothing));
    }

    fn listed(&mut self, ticket: Ticket, listing: Box<Listing>) {
        let holders = Box::new(convert::holders(*listing));
        let _ = self.shared.slots.answer(ticket, Ok(Reply::Holders(holders)));
    }

    fn forgotten(&mut self, ticket: Ticket) {
        self.shared.slots.free(ticket);
    }

    fn believed(&mut self, until: Time) {
        // All locks of an earlier session were marked when that one ended (I8).
        self.shared.home.believe(until);
    }

    fn released(&mut self, hold: HoldId) {
        self.retire(hold, Cause::Released);
    }

    fn lost(&mut self, hold: HoldId, cause: Cause) {
        self.retire(hold, cause);
    }
}

/// Puts a value in its place of a table, which becomes long enough for it.
fn put<T>(table: &mut Vec<Option<T>>, place: usize, value: Option<T>) {
    while table.len() <= place {
        append(table, None);
    }
    table[place] = value;
}

/// Releases a lock when its context is done, for `Config::release_on_cancel`.
struct Releaser {
    shared: Weak<Shared>,
    hold: HoldId,
}

impl Wake for Releaser {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.slots.release([self.hold]);
            shared.kick();
        }
    }
}
