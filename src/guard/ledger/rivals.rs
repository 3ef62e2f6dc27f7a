//! Keys that other processes compete for, as releases and notifications say.
//!
//! A process that lets go of such a key and wants it again would be the first to ask, every time.
//! It lets the others have their turn instead; for that it has to remember them for longer than
//! it remembers the key. (After a long hold nothing needs to be remembered: see
//! [`Ledger::waits_for_release`](super::Ledger).) And who is notified together with many others
//! lets those try first that have waited for longer; for that it has to know how many there are.
//! Who does not listen all the time, because its turn is far off, has to know that beforehand, and
//! in how quick a succession the others have the key.

use std::hash::BuildHasher;
use std::time::Duration;

use super::super::jitter::KeyHasher;
use crate::clock::Time;
use crate::key::Key;

/// For how long a key is taken to be wanted by others after a release has said so.
pub(super) const WANTED_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Rivals {
    /// Keys of which releases here have notified others, and whether they are asked for again at
    /// once.
    told: Table<bool, 64>,
    /// Who else lets go of a key. Made when the first notification comes: most never get one.
    crowds: Option<Box<Table<Crowd, 16>>>,
    hasher: KeyHasher,
    /// When the latest release of any key has notified others.
    latest: Time,
}

impl Rivals {
    pub(super) fn new(seed: u64) -> Self {
        let hasher = KeyHasher::new(seed.rotate_left(8));
        Self { told: Table::new(hasher), crowds: None, hasher, latest: Time::ZERO }
    }

    /// A release has notified others.
    pub(super) fn told(&mut self, key: Key, now: Time) {
        self.told.place(key, now, || false);
        self.latest = now;
    }

    /// Another session has let go of a key, and has notified us.
    pub(super) fn heard(&mut self, key: Key, notifier: i32, now: Time) {
        let crowds = self.crowds.get_or_insert_with(|| Box::new(Table::new(self.hasher)));
        crowds.place(key, now, || Crowd::NOBODY).heard(notifier, now);
    }

    /// Whether a release of any key has notified others not long ago.
    pub(super) fn any(&self, now: Time) -> bool {
        self.latest > Time::ZERO && now.since(self.latest) < WANTED_FOR
    }

    /// A release has found nobody who waits.
    pub(super) fn quiet(&mut self, key: Key) {
        if self.latest == Time::ZERO && self.crowds.is_none() {
            return;
        }
        self.told.forget(key);
        if let Some(crowds) = &mut self.crowds {
            crowds.forget(key);
        }
    }

    /// When others were notified last, if that is not long ago.
    pub(super) fn told_at(&self, key: Key, now: Time) -> Option<Time> {
        let at = self.told.get(key)?.used_at;
        (now.since(at) < WANTED_FOR).then_some(at)
    }

    /// Who has let go of the key waits for it again, at once; or did not, this time.
    pub(super) fn comes_back(&mut self, key: Key, does: bool) {
        if let Some(again) = self.told.get_mut(key) {
            *again = does;
        }
    }

    /// Whether who lets go of the key usually waits for it again at once.
    pub(super) fn usually_comes_back(&self, key: Key) -> bool {
        self.told.get(key).is_some_and(|place| place.value)
    }

    /// How many other sessions have the key by turns: see [`Crowd::size`].
    pub(super) fn crowd(&self, key: Key) -> u32 {
        self.crowd_of(key).map_or(0, Crowd::size)
    }

    /// The same, with those who may have come for the first and last time.
    pub(super) fn seen(&self, key: Key) -> u32 {
        self.crowd_of(key).map_or(0, |crowd| crowd.there().count() as u32)
    }

    /// The time between the latest two notifications.
    pub(super) fn interval(&self, key: Key) -> Duration {
        self.crowd_of(key).map_or(Duration::ZERO, |crowd| crowd.heard_at.since(crowd.heard_before))
    }

    /// The mean time between two notifications, where there is one.
    pub(super) fn pace(&self, key: Key) -> Duration {
        self.crowd_of(key).map_or(Duration::ZERO, |crowd| crowd.pace)
    }

    /// Whether who waits for the key need not hear of all of its releases now.
    pub(super) fn may_rest(&self, key: Key) -> bool {
        self.crowd_of(key).is_some_and(Crowd::may_rest)
    }

    /// From now on until the next turn here, not all releases are heard of.
    pub(super) fn rests(&mut self, key: Key) {
        if let Some(crowd) = self.crowd_mut(key) {
            (crowd.rests, crowd.paused) = (true, true);
        }
    }

    /// The key was granted here to one that waited for it; `early` if it was not its turn. Before
    /// so many more turns it may rest, if it may not now.
    pub(super) fn had_turn(&mut self, key: Key, early: bool, rests: u8) {
        if let Some(crowd) = self.crowd_mut(key) {
            crowd.had_turn(early, rests);
        }
    }

    fn crowd_mut(&mut self, key: Key) -> Option<&mut Crowd> {
        self.crowds.as_mut()?.get_mut(key)
    }

    fn crowd_of(&self, key: Key) -> Option<&Crowd> {
        Some(&self.crowds.as_ref()?.get(key)?.value)
    }
}

/// What is remembered of keys: so many sets of [`PLACES`] each. Where more keys come together in
/// one set the oldest is forgotten, and then somebody is rude once.
#[derive(Debug)]
struct Table<T, const SETS: usize> {
    hasher: KeyHasher,
    sets: [[Option<Place<T>>; PLACES]; SETS],
}

/// See [`Table`].
const PLACES: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Place<T> {
    key: Key,
    used_at: Time,
    value: T,
}

impl<T: Copy, const SETS: usize> Table<T, SETS> {
    fn new(hasher: KeyHasher) -> Self {
        Self { hasher, sets: [[None; PLACES]; SETS] }
    }

    fn get(&self, key: Key) -> Option<&Place<T>> {
        let mut known = self.sets[self.set_of(key)].iter().flatten();
        known.find(|place| place.key == key)
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let mut known = self.sets[self.set_of(key)].iter_mut().flatten();
        known.find(|place| place.key == key).map(|place| &mut place.value)
    }

    /// The place of a key, which may have been that of another one until now.
    fn place(&mut self, key: Key, now: Time, fresh: impl FnOnce() -> T) -> &mut T {
        let set = &mut self.sets[self.set_of(key)];
        let known =
            set.iter().position(|place| place.as_ref().is_some_and(|place| place.key == key));
        let used_at = |at: &usize| set[*at].as_ref().map(|place| place.used_at);
        let at = known.unwrap_or_else(|| (0..PLACES).min_by_key(used_at).unwrap_or(0));
        if known.is_none() {
            set[at] = None;
        }
        let place = set[at].get_or_insert_with(|| Place { key, used_at: now, value: fresh() });
        place.used_at = now;
        &mut place.value
    }

    fn forget(&mut self, key: Key) {
        for place in &mut self.sets[self.set_of(key)] {
            place.take_if(|place| place.key == key);
        }
    }

    fn set_of(&self, key: Key) -> usize {
        (self.hasher.hash_one(key) % SETS as u64) as usize
    }
}

/// The other sessions that let go of a key.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    /// The latest one first.
    known: [Rival; CROWD_MAX],
    len: u16,
    /// How many notifications there were, when the latest was, and the one before.
    heard: u16,
    heard_at: Time,
    heard_before: Time,
    /// The mean of so many times between two of them.
    pace: Duration,
    paced: u8,
    /// Whether there may have been others between the latest one and the next.
    paused: bool,
    /// Whether they are not counted, since not all are heard of.
    rests: bool,
    /// How many more turns it may rest before, until all are counted once more.
    rests_left: u8,
    /// How many turns in a row came before their time.
    early: u8,
    /// So many more notifications are counted before anybody rests.
    doubt: u16,
}

#[derive(Debug, Clone, Copy)]
struct Rival {
    /// As many bits of its process number as there is room for. Two that have them in common count
    /// as one.
    process: u16,
    /// Which notification was its latest.
    heard: u16,
    /// Whether it has notified us before. Who comes once and goes makes nobody wait for long.
    came_back: bool,
}

/// So many of the latest gaps between notifications count in their mean.
const PACED_MAX: u8 = 32;

/// So many turns in a row that come too early are not due to chance.
const EARLY_MAX: u8 = 3;

/// The one that was heard of after so many others is taken to have gone after so many
/// notifications without it.
fn forgotten_after(others: usize) -> usize {
    4 * others + 16
}

/// In a greater crowd than this some are forgotten before they come back, and do not count.
const CROWD_MAX: usize = 64;

impl Crowd {
    const NOBODY: Self = {
        let nobody = Rival { process: 0, heard: 0, came_back: false };
        let known = [nobody; CROWD_MAX];
        Self {
            known,
            len: 0,
            heard: 0,
            heard_at: Time::ZERO,
            heard_before: Time::ZERO,
            pace: Duration::ZERO,
            paced: 0,
            paused: true,
            rests: false,
            rests_left: 0,
            early: 0,
            doubt: 0,
        }
    };

    fn heard(&mut self, process: i32, now: Time) {
        self.heard_before = std::mem::replace(&mut self.heard_at, now);
        if !std::mem::take(&mut self.paused) {
            self.paced = (self.paced + 1).min(PACED_MAX);
            let paced = u32::from(self.paced);
            self.pace = (self.pace * (paced - 1) + now.since(self.heard_before)) / paced;
        }
        if self.rests {
            return;
        }
        self.doubt = self.doubt.saturating_sub(1);
        let process = process as u16;
        self.heard = self.heard.wrapping_add(1);
        let known = self.known[..usize::from(self.len)].iter();
        let at = known.clone().position(|rival| rival.process == process);
        if at.is_none() && usize::from(self.len) < CROWD_MAX {
            self.len += 1;
        }
        let upto = at.unwrap_or_else(|| usize::from(self.len) - 1);
        self.known[..=upto].rotate_right(1);
        self.known[0] = Rival { process, heard: self.heard, came_back: at.is_some() };
    }

    /// How many there are that come back, from the latest one to the one before it and so on, as
    /// long as they turn up often enough. Those that have the key by turns turn up one after the
    /// other; who has gone is followed by so many notifications of the rest that the count does
    /// not get as far as to it.
    ///
    /// All processes that compete count the same ones. What each finds in its own lot, how long it
    /// waits, would not do: who is lucky would think that there are few, and press forward.
    fn size(&self) -> u32 {
        self.there().filter(|rival| rival.came_back).count() as u32
    }

    fn there(&self) -> impl Iterator<Item = &Rival> {
        let known = self.known[..usize::from(self.len)].iter().enumerate();
        let is_there = |(n, rival): &(usize, &Rival)| {
            usize::from(self.heard.wrapping_sub(rival.heard)) <= forgotten_after(*n)
        };
        known.take_while(is_there).map(|(_, rival)| rival)
    }

    /// Whether all that are there are known to come back: while some are new, it listens and
    /// counts.
    fn may_rest(&self) -> bool {
        self.rests_left > 0 && self.doubt == 0 && self.there().all(|rival| rival.came_back)
    }

    /// Who rests does not see that others have gone, only that it finds the key free too early,
    /// again and again. Then it counts for so long that it forgets all who have gone.
    fn had_turn(&mut self, early: bool, rests: u8) {
        (self.rests, self.paused) = (false, true);
        self.rests_left = self.rests_left.checked_sub(1).unwrap_or(rests);
        self.early = if early { self.early + 1 } else { 0 };
        if self.early == EARLY_MAX {
            self.early = 0;
            self.doubt = forgotten_after(self.size() as usize) as u16;
        }
    }
}
