//! Keys that other processes wait for, as the latest releases have said.
//!
//! A process that lets go of such a key and wants it again would be the first to ask, every time.
//! It lets the others have their turn instead; for that it has to remember them for longer than
//! it remembers the key. (After a long hold nothing needs to be remembered: see
//! [`Ledger::waits_for_release`](super::Ledger).)

use std::hash::BuildHasher;
use std::time::Duration;

use super::super::jitter::KeyHasher;
use crate::clock::Time;
use crate::key::Key;

/// How many keys are remembered: so many sets of so many places each. Where more come together in
/// one set the oldest is forgotten, and then somebody is rude once.
const SETS: usize = 64;
/// See [`SETS`].
const PLACES: usize = 4;

/// For how long a key is taken to be wanted by others after a release has said so.
pub(super) const WANTED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Rivals {
    hasher: KeyHasher,
    sets: [[Option<(Key, Time)>; PLACES]; SETS],
    /// When the latest release of any key has notified others.
    latest: Time,
}

impl Rivals {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: KeyHasher::new(seed.rotate_left(8)),
            sets: [[None; PLACES]; SETS],
            latest: Time::ZERO,
        }
    }

    /// A release has notified others.
    pub(super) fn told(&mut self, key: Key, now: Time) {
        let set = &mut self.sets[self.set_of(key)];
        let known = set.iter().position(|place| place.is_some_and(|(of, _)| of == key));
        let oldest = || (0..PLACES).min_by_key(|at| set[*at].map(|(_, at)| at)).unwrap_or(0);
        let at = known.unwrap_or_else(oldest);
        set[at] = Some((key, now));
        self.latest = now;
    }

    /// Whether a release of any key has notified others not long ago.
    pub(super) fn any(&self, now: Time) -> bool {
        self.latest > Time::ZERO && now.since(self.latest) < WANTED_FOR
    }

    /// A release has found nobody who waits.
    pub(super) fn quiet(&mut self, key: Key) {
        for place in &mut self.sets[self.set_of(key)] {
            place.take_if(|(of, _)| *of == key);
        }
    }

    /// When others were notified last, if that is not long ago.
    pub(super) fn told_at(&self, key: Key, now: Time) -> Option<Time> {
        let mut known = self.sets[self.set_of(key)].iter().flatten();
        let (_, at) = known.find(|(of, _)| *of == key)?;
        (now.since(*at) < WANTED_FOR).then_some(*at)
    }

    fn set_of(&self, key: Key) -> usize {
        (self.hasher.hash_one(key) % SETS as u64) as usize
    }
}
