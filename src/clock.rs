//! The boot-time clock.
//!
//! Every deadline and lease of this crate is measured on CLOCK_BOOTTIME, which goes on while the
//! machine is suspended; `std::time::Instant` stops there, and a lease that was kept on it would be
//! believed after the server had freed the lock. The wall clock is used nowhere: it can jump.
//! [`Time::now`] is called by the shell only; the pure core is handed a `Time`.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// A point on the boot-time clock, in nanoseconds. Never zero, so that an `Option` of it is no
/// larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(NonZeroU64);

impl Time {
    /// Later than every real point: a deadline that never comes.
    pub(crate) const NEVER: Self = Self(NonZeroU64::MAX);
    /// The clock's beginning: a deadline that has always passed.
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    /// The present.
    pub(crate) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        // Elsewhere the monotonic clock is the best there is.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

        let time = rustix::time::clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self::from_nanos(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
    }

    /// This point and a span after it; [`Time::NEVER`] where that is out of range.
    #[must_use]
    pub(crate) fn after(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The span from an earlier point to this one; zero where that point is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The nanoseconds, for an atomic or a message that carries a time through.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0.get()
    }

    /// The inverse of [`Time::as_nanos`]; zero is the clock's beginning, too.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        match NonZeroU64::new(nanos) {
            Some(nanos) => Self(nanos),
            None => Self::ZERO,
        }
    }

    /// The point that corresponds to an `Instant`, by way of the span from now.
    pub(crate) fn from_instant(instant: Instant) -> Self {
        let (now, reference) = (Self::now(), Instant::now());
        match instant.checked_duration_since(reference) {
            Some(ahead) => now.after(ahead),
            None => {
                let behind = reference.saturating_duration_since(instant);
                let behind = u64::try_from(behind.as_nanos()).unwrap_or(u64::MAX);
                Self::from_nanos(now.as_nanos().saturating_sub(behind))
            }
        }
    }

    /// The `Instant` that corresponds to this point; `None` for [`Time::NEVER`].
    pub(crate) fn to_instant(self) -> Option<Instant> {
        if self == Self::NEVER {
            return None;
        }
        let (now, reference) = (Self::now(), Instant::now());
        if self >= now {
            reference.checked_add(self.since(now))
        } else {
            reference.checked_sub(now.since(self))
        }
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Time::NEVER.after(Duration::from_secs(1)), Time::NEVER);
        assert_eq!(Time::ZERO.after(Duration::MAX), Time::NEVER);
        assert_eq!(Time::ZERO.since(Time::NEVER), Duration::ZERO);
    }

    #[test]
    fn a_point_that_may_be_missing_is_no_larger() {
        assert_eq!(size_of::<Option<Time>>(), size_of::<u64>());
        assert_eq!(Time::from_nanos(0), Time::ZERO);
    }

    #[test]
    fn an_instant_survives_the_way_there_and_back() {
        let instant = Instant::now() + Duration::from_secs(60);
        let back = Time::from_instant(instant).to_instant().expect("a finite time");
        let gap = back.max(instant) - back.min(instant);
        assert!(gap < Duration::from_secs(1), "{gap:?}");
        assert_eq!(Time::NEVER.to_instant(), None);
    }
}
