//! Calling code that is not ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Calls a waker. A panic in it is its owner's: it must end neither the thread that happens to
/// call it (the guard's, the timer's, another caller's) nor the waking of others, and it must not
/// leave what that thread was at half done. Never called with one of our locks held.
pub(crate) fn wake(waker: Waker) {
    // The panic hook has reported it.
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}
