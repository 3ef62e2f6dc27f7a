//! What the contestants write down, and what is made of it.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos())
        .expect("a machine that was started in this century")
}

/// One hold of the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    /// When it was asked for.
    pub(crate) request: u64,
    /// When the call came back with it.
    pub(crate) grant: u64,
    /// Right before the call that releases it.
    pub(crate) release: u64,
    /// Who it was.
    pub(crate) who: usize,
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// From each release to the next grant anywhere.
    pub(crate) next: Vec<u64>,
    /// Those of them that went to somebody who had asked before the release.
    pub(crate) to_waiter: Vec<u64>,
    /// From each request within the window to its grant.
    pub(crate) waits: Vec<u64>,
    /// How many grants each contestant had.
    pub(crate) grants: Vec<usize>,
    /// Holds that began before the one before had been released.
    pub(crate) overlaps: usize,
}

impl Figures {
    /// Adds the holds of one run of `contestants`; those granted outside of `window` count only
    /// where two holds may not overlap.
    pub(crate) fn add(&mut self, mut holds: Vec<Hold>, contestants: usize, window: (u64, u64)) {
        self.grants.resize(contestants.max(self.grants.len()), 0);
        holds.sort_unstable_by_key(|hold| hold.grant);
        let counts = |hold: &Hold| (window.0..=window.1).contains(&hold.grant);
        let mut free_since = 0;
        for (n, hold) in holds.iter().enumerate() {
            if n > 0 && hold.grant < free_since {
                self.overlaps += 1;
            } else if n > 0 && counts(hold) {
                self.next.push(hold.grant - free_since);
                if hold.request < free_since {
                    self.to_waiter.push(hold.grant - free_since);
                }
            }
            // Also of who got it after the end, or those who waited longest would be left out.
            if (window.0..=window.1).contains(&hold.request) {
                self.waits.push(hold.grant - hold.request);
            }
            if counts(hold) {
                // Whoever made the key scarce at first is not one of them.
                if let Some(grants) = self.grants.get_mut(hold.who) {
                    *grants += 1;
                }
            }
            free_since = free_since.max(hold.release);
        }
    }

    /// Sorts what [`at`] looks into.
    pub(crate) fn sort(&mut self) {
        for times in [&mut self.next, &mut self.to_waiter, &mut self.waits] {
            times.sort_unstable();
        }
    }
}

/// The value below which `percent` of the sorted times are.
pub(crate) fn at(times: &[u64], percent: usize) -> Option<Duration> {
    let last = times.len().checked_sub(1)?;
    times.get((times.len() * percent / 100).min(last)).copied().map(Duration::from_nanos)
}

/// A time for a table, or a dash.
pub(crate) fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1?}"))
}

pub(crate) fn median(mut times: Vec<u64>) -> Duration {
    times.sort_unstable();
    at(&times, 50).expect("a run of a length")
}
