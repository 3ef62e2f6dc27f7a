//! Who polls a future, how often, and with what waker.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use distlock::{Acquiring, Cause, Error, Key, Lock, Manager};
use futures::task::AtomicWaker;

use crate::executor::Executor;
use crate::support::{unique_key, wait_until};
use crate::{HANG, World, taken};

/// A future of the library's.
pub(crate) type Asking<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Whether a task is polled again when its waker was called, or at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    Woken,
    Eager,
}

/// Stands between the task and the request: some executors poll without having been woken.
#[derive(Default)]
struct Gate {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// Polls a future as often as said, and drops it; gives back what it ended with if it got that far.
pub(crate) async fn drop_after<T>(polls: u32, pace: Pace, mut asking: Asking<T>) -> Option<T> {
    let mut left = polls;
    let gate = Arc::new(Gate { rang: AtomicBool::new(true), ..Gate::default() });
    let waker = Waker::from(Arc::clone(&gate));
    poll_fn(move |cx| {
        gate.task.register(cx.waker());
        if !gate.rang.swap(matches!(pace, Pace::Eager), Ordering::SeqCst) {
            return Poll::Pending;
        }
        let Some(fewer) = left.checked_sub(1) else { return Poll::Ready(None) };
        left = fewer;
        match asking.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(answer) => Poll::Ready(Some(answer.expect("no error"))),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                if matches!(pace, Pace::Eager) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    })
    .await
}

fn asking(manager: &Manager, key: i64, waits: bool) -> Asking<Option<Lock>> {
    let asked = manager.acquire(key);
    match waits {
        true => Box::pin(async { asked.await.map(Some) }),
        false => Box::pin(asked.try_async()),
    }
}

pub(crate) async fn a_request_dropped_after_any_number_of_polls_leaves_what_is_held<E: Executor>(
    on: E,
    mut world: World,
) {
    for polls in 0..7 {
        let [free, tried, here, there] = [(); 4].map(|()| unique_key());
        let keys = [free, tried, here, there];
        let (_ours, _others) = (taken(&world.ours, here), taken(&world.other, there));
        let mut tasks = Vec::new();
        for pace in [Pace::Woken, Pace::Eager] {
            for (key, waits) in [(free, true), (tried, false)] {
                for manager in [&world.ours, &world.other] {
                    let asking = asking(manager, key, waits);
                    // Who waits for what another one of these tasks keeps would wait for good.
                    let pace = if waits { Pace::Eager } else { pace };
                    tasks.push(on.spawn(drop_after(polls, pace, asking)));
                }
            }
            for (key, manager) in [(here, &world.ours), (there, &world.ours)] {
                tasks.push(on.spawn(drop_after(polls, Pace::Eager, asking(manager, key, true))));
            }
        }
        let mut kept = Vec::new();
        for task in tasks {
            kept.extend(task.await.flatten());
        }
        // Alone, and polled when it is woken: granted at the second poll, or at the first where
        // the answer is there at once.
        let alone = unique_key();
        let asking = asking(&world.ours, alone, true);
        let lock = on.spawn(drop_after(polls, Pace::Woken, asking)).await.flatten();
        match polls {
            0 => assert!(lock.is_none(), "never polled, never asked"),
            1 => {}
            _ => assert!(lock.is_some(), "free, and polled {polls} times"),
        }
        kept.extend(lock);
        world.settle();
        let keys: Vec<i64> = keys.into_iter().chain([alone]).collect();
        let is_kept = |key: &i64| kept.iter().any(|lock| lock.key() == Key::Bigint(*key));
        let held: Vec<i64> = keys
            .iter()
            .copied()
            .filter(|key| [here, there].contains(key) || is_kept(key))
            .collect();
        assert!(kept.iter().all(Lock::is_held));
        assert_eq!(world.locked(&keys), held, "after {polls} polls");
    }
}

pub(crate) async fn a_grant_that_was_not_looked_at_goes_with_its_future<E: Executor>(
    on: E,
    mut world: World,
) {
    for waits in [true, false] {
        for manager in [world.ours.clone(), world.other.clone()] {
            // Now and then a request is granted at its first poll already, and its bell has rung.
            let (key, asking, bell) = loop {
                let key = unique_key();
                let bell = Arc::new(Bell::default());
                let waker = Waker::from(Arc::clone(&bell));
                let mut asking = asking(&manager, key, waits);
                if asking.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending() {
                    break (key, asking, bell);
                }
            };
            // The bell also rings to let other tasks run first.
            wait_until("the bell", HANG, || bell.0.load(Ordering::SeqCst) > 0);
            wait_until("the grant", HANG, || world.locked(&[key]) == [key]);
            world.settle();
            on.spawn(async { drop(asking) }).await;
            world.settle();
            assert_eq!(world.locked(&[key]), []);
        }
    }
}

/// A future on its way from one thread to the other, and where it was polled.
struct Parcel {
    future: Pin<Box<Acquiring>>,
    threads: HashSet<ThreadId>,
    polls: u32,
}

/// Polls what comes and passes it on; whoever has polled it for the last time keeps it.
async fn pass(
    start: Arc<Barrier>,
    inbox: Receiver<Parcel>,
    next: Sender<Parcel>,
) -> Option<Parcel> {
    // Both tasks block, each in a thread of its own.
    start.wait();
    while let Ok(mut parcel) = inbox.recv() {
        poll_fn(|cx| {
            assert!(parcel.future.as_mut().poll(cx).is_pending(), "the key is taken");
            Poll::Ready(())
        })
        .await;
        parcel.polls += 1;
        parcel.threads.insert(thread::current().id());
        if parcel.polls == PASSES {
            return Some(parcel);
        }
        next.send(parcel).expect("the other one waits for it");
    }
    None
}

const PASSES: u32 = 40;

pub(crate) async fn a_future_goes_on_from_thread_to_thread<E: Executor>(on: E, mut world: World) {
    let key = unique_key();
    for holder in [world.ours.clone(), world.other.clone()] {
        let lock = taken(&holder, key);
        let (to_first, first) = channel();
        let (to_second, second) = channel();
        let future = Box::pin(world.ours.acquire(key).into_future());
        let parcel = Parcel { future, threads: HashSet::new(), polls: 0 };
        to_first.send(parcel).expect("room");
        let start = Arc::new(Barrier::new(2));
        let tasks = [
            on.spawn_beside(pass(Arc::clone(&start), first, to_second)),
            on.spawn_beside(pass(start, second, to_first)),
        ];
        let mut kept = None;
        for task in tasks {
            kept = task.await.or(kept);
        }
        let parcel = kept.expect("one of them keeps it");
        assert_eq!((parcel.polls, parcel.threads.len()), (PASSES, 2));
        let waiting = on.spawn(parcel.future);
        lock.unlock().expect("it was held");
        let granted = waiting.await.expect("its turn");
        assert!(granted.is_held());
        assert_eq!(world.locked(&[key]), [key]);
        granted.unlock().expect("it was held");
        assert_eq!(world.locked(&[key]), []);
    }
}

/// Counts its calls.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls with one waker and then with another; gives back both.
fn poll_twice<F: Future>(future: &mut Pin<Box<F>>) -> [Arc<Bell>; 2] {
    let bells: [Arc<Bell>; 2] = Default::default();
    for bell in &bells {
        let waker = Waker::from(Arc::clone(bell));
        let polled = future.as_mut().poll(&mut TaskContext::from_waker(&waker));
        assert!(polled.is_pending(), "there is nothing yet");
    }
    bells
}

#[track_caller]
fn assert_only_the_last_rings(bells: &[Arc<Bell>; 2]) {
    wait_until("the waker of the last poll", HANG, || bells[1].0.load(Ordering::SeqCst) > 0);
    assert_eq!(bells[0].0.load(Ordering::SeqCst), 0, "the waker that was replaced was called");
    assert_eq!(Arc::strong_count(&bells[0]), 1, "and it is kept");
}

pub(crate) async fn the_waker_of_the_last_poll_is_the_one_that_is_called<E: Executor>(
    on: E,
    world: World,
) {
    let key = unique_key();
    for holder in [&world.ours, &world.other] {
        let lock = taken(holder, key);
        let mut waiting = Box::pin(world.ours.acquire(key).into_future());
        let polled = poll_twice(&mut waiting);
        let mut done = Box::pin(lock.context().done().into_future());
        let watched = poll_twice(&mut done);
        lock.unlock().expect("it was held");
        assert_only_the_last_rings(&polled);
        assert_only_the_last_rings(&watched);
        assert_eq!(on.spawn(done).await, Cause::Released);
        // What is granted meanwhile is there for the task that polls next, with its own waker.
        let granted = on.spawn(waiting).await.expect("its turn");
        assert!(granted.is_held());
        granted.unlock().expect("it was held");
    }
}
