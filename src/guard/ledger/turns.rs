//! Who of those that wait for a key, in many processes, tries when.
//!
//! A notification wakes all who wait, always in the same order, as the server has it. Who has
//! waited for longest tries at once, the others after a pause ([`Ledger::pause_of`]): so they take
//! turns, and most of them need not try at all before the next notification. How long one has
//! waited it knows by the number of notifications, and how long that is by the number of those who
//! notify. Whoever is skipped all the same presses ([`Ledger::is_passed_over`]). All of that only
//! chooses between waiters: a pause is over after milliseconds, notified or not.
//!
//! To be woken for each release, only to find that it is not one's turn, takes a server process and
//! a thread here a good part of the time that a hand-over may take, and all who wait share the
//! processors. Who begins to wait behind many others therefore rests ([`Ledger::rest`]): it stays
//! registered, so that releases notify, but does not listen until its turn is near. Then it listens
//! first and tries behind that, as when it registers: what was let go of before, the try finds, and
//! of what is let go of later it hears. A rest is over after milliseconds, too.

use std::time::Duration;

use super::tables::{Entry, Held};
use super::waiting::{BACK_WITHIN, Channel, POLL_MIN};
use super::{Ledger, Op, OpKind, Sink};
use crate::clock::Time;
use crate::slots::Want;

/// For how long who has let go of a key lets those come first that wait for it elsewhere.
const YIELDS_FOR: Duration = Duration::from_millis(4);

/// So many of those who are notified try at once, those that have waited for longest, and the
/// others later. Only one would be fairer still, and slower: it may be the last that is woken.
const FRONT: u32 = 4;
/// Against so many nobody pauses, for the same reason.
const SMALL: u32 = 8;
/// For up to so long, for each one before it behind [`FRONT`], a waiter that is notified pauses.
const STEP: Duration = Duration::from_micros(100);
/// And for no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// Against so many who has just begun to wait rests. Fewer leave the processors time enough.
const LARGE: u32 = 24;
/// Who rests listens again when so many are before it, behind [`FRONT`]: it is not exact.
const NEAR: u32 = 4;
/// Nobody rests for longer than this: should all others have gone, the key is free meanwhile.
const REST_MAX: Duration = Duration::from_millis(50);
/// Before one turn in so many, on average, a waiter does not rest, and counts the others.
const COUNTS_EACH: u8 = 16;

/// See [`Ledger::is_passed_over`].
const PASSED_OVER: u32 = 4;

impl Ledger {
    /// The key is free, and everybody who waits for it knows: who has waited for longer comes
    /// first.
    pub(super) fn race(&mut self, entry: u32, sink: &mut impl Sink) {
        let pause = self.pause_of(entry);
        let cools = self.entries[entry as usize].retry_at.is_some();
        let mut places = self.cooling.iter().filter(|_| cools);
        let place = places.find(|place| place.entry == entry);
        let poll_at = place.map_or(Time::NEVER, |place| place.poll_at);
        let at = self.now.after(pause).min(poll_at);
        if at > self.now {
            return self.cool(entry, at, poll_at);
        }
        self.stop_cooling(entry);
        self.advance(entry, sink);
    }

    /// How long a waiter that was notified leaves the key to those who have waited for longer.
    /// Those at the front leave it to nobody: whoever wakes first has it.
    fn pause_of(&mut self, entry: u32) -> Duration {
        let state = &self.entries[entry as usize];
        let others = self.others(entry);
        let behind = others.saturating_sub(state.heard.into()).saturating_sub(FRONT);
        if others <= SMALL || behind == 0 {
            return Duration::ZERO;
        }
        // Until the next release, if that comes about as soon as this one came: saves a try. Where
        // others rest, few are before it that try.
        let releases = if others < LARGE { 2 } else { 4 };
        let interval = self.rivals.interval(state.key());
        let most = (STEP * behind).max(interval * releases).min(PAUSE_MAX);
        // Seldom short; but of many that have all begun to wait just now, the first soon tries.
        self.jitter.up_to(most).max(self.jitter.up_to(most))
    }

    /// How many others have their turn between two turns of the first waiter, as far as is known.
    fn others(&self, entry: u32) -> u32 {
        let crowd = self.rivals.crowd(self.entries[entry as usize].key());
        match self.first(entry).map(|(_, first)| first.want) {
            Some(Want::Exclusive) => crowd,
            // A release leaves the slots of all others as they are.
            Some(Want::Slot(count)) => crowd.saturating_sub(u32::from(count).saturating_sub(1)),
            // They can have it together.
            Some(Want::Shared) | None => 0,
        }
    }

    /// Whether others have had the key again and again meanwhile: they hear of a release earlier,
    /// each time. They do not know of one who never gets it, and cannot wait for it. Where many
    /// come for the first time, they have their turn first, and all would press at once.
    pub(super) fn is_passed_over(&self, entry: u32) -> bool {
        let Entry { heard, pressed, .. } = self.entries[entry as usize];
        if pressed || self.others(entry) == 0 {
            return false;
        }
        let seen = self.rivals.seen(self.entries[entry as usize].key());
        u32::from(heard) > seen + seen / 4 + PASSED_OVER
    }

    /// Tries once more before the next notification, when nobody expects it: it may come upon a
    /// key that was let go of just then.
    pub(super) fn press(&mut self, entry: u32) {
        let state = &mut self.entries[entry as usize];
        state.pressed = true;
        let interval = self.rivals.interval(state.key());
        let pause = self.jitter.up_to(interval.min(POLL_MIN / 2));
        self.cool(entry, self.now.after(pause), self.now.after(POLL_MIN));
    }

    // ----- resting -----

    /// Does not listen until the turn of the first waiter is near, if that is far off. Says whether
    /// it does.
    pub(super) fn rest(&mut self, entry: u32) -> bool {
        let state = &self.entries[entry as usize];
        let (key, number) = (state.key(), self.channel_of(entry));
        let Channel { listening, users, .. } = self.channels[usize::from(number)];
        // Later it has heard of others, or has had its rest.
        let has_just_come = state.listed && state.heard == 0 && state.held == Held::Nothing;
        let is_exclusive = self.first(entry).is_some_and(|(_, it)| it.want == Want::Exclusive);
        let others = self.others(entry);
        let span = (self.rivals.pace(key) * others.saturating_sub(FRONT + NEAR)).min(REST_MAX);
        let is_alone_on_channel = listening && users == 1;
        if !(has_just_come && is_exclusive && is_alone_on_channel)
            || others < LARGE
            || span.is_zero()
            || !self.rivals.may_rest(key)
        {
            return false;
        }
        self.channels[usize::from(number)].listening = false;
        self.push_op(Op::new(OpKind::Unlisten, number.into()));
        self.rivals.rests(key);
        let until = self.now.after(span);
        self.cool(entry, until, until);
        if let Some(place) = self.cooling.iter_mut().find(|place| place.entry == entry) {
            place.rests_since = Some(self.now);
        }
        true
    }

    pub(super) fn is_resting(&self, entry: u32) -> bool {
        self.cooling.iter().any(|place| place.entry == entry && place.rests_since.is_some())
    }

    /// As many others have had their turn as usually have in that time.
    pub(super) fn end_rest(&mut self, entry: u32, since: Time) {
        let key = self.entries[entry as usize].key();
        let pace = self.rivals.pace(key).as_nanos().max(1);
        let missed = (self.now.since(since).as_nanos() / pace).clamp(1, u8::MAX.into());
        let heard = &mut self.entries[entry as usize].heard;
        *heard = heard.saturating_add(missed as u8);
        // The next notification is not compared with what was heard before.
        self.rivals.rests(key);
    }

    /// The server has granted the key to a waiter that was registered.
    pub(super) fn has_its_turn(&mut self, entry: u32) {
        let state = &self.entries[entry as usize];
        let (key, heard) = (state.key(), u32::from(state.heard));
        let rests = (self.jitter.next() % u64::from(2 * COUNTS_EACH)) as u8;
        self.rivals.had_turn(key, heard + FRONT < self.rivals.crowd(key), rests);
    }

    // ----- yielding -----

    /// Whether a new request has to let others come first.
    pub(super) fn has_to_yield(&self, entry: u32) -> bool {
        let state = &self.entries[entry as usize];
        let told_at = self.rivals.told_at(state.key(), self.now);
        self.waits_for_release(entry) || told_at.is_some_and(|at| self.now < at.after(YIELDS_FOR))
    }

    /// Whether the queue waits for the answer to a release, which says if others come first: where
    /// others waited not long ago, and after a hold so long that it is not known.
    pub(super) fn waits_for_release(&self, entry: u32) -> bool {
        let state = &self.entries[entry as usize];
        let may_be_wanted = state.was_long || self.rivals.told_at(state.key(), self.now).is_some();
        state.releasing > 0 && may_be_wanted
    }

    /// A request was queued behind others, or has to yield.
    pub(super) fn after_queueing(&mut self, entry: u32) {
        let is_waiting_for_answer = self.entries[entry as usize].releasing > 0;
        if self.online && !is_waiting_for_answer {
            self.yield_to_others(entry);
        }
    }

    /// Others were notified of the key: they come first. Who could be tried here waits like them.
    pub(super) fn yield_to_others(&mut self, entry: u32) {
        let Some((_, first)) = self.first(entry) else { return };
        if !self.is_open(entry, first.want) {
            return;
        }
        let key = self.entries[entry as usize].key();
        if self.rivals.told_at(key, self.now).is_some_and(|at| self.now < at.after(BACK_WITHIN)) {
            self.rivals.comes_back(key, true);
        }
        if !self.entries[entry as usize].listed && self.can_listen {
            self.listen(entry);
            self.enlist(entry);
        }
        if self.rest(entry) {
            return;
        }
        let pause = self.jitter.upper_half_of(YIELDS_FOR);
        // Notified in the meantime, it takes its turn like everybody.
        self.cool(entry, self.now.after(pause), self.now.after(POLL_MIN));
    }
}
