//! Several held locks that are held, lost and released together.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{AskedBy, Batch};
use crate::clock::Time;
use crate::context::Context;
use crate::error::Error;
use crate::key::Key;
use crate::lock::{Leaving, Lock};
use crate::slots::Answer;

/// Locks that were acquired together, by [`Manager::acquire_all`](crate::Manager::acquire_all):
/// dropping it releases all of them.
///
/// They are all in one session of the manager, and lost together. There is at least one, and each
/// key is in it once, in the order of [`Key`].
///
/// ```no_run
/// # fn step() {}
/// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
/// let set = manager.acquire_all(["account:1", "account:2"]).wait()?;
/// while !set.context().is_done() {
///     step();
/// #   break;
/// }
/// set.unlock()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the locks are released when the set is dropped"]
pub struct LockSet {
    held: Held,
    context: Context,
}

impl LockSet {
    pub(crate) fn new(held: Held) -> Self {
        let context = Context::joint(held.locks.iter().map(Lock::context));
        Self { held, context }
    }

    /// What is locked, in the order of [`Key`].
    ///
    /// ```no_run
    /// # use distlock::Key;
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all([7, 3, 7]).wait()?;
    /// assert_eq!(set.keys().collect::<Vec<Key>>(), [Key::Bigint(3), Key::Bigint(7)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Key> + DoubleEndedIterator + '_ {
        self.held.locks.iter().map(Lock::key)
    }

    /// The context of the work under the locks: done as soon as one of them is released or lost,
    /// or the context they were acquired with is done. Each lock also has
    /// [its own](Lock::context).
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all(["a", "b"]).wait()?;
    /// let context = set.context().clone();
    /// std::thread::spawn(move || println!("stop: {}", context.done().wait()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether all of the locks are provably held at this moment; see [`Lock::is_held`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all(["a", "b"]).wait()?;
    /// if set.is_held() {
    ///     // the next step, which takes far less than the lease
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// For how long all of the locks are provably held if the server is not heard from any more;
    /// zero once one of them is released or lost. See [`Lock::remaining`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all(["a", "b"]).wait()?;
    /// if set.remaining() > std::time::Duration::from_secs(1) {
    ///     // a step that takes up to a second
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn remaining(&self) -> Duration {
        self.held.locks.iter().map(Lock::remaining).min().unwrap_or(Duration::ZERO)
    }

    /// How many locks there are; one at least.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// assert_eq!(manager.acquire_all(["a", "b", "a"]).wait()?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn len(&self) -> usize {
        self.held.locks.len()
    }

    /// Whether there is no lock in it: never, since a set without keys is not granted
    /// ([`Error::NoKeys`]).
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// assert!(!manager.acquire_all(["a"]).wait()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.held.locks.is_empty()
    }

    /// The locks, in the order of their keys. To have them one by one, turn the set into a
    /// `Vec<Lock>` or an iterator by value.
    ///
    /// ```no_run
    /// # use distlock::{Error, Lock};
    /// # fn example(manager: &distlock::Manager) -> Result<(), Error> {
    /// let set = manager.acquire_all(["a", "b"]).wait()?;
    /// assert!(set.iter().all(Lock::is_held));
    /// let locks: Vec<Lock> = set.into();
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> std::slice::Iter<'_, Lock> {
        self.held.locks.iter()
    }

    /// Releases all of the locks, and waits for the server's answers: one round trip for all of
    /// them together, as far as a session has room for them. Dropping the set releases them as
    /// well, without waiting; [`LockSet::unlock_async`] is this for `.await`.
    ///
    /// Takes no longer than the reply timeout: it cannot be cancelled. When fewer than
    /// [`LockSet::len`] of the [`Config::max_requests`](crate::Config::max_requests) calls are
    /// free, it does not wait for the answers: the locks are released as if the set was dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the locks were lost, before or during the release. None of them is held
    /// any more in any case.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all(["a", "b"]).wait()?;
    /// if let Err(error) = set.unlock() {
    ///     eprintln!("somebody else may have been at it too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn unlock(mut self) -> Result<(), Error> {
        let mut unlocking = self.held.unlock(AskedBy::Thread);
        let background = Context::background();
        // The background is never done, and each request is answered.
        while let Some(Ok(Some(answer))) =
            unlocking.batch.as_mut().map(|batch| batch.wait(&background, Time::NEVER))
        {
            unlocking.hear(answer);
        }
        unlocking.result()
    }

    /// Awaits the same as [`LockSet::unlock`] blocks for. Runs on any executor.
    ///
    /// # Errors
    ///
    /// As for [`LockSet::unlock`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point, also before its first poll, releases all of the locks,
    /// each once: what was not sent yet goes to the server as if the set was dropped. Only the
    /// answers are not waited for.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let set = manager.acquire_all(["a", "b"]).await?;
    /// if let Err(error) = set.unlock_async().await {
    ///     eprintln!("somebody else may have been at it too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unlock_async(mut self) -> Result<(), Error> {
        // Dropped in here, the requests are withdrawn first; then what is left is released.
        let mut unlocking = self.held.unlock(AskedBy::Task);
        let background = Context::background();
        while let Some(batch) = &mut unlocking.batch {
            let answer = poll_fn(|cx| batch.poll(cx, &background, Time::NEVER)).await;
            let Ok(Some(answer)) = answer else { break };
            unlocking.hear(answer);
        }
        unlocking.result()
    }
}

impl fmt::Debug for LockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<Key> = self.keys().collect();
        f.debug_struct("LockSet").field("keys", &keys).field("context", &self.context).finish()
    }
}

impl From<LockSet> for Vec<Lock> {
    fn from(mut set: LockSet) -> Self {
        std::mem::take(&mut set.held.locks)
    }
}

impl IntoIterator for LockSet {
    type Item = Lock;
    type IntoIter = std::vec::IntoIter<Lock>;

    fn into_iter(self) -> Self::IntoIter {
        Vec::from(self).into_iter()
    }
}

impl<'a> IntoIterator for &'a LockSet {
    type Item = &'a Lock;
    type IntoIter = std::slice::Iter<'a, Lock>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Locks that are released together when it is dropped: all releases are queued before the queue is
/// looked at.
#[derive(Debug, Default)]
pub(crate) struct Held {
    locks: Vec<Lock>,
}

impl Held {
    /// None, with room for so many.
    pub(crate) fn with_room(count: usize) -> Self {
        Self { locks: Vec::with_capacity(count) }
    }

    pub(crate) fn push(&mut self, lock: Lock) {
        self.locks.push(lock);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.locks.append(&mut other.locks);
    }

    pub(crate) fn locks(&self) -> &[Lock] {
        &self.locks
    }

    /// Asks for the release of all of them in one batch.
    fn unlock(&mut self, asked_by: AskedBy) -> Unlocking {
        let mut result = Ok(());
        let mut begun = VecDeque::with_capacity(self.locks.len());
        for lock in &mut self.locks {
            match lock.begin_unlock() {
                Ok(Some(leaving)) => begun.push_back(leaving),
                Ok(None) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        let drive = begun.front().map(|leaving| Arc::clone(leaving.drive()));
        let mut unlocking = Unlocking { batch: None, begun, unanswered: Vec::new(), result };
        let Some(drive) = drive else { return unlocking };
        let works = unlocking.begun.iter().map(Leaving::work);
        match Batch::submit(&drive, works, &Context::background(), asked_by) {
            Ok(batch) => unlocking.batch = Some(batch),
            Err(error) => {
                (0..unlocking.begun.len()).for_each(|_| unlocking.hear(Err(error.clone())))
            }
        }
        unlocking
    }
}

/// The release of a set under way. Dropped before its end, it releases what is left, together.
struct Unlocking {
    /// None if nothing could be asked.
    batch: Option<Batch>,
    /// Whose answers are yet to come, in their order.
    begun: VecDeque<Leaving>,
    /// Those that will get none, but are to be released.
    unanswered: Vec<Leaving>,
    result: Result<(), Error>,
}

impl Unlocking {
    /// Takes the next answer; the first error is the set's.
    fn hear(&mut self, answer: Answer) {
        let Some(mut leaving) = self.begun.pop_front() else { return };
        let ended = leaving.hear(answer);
        if leaving.is_held() {
            self.unanswered.push(leaving);
        }
        if self.result.is_ok() {
            self.result = ended;
        }
    }

    fn result(mut self) -> Result<(), Error> {
        std::mem::replace(&mut self.result, Ok(()))
    }
}

impl Drop for Unlocking {
    fn drop(&mut self) {
        // The requests are withdrawn before what they ask for is done without them.
        self.batch = None;
        let mut left: Vec<Leaving> =
            self.unanswered.drain(..).chain(self.begun.drain(..)).collect();
        let Some(drive) = left.first().map(|leaving| Arc::clone(leaving.drive())) else { return };
        if drive.slots().release(left.iter_mut().filter_map(Leaving::take_hold)) {
            drive.kick_release();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Asked for before the contexts are let go of.
        let drive = self.locks.iter().find_map(Lock::drive);
        // Ending a context is foreign code: it comes before the queue's lock, under which the
        // releases become one batch.
        for lock in &mut self.locks {
            lock.end();
        }
        let Some(drive) = drive else { return };
        if drive.slots().release(self.locks.iter_mut().filter_map(Lock::take_hold)) {
            drive.kick_release();
        }
    }
}
