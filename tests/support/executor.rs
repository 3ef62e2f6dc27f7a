//! The least executor: polls in the calling thread and parks it in between.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Unparks the thread that made it.
struct Unparker {
    thread: Thread,
    woken: AtomicBool,
}

impl Unparker {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), woken: AtomicBool::new(false) })
    }
}

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// A waker that unparks the thread that calls this.
pub fn unparker() -> Waker {
    Waker::from(Unparker::new())
}

/// Awaits a future; one that hangs fails the test.
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    await_for(future, HANG).expect("the future ends")
}

/// Nothing in a test takes this long.
const HANG: Duration = Duration::from_secs(60);

/// Awaits a future with a waker that was made before, so that nothing is allocated here.
pub fn block_on_with<F: IntoFuture>(waker: &Waker, future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    loop {
        match future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Awaits a future for a while; drops it then, wherever it is.
///
/// It is polled when it was woken and at no other time, not at the end either: a result that nobody
/// was woken for is none.
pub fn await_for<F: IntoFuture>(future: F, span: Duration) -> Option<F::Output> {
    let unparker = Unparker::new();
    let waker = Waker::from(Arc::clone(&unparker));
    let mut future = pin!(future.into_future());
    let end = Instant::now() + span;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        while !unparker.woken.swap(false, Ordering::SeqCst) {
            thread::park_timeout(end.checked_duration_since(Instant::now())?);
        }
        end.checked_duration_since(Instant::now())?;
    }
}
