//! Threads of one manager.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Context, Manager};

use super::{Crowd, FIRST_KEY};

pub(super) struct Threads {
    manager: Manager,
    count: i64,
    /// Whether each lock is dropped, or each release awaited.
    drops: bool,
}

impl Threads {
    pub(super) fn new(manager: Manager, count: i64, drops: bool) -> Self {
        Self { manager, count, drops }
    }

    /// The cycles of one thread, how many there were.
    fn work(&self, key: i64, end: Instant) -> u64 {
        let context = Context::background();
        let mut pairs = 0;
        loop {
            let lock = self.manager.try_lock(&context, key).expect("an answer");
            let lock = lock.expect("it is free");
            pairs += 1;
            let is_last = Instant::now() >= end;
            match self.drops && !is_last {
                true => drop(lock),
                false => lock.unlock().expect("it was held"),
            }
            if is_last {
                return pairs;
            }
        }
    }
}

impl Crowd for Threads {
    fn run(&mut self, span: Duration) -> f64 {
        let ready = Barrier::new(self.count as usize + 1);
        let (this, ready) = (&*self, &ready);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.count)
                .map(|n| {
                    scope.spawn(move || {
                        ready.wait();
                        this.work(FIRST_KEY + n, Instant::now() + span)
                    })
                })
                .collect();
            ready.wait();
            let start = Instant::now();
            let pairs = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            let pairs: u64 = pairs.sum();
            pairs as f64 / start.elapsed().as_secs_f64()
        })
    }
}
