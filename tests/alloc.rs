//! Counts every allocation of the whole process, all threads, during cycles of lock and release
//! against a real server, after a warm-up. The goal is zero.
//!
//! A binary of its own, since the allocator is the process's; one test, since a second one would
//! be counted too.

#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::task::{self, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Context, Manager};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        BYTES.fetch_add(layout.size() as u64, Ordering::SeqCst);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        BYTES.fetch_add(size as u64, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: u32 = 500;
const CYCLES: u32 = 2_000;

/// Runs the cycle until it is warm, then counts.
fn count(name: &str, cycle: impl FnMut()) -> u64 {
    count_of(name, CYCLES, cycle)
}

/// Of cycles that take longer, fewer are enough.
const LONG_CYCLES: u32 = CYCLES / 4;

fn count_of(name: &str, cycles: u32, mut cycle: impl FnMut()) -> u64 {
    for _ in 0..WARM_UP {
        cycle();
    }
    let before = (ALLOCATIONS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    for _ in 0..cycles {
        cycle();
    }
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before.0;
    let bytes = BYTES.load(Ordering::SeqCst) - before.1;
    println!("{name}: {allocations} allocations, {bytes} bytes in {cycles} cycles");
    allocations
}

#[test]
fn a_cycle_allocates_nothing() {
    let cluster = support::TempCluster::start();
    let manager = Manager::connect(cluster.url()).expect("a session");
    let other = Manager::connect(cluster.url()).expect("a second session");
    let background = Context::background();
    let (parent, _canceler) = background.with_cancel();
    let waker = support::unparker();
    let _taken = other.try_lock(&background, 2).expect("an answer").expect("it is free");
    let mut total = 0;

    // The counter counts: else the zeros below would say nothing.
    assert!(count("(a box)", || drop(std::hint::black_box(Box::new(1)))) >= u64::from(CYCLES));
    total += count("granted and dropped", || {
        drop(manager.try_lock(&background, 1).expect("an answer").expect("it is free"));
    });
    total += count("granted and unlocked", || {
        let lock = manager.try_lock(&background, 1).expect("an answer").expect("it is free");
        lock.unlock().expect("it was held");
    });
    total += count("granted under a context that can be cancelled", || {
        drop(manager.try_lock(&parent, 1).expect("an answer").expect("it is free"));
    });
    total += count("waited for and granted", || {
        drop(manager.lock(&parent, 1).expect("it is free"));
    });
    total += count("refused by the server", || {
        assert!(manager.try_lock(&background, 2).expect("an answer").is_none());
    });
    total += count("refused by this process", || {
        let lock = manager.try_lock(&background, 1).expect("an answer").expect("it is free");
        assert!(manager.try_lock(&background, 1).expect("an answer").is_none());
        drop(lock);
    });
    total += count("ten locks at once", {
        let mut locks = Vec::with_capacity(10);
        let (manager, background) = (&manager, &background);
        move || {
            for key in 100..110 {
                let lock = manager.try_lock(background, key).expect("an answer");
                locks.push(lock.expect("it is free"));
            }
            locks.clear();
        }
    });
    total += count("awaited and granted", || {
        drop(
            support::block_on_with(&waker, manager.acquire(1).context(&background))
                .expect("it is free"),
        );
    });
    total += count("awaited, and its unlock awaited", || {
        let lock = support::block_on_with(&waker, manager.acquire(1)).expect("it is free");
        support::block_on_with(&waker, lock.unlock_async()).expect("it was held");
    });
    total += count("its downgrade awaited", || {
        let mut lock = support::block_on_with(&waker, manager.acquire(1)).expect("it is free");
        support::block_on_with(&waker, lock.downgrade_async()).expect("it is held");
        support::block_on_with(&waker, lock.unlock_async()).expect("it was held");
    });
    total += count("awaited and refused", || {
        let refused = support::block_on_with(&waker, manager.acquire(2).try_async());
        assert!(refused.expect("an answer").is_none());
    });
    total += given_up(&manager, &waker);
    let third = Manager::connect(cluster.url()).expect("a third session");
    total += notified(&manager, &other, &third);
    total += hand_over("to a waiting thread", &manager, &manager);
    total += hand_over("to a waiting thread of another manager", &manager, &other);
    assert_eq!(total, 0, "allocations in all cycles");
}

/// Requests for a key that is taken, which end without it.
fn given_up(manager: &Manager, waker: &Waker) -> u64 {
    let moment = Duration::from_micros(200);
    let mut total = count("waited for until the time was up", || {
        let error = manager.acquire(2).timeout(moment).wait().expect_err("it is taken");
        assert!(error.is_timeout(), "{error}");
    });
    total += count("awaited until the time was up", || {
        let waiting = manager.acquire(2).timeout(moment);
        let error = support::block_on_with(waker, waiting).expect_err("it is taken");
        assert!(error.is_timeout(), "{error}");
    });
    total += count("awaited and dropped", || {
        let mut waiting = pin!(manager.acquire(2).into_future());
        assert!(waiting.as_mut().poll(&mut task::Context::from_waker(waker)).is_pending());
        // So that it has reached the server.
        let refused = manager.acquire(3).try_now().expect("an answer");
        drop(refused.expect("it is free"));
    });
    // What can be cancelled is made for it, and watched by the request: that is not counted.
    let made = count("(a context that is watched and cancelled)", || {
        let (context, canceler) = Context::background().with_cancel();
        let mut done = pin!(context.done().into_future());
        assert!(done.as_mut().poll(&mut task::Context::from_waker(waker)).is_pending());
        canceler.cancel();
    });
    let all = count("(under a context of its own) awaited and cancelled", || {
        let (context, canceler) = Context::background().with_cancel();
        let mut waiting = pin!(manager.acquire(2).context(&context).into_future());
        assert!(waiting.as_mut().poll(&mut task::Context::from_waker(waker)).is_pending());
        canceler.cancel();
        let error = support::block_on_with(waker, waiting).expect_err("it is taken");
        assert!(error.is_canceled(), "{error}");
    });
    total + all.saturating_sub(made)
}

/// One manager waits for what another one has, and is notified of the release. A third one finds
/// out that it waits: then sharers are kept out.
fn notified(holder: &Manager, waiter: &Manager, third: &Manager) -> u64 {
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
fn hand_over(name: &str, one: &Manager, other: &Manager) -> u64 {
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
fn with_partner(manager: &Manager, test: impl FnOnce(&Signal, &Signal) -> u64) -> u64 {
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
        let allocations = test(&ask, &told);
        is_over.store(true, Ordering::SeqCst);
        ask.give();
        allocations
    })
}
