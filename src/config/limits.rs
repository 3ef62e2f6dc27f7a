//! The setters of a [`Config`] about what a manager may do: proxies, times and limits. They accept
//! everything: `check` looks at the whole.

use std::time::Duration;

use super::{Config, Proxy};

impl Config {
    /// Whether a pooler or proxy may stand between that keeps each of its clients on one server
    /// process. Default: [`Proxy::None`], the manager refuses to work through any.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Whether a second, short-lived connection tests that it cannot take a lock that the session
    /// has. It is made when an address is connected to for the first time, and with
    /// [`Proxy::SessionAffine`] every time, with the same credentials, so that the role needs a
    /// CONNECTION LIMIT of two at least. Default: `true`.
    ///
    /// Without it, a pooler that shares server processes and was said to be none such, a proxy that
    /// answers for the server, or an engine whose locks are none may go unnoticed.
    #[must_use]
    pub fn witness(mut self, witness: bool) -> Self {
        self.witness = witness;
        self
    }

    /// How long the session is silent before it shows the server that it lives (H); up to twice as
    /// long while the manager holds no lock and waits for none. From 10 ms;
    /// H + [`reply_timeout`](Self::reply_timeout) is at most the [`lease`](Self::lease). Default:
    /// 2 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// How long an answer of the server may take before the session is given up (r). From 10 ms,
    /// and less than the [`lease`](Self::lease). Default: 3 s.
    #[must_use]
    pub fn reply_timeout(mut self, reply_timeout: Duration) -> Self {
        self.reply_timeout = reply_timeout;
        self
    }

    /// How long after sending the last message that the server answered the locks count as held
    /// (L). With 0.1 % for the drift of the clocks and 50 ms for the slack it must end before
    /// [`server_timeout`](Self::server_timeout). Default: 6 s.
    ///
    /// The four times go together. To learn of a lost server within a second:
    ///
    /// ```
    /// use std::time::Duration;
    /// # use distlock::Config;
    ///
    /// let config = Config::new()
    ///     .user("app")
    ///     .heartbeat(Duration::from_millis(300))
    ///     .reply_timeout(Duration::from_millis(600))
    ///     .lease(Duration::from_millis(1000))
    ///     .server_timeout(Duration::from_millis(2000));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long the server waits for a silent session before it frees its locks (S, the
    /// session's `idle_session_timeout`), in whole milliseconds. At most 24 h. Default: 10 s.
    ///
    /// Servers before PostgreSQL 14 do not have it: there a process that hangs keeps its locks
    /// until it goes on or ends.
    #[must_use]
    pub fn server_timeout(mut self, server_timeout: Duration) -> Self {
        self.server_timeout = server_timeout;
        self
    }

    /// How many locks the manager holds at most, from 1 to 1,000,000. Each one takes a place in the
    /// server's lock table, which all sessions share; waiters take more places there, which
    /// [`max_waiters`](Self::max_waiters) bounds. Default: 1,024.
    ///
    /// A request counts as well while the server is asked, since it may be granted. So with
    /// `max_locks` locks held a request is refused with
    /// [`Error::TooManyLocks`](crate::Error::TooManyLocks) even if it would only wait, and one that
    /// waits for a key of another process ends with that if there is no place when it is its turn
    /// to try. Have a few places more than are ever held.
    #[must_use]
    pub fn max_locks(mut self, max_locks: u32) -> Self {
        self.max_locks = max_locks;
        self
    }

    /// How many calls may be under way at once, from 1 to 1,000,000. Default: 1,024.
    #[must_use]
    pub fn max_requests(mut self, max_requests: u32) -> Self {
        self.max_requests = max_requests;
        self
    }

    /// How many calls may wait for a lock that is held, here or by another process, up to
    /// 1,000,000; with 0, nobody waits. Default: 1,024.
    ///
    /// Each key that somebody here waits for takes up to two places in the server's lock table, by
    /// which the holders know of the waiter. So a manager takes `max_locks` and twice `max_waiters`
    /// places at the most; [`Manager::warnings`](crate::Manager::warnings) tells when that is more
    /// than half of them.
    #[must_use]
    pub fn max_waiters(mut self, max_waiters: u32) -> Self {
        self.max_waiters = max_waiters;
        self
    }

    /// How long the server's answers may take for a poll of a future to wait for them, up to 1 ms;
    /// with zero, none does. Default: 100 us.
    ///
    /// A future that goes to sleep is woken by the guard's thread, by way of the executor, which
    /// takes longer than a server does that is near. So while a manager has no more than one
    /// request under way, a poll waits for the answer itself, without using the processor, and
    /// after every fourth it lets other tasks run first. If the server takes longer than this, the
    /// poll goes to sleep after all, within a few milliseconds, and the next requests do so at
    /// once: 2 of them, twice as many each time this happens in a row, up to 1,024. Zero is for
    /// executors whose other tasks cannot spare that.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Whether cancelling a lock's context also releases the lock in the database at once.
    ///
    /// Default: `false`, the database lock stays until the holder lets go of it, so that a holder
    /// that is slow to stop is still alone.
    #[must_use]
    pub fn release_on_cancel(mut self, release_on_cancel: bool) -> Self {
        self.release_on_cancel = release_on_cancel;
        self
    }
}
