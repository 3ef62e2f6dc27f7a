//! Counts every allocation of the whole process, all threads, during cycles of lock and release
//! against a real server, after a warm-up. The goal is zero.
//!
//! A binary of its own, since the allocator is the process's; one test, since a second one would
//! be counted too.

#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
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
fn count(name: &str, mut cycle: impl FnMut()) -> u64 {
    for _ in 0..WARM_UP {
        cycle();
    }
    let before = (ALLOCATIONS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    for _ in 0..CYCLES {
        cycle();
    }
    let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before.0;
    let bytes = BYTES.load(Ordering::SeqCst) - before.1;
    println!("{name}: {allocations} allocations, {bytes} bytes in {CYCLES} cycles");
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
    total += hand_over(&manager, &background);
    assert_eq!(total, 0, "allocations per {CYCLES} cycles of each kind");
}

/// Two threads hand one key to and fro.
fn hand_over(manager: &Manager, background: &Context) -> u64 {
    let (ask, asked) = sync_channel::<()>(1);
    let (tell, told) = sync_channel::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while asked.recv().is_ok() {
                let lock = manager.lock(background, 1).expect("it is handed over");
                tell.send(()).expect("the test listens");
                drop(lock);
            }
        });
        let allocations = count("handed over to a waiting thread", || {
            let lock = manager.lock(background, 1).expect("it is handed over");
            ask.send(()).expect("the thread listens");
            std::thread::yield_now();
            drop(lock);
            told.recv_timeout(Duration::from_secs(10)).expect("the thread gets it");
        });
        drop(ask);
        allocations
    })
}
