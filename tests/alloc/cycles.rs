//! The kinds of cycles of lock and release whose allocations are counted, by `tests/alloc.rs` and
//! by the bench of the figures.
#![allow(unreachable_pub, reason = "a module of several binaries, public in none")]

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::task::{self, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Context, Manager};

use crate::counting::so_far;
use crate::support;

/// What was counted of one kind of cycle.
#[derive(Debug)]
pub struct Count {
    pub name: String,
    pub allocations: u64,
    pub bytes: u64,
    pub cycles: u32,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, allocations, bytes, cycles } = self;
        write!(f, "{name}: {allocations} allocations, {bytes} bytes in {cycles} cycles")
    }
}

const WARM_UP: u32 = 500;
const CYCLES: u32 = 2_000;

/// Of cycles that take longer, fewer are enough.
const LONG_CYCLES: u32 = CYCLES / 4;

/// Runs the cycle until it is warm, then counts.
fn count(name: &str, cycle: impl FnMut()) -> Count {
    count_of(name, CYCLES, cycle)
}

fn count_of(name: &str, cycles: u32, mut cycle: impl FnMut()) -> Count {
    for _ in 0..WARM_UP {
        cycle();
    }
    let before = so_far();
    for _ in 0..cycles {
        cycle();
    }
    since(name, before, cycles)
}

/// What was counted since then.
fn since(name: &str, before: (u64, u64), cycles: u32) -> Count {
    let now = so_far();
    let (allocations, bytes) = (now.0 - before.0, now.1 - before.1);
    Count { name: name.to_owned(), allocations, bytes, cycles }
}

/// All kinds, with managers of their own.
pub fn count_all(url: &str) -> Vec<Count> {
    // The counter counts: else the zeros would say nothing.
    let made = count("(a box)", || drop(std::hint::black_box(Box::new(1))));
    assert!(made.allocations >= u64::from(CYCLES), "{made}");
    let connect = || Manager::connect(url).expect("a session");
    let (manager, other, third) = (connect(), connect(), connect());
    let background = Context::background();
    let waker = support::unparker();
    let _taken = other.try_lock(&background, 2).expect("an answer").expect("it is free");
    let mut all = blocking(&manager);
    all.extend(awaited(&manager, &waker));
    all.extend(given_up(&manager, &waker));
    all.push(notified(&manager, &other, &third));
    all.push(hand_over("to a waiting thread", &manager, &manager));
    all.push(hand_over("to a waiting thread of another manager", &manager, &other));
    all.push(crowd(&manager));
    all
}

/// From a blocking caller; the key 2 is taken.
fn blocking(manager: &Manager) -> Vec<Count> {
    let background = Context::background();
    let (parent, _canceler) = background.with_cancel();
    let try_lock =
        |context: &Context| manager.try_lock(context, 1).expect("an answer").expect("it is free");
    vec![
        count("granted and dropped", || drop(try_lock(&background))),
        count("granted and unlocked", || try_lock(&background).unlock().expect("it was held")),
        count("granted under a context that can be cancelled", || drop(try_lock(&parent))),
        count("waited for and granted", || {
            drop(manager.lock(&parent, 1).expect("it is free"));
        }),
        count("refused by the server", || {
            assert!(manager.try_lock(&background, 2).expect("an answer").is_none());
        }),
        count("refused by this process", || {
            let lock = try_lock(&background);
            assert!(manager.try_lock(&background, 1).expect("an answer").is_none());
            drop(lock);
        }),
        count("ten locks at once", {
            let mut locks = Vec::with_capacity(10);
            let background = &background;
            move || {
                for key in 100..110 {
                    let lock = manager.try_lock(background, key).expect("an answer");
                    locks.push(lock.expect("it is free"));
                }
                locks.clear();
            }
        }),
    ]
}

/// In a task; the key 2 is taken.
fn awaited(manager: &Manager, waker: &Waker) -> Vec<Count> {
    let background = Context::background();
    let acquire = || support::block_on_with(waker, manager.acquire(1)).expect("it is free");
    vec![
        count("awaited and granted", || {
            let asked = manager.acquire(1).context(&background);
            drop(support::block_on_with(waker, asked).expect("it is free"));
        }),
        count("awaited, and its unlock awaited", || {
            support::block_on_with(waker, acquire().unlock_async()).expect("it was held");
        }),
        count("its downgrade awaited", || {
            let mut lock = acquire();
            support::block_on_with(waker, lock.downgrade_async()).expect("it is held");
            support::block_on_with(waker, lock.unlock_async()).expect("it was held");
        }),
        count("awaited and refused", || {
            let refused = support::block_on_with(waker, manager.acquire(2).try_async());
            assert!(refused.expect("an answer").is_none());
        }),
    ]
}

/// Requests for a key that is taken, which end without it.
fn given_up(manager: &Manager, waker: &Waker) -> Vec<Count> {
    let moment = Duration::from_micros(200);
    // A slot makes a waker of its own when a thread first uses it, and while the server is slow to
    // answer for one that was given up, the next request takes another slot.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| manager.acquire(2).timeout(moment * 500).wait().expect_err("taken"));
        }
    });
    // A round trip. The slot of a request that was given up is free once the server has answered;
    // without this, all slots would be in use when the server is slow for a moment.
    let keep_step = || {
        let other = manager.acquire(3).try_now().expect("an answer");
        drop(other.expect("it is free"));
    };
    let mut all = vec![
        count("waited for until the time was up", || {
            let error = manager.acquire(2).timeout(moment).wait().expect_err("it is taken");
            assert!(error.is_timeout(), "{error}");
            keep_step();
        }),
        count("awaited until the time was up", || {
            let waiting = manager.acquire(2).timeout(moment);
            let error = support::block_on_with(waker, waiting).expect_err("it is taken");
            assert!(error.is_timeout(), "{error}");
            keep_step();
        }),
        count("awaited and dropped", || {
            let mut waiting = pin!(manager.acquire(2).into_future());
            has_to_wait(waiting.as_mut(), waker);
            // So that it has reached the server, too.
            keep_step();
        }),
    ];
    // What can be cancelled is made for it, and watched by the request: that is not counted.
    let made = count("(a context that is watched and cancelled)", || {
        let (context, canceler) = Context::background().with_cancel();
        let mut done = pin!(context.done().into_future());
        has_to_wait(done.as_mut(), waker);
        canceler.cancel();
    });
    let mut cancelled = count("awaited and cancelled", || {
        let (context, canceler) = Context::background().with_cancel();
        let mut waiting = pin!(manager.acquire(2).context(&context).into_future());
        has_to_wait(waiting.as_mut(), waker);
        canceler.cancel();
        let error = support::block_on_with(waker, waiting).expect_err("it is taken");
        assert!(error.is_canceled(), "{error}");
        keep_step();
    });
    cancelled.allocations = cancelled.allocations.saturating_sub(made.allocations);
    cancelled.bytes = cancelled.bytes.saturating_sub(made.bytes);
    all.push(cancelled);
    all
}

/// Polls for the first time, which has nothing to say yet.
fn has_to_wait<F: Future<Output: fmt::Debug>>(future: Pin<&mut F>, waker: &Waker) {
    let polled = future.poll(&mut task::Context::from_waker(waker));
    assert!(polled.is_pending(), "{polled:?}");
}

/// One manager waits for what another one has, and is notified of the release. A third one finds
/// out that it waits: then sharers are kept out.
fn notified(holder: &Manager, waiter: &Manager, third: &Manager) -> Count {
    with_partner(waiter, |ask, told| {
        count_of("notified of a release elsewhere", LONG_CYCLES, || {
            let lock = holder.acquire(1).shared().wait().expect("it is released");
            ask.give();
            while let Some(lock) = third.acquire(1).shared().try_now().expect("an answer") {
                drop(lock);
            }
            drop(lock);
            told.take();
        })
    })
}

/// Two threads hand one key to and fro.
fn hand_over(name: &str, one: &Manager, other: &Manager) -> Count {
    with_partner(other, |ask, told| {
        count_of(&format!("handed over {name}"), LONG_CYCLES, || {
            let lock = one.acquire(1).wait().expect("it is handed over");
            ask.give();
            thread::yield_now();
            drop(lock);
            told.take();
        })
    })
}

/// Nothing here takes this long; a cycle that hangs fails instead.
const HANG: Duration = Duration::from_secs(60);

/// How two threads take turns; a channel allocates when it blocks for the first time, which may be
/// late.
#[derive(Default)]
struct Signal {
    given: Mutex<u32>,
    changed: Condvar,
}

impl Signal {
    fn give(&self) {
        *self.given.lock().expect("no panic in it") += 1;
        self.changed.notify_one();
    }

    fn take(&self) {
        let given = self.given.lock().expect("no panic in it");
        let waiting = self.changed.wait_timeout_while(given, HANG, |given| *given == 0);
        let (mut given, timeout) = waiting.expect("no panic in it");
        assert!(!timeout.timed_out(), "the other thread hangs");
        *given -= 1;
    }
}

/// With a thread that locks the key, and tells when it has, each time it is asked to.
fn with_partner(manager: &Manager, test: impl FnOnce(&Signal, &Signal) -> Count) -> Count {
    let (ask, told) = (Signal::default(), Signal::default());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ask.take();
            while !is_over.load(Ordering::SeqCst) {
                let lock = manager.acquire(1).wait().expect("it is handed over");
                told.give();
                drop(lock);
                ask.take();
            }
        });
        let count = test(&ask, &told);
        is_over.store(true, Ordering::SeqCst);
        ask.give();
        count
    })
}

const THREADS: u32 = 64;

/// How many cycles each of them does.
const CYCLES_EACH: u32 = 200;

/// Threads of one manager, each with a key of its own, all at once.
fn crowd(manager: &Manager) -> Count {
    let [all, warm, go, done] = [(); 4].map(|()| Barrier::new(THREADS as usize + 1));
    let work = |key: i64| {
        let context = Context::background();
        let take = || manager.try_lock(&context, key).expect("an answer").expect("it is free");
        let cycles = || (0..CYCLES_EACH).for_each(|_| drop(take()));
        // As many at once as there will ever be.
        let held = take();
        all.wait();
        drop(held);
        cycles();
        warm.wait();
        go.wait();
        cycles();
        done.wait();
    };
    thread::scope(|scope| {
        for n in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(1_000 + i64::from(n)));
        }
        all.wait();
        warm.wait();
        let before = so_far();
        go.wait();
        done.wait();
        since("64 threads at once", before, THREADS * CYCLES_EACH)
    })
}
