//! Keys that other processes wait for, as the latest releases have said.
//!
//! A process that lets go of such a key and wants it again would be the first to ask, every time.
//! It lets the others have their turn instead; for that it has to remember them for longer than
//! it remembers the key.

use std::hash::BuildHasher;
use std::time::Duration;

use super::super::jitter::KeyHasher;
use crate::clock::Time;
use crate::key::Key;

/// How many keys are remembered; what does not fit is forgotten, and then somebody is rude once.
const PLACES: usize = 64;

/// For how long a key is taken to be wanted by others after a release has said so.
pub(super) const WANTED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Rivals {
    hasher: KeyHasher,
    places: [Option<(Key, Time)>; PLACES],
    /// When the latest release of any key has notified others.
    latest: Time,
}

impl Rivals {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: KeyHasher::new(seed.rotate_left(8)),
            places: [None; PLACES],
            latest: Time::ZERO,
        }
    }

    /// A release has notified others.
    pub(super) fn told(&mut self, key: Key, now: Time) {
        *self.place(key) = Some((key, now));
        self.latest = now;
    }

    /// Whether a release of any key has notified others not long ago.
    pub(super) fn any(&self, now: Time) -> bool {
        self.latest > Time::ZERO && now.since(self.latest) < WANTED_FOR
    }

    /// A release has found nobody who waits.
    pub(super) fn quiet(&mut self, key: Key) {
        let place = self.place(key);
        if place.is_some_and(|(of, _)| of == key) {
            *place = None;
        }
    }

    /// When others were notified last, if that is not long ago.
    pub(super) fn told_at(&self, key: Key, now: Time) -> Option<Time> {
        let (of, at) = self.places[self.index(key)]?;
        (of == key && now.since(at) < WANTED_FOR).then_some(at)
    }

    fn place(&mut self, key: Key) -> &mut Option<(Key, Time)> {
        let index = self.index(key);
        &mut self.places[index]
    }

    fn index(&self, key: Key) -> usize {
        (self.hasher.hash_one(key) % PLACES as u64) as usize
    }
}
