//! Leadership: the terms of a candidate, one after the other.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquire;
use crate::context::{Cause, Context};
use crate::error::Error;
use crate::key::Key;
use crate::lock::Lock;
use crate::slots::{Drive, HoldId};
use crate::token::Token;

/// A candidate for leadership, from [`Manager::elect`](crate::Manager::elect): it campaigns
/// whenever it is asked for its next [`Term`], by [`next_term`](Election::next_term),
/// [`next_term_async`](Election::next_term_async) or as an iterator.
///
/// Whoever holds the key is the leader: a term is a held [`Lock`], and there are never two at once
/// where there are never two valid holders.
///
/// ```no_run
/// # fn lead() {}
/// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
/// let (ctx, canceler) = distlock::Context::background().with_cancel();
/// // Somewhere else: canceler.cancel();
/// for term in manager.elect("scheduler").context(&ctx) {
///     match term {
///         Ok(term) => {
///             while term.is_leader() && !term.context().is_done() {
///                 lead();
///             }
///         } // dropped: stepped down, and the next one campaigns
///         Err(error) if error.is_canceled() => break,
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What ends a campaign
///
/// The loss of the session does not, neither while the election waits nor in the midst of a term:
/// the next term is of the next session. What does is the context ([`Error::Canceled`]), the end of
/// the manager ([`Error::Closed`]), a limit, or an error that the server reports for the statement.
///
/// An election does not keep its manager open.
///
/// # One term at a time
///
/// The next term begins after the last one, also for the same candidate: who asks for it while its
/// last [`Term`] is not over waits until it is resigned, dropped or lost, by whichever thread has
/// it. A thread that keeps its own term and asks for the next one waits for itself, until
/// the context ends that.
///
/// # As a stream
///
/// This crate depends on no crate for asynchronous streams. With `futures`:
///
/// ```no_run
/// use distlock::{Election, Error, Term};
/// use futures::stream::{self, Stream, TryStreamExt};
///
/// /// Ends with the first error, as the iterator does.
/// fn terms(election: Election) -> impl Stream<Item = Result<Term, Error>> {
///     stream::try_unfold(election, |mut election| async move {
///         let term = election.next_term_async().await?;
///         Ok(Some((term, election)))
///     })
/// }
///
/// # async fn example(manager: &distlock::Manager) -> Result<(), Error> {
/// let mut terms = std::pin::pin!(terms(manager.elect("scheduler")));
/// while let Some(term) = terms.try_next().await? {
///     println!("elected: {}", term.context().done().await);
/// } // dropped: stepped down, and the next one campaigns
/// # Ok(())
/// # }
/// ```
#[must_use = "nobody campaigns until a term is asked for"]
pub struct Election {
    drive: Arc<dyn Drive>,
    key: Key,
    context: Context,
    fenced: bool,
    settle: Duration,
    /// How many terms there have been.
    terms: u64,
    /// The latest term, wherever it is by now.
    latest: Option<Latest>,
    /// Whether the iterator has come to its end.
    is_over: bool,
}

/// What is known here of the latest term, which somebody else has.
#[derive(Debug)]
struct Latest {
    context: Context,
    hold: Option<HoldId>,
}

impl Election {
    pub(crate) fn new(drive: Arc<dyn Drive>, key: Key) -> Self {
        Self {
            drive,
            key,
            context: Context::background(),
            fenced: false,
            settle: Duration::ZERO,
            terms: 0,
            latest: None,
            is_over: false,
        }
    }

    /// The context that ends the campaign, and that every term's context is a child of. The
    /// background if none is given.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let (ctx, canceler) = distlock::Context::background().with_cancel();
    /// let mut election = manager.elect("scheduler").context(&ctx);
    /// canceler.cancel();
    /// assert!(election.next_term().unwrap_err().is_canceled());
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// With a fencing token for each term, [`Term::token`]; see
    /// [`Acquire::fenced`](crate::Acquire::fenced).
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").fenced().next_term()?;
    /// println!("write with {}", term.token().expect("it is fenced"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn fenced(mut self) -> Self {
        self.fenced = true;
        self
    }

    /// Keeps each term back for `pause` before it is told, so that a leader that was lost cannot
    /// take itself for one any more; see [`Acquire::settle`](crate::Acquire::settle), which also
    /// says how long that takes. A term that is lost in its pause is never told: the campaign goes
    /// on.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let pause = std::time::Duration::from_millis(6_100);
    /// let term = manager.elect("scheduler").settle(pause).next_term()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn settle(mut self, pause: Duration) -> Self {
        self.settle = pause;
        self
    }

    /// What is campaigned for.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) {
    /// assert_eq!(manager.elect("scheduler").key(), distlock::Key::from("scheduler"));
    /// # }
    /// ```
    pub fn key(&self) -> Key {
        self.key
    }

    /// Blocks until this candidate is the leader, for its first term or the next one. While there
    /// is no session this waits for one.
    ///
    /// # Errors
    ///
    /// [`Error::Canceled`] when the context is done, [`Error::Closed`], one of the limits, or what
    /// the server says. It may be asked again after an error.
    ///
    /// # Cancellation
    ///
    /// At once, and without a trace, by the context.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let mut election = manager.elect("scheduler");
    /// let term = election.next_term()?;
    /// println!("elected: {}", term.context().done().wait());
    /// drop(term);
    /// let again = election.next_term()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_term(&mut self) -> Result<Term, Error> {
        if let Some(latest) = &self.latest {
            latest.context.done().wait();
        }
        self.forget_latest();
        loop {
            let campaign = self.campaign().wait();
            if let Some(result) = self.outcome(campaign) {
                return result;
            }
        }
    }

    /// Awaits the same as [`Election::next_term`] blocks for. Runs on any executor.
    ///
    /// # Errors
    ///
    /// As for [`Election::next_term`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind; the next one campaigns anew.
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let mut election = manager.elect("scheduler");
    /// let term = election.next_term_async().await?;
    /// println!("elected: {}", term.context().done().await);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_term_async(&mut self) -> Result<Term, Error> {
        if let Some(latest) = &self.latest {
            latest.context.done().await;
        }
        self.forget_latest();
        loop {
            let campaign = self.campaign().await;
            if let Some(result) = self.outcome(campaign) {
                return result;
            }
        }
    }

    fn campaign(&self) -> Acquire {
        let campaign = Acquire::new(Arc::clone(&self.drive), self.key);
        let campaign = campaign.context(&self.context).settle(self.settle);
        if self.fenced { campaign.fenced() } else { campaign }
    }

    /// What a campaign ended with; `None` if it has to go on.
    fn outcome(&mut self, campaign: Result<Lock, Error>) -> Option<Result<Term, Error>> {
        match campaign {
            Ok(lock) => {
                let (context, hold) = (lock.context().clone(), lock.hold());
                self.latest = Some(Latest { context, hold });
                self.terms += 1;
                Some(Ok(Term { lock, number: self.terms }))
            }
            // No session for the moment: the next request waits for one.
            Err(error) if error.is_session_lost() || error.is_unavailable() => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// The latest term is over, or the context is done. A term that was only doubted, when the
    /// server was not heard from within the lease, may still have its lock, and somebody may still
    /// have the term: without this release it would be waited for in vain.
    fn forget_latest(&mut self) {
        let Some(Latest { context, hold }) = self.latest.take() else { return };
        match (context.fate(), hold) {
            (Some(Cause::LeaseExpired), Some(hold)) => {
                self.drive.slots().release([hold]);
                self.drive.kick();
            }
            // Only the requester's context is done. It may be asked again, and waits again.
            (None, _) => self.latest = Some(Latest { context, hold }),
            _ => {}
        }
    }
}

impl Iterator for Election {
    type Item = Result<Term, Error>;

    /// Blocks as [`Election::next_term`]. An error is the last item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let term = self.next_term();
        self.is_over = term.is_err();
        Some(term)
    }
}

impl FusedIterator for Election {}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election")
            .field("key", &self.key)
            .field("context", &self.context)
            .field("fenced", &self.fenced)
            .field("settle", &self.settle)
            .field("terms", &self.terms)
            .field("latest", &self.latest)
            .finish_non_exhaustive()
    }
}

/// A term of leadership, from an [`Election`]: dropping it steps down.
///
/// Its [`context`](Term::context) is done as soon as the term is over: resigned, dropped, or lost;
/// or when the context of the election is done. Whoever leads looks at it, or waits on it, and
/// stops in time. Once lost, a term stays lost; the next one has to be asked for.
///
/// ```no_run
/// # fn lead() {}
/// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
/// let mut election = manager.elect("scheduler");
/// let term = election.next_term()?;
/// while term.is_leader() {
///     lead();
/// #   break;
/// }
/// term.resign()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a term ends when it is dropped"]
pub struct Term {
    lock: Lock,
    number: u64,
}

impl Term {
    /// The context of the leader's work: done when the term is over, or when the context of the
    /// election is done.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term()?;
    /// let context = term.context().clone();
    /// std::thread::spawn(move || println!("stop: {}", context.done().wait()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(&self) -> &Context {
        self.lock.context()
    }

    /// Whether this is provably the leader at this moment; see [`Lock::is_held`]. It may be so
    /// while the context of the election is done already: the lock stays until the term is dropped
    /// or resigned, so that a leader that is slow to stop is still alone.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term()?;
    /// if term.is_leader() {
    ///     // the next step, which takes far less than the lease
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_leader(&self) -> bool {
        self.lock.is_held()
    }

    /// For how long this is provably the leader if the server is not heard from any more; zero once
    /// the term is over. See [`Lock::remaining`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term()?;
    /// if term.remaining() > std::time::Duration::from_secs(1) {
    ///     // a step that takes up to a second
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn remaining(&self) -> Duration {
        self.lock.remaining()
    }

    /// Which term of its [`Election`] this is, counted from 1. Local to the campaign: other
    /// candidates, and the next `Election` for the same key, count their own. What orders the terms
    /// of all candidates is [`Term::token`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let mut election = manager.elect("scheduler");
    /// assert_eq!(election.next_term()?.number(), 1);
    /// assert_eq!(election.next_term()?.number(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The fencing token, larger than that of every earlier fenced term of any candidate; `None` if
    /// the election was not made [`fenced`](Election::fenced). See [`Lock::token`].
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").fenced().next_term()?;
    /// assert!(term.token().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn token(&self) -> Option<Token> {
        self.lock.token()
    }

    /// The lock that makes this the leader.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term()?;
    /// assert_eq!(term.lock().key(), distlock::Key::from("scheduler"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Steps down, and waits for the server's answer; see [`Lock::unlock`]. Dropping the term steps
    /// down as well, without waiting; [`Term::resign_async`] is this for `.await`.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the term was lost, before or during the release. It is over in any
    /// case.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term()?;
    /// if let Err(error) = term.resign() {
    ///     eprintln!("somebody else may have led too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn resign(self) -> Result<(), Error> {
        self.lock.unlock()
    }

    /// Awaits the same as [`Term::resign`] blocks for. Runs on any executor.
    ///
    /// # Errors
    ///
    /// As for [`Term::resign`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at any point, also before its first poll, steps down; see
    /// [`Lock::unlock_async`].
    ///
    /// ```no_run
    /// # async fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let term = manager.elect("scheduler").next_term_async().await?;
    /// if let Err(error) = term.resign_async().await {
    ///     eprintln!("somebody else may have led too: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resign_async(self) -> Result<(), Error> {
        self.lock.unlock_async().await
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term").field("number", &self.number).field("lock", &self.lock).finish()
    }
}
