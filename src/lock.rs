//! A held lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::{self, Asking};
use crate::clock::Time;
use crate::context::{Cause, Context};
use crate::error::{Error, Outcome};
use crate::key::Key;
use crate::slots::{Answer, Drive, Grant, HoldId, Work};
use crate::token::Token;

/// A held lock: dropping it releases it.
///
/// Its [`context`](Lock::context) is done as soon as the lock is released or lost, or the context
/// it was acquired with is done. Whoever works under the lock looks at it, or waits on it, and
/// stops in time. Once lost, a lock stays lost (invariant I8): the manager reconnects, but never
/// acquires anything again on its own.
///
/// A lock does not keep its [`Manager`](crate::Manager) open: when the last clone of that is
/// dropped, every lock of it is lost ([`Cause::ManagerClosed`]). Whoever returns a lock to be used
/// elsewhere sees to it that the manager lives longer; there is an example at the manager.
///
/// ```no_run
/// # fn main() -> Result<(), distlock::Error> {
/// let manager = distlock::Manager::connect("postgres://app@db.internal/prod")?;
/// let lock = manager.lock(&distlock::Context::background(), "invoice:42")?;
/// while lock.is_held() {
///     // one more step of the work
/// #   break;
/// }
/// lock.unlock()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a lock is released when it is dropped"]
pub struct Lock {
    key: Key,
    /// It knows the rest, and whose the lock is. The background once it was let go of.
    context: Context,
    /// [`HoldId::NONE`] once there is nothing to release.
    hold: HoldId,
}

impl Lock {
    pub(crate) fn new(key: Key, grant: Grant) -> Self {
        let Grant { hold, context, .. } = grant;
        Self { key, context, hold }
    }

    /// What is locked.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("job").wait()?;
    /// assert_eq!(lock.key(), distlock::Key::from("job"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn key(&self) -> Key {
        self.key
    }

    /// The fencing token; `None` if the lock was not asked for with
    /// [`Acquire::fenced`](crate::Acquire::fenced).
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("ledger").fenced().wait()?;
    /// if let Some(token) = lock.token() {
    ///     println!("UPDATE ledger SET token = {} WHERE token <= {0}", token.to_i64()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn token(&self) -> Option<Token> {
        self.context.token()
    }

    /// Makes an exclusive lock a shared one, and waits for the server's answer: one round trip.
    /// Nobody else has the key alone at any moment in between. A lock that is shared already, or
    /// counted, stays what it is. The way back is to release, and to ask again.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the lock was lost; [`Error::TooManyRequests`] or [`Error::QueuedFor`],
    /// and the lock stays exclusive.
    ///
    /// # Cancellation
    ///
    /// It takes no longer than the reply timeout, and cannot be cancelled. To await it instead:
    /// [`Lock::downgrade_async`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let mut lock = manager.acquire("table").wait()?;
    /// // ... write, alone ...
    /// lock.downgrade()?;
    /// // ... read, with other readers ...
    /// # Ok(())
    /// # }
    /// ```
    pub fn downgrade(&mut self) -> Result<(), Error> {
        let Some(work) = self.downgrading()? else { return Ok(()) };
        let drive = self.drive().ok_or_else(closed)?;
        acquire::ask(&*drive, work, &Context::background(), Time::NEVER).map(drop)
    }

    /// Awaits the same as [`Lock::downgrade`] blocks for. Runs on any executor.
    ///
    /// # Errors
    ///
    /// As for [`Lock::downgrade`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is asked before the first poll. Dropping the future at any point leaves the lock
    /// held, which is only borrowed: shared, if the server was asked already, or exclusive still;
    /// nobody else has the key alone in either case. To know that it is shared, call this again; to
    /// be rid of it, drop the lock.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let mut lock = manager.acquire("table").await?;
    /// // ... write, alone ...
    /// lock.downgrade_async().await?;
    /// // ... read, with other readers ...
    /// # Ok(())
    /// # }
    /// ```
    pub async fn downgrade_async(&mut self) -> Result<(), Error> {
        let Some(work) = self.downgrading()? else { return Ok(()) };
        let drive = self.drive().ok_or_else(closed)?;
        Asking::new(drive, work, Context::background(), Time::NEVER).await.map(drop)
    }

    /// What a downgrade asks of the guard; `None` if there is nothing to ask.
    fn downgrading(&self) -> Result<Option<Work>, Error> {
        match self.context.fate() {
            Some(cause) => Err(Error::Lost { cause, outcome: Outcome::NotAcquired }),
            None => Ok(self.hold().map(Work::Downgrade)),
        }
    }

    /// The context of the work under this lock: done when the lock is released or lost, or when
    /// the context it was acquired with is done.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").wait()?;
    /// let context = lock.context().clone();
    /// std::thread::spawn(move || println!("stop: {}", context.done().wait()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Whether the lock is provably held at this moment: neither released nor lost, and the server
    /// was heard from within the lease. The clock is looked at here and now, in the calling
    /// thread, so that the answer is right even if the process was stopped a moment ago.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").wait()?;
    /// if lock.is_held() {
    ///     // the next step, which takes far less than the lease
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// For how long the lock is provably held if the server is not heard from any more; zero once
    /// it is released or lost. While all is well it never gets below the lease less the heartbeat
    /// and one round trip.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").wait()?;
    /// if lock.remaining() > std::time::Duration::from_secs(1) {
    ///     // a step that takes up to a second
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn remaining(&self) -> Duration {
        self.context.hold_remaining()
    }

    /// Releases the lock and waits for the server's answer. Dropping the lock releases it as well,
    /// without waiting; [`Lock::unlock_async`] is this for `.await`.
    ///
    /// Takes one round trip, and no longer than the reply timeout: it cannot be cancelled. Returns
    /// at once when [`Config::release_on_cancel`](crate::Config::release_on_cancel) has released
    /// the lock already.
    /// When [`Config::max_requests`](crate::Config::max_requests) calls are under way already, it
    /// does not wait for the answer: the lock is released as if it was dropped. Should the release
    /// fail on the server while another caller of this manager asks for the key again, it returns
    /// before it is made sure that the key was let go of; that is done when nobody here has it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the lock was lost, before or during the release. It is not held any
    /// more in any case.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").wait()?;
    /// if let Err(error) = lock.unlock() {
    ///     eprintln!("somebody else may have been at it too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn unlock(mut self) -> Result<(), Error> {
        let Some(mut leaving) = self.begin_unlock()? else { return Ok(()) };
        let background = Context::background();
        let answer = acquire::ask(&**leaving.drive(), leaving.work(), &background, Time::NEVER);
        leaving.hear(answer)
    }

    /// Awaits the same as [`Lock::unlock`] blocks for. Runs on any executor.
    ///
    /// # Errors
    ///
    /// As for [`Lock::unlock`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point, also before its first poll, releases the lock, once: what
    /// was not sent yet goes to the server as if the lock was dropped. Only the answer is not
    /// waited for.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let lock = manager.acquire("a").await?;
    /// if let Err(error) = lock.unlock_async().await {
    ///     eprintln!("somebody else may have been at it too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unlock_async(mut self) -> Result<(), Error> {
        let Some(mut leaving) = self.begin_unlock()? else { return Ok(()) };
        // Dropped in here, the request is withdrawn first; then `leaving` releases what is left.
        let (drive, background) = (Arc::clone(leaving.drive()), Context::background());
        let answer = Asking::new(drive, leaving.work(), background, Time::NEVER).await;
        leaving.hear(answer)
    }

    /// Ends the context. Gives what the guard is to release; `None` if it is released already.
    pub(crate) fn begin_unlock(&mut self) -> Result<Option<Leaving>, Error> {
        match self.context.fate() {
            None => {}
            // With `release_on_cancel`, the requester's context has released it already.
            Some(Cause::Released) => return Ok(None),
            Some(cause) => return Err(Error::Lost { cause, outcome: Outcome::NotAcquired }),
        }
        let Some(hold) = self.take_hold() else { return Ok(None) };
        let drive = self.drive().ok_or_else(closed)?;
        let mut context = Context::background();
        if drive.slots().releases_on_cancel() {
            // There, ending the context is a release of its own, which would overtake this one and
            // not wait for the server: so it is left to the guard to end it.
            std::mem::swap(&mut context, &mut self.context);
        } else {
            self.let_go();
        }
        Ok(Some(Leaving { drive, hold, context }))
    }

    /// The guard that holds it, as long as there is one and the context was not let go of.
    pub(crate) fn drive(&self) -> Option<Arc<dyn Drive>> {
        self.context.drive()
    }

    /// Where the lock is in the guard's table, to release it from elsewhere.
    pub(crate) fn hold(&self) -> Option<HoldId> {
        (self.hold != HoldId::NONE).then_some(self.hold)
    }

    /// Ends the context, and leaves in `hold` what there is to be released.
    pub(crate) fn end(&mut self) {
        // A lock that the guard has seen lost is not known there any more. A lease that ran out is
        // only our own doubt.
        if self.context.fate().is_some_and(|cause| cause != Cause::LeaseExpired) {
            self.hold = HoldId::NONE;
        }
        self.let_go();
    }

    /// Takes what is to be released once [`Lock::end`] was called.
    pub(crate) fn take_hold(&mut self) -> Option<HoldId> {
        take(&mut self.hold)
    }

    /// Ends the context. Its last clone but the guard's is given up here, before the release is
    /// queued, so that the guard finds it unshared and uses it again.
    fn let_go(&mut self) {
        self.context.release();
        self.context = Context::background();
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Asked for before the context is let go of.
        let drive = self.drive();
        self.end();
        if let Some(drive) = drive {
            if drive.slots().release(self.take_hold()) {
                drive.kick_release();
            }
        }
    }
}

/// What has to be released of a lock, until the server's answer to that is there. Dropped before,
/// it is released without an answer.
pub(crate) struct Leaving {
    drive: Arc<dyn Drive>,
    hold: HoldId,
    /// Of a lock that is released when its context is done: the guard ends it.
    context: Context,
}

impl Leaving {
    pub(crate) fn drive(&self) -> &Arc<dyn Drive> {
        &self.drive
    }

    /// What the guard is asked for.
    pub(crate) fn work(&self) -> Work {
        Work::Unlock(self.hold)
    }

    /// What the guard's answer means.
    pub(crate) fn hear(&mut self, answer: Answer) -> Result<(), Error> {
        match answer {
            // Without a slot to wait in it is released without an answer, as if dropped.
            Err(Error::TooManyRequests { .. }) => Ok(()),
            Err(Error::Lost { .. }) if self.context.fate() == Some(Cause::Released) => Ok(()),
            answer => {
                self.hold = HoldId::NONE;
                answer.map(drop)
            }
        }
    }

    /// Whether it is still to be released.
    pub(crate) fn is_held(&self) -> bool {
        self.hold != HoldId::NONE
    }

    /// Takes what is left to be released.
    pub(crate) fn take_hold(&mut self) -> Option<HoldId> {
        // Given up before the release is queued, as by `Lock::let_go`.
        self.context = Context::background();
        take(&mut self.hold)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let hold = self.take_hold();
        if self.drive.slots().release(hold) {
            self.drive.kick_release();
        }
    }
}

fn take(hold: &mut HoldId) -> Option<HoldId> {
    let taken = std::mem::replace(hold, HoldId::NONE);
    (taken != HoldId::NONE).then_some(taken)
}

/// The manager is gone, and with it the lock.
fn closed() -> Error {
    Error::Lost { cause: Cause::ManagerClosed, outcome: Outcome::NotAcquired }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("key", &self.key).field("context", &self.context).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process may hold many thousands.
    #[test]
    fn a_lock_is_small() {
        assert!(size_of::<Lock>() <= 32, "{}", size_of::<Lock>());
    }
}
