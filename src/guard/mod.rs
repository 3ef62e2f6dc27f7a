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
//! * A caller keeps the seat while a statement of its own is under way; and while it waits to be
//!   notified, until somebody else comes. When it leaves, it wakes another caller whose statement
//!   is in flight, or else the thread if somebody waits.
//! * It sleeps with the seat where a byte in a pipe wakes it; but who [is alone](rhythm) waits in
//!   recv(2), which ends within milliseconds, and hears nobody before that.
//! * A task that is polled does not keep the seat, but for [a moment](linger).
//! * The thread sleeps in the event loop without having the seat. When it wakes and the seat is
//!   taken, callers are at work: it stands aside (outside the event loop, so that their answers do
//!   not wake it) and looks again each `STAND_ASIDE`, and ever less often while one of them waits
//!   for long, until they have gone. Callers that follow each other [send it there](rhythm).
//! * A release is sent by who lets go, unless it [rides](rhythm) with the next request, or as many
//!   batches are unanswered as there may be: then whoever reads the next answer sends it.
//! * Timers belong to the seat: who leaves it with an earlier deadline than the thread sleeps
//!   until wakes the thread, unless that looks before long.

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
mod thread;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod turn;
mod witness;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
#[cfg(test)]
use std::sync::mpsc::Receiver;
use std::sync::mpsc::sync_channel;
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
pub(crate) use self::seat::Shared;
use self::stream::{Ready, Stream};
use self::tls::Tls;
use self::turn::{Guard, Reading};
use crate::clock::Time;
use crate::config::{Config, Plan};
use crate::error::Error;
use crate::proto::session::SessionLimits;
use crate::slab::ROOM;
use crate::slots::{Drive, Slots};

/// The token of the waker in the event loop.
const WAKER: Token = Token(1);

/// Sleeps that are shorter than this end on time, others up to a millisecond later.
const FINE_BELOW: Duration = Duration::from_millis(5);

/// Makes a guard and its thread, and waits for the first session.
///
/// # Errors
///
/// The reason why there is no session; nothing is left running then.
pub(crate) fn spawn(plan: Plan) -> Result<Arc<dyn Drive>, Error> {
    let (sender, receiver) = sync_channel(1);
    let (shared, event_loop) = build(plan, sender).map_err(|error| Error::Connect {
        address: "the event loop".into(),
        reason: format!("it cannot be set up: {error}").into(),
        source: Some(Arc::new(error)),
    })??;
    let own = Arc::clone(&shared);
    let own_thread = std::thread::Builder::new()
        .name("distlock-guard".into())
        .spawn(move || thread::run(&own, event_loop))
        .map_err(|error| Error::Connect {
            address: "the event loop".into(),
            reason: format!("no thread can be had for it: {error}").into(),
            source: Some(Arc::new(error)),
        })?;
    shared.watch.set_thread(own_thread.thread().clone());
    drop(own_thread);
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
) -> io::Result<Result<(Arc<Shared>, EventLoop), Error>> {
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
    let (sender, receiver) = pipe::new()?;
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
    let bell = (Bell(sender), Ear(receiver));
    let shared = Shared::new(slots, guard, linger, bell, waker);
    Ok(Ok((shared, EventLoop { poll, events: Events::with_capacity(8) })))
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

/// Where the guard's thread sleeps while nobody else works.
#[derive(Debug)]
struct EventLoop {
    poll: Poll,
    events: Events,
}

/// What wakes it there.
type LoopWaker = Arc<Waker>;

impl EventLoop {
    /// Sleeps until the socket has news, the waker is called, or the time is up; says whether the
    /// socket may have something.
    fn sleep(&mut self, timeout: Option<Duration>) -> bool {
        // Interrupted or failed, the next turn tells; it looks at everything.
        let timeout = timeout.map(|span| self.doze(span));
        let slept = self.poll.poll(&mut self.events, timeout);
        slept.is_err() || self.events.iter().any(|event| event.token() != WAKER)
    }

    /// The event loop's own timeouts are whole milliseconds. A shorter one is slept through here,
    /// unless there are events; what is left of it is for the event loop.
    fn doze(&self, span: Duration) -> Duration {
        if span.is_zero() || span >= FINE_BELOW {
            return span;
        }
        let mut fds = [PollFd::new(self.poll.registry(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: span.subsec_nanos().into() };
        // Interrupted, the next turn tells.
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        Duration::ZERO
    }
}

/// What wakes a caller that sleeps with the seat: a pipe.
#[derive(Debug)]
struct Bell(pipe::Sender);

impl Bell {
    fn ring(&self) {
        // A full pipe wakes just as well.
        let _ = (&self.0).write(&[0]);
    }
}

/// What that caller hears it by.
#[derive(Debug)]
struct Ear(pipe::Receiver);

impl Ear {
    /// Sleeps until the socket is ready, the bell rings, or the time has come; says what there is
    /// to read.
    fn sleep(&self, stream: &Stream, now: Time, limit: Time) -> Reading {
        match stream.sleep(self.0.as_fd(), now, limit) {
            Ok(Ready { stream, other }) => {
                if other {
                    let mut sink = [0; 16];
                    let _ = (&self.0).read(&mut sink);
                }
                if stream { Reading::Once } else { Reading::Nothing }
            }
            // Whatever it is, it shows when the socket is read.
            Err(_) => Reading::Once,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::slots::HoldId;

    const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// A guard without a thread, and so without a session.
    fn idle(port: u16) -> (Arc<Shared>, EventLoop, Receiver<Result<(), Error>>) {
        // Only the end of the guard ends the waiting.
        let config = Config::new().host("127.0.0.1").port(port).user("app").connect_timeout(A_DAY);
        let (sender, receiver) = sync_channel(1);
        let (shared, event_loop) = build(config.into_plan().unwrap(), sender).unwrap().unwrap();
        (shared, event_loop, receiver)
    }

    /// A guard whose server never answers, and who waits for its first session.
    fn waiting() -> (Arc<Shared>, Receiver<Result<(), Error>>, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (shared, event_loop, receiver) = idle(listener.local_addr().unwrap().port());
        let own = Arc::clone(&shared);
        let own_thread = std::thread::spawn(move || thread::run(&own, event_loop));
        shared.watch.set_thread(own_thread.thread().clone());
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

    /// The short sleep of who looks after a release hears the call, and nothing would tell of it
    /// again.
    #[test]
    fn a_call_is_not_lost_on_who_looks_after_a_release() {
        let (shared, _event_loop, _receiver) = idle(1);
        // One that gets its time for ever.
        shared.slots.release([HoldId { index: 0, generation: 0 }]);
        shared.rhythm.released(Time::NEVER);
        let (sender, receiver) = std::sync::mpsc::channel();
        let own = Arc::clone(&shared);
        let looking = std::thread::spawn(move || sender.send(own.has_overdue_release()));
        shared.watch.set_thread(looking.thread().clone());
        shared.call_thread();
        let is_awake = receiver.recv_timeout(Duration::from_secs(60));
        assert_eq!(is_awake, Ok(true));
    }

    /// Who had the seat may leave it just before the thread goes away, and does not call it then.
    #[test]
    fn the_thread_does_not_go_away_while_nobody_has_the_seat() {
        let (shared, _event_loop, _receiver) = idle(1);
        let (sender, receiver) = std::sync::mpsc::channel();
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            own.stand_aside(A_DAY);
            sender.send(())
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(()));
    }

    /// Nobody leaves the seat then, and calls it for that.
    #[test]
    fn a_panic_with_the_seat_wakes_the_thread_from_far_away() {
        let (shared, _event_loop, _receiver) = idle(1);
        let (sender, receiver) = std::sync::mpsc::channel();
        let (own, thread_own) = (Arc::clone(&shared), Arc::clone(&shared));
        let panics = std::thread::spawn(move || {
            let _seat = own.seat.lock();
            let away = std::thread::spawn(move || {
                thread_own.stand_aside(A_DAY);
                sender.send(())
            });
            own.watch.set_thread(away.thread().clone());
            while !own.watch.is(thread::AWAY) {
                std::thread::yield_now();
            }
            panic!("a bug, for this test");
        });
        assert!(panics.join().is_err());
        shared.kick();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(()));
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
