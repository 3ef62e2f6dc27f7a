//! Who has the seat, who is woken, and how it changes hands. The rules are in the
//! [module above](super).

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::linger::Patience;
use super::rhythm::FOLLOWS_WITHIN;
use super::socket::{RECEIVE_MAX, TICKS};
use super::stream::Ready;
use super::{JOIN_MAX, Reading, STAND_ASIDE, Seat, Shared, is_current};
use crate::clock::Time;
use crate::slots::{Drive, Slots, Ticket};
use crate::warning::Warning;

/// Where the guard's thread is.
#[derive(Debug)]
pub(super) struct Watch {
    place: AtomicU8,
    thread: OnceLock<Thread>,
}

/// Awake: at work, or on its way to sleep in one of the places below.
const BUSY: u8 = 0;
/// In the event loop: the socket and its waker wake it.
const WATCHING: u8 = 1;
/// Out of the callers' way, with a look at the queue now and then.
const ASIDE: u8 = 2;
/// The same, but with long pauses, since one caller waits for a slow server.
const AWAY: u8 = 3;

impl Watch {
    pub(super) const fn new() -> Self {
        Self { place: AtomicU8::new(BUSY), thread: OnceLock::new() }
    }

    pub(super) fn set_thread(&self, thread: Thread) {
        // Set once, by who spawned it.
        let _ = self.thread.set(thread);
    }

    pub(super) fn enter_event_loop(&self) {
        self.place.store(WATCHING, Ordering::SeqCst);
    }

    pub(super) fn leave_event_loop(&self) {
        self.place.store(BUSY, Ordering::SeqCst);
    }

    fn is(&self, place: u8) -> bool {
        self.place.load(Ordering::SeqCst) == place
    }

    /// Calls the thread out of the event loop, if it is there: from now on it counts as busy.
    fn call_out(&self) -> bool {
        self.place.compare_exchange(WATCHING, BUSY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
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
            let driver = seat.guard.next_driver(&self.slots);
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

    /// Sleeps until callers no longer look into the socket, somebody calls for the thread, or a
    /// release has waited for too long.
    pub(super) fn stand_aside(&self, pause: Duration) {
        let place = if pause <= STAND_ASIDE { ASIDE } else { AWAY };
        self.watch.place.store(place, Ordering::SeqCst);
        loop {
            let before = self.reads.load(Ordering::SeqCst);
            // Looked at after the place was stored: who begins to linger later sees that.
            let pause = if self.is_lingered_on() { STAND_ASIDE } else { pause };
            std::thread::park_timeout(pause);
            self.end_lingering();
            let called = self.thread_called.swap(false, Ordering::SeqCst);
            let closing = self.closing.load(Ordering::SeqCst);
            let quiet = self.reads.load(Ordering::SeqCst) == before;
            if called || closing || quiet || self.has_overdue_release() {
                break;
            }
        }
        // From here on no release rides; one that did already is found by the turn that follows.
        self.watch.place.store(BUSY, Ordering::SeqCst);
        self.sent_aside.store(false, Ordering::SeqCst);
    }

    /// Whether a release rides with a request that does not come. One that was queued just now
    /// gets its time.
    fn has_overdue_release(&self) -> bool {
        while self.slots.has_submissions() {
            if self.rhythm.is_overdue(Time::now()) {
                return true;
            }
            std::thread::park_timeout(FOLLOWS_WITHIN);
        }
        false
    }

    fn try_seat(&self) -> Option<MutexGuard<'_, Seat>> {
        // What was queued before is visible to who leaves the seat after this has failed: with the
        // fence in `has_more`, one of the two sees the other.
        fence(Ordering::SeqCst);
        match self.seat.try_lock() {
            Ok(seat) => Some(seat),
            // A bug of ours, in somebody's turn: what it has left half done is for closing only.
            Err(TryLockError::Poisoned(_)) => {
                self.closing.store(true, Ordering::SeqCst);
                let _ = self.thread_waker.wake();
                None
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether something was queued; asked after the seat was given up.
    fn has_more(&self) -> bool {
        fence(Ordering::SeqCst);
        self.slots.has_submissions()
    }

    /// Gives the seat up and sees to it that whoever still waits is looked after; `for_good` unless
    /// who leaves comes back at once.
    fn leave<'a>(&'a self, mut seat: MutexGuard<'a, Seat>, mut for_good: bool) {
        loop {
            let driver = seat.guard.next_driver(&self.slots);
            let waited_for = for_good && seat.guard.core.is_awaited();
            let due = seat.guard.next_timeout();
            drop(seat);
            if self.has_more() {
                // If somebody else has the seat by now, that one will look when it leaves.
                let Some(again) = self.try_seat() else { return };
                seat = again;
                seat.guard.turn(self, Time::now(), Reading::Nothing);
                // Somebody else's, who does not come back.
                for_good = true;
                continue;
            }
            // Tasks wait, and the thread may stand aside; or nobody does, but it looks too seldom.
            let is_needed = waited_for && !self.watch.is(WATCHING) || self.watch.is(AWAY);
            match driver {
                Some(slot) => self.slots.wake_owner(slot),
                None if is_needed => self.call_thread(),
                None => {}
            }
            if due.as_nanos() < self.sleeps_until.load(Ordering::SeqCst) {
                self.call_thread();
            }
            return;
        }
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

    /// Wakes the thread, wherever it sleeps.
    fn call_thread(&self) {
        self.thread_called.store(true, Ordering::SeqCst);
        if let Some(thread) = self.watch.thread.get() {
            thread.unpark();
        }
        // Fails only when the event loop is gone, and with it the thread.
        let _ = self.thread_waker.wake();
    }

    /// Leaves what was queued to the caller that has the seat.
    fn leave_to_driver(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        self.nudge_driver();
    }

    /// Wakes a caller that sleeps with the seat.
    pub(super) fn nudge_driver(&self) {
        if self.driver_sleeps.swap(false, Ordering::SeqCst) {
            // A full pipe wakes just as well.
            let _ = (&self.driver_waker).write(&[0]);
        }
    }

    /// Works with the seat until the ticket has news, or the guard's thread, which stands aside,
    /// sees that it takes too long: on a virtual machine, to set a timer that is to ring so soon
    /// takes 14 microseconds, which is half of what the answer takes.
    fn linger(&self, seat: &mut Seat, ticket: Ticket, until: Time) {
        self.lingers_until.store(until.as_nanos(), Ordering::SeqCst);
        // Looked at after that was set: who enters the event loop later sees it.
        self.send_aside();
        if self.watch.is(AWAY) {
            self.call_thread();
        }
        self.work_until(seat, ticket, until, Time::NEVER);
        self.lingers_until.store(0, Ordering::SeqCst);
        seat.linger.ended(self.slots.has_news(ticket) && Time::now() <= until);
    }

    /// Whether a poll waits, and relies on the thread to look on.
    pub(super) fn is_lingered_on(&self) -> bool {
        self.lingers_until.load(Ordering::SeqCst) != 0
    }

    /// Ends the patience of a poll that has lingered for long enough.
    fn end_lingering(&self) {
        let until = self.lingers_until.load(Ordering::SeqCst);
        if until != 0 && Time::now() >= Time::from_nanos(until) {
            self.nudge_driver();
        }
    }

    /// Works with the seat until the ticket has news, as long as its statement is under way. Looks
    /// whether the limit is reached when something else wakes it, and at the alarm.
    fn work_until(&self, seat: &mut Seat, ticket: Ticket, limit: Time, alarm: Time) {
        while seat.guard.core.is_active(ticket)
            && !self.slots.has_news(ticket)
            && !self.closing.load(Ordering::SeqCst)
        {
            let now = Time::now();
            if now >= limit {
                break;
            }
            let reading = self.wait_with_seat(seat, ticket, now, alarm);
            if reading != Reading::Nothing {
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            seat.guard.turn(self, Time::now(), reading);
        }
    }

    /// Waits with the seat for an answer: in recv(2) where nobody else seems to be around, since
    /// who comes then is heard once that has ended, which takes no longer than
    /// [`RECEIVE_MAX`](super::socket).
    fn wait_with_seat(&self, seat: &mut Seat, ticket: Ticket, now: Time, limit: Time) -> Reading {
        let due = limit.min(seat.guard.next_timeout());
        let visits = self.visits.load(Ordering::Relaxed);
        if seat.solitude.lasts(visits) && now.after(RECEIVE_MAX + TICKS) < due {
            if self.slots.has_submissions() || self.closing.load(Ordering::SeqCst) {
                return Reading::Nothing;
            }
            if let Some(reading) = seat.guard.receive() {
                if reading == Reading::Nothing {
                    seat.solitude.ended();
                }
                return reading;
            }
        }
        self.sleep_with_seat(seat, ticket, now, limit)
    }

    /// Sleeps with the seat until the socket is ready, a deadline has come, or somebody nudges.
    fn sleep_with_seat(&self, seat: &Seat, ticket: Ticket, now: Time, limit: Time) -> Reading {
        let Some(stream) = &seat.guard.stream else { return Reading::Nothing };
        self.driver_sleeps.store(true, Ordering::SeqCst);
        // Looked at after the flag was set: who queues later sees the flag and nudges.
        let is_wanted = self.slots.has_submissions() || self.slots.has_news(ticket);
        if is_wanted || self.closing.load(Ordering::SeqCst) {
            self.driver_sleeps.store(false, Ordering::SeqCst);
            return Reading::Nothing;
        }
        let limit = limit.min(seat.guard.next_timeout());
        let ready = stream.sleep(seat.driver_wakes.as_fd(), now, limit);
        self.driver_sleeps.store(false, Ordering::SeqCst);
        match ready {
            Ok(Ready { stream, other }) => {
                if other {
                    let mut sink = [0; 16];
                    let _ = (&seat.driver_wakes).read(&mut sink);
                }
                if stream { Reading::Once } else { Reading::Nothing }
            }
            // Whatever it is, it shows when the socket is read.
            Err(_) => Reading::Once,
        }
    }
}

impl Drive for Shared {
    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn kick(&self) {
        match self.try_seat() {
            Some(mut seat) => {
                seat.guard.turn(self, Time::now(), Reading::Nothing);
                self.leave(seat, true);
            }
            None => self.leave_to_driver(),
        }
    }

    fn attend(&self, ticket: Ticket, has_yielded: bool) -> bool {
        let Some(mut seat) = self.try_seat() else {
            self.leave_to_driver();
            return false;
        };
        let now = Time::now();
        if !has_yielded {
            self.rhythm.requested(now);
        }
        seat.guard.turn(self, now, Reading::Nothing);
        let core = &seat.guard.core;
        let is_alone = core.is_active(ticket) && core.active() == 1;
        let patience = match has_yielded {
            true => seat.linger.yielded(is_alone),
            false => seat.linger.asked(is_alone),
        };
        match patience {
            // The thread looks into the socket before long, should the task not come back.
            Patience::AfterOthers if !self.watch.is(AWAY) => {
                self.leave(seat, false);
                return true;
            }
            Patience::For(pause) if is_alone && self.rhythm.drove(now) => {
                self.linger(&mut seat, ticket, now.after(pause));
            }
            _ => {}
        }
        self.leave(seat, true);
        false
    }

    fn kick_release(&self) {
        // Looked at after the release was queued. Whoever has changed either since then looks at
        // the queue afterwards, and finds it.
        let rides = self.rhythm.released(Time::now())
            && self.watch.is(ASIDE)
            && !self.wanted.load(Ordering::SeqCst);
        if !rides {
            self.kick();
        }
    }

    fn warnings(&self) -> Vec<Warning> {
        self.warning().iter().copied().collect()
    }

    fn drive(&self, ticket: Ticket, limit: Time) -> bool {
        let Some(mut seat) = self.try_seat() else {
            self.leave_to_driver();
            return false;
        };
        let now = Time::now();
        self.rhythm.requested(now);
        seat.guard.turn(self, now, Reading::Nothing);
        // Not for who needs no answer of the server, and will not look into the socket.
        if seat.guard.core.is_active(ticket) && self.rhythm.drove(now) {
            self.send_aside();
        }
        self.work_until(&mut seat, ticket, limit, limit);
        self.leave(seat, true);
        true
    }

    fn poker(&self, ticket: Ticket) -> &Waker {
        let slot = ticket.slot;
        // Made when it is first needed, and used again.
        self.pokers[slot as usize]
            .get_or_init(|| Waker::from(Arc::new(Poker { shared: self.this.clone(), slot })))
    }

    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.call_thread();
        self.nudge_driver();
        if self.watch.thread.get().is_some_and(is_current) {
            // Closed from a waker that the thread itself ran: it ends when that returns.
            return;
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended_changed.wait_timeout_while(ended, JOIN_MAX, |ended| !*ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Makes a slot's owner look at its context.
struct Poker {
    shared: Weak<Shared>,
    slot: u32,
}

impl Wake for Poker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.slots.poke(self.slot);
            shared.nudge_driver();
        }
    }
}
