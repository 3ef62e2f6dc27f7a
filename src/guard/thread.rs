//! The guard's own thread: where it sleeps, and who calls it. The rules are in the
//! [module above](super).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use super::EventLoop;
use super::rhythm::FOLLOWS_WITHIN;
use super::seat::Shared;
use super::turn::Reading;
use crate::clock::Time;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::thread::{self, Thread};

/// Where the guard's thread is.
#[derive(Debug)]
pub(super) struct Watch {
    place: AtomicU8,
    thread: OnceLock<Thread>,
}

/// Awake: at work, or on its way to sleep in one of the places below.
const BUSY: u8 = 0;
/// In the event loop: the socket and its waker wake it.
pub(super) const WATCHING: u8 = 1;
/// Out of the callers' way, with a look at the queue now and then.
pub(super) const ASIDE: u8 = 2;
/// The same, but with long pauses, since one caller waits for long.
pub(super) const AWAY: u8 = 3;

impl Watch {
    pub(super) const fn new() -> Self {
        Self { place: AtomicU8::new(BUSY), thread: OnceLock::new() }
    }

    pub(super) fn set_thread(&self, thread: Thread) {
        // Set once, by who spawned it.
        let _ = self.thread.set(thread);
    }

    /// Whether the calling thread is the guard's own.
    pub(super) fn is_own_thread(&self) -> bool {
        self.thread.get().is_some_and(|own| own.id() == thread::current().id())
    }

    pub(super) fn enter_event_loop(&self) {
        self.place.store(WATCHING, Ordering::SeqCst);
    }

    pub(super) fn leave_event_loop(&self) {
        self.place.store(BUSY, Ordering::SeqCst);
    }

    pub(super) fn is(&self, place: u8) -> bool {
        self.place.load(Ordering::SeqCst) == place
    }

    /// Calls the thread out of the event loop, if it is there: from now on it counts as busy.
    fn call_out(&self) -> bool {
        self.place.compare_exchange(WATCHING, BUSY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// How often the thread looks whether callers are still at work.
pub(super) const STAND_ASIDE: Duration = Duration::from_millis(2);

/// The longest pause, while one caller waits for a slow server, or to be notified.
const STAND_ASIDE_MAX: Duration = Duration::from_secs(1);

/// How long closing waits for the thread at the longest. The thread never waits for the server, so
/// it needs far less; the limit is for a caller that closes from inside a waker.
pub(super) const JOIN_MAX: Duration = Duration::from_millis(900);

/// The thread. However its loop ends, be it by a panic, which only a bug of ours can cause: all
/// locks are lost and all requests end. Nobody is left to wait for somebody who is gone.
pub(super) fn run(shared: &Shared, event_loop: EventLoop) {
    // What a panic has left half done is looked at once more, to be closed, and never again.
    let _ = catch_unwind(AssertUnwindSafe(|| guard(shared, event_loop)));
    shared.closing.store(true, Ordering::SeqCst);
    // A caller may sleep with the seat.
    shared.nudge_driver();
    let mut seat = shared.seat.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = catch_unwind(AssertUnwindSafe(|| seat.guard.close(shared)));
    seat.guard.first = None;
    drop(seat);
    *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    shared.ended_changed.notify_all();
}

/// Sleeps in the event loop, and runs a turn when there is reason to and nobody else is at it.
fn guard(shared: &Shared, mut event_loop: EventLoop) {
    let mut readable = true;
    let mut pause = STAND_ASIDE;
    while !shared.closing.load(Ordering::SeqCst) {
        if shared.is_sent_aside() || !shared.thread_turn(readable) {
            // Callers are at work: once they have gone, what they left in the socket is ours.
            if shared.slots.has_submissions() {
                shared.nudge_driver();
            }
            // Where nobody reads for a whole pause, and the seat is taken all the same, one caller
            // waits for long, and there is less and less reason to look.
            let is_quiet = shared.stand_aside(pause);
            pause = if is_quiet { (pause * 2).min(STAND_ASIDE_MAX) } else { STAND_ASIDE };
            readable = true;
            continue;
        }
        pause = STAND_ASIDE;
        let until = Time::from_nanos(shared.sleeps_until.load(Ordering::SeqCst));
        let span = until.since(Time::now());
        let timeout = if until == Time::NEVER { None } else { Some(span) };
        shared.watch.enter_event_loop();
        if shared.is_lingered_on() {
            shared.send_aside();
            readable = true;
            continue;
        }
        let has_events = event_loop.sleep(timeout);
        shared.watch.leave_event_loop();
        // An unfinished turn has used up its edge: it reads on without a new one.
        readable = has_events || until == Time::ZERO;
    }
}

impl Shared {
    /// A turn by the guard's thread. `false` when somebody else has the seat.
    pub(super) fn thread_turn(&self, readable: bool) -> bool {
        let Some(mut seat) = self.try_seat() else { return false };
        let reading = if readable { Reading::Drain } else { Reading::Nothing };
        loop {
            seat.guard.turn(self, Time::now(), reading);
            self.sleeps_until.store(seat.guard.next_timeout().as_nanos(), Ordering::SeqCst);
            let driver = seat.next_driver(&self.slots);
            drop(seat);
            if self.has_more() {
                match self.try_seat() {
                    Some(again) => seat = again,
                    None => return false,
                }
                continue;
            }
            // A caller whose statement is in flight reads the answer itself, which spares the
            // hand-over; the thread goes to the event loop all the same.
            if let Some(slot) = driver {
                self.slots.wake_owner(slot);
            }
            return true;
        }
    }

    /// Sleeps until callers no longer look into the socket, which it then says, somebody calls for
    /// the thread, or a release has waited for too long.
    pub(super) fn stand_aside(&self, pause: Duration) -> bool {
        let place = if pause <= STAND_ASIDE { ASIDE } else { AWAY };
        self.watch.place.store(place, Ordering::SeqCst);
        // Who left the seat before that was stored did not call.
        let mut is_needed = place == AWAY && self.try_seat().is_some();
        let mut is_quiet = false;
        while !is_needed {
            let before = self.reads.load(Ordering::SeqCst);
            // Looked at after the place was stored: who begins to linger later sees that.
            let pause = if self.is_lingered_on() { STAND_ASIDE } else { pause };
            thread::park_timeout(pause);
            self.end_lingering();
            let called = self.thread_called.swap(false, Ordering::SeqCst);
            let closing = self.closing.load(Ordering::SeqCst);
            is_quiet = !called && self.reads.load(Ordering::SeqCst) == before;
            is_needed = called || closing || is_quiet || self.has_overdue_release();
        }
        // From here on no release rides; one that did already is found by the turn that follows.
        self.watch.place.store(BUSY, Ordering::SeqCst);
        self.sent_aside.store(false, Ordering::SeqCst);
        is_quiet
    }

    /// Whether a release rides with a request that does not come, or somebody calls meanwhile. One
    /// that was queued just now gets its time.
    pub(super) fn has_overdue_release(&self) -> bool {
        while self.slots.has_submissions() {
            if self.rhythm.is_overdue(Time::now()) {
                return true;
            }
            thread::park_timeout(FOLLOWS_WITHIN);
            // It may have ended because somebody called, which nothing else would tell any more.
            if self.thread_called.swap(false, Ordering::SeqCst) {
                return true;
            }
        }
        false
    }

    /// Sends the thread away from the event loop, where each answer would wake it.
    pub(super) fn send_aside(&self) {
        if self.watch.call_out() {
            self.sent_aside.store(true, Ordering::SeqCst);
            // Fails only when the event loop is gone, and with it the thread.
            let _ = self.thread_waker.wake();
        }
    }

    /// Whether callers have sent the thread away since it last looked.
    pub(super) fn is_sent_aside(&self) -> bool {
        self.sent_aside.swap(false, Ordering::SeqCst)
    }

    /// Wakes the thread where it stands aside, or keeps it from doing so.
    pub(super) fn call_back(&self) {
        self.thread_called.store(true, Ordering::SeqCst);
        if let Some(thread) = self.watch.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the thread, wherever it sleeps.
    pub(super) fn call_thread(&self) {
        self.call_back();
        // Fails only when the event loop is gone, and with it the thread.
        let _ = self.thread_waker.wake();
    }
}
