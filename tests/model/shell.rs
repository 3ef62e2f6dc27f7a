//! What surrounds the guard's seat, in the place of mio and the operating system: the places to
//! sleep at, what wakes there, the clock and the timer.

use std::io;
use std::task::Waker;
use std::time::Duration;

use crate::clock::Time;
use crate::guard::turn::{Reading, Stream};
use crate::world::{self, NEVER, Spot};

/// Where the guard's thread sleeps while nobody else works.
#[derive(Debug)]
pub(crate) struct EventLoop;

impl EventLoop {
    pub(crate) fn sleep(&mut self, timeout: Option<Duration>) -> bool {
        let until = timeout.map_or(NEVER, |span| world::looked_at() + span.as_nanos() as u64);
        world::sleep(Spot::EventLoop, until).socket
    }
}

/// What wakes it there.
#[derive(Debug)]
pub(crate) struct LoopWaker;

impl LoopWaker {
    pub(crate) fn wake(&self) -> io::Result<()> {
        world::call_event_loop();
        Ok(())
    }
}

/// What wakes a caller that sleeps with the seat.
#[derive(Debug)]
pub(crate) struct Bell;

impl Bell {
    pub(crate) fn ring(&self) {
        world::ring();
    }
}

/// What that caller hears it by.
#[derive(Debug)]
pub(crate) struct Ear;

impl Ear {
    pub(crate) fn sleep(&self, _: &Stream, _: Time, limit: Time) -> Reading {
        let until = if limit == Time::NEVER { NEVER } else { limit.as_nanos() };
        let woken = world::sleep(Spot::WithSeat, until);
        if woken.socket { Reading::Once } else { Reading::Nothing }
    }
}

/// How long a caller that is alone does not hear the bell.
pub(crate) mod socket {
    use super::Duration;

    pub(crate) const RECEIVE_MAX: Duration = Duration::from_millis(2);
    pub(crate) const TICKS: Duration = Duration::from_millis(20);
}

/// What `clock.rs` reads: it finds this crate under the name of rustix.
pub(crate) mod time {
    pub(crate) enum ClockId {
        Boottime,
        Monotonic,
    }

    pub(crate) struct Timespec {
        pub(crate) tv_sec: i64,
        pub(crate) tv_nsec: i64,
    }

    pub(crate) fn clock_gettime(_: ClockId) -> Timespec {
        let now = crate::world::read_clock();
        Timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i64 }
    }
}

/// The timer of tasks: what is due is woken by the world's timer thread.
pub(crate) mod timer {
    use super::{Time, Waker, world};

    #[derive(Debug)]
    pub(crate) struct Alarm {
        time: Time,
        number: usize,
    }

    pub(crate) fn wake_at(time: Time, waker: &Waker) -> Option<Alarm> {
        let is_set = time != Time::NEVER;
        is_set.then(|| Alarm { time, number: world::set_alarm(time.as_nanos(), waker.clone()) })
    }

    impl Alarm {
        pub(crate) fn time(&self) -> Time {
            self.time
        }
    }

    impl Drop for Alarm {
        fn drop(&mut self) {
            drop(world::unset_alarm(self.number));
        }
    }
}
