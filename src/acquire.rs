//! Asking for a lock, and waiting for the answer: by blocking or by `.await`.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::thread;
use std::time::Duration;

use crate::clock::Time;
use crate::context::{Cause, Context, WatchKey};
use crate::error::Error;
use crate::key::Key;
use crate::lock::Lock;
use crate::slots::{Answer, Drive, Mode, Request, Ticket, Waiter, Work};
use crate::timer::{self, Alarm};

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
}

impl Acquire {
    pub(crate) fn new(drive: Arc<dyn Drive>, key: Key) -> Self {
        Self { drive, key, context: Context::background(), timeout: None }
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

    /// Blocks until the lock is granted.
    ///
    /// Waiters of one manager get the key in the order they came. Between managers there is no
    /// order.
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
        let deadline = self.deadline();
        let work = Work::Lock { key: self.key, mode: Mode::Wait };
        let answer = ask(&*self.drive, work, &self.context, deadline)?;
        match to_lock(&self.drive, self.key, answer) {
            Some(lock) => Ok(lock),
            // A request that waits is never refused; if it were, it would not hold the lock.
            None => Err(Error::Canceled(Cause::Canceled)),
        }
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
        let deadline = self.deadline();
        let work = Work::Lock { key: self.key, mode: Mode::Try };
        let answer = ask(&*self.drive, work, &self.context, deadline)?;
        Ok(to_lock(&self.drive, self.key, answer))
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
        let (drive, key) = (Arc::clone(&self.drive), self.key);
        let answer = self.into_asking(Mode::Try).await?;
        Ok(to_lock(&drive, key, answer))
    }

    fn deadline(&self) -> Time {
        self.timeout.map_or(Time::NEVER, |timeout| Time::now().after(timeout))
    }

    fn into_asking(self, mode: Mode) -> Asking {
        Asking {
            deadline: self.deadline(),
            work: Work::Lock { key: self.key, mode },
            drive: self.drive,
            context: self.context,
            ticket: None,
            watch: None,
            alarm: None,
        }
    }
}

impl IntoFuture for Acquire {
    type Output = Result<Lock, Error>;
    type IntoFuture = Acquiring;

    fn into_future(self) -> Acquiring {
        Acquiring { key: self.key, asking: self.into_asking(Mode::Wait) }
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
    key: Key,
    asking: Asking,
}

impl Future for Acquiring {
    type Output = Result<Lock, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let answer = match Pin::new(&mut self.asking).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(answer) => answer?,
        };
        let lock = to_lock(&self.asking.drive, self.key, answer);
        Poll::Ready(lock.ok_or(Error::Canceled(Cause::Canceled)))
    }
}

/// Asks the guard and blocks for the answer; does the guard's work meanwhile, where nobody else
/// does.
pub(crate) fn ask(drive: &dyn Drive, work: Work, context: &Context, deadline: Time) -> Answer {
    if let Some(cause) = gave_up(context, deadline) {
        return Err(Error::Canceled(cause));
    }
    let slots = drive.slots();
    let request = Request { work, context: context.clone() };
    let ticket = slots.submit(request, Waiter::Thread(thread::current()))?;
    let watch = context.watch(drive.poker(ticket));
    let answer = loop {
        if let Some(answer) = slots.take(ticket) {
            break answer;
        }
        if let Some(cause) = gave_up(context, deadline) {
            break give_up(drive, ticket, cause);
        }
        let limit = deadline.min(context.certain_until());
        drive.drive(ticket, limit);
        // Whoever brings news after this look unparks this thread.
        if !slots.has_news(ticket) {
            park_until(limit);
        }
    };
    if let Some(watch) = watch {
        context.unwatch(watch);
    }
    answer
}

/// The future of one request.
struct Asking {
    drive: Arc<dyn Drive>,
    work: Work,
    context: Context,
    deadline: Time,
    ticket: Option<Ticket>,
    watch: Option<WatchKey>,
    alarm: Option<Alarm>,
}

impl Future for Asking {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        let drive = Arc::clone(&this.drive);
        let slots = drive.slots();
        let ticket = match this.ticket {
            Some(ticket) => {
                slots.set_task(ticket, cx.waker());
                ticket
            }
            None => {
                if let Some(cause) = gave_up(&this.context, this.deadline) {
                    return Poll::Ready(Err(Error::Canceled(cause)));
                }
                let request = Request { work: this.work, context: this.context.clone() };
                let ticket = match slots.submit(request, Waiter::Task(cx.waker().clone())) {
                    Ok(ticket) => ticket,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                this.ticket = Some(ticket);
                this.watch = this.context.watch(drive.poker(ticket));
                drive.kick();
                ticket
            }
        };
        if let Some(answer) = slots.take(ticket) {
            this.ticket = None;
            return Poll::Ready(answer);
        }
        if let Some(cause) = gave_up(&this.context, this.deadline) {
            this.ticket = None;
            return Poll::Ready(give_up(&*drive, ticket, cause));
        }
        let limit = this.deadline.min(this.context.certain_until());
        if this.alarm.as_ref().is_none_or(|alarm| alarm.time() != limit) {
            this.alarm = timer::wake_at(limit, drive.poker(ticket));
        }
        Poll::Pending
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.alarm = None;
        if let Some(watch) = self.watch.take() {
            self.context.unwatch(watch);
        }
        if let Some(ticket) = self.ticket.take() {
            // A grant that is there already is let go as a lock is: by dropping it.
            if let Ok(Some(grant)) = give_up(&*self.drive, ticket, Cause::Canceled) {
                self.drive.slots().release(grant.hold);
                self.drive.kick();
            }
        }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("work", &self.work).finish_non_exhaustive()
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("key", &self.key)
            .field("context", &self.context)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Withdraws a request. An answer that is there already counts, but for a grant: who has given up
/// does not want it, and it is released.
fn give_up(drive: &dyn Drive, ticket: Ticket, cause: Cause) -> Answer {
    match drive.slots().abandon(ticket) {
        Some(Ok(Some(grant))) => {
            let hold = grant.hold;
            grant.context.release();
            drop(grant);
            drive.slots().release(hold);
            drive.kick();
            Err(Error::Canceled(cause))
        }
        Some(answer) => answer,
        None => {
            drive.kick();
            Err(Error::Canceled(cause))
        }
    }
}

/// Why a request has to stop waiting, if it has to.
pub(crate) fn gave_up(context: &Context, deadline: Time) -> Option<Cause> {
    context.err().or_else(|| {
        let is_over = deadline != Time::NEVER && Time::now() >= deadline;
        is_over.then_some(Cause::DeadlineExceeded)
    })
}

fn to_lock(drive: &Arc<dyn Drive>, key: Key, grant: Option<crate::slots::Grant>) -> Option<Lock> {
    grant.map(|grant| Lock::new(key, grant, Arc::clone(drive)))
}

/// Sleeps until somebody unparks this thread, or a point in time.
pub(crate) fn park_until(limit: Time) {
    let span = limit.since(Time::now()).min(LONGEST_SLEEP);
    thread::park_timeout(span);
}

/// Sleeps are cut: their clock stands still while the machine is suspended, that of the deadlines
/// does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
