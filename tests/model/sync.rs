//! How threads share and sleep in the model, in the place of `crate::sync`: shuttle's mutexes and
//! atomics, and threads that park in the [world](crate::world).

pub(crate) use std::sync::OnceLock;

pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};

pub(crate) mod thread {
    use std::time::Duration;

    use crate::world::{self, Spot};

    /// One of the world's threads.
    #[derive(Debug, Clone)]
    pub(crate) struct Thread(usize);

    impl Thread {
        pub(crate) fn id(&self) -> usize {
            self.0
        }

        pub(crate) fn unpark(&self) {
            world::unpark(self.0);
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(world::current())
    }

    /// The thread that will have this number.
    pub(crate) fn of_number(number: usize) -> Thread {
        Thread(number)
    }

    pub(crate) fn park_timeout(span: Duration) {
        world::sleep(Spot::Parked, world::now().saturating_add(span.as_nanos() as u64));
    }
}
