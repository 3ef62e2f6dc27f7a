//! What a script says: a pure function of its seed.

use std::time::Duration;

use crate::forms::{Ask, Form, KEYS};

pub(crate) const THREADS: usize = 4;

/// Steps of one thread: 20 in a script.
const STEPS: usize = 5;

/// One step of one thread. What is held is chosen by a number, of which the remainder counts; where
/// nothing is held there is nothing to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Asks once, and blocks for the answer.
    Try(Ask),
    /// Waits, with a time limit of the request.
    LockFor(Ask, Duration),
    /// Waits, with a deadline of the context, which the lock inherits.
    LockUnder(Ask, Duration),
    /// Waits, for a time, with a context that any thread may cancel, then or later.
    LockCancelable(Ask, Duration),
    /// Cancels the latest such context of a thread.
    CancelOf(usize),
    /// Polls a request so often, with pauses for its waker to be called, and drops it.
    PollAndDrop { ask: Ask, polls: u64, pause: Duration, waits: bool },
    /// The same, but for the drop: the request stays under way.
    PollAndKeep { ask: Ask, polls: u64, pause: Duration },
    /// Awaits the request that is under way for a time, and drops it if that is not enough.
    AwaitKept(Duration),
    /// Asks for what is held already, by the same manager; releases that, and awaits the other one
    /// for a time.
    ReleaseWhileWaiting { which: u64, polls: u64, unlocks: bool, limit: Duration },
    /// Makes an exclusive lock a shared one, and waits for the answer; takes a set apart.
    Change(u64),
    /// Releases, and waits for the answer.
    Unlock(u64),
    /// Releases, and does not.
    Drop(u64),
    /// Keeps a clone of a lock's context beyond its end.
    KeepContext(u64),
}

/// One script.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: [[Step; STEPS]; THREADS],
    /// Chooses how what is held at the end is released.
    pub(crate) ending: Random,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut step = |_| random.step();
        let steps = [(); THREADS].map(|()| [(); STEPS].map(&mut step));
        Self { seed, steps, ending: random }
    }
}

/// Xorshift64; enough to vary what the threads do.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Seeds next to each other give scripts that have nothing in common (splitmix64).
        let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)).max(1))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn step(&mut self) -> Step {
        let which = self.below(1 << 32);
        match self.below(18) {
            0 | 1 => Step::Try(self.ask()),
            2 => Step::LockFor(self.ask(), self.span()),
            3 => Step::LockUnder(self.ask(), self.span()),
            4 | 5 => Step::LockCancelable(self.ask(), self.span()),
            6 => Step::CancelOf(self.below(THREADS as u64) as usize),
            7 | 8 => {
                let (ask, polls) = (self.ask(), self.below(5));
                let waits = self.below(3) > 0;
                Step::PollAndDrop { ask, polls, pause: self.pause(), waits }
            }
            9 => {
                let (ask, polls) = (self.ask(), self.below(3));
                Step::PollAndKeep { ask, polls, pause: self.pause() }
            }
            10 => Step::AwaitKept(self.span()),
            11 | 12 => {
                let (polls, unlocks) = (self.below(3), self.below(2) == 0);
                Step::ReleaseWhileWaiting { which, polls, unlocks, limit: self.span() }
            }
            13 => Step::Unlock(which),
            14 => Step::Drop(which),
            15 | 16 => Step::Change(which),
            _ => Step::KeepContext(which),
        }
    }

    fn ask(&mut self) -> Ask {
        let keys = KEYS.len() as u64;
        // Some keys are asked for more often than others.
        let key = self.below(keys).min(self.below(keys)) as usize;
        let form = Form::CHOICE[self.below(Form::CHOICE.len() as u64) as usize];
        Ask { manager: self.below(2) as usize, key, form }
    }

    /// How long a wait may take: now and then no time at all, and now and then long enough to see
    /// the other manager's release.
    fn span(&mut self) -> Duration {
        let longest = if self.below(4) == 0 { 7_500 } else { 1_500 };
        Duration::from_micros(self.below(longest).saturating_sub(longest / 10))
    }

    /// Between two polls.
    fn pause(&mut self) -> Duration {
        Duration::from_micros(self.below(3) * 150)
    }
}
