//! Contexts: when to stop, and why.
//!
//! A [`Context`] is done when it is cancelled, when its deadline has passed, when its parent is
//! done, or, for the context of a [`Lock`](crate::Lock), when the lock is released or lost. It can
//! be asked ([`Context::is_done`]), waited on and awaited ([`Context::done`]).
//!
//! Deadlines and leases are compared with the boot-time clock in the caller's own thread: after
//! the process, or the whole machine, was stopped for a while, the very first question gets the
//! right answer. What was once done stays done (invariant I8).

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::clock::Time;
use crate::foreign;
use crate::slab::{Slab, SlabKey};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::token::Token;

mod done;
mod hold;

pub use done::{Done, DoneFuture};
pub(crate) use hold::{HoldContext, Home};

/// Why a context is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The lock was released by its holder.
    Released,
    /// The context, or one above it, was cancelled.
    Canceled,
    /// The context's deadline, or one above it, has passed.
    DeadlineExceeded,
    /// The connection to the server broke.
    ConnectionLost,
    /// The server did not answer within the reply deadline.
    ReplyOverdue,
    /// The server was not heard from for so long that it may have freed the lock.
    LeaseExpired,
    /// The server ended the session or shut down.
    ServerShutdown,
    /// The server broke the protocol, or said that a held lock was not held.
    ProtocolViolation,
    /// The manager was closed.
    ManagerClosed,
}

/// A signal that work has to stop, for oneself and for everything that was derived from it.
///
/// Cheap to clone; all clones are the same context.
///
/// That the lease of a lock has run out is seen by whoever asks this lock's context, or one derived
/// from it. The context of a lock of *another* manager below it hears of it once somebody has
/// asked, or the guard has noticed.
///
/// ```
/// use distlock::{Cause, Context};
/// use std::time::Duration;
///
/// let (parent, canceler) = Context::background().with_cancel();
/// let child = parent.with_timeout(Duration::from_secs(3600));
/// assert!(!child.is_done());
/// canceler.cancel();
/// assert_eq!(child.err(), Some(Cause::Canceled));
/// ```
#[derive(Clone, Default)]
pub struct Context {
    /// None for the background, which is never done.
    node: Option<Arc<Node>>,
}

/// Cancels the context it was made with. Dropping it cancels nothing.
#[derive(Debug, Clone)]
pub struct Canceler {
    context: Context,
}

impl Context {
    /// The context that is never done: the root of all others.
    ///
    /// ```
    /// assert!(!distlock::Context::background().is_done());
    /// ```
    pub const fn background() -> Self {
        Self { node: None }
    }

    /// A child that can be cancelled.
    ///
    /// ```
    /// let (context, canceler) = distlock::Context::background().with_cancel();
    /// canceler.cancel();
    /// assert!(context.is_done());
    /// ```
    pub fn with_cancel(&self) -> (Self, Canceler) {
        let context = self.child(Time::NEVER);
        let canceler = Canceler { context: context.clone() };
        (context, canceler)
    }

    /// A child that is done after a span of time.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let context = distlock::Context::background().with_timeout(Duration::ZERO);
    /// assert_eq!(context.err(), Some(distlock::Cause::DeadlineExceeded));
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.child(Time::now().after(timeout))
    }

    /// A child that is done at a point in time.
    ///
    /// ```
    /// let context = distlock::Context::background().with_deadline(std::time::Instant::now());
    /// assert!(context.is_done());
    /// ```
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        self.child(Time::from_instant(deadline))
    }

    /// Whether it is time to stop.
    ///
    /// ```
    /// # fn step() {}
    /// # let (context, canceler) = distlock::Context::background().with_cancel();
    /// while !context.is_done() {
    ///     step();
    /// #   canceler.cancel();
    /// }
    /// ```
    pub fn is_done(&self) -> bool {
        self.err().is_some()
    }

    /// Why it is time to stop; `None` while it is not.
    ///
    /// ```
    /// let (context, canceler) = distlock::Context::background().with_cancel();
    /// assert_eq!(context.err(), None);
    /// canceler.cancel();
    /// assert_eq!(context.err(), Some(distlock::Cause::Canceled));
    /// ```
    pub fn err(&self) -> Option<Cause> {
        self.node.as_ref().and_then(|node| node.cause_now())
    }

    /// When the context will be done at the latest, where that is known.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let context = distlock::Context::background().with_timeout(Duration::from_secs(60));
    /// assert!(context.deadline().is_some_and(|deadline| deadline > Instant::now()));
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        self.node.as_ref().and_then(|node| node.deadline.to_instant())
    }

    /// The moment the context is done, to be waited on or awaited.
    ///
    /// ```
    /// # async fn example(context: distlock::Context) {
    /// let cause = context.done().await;
    /// println!("stopped: {cause}");
    /// # }
    /// ```
    pub fn done(&self) -> Done {
        Done::new(self.clone())
    }

    pub(crate) fn deadline_time(&self) -> Time {
        self.node.as_ref().map_or(Time::NEVER, |node| node.deadline)
    }

    /// Until when the answer of [`Context::err`] cannot change without an event.
    pub(crate) fn certain_until(&self) -> Time {
        self.node.as_ref().map_or(Time::NEVER, |node| node.certain_until())
    }

    /// Wakes `waker` once the context is finished by an event. A deadline is no event: who watches
    /// looks after it with [`Context::deadline_time`]. `None` when there is nothing to watch: the
    /// background, or a context that is done already.
    pub(crate) fn watch(&self, waker: &Waker) -> Option<WatchKey> {
        let node = self.node.as_ref()?;
        // Cloned before the lock is taken: it is foreign code.
        let watcher = Watcher::Waker(waker.clone());
        let mut links = node.links();
        if node.latched().is_some() {
            drop(links);
            return None;
        }
        Some(WatchKey(links.more().watchers.insert(watcher)))
    }

    /// The inverse of [`Context::watch`].
    pub(crate) fn unwatch(&self, key: WatchKey) {
        if let Some(node) = &self.node {
            // The waker is dropped after the lock is let go: its drop is foreign code.
            let watcher = node.links().forget(key.0);
            drop(watcher);
        }
    }

    fn child(&self, deadline: Time) -> Self {
        let mut node = Arc::new(Node::new());
        if let Some(fresh) = Arc::get_mut(&mut node) {
            fresh.deadline = deadline.min(self.deadline_time());
            fresh.home = self.node.as_ref().and_then(|parent| parent.home.clone());
        }
        adopt(self, &node);
        Self { node: Some(node) }
    }
}

impl Canceler {
    /// Makes the context, and everything derived from it, done. Later calls do nothing.
    pub fn cancel(&self) {
        if let Some(node) = &self.context.node {
            node.finish(Cause::Canceled);
        }
    }
}

/// What [`Context::watch`] gives back.
#[derive(Debug)]
pub(crate) struct WatchKey(SlabKey);

struct Node {
    /// [`LIVE`], or the cause it is done for; written once in a life.
    cause: AtomicU8,
    /// For the context of a lock: [`LIVE`], or how the lock ended. The context may be done before,
    /// when the requester's is.
    fate: AtomicU8,
    deadline: Time,
    /// For locks and their children: until when the server is known to keep the lock.
    home: Option<Arc<Home>>,
    links: Mutex<Links>,
    changed: Condvar,
}

/// Who hears of a node's end. A process may hold many thousands of locks, each with a node; most
/// have no parent but the background, and nobody who watches.
struct Links {
    /// For a lock of a set: the context of all of them, which is done when this is.
    joint: Option<Weak<Node>>,
    /// Made when it is first needed, and kept: a lock's node is used again.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    /// Where this node is a watcher of its parent.
    parent: Option<(Arc<Node>, SlabKey)>,
    watchers: Slab<Watcher>,
    /// Threads that sleep on `changed`: waking none would still be a system call.
    sleepers: u32,
    /// Of a lock that was asked for with one.
    token: Option<Token>,
}

impl Links {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn take_parent(&mut self) -> Option<(Arc<Node>, SlabKey)> {
        self.more.as_mut()?.parent.take()
    }

    /// Takes out a watcher.
    fn forget(&mut self, key: SlabKey) -> Option<Watcher> {
        self.more.as_mut()?.watchers.remove(key)
    }

    /// Takes out any one that is to hear of the end.
    fn next(&mut self) -> Option<Watcher> {
        match self.joint.take() {
            Some(joint) => Some(Watcher::Child(joint)),
            None => self.more.as_mut()?.watchers.pop(),
        }
    }
}

enum Watcher {
    Child(Weak<Node>),
    Waker(Waker),
}

const LIVE: u8 = 0;

/// The causes in the order of their codes; code 1 is the first.
const CAUSES: [Cause; 9] = [
    Cause::Released,
    Cause::Canceled,
    Cause::DeadlineExceeded,
    Cause::ConnectionLost,
    Cause::ReplyOverdue,
    Cause::LeaseExpired,
    Cause::ServerShutdown,
    Cause::ProtocolViolation,
    Cause::ManagerClosed,
];

fn code_of(cause: Cause) -> u8 {
    let index = CAUSES.iter().position(|known| *known == cause);
    index.and_then(|index| u8::try_from(index + 1).ok()).unwrap_or(LIVE)
}

fn cause_of(code: u8) -> Option<Cause> {
    usize::from(code).checked_sub(1).and_then(|index| CAUSES.get(index).copied())
}

impl Node {
    fn new() -> Self {
        Self {
            cause: AtomicU8::new(LIVE),
            fate: AtomicU8::new(LIVE),
            deadline: Time::NEVER,
            home: None,
            links: Mutex::new(Links { joint: None, more: None }),
            changed: Condvar::new(),
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        // A panic of a foreign waker cannot leave the links half-changed.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cause that was recorded.
    fn latched(&self) -> Option<Cause> {
        // Acquire pairs with the release in `finish`: who sees a lock lost sees what led to it.
        cause_of(self.cause.load(Ordering::Acquire))
    }

    /// Records how a lock ended; the first end stands.
    fn end_hold(&self, cause: Cause) {
        let code = code_of(cause);
        let _ = self.fate.compare_exchange(LIVE, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The cause, after a look at the clock.
    fn cause_now(&self) -> Option<Cause> {
        // The lease is read before the cause: a new session's longer lease is published only after
        // every lock of the old one was marked, so it can never cover one of them (I8).
        let lease = self.lease_until();
        if let Some(cause) = self.latched() {
            return Some(cause);
        }
        if self.deadline == Time::NEVER && lease == Time::NEVER {
            return None;
        }
        let now = Time::now();
        let cause = if now >= self.deadline {
            Cause::DeadlineExceeded
        } else if now >= lease {
            Cause::LeaseExpired
        } else {
            return None;
        };
        if cause == Cause::LeaseExpired {
            // Of a lock itself, too: once doubted, never believed again.
            self.end_hold(cause);
        }
        self.finish(cause);
        self.latched()
    }

    fn lease_until(&self) -> Time {
        match &self.home {
            Some(home) => home.lease_until(),
            None => Time::NEVER,
        }
    }

    /// Until when the answer of [`Node::cause_now`] cannot change without an event.
    fn certain_until(&self) -> Time {
        self.deadline.min(self.lease_until())
    }

    /// Marks the node and everything below it as done, and wakes whoever waits. The first cause
    /// stands. Not recursive: a chain of contexts may be longer than the stack is deep.
    fn finish(&self, cause: Cause) {
        let mut children = Vec::new();
        self.finish_one(cause, &mut children);
        while let Some(child) = children.pop() {
            child.finish_one(cause, &mut children);
        }
    }

    fn finish_one(&self, cause: Cause, children: &mut Vec<Arc<Self>>) {
        let code = code_of(cause);
        let latch = self.cause.compare_exchange(LIVE, code, Ordering::AcqRel, Ordering::Acquire);
        if latch.is_err() {
            return;
        }
        let parent = {
            let mut links = self.links();
            if links.more.as_ref().is_some_and(|more| more.sleepers > 0) {
                self.changed.notify_all();
            }
            links.take_parent()
        };
        // One at a time, with the lock let go in between: wakers are foreign code.
        loop {
            let watcher = self.links().next();
            match watcher {
                Some(Watcher::Child(child)) => children.extend(child.upgrade()),
                Some(Watcher::Waker(waker)) => foreign::wake(waker),
                None => break,
            }
        }
        if let Some((parent, key)) = parent {
            let entry = parent.links().forget(key);
            drop(entry);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let links = self.links.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut above = links.take_parent();
        // Not recursive, like `finish`: the last child takes the whole chain with it.
        while let Some((parent, key)) = above {
            let entry = parent.links().forget(key);
            drop(entry);
            above = Arc::into_inner(parent).and_then(|mut node| {
                let links = node.links.get_mut().unwrap_or_else(PoisonError::into_inner);
                links.take_parent()
            });
        }
    }
}

/// Lets a node follow its parent. A parent that is done already finishes it at once.
fn adopt(parent: &Context, node: &Arc<Node>) {
    let Some(parent) = &parent.node else { return };
    let mut links = parent.links();
    match parent.latched() {
        Some(cause) => {
            drop(links);
            node.finish(cause);
        }
        None => {
            let key = links.more().watchers.insert(Watcher::Child(Arc::downgrade(node)));
            // A parent in the midst of finishing has latched its cause before it takes the lock
            // that is held here, so this child is either seen by it or sees the cause above.
            drop(links);
            node.links().more().parent = Some((Arc::clone(parent), key));
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::Canceled => "canceled",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::ConnectionLost => "connection lost",
            Self::ReplyOverdue => "the server did not answer in time",
            Self::LeaseExpired => "not heard from the server for longer than the lease",
            Self::ServerShutdown => "the server ended the session",
            Self::ProtocolViolation => "the server broke the protocol",
            Self::ManagerClosed => "the manager was closed",
        })
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Context");
        match &self.node {
            None => shown.field("background", &true),
            Some(node) => shown.field("cause", &node.latched()).field("deadline", &node.deadline),
        };
        shown.finish()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("cause", &self.latched()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
