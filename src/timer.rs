//! Wakes tasks at deadlines.
//!
//! Blocking callers sleep with a time limit of their own. A task that awaits has nobody to keep
//! time for it, since no runtime is assumed: one thread for the whole process does it, started when
//! the first task with a deadline asks, and asleep until the next deadline.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::clock::Time;
use crate::foreign;

/// A wake-up that is cancelled when it is dropped.
#[derive(Debug)]
pub(crate) struct Alarm {
    id: (Time, u64),
}

/// Wakes `waker` at `time`; `None` when that never comes.
pub(crate) fn wake_at(time: Time, waker: &Waker) -> Option<Alarm> {
    if time == Time::NEVER {
        return None;
    }
    THREAD.call_once(|| {
        // Without a thread to be had, deadlines are noticed at the next event, which is late but
        // never wrong: a deadline is compared with the clock wherever it matters.
        let _ = std::thread::Builder::new().name("distlock-timer".into()).spawn(run);
    });
    // Cloned before the lock is taken: it is foreign code.
    let waker = waker.clone();
    let mut alarms = alarms();
    alarms.next_id += 1;
    let id = (time, alarms.next_id);
    let is_first = alarms.due.first_key_value().is_none_or(|(first, _)| id < *first);
    alarms.due.insert(id, waker);
    drop(alarms);
    if is_first {
        CHANGED.notify_one();
    }
    Some(Alarm { id })
}

impl Alarm {
    /// When it rings.
    pub(crate) fn time(&self) -> Time {
        self.id.0
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // The waker's own drop is foreign code: it runs after the lock is let go.
        let waker = alarms().due.remove(&self.id);
        drop(waker);
    }
}

struct Alarms {
    due: BTreeMap<(Time, u64), Waker>,
    next_id: u64,
}

static ALARMS: Mutex<Alarms> = Mutex::new(Alarms { due: BTreeMap::new(), next_id: 0 });
static CHANGED: Condvar = Condvar::new();
static THREAD: Once = Once::new();

/// Longer sleeps are cut: the clock of the sleep stands still while the machine is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

fn alarms() -> MutexGuard<'static, Alarms> {
    ALARMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run() {
    let mut alarms = alarms();
    loop {
        let now = Time::now();
        match alarms.due.first_key_value() {
            Some((id, _)) if id.0 <= now => {
                let waker = alarms.due.pop_first();
                drop(alarms);
                if let Some((_, waker)) = waker {
                    foreign::wake(waker);
                }
                alarms = self::alarms();
            }
            Some((id, _)) => {
                let span = id.0.since(now).min(LONGEST_SLEEP);
                let woken = CHANGED.wait_timeout(alarms, span);
                alarms = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            None => alarms = CHANGED.wait(alarms).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};
    use std::task::Wake;

    struct Bell(&'static str, Mutex<Sender<&'static str>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let sender = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            sender.send(self.0).expect("the test listens");
        }
    }

    #[test]
    fn alarms_ring_in_order_of_time_and_dropped_ones_do_not() {
        let (sender, rings) = channel();
        let bell = |name| Waker::from(Arc::new(Bell(name, Mutex::new(sender.clone()))));
        let now = Time::now();
        let after = |ms| now.after(Duration::from_millis(ms));
        let _late = wake_at(after(60), &bell("late"));
        let dropped = wake_at(after(20), &bell("dropped"));
        let _early = wake_at(after(30), &bell("early"));
        drop(dropped);
        assert!(wake_at(Time::NEVER, &bell("never")).is_none());
        assert_eq!(rings.recv(), Ok("early"));
        assert_eq!(rings.recv(), Ok("late"));
    }
}
