use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::Wake;
use std::thread;
use std::time::Duration;

use super::*;

/// Looks at the slots when the last reference to it goes.
struct Looks(Arc<Slots>);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.0.release([HoldId { index: 0, generation: 0 }]);
    }
}

fn request() -> Request {
    let work = Work::Lock { key: Key::Bigint(1), wish: Wish::PLAIN, mode: Mode::Try };
    Request { work, context: Context::background() }
}

#[test]
fn the_waker_of_a_refused_request_is_dropped_outside_the_lock() {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let slots = Arc::new(Slots::new(1, 1, false));
        let only = slots.submit(request(), Waiter::Task(Waker::noop().clone()));
        assert!(only.is_ok(), "one is free");
        let waker = Waker::from(Arc::new(Looks(Arc::clone(&slots))));
        let refused = slots.submit(request(), Waiter::Task(waker));
        assert!(matches!(refused, Err(Error::TooManyRequests { limit: 1 })));
        sender.send(()).expect("the test listens");
    });
    receiver.recv_timeout(Duration::from_secs(30)).expect("no deadlock");
}
