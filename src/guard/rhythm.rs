//! How callers come and go: whether a release may ride with the next request, and whether the
//! guard's thread would only be in their way.
//!
//! # Releases that ride
//!
//! A loop that locks and releases asks again right after it lets go. If its release waits for that
//! next request, both go out in one write, the server wakes once instead of twice and answers in
//! one piece; measured on one core, that takes a third off the cycle. But a release must not wait
//! for a request that may never come. So it rides only
//!
//! * after [`STREAK`] releases in a row that were each followed by a request within
//!   [`FOLLOWS_WITHIN`],
//! * while nobody in this process waits for a lock, and no release of the last second had to notify
//!   another process, and
//! * while the guard's thread stands aside and looks at the queue every [`STAND_ASIDE`]: that
//!   bounds the delay of the one release that ends such a burst, and ends the streak.
//!
//! # The thread in the event loop
//!
//! Each answer wakes it, beside the caller that reads the answer. Where it is the faster one it
//! finds a caller at work, and stands aside. Where both share a core it is the slower one, each
//! time: the answer has been read by then, and it sleeps on without having left the event loop. So
//! it is told, once [`DRIVES`] calls in a row have each come within [`STAND_ASIDE`] of the one
//! before.
//!
//! # Who is alone
//!
//! A caller that has the seat, and seems to be the only one around, waits where nobody can wake it
//! but the server: that saves a system call for each answer. Whoever comes meanwhile is kept
//! waiting until that answer is there, or a few milliseconds are over, and is the reason not to do
//! it again for the next [`UNDISTURBED`] waits.
//!
//! Who waits to be notified keeps the seat as well, where others can wake it: it is woken by the
//! server itself, and not by the thread. Whoever comes meanwhile gets the seat, and the next
//! [`UNDISTURBED`] waits of this kind are left to the thread.

use std::time::Duration;

use super::thread::STAND_ASIDE;
use crate::clock::Time;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How callers alternate between releases and requests. Shared by all of them without a lock: a
/// guess that is off by one does no harm.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// When the last release was queued that no request has followed yet; zero when there is none.
    released_at: AtomicU64,
    streak: AtomicU32,
    /// When a caller last took the seat, and how many did so in a row.
    drove_at: AtomicU64,
    drives: AtomicU32,
}

/// A request that comes so soon after a release is one of a burst.
pub(super) const FOLLOWS_WITHIN: Duration = Duration::from_micros(100);

/// So many in a row make a burst.
const STREAK: u32 = 32;

/// So many calls in a row, and the thread is sent away: not for one lock and its release, since it
/// has to come back as well.
const DRIVES: u32 = 3;

/// So many waits in a row that nobody disturbed, and the next one is expected to be like them.
const UNDISTURBED: u32 = 32;

impl Rhythm {
    pub(super) const fn new() -> Self {
        Self {
            released_at: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            drove_at: AtomicU64::new(0),
            drives: AtomicU32::new(0),
        }
    }

    /// A caller has taken the seat to wait for its answer; says whether others did so just before,
    /// so that the thread would be woken by their answers for nothing.
    pub(super) fn drove(&self, now: Time) -> bool {
        let before = Time::from_nanos(self.drove_at.swap(now.as_nanos(), Ordering::Relaxed));
        let drives = match now.since(before) <= STAND_ASIDE {
            true => (self.drives.load(Ordering::Relaxed) + 1).min(DRIVES),
            false => 1,
        };
        self.drives.store(drives, Ordering::Relaxed);
        drives >= DRIVES
    }

    /// A release was queued; says whether it may ride.
    pub(super) fn released(&self, now: Time) -> bool {
        self.released_at.store(now.as_nanos(), Ordering::SeqCst);
        self.streak.load(Ordering::Relaxed) >= STREAK
    }

    /// A request was queued.
    pub(super) fn requested(&self, now: Time) {
        let released_at = self.released_at.swap(0, Ordering::SeqCst);
        if released_at == 0 {
            return;
        }
        let streak = self.streak.load(Ordering::Relaxed);
        let follows = now.since(Time::from_nanos(released_at)) <= FOLLOWS_WITHIN;
        let streak = if follows { (streak + 1).min(STREAK) } else { 0 };
        self.streak.store(streak, Ordering::Relaxed);
    }

    /// Whether a release has waited for too long; that ends the streak.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        let released_at = Time::from_nanos(self.released_at.load(Ordering::SeqCst));
        let overdue = now.since(released_at) > FOLLOWS_WITHIN;
        if overdue {
            self.streak.store(0, Ordering::Relaxed);
        }
        overdue
    }
}

/// What the seat's holders know of that.
#[derive(Debug)]
pub(super) struct Solitude {
    /// How many others had come at the last look.
    visits: u32,
    undisturbed: u32,
    /// So many waits to be notified are left to the thread.
    left_to_thread: u32,
}

impl Solitude {
    pub(super) const fn new() -> Self {
        Self { visits: 0, undisturbed: 0, left_to_thread: 0 }
    }

    /// Asked before each wait: whether it may be one that only the server ends.
    pub(super) fn lasts(&mut self, visits: u32) -> bool {
        if self.visits != visits {
            self.visits = visits;
            self.ended();
        }
        self.undisturbed = (self.undisturbed + 1).min(UNDISTURBED + 1);
        self.undisturbed > UNDISTURBED
    }

    /// Asked before each wait to be notified: whether the seat may be kept meanwhile.
    pub(super) fn keeps_seat(&mut self) -> bool {
        let may_keep = self.left_to_thread == 0;
        self.left_to_thread = self.left_to_thread.saturating_sub(1);
        may_keep
    }

    /// Somebody came while the seat was kept.
    pub(super) fn was_visited(&mut self) {
        self.left_to_thread = UNDISTURBED;
    }

    /// A wait took longer than it may, so that others would be kept from the seat.
    pub(super) fn ended(&mut self) {
        self.undisturbed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: u64) -> Time {
        Time::ZERO.after(Duration::from_micros(1_000_000 + microseconds))
    }

    /// A rhythm that has seen a burst, and when that ended.
    fn burst() -> (Rhythm, u64) {
        let rhythm = Rhythm::new();
        let mut now = 0;
        for _ in 0..STREAK {
            assert!(!rhythm.released(at(now)), "not before a burst is one");
            rhythm.requested(at(now + 10));
            now += 100;
        }
        (rhythm, now)
    }

    #[test]
    fn a_release_rides_in_a_burst_only() {
        let (rhythm, now) = burst();
        assert!(rhythm.released(at(now)));
        rhythm.requested(at(now + 10));
        assert!(rhythm.released(at(now + 100)), "and so does the next");
    }

    #[test]
    fn the_thread_is_in_the_way_of_calls_that_follow_each_other() {
        let rhythm = Rhythm::new();
        assert_eq!([0, 1_000, 3_000].map(|now| rhythm.drove(at(now))), [false, false, true]);
        assert!(rhythm.drove(at(5_000)), "and so it goes on");
        assert!(!rhythm.drove(at(7_001)), "until one comes late");
        assert!(!rhythm.drove(at(7_002)));
        assert!(rhythm.drove(at(7_003)));
    }

    #[test]
    fn one_request_that_comes_late_ends_the_burst() {
        let (rhythm, now) = burst();
        assert!(rhythm.released(at(now)));
        rhythm.requested(at(now + 101));
        assert!(!rhythm.released(at(now + 110)));
    }

    #[test]
    fn one_request_that_does_not_come_ends_the_burst() {
        let (rhythm, now) = burst();
        assert!(rhythm.released(at(now)));
        assert!(!rhythm.is_overdue(at(now + 100)));
        assert!(rhythm.is_overdue(at(now + 101)));
        assert!(!rhythm.released(at(now + 110)));
    }

    fn alone() -> Solitude {
        let mut solitude = Solitude::new();
        for _ in 0..UNDISTURBED {
            assert!(!solitude.lasts(7), "not before it is known");
        }
        assert!(solitude.lasts(7));
        solitude
    }

    #[test]
    fn who_comes_is_remembered_for_so_many_waits() {
        let mut solitude = alone();
        assert!(solitude.lasts(7), "and so it goes on");
        for wait in 0..UNDISTURBED {
            assert!(!solitude.lasts(8), "wait {wait} since somebody came");
        }
        assert!(solitude.lasts(8));
    }

    #[test]
    fn who_is_visited_leaves_the_seat_for_so_many_waits() {
        let mut solitude = Solitude::new();
        assert!(solitude.keeps_seat() && solitude.keeps_seat(), "until somebody comes");
        solitude.was_visited();
        for wait in 0..UNDISTURBED {
            assert!(!solitude.keeps_seat(), "wait {wait} since somebody came");
        }
        assert!(solitude.keeps_seat());
    }

    #[test]
    fn a_server_that_is_slow_ends_it() {
        let mut solitude = alone();
        solitude.ended();
        assert!(!solitude.lasts(7));
    }
}
