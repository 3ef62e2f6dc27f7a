//! Many threads and tasks that lock, wait, give up and are cancelled at any moment, on few keys,
//! while sessions are killed and limits are tiny. Afterwards nothing hangs, no lock is left on the
//! server, and every slot and every lock of the managers is to be had again.

mod support;

use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Canceler, Config, Context, Error, Lock, Manager};
use support::{TempCluster, await_for, pg_locks_advisory, wait_until};

const THREADS: u64 = 10;
const ROUNDS: u64 = 400;
const FIRST_KEY: i64 = 1_000;
/// Far more than anything here takes: it tells a hang from a slow machine.
const HANG: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
struct Storm {
    keys: u64,
    requests: u32,
    locks: u32,
    waiters: u32,
    release_on_cancel: bool,
    kills: bool,
}

const WIDE: Storm =
    Storm { keys: 5, requests: 64, locks: 32, waiters: 64, release_on_cancel: false, kills: false };
const TINY: Storm = Storm { keys: 3, requests: 3, locks: 2, waiters: 2, ..WIDE };

#[test]
fn nobody_holds_a_key_twice() {
    WIDE.blow();
}

#[test]
fn tiny_limits_lose_nothing() {
    TINY.blow();
}

#[test]
fn killed_sessions_lose_nothing() {
    Storm { kills: true, ..WIDE }.blow();
}

#[test]
fn releases_on_cancel_lose_nothing() {
    Storm { release_on_cancel: true, ..WIDE }.blow();
}

#[test]
fn killed_sessions_with_tiny_limits_and_releases_on_cancel_lose_nothing() {
    Storm { release_on_cancel: true, kills: true, ..TINY }.blow();
}

/// Xorshift; enough to vary what the threads do.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn microseconds(&mut self, bound: u64) -> Duration {
        Duration::from_micros(self.below(bound))
    }
}

/// One thread of the storm.
struct Worker {
    storm: Storm,
    manager: Manager,
    /// Who is in, by key: zero for nobody.
    inside: Arc<[AtomicU64]>,
    number: u64,
    random: Random,
}

impl Worker {
    fn run(mut self) {
        for _ in 0..ROUNDS {
            let place = self.random.below(self.storm.keys);
            let (context, canceler) = self.context();
            let canceler = canceler.map(|canceler| {
                let pause = self.random.microseconds(2_000);
                thread::spawn(move || {
                    thread::sleep(pause);
                    canceler.cancel();
                })
            });
            match self.ask(&context, FIRST_KEY + place as i64) {
                Ok(Some(lock)) => self.hold(lock, place as usize),
                Ok(None) => {}
                Err(error) => self.check(&error),
            }
            if let Some(canceler) = canceler {
                canceler.join().expect("no panic");
            }
        }
    }

    fn context(&mut self) -> (Context, Option<Canceler>) {
        let background = Context::background();
        match self.random.below(3) {
            0 => (background, None),
            1 => {
                let (context, canceler) = background.with_cancel();
                (context, Some(canceler))
            }
            _ => (background.with_timeout(self.random.microseconds(20_000)), None),
        }
    }

    fn ask(&mut self, context: &Context, key: i64) -> Result<Option<Lock>, Error> {
        let limit = self.random.microseconds(30_000);
        let acquire = self.manager.acquire(key).context(context);
        match self.random.below(4) {
            0 => acquire.try_now(),
            1 => acquire.timeout(limit).wait().map(Some),
            // Dropped half-way.
            2 => await_for(acquire, limit).transpose(),
            _ => {
                let answer = await_for(acquire.timeout(limit), HANG);
                answer.expect("a future with a time limit ends").map(Some)
            }
        }
    }

    fn hold(&mut self, lock: Lock, place: usize) {
        // With sessions killed, or locks released under their holder, two may be in for a moment.
        let alone = !self.storm.kills && !self.storm.release_on_cancel;
        if alone {
            let before = self.inside[place].swap(self.number, Ordering::SeqCst);
            assert_eq!(before, 0, "two hold the key");
            assert!(lock.is_held());
        }
        if self.random.below(4) == 0 {
            lock.context().done().wait_timeout(self.random.microseconds(500));
        }
        if alone {
            self.inside[place].store(0, Ordering::SeqCst);
        }
        match self.random.below(2) {
            0 => drop(lock),
            _ => {
                if let Err(error) = lock.unlock() {
                    self.check(&error);
                }
            }
        }
    }

    fn check(&self, error: &Error) {
        let of_the_storm = error.is_canceled() || error.is_limit();
        let of_a_kill = error.is_session_lost() || error.is_unavailable();
        assert!(of_the_storm || (self.storm.kills && of_a_kill), "{error}");
    }
}

impl Storm {
    fn blow(self) {
        let cluster = TempCluster::start();
        let managers = [(); 2].map(|()| self.manager(&cluster));
        let inside: Arc<[AtomicU64]> = (0..self.keys).map(|_| AtomicU64::new(0)).collect();
        let workers: Vec<_> = (1..=THREADS)
            .map(|number| {
                let manager = managers[number as usize % 2].clone();
                let random = Random(0x9e37_79b9_7f4a_7c15 ^ (number * 7919));
                let inside = Arc::clone(&inside);
                let worker = Worker { storm: self, manager, inside, number, random };
                thread::spawn(move || worker.run())
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let killer = self.kills.then(|| killer(&cluster, &stop));
        wait_until("the end of the storm", HANG, || workers.iter().all(|w| w.is_finished()));
        stop.store(true, Ordering::SeqCst);
        for worker in workers {
            worker.join().expect("no panic in the storm");
        }
        if let Some(killer) = killer {
            killer.join().expect("no panic");
        }

        let mut sql = cluster.sql();
        wait_until("the last release", HANG, || pg_locks_advisory(&mut sql).is_empty());
        for manager in &managers {
            self.check_room(manager);
        }
    }

    fn manager(self, cluster: &TempCluster) -> Manager {
        let config: Config = cluster.url().parse().expect("a URL");
        let config = config.max_requests(self.requests).max_locks(self.locks);
        let config = config.max_waiters(self.waiters).release_on_cancel(self.release_on_cancel);
        Manager::connect(config).expect("a session")
    }

    /// Every slot and every lock is free again.
    fn check_room(self, manager: &Manager) {
        let background = Context::background();
        let granted = |key: i64| manager.try_lock(&background, key).ok().flatten();
        wait_until("a session", HANG, || granted(1).is_some());
        let held = granted(2).expect("it is free");
        let waiting = self.requests.min(self.waiters);
        let mut futures: Vec<_> =
            (0..waiting).map(|_| Box::pin(manager.acquire(2).into_future())).collect();
        for future in &mut futures {
            let polled = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "{polled:?}");
        }
        drop((futures, held));
        let mut locks = Vec::new();
        wait_until("all locks at once", HANG, || {
            locks.clear();
            locks.extend((0..self.locks).map_while(|key| granted(100 + i64::from(key))));
            locks.len() == self.locks as usize
        });
    }
}

/// Ends the managers' sessions again and again.
fn killer(cluster: &TempCluster, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (mut sql, stop) = (cluster.sql(), Arc::clone(stop));
    thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            sql.query(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where application_name = 'distlock' and random() < 0.5",
            );
            thread::sleep(Duration::from_millis(50));
        }
    })
}
