//! Sets and the loss of the session: each test has a server of its own.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{self, Waker};
use std::thread;
use std::time::Duration;

use distlock::{AcquireAll, AcquiringAll, Cause, Key, Lock, LockSet, Manager, Outcome};

use super::{LIMIT, choose, number, some_of};
use crate::support::{StopMode, TempCluster, block_on, pg_locks_advisory, wait_until};

/// A future that was polled once.
fn asked(asked: AcquireAll) -> Pin<Box<AcquiringAll>> {
    let mut future = Box::pin(asked.into_future());
    let polled = future.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "{polled:?}");
    future
}

fn connect(cluster: &TempCluster) -> Manager {
    Manager::connect(cluster.url()).expect("connects")
}

fn backend_of(cluster: &TempCluster, key: i64) -> i32 {
    let held = pg_locks_advisory(&mut cluster.sql());
    held.iter().find(|(locked, _)| *locked == key).expect("locked").1
}

fn terminate(cluster: &TempCluster, backend: i32) {
    cluster.sql().query(&format!("SELECT pg_terminate_backend({backend})"));
}

#[test]
fn a_set_is_lost_as_one_with_its_session_and_stays_lost() {
    let cluster = TempCluster::start();
    let manager = connect(&cluster);
    let set = manager.acquire_all(1..=5).wait().expect("free");
    terminate(&cluster, backend_of(&cluster, 3));
    assert_eq!(set.context().done().wait_timeout(LIMIT), Some(Cause::ServerShutdown));
    assert!(!set.is_held() && set.remaining().is_zero());
    let again = manager.acquire_all(1..=5).timeout(LIMIT).wait().expect("the next session");
    assert!(!set.is_held() && again.is_held());
    let error = set.unlock().expect_err("lost long ago");
    assert!(error.is_session_lost(), "{error}");
    assert!(again.is_held() && pg_locks_advisory(&mut cluster.sql()).len() == 5);
    again.unlock().expect("it was held");
    assert_eq!(pg_locks_advisory(&mut cluster.sql()), []);
}

#[test]
fn who_waits_with_a_part_of_the_set_is_told_when_that_is_lost() {
    let cluster = TempCluster::start();
    let manager = connect(&cluster);
    let mut program = cluster.sql();
    program.query("SELECT pg_advisory_lock(3)");
    for is_async in [false, true] {
        let asked = manager.acquire_all(1..=5).timeout(LIMIT);
        thread::scope(|scope| {
            let waiter = scope.spawn(move || match is_async {
                false => asked.wait(),
                true => block_on(asked),
            });
            let mut sql = cluster.sql();
            wait_until("it waits for 3", LIMIT, || {
                let held = pg_locks_advisory(&mut sql);
                held.iter().map(|(key, _)| *key).eq([1, 2, 3])
            });
            terminate(&cluster, backend_of(&cluster, 1));
            let error = waiter.join().expect("no panic").expect_err("1 and 2 are lost");
            assert!(error.is_session_lost(), "{error}");
            assert_eq!(error.outcome(), Outcome::Unknown, "1 and 2 were granted");
            wait_until("nothing is kept", LIMIT, || pg_locks_advisory(&mut sql).len() == 1);
        });
        // The manager is back before the next round.
        drop(manager.acquire(9).timeout(LIMIT).wait().expect("the next session"));
    }
}

#[test]
fn while_there_is_no_session_tries_fail_and_waits_wait_for_one() {
    let mut cluster = TempCluster::start();
    let manager = connect(&cluster);
    let held = manager.acquire_all(1..=3).wait().expect("free");
    cluster.stop(StopMode::Fast);
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
    let all = manager.acquire_all(1..=3);
    let error = all.clone().try_now().expect_err("no session");
    assert!(error.is_unavailable(), "{error}");
    let error = all.clone().timeout(Duration::from_millis(30)).wait().expect_err("no session");
    assert!(error.is_timeout(), "{error}");
    let waiting = asked(all.clone());
    thread::scope(|scope| {
        let blocked = scope.spawn(|| manager.acquire_all(11..=13).timeout(LIMIT).wait());
        cluster.start_again();
        let mut sets = [blocked.join().expect("no panic"), block_on(waiting)]
            .map(|set| set.expect("the next session"));
        sets.sort_by_key(|set| set.keys().next());
        assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 6);
        assert!(sets.iter().all(LockSet::is_held));
    });
    drop(held);
    assert!(all.clone().try_now().expect("answers").is_some());
    let taken = manager.acquire(2).wait().expect("free");
    let waiting = asked(all.clone());
    manager.close();
    assert_eq!(taken.context().err(), Some(Cause::ManagerClosed));
    assert!(block_on(waiting).expect_err("closed").is_closed());
    assert!(all.wait().expect_err("closed").is_closed());
}

/// The keys of a set are held by one backend on the server, or the set says that it is lost.
fn is_of_one_session(cluster: &TempCluster, set: &LockSet) -> bool {
    let held = pg_locks_advisory(&mut cluster.sql());
    let backend = |key: Key| held.iter().find(|(locked, _)| *locked == number(key));
    let mut backends: Vec<Option<i32>> = set.keys().map(|key| Some(backend(key)?.1)).collect();
    backends.dedup();
    let is_whole = backends.len() == 1 && backends[0].is_some();
    // Its session may have ended since; then the server's message is on its way.
    is_whole || set.context().done().wait_timeout(LIMIT).is_some()
}

#[test]
fn sessions_killed_at_any_point_never_make_a_set_of_two() {
    const KILLS: u32 = 60;
    let cluster = TempCluster::start();
    let managers = [(); 2].map(|()| connect(&cluster));
    let keys: Vec<i64> = (0..8).collect();
    let (stop, granted, lost) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (cluster, keys, stop) = (&cluster, &keys, &stop);
            let (granted, lost) = (&granted, &lost);
            let manager = &managers[worker as usize % 2];
            scope.spawn(move || {
                let mut choices = 0x9e37_79b9_7f4a_7c15_u64.rotate_left(worker as u32 * 7);
                while !stop.load(Ordering::SeqCst) {
                    let asked = manager.acquire_all(some_of(keys, &mut choices)).timeout(LIMIT);
                    let set = match worker {
                        0 | 1 => asked.wait(),
                        _ => block_on(asked),
                    };
                    match set {
                        Ok(set) => {
                            granted.fetch_add(1, Ordering::SeqCst);
                            assert!(is_of_one_session(cluster, &set), "{set:?}");
                        }
                        Err(error) => {
                            assert!(error.is_session_lost(), "{error}");
                            lost.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
        let mut sql = cluster.sql();
        let mut choices = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..KILLS {
            // In the midst of the work, wherever that is.
            let enough = granted.load(Ordering::SeqCst) + choose(&mut choices, 30) as u32;
            wait_until("sets are granted", LIMIT, || granted.load(Ordering::SeqCst) >= enough);
            sql.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'distlock' AND random() < 0.7",
            );
        }
        stop.store(true, Ordering::SeqCst);
    });
    println!("{granted:?} sets were granted, {lost:?} requests lost");
    for manager in &managers {
        let lock: Lock = manager.acquire(100).timeout(LIMIT).wait().expect("back");
        drop(lock);
    }
    let mut sql = cluster.sql();
    wait_until("no lock is left", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
}
