//! What is still provably held: the lease, the heartbeat, and the reply deadline. Pure.
//!
//! The server ends a session that it has not heard from for S (`idle_session_timeout`). The last
//! message that it answered was sent by us at `answered`, and it cannot have heard it earlier than
//! that; so it keeps our locks until at least `answered + S`, and we believe in them until
//! `answered + L`, with L + drift + slack < S checked when the configuration is built (invariant
//! I9). The clock starts at the *send*, never at the reply.

use std::time::Duration;

use crate::clock::Time;

/// The times of one session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    times: LeaseTimes,
    /// When the last answered Sync was sent.
    answered: Time,
    /// When the next heartbeat is due, if everything is answered.
    heartbeat_at: Time,
}

/// From the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseTimes {
    /// H: the longest silence on our side while there is a lock or a request.
    pub(crate) heartbeat: Duration,
    /// The longest silence while there is neither. No lease depends on it, only the server's
    /// patience; and an exchange has two wake-ups, so that twice H makes it one in each H.
    pub(crate) idle_heartbeat: Duration,
    /// r: how long the server may take to answer.
    pub(crate) reply_timeout: Duration,
    /// L: how long a lock is believed in after the last answered message was sent.
    pub(crate) lease: Duration,
}

impl Lease {
    /// The lease of a session that began to connect at `began`, before it sent anything.
    pub(crate) fn new(times: LeaseTimes, began: Time) -> Self {
        Self { times, answered: began, heartbeat_at: began.after(times.heartbeat) }
    }

    /// A Sync goes out, with statements or for those who hold or wait.
    pub(crate) fn sent(&mut self, now: Time) {
        self.heartbeat_at = now.after(self.times.heartbeat);
    }

    /// A heartbeat goes out, and there is neither a lock nor a request. Only a session that was
    /// silent for H comes here, so that in the midst of work the next heartbeat stays where the
    /// guard's thread expects it, and nobody has to wake it to tell.
    pub(crate) fn sent_idle(&mut self, now: Time) {
        self.heartbeat_at = now.after(self.times.idle_heartbeat);
    }

    /// A Sync that went out at `mark` was answered.
    pub(crate) fn answered(&mut self, mark: Time) {
        self.answered = self.answered.max(mark);
    }

    /// Until when the server is known to keep the session.
    pub(crate) fn until(&self) -> Time {
        self.answered.after(self.times.lease)
    }

    /// When the next heartbeat is due, if everything is answered.
    pub(crate) fn heartbeat_at(&self) -> Time {
        self.heartbeat_at
    }

    /// When the session is dead, if the Sync of `mark` is not answered by then. A deadline from
    /// its send: no other message of the server puts it off.
    pub(crate) fn overdue_at(&self, mark: Time) -> Time {
        mark.after(self.times.reply_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: LeaseTimes = LeaseTimes {
        heartbeat: Duration::from_secs(2),
        idle_heartbeat: Duration::from_secs(4),
        reply_timeout: Duration::from_secs(3),
        lease: Duration::from_secs(6),
    };

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn the_lease_runs_from_the_send_of_the_last_answered_message() {
        let mut lease = Lease::new(TIMES, at(100));
        lease.sent(at(102));
        assert_eq!(lease.until(), at(106), "not yet answered");
        lease.answered(at(102));
        assert_eq!(lease.until(), at(108), "from the send, whenever the answer came");
        lease.answered(at(101));
        assert_eq!(lease.until(), at(108), "an older answer takes nothing back");
    }

    #[test]
    fn an_unanswered_heartbeat_ends_the_session_before_the_lease_does() {
        let mut lease = Lease::new(TIMES, at(0));
        let beat = lease.heartbeat_at();
        lease.sent(beat);
        assert!(lease.overdue_at(beat) <= lease.until());
    }
}
