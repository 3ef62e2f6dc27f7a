//! The guard: the event loop that owns the manager's one session. It is not an RAII guard; the
//! value that releases a lock when it is dropped is [`Lock`](crate::Lock).
//!
//! # The seat
//!
//! Everything the guard works with sits in one mutex, the *seat*. Whoever has the seat runs
//! [turns](turn). That is the guard's own thread, or a caller that waits for an answer and finds
//! the seat free: handing a request to another thread and its answer back would cost two wake-ups
//! an operation. The rules:
//!
//! * The seat is only ever *tried*, but for closing. Who cannot have it has queued what it wants
//!   before it tried, and who leaves the seat looks at the queue again after leaving; so nothing
//!   queued is overlooked.
//! * A caller keeps the seat only while a statement of its own is under way. When it leaves, it
//!   wakes another caller whose statement is in flight, or else the thread if somebody waits.
//! * A task that is polled does not keep the seat, but for [a moment](linger).
//! * The thread sleeps in the event loop without having the seat. When it wakes and the seat is
//!   taken, callers are at work: it stands aside (outside the event loop, so that their answers do
//!   not wake it) and looks again each [`STAND_ASIDE`] until they have gone. Callers that follow
//!   each other [send it there](rhythm).
//! * A release is sent by who lets go, unless it [rides](rhythm) with the next request, or as many
//!   batches are unanswered as there may be: then whoever reads the next answer sends it.
//! * Timers belong to the seat: who leaves it with an earlier deadline than the thread sleeps
//!   until wakes the thread.

mod connect;
mod convert;
pub(crate) mod core;
mod holds;
pub(crate) mod jitter;
pub(crate) mod lease;
pub(crate) mod ledger;
mod linger;
mod rhythm;
mod seat;
mod socket;
mod startup;
mod stream;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod turn;
mod witness;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(test)]
use std::sync::mpsc::Receiver;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use mio::unix::pipe;
use mio::{Events, Poll, Token, Waker};
use rustix::event::{PollFd, PollFlags, Timespec};

use self::connect::Connector;
use self::core::{Core, CoreConfig};
use self::holds::Holds;
use self::lease::LeaseTimes;
use self::ledger::LedgerLimits;
use self::linger::Linger;
use self::rhythm::{Rhythm, Solitude};
use self::seat::Watch;
use self::tls::Tls;
use self::turn::{Guard, Reading};
use crate::clock::Time;
use crate::config::{Config, Plan};
use crate::context::Home;
use crate::error::Error;
use crate::proto::session::SessionLimits;
use crate::slab::ROOM;
use crate::slots::{Drive, Slots};
use crate::warning::Warning;

/// What the guard's thread, callers and locks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) this: Weak<Self>,
    pub(crate) slots: Slots,
    pub(crate) seat: Mutex<Seat>,
    pub(crate) home: Arc<Home>,
    pub(crate) closing: AtomicBool,
    /// Whether a caller with the seat sleeps, and a byte in the pipe would wake it.
    driver_sleeps: AtomicBool,
    driver_waker: pipe::Sender,
    /// How often a caller has found the seat taken.
    visits: AtomicU32,
    /// What the thread does, and until when it sleeps at the longest.
    watch: Watch,
    /// Whether somebody called for the thread since it last looked.
    thread_called: AtomicBool,
    /// Whether callers have sent the thread out of their way since it last looked.
    sent_aside: AtomicBool,
    /// How often a caller has looked into the socket.
    reads: AtomicU64,
    /// Until when a poll means to wait, in nanoseconds of the boot-time clock; 0 if none does.
    lingers_until: AtomicU64,
    pokers: Box<[OnceLock<std::task::Waker>]>,
    rhythm: Rhythm,
    /// Whether anybody waits for a key that is held here, as of the last turn.
    wanted: AtomicBool,
    sleeps_until: AtomicU64,
    /// About the server of the latest session.
    warning: Mutex<Option<Warning>>,
    thread_waker: Arc<Waker>,
    /// Whether the thread has ended, for those who wait for that.
    ended: Mutex<bool>,
    ended_changed: Condvar,
}

impl Shared {
    /// What somebody should know about the server of the latest session.
    fn warning(&self) -> MutexGuard<'_, Option<Warning>> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the seat.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) guard: Guard,
    driver_wakes: pipe::Receiver,
    linger: Linger,
    solitude: Solitude,
}

/// The token of the waker in the event loop.
const WAKER: Token = Token(1);

/// Sleeps that are shorter than this end on time, others up to a millisecond later.
const FINE_BELOW: Duration = Duration::from_millis(5);

/// How often the thread looks whether callers are still at work.
const STAND_ASIDE: Duration = Duration::from_millis(2);

/// The longest pause, while one caller waits for a slow server.
const STAND_ASIDE_MAX: Duration = Duration::from_millis(64);

/// How long closing waits for the thread at the longest. The thread never waits for the server, so
/// it needs far less; the limit is for a caller that closes from inside a waker.
const JOIN_MAX: Duration = Duration::from_millis(900);

/// Makes a guard and its thread, and waits for the first session.
///
/// # Errors
///
/// The reason why there is no session; nothing is left running then.
pub(crate) fn spawn(plan: Plan) -> Result<Arc<dyn Drive>, Error> {
    let (sender, receiver) = sync_channel(1);
    let (shared, poll) = build(plan, sender).map_err(|error| Error::Connect {
        address: "the event loop".into(),
        reason: format!("it cannot be set up: {error}").into(),
        source: Some(Arc::new(error)),
    })??;
    let own = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("distlock-guard".into())
        .spawn(move || run(&own, poll))
        .map_err(|error| Error::Connect {
            address: "the event loop".into(),
            reason: format!("no thread can be had for it: {error}").into(),
            source: Some(Arc::new(error)),
        })?;
    shared.watch.set_thread(thread.thread().clone());
    drop(thread);
    match receiver.recv() {
        Ok(Ok(())) => Ok(shared),
        Ok(Err(error)) => {
            shared.close();
            Err(error)
        }
        Err(_) => Err(Error::Closed),
    }
}

fn build(
    plan: Plan,
    first: std::sync::mpsc::SyncSender<Result<(), Error>>,
) -> io::Result<Result<(Arc<Shared>, Poll), Error>> {
    let seed = match startup::seed() {
        Ok(seed) => seed,
        Err(error) => return Ok(Err(error)),
    };
    let tls = match Tls::new(&plan) {
        Ok(tls) => tls,
        Err(error) => return Ok(Err(error)),
    };
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let registry = poll.registry().try_clone()?;
    let (driver_waker, driver_wakes) = pipe::new()?;
    let plan = Arc::new(plan);
    let config = &plan.config;
    let requests = config.max_requests;
    let slots = Slots::new(requests, config.max_locks, config.release_on_cancel);
    let connector = Connector::new(Arc::clone(&plan), tls, seed.rotate_left(16));
    let linger = Linger::new(config.linger);
    let guard = Guard {
        core: Core::new(core_config(config), seed).with_server(connector.server()),
        stream: None,
        holds: Holds::new(config.max_locks, config.release_on_cancel),
        connector,
        peer: None,
        witness: None,
        known: Vec::with_capacity(1),
        registry,
        waker: Arc::clone(&waker),
        lot: VecDeque::with_capacity(ROOM),
        plan,
        first: Some(first),
        unfinished: false,
    };
    let shared = Arc::new_cyclic(|this| Shared {
        this: this.clone(),
        slots,
        seat: Mutex::new(Seat { guard, driver_wakes, linger, solitude: Solitude::new() }),
        home: Arc::new(Home::new(this.clone())),
        closing: AtomicBool::new(false),
        driver_sleeps: AtomicBool::new(false),
        driver_waker,
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
    });
    Ok(Ok((shared, poll)))
}

fn core_config(config: &Config) -> CoreConfig {
    CoreConfig {
        limits: LedgerLimits {
            locks: config.max_locks,
            requests: config.max_requests,
            waiters: config.max_waiters,
        },
        session: SessionLimits::DEFAULT,
        times: LeaseTimes {
            heartbeat: config.heartbeat,
            idle_heartbeat: config.idle_heartbeat(),
            reply_timeout: config.reply_timeout,
            lease: config.lease,
        },
        connect_timeout: config.connect_timeout,
    }
}

/// The thread. However its loop ends, be it by a panic, which only a bug of ours can cause: all
/// locks are lost and all requests end. Nobody is left to wait for somebody who is gone.
fn run(shared: &Shared, poll: Poll) {
    // What a panic has left half done is looked at once more, to be closed, and never again.
    let _ = catch_unwind(AssertUnwindSafe(|| guard(shared, poll)));
    shared.closing.store(true, Ordering::SeqCst);
    let mut seat = shared.seat.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = catch_unwind(AssertUnwindSafe(|| seat.guard.close(shared)));
    seat.guard.first = None;
    drop(seat);
    *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    shared.ended_changed.notify_all();
}

/// Sleeps in the event loop, and runs a turn when there is reason to and nobody else is at it.
fn guard(shared: &Shared, mut poll: Poll) {
    let mut events = Events::with_capacity(8);
    let mut readable = true;
    let mut pause = STAND_ASIDE;
    while !shared.closing.load(Ordering::SeqCst) {
        if shared.is_sent_aside() || !shared.thread_turn(readable) {
            // Callers are at work: once they have gone, what they left in the socket is ours.
            if shared.slots.has_submissions() {
                shared.nudge_driver();
            }
            let reads = shared.reads.load(Ordering::SeqCst);
            shared.stand_aside(pause);
            // As long as it is one and the same caller, there is less and less reason to look.
            let same = shared.reads.load(Ordering::SeqCst) == reads;
            pause = if same { (pause * 2).min(STAND_ASIDE_MAX) } else { STAND_ASIDE };
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
        // Interrupted or failed, the next turn tells; it looks at everything.
        let timeout = timeout.map(|span| doze(&poll, span));
        let slept = poll.poll(&mut events, timeout);
        shared.watch.leave_event_loop();
        // An unfinished turn has used up its edge: it reads on without a new one.
        readable = slept.is_err()
            || until == Time::ZERO
            || events.iter().any(|event| event.token() != WAKER);
    }
}

/// The event loop's own timeouts are whole milliseconds. A shorter one is slept through here,
/// unless there are events; what is left of it is for the event loop.
fn doze(poll: &Poll, span: Duration) -> Duration {
    if span.is_zero() || span >= FINE_BELOW {
        return span;
    }
    let mut fds = [PollFd::new(poll.registry(), PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: span.subsec_nanos().into() };
    // Interrupted, the next turn tells.
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
    Duration::ZERO
}

/// Whether the calling thread is this one.
fn is_current(thread: &Thread) -> bool {
    thread.id() == std::thread::current().id()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guard whose server never answers, and who waits for its first session.
    fn waiting() -> (Arc<Shared>, Receiver<Result<(), Error>>, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Only the end of the guard ends the waiting.
        let a_day = Duration::from_secs(24 * 60 * 60);
        let config = Config::new().host("127.0.0.1").port(port).user("app").connect_timeout(a_day);
        let (sender, receiver) = sync_channel(1);
        let (shared, poll) = build(config.into_plan().unwrap(), sender).unwrap().unwrap();
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(&own, poll));
        shared.watch.set_thread(thread.thread().clone());
        (shared, receiver, listener)
    }

    #[test]
    fn a_panic_in_a_turn_ends_the_manager_and_keeps_nobody_waiting() {
        let (shared, receiver, _listener) = waiting();
        let own = Arc::clone(&shared);
        let turn = std::thread::spawn(move || {
            let _seat = own.seat.lock();
            panic!("a bug, for this test");
        });
        assert!(turn.join().is_err());
        shared.kick();
        assert!(!matches!(receiver.recv(), Ok(Ok(()))), "there was no session");
        shared.close();
        assert!(shared.closing.load(Ordering::SeqCst));
    }

    /// Calls that the server is not needed for do not look into the socket: while they follow each
    /// other, the thread does.
    #[test]
    fn calls_that_do_not_read_leave_the_socket_to_the_thread() {
        let (shared, receiver, listener) = waiting();
        let (server, _) = listener.accept().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // What a try comes down to that is refused here: a turn, and no statement.
                    let ticket = crate::slots::Ticket { slot: 0, generation: 0 };
                    while !stop.load(Ordering::SeqCst) {
                        shared.drive(ticket, Time::NEVER);
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(500));
            // Noticed by whoever looks into the socket; and there is nobody to connect to again.
            drop((server, listener));
            let told = receiver.recv_timeout(Duration::from_secs(60));
            stop.store(true, Ordering::SeqCst);
            assert!(matches!(told, Ok(Err(_))), "{told:?}");
        });
        shared.close();
    }

    #[test]
    fn callers_can_send_the_thread_out_of_the_event_loop() {
        let (shared, _receiver, _listener) = waiting();
        // It is there when it has begun to wait for the server; it is not there to be sent twice.
        while !shared.sent_aside.load(Ordering::SeqCst) {
            shared.send_aside();
        }
        while shared.sent_aside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        shared.close();
    }
}
