//! One request: how it reaches the guard, and how its owner waits for the answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use crate::clock::Time;
use crate::context::{Cause, Context, WatchKey};
use crate::error::Error;
use crate::slots::{Answer, Drive, Reply, Request, Ticket, Waiter, Work};
use crate::sync::thread;
use crate::timer::{self, Alarm};

/// Asks the guard and blocks for the answer; does the guard's work meanwhile, where nobody else
/// does.
pub(crate) fn ask(drive: &dyn Drive, work: Work, context: &Context, deadline: Time) -> Answer {
    if let Some(cause) = gave_up(context, deadline) {
        return Err(Error::Canceled(cause));
    }
    let slots = drive.slots();
    let request = Request { work, context: context.clone() };
    let ticket = slots.submit(request, Waiter::Thread(thread::current()))?;
    let watch = context.watch(drive.poker(ticket));
    let answer = loop {
        if let Some(cause) = gave_up(context, deadline) {
            break give_up(drive, ticket, cause);
        }
        let limit = deadline.min(context.certain_until());
        drive.drive(ticket, limit);
        if let Some(answer) = slots.take(ticket) {
            break answer;
        }
        // That was a look at what there was to see. Whoever brings news from now on unparks this
        // thread.
        if !slots.has_news(ticket) && gave_up(context, deadline).is_none() {
            park_until(limit);
        }
    };
    if let Some(watch) = watch {
        context.unwatch(watch);
    }
    answer
}

/// The future of one request.
pub(crate) struct Asking {
    drive: Arc<dyn Drive>,
    work: Work,
    context: Context,
    deadline: Time,
    ticket: Option<Ticket>,
    watch: Option<WatchKey>,
    alarm: Option<Alarm>,
    /// Whether other tasks are let run before the guard is asked once more.
    yields: bool,
}

impl Asking {
    pub(crate) fn new(drive: Arc<dyn Drive>, work: Work, context: Context, deadline: Time) -> Self {
        Self {
            drive,
            work,
            context,
            deadline,
            ticket: None,
            watch: None,
            alarm: None,
            yields: false,
        }
    }
}

impl Future for Asking {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        let drive = Arc::clone(&this.drive);
        let slots = drive.slots();
        let ticket = match this.ticket {
            Some(ticket) => {
                slots.set_task(ticket, cx.waker());
                if std::mem::take(&mut this.yields) && !slots.has_news(ticket) {
                    drive.attend(ticket, true);
                }
                ticket
            }
            None => {
                if let Some(cause) = gave_up(&this.context, this.deadline) {
                    return Poll::Ready(Err(Error::Canceled(cause)));
                }
                let request = Request { work: this.work, context: this.context.clone() };
                let ticket = match slots.submit(request, Waiter::Task(cx.waker().clone())) {
                    Ok(ticket) => ticket,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                this.ticket = Some(ticket);
                this.watch = this.context.watch(drive.poker(ticket));
                // A context that was done before it could be watched pokes nobody out of a wait.
                if this.watch.is_some() || this.context.err().is_none() {
                    this.yields = drive.attend(ticket, false);
                }
                if this.yields {
                    cx.waker().wake_by_ref();
                }
                ticket
            }
        };
        if let Some(answer) = slots.take(ticket) {
            this.ticket = None;
            return Poll::Ready(answer);
        }
        if let Some(cause) = gave_up(&this.context, this.deadline) {
            this.ticket = None;
            return Poll::Ready(give_up(&*drive, ticket, cause));
        }
        let limit = this.deadline.min(this.context.certain_until());
        if this.alarm.as_ref().is_none_or(|alarm| alarm.time() != limit) {
            this.alarm = timer::wake_at(limit, drive.poker(ticket));
        }
        Poll::Pending
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.alarm = None;
        if let Some(watch) = self.watch.take() {
            self.context.unwatch(watch);
        }
        if let Some(ticket) = self.ticket.take() {
            // Nobody is left who wants to know what has become of it.
            drop(give_up(&*self.drive, ticket, Cause::Canceled));
        }
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("work", &self.work).finish_non_exhaustive()
    }
}

/// Withdraws a request. An answer that is there already counts, but for a grant: who has given up
/// does not want it, and it is released.
fn give_up(drive: &dyn Drive, ticket: Ticket, cause: Cause) -> Answer {
    match drive.slots().abandon(ticket) {
        Some(Ok(Reply::Granted(grant))) => {
            let hold = grant.hold;
            grant.context.release();
            drop(grant);
            drive.slots().release([hold]);
            drive.kick();
            Err(Error::Canceled(cause))
        }
        Some(answer) => answer,
        None => {
            drive.kick();
            Err(Error::Canceled(cause))
        }
    }
}

/// Why a request has to stop waiting, if it has to.
pub(crate) fn gave_up(context: &Context, deadline: Time) -> Option<Cause> {
    context.err().or_else(|| {
        let is_over = deadline != Time::NEVER && Time::now() >= deadline;
        is_over.then_some(Cause::DeadlineExceeded)
    })
}

pub(crate) fn park_until(limit: Time) {
    let span = limit.since(Time::now()).min(LONGEST_SLEEP);
    thread::park_timeout(span);
}

/// Sleeps are cut: their clock stands still while the machine is suspended, that of the deadlines
/// does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Canceler;
    use crate::key::Key;
    use crate::slots::{Mode, Slots, Wish};
    use crate::sync::Mutex;
    use crate::sync::atomic::{AtomicBool, Ordering};
    use crate::warning::Warning;

    /// A guard that cancels the request's context before that can be watched.
    #[derive(Debug)]
    struct Cancels {
        slots: Slots,
        canceler: Mutex<Option<Canceler>>,
        was_attended: AtomicBool,
    }

    impl Drive for Cancels {
        fn slots(&self) -> &Slots {
            &self.slots
        }

        fn kick(&self) {}

        fn attend(&self, _: Ticket, _: bool) -> bool {
            self.was_attended.store(true, Ordering::SeqCst);
            false
        }

        fn kick_release(&self) {}

        fn drive(&self, _: Ticket, _: Time) -> bool {
            false
        }

        fn poker(&self, _: Ticket) -> &task::Waker {
            self.canceler.lock().unwrap().take().expect("asked for once").cancel();
            task::Waker::noop()
        }

        fn warnings(&self) -> Vec<Warning> {
            Vec::new()
        }

        fn close(&self) {}
    }

    /// Nobody would end the wait before the thread looks.
    #[test]
    fn a_poll_does_not_wait_for_an_answer_that_is_not_wanted_any_more() {
        let (context, canceler) = Context::background().with_cancel();
        let drive = Arc::new(Cancels {
            slots: Slots::new(1, 1, false),
            canceler: Mutex::new(Some(canceler)),
            was_attended: AtomicBool::new(false),
        });
        let work = Work::Lock { key: Key::Bigint(1), wish: Wish::PLAIN, mode: Mode::Wait };
        let own = Arc::clone(&drive) as Arc<dyn Drive>;
        let mut asking = Asking::new(own, work, context, Time::NEVER);
        let polled =
            Pin::new(&mut asking).poll(&mut task::Context::from_waker(task::Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(Error::Canceled(Cause::Canceled)))));
        assert!(!drive.was_attended.load(Ordering::SeqCst), "it may have waited for the answer");
    }
}
