//! Counts the bytes that the process has allocated, and that the calling thread has, with their
//! highest marks.
#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static OWN: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

fn count(bytes: i64) {
    let live = LIVE.fetch_add(bytes, Ordering::SeqCst) + bytes;
    PEAK.fetch_max(live, Ordering::SeqCst);
    // A thread that is ending has no place for its own count any more.
    let _ = OWN.try_with(|own| {
        let (live, peak) = own.get();
        own.set((live + bytes, peak.max(live + bytes)));
    });
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist for a moment.
        count(signed(size));
        // SAFETY: as above.
        let pointer = unsafe { System.realloc(pointer, layout, size) };
        count(-signed(layout.size()));
        pointer
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests that measure the whole process run alone; all others side by side.
static TURN: RwLock<()> = RwLock::new(());

/// A turn of a test that measures.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// A turn of a test that does not.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// By how many bytes the process grew at the most while `work` ran.
pub fn growth_of_process<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = LIVE.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let result = work();
    (result, PEAK.load(Ordering::SeqCst) - before)
}

/// By how many bytes the calling thread's part grew at the most while `work` ran.
pub fn growth_of_thread<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let (before, _) = OWN.get();
    OWN.set((before, before));
    let result = work();
    let (_, peak) = OWN.get();
    (result, peak - before)
}
