//! Calling code that is not ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Calls a waker. A panic in it is its owner's: it must end neither the thread that happens to
/// call it (the guard's, the timer's, another caller's) nor the waking of others, and it must not
/// leave what that thread was at half done.
///
/// Called with none of the mutexes held that are taken for a moment (slots, queue, contexts), so
/// that a waker may drop a lock or cancel a context, which take these. But who runs a turn calls
/// the wakers of those that it answers, and has the guard's seat meanwhile: until the waker
/// returns, the session stands still. What follows for wakers is in `lib.rs`, "Awaiting".
pub(crate) fn wake(waker: Waker) {
    // The panic hook has reported it.
    let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
}
