//! Waiting for a context to be done.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{self, Poll};
use std::time::Duration;

use super::{Cause, Context, WatchKey};
use crate::clock::Time;
use crate::timer::{self, Alarm};

/// The moment a context is done; from [`Context::done`].
///
/// Block on it with [`Done::wait`] or [`Done::wait_timeout`], or `.await` it on any executor.
///
/// ```
/// use distlock::{Cause, Context};
/// use std::time::Duration;
///
/// let (context, canceler) = Context::background().with_cancel();
/// assert_eq!(context.done().wait_timeout(Duration::from_millis(1)), None);
/// canceler.cancel();
/// assert_eq!(context.done().wait(), Cause::Canceled);
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is waited for until `wait`, `wait_timeout` or `.await`"]
pub struct Done {
    context: Context,
}

impl Done {
    pub(super) const fn new(context: Context) -> Self {
        Self { context }
    }

    /// Blocks until the context is done. On the background context this never returns.
    ///
    /// ```
    /// # let (context, canceler) = distlock::Context::background().with_cancel();
    /// let watcher = std::thread::spawn(move || context.done().wait());
    /// canceler.cancel();
    /// assert_eq!(watcher.join().unwrap(), distlock::Cause::Canceled);
    /// ```
    pub fn wait(&self) -> Cause {
        loop {
            if let Some(cause) = self.wait_until(Time::NEVER) {
                return cause;
            }
        }
    }

    /// Blocks until the context is done, for as long as `limit`; `None` when the time is up.
    ///
    /// ```
    /// # let (context, _canceler) = distlock::Context::background().with_cancel();
    /// # let heartbeat = std::time::Duration::ZERO;
    /// if context.done().wait_timeout(heartbeat).is_none() {
    ///     // still live: one more step
    /// }
    /// ```
    pub fn wait_timeout(&self, limit: Duration) -> Option<Cause> {
        self.wait_until(Time::now().after(limit))
    }

    fn wait_until(&self, limit: Time) -> Option<Cause> {
        loop {
            if let Some(cause) = self.context.err() {
                return Some(cause);
            }
            let now = Time::now();
            if now >= limit {
                return None;
            }
            let Some(node) = &self.context.node else {
                std::thread::park_timeout(limit.since(now));
                continue;
            };
            let mut links = node.links();
            // `finish` latches the cause before it takes this lock, so none is missed.
            if node.latched().is_none() {
                let span = limit.min(node.certain_until()).since(now).min(LONGEST_SLEEP);
                links.more().sleepers += 1;
                let woken = node.changed.wait_timeout(links, span);
                woken.unwrap_or_else(PoisonError::into_inner).0.more().sleepers -= 1;
            }
        }
    }
}

/// Sleeps are cut into pieces of this length: the operating system's timers stand still while the
/// machine is suspended, the clock that deadlines are compared with does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl IntoFuture for Done {
    type Output = Cause;
    type IntoFuture = DoneFuture;

    fn into_future(self) -> DoneFuture {
        DoneFuture { context: self.context, watch: None, alarm: None }
    }
}

/// The future of [`Done`].
///
/// # Cancellation
///
/// Dropping it has no effect but to stop waiting.
#[derive(Debug)]
pub struct DoneFuture {
    context: Context,
    watch: Option<WatchKey>,
    alarm: Option<Alarm>,
}

impl Future for DoneFuture {
    type Output = Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Cause> {
        self.stop();
        self.watch = self.context.watch(cx.waker());
        // Asked after watching, so that a cause in between is not missed.
        if let Some(cause) = self.context.err() {
            return Poll::Ready(cause);
        }
        if let Some(node) = &self.context.node {
            self.alarm = timer::wake_at(node.certain_until(), cx.waker());
        }
        Poll::Pending
    }
}

impl DoneFuture {
    fn stop(&mut self) {
        self.alarm = None;
        if let Some(watch) = self.watch.take() {
            self.context.unwatch(watch);
        }
    }
}

impl Drop for DoneFuture {
    fn drop(&mut self) {
        self.stop();
    }
}
