//! The manager: one per process, with one session, for all its locks.

use std::fmt;
use std::sync::Arc;

use crate::acquire::Acquire;
use crate::acquire_all::AcquireAll;
use crate::config::Config;
use crate::context::Context;
use crate::election::Election;
use crate::error::Error;
use crate::guard;
use crate::holders::Inquiry;
use crate::key::Key;
use crate::lock::Lock;
use crate::slots::Drive;
use crate::warning::Warning;

/// Locks on one PostgreSQL database, over one session.
///
/// Cheap to clone; all clones are the same manager, and the last one to be dropped closes it. A
/// process needs one manager for each database, however many locks it takes.
///
/// What a manager gives (a [`Lock`], a set, an [`Election`] and its terms) does not keep it open. A
/// function that connects, locks, and returns nothing but the lock returns one that is lost: its
/// context is done with [`Cause::ManagerClosed`](crate::Cause::ManagerClosed). Make the manager
/// where the program begins, and hand out clones; or return it together with the lock:
///
/// ```no_run
/// # use distlock::{Context, Error, Lock, Manager};
/// fn only_one(url: &str) -> Result<(Manager, Lock), Error> {
///     let manager = Manager::connect(url)?;
///     let lock = manager.lock(&Context::background(), "this program")?;
///     Ok((manager, lock))
/// }
/// ```
///
/// ```no_run
/// use distlock::{Context, Manager};
///
/// # fn main() -> Result<(), distlock::Error> {
/// let manager = Manager::connect("postgres://app@db.internal/prod")?;
/// if let Some(lock) = manager.try_lock(&Context::background(), "invoice:42")? {
///     assert!(lock.is_held());
/// } // dropped: released
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    drive: Arc<dyn Drive>,
}

impl Manager {
    /// Connects to the server and waits for the session to be ready, at most for
    /// [`Config::connect_timeout`].
    ///
    /// Later on, when the session is lost, the manager reconnects on its own, with backoff, and
    /// with the same configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when the configuration cannot be used, or the reason why there is no
    /// session. Nothing is left running then, but for a thread that hangs in the system's resolver.
    ///
    /// ```no_run
    /// use distlock::{Config, Manager};
    ///
    /// # fn main() -> Result<(), distlock::Error> {
    /// let by_url = Manager::connect("postgres://app@db.internal/prod")?;
    /// let by_words = Manager::connect("host=/run/postgresql user=app dbname=prod")?;
    /// let by_builder = Manager::connect(Config::new().host("db.internal").user("app"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        let plan = config.try_into()?.into_plan()?;
        Ok(Self { inner: Arc::new(Inner { drive: guard::spawn(plan)? }) })
    }

    /// Asks once for a lock, and blocks for the answer: one round trip. `None` when it is taken, by
    /// another process or by this one: contention is not an error.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// match manager.try_lock(&distlock::Context::background(), "invoice:42")? {
    ///     Some(lock) => println!("{} is ours", lock.key()),
    ///     None => println!("somebody else is at it"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] while there is no session, [`Error::Canceled`] when `context` is done
    /// first, [`Error::Lost`] when the session ends meanwhile, [`Error::Closed`], one of the
    /// limits, or what the server says.
    ///
    /// # Cancellation
    ///
    /// At once, and without a trace: a grant that comes too late is released.
    pub fn try_lock(&self, context: &Context, key: impl Into<Key>) -> Result<Option<Lock>, Error> {
        self.acquire(key).context(context).try_now()
    }

    /// Waits for a lock, for as long as `context` allows.
    ///
    /// Who holds the key already and asks for it once more waits for itself: for ever, if nothing
    /// ends `context`. Locks are not re-entrant; see [`Acquire::wait`].
    ///
    /// ```no_run
    /// # use distlock::{Context, Error, Manager};
    /// # use std::time::Duration;
    /// # fn example(manager: &Manager, ctx: &Context) -> Result<(), Error> {
    /// let lock = manager.lock(&ctx.with_timeout(Duration::from_secs(5)), "invoice:42")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Acquire::wait`].
    ///
    /// # Cancellation
    ///
    /// At once, and without a trace: a grant that comes too late is released.
    pub fn lock(&self, context: &Context, key: impl Into<Key>) -> Result<Lock, Error> {
        self.acquire(key).context(context).wait()
    }

    /// Asks for a lock in any other way: the builder that all ways go through.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let half_a_minute = std::time::Duration::from_secs(30);
    /// let lock = manager.acquire("nightly").timeout(half_a_minute).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire(&self, key: impl Into<Key>) -> Acquire {
        Acquire::new(Arc::clone(&self.inner.drive), key.into())
    }

    /// Asks for several locks at once: all of them or none.
    ///
    /// The keys may be in any order and name a key twice; it is locked once. An empty list is
    /// [`Error::NoKeys`]. See [`AcquireAll`] for how they are acquired, and why two programs that
    /// ask for crossing sets never deadlock.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let both = manager.acquire_all(["account:1", "account:2"]).wait()?;
    /// assert!(both.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire_all<K>(&self, keys: impl IntoIterator<Item = K>) -> AcquireAll
    where
        K: Into<Key>,
    {
        let keys = keys.into_iter().map(Into::into).collect();
        AcquireAll::new(Arc::clone(&self.inner.drive), keys)
    }

    /// Runs for leadership: whoever holds the key is the leader, and everybody else waits to be the
    /// next. Nothing is asked for until the first term is.
    ///
    /// ```no_run
    /// # fn lead() {}
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// for term in manager.elect("scheduler") {
    ///     let term = term?;
    ///     while term.is_leader() {
    ///         lead();
    ///     }
    /// } // stepped down: campaigns again
    /// # Ok(())
    /// # }
    /// ```
    pub fn elect(&self, key: impl Into<Key>) -> Election {
        Election::new(Arc::clone(&self.inner.drive), key.into())
    }

    /// Asks the server who holds a key, and who waits for it: in this database, by this library or
    /// any other program. One round trip, on the manager's one session, when the [`Inquiry`] is
    /// ended by [`wait`](Inquiry::wait) or `.await`. It takes no lock.
    ///
    /// The server reads its whole lock table for it, which takes milliseconds where a try takes a
    /// fraction of one, and a second where all sessions together hold a million locks (to count
    /// them took 1.09 s with PostgreSQL 18.6). What else the manager asks for, releases too, waits
    /// behind it on the one session. And it is an answer like others: if it takes longer than
    /// [`Config::reply_timeout`], the session is given up, and every lock of the manager is lost.
    /// So it is for people and logs, and for no loop; where the lock table is huge, ask by a
    /// manager that holds no lock.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// if manager.acquire("nightly").try_now()?.is_none() {
    ///     eprintln!("not now: {}", manager.holders("nightly").wait()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn holders(&self, key: impl Into<Key>) -> Inquiry {
        Inquiry::new(Arc::clone(&self.inner.drive), key.into())
    }

    /// What somebody should know about the server of the latest session; nothing if all is well.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) {
    /// for warning in manager.warnings() {
    ///     eprintln!("{warning}");
    /// }
    /// # }
    /// ```
    pub fn warnings(&self) -> Vec<Warning> {
        self.inner.drive.warnings()
    }

    /// Closes the manager: every lock's context is done with
    /// [`Cause::ManagerClosed`](crate::Cause::ManagerClosed), every request ends with
    /// [`Error::Closed`], the session is ended and with it every lock on the server, and the
    /// guard's thread is joined. Takes less than a second, even when the server is silent.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").wait()?;
    /// manager.close();
    /// assert!(!lock.is_held());
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.inner.drive.close();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.drive.close();
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}
