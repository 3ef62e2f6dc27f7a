//! What it takes to wake many threads, and nothing else: no server, no locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Crowd;

/// One thread wakes so many others; once each has noticed and sleeps again, or is about to, the
/// next round begins. A lock that is granted to a thread that waits for it is such a wake-up, too.
pub(super) struct Woken {
    count: u64,
}

/// What the threads share.
#[derive(Default)]
struct Round {
    number: AtomicU64,
    noticed: AtomicU64,
    ends: AtomicBool,
}

impl Woken {
    pub(super) fn new(count: u64) -> Self {
        Self { count }
    }
}

impl Crowd for Woken {
    fn run(&mut self, span: Duration) -> f64 {
        let (count, round, waker) = (self.count, Arc::new(Round::default()), thread::current());
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let (round, waker) = (Arc::clone(&round), waker.clone());
                thread::spawn(move || sleep(&round, count, &waker))
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < span {
            let number = round.number.fetch_add(1, Ordering::SeqCst) + 1;
            for thread in &threads {
                thread.thread().unpark();
            }
            while round.noticed.load(Ordering::SeqCst) < number * count {
                thread::park();
            }
        }
        let wakes = round.noticed.load(Ordering::SeqCst) as f64 / start.elapsed().as_secs_f64();
        round.ends.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.thread().unpark();
            thread.join().expect("no panic");
        }
        wakes
    }
}

fn sleep(round: &Round, count: u64, waker: &thread::Thread) {
    let mut seen = 0;
    while !round.ends.load(Ordering::SeqCst) {
        let number = round.number.load(Ordering::SeqCst);
        if number == seen {
            thread::park();
            continue;
        }
        seen = number;
        if round.noticed.fetch_add(1, Ordering::SeqCst) % count == count - 1 {
            waker.unpark();
        }
    }
}
