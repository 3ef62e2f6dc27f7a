//! The contexts of the held locks, and the way of decisions from the ledger to callers.
//!
//! Contexts are used again: when a lock is released and nobody has kept its context, the next
//! grant takes it, so that a cycle of lock and release allocates nothing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use super::Shared;
use super::convert;
use super::ledger::{Sink, Terms};
use crate::clock::Time;
use crate::context::{Cause, Context, HoldContext};
use crate::error::Error;
use crate::proto::listing::Listing;
use crate::slab::ROOM;
use crate::slots::{Drive, Grant, HoldId, Reply, Ticket};
use crate::timer::{self, Alarm};

/// The contexts of the held locks, by the hold's place.
#[derive(Debug)]
pub(crate) struct Holds {
    held: Vec<Option<Held>>,
    /// Contexts that nobody has a clone of.
    unused: Vec<HoldContext>,
    limit: usize,
    release_on_cancel: bool,
}

#[derive(Debug)]
struct Held {
    context: HoldContext,
    /// With `release_on_cancel`: releases the lock when the requester's deadline passes.
    _alarm: Option<Alarm>,
}

impl Holds {
    pub(crate) fn new(limit: u32, release_on_cancel: bool) -> Self {
        let limit = limit as usize;
        Self {
            held: Vec::with_capacity(ROOM),
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
            self.unused.push(context);
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
        let place = self.holds.held.get_mut(hold.index as usize);
        if let Some(held) = place.and_then(Option::take) {
            if self.holds.release_on_cancel {
                held.context.notice_deadline();
            }
            held.context.finish(cause);
            self.holds.keep_unused(held.context);
        }
    }

    fn watch(&self, hold: HoldId, context: &Context) -> Option<Alarm> {
        if !self.holds.release_on_cancel {
            return None;
        }
        let waker = Waker::from(Arc::new(Releaser { shared: self.shared.this.clone(), hold }));
        // A context that is done already is not watched: it is released at once.
        if context.watch(&waker).is_none() {
            waker.wake_by_ref();
        }
        timer::wake_at(context.deadline_time(), &waker)
    }
}

impl Sink for Settler<'_> {
    fn granted(&mut self, ticket: Ticket, hold: HoldId, terms: Terms) -> bool {
        let Some(parent) = self.shared.slots.context(ticket) else { return false };
        let mut held = self.holds.take_unused();
        let renewed = held.renew(&parent, &self.shared.lease_until);
        debug_assert!(renewed, "unused contexts are unshared");
        let context = held.context();
        let place = hold.index as usize;
        if self.holds.held.len() <= place {
            self.holds.held.resize_with(place + 1, || None);
        }
        let alarm = self.watch(hold, &context);
        // In its place before anybody hears of it: a loss must find it.
        self.holds.held[place] = Some(Held { context: held, _alarm: alarm });
        let Terms { token, since } = terms;
        let grant = Grant { hold, context, token, since };
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
        self.shared.lease_until.store(until.as_nanos(), Ordering::Release);
    }

    fn released(&mut self, hold: HoldId) {
        self.retire(hold, Cause::Released);
    }

    fn lost(&mut self, hold: HoldId, cause: Cause) {
        self.retire(hold, cause);
    }
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
