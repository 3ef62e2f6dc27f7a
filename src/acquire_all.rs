//! Asking for several locks at once: all of them or none.
//!
//! # Why nobody deadlocks
//!
//! Keys have an order, [`Ord`] of [`Key`], which is the same in every process. A request *waits*
//! for a key only while all it holds are smaller ones: before it waits it releases what it was
//! granted behind that key. Tries do not wait. So of all that wait, in all processes, consider the
//! one that waits for the greatest key: its holder, if it is such a request, does not wait, since
//! it could only wait for a greater one. It ends, and the wait with it. Who takes further locks by
//! hand while it holds some has to keep to the same order, or the argument does not hold.
//!
//! # Why it ends
//!
//! Each wait ends with one more key held, and keys that are held are kept; so there are at most as
//! many waits, and as many rounds of tries, as there are keys.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use crate::acquire::gave_up;
use crate::batch::{AskedBy, Batch};
use crate::clock::Time;
use crate::context::{Cause, Context};
use crate::error::{Error, Outcome};
use crate::key::Key;
use crate::lock::Lock;
use crate::lock_set::{Held, LockSet};
use crate::slots::{Answer, Drive, Mode, Reply, Wish, Work};

/// A request for several locks, from [`Manager::acquire_all`](crate::Manager::acquire_all): nothing
/// happens until it is ended by [`wait`](AcquireAll::wait), [`try_now`](AcquireAll::try_now),
/// [`try_async`](AcquireAll::try_async) or `.await`.
///
/// ```no_run
/// # use distlock::{Context, Error, Manager};
/// # use std::time::Duration;
/// # async fn example(manager: Manager, ctx: Context) -> Result<(), Error> {
/// let five_seconds = Duration::from_secs(5);
/// let blocking = manager.acquire_all(["a", "b"]).context(&ctx).timeout(five_seconds).wait()?;
/// let awaited = manager.acquire_all(["c", "d"]).context(&ctx).await?;
/// # Ok(())
/// # }
/// ```
///
/// # How they are acquired
///
/// All keys are tried at once, in one round trip if the session has room for them (254 keys at a
/// time), unless this process has just let go of one of them that others may wait for. When all are
/// free, that is all. Else, a request that waits keeps those that are smaller than the first that
/// is taken, releases the others, waits for that one, and tries the rest again. The order is that
/// of [`Key`], whatever the order they are given in, so that sets that cross never deadlock, be
/// they of one process or of many. Who takes single locks besides has to take them in that order,
/// too.
///
/// The caller sees nothing of it before all of them are held: an error, a context that is done, a
/// time that is up, a future that is dropped release whatever was granted. When the session is lost
/// meanwhile, that is [`Error::Lost`], and never a set with locks of two sessions.
///
/// # Limits
///
/// More keys than [`Config::max_requests`](crate::Config::max_requests) or
/// [`Config::max_locks`](crate::Config::max_locks) are an error at once, before anything is asked
/// for. While others use up the limits, that is the same error as for a single lock.
#[must_use = "nothing is asked for until `wait`, `try_now`, `try_async` or `.await`"]
#[derive(Clone)]
pub struct AcquireAll {
    drive: Arc<dyn Drive>,
    keys: Vec<Key>,
    context: Context,
    timeout: Option<Duration>,
}

impl AcquireAll {
    pub(crate) fn new(drive: Arc<dyn Drive>, keys: Vec<Key>) -> Self {
        Self { drive, keys, context: Context::background(), timeout: None }
    }

    /// The context that ends the waiting, and that the set's own context is a child of. The
    /// background if none is given.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let (ctx, canceler) = distlock::Context::background().with_cancel();
    /// let set = manager.acquire_all(["a", "b"]).context(&ctx).wait()?;
    /// canceler.cancel(); // the work under the locks is told to stop
    /// assert!(set.context().is_done());
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// How long to wait for all of them together at the most, from the moment the request is ended
    /// by one of its methods.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let five_seconds = std::time::Duration::from_secs(5);
    /// match manager.acquire_all(["a", "b"]).timeout(five_seconds).wait() {
    ///     Err(error) if error.is_timeout() => println!("somebody else is at one of them"),
    ///     set => println!("{:?}", set?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Blocks until all of the locks are held.
    ///
    /// # Errors
    ///
    /// [`Error::NoKeys`], [`Error::Canceled`] when the context was done or the time was up first,
    /// [`Error::Lost`] when the session ended meanwhile, [`Error::Closed`], one of the limits, or
    /// what the server says. While there is no session this waits for the next one.
    ///
    /// # Cancellation
    ///
    /// At once, and without a trace: what was granted is released.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all([(7, 42), (7, 43)]).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(self) -> Result<LockSet, Error> {
        // A request that waits is never refused; if it were, it would not hold the locks.
        let set = Gathering::new(self, Mode::Wait)?.block()?;
        set.ok_or(Error::Canceled(Cause::Canceled))
    }

    /// Asks once for all of them, and blocks for the answer: `None` when one of them is taken. Then
    /// nothing is kept: the others are released without waiting for the server, as by a drop.
    ///
    /// # Errors
    ///
    /// As for [`AcquireAll::wait`], and [`Error::Unavailable`] while there is no session. Of
    /// several keys that are taken or failed, the smallest decides which it is.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// if let Some(set) = manager.acquire_all(["a", "b"]).try_now()? {
    ///     println!("{} locks are ours", set.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_now(self) -> Result<Option<LockSet>, Error> {
        Gathering::new(self, Mode::Try)?.block()
    }

    /// Asks once for all of them, and awaits the answer: `None` when one of them is taken.
    ///
    /// # Errors
    ///
    /// As for [`AcquireAll::try_now`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind: grants that come too late are released.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// if let Some(set) = manager.acquire_all(["a", "b"]).try_async().await? {
    ///     println!("{} locks are ours", set.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_async(self) -> Result<Option<LockSet>, Error> {
        Gathering::new(self, Mode::Try)?.gather().await
    }
}

impl IntoFuture for AcquireAll {
    type Output = Result<LockSet, Error>;
    type IntoFuture = AcquiringAll;

    fn into_future(self) -> AcquiringAll {
        // Here and not in the future: the time runs from now.
        let gathering = Gathering::new(self, Mode::Wait);
        let future = async { gathering?.gather().await?.ok_or(Error::Canceled(Cause::Canceled)) };
        AcquiringAll { future: Box::pin(future) }
    }
}

impl fmt::Debug for AcquireAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireAll")
            .field("keys", &self.keys)
            .field("context", &self.context)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The future of [`AcquireAll`]: it ends as [`AcquireAll::wait`] does. Runs on any executor. What
/// it was granted so far it keeps while it waits for the rest, also while nobody polls it.
///
/// # Cancellation
///
/// Dropping it at any point leaves nothing behind: requests are withdrawn, and locks that were
/// granted or are about to be are released.
#[must_use = "futures do nothing unless polled"]
pub struct AcquiringAll {
    future: Pin<Box<dyn Future<Output = Result<LockSet, Error>> + Send + Sync>>,
}

impl Future for AcquiringAll {
    type Output = Result<LockSet, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(cx)
    }
}

impl fmt::Debug for AcquiringAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquiringAll").finish_non_exhaustive()
    }
}

/// A set on its way to be held. Dropping it releases what is held of it.
#[derive(Debug)]
struct Gathering {
    drive: Arc<dyn Drive>,
    /// In order, each one once.
    keys: Vec<Key>,
    context: Context,
    deadline: Time,
    mode: Mode,
    /// The locks of the first keys; and what is to be released, once it is known that there will be
    /// no set.
    held: Held,
}

/// What is asked for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// All keys that are not held, by tries.
    TryTheRest,
    /// The first key that is not held, by waiting for it.
    WaitForOne,
}

/// What became of a round of requests.
#[derive(Debug, Default)]
struct Round {
    /// How many were answered.
    answered: usize,
    /// Whether one was not granted.
    is_broken: bool,
    /// Why the first that was not granted was not, if it was not just taken.
    error: Option<Error>,
    /// What was granted behind that one.
    surplus: Held,
}

impl Gathering {
    fn new(asked: AcquireAll, mode: Mode) -> Result<Self, Error> {
        let AcquireAll { drive, mut keys, context, timeout } = asked;
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Err(Error::NoKeys);
        }
        // Such a set would never be had, however long it waited.
        for (limit, error) in [
            (drive.slots().max_requests(), too_many_requests as fn(u32) -> Error),
            (drive.slots().max_locks(), too_many_locks),
        ] {
            if keys.len() > limit as usize {
                return Err(error(limit));
            }
        }
        let deadline = timeout.map_or(Time::NEVER, |timeout| Time::now().after(timeout));
        let held = Held::with_room(keys.len());
        Ok(Self { drive, keys, context, deadline, mode, held })
    }

    /// Gathers by blocking: the set, or `None` if one was refused.
    fn block(mut self) -> Result<Option<LockSet>, Error> {
        let mut step = Step::TryTheRest;
        loop {
            let mut batch = self.ask(step, AskedBy::Thread)?;
            let mut round = Round { answered: self.held.locks().len(), ..Round::default() };
            loop {
                match batch.wait(self.alive(), self.deadline) {
                    Ok(Some(answer)) => self.hear(answer, &mut round),
                    Ok(None) => break,
                    Err(cause) => return Err(self.gave_up(cause)),
                }
            }
            match self.conclude(round)? {
                Some(next) => step = next,
                None => return Ok(self.finish()),
            }
        }
    }

    /// The same for a task.
    async fn gather(mut self) -> Result<Option<LockSet>, Error> {
        let mut step = Step::TryTheRest;
        loop {
            let mut batch = self.ask(step, AskedBy::Task)?;
            let mut round = Round { answered: self.held.locks().len(), ..Round::default() };
            loop {
                match poll_fn(|cx| batch.poll(cx, self.alive(), self.deadline)).await {
                    Ok(Some(answer)) => self.hear(answer, &mut round),
                    Ok(None) => break,
                    Err(cause) => return Err(self.gave_up(cause)),
                }
            }
            match self.conclude(round)? {
                Some(next) => step = next,
                None => return Ok(self.finish()),
            }
        }
    }

    fn ask(&self, step: Step, asked_by: AskedBy) -> Result<Batch, Error> {
        if let Some(cause) = gave_up(&self.context, self.deadline) {
            return Err(self.gave_up(cause));
        }
        let missing = &self.keys[self.held.locks().len()..];
        let (keys, mode) = match step {
            Step::TryTheRest if self.mode == Mode::Wait => (missing, Mode::InTurn),
            Step::TryTheRest => (missing, Mode::Try),
            Step::WaitForOne => (&missing[..1], Mode::Wait),
        };
        let works = keys.iter().map(|key| Work::Lock { key: *key, wish: Wish::PLAIN, mode });
        Batch::submit(&self.drive, works, &self.context, asked_by)
    }

    /// What ends the waiting: the context, or, once there is a lock to be lost, its loss. It would
    /// be waited for in vain.
    fn alive(&self) -> &Context {
        self.held.locks().first().map_or(&self.context, Lock::context)
    }

    fn hear(&mut self, answer: Answer, round: &mut Round) {
        let key = self.keys[round.answered];
        round.answered += 1;
        let error = match answer {
            Ok(Reply::Granted(grant)) => {
                let lock = Lock::new(key, grant);
                let into = if round.is_broken { &mut round.surplus } else { &mut self.held };
                return into.push(lock);
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if !round.is_broken {
            round.is_broken = true;
            round.error = error;
        }
    }

    /// What to do after a round; `None` if it was the last one.
    fn conclude(&mut self, round: Round) -> Result<Option<Step>, Error> {
        let Round { is_broken, error, surplus, .. } = round;
        match self.mode {
            // If there is any, all of it will be released, together.
            Mode::Try | Mode::InTurn => self.held.append(surplus),
            // Released before anything is waited for, which is what the order of the waits rests
            // on.
            Mode::Wait => drop(surplus),
        }
        self.check()?;
        match error {
            // Who waits anyway waits for the reconnect as well.
            Some(Error::Unavailable { .. }) if self.mode == Mode::Wait => {}
            Some(error) => return Err(error),
            None => {}
        }
        Ok(match (is_broken, self.mode) {
            (true, Mode::Wait) => Some(Step::WaitForOne),
            (true, Mode::Try | Mode::InTurn) => None,
            (false, _) if self.held.locks().len() < self.keys.len() => Some(Step::TryTheRest),
            (false, _) => None,
        })
    }

    /// That what is held so far is held still. Of a session that has ended the guard has marked
    /// every lock before there was a grant of the next one (I8), so that a set with locks of both
    /// does not get through.
    fn check(&self) -> Result<(), Error> {
        let Some(lock) = self.held.locks().iter().find(|lock| !lock.is_held()) else {
            return Ok(());
        };
        Err(match lock.context().fate() {
            Some(Cause::ManagerClosed) => Error::Closed,
            // With `release_on_cancel`, by the context.
            Some(Cause::Released) | None => {
                Error::Canceled(self.context.err().unwrap_or(Cause::Canceled))
            }
            // The server may keep them for a while.
            Some(cause) => Error::Lost { cause, outcome: Outcome::Unknown },
        })
    }

    fn gave_up(&self, cause: Cause) -> Error {
        self.check().err().unwrap_or(Error::Canceled(cause))
    }

    fn finish(mut self) -> Option<LockSet> {
        let is_complete = self.held.locks().len() == self.keys.len();
        is_complete.then(|| LockSet::new(std::mem::take(&mut self.held)))
    }
}

fn too_many_requests(limit: u32) -> Error {
    Error::TooManyRequests { limit }
}

fn too_many_locks(limit: u32) -> Error {
    Error::TooManyLocks { limit }
}
