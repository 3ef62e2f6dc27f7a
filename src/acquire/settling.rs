//! A lock that is granted, and kept back until whoever lost it before cannot believe in it any
//! more.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{self, Poll};

use crate::clock::Time;
use crate::context::{Cause, DoneFuture};
use crate::error::{Error, Outcome};
use crate::lock::Lock;
use crate::timer::{self, Alarm};

/// Blocks until the lock may be told.
pub(super) fn wait(lock: Lock, until: Time, deadline: Time) -> Result<Lock, Error> {
    if until > Time::ZERO {
        let span = until.min(deadline).since(Time::now());
        // Done or not, what has become of it is looked at below.
        let _ = lock.context().done().wait_timeout(span);
    }
    told(lock, until, deadline)
}

/// The future of [`wait`].
#[derive(Debug)]
pub(super) struct Settling {
    lock: Option<Lock>,
    until: Time,
    deadline: Time,
    done: Option<DoneFuture>,
    alarm: Option<Alarm>,
}

impl Settling {
    pub(super) fn new(lock: Lock, until: Time, deadline: Time) -> Self {
        Self { lock: Some(lock), until, deadline, done: None, alarm: None }
    }

    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Lock, Error>> {
        let over = || Poll::Ready(Err(Error::Canceled(Cause::Canceled)));
        let Some(lock) = &self.lock else { return over() };
        if self.until > Time::ZERO {
            let end = self.until.min(self.deadline);
            let done = self.done.get_or_insert_with(|| lock.context().done().into_future());
            let is_done = Pin::new(done).poll(cx).is_ready();
            if !is_done && Time::now() < end {
                self.alarm = timer::wake_at(end, cx.waker());
                return Poll::Pending;
            }
        }
        (self.done, self.alarm) = (None, None);
        let Some(lock) = self.lock.take() else { return over() };
        Poll::Ready(told(lock, self.until, self.deadline))
    }
}

/// The lock, if nothing has happened to it meanwhile; else it is released.
fn told(lock: Lock, until: Time, deadline: Time) -> Result<Lock, Error> {
    if until == Time::ZERO {
        return Ok(lock);
    }
    if let Some(cause) = lock.context().err() {
        return Err(match lock.context().fate() {
            Some(cause) => Error::Lost { cause, outcome: Outcome::NotAcquired },
            None => Error::Canceled(cause),
        });
    }
    if Time::now() < until && Time::now() >= deadline {
        return Err(Error::Canceled(Cause::DeadlineExceeded));
    }
    Ok(lock)
}
