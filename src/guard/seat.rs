//! Who has the seat, who is woken, and how it changes hands. The rules are in the
//! [module above](super).

use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::task::{Wake, Waker};

use super::linger::{Linger, Patience};
use super::rhythm::{Rhythm, Solitude};
use super::socket::{RECEIVE_MAX, TICKS};
use super::thread::{ASIDE, AWAY, JOIN_MAX, WATCHING, Watch};
use super::turn::{Guard, Reading};
use super::{Bell, Ear, LoopWaker};
use crate::clock::Time;
use crate::context::Home;
use crate::slots::{Drive, Slots, Ticket};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use crate::warning::Warning;

/// What the guard's thread, callers and locks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) this: Weak<Self>,
    pub(crate) slots: Slots,
    pub(super) seat: Mutex<Seat>,
    pub(crate) home: Arc<Home>,
    pub(super) closing: AtomicBool,
    /// Whether a caller with the seat sleeps, and the bell would wake it.
    driver_sleeps: AtomicBool,
    driver_bell: Bell,
    /// How often a caller has found the seat taken.
    visits: AtomicU32,
    /// What the thread does, and until when it sleeps at the longest.
    pub(super) watch: Watch,
    /// Whether somebody called for the thread since it last looked.
    pub(super) thread_called: AtomicBool,
    /// Whether callers have sent the thread out of their way since it last looked.
    pub(super) sent_aside: AtomicBool,
    /// How often a caller has looked into the socket.
    pub(super) reads: AtomicU64,
    /// Until when a poll means to wait, in nanoseconds of the boot-time clock; 0 if none does.
    pub(super) lingers_until: AtomicU64,
    pokers: Box<[OnceLock<Waker>]>,
    pub(super) rhythm: Rhythm,
    /// Whether anybody waits for a key that is held here, as of the last turn.
    pub(super) wanted: AtomicBool,
    pub(super) sleeps_until: AtomicU64,
    /// About the server of the latest session.
    warning: Mutex<Option<Warning>>,
    pub(super) thread_waker: LoopWaker,
    /// Whether the thread has ended, for those who wait for that.
    pub(super) ended: Mutex<bool>,
    pub(super) ended_changed: Condvar,
}

impl Shared {
    /// With nobody in the seat, and the thread on its way. The bell is the one that the ear hears,
    /// and the waker that of the event loop.
    pub(super) fn new(
        slots: Slots,
        guard: Guard,
        linger: Linger,
        (bell, ear): (Bell, Ear),
        waker: LoopWaker,
    ) -> Arc<Self> {
        let requests = slots.max_requests();
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            slots,
            seat: Mutex::new(Seat { guard, ear, linger, solitude: Solitude::new() }),
            home: Arc::new(Home::new(this.clone())),
            closing: AtomicBool::new(false),
            driver_sleeps: AtomicBool::new(false),
            driver_bell: bell,
            visits: AtomicU32::new(0),
            watch: Watch::new(),
            thread_called: AtomicBool::new(false),
            sent_aside: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            lingers_until: AtomicU64::new(0),
            pokers: (0..requests).map(|_| OnceLock::new()).collect(),
            rhythm: Rhythm::new(),
            wanted: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(Time::NEVER.as_nanos()),
            warning: Mutex::new(None),
            thread_waker: waker,
            ended: Mutex::new(false),
            ended_changed: Condvar::new(),
        })
    }

    /// What somebody should know about the server of the latest session.
    pub(super) fn warning(&self) -> MutexGuard<'_, Option<Warning>> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the seat.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) guard: Guard,
    ear: Ear,
    pub(super) linger: Linger,
    pub(super) solitude: Solitude,
}

impl Seat {
    /// A thread whose statement is in flight, and that could therefore take over.
    pub(super) fn next_driver(&self, slots: &Slots) -> Option<u32> {
        let core = &self.guard.core;
        if core.active() == 0 {
            return None;
        }
        core.slots_in_flight().find(|slot| slots.is_waited_on_by_thread(*slot))
    }
}

impl Shared {
    pub(super) fn try_seat(&self) -> Option<MutexGuard<'_, Seat>> {
        // What was queued before is visible to who leaves the seat after this has failed: with the
        // fence in `has_more`, one of the two sees the other.
        fence(Ordering::SeqCst);
        match self.seat.try_lock() {
            Ok(seat) => Some(seat),
            // A bug of ours, in somebody's turn: what it has left half done is for closing only.
            Err(TryLockError::Poisoned(_)) => {
                self.closing.store(true, Ordering::SeqCst);
                self.call_thread();
                None
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether something was queued; asked after the seat was given up.
    pub(super) fn has_more(&self) -> bool {
        fence(Ordering::SeqCst);
        self.slots.has_submissions()
    }

    /// Gives the seat up and sees to it that whoever still waits is looked after; `for_good` unless
    /// who leaves comes back at once.
    fn leave<'a>(&'a self, mut seat: MutexGuard<'a, Seat>, mut for_good: bool) {
        loop {
            let driver = seat.next_driver(&self.slots);
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
                None if is_needed => self.call_back(),
                None => {}
            }
            // Where it stands aside it looks before long, and then has its turn.
            let sleeps_until = self.sleeps_until.load(Ordering::SeqCst);
            if due.as_nanos() < sleeps_until && !self.watch.is(ASIDE) {
                self.call_thread();
            }
            return;
        }
    }

    /// Leaves what was queued to the caller that has the seat.
    fn leave_to_driver(&self) {
        self.visits.fetch_add(1, Ordering::Relaxed);
        self.nudge_driver();
    }

    /// Wakes a caller that sleeps with the seat.
    pub(super) fn nudge_driver(&self) {
        if self.driver_sleeps.swap(false, Ordering::SeqCst) {
            self.driver_bell.ring();
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
            self.call_back();
        }
        self.work_until(seat, ticket, Time::now(), until, Time::NEVER);
        self.lingers_until.store(0, Ordering::SeqCst);
        seat.linger.ended(self.slots.has_news(ticket) && Time::now() <= until);
    }

    /// Whether a poll waits, and relies on the thread to look on.
    pub(super) fn is_lingered_on(&self) -> bool {
        self.lingers_until.load(Ordering::SeqCst) != 0
    }

    /// Ends the patience of a poll that has lingered for long enough.
    pub(super) fn end_lingering(&self) {
        let until = self.lingers_until.load(Ordering::SeqCst);
        if until != 0 && Time::now() >= Time::from_nanos(until) {
            self.nudge_driver();
        }
    }

    /// Works with the seat until the ticket has news, as long as its statement is under way. Looks
    /// whether the limit is reached when something else wakes it, and at the alarm.
    fn work_until(&self, seat: &mut Seat, ticket: Ticket, mut now: Time, limit: Time, alarm: Time) {
        while now < limit
            && seat.guard.core.is_active(ticket)
            && !self.slots.has_news(ticket)
            && !self.closing.load(Ordering::SeqCst)
        {
            let reading = match self.receive_alone(seat, now, limit) {
                Some(reading) => reading,
                None => self.sleep_with_seat(seat, ticket, alarm),
            };
            now = self.turn_with_seat(seat, reading);
        }
    }

    /// Keeps the seat while the ticket's request waits to be notified: its caller is woken by the
    /// notification, and not by the thread that was. Until somebody else comes, who is to have the
    /// seat. Says whether the request is being tried.
    fn wait_with_seat(&self, seat: &mut Seat, ticket: Ticket, limit: Time) -> bool {
        if !seat.guard.core.listens_for(ticket) || !seat.solitude.keeps_seat() {
            return false;
        }
        self.send_aside();
        let visits = self.visits.load(Ordering::Relaxed);
        let mut now = Time::now();
        while now < limit
            && seat.guard.core.listens_for(ticket)
            && !self.slots.has_news(ticket)
            && !self.closing.load(Ordering::SeqCst)
        {
            if self.visits.load(Ordering::Relaxed) != visits {
                seat.solitude.was_visited();
                return false;
            }
            let reading = self.sleep_with_seat(seat, ticket, limit);
            now = self.turn_with_seat(seat, reading);
        }
        seat.guard.core.is_active(ticket)
    }

    /// A turn after a sleep with the seat, and when it began.
    fn turn_with_seat(&self, seat: &mut Seat, reading: Reading) -> Time {
        if reading != Reading::Nothing {
            // Written by who has the seat only.
            let reads = self.reads.load(Ordering::Relaxed);
            self.reads.store(reads.wrapping_add(1), Ordering::Release);
        }
        // Read once for the turn and for what comes after it.
        let now = Time::now();
        seat.guard.turn(self, now, reading);
        now
    }

    /// Waits for an answer in recv(2), where nobody else seems to be around: who comes then is
    /// heard once that has ended, which takes no longer than [`RECEIVE_MAX`](super::socket) and a
    /// tick. Not where anything is due before that.
    fn receive_alone(&self, seat: &mut Seat, now: Time, limit: Time) -> Option<Reading> {
        let due = limit.min(seat.guard.next_timeout());
        let visits = self.visits.load(Ordering::Relaxed);
        if !seat.solitude.lasts(visits) || due <= now.after(RECEIVE_MAX + TICKS) {
            return None;
        }
        if self.slots.has_submissions() || self.closing.load(Ordering::SeqCst) {
            return Some(Reading::Nothing);
        }
        let reading = seat.guard.receive()?;
        if reading == Reading::Nothing {
            seat.solitude.ended();
        }
        Some(reading)
    }

    /// Sleeps with the seat until the socket is ready, a deadline has come, or somebody nudges.
    fn sleep_with_seat(&self, seat: &Seat, ticket: Ticket, limit: Time) -> Reading {
        let Some(stream) = &seat.guard.stream else { return Reading::Nothing };
        self.driver_sleeps.store(true, Ordering::SeqCst);
        // Looked at after the flag was set: who queues later sees the flag and nudges.
        let is_wanted = self.slots.has_submissions() || self.slots.has_news(ticket);
        if is_wanted || self.closing.load(Ordering::SeqCst) {
            self.driver_sleeps.store(false, Ordering::SeqCst);
            return Reading::Nothing;
        }
        let limit = limit.min(seat.guard.next_timeout());
        // The turn before may have taken long: the process was stopped, or a waker is slow.
        let reading = seat.ear.sleep(stream, Time::now(), limit);
        self.driver_sleeps.store(false, Ordering::SeqCst);
        reading
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
        self.work_until(&mut seat, ticket, now, limit, limit);
        while self.wait_with_seat(&mut seat, ticket, limit) {
            self.work_until(&mut seat, ticket, Time::now(), limit, limit);
        }
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
        if self.watch.is_own_thread() {
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
