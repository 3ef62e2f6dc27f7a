//! What all scenarios have in common: the guard's thread, the callers, and the end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Cx, Poll, Wake, Waker};
use std::time::Duration;

use super::judge;
use super::linger::Linger;
use super::seat::Shared;
use super::thread;
use super::turn::shared;
use crate::acquire::Acquire;
use crate::clock::Time;
use crate::context::Context;
use crate::error::Error;
use crate::lock::Lock;
use crate::shell::EventLoop;
use crate::slots::Drive;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::thread::{Thread, current, of_number};
use crate::world::{self, Manners, NEVER, Spot};

pub(crate) use crate::world::{MICROSECOND, MILLISECOND};

/// The manager, as a caller has it.
#[derive(Clone)]
pub(crate) struct Manager {
    shared: Arc<Shared>,
}

/// What a caller does.
pub(crate) type Act = Box<dyn FnOnce(&Manager) + Send>;

pub(crate) fn act(what: impl FnOnce(&Manager) + Send + 'static) -> Act {
    Box::new(what)
}

/// What was seen before the scenario begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Past {
    /// A burst: releases ride.
    pub(crate) burst: bool,
    /// Calls that followed each other: the next one sends the thread out of its way.
    pub(crate) calls: bool,
    /// Tasks that were alone: the next poll lingers for so long.
    pub(crate) linger: Option<Duration>,
    /// A caller that was alone: the next wait with the seat does not hear the bell.
    pub(crate) alone: bool,
}

/// How many callers a scenario has at the most.
const REQUESTS: u32 = 8;

/// Plays a scenario: all callers act at once, then the manager is closed.
pub(crate) fn play(manners: Manners, past: Past, acts: Vec<Act>) {
    world::begin(manners);
    let shared = shared(REQUESTS, Linger::new(past.linger.unwrap_or_default()));
    recall(&shared, past);
    let own = Arc::clone(&shared);
    let (number, guard) = world::spawn(move || thread::run(&own, EventLoop));
    shared.watch.set_thread(of_number(number));
    judge::begin(Arc::clone(&shared), number);
    let (_, timer) = world::spawn(world::run_timer);
    // The last caller to end is followed by this thread.
    let left = Arc::new(AtomicUsize::new(acts.len()));
    let mut callers = Vec::new();
    for act in acts {
        let (manager, left) = (Manager { shared: Arc::clone(&shared) }, Arc::clone(&left));
        callers.push(shuttle_spawn(move || act(&manager), left));
    }
    world::retire();
    callers.into_iter().for_each(|caller| caller.join().expect("it has told why"));
    shared.close();
    guard.join().expect("it ends in good order");
    world::end();
    timer.join().expect("it ends in good order");
    judge::end();
}

fn shuttle_spawn(
    what: impl FnOnce() + Send + 'static,
    left: Arc<AtomicUsize>,
) -> shuttle::thread::JoinHandle<()> {
    world::spawn_heir(move || {
        what();
        left.fetch_sub(1, Ordering::SeqCst) == 1
    })
}

fn recall(shared: &Shared, past: Past) {
    let now = Time::now();
    if past.burst {
        for _ in 0..32 {
            shared.rhythm.released(now);
            shared.rhythm.requested(now);
        }
    }
    if past.calls {
        for _ in 0..2 {
            shared.rhythm.drove(now);
        }
    }
    let mut seat = shared.try_seat().expect("nobody else is here yet");
    if past.alone {
        while !seat.solitude.lasts(0) {}
    }
    if past.linger.is_some() {
        for _ in 0..3 {
            seat.linger.asked(true);
        }
    }
}

impl Manager {
    fn drive(&self) -> Arc<dyn Drive> {
        Arc::clone(&self.shared) as Arc<dyn Drive>
    }

    pub(crate) fn acquire(&self, key: i64) -> Acquire {
        Acquire::new(self.drive(), key.into())
    }

    /// Blocks for a lock.
    pub(crate) fn lock(&self, key: i64) -> Result<Lock, Error> {
        blocking(NEVER, &Context::background(), || self.acquire(key).wait())
    }

    pub(crate) fn try_lock(&self, key: i64) -> Result<Option<Lock>, Error> {
        blocking(NEVER, &Context::background(), || self.acquire(key).try_now())
    }

    /// Blocks for a lock, but no longer than that.
    pub(crate) fn lock_within(&self, key: i64, span: Duration) -> Result<Lock, Error> {
        // The call looks at the clock a little later.
        let latest = Time::now().after(span + Duration::from_millis(1));
        let until =
            if world::look(|world| world.manners.is_slow) { NEVER } else { latest.as_nanos() };
        blocking(until, &Context::background(), || self.acquire(key).timeout(span).wait())
    }

    /// Blocks until the context is done.
    pub(crate) fn lock_under(&self, key: i64, context: &Context) -> Result<Lock, Error> {
        blocking(NEVER, context, || self.acquire(key).context(context).wait())
    }

    pub(crate) fn unlock(&self, lock: Lock) -> Result<(), Error> {
        blocking(NEVER, &Context::background(), || lock.unlock())
    }

    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

/// What a blocking call does that waits for an answer, until then at the longest.
pub(crate) fn blocking<T>(until: u64, context: &Context, call: impl FnOnce() -> T) -> T {
    judge::asks(until, context);
    let result = call();
    judge::is_answered();
    result
}

/// Polls a future in the calling thread until it is ready, or until it has been pending so often.
pub(crate) fn poll_for<T>(
    future: impl Future<Output = T>,
    context: &Context,
    polls: usize,
) -> Option<T> {
    struct Unparks(Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unparks(current())));
    let mut future = pin!(future);
    judge::asks(NEVER, context);
    let mut result = None;
    for _ in 0..polls {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Cx::from_waker(&waker)) {
            result = Some(value);
            break;
        }
        world::sleep(Spot::Parked, NEVER);
    }
    judge::is_answered();
    result
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    poll_for(future, &Context::background(), usize::MAX).expect("it is polled until it is ready")
}

/// Does nothing for a while.
pub(crate) fn pause(nanos: u64) {
    crate::sync::thread::park_timeout(Duration::from_nanos(nanos));
}
