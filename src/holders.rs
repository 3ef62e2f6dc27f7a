//! Who holds a key, and who waits for it.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use crate::acquire::{Asking, ask};
use crate::clock::Time;
use crate::context::{Cause, Context};
use crate::error::Error;
use crate::key::Key;
use crate::slots::{Answer, Drive, Reply, Work};

/// A question to the server, from [`Manager::holders`](crate::Manager::holders): nothing happens
/// until it is ended by [`wait`](Inquiry::wait) or `.await`.
///
/// ```no_run
/// # async fn example(manager: distlock::Manager) -> Result<(), distlock::Error> {
/// let blocking = manager.holders("a").wait()?;
/// let awaited = manager.holders("a").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is asked until `wait` or `.await`"]
#[derive(Clone)]
pub struct Inquiry {
    drive: Arc<dyn Drive>,
    key: Key,
    context: Context,
    timeout: Option<Duration>,
}

impl Inquiry {
    pub(crate) fn new(drive: Arc<dyn Drive>, key: Key) -> Self {
        Self { drive, key, context: Context::background(), timeout: None }
    }

    /// The context that ends the waiting for the answer. The background if none is given.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let (ctx, _canceler) = distlock::Context::background().with_cancel();
    /// let holders = manager.holders("a").context(&ctx).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(mut self, context: &Context) -> Self {
        self.context = context.clone();
        self
    }

    /// How long to wait for the answer at the most, from the moment the question is asked.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let a_second = std::time::Duration::from_secs(1);
    /// let holders = manager.holders("a").timeout(a_second).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks, and blocks for the answer: one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] while there is no session, [`Error::Canceled`] when the context was
    /// done or the time was up first, [`Error::Lost`] when the session ended meanwhile,
    /// [`Error::Closed`], [`Error::TooManyRequests`], or what the server says, which touches no
    /// lock.
    ///
    /// # Cancellation
    ///
    /// At once. The server may still answer; nobody is told.
    ///
    /// ```no_run
    /// # fn example(manager: &distlock::Manager) -> Result<(), distlock::Error> {
    /// let holders = manager.holders((7, 42)).wait()?;
    /// for holder in &holders.holders {
    ///     println!("{:?} at {:?}", holder.session.process_id, holder.session.client_address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(self) -> Result<Holders, Error> {
        listed(ask(&*self.drive, Work::Holders(self.key), &self.context, self.deadline()))
    }

    fn deadline(&self) -> Time {
        self.timeout.map_or(Time::NEVER, |timeout| Time::now().after(timeout))
    }
}

impl IntoFuture for Inquiry {
    type Output = Result<Holders, Error>;
    type IntoFuture = Inquiring;

    fn into_future(self) -> Inquiring {
        let deadline = self.deadline();
        let work = Work::Holders(self.key);
        Inquiring { asking: Asking::new(self.drive, work, self.context, deadline) }
    }
}

impl fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry")
            .field("key", &self.key)
            .field("context", &self.context)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The future of [`Inquiry`]: it ends as [`Inquiry::wait`] does. Runs on any executor.
///
/// # Cancellation
///
/// Dropping it at any point leaves nothing behind. The server may still answer; nobody is told.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Inquiring {
    asking: Asking,
}

impl Future for Inquiring {
    type Output = Result<Holders, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.asking).poll(cx).map(listed)
    }
}

fn listed(answer: Answer) -> Result<Holders, Error> {
    match answer? {
        Reply::Holders(holders) => Ok(*holders),
        // What is asked in this way is answered in that way.
        Reply::Granted(_) | Reply::Nothing => Err(Error::Canceled(Cause::Canceled)),
    }
}

/// Who held a key and who waited for it, in the current database, at one moment in the past: the
/// server's lock table as the view `pg_locks` shows it (manual: view-pg-locks). By the time this is
/// read somebody else may hold the key.
///
/// It has sessions, not callers. A manager is one session: it appears once as the holder of a key,
/// however many sharers it has, and once as a waiter, however many of its threads wait. A process
/// whose own threads wait for a key that it holds itself keeps them to itself; they are not here.
/// Who has just got a key, and takes turns with others at it, may be listed as a waiter for 20
/// milliseconds more.
///
/// With the key come the slots of its counted lock ([`Acquire::slots`](crate::Acquire::slots)), and
/// [`Place`] says which is which.
///
/// It prints in one line, for a log; control characters of application names are escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holders {
    /// Who held it: no more than one, unless it is shared or counted. The first 32, by their slots
    /// and then by their process ids.
    pub holders: Vec<Holder>,
    /// Who waited for it, in no particular order, and least of all that of their turns. As many as
    /// the holders leave of 32.
    pub waiters: Vec<Waiter>,
    /// How many held it, also beyond those that are listed.
    pub holder_count: u32,
    /// How many waited for it, also beyond those that are listed.
    pub waiter_count: u32,
}

impl Holders {
    /// Whether there are holders or waiters beyond those that are listed.
    pub fn is_truncated(&self) -> bool {
        let listed = self.holders.len().saturating_add(self.waiters.len());
        let all = u64::from(self.holder_count) + u64::from(self.waiter_count);
        usize::try_from(all).is_ok_and(|all| listed < all)
    }
}

/// A session that held a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Whether it shared the key, or had it alone. Of a slot, `false`.
    pub shared: bool,
    /// What it held.
    pub place: Place,
    /// Who it is.
    pub session: SessionInfo,
}

/// A session that waited for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// Whether it wanted to share the key, or to have it alone, if it waited inside a statement
    /// such as `pg_advisory_lock`. `None`: it is a manager of this library, which has registered to
    /// be notified. How it wants the key is not to be seen. It may also have been about to take the
    /// key, or to leave.
    pub shared: Option<bool>,
    /// What it waited for.
    pub place: Place,
    /// Who it is.
    pub session: SessionInfo,
}

/// What a session holds or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The key itself.
    Key,
    /// This slot of the key's counted lock, from 0 on.
    Slot(u16),
    /// Any slot of it.
    AnySlot,
}

/// What the server tells of a session (manual: monitoring-stats, "pg_stat_activity").
///
/// When the key was acquired is not among it: the server does not keep that. The times here are how
/// long ago something began, by the server's own clock, when it answered; zero if that clock was
/// set back since.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its server process, as in `pg_terminate_backend`. `None`: a prepared transaction, which
    /// keeps its locks without one.
    pub process_id: Option<i32>,
    /// Whether it is the session of this manager.
    pub is_own: bool,
    /// Whether the server did not tell who it is: this role may not see sessions of that one (it is
    /// neither a member of it nor of `pg_read_all_stats`), it is a prepared transaction, or it was
    /// gone already. Then everything below is `None`, but that PostgreSQL tells the application
    /// name of any session.
    pub is_restricted: bool,
    /// What it calls itself: anything. PostgreSQL cuts it to 63 bytes.
    pub application_name: Option<String>,
    /// Where its client is: that of a pooler, if one stands between. `None` over a Unix-domain
    /// socket.
    pub client_address: Option<IpAddr>,
    /// The port of the client.
    pub client_port: Option<u16>,
    /// For how long the session has been there (`backend_start`). A key is held for no longer than
    /// that, and for any shorter time.
    pub connected_for: Option<Duration>,
    /// For how long its current transaction has been open (`xact_start`); `None` if it has none. A
    /// lock of `pg_advisory_xact_lock` is held for no longer than that; which function has taken a
    /// lock is not to be seen.
    pub transaction_for: Option<Duration>,
    /// How long ago its current statement began, or, if it runs none, its latest (`query_start`).
    /// Who waits inside a statement waits for no longer than that.
    pub statement_for: Option<Duration>,
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held by ")?;
        let holders = self.holders.iter().map(|holder| {
            let how = if holder.shared { "shared, " } else { "" };
            (how, holder.place, &holder.session)
        });
        list(f, holders, self.holder_count)?;
        write!(f, "; waited for by ")?;
        let waiters = self.waiters.iter().map(|waiter| ("", waiter.place, &waiter.session));
        list(f, waiters, self.waiter_count)
    }
}

fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    sessions: impl ExactSizeIterator<Item = (&'static str, Place, &'a SessionInfo)>,
    count: u32,
) -> fmt::Result {
    let rest = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(sessions.len());
    if count == 0 {
        return write!(f, "nobody");
    }
    for (number, (how, place, session)) in sessions.enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        write!(f, "{comma}{session} ({how}")?;
        match place {
            Place::Key => write!(f, "the key)")?,
            Place::Slot(slot) => write!(f, "slot {slot})")?,
            Place::AnySlot => write!(f, "any slot)")?,
        }
    }
    if rest > 0 { write!(f, " and {rest} more") } else { Ok(()) }
}

impl fmt::Display for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process_id {
            Some(process_id) => write!(f, "process {process_id}")?,
            None => write!(f, "a prepared transaction")?,
        }
        if let Some(name) = &self.application_name {
            write!(f, " {name:?}")?;
        }
        if let Some(address) = self.client_address {
            write!(f, " at {address}")?;
        }
        if let Some(span) = self.connected_for {
            write!(f, ", connected for {} s", span.as_secs())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> SessionInfo {
        SessionInfo {
            process_id: Some(4711),
            is_own: false,
            is_restricted: false,
            application_name: Some(name.into()),
            client_address: Some([10, 0, 0, 1].into()),
            client_port: Some(5000),
            connected_for: Some(Duration::from_secs(90)),
            transaction_for: None,
            statement_for: None,
        }
    }

    #[test]
    fn it_prints_in_one_line_whatever_the_names_are() {
        let nobody =
            Holders { holders: Vec::new(), waiters: Vec::new(), holder_count: 0, waiter_count: 0 };
        assert_eq!(nobody.to_string(), "held by nobody; waited for by nobody");
        let place = Place::Slot(3);
        let gone = SessionInfo {
            process_id: None,
            application_name: None,
            client_address: None,
            connected_for: None,
            ..session("")
        };
        let some = Holders {
            holders: vec![Holder { shared: true, place: Place::Key, session: session("a\n\"b") }],
            waiters: vec![Waiter { shared: None, place, session: gone }],
            holder_count: 1,
            waiter_count: 3,
        };
        assert_eq!(
            some.to_string(),
            "held by process 4711 \"a\\n\\\"b\" at 10.0.0.1, connected for 90 s (shared, the key); \
             waited for by a prepared transaction (slot 3) and 2 more"
        );
        assert!(some.is_truncated() && !nobody.is_truncated());
    }
}
