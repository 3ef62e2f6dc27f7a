//! An allocator that counts what the whole process asks for, and passes everything on to the
//! system's. Used by the tests and the bench that count; each is a binary of its own, since the
//! allocator is the process's.
#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]
#![allow(dead_code, reason = "each binary uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several binaries, public in none")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        BYTES.fetch_add(layout.size() as u64, Ordering::SeqCst);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED.fetch_add(layout.size() as u64, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        BYTES.fetch_add(size as u64, Ordering::SeqCst);
        FREED.fetch_add(layout.size() as u64, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations there were, and of how many bytes.
pub fn so_far() -> (u64, u64) {
    (ALLOCATIONS.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst))
}

/// The bytes that are allocated and not freed, as they were asked for.
pub fn live() -> u64 {
    let bytes = BYTES.load(Ordering::SeqCst);
    bytes - FREED.load(Ordering::SeqCst)
}
