//! What holders and waiters see while all is well, against a real server: exclusion, contexts,
//! waiting, giving up, and that `pg_locks` is never anything but what is held.

mod support;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Cause, Config, Context, Error, Key, Lock, Manager};
use support::{block_on, pg_locks_advisory, shared_cluster, unique_key, unparker, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn manager() -> Manager {
    Manager::connect(shared_cluster().url()).expect("connects")
}

fn releasing_manager() -> Manager {
    let config: Config = shared_cluster().url().parse().expect("a URL");
    Manager::connect(config.release_on_cancel(true)).expect("connects")
}

/// Whether the server has a holder of the key.
fn is_locked(key: i64) -> bool {
    pg_locks_advisory(&mut shared_cluster().sql()).iter().any(|(held, _)| *held == key)
}

/// Those of the keys that the server has a holder of.
fn locked_of(keys: &[i64]) -> Vec<i64> {
    let all = pg_locks_advisory(&mut shared_cluster().sql());
    all.into_iter().map(|(key, _)| key).filter(|key| keys.contains(key)).collect()
}

fn try_lock(manager: &Manager, key: impl Into<Key>) -> Option<Lock> {
    manager.try_lock(&Context::background(), key).expect("the server answers")
}

type Asking = Pin<Box<dyn Future<Output = Result<Option<Lock>, Error>> + Send>>;

/// A future that waits for a lock, polled once: its place in the queue is taken.
fn queued(manager: &Manager, key: i64) -> Pin<Box<distlock::Acquiring>> {
    let mut future = Box::pin(manager.acquire(key).into_future());
    let polled = future.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the key is taken");
    future
}

#[test]
fn a_lock_is_held_from_the_grant_to_the_unlock_and_the_server_agrees() {
    let (manager, key) = (manager(), unique_key());
    assert!(!is_locked(key));
    let lock = try_lock(&manager, key).expect("free");
    assert_eq!(lock.key(), Key::Bigint(key));
    assert!(lock.is_held() && !lock.remaining().is_zero() && is_locked(key));
    assert_eq!(lock.context().err(), None);
    let context = lock.context().clone();
    lock.unlock().expect("it was held");
    assert_eq!(context.err(), Some(Cause::Released));
    assert!(!is_locked(key), "unlock answers after the server has");
}

#[test]
fn the_locks_that_are_held_are_those_in_pg_locks() {
    let manager = manager();
    let keys: Vec<i64> = (0..40).map(|_| unique_key()).collect();
    let mut locks = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        locks.push(try_lock(&manager, *key).expect("free"));
        assert_eq!(locked_of(&keys), keys[..=index]);
    }
    for index in (0..keys.len()).rev() {
        locks.pop().expect("as many as keys").unlock().expect("it was held");
        assert_eq!(locked_of(&keys), keys[..index]);
    }
}

#[test]
fn a_dropped_lock_is_free_for_everybody() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    drop(try_lock(&ours, key).expect("free"));
    // The next request of the same session is ordered behind the release.
    drop(try_lock(&ours, key).expect("free again"));
    drop(other.lock(&Context::background(), key).expect("free soon"));
}

#[test]
fn of_many_tries_in_one_manager_and_in_many_exactly_one_succeeds() {
    let one = manager();
    let many: Vec<Manager> = (0..3).map(|_| manager()).collect();
    for _ in 0..20 {
        let key = unique_key();
        let start = std::sync::Barrier::new(8);
        let locks: Vec<Option<Lock>> = thread::scope(|scope| {
            let tries = (0..8).map(|n| {
                let manager = many.get(n % 5).unwrap_or(&one);
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    try_lock(manager, key)
                })
            });
            let tries: Vec<_> = tries.collect();
            tries.into_iter().map(|it| it.join().expect("no panic")).collect()
        });
        assert_eq!(locks.iter().flatten().count(), 1);
        assert_eq!(locked_of(&[key]), [key]);
    }
}

#[test]
fn contention_is_not_an_error_however_it_is_asked() {
    let (holder, other, key) = (manager(), manager(), unique_key());
    let lock = try_lock(&holder, key).expect("free");
    for manager in [&holder, &other] {
        assert!(try_lock(manager, key).is_none());
        assert!(manager.acquire(key).try_now().expect("answers").is_none());
        assert!(block_on(manager.acquire(key).try_async()).expect("answers").is_none());
    }
    assert!(lock.is_held());
    lock.unlock().expect("it was held");
    assert!(try_lock(&other, key).is_some(), "unlock answers after the server has");
}

#[test]
fn a_lock_that_another_program_holds_is_taken_and_then_waited_for() {
    let (manager, key) = (manager(), unique_key());
    let mut program = shared_cluster().sql();
    program.query(&format!("SELECT pg_advisory_lock({key})"));
    assert!(try_lock(&manager, key).is_none());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| manager.lock(&Context::background(), key));
        program.query(&format!("SELECT pg_advisory_unlock({key})"));
        let lock = waiter.join().expect("no panic").expect("granted");
        let (sql, text) = (&mut program, format!("SELECT pg_try_advisory_lock({key})"));
        assert_eq!(sql.value(&text).as_deref(), Some("f"));
        drop(lock);
    });
}

#[test]
fn a_cancelled_parent_ends_the_context_at_once_and_leaves_the_lock_to_its_holder() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    let (parent, canceler) = Context::background().with_cancel();
    let lock = ours.try_lock(&parent, key).expect("answers").expect("free");
    let child = lock.context().with_timeout(LIMIT);
    canceler.cancel();
    assert_eq!(lock.context().err(), Some(Cause::Canceled));
    assert_eq!(child.err(), Some(Cause::Canceled));
    assert!(lock.is_held() && is_locked(key), "a slow holder is still alone");
    assert!(try_lock(&other, key).is_none() && try_lock(&ours, key).is_none());
    drop(lock);
    drop(other.lock(&Context::background(), key).expect("free soon"));
}

#[test]
fn a_deadline_of_the_parent_ends_the_context_and_leaves_the_lock_to_its_holder() {
    let (ours, key) = (manager(), unique_key());
    let parent = Context::background().with_timeout(Duration::from_millis(500));
    let lock = ours.lock(&parent, key).expect("free");
    assert!(lock.context().deadline().is_some());
    assert_eq!(lock.context().done().wait_timeout(LIMIT), Some(Cause::DeadlineExceeded));
    assert!(lock.is_held() && is_locked(key));
    lock.unlock().expect("it was held");
    assert!(!is_locked(key));
}

#[test]
fn with_release_on_cancel_the_server_frees_the_lock_without_the_holder() {
    let (ours, other) = (releasing_manager(), manager());
    let keys = [unique_key(), unique_key()];
    let (parent, canceler) = Context::background().with_cancel();
    let cancelled = ours.try_lock(&parent, keys[0]).expect("answers").expect("free");
    let short = Context::background().with_timeout(Duration::from_millis(500));
    let expired = ours.lock(&short, keys[1]).expect("free");
    canceler.cancel();
    for (lock, key) in [(&cancelled, keys[0]), (&expired, keys[1])] {
        drop(other.lock(&Context::background(), key).expect("freed"));
        wait_until("the lock counts as over", LIMIT, || !lock.is_held());
    }
    assert_eq!(cancelled.context().err(), Some(Cause::Canceled));
    assert_eq!(expired.context().err(), Some(Cause::DeadlineExceeded));
}

#[test]
fn with_release_on_cancel_an_unlock_of_a_held_lock_is_no_loss() {
    let (manager, key) = (releasing_manager(), unique_key());
    let lock = try_lock(&manager, key).expect("free");
    lock.unlock().expect("it was held");
    assert!(!is_locked(key), "unlock answers after the server has");
}

#[test]
fn with_release_on_cancel_unlock_after_the_cancelling_is_no_loss() {
    let (ours, other) = (releasing_manager(), manager());
    for key in [(); 20].map(|()| unique_key()) {
        let (parent, canceler) = Context::background().with_cancel();
        let lock = ours.try_lock(&parent, key).expect("answers").expect("free");
        canceler.cancel();
        drop(other.lock(&Context::background(), key).expect("freed"));
        lock.unlock().expect("released as it was asked for, not lost");
    }
}

#[test]
fn a_late_second_release_does_not_touch_a_newer_hold() {
    let (ours, other, key) = (releasing_manager(), manager(), unique_key());
    for round in 0..40 {
        let (parent, canceler) = Context::background().with_cancel();
        let old = ours.try_lock(&parent, key).expect("answers").expect("free");
        // The first release; the second one is the holder's, below.
        canceler.cancel();
        let new = ours.lock(&Context::background(), key).expect("freed");
        if round % 2 == 0 {
            drop(old)
        } else {
            drop(old.unlock())
        }
        // A round trip, behind whatever the second release has sent.
        assert!(try_lock(&ours, unique_key()).is_some());
        assert!(new.is_held() && new.context().err().is_none() && is_locked(key));
        assert!(try_lock(&other, key).is_none());
        new.unlock().expect("it was held");
    }
}

#[test]
fn children_end_with_their_lock_and_never_the_other_way_round() {
    let (manager, key) = (manager(), unique_key());
    let (parent, _canceler) = Context::background().with_cancel();
    let lock = manager.try_lock(&parent, key).expect("answers").expect("free");
    let (child, child_canceler) = lock.context().with_cancel();
    let sibling = lock.context().with_timeout(LIMIT);
    let grandchild = child.with_timeout(LIMIT);
    child_canceler.cancel();
    assert_eq!(grandchild.err(), Some(Cause::Canceled));
    assert!(!sibling.is_done() && !lock.context().is_done() && lock.is_held());
    let waiter = thread::spawn(move || sibling.done().wait());
    drop(lock);
    assert_eq!(waiter.join().expect("no panic"), Cause::Released);
    assert_eq!(child.err(), Some(Cause::Canceled), "the first cause stands");
    assert!(!parent.is_done());
}

/// Two names with one FNV-1a hash of 64 bits, and that number itself. In the Go library both of
/// the names would be granted to one manager.
#[test]
fn two_names_whose_hashes_collide_exclude_each_other() {
    let (ours, other) = (manager(), manager());
    let (one, two, number) = ("7mohtcOFVz", "c1E51sSEyx", 0x184a_de9a_9619_53a2_i64);
    assert_eq!((Key::from(one), Key::from(two)), (Key::Bigint(number), Key::Bigint(number)));
    let lock = try_lock(&ours, one).expect("free");
    for manager in [&ours, &other] {
        assert!(try_lock(manager, two).is_none() && try_lock(manager, number).is_none());
    }
    let waiting = queued(&ours, number);
    lock.unlock().expect("it was held");
    let by_number = block_on(waiting).expect("granted");
    assert!(try_lock(&ours, one).is_none() && try_lock(&other, two).is_none());
    assert_eq!(locked_of(&[number]), [number]);
    by_number.unlock().expect("it was held");
}

#[test]
fn pairs_and_bigints_never_meet() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    let pair = ((key >> 32) as i32, key as i32);
    let bigint_lock = try_lock(&ours, key).expect("free");
    let pair_lock = try_lock(&ours, pair).expect("free, in the other space");
    let mut sql = shared_cluster().sql();
    let locks = format!("classid = {}::oid AND objid = {}::oid", pair.0 as u32, pair.1 as u32);
    let spaces = "SELECT string_agg(objsubid::text, ' ' ORDER BY objsubid) FROM pg_locks WHERE";
    assert_eq!(sql.value(&format!("{spaces} {locks}")).as_deref(), Some("1 2"));
    bigint_lock.unlock().expect("it was held");
    assert!(pair_lock.is_held() && try_lock(&other, pair).is_none());
    assert!(try_lock(&other, key).is_some());
    pair_lock.unlock().expect("it was held");
    let swapped = try_lock(&ours, (pair.1, pair.0)).expect("another pair");
    assert!(try_lock(&other, pair).is_some());
    drop(swapped);
}

#[test]
fn waiters_of_one_manager_get_the_key_in_the_order_they_came() {
    let (manager, key) = (manager(), unique_key());
    let lock = try_lock(&manager, key).expect("free");
    let (order, turns) = channel();
    thread::scope(|scope| {
        for n in 0..10 {
            let future = queued(&manager, key);
            let order = order.clone();
            scope.spawn(move || {
                let lock = block_on(future).expect("granted");
                order.send(n).expect("the test waits");
                drop(lock);
            });
        }
        drop(lock);
    });
    drop(order);
    assert_eq!(turns.iter().collect::<Vec<i32>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn all_waiters_of_all_managers_get_the_key_and_never_two_at_once() {
    const ROUNDS: u32 = 15;
    let managers: Vec<Manager> = (0..4).map(|_| manager()).collect();
    let key = unique_key();
    let (inside, counter) = (AtomicBool::new(false), AtomicU32::new(0));
    let work = |lock: Lock| {
        assert!(!inside.swap(true, Ordering::SeqCst), "two holders at once");
        assert!(lock.is_held());
        // A read and a write that only exclusion makes one.
        let before = counter.load(Ordering::SeqCst);
        thread::yield_now();
        counter.store(before + 1, Ordering::SeqCst);
        inside.store(false, Ordering::SeqCst);
    };
    thread::scope(|scope| {
        for n in 0..8 {
            let (manager, work) = (&managers[n % 4], &work);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let asked = manager.acquire(key).timeout(LIMIT);
                    work(
                        if n < 4 { asked.wait() } else { block_on(asked.into_future()) }
                            .expect("a turn"),
                    );
                }
            });
        }
    });
    assert_eq!(counter.load(Ordering::SeqCst), 8 * ROUNDS);
    wait_until("the last one's release", LIMIT, || !is_locked(key));
}

#[test]
fn a_wait_ends_with_its_timeout_and_its_context_and_leaves_no_trace() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    let lock = try_lock(&ours, key).expect("free");
    let short = Duration::from_millis(30);
    let background = Context::background();
    for manager in [&ours, &other] {
        let by_timeout = manager.acquire(key).timeout(short);
        let by_context = manager.acquire(key).context(&background.with_timeout(short));
        for asked in [by_timeout, by_context] {
            for error in [
                asked.clone().wait().expect_err("taken"),
                block_on(asked.clone().into_future()).expect_err("taken"),
            ] {
                assert!(error.is_timeout() && error.is_canceled(), "{error}");
            }
        }
        let zero = manager.acquire(unique_key()).timeout(Duration::ZERO);
        assert!(zero.clone().wait().expect_err("no time").is_timeout());
        assert!(block_on(zero.into_future()).expect_err("no time").is_timeout());
    }
    lock.unlock().expect("it was held");
    assert!(try_lock(&other, key).is_some(), "nobody is left waiting");
}

#[test]
fn cancelling_ends_waits_that_block_and_waits_that_are_awaited() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    let lock = try_lock(&ours, key).expect("free");
    for manager in [&ours, &other] {
        for is_async in [false, true] {
            let (context, canceler) = Context::background().with_cancel();
            let asked = manager.acquire(key).context(&context);
            let (sender, ended) = channel();
            let again = asked.clone();
            thread::spawn(move || {
                sender.send(if is_async { block_on(asked.into_future()) } else { asked.wait() })
            });
            // Whether it waits already or has yet to begin, it ends.
            assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "the key is taken");
            canceler.cancel();
            let error = ended.recv_timeout(LIMIT).expect("it ends").expect_err("taken");
            assert!(error.is_canceled() && !error.is_timeout(), "{error}");
            assert!(again.wait().expect_err("a context that is done").is_canceled());
        }
    }
    lock.unlock().expect("it was held");
    assert!(try_lock(&other, key).is_some(), "nobody is left waiting");
}

#[test]
fn locks_are_awaited_on_any_executor() {
    let (manager, key) = (manager(), unique_key());
    block_on(async {
        let context = Context::background();
        let lock = manager.acquire(key).context(&context).await.expect("free");
        assert!(lock.is_held() && is_locked(key));
        assert!(manager.acquire(key).try_async().await.expect("answers").is_none());
        let done = lock.context().done();
        drop(lock);
        assert_eq!(done.await, Cause::Released);
        let again = manager.acquire(key).try_async().await.expect("answers");
        again.expect("free").unlock().expect("it was held");
    });
    assert!(!is_locked(key));
}

/// xorshift64: one choice out of `limit`.
fn choose(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % limit
}

/// Polls a request some times and drops it: before the grant, while it is on its way, when it is
/// there but was not looked at, or after it was taken. Gives the lock back if it got that far.
fn poll_and_drop(mut asking: Asking, choices: &mut u64) -> Option<Lock> {
    let waker = unparker();
    for _ in 0..choose(choices, 4) {
        if let Poll::Ready(result) = asking.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            return result.expect("no limit is reached");
        }
        // Not at all, or until the answer is there; or, where it stays away, for a moment.
        thread::park_timeout(Duration::from_micros(300 * choose(choices, 3)));
    }
    None
}

#[test]
fn requests_dropped_at_any_point_leave_in_pg_locks_what_is_held() {
    let managers = [manager(), manager()];
    let keys: Vec<i64> = (0..4).map(|_| unique_key()).collect();
    for round in 0..10 {
        let kept: Vec<Lock> = thread::scope(|scope| {
            let threads = (0..4).map(|thread| {
                let (manager, keys) = (&managers[thread % 2], &keys);
                scope.spawn(move || {
                    let mut choices =
                        0x9e37_79b9_7f4a_7c15_u64.rotate_left((round * 4 + thread) as u32);
                    let mut kept = None;
                    for _ in 0..120 {
                        let asked = manager.acquire(keys[choose(&mut choices, 4) as usize]);
                        let asking: Asking = match choose(&mut choices, 3) {
                            0 => Box::pin(asked.try_async()),
                            _ => Box::pin(async { asked.await.map(Some) }),
                        };
                        if let Some(lock) = poll_and_drop(asking, &mut choices) {
                            kept = Some(lock).filter(|_| choose(&mut choices, 3) > 0);
                        }
                    }
                    kept
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().filter_map(|it| it.join().expect("no panic")).collect()
        });
        // What a session still has to release, it has sent before this is answered: a grant that
        // comes too late is released in front of the second lock's release.
        for manager in managers.iter().chain(&managers) {
            try_lock(manager, unique_key()).expect("free").unlock().expect("it was held");
        }
        let mut held: Vec<i64> = keys.clone();
        held.retain(|key| kept.iter().any(|lock| lock.key() == Key::Bigint(*key)));
        assert_eq!(locked_of(&keys), held, "round {round}");
    }
}
