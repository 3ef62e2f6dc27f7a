//! Asking for a lock, and waiting for the answer: by blocking or by `.await`.

mod asking;
mod settling;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

pub(crate) use self::asking::{Asking, ask, gave_up, park_until};
use self::settling::Settling;
use crate::clock::Time;
use crate::context::{Cause, Context};
use crate::error::Error;
use crate::key::Key;
use crate::lock::Lock;
use crate::slots::{Drive, Grant, Mode, Want, Wish, Work};

/// A request for a lock, from [`Manager::acquire`](crate::Manager::acquire): nothing happens until
/// it is ended by [`wait`](Acquire::wait), [`try_now`](Acquire::try_now),
/// [`try_async`](Acquire::try_async) or `.await`.
///
/// ```no_run
/// # use distlock::{Context, Error, Manager};
/// # use std::time::Duration;
/// # async fn example(manager: Manager, ctx: Context) -> Result<(), Error> {
/// let blocking = manager.acquire("a").context(&ctx).timeout(Duration::from_secs(5)).wait()?;
/// let awaited = manager.acquire("b").context(&ctx).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is asked for until `wait`, `try_now`, `try_async` or `.await`"]
#[derive(Clone)]
pub struct Acquire {
    drive: Arc<dyn Drive>,
    key: Key,
    context: Context,
    timeout: Option<Duration>,
    shared: bool,
    slots: Option<u32>,
    fenced: bool,
    settle: Duration,
}

/// The most slots that a counted lock can have; see [`Acquire::slots`].
const SLOTS_MAX: u16 = 1024;

impl Acquire {
    pub(crate) fn new(drive: Arc<dyn Drive>, key: Key) -> Self {
        Self {
            drive,
            key,
            context: Context::background(),
            timeout: None,
            shared: false,
            slots: None,
            fenced: false,
            settle: Duration::ZERO,
        }
    }

    /// The context that ends the waiting, and that the lock's own context is a child of. The
    /// background if none is given.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let (ctx, canceler) = distlock::Context::background().with_cancel();
    /// let lock = manager.acquire("a").context(&ctx).wait()?;
    /// canceler.cancel(); // the work under the lock is told to stop
    /// assert!(lock.context().is_done());
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// How long to wait at the most, from the moment the request is ended by one of its methods.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let five_seconds = std::time::Duration::from_secs(5);
    /// match manager.acquire("a").timeout(five_seconds).wait() {
    ///     Err(error) if error.is_timeout() => println!("somebody else is at it"),
    ///     lock => println!("{:?}", lock?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// To share the key with all who ask for it in this way; nobody has it alone meanwhile.
    ///
    /// Who waits to have a key alone is not starved by sharers: new ones wait behind it, in this
    /// process and in others. A try that would overtake it is refused.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let reader = manager.acquire("table").shared().wait()?;
    /// let another = manager.acquire("table").shared().wait()?; // both at once
    /// assert!(manager.acquire("table").try_now()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// As one of at most `count` holders, in all processes together: a counted lock, or semaphore.
    ///
    /// A counted lock is a lock of its own: it does not exclude the holders of the plain key. All
    /// who use it have to give the same `count`, from 1 to 1,024; who gives a larger one lets more
    /// in. It is found in one round trip, by trying the slots in their order.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// // No more than three at a time, in the whole fleet.
    /// let lock = manager.acquire("render").slots(3).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slots(mut self, count: u32) -> Self {
        self.slots = Some(count);
        self
    }

    /// With a fencing token, [`Lock::token`], which is larger than that of every earlier fenced
    /// grant of the cluster.
    ///
    /// A lock can be lost while its holder is at work. A resource outside of the process that
    /// keeps the largest token that it has seen, and refuses smaller ones, is safe from a holder
    /// that comes late; see [`Token`](crate::Token). It costs a record in the write-ahead log,
    /// which is flushed before the grant counts.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("ledger").fenced().wait()?;
    /// println!("write with {}", lock.token().expect("it is fenced"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fenced(mut self) -> Self {
        self.fenced = true;
        self
    }

    /// Keeps a grant back for `pause`, counted from the moment the server gave the key to this
    /// process, before it is told.
    ///
    /// When the server ends a session, its key is free at once, while its holder may believe in it
    /// for as long as the lease says ([`Config::lease`](crate::Config::lease)). With a pause that
    /// is longer than the lease of all who use the key (and its drift and slack: L + 0.1 % + 50
    /// ms), two holders never believe at the same time. That the former holder released in good
    /// order cannot be known, but for one in this process; so the pause is always made, and only a
    /// key that this process has had for longer already is told at once.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let pause = std::time::Duration::from_millis(6_100);
    /// let lock = manager.acquire("ledger").settle(pause).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle(mut self, pause: Duration) -> Self {
        self.settle = pause;
        self
    }

    /// Blocks until the lock is granted.
    ///
    /// Waiters of one manager get the key in the order they came. Between managers there is no
    /// order.
    ///
    /// Locks are not re-entrant. To the server an advisory lock is, within a session; but all
    /// threads and tasks of the process share the session, and so a key has one holder here, who is
    /// nobody in particular: a [`Lock`] may be moved to another thread. Who holds a key and waits
    /// for it again, also with another clone of the manager, or shared, or in a set, waits for
    /// itself until the context or the time limit ends that, and without these for ever.
    /// [`try_now`](Acquire::try_now) says `None`. A sharer may share once more, but not while
    /// somebody waits to have the key alone: each of the two would wait for the other.
    ///
    /// # Errors
    ///
    /// [`Error::Canceled`] when the context was done or the time was up first, [`Error::Lost`] when
    /// the session ended meanwhile, [`Error::Closed`], one of the limits, or what the server says.
    /// While there is no session this waits for the next one.
    ///
    /// # Cancellation
    ///
    /// At once, and without a trace: a grant that comes too late is released.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire((7, 42)).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(self) -> Result<Lock, Error> {
        // A request that waits is never refused; if it were, it would not hold the lock.
        self.block(Mode::Wait)?.ok_or(Error::Canceled(Cause::Canceled))
    }

    /// Asks once, and blocks for the answer: `None` when the lock is taken.
    ///
    /// # Errors
    ///
    /// As for [`Acquire::wait`], and [`Error::Unavailable`] while there is no session.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// if let Some(lock) = manager.acquire("a").try_now()? {
    ///     println!("{} is ours", lock.key());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_now(self) -> Result<Option<Lock>, Error> {
        self.block(Mode::Try)
    }

    /// Asks once, and awaits the answer: `None` when the lock is taken.
    ///
    /// # Errors
    ///
    /// As for [`Acquire::try_now`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind: a grant that comes too late is released.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// if let Some(lock) = manager.acquire("a").try_async().await? {
    ///     println!("{} is ours", lock.key());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_async(self) -> Result<Option<Lock>, Error> {
        self.into_acquiring(Mode::Try).granted().await
    }

    fn block(self, mode: Mode) -> Result<Option<Lock>, Error> {
        let deadline = self.deadline();
        let answer = ask(&*self.drive, self.work(mode)?, &self.context, deadline)?;
        let Some(grant) = answer.granted() else { return Ok(None) };
        let until = self.told_at(&grant);
        let lock = Lock::new(self.key, grant);
        settling::wait(lock, until, deadline).map(Some)
    }

    fn work(&self, mode: Mode) -> Result<Work, Error> {
        let want = match (self.shared, self.slots) {
            (false, None) => Want::Exclusive,
            (true, None) if !self.fenced => Want::Shared,
            (false, Some(count)) if !self.fenced => match u16::try_from(count) {
                Ok(count @ 1..=SLOTS_MAX) => Want::Slot(count),
                _ => return Err(Error::Request("slots() takes a count from 1 to 1,024")),
            },
            (true, Some(_)) => {
                return Err(Error::Request("shared() and slots() exclude each other"));
            }
            _ => {
                let reason = "fenced() is for who has the key alone: leave out shared() or slots()";
                return Err(Error::Request(reason));
            }
        };
        Ok(Work::Lock { key: self.key, wish: Wish { want, fenced: self.fenced }, mode })
    }

    fn deadline(&self) -> Time {
        self.timeout.map_or(Time::NEVER, |timeout| Time::now().after(timeout))
    }

    /// When a grant is told; see [`Acquire::settle`].
    fn told_at(&self, grant: &Grant) -> Time {
        if self.settle.is_zero() { Time::ZERO } else { grant.since.after(self.settle) }
    }

    fn into_acquiring(self, mode: Mode) -> Acquiring {
        let deadline = self.deadline();
        let state = match self.work(mode) {
            Ok(work) => {
                let drive = Arc::clone(&self.drive);
                State::Asking(Asking::new(drive, work, self.context.clone(), deadline))
            }
            Err(error) => State::Over(Some(error)),
        };
        Acquiring { acquire: self, deadline, state }
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Lock, Error>;
    type IntoFuture = Acquiring;

    fn into_future(self) -> Acquiring {
        self.into_acquiring(Mode::Wait)
    }
}

/// The future of [`Acquire`]: it ends as [`Acquire::wait`] does. Runs on any executor.
///
/// # Cancellation
///
/// Dropping it at any point leaves nothing behind: the request is withdrawn, and a grant that is
/// on its way is released.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Acquiring {
    acquire: Acquire,
    deadline: Time,
    state: State,
}

#[derive(Debug)]
enum State {
    Asking(Asking),
    Settling(Settling),
    Over(Option<Error>),
}

impl Acquiring {
    /// The lock; or none, if it is refused.
    async fn granted(mut self) -> Result<Option<Lock>, Error> {
        std::future::poll_fn(|cx| self.poll_granted(cx)).await
    }

    fn poll_granted(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<Lock>, Error>> {
        loop {
            match &mut self.state {
                State::Asking(asking) => {
                    let answer = match Pin::new(asking).poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(answer) => answer,
                    };
                    self.state = State::Over(None);
                    let Some(grant) = answer?.granted() else { return Poll::Ready(Ok(None)) };
                    let until = self.acquire.told_at(&grant);
                    let lock = Lock::new(self.acquire.key, grant);
                    self.state = State::Settling(Settling::new(lock, until, self.deadline));
                }
                State::Settling(settling) => return settling.poll(cx).map_ok(Some),
                State::Over(error) => {
                    let over = Error::Canceled(Cause::Canceled);
                    return Poll::Ready(Err(error.take().unwrap_or(over)));
                }
            }
        }
    }
}

impl Future for Acquiring {
    type Output = Result<Lock, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        // A request that waits is never refused; if it were, it would not hold the lock.
        self.poll_granted(cx).map(|granted| granted?.ok_or(Error::Canceled(Cause::Canceled)))
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("key", &self.key)
            .field("context", &self.context)
            .field("timeout", &self.timeout)
            .field("shared", &self.shared)
            .field("slots", &self.slots)
            .field("fenced", &self.fenced)
            .field("settle", &self.settle)
            .finish_non_exhaustive()
    }
}
