//! Several requests of one caller that are put to the guard together, so that their statements go
//! out together, and are answered in their order. By blocking or by polling; without a word on what
//! the answers mean.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::acquire::{gave_up, park_until};
use crate::clock::Time;
use crate::context::{Cause, Context, WatchKey};
use crate::error::Error;
use crate::slots::{Answer, Drive, Reply, Request, Ticket, Waiter, Work};
use crate::sync::thread;
use crate::timer::{self, Alarm};

/// Requests under way. Dropping it withdraws those whose answers were not taken, and releases what
/// was granted to them.
pub(crate) struct Batch {
    drive: Arc<dyn Drive>,
    /// What is not answered yet, in the order of the requests.
    tickets: VecDeque<Ticket>,
    vigil: Vigil,
}

impl Batch {
    /// Queues all of the requests, or none of them, with nothing else in between. Whoever looks at
    /// the queue next takes them all: one write, one Sync, as far as the session has room for them.
    ///
    /// # Errors
    ///
    /// When there are not enough free slots, or the manager is closed.
    pub(crate) fn submit(
        drive: &Arc<dyn Drive>,
        works: impl Iterator<Item = Work>,
        context: &Context,
        asked_by: AskedBy,
    ) -> Result<Self, Error> {
        let requests = works.map(|work| {
            let request = Request { work, context: context.clone() };
            let waiter = match asked_by {
                AskedBy::Thread => Some(Waiter::Thread(thread::current())),
                // Each one gets the task's waker when it is its turn to be waited for.
                AskedBy::Task => None,
            };
            (request, waiter)
        });
        let tickets = drive.slots().submit_all(requests.collect())?;
        if asked_by == AskedBy::Task {
            drive.kick();
        }
        Ok(Self { drive: Arc::clone(drive), tickets, vigil: Vigil::default() })
    }

    /// Blocks for the next answer, and works for the guard meanwhile where nobody else does; `None`
    /// when there are no more.
    ///
    /// # Errors
    ///
    /// Why it gave up: `context` is done, or it is later than `deadline`. An answer that is there
    /// already comes first.
    pub(crate) fn wait(
        &mut self,
        context: &Context,
        deadline: Time,
    ) -> Result<Option<Answer>, Cause> {
        let Some(ticket) = self.tickets.front().copied() else { return Ok(None) };
        if let Some(answer) = self.take(ticket) {
            return Ok(Some(answer));
        }
        let drive = Arc::clone(&self.drive);
        let watch = context.watch(drive.poker(ticket));
        let result = loop {
            if let Some(answer) = self.take(ticket) {
                break Ok(Some(answer));
            }
            if let Some(cause) = gave_up(context, deadline) {
                break Err(cause);
            }
            let limit = deadline.min(context.certain_until());
            drive.drive(ticket, limit);
            // Whoever brings news after this look unparks this thread.
            if !drive.slots().has_news(ticket) {
                park_until(limit);
            }
        };
        if let Some(watch) = watch {
            context.unwatch(watch);
        }
        result
    }

    /// The same for a task.
    pub(crate) fn poll(
        &mut self,
        cx: &task::Context<'_>,
        context: &Context,
        deadline: Time,
    ) -> Poll<Result<Option<Answer>, Cause>> {
        let Some(ticket) = self.tickets.front().copied() else { return Poll::Ready(Ok(None)) };
        self.drive.slots().set_task(ticket, cx.waker());
        if let Some(answer) = self.take(ticket) {
            return Poll::Ready(Ok(Some(answer)));
        }
        self.vigil.renew(cx, context, deadline);
        // Asked after watching, so that a cause in between is not missed.
        match gave_up(context, deadline) {
            Some(cause) => Poll::Ready(Err(cause)),
            None => Poll::Pending,
        }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Answer> {
        let answer = self.drive.slots().take(ticket)?;
        self.tickets.pop_front();
        Some(answer)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        for ticket in self.tickets.drain(..) {
            // A grant that is there already is let go; one that is on its way is released by the
            // guard (I3).
            if let Some(Ok(Reply::Granted(grant))) = self.drive.slots().abandon(ticket) {
                let hold = grant.hold;
                grant.context.release();
                drop(grant);
                self.drive.slots().release([hold]);
            }
        }
        self.drive.kick();
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("unanswered", &self.tickets.len()).finish_non_exhaustive()
    }
}

/// Who waits for the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedBy {
    /// The calling thread, by [`Batch::wait`].
    Thread,
    /// Whatever task calls [`Batch::poll`].
    Task,
}

/// Wakes a task when it has to give up.
#[derive(Debug, Default)]
struct Vigil {
    watch: Option<(Context, WatchKey)>,
    alarm: Option<Alarm>,
}

impl Vigil {
    fn renew(&mut self, cx: &task::Context<'_>, context: &Context, deadline: Time) {
        self.stop();
        let watch = context.watch(cx.waker());
        self.watch = watch.map(|watch| (context.clone(), watch));
        let limit = deadline.min(context.certain_until());
        self.alarm = timer::wake_at(limit, cx.waker());
    }

    fn stop(&mut self) {
        self.alarm = None;
        if let Some((context, watch)) = self.watch.take() {
            context.unwatch(watch);
        }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.stop();
    }
}
