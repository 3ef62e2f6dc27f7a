//! Waiting for a key that another process holds.
//!
//! The first refusal registers the session as a waiter beside the key and tries once more
//! ([`Statement::Register`](crate::proto::statement::Statement)); from then on a release
//! notifies, and the notification leads to the next try. What notifies nobody, the end of a holder,
//! is found by polling, seldom. Who was not registered, because the server has no LISTEN or the
//! number is somebody else's, polls more often.
//!
//! Who has got the key, and usually waits for it again once it has let go of it, stays registered
//! meanwhile ([`Ledger::stay`]): that saves two statements for each of its turns.
//!
//! One registration and one try in flight for each key, however many wait for it here. While
//! processes compete for a key, the one that lets go yields: it registers as well, and the others
//! come first. Which of those that are notified tries first: see [`turns`](super::turns).

use std::time::Duration;

use super::tables::{Attempt, NONE};
use super::{Ledger, Op, OpKind, Sink};
use crate::clock::Time;
use crate::proto::companion;
use crate::slots::{Ticket, Want};

/// The pause of a registered waiter before it asks without having been notified; half as long
/// again each time, up to [`POLL_MAX`].
pub(super) const POLL_MIN: Duration = Duration::from_secs(1);
/// See [`POLL_MIN`].
const POLL_MAX: Duration = Duration::from_secs(5);

/// The same of a waiter that nobody will notify; twice as long each time, up to
/// [`UNLISTED_MAX`].
const UNLISTED_MIN: Duration = Duration::from_millis(10);
/// See [`UNLISTED_MIN`].
const UNLISTED_MAX: Duration = Duration::from_secs(1);

/// So often in a row the registration may fail because somebody looked for waiters just then.
const PROBED_MAX: u8 = 3;

/// For how long a session stays registered as a waiter once it has the key.
const STAYS_FOR: Duration = Duration::from_millis(20);
/// And for how long once it has let go of it. Others are told meanwhile that it waits, and let it
/// come first.
pub(super) const BACK_WITHIN: Duration = Duration::from_millis(1);
/// For so many keys at once.
pub(super) const STAYS_MAX: usize = 16;

/// For how long a channel is listened to after the last waiter has gone.
const LISTENS_FOR: Duration = Duration::from_secs(5);

/// An entry whose first waiter is to be tried again at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cooling {
    pub(super) entry: u32,
    /// When it is tried at the latest, whatever is heard of it.
    pub(super) poll_at: Time,
    /// Since when it has rested: see [`Ledger::rest`].
    pub(super) rests_since: Option<Time>,
}

#[cfg(test)]
impl Cooling {
    pub(super) fn rests(&self) -> bool {
        self.rests_since.is_some()
    }
}

/// A key that the session stays registered for, also if nobody here waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    entry: u32,
    until: Time,
}

/// What is known of a channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Channel {
    pub(super) listening: bool,
    /// Keys that are registered.
    pub(super) users: u32,
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
    /// Whether a waiter is to be tried again, after a notification or a pause.
    pub(crate) fn listens(&self) -> bool {
        !self.cooling.is_empty()
    }

    /// Whether that is to be for this request.
    pub(crate) fn listens_for(&self, ticket: Ticket) -> bool {
        let request = &self.requests[ticket.slot as usize];
        if request.entry == NONE || request.generation != ticket.generation {
            return false;
        }
        let state = &self.entries[request.entry as usize];
        state.head == ticket.slot && state.retry_at.is_some()
    }

    /// When [`Ledger::retry`] is due.
    pub(crate) fn next_retry(&self) -> Time {
        if self.online { self.next_retry } else { Time::NEVER }
    }

    /// Tries again for the waiters whose time has come, and stops listening for nobody.
    pub(crate) fn retry(&mut self, sink: &mut impl Sink) {
        let now = self.now;
        let mut position = 0;
        while let Some(Cooling { entry, rests_since, .. }) = self.cooling.get(position).copied() {
            if self.entries[entry as usize].retry_at.is_some_and(|at| at <= now) {
                self.cooling.swap_remove(position);
                self.entries[entry as usize].retry_at = None;
                if let Some(since) = rests_since {
                    self.end_rest(entry, since);
                }
                self.advance(entry, sink);
                self.settle(entry);
                self.drop_if_unused(entry);
            } else {
                position += 1;
            }
        }
        while let Some(at) = self.stays.iter().position(|stay| stay.until <= now) {
            let Stay { entry, .. } = self.stays.swap_remove(at);
            let state = &self.entries[entry as usize];
            if state.head == NONE && state.attempt.is_none() && state.holders == 0 {
                self.rivals.comes_back(state.key(), false);
            }
            self.settle(entry);
            self.drop_if_unused(entry);
        }
        for channel in 0..self.channels.len() {
            let state = &mut self.channels[channel];
            if state.until.is_some_and(|until| until <= now) {
                *state = Channel::default();
                self.push_op(Op::new(OpKind::Unlisten, channel as u32));
            }
        }
        self.look_ahead();
    }

    fn look_ahead(&mut self) {
        let retries =
            self.cooling.iter().filter_map(|place| self.entries[place.entry as usize].retry_at);
        let ends = self.channels.iter().filter_map(|channel| channel.until);
        let stays = self.stays.iter().map(|stay| stay.until);
        self.next_retry = retries.chain(ends).chain(stays).min().unwrap_or(Time::NEVER);
    }

    /// Another session has notified those who wait for a key.
    pub(crate) fn notified(&mut self, key: crate::key::Key, notifier: i32, sink: &mut impl Sink) {
        let mut subjects = [Some((key, false)), None];
        if let crate::key::Key::Bigint(number) = key {
            let first = crate::key::Key::Bigint(number & !companion::SLOT_MASK);
            subjects[1] = Some((first, true));
        }
        for subject in subjects.into_iter().flatten() {
            let (key, counted) = subject;
            let Some(entry) = self.index.find(&self.entries, key, counted) else { continue };
            self.rivals.heard(key, notifier, self.now);
            let state = &mut self.entries[entry as usize];
            // Holders that notify need not be asked after.
            state.refusals = 0;
            if state.head == NONE && state.attempt.is_none() {
                continue;
            }
            state.heard = state.heard.saturating_add(1);
            state.pressed = false;
            if !state.attempt.is_none() {
                // A try that is not sent yet comes after what this is about.
                state.notified |= state.attempt != Attempt::Trying;
            } else if state.head != NONE && state.retry_at.is_some() && !self.is_resting(entry) {
                self.race(entry, sink);
                self.settle(entry);
                self.drop_if_unused(entry);
            }
        }
    }

    // ----- refused -----

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
        if listed && self.is_passed_over(entry) {
            return self.press(entry);
        }
        if self.rest(entry) {
            return;
        }
        // Not where LISTEN has failed after it was registered, or together with that.
        let hears = listed && self.channels[usize::from(self.channel_of(entry))].listening;
        let state = &mut self.entries[entry as usize];
        state.refusals = refusals.saturating_add(1);
        state.probed = 0;
        let pause = match hears {
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
        self.poll(entry, pause);
    }

    /// Tries again after a pause, if nothing is heard before.
    fn poll(&mut self, entry: u32, pause: Duration) {
        let at = self.now.after(pause);
        self.cool(entry, at, at);
    }

    // ----- registering -----

    /// Listens to the channel of a key, before it is registered, and before it is tried.
    pub(super) fn listen(&mut self, entry: u32) {
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
    pub(super) fn enlist(&mut self, entry: u32) {
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
            self.stays.retain(|stay| stay.entry != entry);
        }
    }

    /// Who was registered has the key now, and takes that back later, if it usually comes back.
    pub(super) fn stay(&mut self, entry: u32) {
        self.stays.retain(|stay| stay.entry != entry);
        let hears = self.channels[usize::from(self.channel_of(entry))].listening;
        let comes_back = self.rivals.usually_comes_back(self.entries[entry as usize].key());
        if hears && comes_back && self.stays.len() < STAYS_MAX {
            let until = self.now.after(STAYS_FOR);
            self.stays.push(Stay { entry, until });
            self.next_retry = self.next_retry.min(until);
        }
    }

    /// It has let go of the key, and others may have been told: then it has to come back soon.
    pub(super) fn end_stay(&mut self, entry: u32, is_told: bool) {
        if !is_told {
            return self.stays.retain(|stay| stay.entry != entry);
        }
        let until = self.now.after(BACK_WITHIN);
        if let Some(stay) = self.stays.iter_mut().find(|stay| stay.entry == entry) {
            stay.until = stay.until.min(until);
            self.next_retry = self.next_retry.min(stay.until);
        }
    }

    /// Whether the session stays registered, whether or not anybody here waits.
    pub(super) fn stays(&self, entry: u32) -> bool {
        self.stays.iter().any(|stay| stay.entry == entry)
    }

    pub(super) fn channel_of(&self, entry: u32) -> u8 {
        companion::channel(super::op::parameters(self.entries[entry as usize].key()))
    }

    // ----- pauses -----

    pub(super) fn cool(&mut self, entry: u32, at: Time, poll_at: Time) {
        let former = self.entries[entry as usize].retry_at.replace(at);
        let place = match former {
            Some(_) => self.cooling.iter_mut().find(|place| place.entry == entry),
            None => None,
        };
        match place {
            Some(place) => (place.poll_at, place.rests_since) = (poll_at, None),
            None => self.cooling.push(Cooling { entry, poll_at, rests_since: None }),
        }
        if former == Some(self.next_retry) {
            // Put off: nobody has to wake for what it was.
            return self.look_ahead();
        }
        self.next_retry = self.next_retry.min(at);
    }

    pub(super) fn stop_cooling(&mut self, entry: u32) {
        if self.entries[entry as usize].retry_at.take().is_some() {
            self.cooling.retain(|place| place.entry != entry);
        }
    }
}
