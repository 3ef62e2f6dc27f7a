//! Waiting for a key that another process holds.
//!
//! The first refusal registers the session as a waiter beside the key and tries once more
//! ([`Statement::Register`](crate::proto::statement::Statement)); from then on a release
//! notifies, and the notification leads to the next try. What notifies nobody, the end of a holder,
//! is found by polling, seldom. Who was not registered, because the server has no LISTEN or the
//! number is somebody else's, polls more often.
//!
//! One registration and one try in flight for each key, however many wait for it here. While
//! processes compete for a key, the one that lets go yields: it registers as well, and the others
//! come first.

use std::time::Duration;

use super::tables::NONE;
use super::{Ledger, Op, OpKind, Sink};
use crate::clock::Time;
use crate::proto::companion;
use crate::slots::Want;

/// The pause of a registered waiter before it asks without having been notified; half as long
/// again each time, up to [`POLL_MAX`].
const POLL_MIN: Duration = Duration::from_secs(1);
/// See [`POLL_MIN`].
const POLL_MAX: Duration = Duration::from_secs(5);

/// The same of a waiter that nobody will notify; twice as long each time, up to
/// [`UNLISTED_MAX`].
const UNLISTED_MIN: Duration = Duration::from_millis(10);
/// See [`UNLISTED_MIN`].
const UNLISTED_MAX: Duration = Duration::from_secs(1);

/// So often in a row the registration may fail because somebody looked for waiters just then.
const PROBED_MAX: u8 = 3;

/// For how long who has let go of a key lets those come first that wait for it elsewhere.
const YIELDS_FOR: Duration = Duration::from_millis(4);

/// For how long a channel is listened to after the last waiter has gone.
const LISTENS_FOR: Duration = Duration::from_secs(5);

/// What is known of a channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Channel {
    listening: bool,
    /// Keys that are registered.
    users: u32,
    /// When it is not listened to any more, if nobody comes. Only while there are no users.
    until: Option<Time>,
}

#[cfg(test)]
impl Channel {
    pub(super) fn is_open(&self) -> bool {
        self.listening
    }
}

impl Ledger {
    /// When [`Ledger::retry`] is due.
    pub(crate) fn next_retry(&self) -> Time {
        if self.online { self.next_retry } else { Time::NEVER }
    }

    /// Tries again for the waiters whose time has come, and stops listening for nobody.
    pub(crate) fn retry(&mut self, sink: &mut impl Sink) {
        let now = self.now;
        let mut position = 0;
        while let Some(entry) = self.cooling.get(position).copied() {
            if self.entries[entry as usize].retry_at.is_some_and(|at| at <= now) {
                self.cooling.swap_remove(position);
                self.entries[entry as usize].retry_at = None;
                self.advance(entry, sink);
                self.settle(entry);
                self.drop_if_unused(entry);
            } else {
                position += 1;
            }
        }
        for channel in 0..self.channels.len() {
            let state = &mut self.channels[channel];
            if state.until.is_some_and(|until| until <= now) {
                *state = Channel::default();
                self.push_op(Op::new(OpKind::Unlisten, channel as u32));
            }
        }
        let retries =
            self.cooling.iter().filter_map(|entry| self.entries[*entry as usize].retry_at);
        let ends = self.channels.iter().filter_map(|channel| channel.until);
        self.next_retry = retries.chain(ends).min().unwrap_or(Time::NEVER);
    }

    /// Somebody has notified those who wait for a key.
    pub(crate) fn notified(&mut self, key: crate::key::Key, sink: &mut impl Sink) {
        let mut subjects = [Some((key, false)), None];
        if let crate::key::Key::Bigint(number) = key {
            let first = crate::key::Key::Bigint(number & !companion::SLOT_MASK);
            subjects[1] = Some((first, true));
        }
        for subject in subjects.into_iter().flatten() {
            let (key, counted) = subject;
            let Some(entry) = self.index.find(&self.entries, key, counted) else { continue };
            let state = &mut self.entries[entry as usize];
            // Holders that notify need not be asked after.
            state.refusals = 0;
            if !state.attempt.is_none() {
                state.notified = true;
            } else if state.head != NONE && state.retry_at.is_some() {
                self.race(entry, sink);
                self.settle(entry);
                self.drop_if_unused(entry);
            }
        }
    }

    /// The key is free, and everybody who waits for it knows.
    fn race(&mut self, entry: u32, sink: &mut impl Sink) {
        self.stop_cooling(entry);
        self.advance(entry, sink);
    }

    /// The first of the queue was refused by the server: wait to be notified.
    pub(super) fn wait_elsewhere(&mut self, entry: u32, sink: &mut impl Sink) {
        let state = &mut self.entries[entry as usize];
        if std::mem::take(&mut state.notified) {
            return self.race(entry, sink);
        }
        let (listed, probed, refusals) = (state.listed, state.probed, state.refusals);
        let has_gate = state.gate;
        if !listed && self.can_listen && probed < PROBED_MAX {
            let Some((ticket, first)) = self.first(entry) else { return };
            // What is shared here already must not be taken once more.
            let kind = match self.shares(entry, first.want) {
                true => OpKind::Knock,
                // Nor the gate, which a retry has left us.
                false if has_gate && first.want == Want::Exclusive => OpKind::Try,
                false => OpKind::Register,
            };
            self.listen(entry);
            if kind != OpKind::Register {
                self.enlist(entry);
            }
            self.dequeue(ticket.slot);
            return self.begin(kind, entry, ticket, sink);
        }
        state.refusals = refusals.saturating_add(1);
        state.probed = 0;
        let pause = match listed {
            true => {
                let grown = (0..refusals.min(8)).fold(POLL_MIN, |pause, _| pause * 3 / 2);
                let grown = grown.min(POLL_MAX);
                self.jitter.upper_half_of(grown)
            }
            false => {
                let grown = UNLISTED_MIN.saturating_mul(1 << refusals.min(16)).min(UNLISTED_MAX);
                self.jitter.upper_half_of(grown)
            }
        };
        self.cool(entry, self.now.after(pause));
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
        if !self.entries[entry as usize].listed && self.can_listen {
            self.listen(entry);
            self.enlist(entry);
        }
        let pause = self.jitter.upper_half_of(YIELDS_FOR);
        self.cool(entry, self.now.after(pause));
    }

    // ----- registering -----

    /// Listens to the channel of a key, before it is registered.
    fn listen(&mut self, entry: u32) {
        if !self.can_listen {
            return;
        }
        let number = self.channel_of(entry);
        if !std::mem::replace(&mut self.channels[usize::from(number)].listening, true) {
            self.push_op(Op::new(OpKind::Listen, number.into()));
        }
        self.keep_listening(number.into());
    }

    /// While there are users; or for a while, within which one may come.
    fn keep_listening(&mut self, number: usize) {
        let until = self.now.after(LISTENS_FOR);
        let channel = &mut self.channels[number];
        let is_unused = channel.listening && channel.users == 0;
        channel.until = is_unused.then_some(until);
        if is_unused {
            self.next_retry = self.next_retry.min(until);
        }
    }

    /// This server has no LISTEN, or not for us: from now on waiters poll.
    pub(super) fn hear_no_more(&mut self, channel: u32) {
        self.can_listen = false;
        if let Some(channel) = self.channels.get_mut(channel as usize) {
            (channel.listening, channel.until) = (false, None);
        }
    }

    /// Registers without a try.
    fn enlist(&mut self, entry: u32) {
        self.listed(entry);
        self.entries[entry as usize].enlisting += 1;
        self.push_op(Op::new(OpKind::Enlist, entry));
    }

    pub(super) fn listed(&mut self, entry: u32) {
        if std::mem::replace(&mut self.entries[entry as usize].listed, true) {
            return;
        }
        let number = usize::from(self.channel_of(entry));
        self.channels[number].users += 1;
        // Nobody may have been registered when the registration was on its way.
        self.listen(entry);
    }

    pub(super) fn unlisted(&mut self, entry: u32) {
        if std::mem::take(&mut self.entries[entry as usize].listed) {
            let number = usize::from(self.channel_of(entry));
            self.channels[number].users -= 1;
            self.keep_listening(number);
        }
    }

    fn channel_of(&self, entry: u32) -> u8 {
        companion::channel(super::op::parameters(self.entries[entry as usize].key()))
    }

    // ----- pauses -----

    fn cool(&mut self, entry: u32, at: Time) {
        if self.entries[entry as usize].retry_at.replace(at).is_none() {
            self.cooling.push(entry);
        }
        self.next_retry = self.next_retry.min(at);
    }

    pub(super) fn stop_cooling(&mut self, entry: u32) {
        if self.entries[entry as usize].retry_at.take().is_some() {
            self.cooling.retain(|cooling| *cooling != entry);
        }
    }
}
