//! Sets of locks against a real server: all or nothing, one round trip, no deadlock between sets
//! that cross, nothing left behind by whoever gives up, and never a set of two sessions (`loss`).

mod support;

#[path = "sets/loss.rs"]
mod loss;
#[path = "sets/relay.rs"]
mod relay;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::task::{self, Poll};
use std::thread;
use std::time::Duration;

use distlock::{AcquireAll, Cause, Config, Context, Error, Key, Lock, LockSet, Manager};
use relay::Relay;
use support::{
    TempCluster, block_on, pg_locks_advisory, shared_cluster, unique_key, unparker, wait_until,
};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    shared_cluster().url().parse().expect("a URL")
}

fn manager() -> Manager {
    Manager::connect(config()).expect("connects")
}

/// In the order of the numbers.
fn unique_keys<const N: usize>() -> [i64; N] {
    [(); N].map(|()| unique_key())
}

fn lock(manager: &Manager, key: i64) -> Lock {
    manager.try_lock(&Context::background(), key).expect("answers").expect("free")
}

/// Those of the keys that the server has a holder of.
fn locked_of(keys: &[i64]) -> Vec<i64> {
    let all = pg_locks_advisory(&mut shared_cluster().sql());
    all.into_iter().map(|(key, _)| key).filter(|key| keys.contains(key)).collect()
}

/// Whatever the manager has still to release is ordered in front of this.
fn round_trip(manager: &Manager) {
    lock(manager, unique_key()).unlock().expect("it was held");
}

#[test]
fn a_set_is_held_from_the_grant_to_the_unlock_and_the_server_agrees() {
    let (manager, keys) = (manager(), unique_keys::<8>());
    let ctx = Context::background().with_timeout(LIMIT * 100);
    for is_unlocked in [false, true] {
        let asked = manager.acquire_all(keys).context(&ctx);
        let sets: [&dyn Fn() -> LockSet; 4] = [
            &|| asked.clone().wait().expect("free"),
            &|| asked.clone().try_now().expect("answers").expect("free"),
            &|| block_on(asked.clone()).expect("free"),
            &|| block_on(asked.clone().try_async()).expect("answers").expect("free"),
        ];
        for set in sets {
            let set = set();
            assert_eq!(locked_of(&keys), keys);
            assert!(set.is_held() && !set.remaining().is_zero() && set.context().err().is_none());
            assert!(set.iter().all(Lock::is_held));
            let context = set.context().clone();
            match is_unlocked {
                true => set.unlock().expect("it was held"),
                false => {
                    drop(set);
                    round_trip(&manager);
                }
            }
            assert_eq!(context.err(), Some(Cause::Released));
            assert_eq!(locked_of(&keys), [], "unlock answers after the server has");
        }
    }
}

#[test]
fn unlocking_a_set_waits_for_the_servers_answers() {
    let cluster = TempCluster::start();
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.reply_timeout(LIMIT).lease(LIMIT * 2).server_timeout(LIMIT * 3);
    let manager = Manager::connect(config).expect("connects");
    let set = manager.acquire_all([1, 2, 3]).wait().expect("free");
    let backend = pg_locks_advisory(&mut cluster.sql())[0].1;
    assert!(support::signal(backend, "STOP"));
    let (sender, ended) = channel();
    thread::spawn(move || sender.send(set.unlock()));
    assert!(ended.recv_timeout(Duration::from_millis(100)).is_err(), "the server is stopped");
    assert!(support::signal(backend, "CONT"));
    ended.recv_timeout(LIMIT).expect("it ends").expect("it was held");
    assert_eq!(pg_locks_advisory(&mut cluster.sql()), []);
}

#[test]
fn a_set_of_which_one_key_is_taken_is_refused_and_nothing_of_it_is_kept() {
    let (ours, other, keys) = (manager(), manager(), unique_keys::<6>());
    for holder in [&ours, &other] {
        for taken in keys {
            let held = lock(holder, taken);
            assert!(ours.acquire_all(keys).try_now().expect("answers").is_none());
            assert!(block_on(ours.acquire_all(keys).try_async()).expect("answers").is_none());
            round_trip(&ours);
            assert_eq!(locked_of(&keys), [taken]);
            assert!(held.is_held());
            held.unlock().expect("it was held");
        }
    }
    drop(ours.acquire_all(keys).try_now().expect("answers").expect("free again"));
}

#[test]
fn duplicates_are_locked_once_and_the_keys_are_in_order() {
    let (manager, [first, second]) = (manager(), unique_keys());
    let twice = [second, first, second, first, second];
    let set = manager.acquire_all(twice).timeout(LIMIT).wait().expect("free");
    assert_eq!(set.keys().collect::<Vec<Key>>(), [Key::Bigint(first), Key::Bigint(second)]);
    assert!(set.len() == 2 && !set.is_empty());
    assert_eq!(locked_of(&[first, second]), [first, second]);
    set.unlock().expect("each one was held once");
    assert_eq!(locked_of(&[first, second]), []);
    // Two names with one hash are one key.
    let names =
        manager.acquire_all(["7mohtcOFVz", "c1E51sSEyx"]).timeout(LIMIT).wait().expect("free");
    assert_eq!(names.len(), 1);
    let spaces = [Key::Pair((first >> 32) as i32, first as i32), Key::Bigint(first)];
    assert_eq!(manager.acquire_all(spaces).wait().expect("free").len(), 2);
}

#[test]
fn a_set_without_keys_is_an_error() {
    let asked = manager().acquire_all([0_i64; 0]);
    for error in [
        asked.clone().wait().expect_err("no key"),
        asked.clone().try_now().expect_err("no key"),
        block_on(asked).expect_err("no key"),
    ] {
        assert!(matches!(error, Error::NoKeys), "{error}");
    }
}

/// Bind and Execute for each 64 keys, and one Sync behind them all.
fn one_batch(keys: usize) -> String {
    "BE".repeat(keys.div_ceil(64)) + "S"
}

#[test]
fn a_free_set_is_one_batch_with_one_sync_and_so_is_its_release() {
    // The releases of one set and the tries of the next have room in the session together.
    const MANY: usize = 100;
    let cluster = TempCluster::start();
    let relay = Relay::start(&cluster);
    // No heartbeat meanwhile.
    let config = relay.config().heartbeat(LIMIT).reply_timeout(LIMIT * 2);
    let config = config.lease(LIMIT * 5).server_timeout(LIMIT * 10);
    let manager = Manager::connect(config).expect("connects");
    let direct = Manager::connect(cluster.url()).expect("connects");
    relay.said();
    let keys = 0..MANY as i64;
    let asked = || manager.acquire_all(keys.clone());
    // The statement of a release is prepared at its first use.
    asked().wait().expect("free").unlock().expect("it was held");
    relay.said();
    for _ in 0..20 {
        let set = asked().wait().expect("free");
        assert_eq!(relay.said(), one_batch(MANY), "wait");
        set.unlock().expect("it was held");
        assert_eq!(relay.said(), one_batch(MANY), "unlock");
        let set = block_on(asked()).expect("free");
        assert_eq!(relay.said(), one_batch(MANY), "await");
        block_on(set.unlock_async()).expect("it was held");
        assert_eq!(relay.said(), one_batch(MANY), "await the unlock");
        let set = asked().wait().expect("free");
        assert_eq!(relay.said(), one_batch(MANY), "wait");
        drop(set);
        let mut said = String::new();
        wait_until("the releases are sent", LIMIT, || {
            said += &relay.said();
            said == one_batch(MANY)
        });
        // Sent is not yet done. Who asked before it is would wait, and be told of the release.
        wait_until("the releases are done", LIMIT, || {
            pg_locks_advisory(&mut cluster.sql()).is_empty()
        });
        let taken = lock(&direct, 7);
        assert!(asked().try_now().expect("answers").is_none());
        let mut said = String::new();
        wait_until("the others are released", LIMIT, || {
            said += &relay.said();
            said == one_batch(MANY) + &one_batch(MANY - 1)
        });
        taken.unlock().expect("it was held");
    }
}

/// What the argument against deadlocks rests on.
#[test]
fn who_waits_for_a_key_holds_those_before_it_and_none_behind() {
    let (ours, other, keys) = (manager(), manager(), unique_keys::<6>());
    for is_async in [false, true] {
        let mut holders: Vec<Option<Lock>> = keys.map(|_| None).into();
        for taken in [2, 4] {
            holders[taken] = Some(lock(&other, keys[taken]));
        }
        let (asked, none) = (ours.acquire_all(keys).timeout(LIMIT), Vec::<i64>::new());
        thread::scope(|scope| {
            let waiter = scope.spawn(move || match is_async {
                false => asked.wait(),
                true => block_on(asked),
            });
            for (waits_for, held) in [(2, 0..2), (4, 0..4)] {
                let mut expected = none.clone();
                expected.extend(&keys[held]);
                expected.extend(holders.iter().flatten().map(|lock| number(lock.key())));
                expected.sort_unstable();
                wait_until("only the smaller ones are held", LIMIT, || {
                    locked_of(&keys) == expected
                });
                assert!(!waiter.is_finished());
                // The last key is free for others.
                lock(&other, keys[5]).unlock().expect("it was held");
                drop(holders[waits_for].take());
            }
            let set = waiter.join().expect("no panic").expect("all are free");
            assert_eq!(locked_of(&keys), keys);
            set.unlock().expect("it was held");
        });
    }
}

fn number(key: Key) -> i64 {
    match key {
        Key::Bigint(key) => key,
        Key::Pair(..) => panic!("no pair in this test"),
    }
}

/// xorshift64: one choice out of `limit`.
fn choose(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) % limit
}

/// Some of the keys, in any order.
fn some_of(keys: &[i64], choices: &mut u64) -> Vec<i64> {
    let count = 2 + choose(choices, 3);
    (0..count).map(|_| keys[choose(choices, keys.len() as u64) as usize]).collect()
}

/// How many crossing sets are asked for; `DISTLOCK_SET_ROUNDS` says how many others.
fn rounds_of_sets() -> u32 {
    let rounds = std::env::var("DISTLOCK_SET_ROUNDS");
    rounds.map_or(20_000, |rounds| rounds.parse().expect("a number of rounds"))
}

#[test]
fn crossing_sets_of_two_managers_and_their_threads_never_deadlock_and_never_overlap() {
    let limit = rounds_of_sets();
    let cluster = TempCluster::start();
    let managers = [(); 2].map(|()| Manager::connect(cluster.url()).expect("connects"));
    let keys: Vec<i64> = (0..10).collect();
    let inside = [(); 10].map(|()| AtomicU64::new(0));
    let rounds = AtomicU32::new(0);
    thread::scope(|scope| {
        for worker in 1..=6_u64 {
            let (keys, inside, rounds) = (&keys, &inside, &rounds);
            let manager = &managers[worker as usize % 2];
            scope.spawn(move || {
                let mut choices = 0x9e37_79b9_7f4a_7c15 ^ (worker * 7919);
                while rounds.fetch_add(1, Ordering::SeqCst) < limit {
                    let asked = manager.acquire_all(some_of(keys, &mut choices)).timeout(LIMIT);
                    let set = match choose(&mut choices, 3) {
                        0 => block_on(asked),
                        _ => asked.wait(),
                    };
                    let set = set.expect("a deadlock would be a timeout");
                    let places: Vec<usize> = set.keys().map(|key| number(key) as usize).collect();
                    for place in &places {
                        let before = inside[*place].swap(worker, Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold the key");
                    }
                    assert!(set.is_held());
                    for place in places {
                        inside[place].store(0, Ordering::SeqCst);
                    }
                    match choose(&mut choices, 4) {
                        0 => set.unlock().expect("it was held"),
                        _ => drop(set),
                    }
                }
            });
        }
    });
    managers.iter().for_each(round_trip);
    let mut sql = cluster.sql();
    wait_until("the last release", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
}

type Asking = Pin<Box<dyn Future<Output = Result<Option<LockSet>, Error>> + Send>>;

/// Polls a request some times and drops it, wherever it is then. Gives the set if it got that far.
fn poll_and_drop(mut asking: Asking, choices: &mut u64) -> Option<LockSet> {
    let waker = unparker();
    for _ in 0..choose(choices, 6) {
        if let Poll::Ready(result) = asking.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            return result.expect("no limit is reached");
        }
        thread::park_timeout(Duration::from_micros(300 * choose(choices, 4)));
    }
    None
}

/// The set, if the context or the time limit has let it be.
fn ask_briefly(asked: AcquireAll, choices: &mut u64) -> Option<LockSet> {
    let span = Duration::from_micros(choose(choices, 3_000));
    let background = Context::background();
    match choose(choices, 5) {
        0 => poll_and_drop(Box::pin(asked.try_async()), choices),
        1 => poll_and_drop(Box::pin(async { asked.await.map(Some) }), choices),
        2 => asked.try_now().expect("no limit is reached"),
        3 => asked.timeout(span).wait().map_err(|error| assert!(error.is_timeout())).ok(),
        _ => {
            let (context, canceler) = background.with_cancel();
            let canceling = thread::spawn(move || {
                thread::park_timeout(span);
                canceler.cancel();
            });
            let set = asked.context(&context).wait();
            canceling.join().expect("no panic");
            set.map_err(|error| assert!(error.is_canceled(), "{error}")).ok()
        }
    }
}

fn whoever_gives_up_leaves_what_is_held(config: &Config) {
    let managers = [(); 2].map(|()| Manager::connect(config.clone()).expect("connects"));
    let keys = unique_keys::<6>();
    for round in 0..10 {
        let kept: Vec<LockSet> = thread::scope(|scope| {
            let threads = (0..4).map(|worker| {
                let (manager, keys) = (&managers[worker % 2], &keys);
                scope.spawn(move || {
                    let mut choices =
                        0x9e37_79b9_7f4a_7c15_u64.rotate_left((round * 4 + worker) as u32);
                    let mut kept = None;
                    for _ in 0..80 {
                        let asked = manager.acquire_all(some_of(keys, &mut choices));
                        if let Some(set) = ask_briefly(asked, &mut choices) {
                            // With the context of a set gone that it had been canceled by.
                            kept = Some(set).filter(|set| !set.context().is_done());
                            kept = kept.filter(|_| choose(&mut choices, 3) > 0);
                        }
                    }
                    kept
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().filter_map(|it| it.join().expect("no panic")).collect()
        });
        for manager in managers.iter().chain(&managers) {
            round_trip(manager);
        }
        let mut held: Vec<i64> = kept.iter().flat_map(LockSet::keys).map(number).collect();
        held.sort_unstable();
        assert_eq!(locked_of(&keys), held, "round {round}");
        assert!(kept.iter().all(LockSet::is_held));
    }
}

#[test]
fn sets_given_up_at_any_point_leave_in_pg_locks_what_is_held() {
    whoever_gives_up_leaves_what_is_held(&config());
}

#[test]
fn with_release_on_cancel_sets_given_up_leave_in_pg_locks_what_is_held() {
    whoever_gives_up_leaves_what_is_held(&config().release_on_cancel(true));
}

#[test]
fn a_timeout_and_a_cancelled_context_end_a_wait_and_leave_no_trace() {
    let (ours, other, keys) = (manager(), manager(), unique_keys::<4>());
    let taken = lock(&other, keys[2]);
    let short = Duration::from_millis(30);
    let (cancelled, canceler) = Context::background().with_cancel();
    thread::spawn(move || {
        thread::sleep(short);
        canceler.cancel();
    });
    let asked = ours.acquire_all(keys);
    for asked in [asked.clone().timeout(short), asked.context(&cancelled)] {
        let by_thread = asked.clone().wait().expect_err("taken");
        // Woken by itself: nobody polls it again.
        let (sender, ended) = channel();
        thread::spawn(move || sender.send(block_on(asked)));
        let by_task = ended.recv_timeout(LIMIT / 2).expect("it ends").expect_err("taken");
        assert!(by_thread.is_canceled() && by_task.is_canceled(), "{by_thread} {by_task}");
        round_trip(&ours);
        assert_eq!(locked_of(&keys), [keys[2]]);
    }
    taken.unlock().expect("it was held");
    drop(other.acquire_all(keys).try_now().expect("answers").expect("nobody is left waiting"));
}

#[test]
fn the_context_of_a_set_ends_with_its_parent_or_with_any_of_its_locks() {
    let (manager, keys) = (manager(), unique_keys::<4>());
    let (parent, canceler) = Context::background().with_cancel();
    let set = manager.acquire_all(keys).context(&parent).wait().expect("free");
    canceler.cancel();
    assert_eq!(set.context().err(), Some(Cause::Canceled));
    assert!(set.is_held() && locked_of(&keys) == keys, "a slow holder is still alone");
    drop(set);
    for gone in 0..keys.len() {
        let set = manager.acquire_all(keys).wait().expect("free");
        let context = set.context().clone();
        let child = context.with_timeout(LIMIT);
        let mut locks: Vec<Lock> = set.into();
        assert!(context.err().is_none() && locks.iter().all(Lock::is_held));
        drop(locks.remove(gone));
        assert_eq!(context.err(), Some(Cause::Released));
        assert_eq!(child.err(), Some(Cause::Released));
        assert!(locks.iter().all(|lock| lock.is_held() && lock.context().err().is_none()));
    }
    let count = manager.acquire_all(keys).wait().expect("free").into_iter().count();
    assert_eq!(count, 4);
}

#[test]
fn a_set_that_can_never_be_had_is_an_error_at_once() {
    let (keys, ctx) = (unique_keys::<4>(), Context::background());
    let few_requests = Manager::connect(config().max_requests(3)).expect("connects");
    let few_locks = Manager::connect(config().max_locks(3)).expect("connects");
    // Even one that would have to wait.
    let other = manager();
    let taken = other.acquire_all(keys).wait().expect("free");
    for asked in [few_requests.acquire_all(keys), few_locks.acquire_all(keys)] {
        let asked = asked.timeout(LIMIT);
        let errors = [
            asked.clone().wait().expect_err("too many"),
            asked.clone().try_now().expect_err("too many"),
            block_on(asked).expect_err("too many"),
        ];
        for error in errors {
            let named = matches!(
                error,
                Error::TooManyRequests { limit: 3 } | Error::TooManyLocks { limit: 3 }
            );
            assert!(named && error.is_limit(), "{error}");
        }
    }
    drop(taken);
    // A set that fits, but for what is held already, does not wait either, and leaves nothing.
    let held = few_locks.lock(&ctx, unique_key()).expect("free");
    let asked = few_locks.acquire_all(keys[..3].to_vec());
    assert!(asked.clone().wait().expect_err("no room").is_max_locks());
    assert!(asked.clone().try_now().expect_err("no room").is_max_locks());
    drop(held);
    drop(asked.wait().expect("there is room again"));
    drop(few_requests.acquire_all(keys[1..].to_vec()).wait().expect("three requests"));
}

#[test]
fn sets_share_limits_that_are_too_small_for_all_of_them_and_lose_nothing() {
    let config = config().max_requests(4).max_locks(4).max_waiters(2);
    let (manager, keys) = (Manager::connect(config).expect("connects"), unique_keys::<6>());
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (manager, keys) = (&manager, &keys);
            scope.spawn(move || {
                let mut choices = 0x9e37_79b9_7f4a_7c15_u64.rotate_left(worker as u32 * 5);
                for _ in 0..500 {
                    match manager.acquire_all(some_of(keys, &mut choices)).timeout(LIMIT).wait() {
                        Ok(set) => drop(set),
                        Err(error) => assert!(error.is_limit(), "{error}"),
                    }
                }
            });
        }
    });
    wait_until("every slot is free again", LIMIT, || {
        manager.acquire_all(keys[..4].to_vec()).try_now().ok().flatten().is_some()
    });
    round_trip(&manager);
    assert_eq!(locked_of(&keys), []);
}
