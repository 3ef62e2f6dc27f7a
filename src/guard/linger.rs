//! Whether a poll waits for the answer.
//!
//! A future that is pending has its answer read by the guard's thread: two wake-ups, the thread's
//! and the executor's, which on one machine take longer than the server. So a poll may wait for
//! the answer itself, as a blocked caller does, but only
//!
//! * while answers come within [`Config::linger`](crate::Config::linger), which is no longer than
//!   tasks may take between two `.await`s. One that does not is found out by the thread, which
//!   looks every [`STAND_ASIDE`], and then twice as many requests do without as the last time;
//! * if its request is the only one under way, and was so [`ALONE`] times in a row: of many tasks,
//!   the others want to be polled meanwhile;
//! * [`LINGERS`] times in a row, before the executor gets to run other tasks.

use std::time::Duration;

#[cfg(doc)]
use super::thread::STAND_ASIDE;

/// So many requests in a row have to be the only one under way.
const ALONE: u32 = 4;

/// So often in a row a poll may wait before it has to yield once.
const LINGERS: u32 = 4;

/// The most requests that do without after an answer came late, as a power of two.
const SKIPS_MAX: u32 = 10;

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Linger {
    limit: Duration,
    /// How many requests in a row were the only one.
    alone: u32,
    /// How many polls in a row have waited.
    lingered: u32,
    /// How many answers in a row came too late.
    late: u32,
    /// How many requests are to do without.
    skips: u32,
}

/// What a poll is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Leave the answer to the guard's thread.
    None,
    /// Let other tasks run, then ask again.
    AfterOthers,
    /// Wait, and count an answer that takes longer than this as late.
    For(Duration),
}

impl Linger {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, alone: 0, lingered: 0, late: 0, skips: 0 }
    }

    /// A task has a new request under way; `is_alone` if nobody else has.
    pub(super) fn asked(&mut self, is_alone: bool) -> Patience {
        self.alone = if is_alone { (self.alone + 1).min(ALONE) } else { 0 };
        if self.alone < ALONE || self.limit.is_zero() {
            return Patience::None;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return Patience::None;
        }
        self.lingered += 1;
        if self.lingered > LINGERS {
            self.lingered = 0;
            return Patience::AfterOthers;
        }
        Patience::For(self.limit)
    }

    /// The others were let run.
    pub(super) fn yielded(&mut self, is_alone: bool) -> Patience {
        if !is_alone {
            self.alone = 0;
            return Patience::None;
        }
        Patience::For(self.limit)
    }

    /// A poll has waited; says whether the answer came in time.
    pub(super) fn ended(&mut self, in_time: bool) {
        if in_time {
            self.late = 0;
            return;
        }
        self.late = (self.late + 1).min(SKIPS_MAX);
        self.skips = 1 << self.late;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const WAIT: Patience = Patience::For(LIMIT);

    /// One that has seen enough requests to wait for the next one's answer.
    fn settled() -> Linger {
        let mut linger = Linger::new(LIMIT);
        for _ in 1..ALONE {
            assert_eq!(linger.asked(true), Patience::None, "it may be one of many");
        }
        linger
    }

    #[test]
    fn a_task_that_is_alone_waits_and_lets_others_run_every_few_times() {
        let mut linger = settled();
        for _ in 0..3 {
            for _ in 0..LINGERS {
                assert_eq!(linger.asked(true), WAIT);
                linger.ended(true);
            }
            assert_eq!(linger.asked(true), Patience::AfterOthers);
            assert_eq!(linger.yielded(true), WAIT);
            linger.ended(true);
        }
    }

    #[test]
    fn nobody_waits_while_others_have_requests() {
        let mut linger = settled();
        assert_eq!(linger.asked(false), Patience::None);
        for _ in 1..ALONE {
            assert_eq!(linger.asked(true), Patience::None, "they come and go");
        }
        for _ in 0..LINGERS {
            assert_eq!(linger.asked(true), WAIT);
        }
        assert_eq!(linger.asked(true), Patience::AfterOthers);
        assert_eq!(linger.yielded(false), Patience::None, "one has come");
        assert_eq!(linger.asked(true), Patience::None);
    }

    #[test]
    fn a_server_that_is_slow_is_waited_for_ever_less_often() {
        let mut linger = settled();
        let mut waits = 0;
        for _ in 0..20_000 {
            match linger.asked(true) {
                Patience::None => continue,
                Patience::AfterOthers => assert_eq!(linger.yielded(true), WAIT),
                Patience::For(_) => {}
            }
            waits += 1;
            linger.ended(false);
        }
        assert!((10..40).contains(&waits), "{waits} of 20,000");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut linger = Linger::new(Duration::ZERO);
        assert!((0..20).all(|_| linger.asked(true) == Patience::None));
    }
}
