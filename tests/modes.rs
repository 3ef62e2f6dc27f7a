//! Shared, counted and fenced locks, and keeping a grant back, against a real server.

mod support;

#[path = "modes/processes.rs"]
mod processes;
#[path = "sets/relay.rs"]
mod relay;
#[path = "modes/settle.rs"]
mod settle;

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use distlock::{Cause, Context, Error, Key, Lock, Manager};
use relay::Relay;
use support::{TempCluster, block_on, shared_cluster, unique_key, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn manager() -> Manager {
    Manager::connect(shared_cluster().url()).expect("connects")
}

fn share(manager: &Manager, key: i64) -> Option<Lock> {
    manager.acquire(key).shared().try_now().expect("an answer")
}

fn alone(manager: &Manager, key: i64) -> Option<Lock> {
    manager.acquire(key).try_now().expect("an answer")
}

/// All advisory locks of managers, whatever they are for.
fn all_locks(cluster: &TempCluster) -> Vec<String> {
    let query = "SELECT l.pid || ' ' || classid || ' ' || objid || ' ' || objsubid || ' ' || mode \
                 FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                 WHERE locktype = 'advisory' AND application_name = 'distlock' ORDER BY 1";
    let rows = cluster.sql().query(query);
    rows.into_iter().filter_map(|mut row| row.remove(0)).collect()
}

#[test]
fn sharers_of_all_managers_hold_at_once_and_nobody_has_it_alone_meanwhile() {
    let (one, two, key) = (manager(), manager(), unique_key());
    let sharers = [share(&one, key), share(&one, key), share(&two, key)];
    let [a, b, c] = sharers.map(|sharer| sharer.expect("it is shared"));
    assert!(alone(&one, key).is_none() && alone(&two, key).is_none());
    a.unlock().expect("it was held");
    c.unlock().expect("it was held");
    assert!(alone(&two, key).is_none(), "one sharer is left");
    b.unlock().expect("it was held");
    let held = alone(&two, key).expect("it is free");
    assert!(share(&one, key).is_none() && share(&two, key).is_none());
    held.unlock().expect("it was held");
}

#[test]
fn who_waits_to_have_a_key_alone_keeps_new_sharers_out_everywhere() {
    let (one, two, three, key) = (manager(), manager(), manager(), unique_key());
    // The last clone that is dropped closes a manager.
    let keep = (two.clone(), three.clone());
    let first = share(&one, key).expect("it is free");
    let waiter = thread::spawn(move || two.acquire(key).timeout(LIMIT).wait());
    // The gate is closed once the waiter has registered.
    wait_until("new sharers are refused", LIMIT, || share(&three, key).is_none());
    // Where the key is shared, others are asked after a while.
    wait_until("also where it is shared", LIMIT, || share(&one, key).is_none());
    let sharer = thread::spawn(move || three.acquire(key).shared().timeout(LIMIT).wait());
    first.unlock().expect("it was held");
    let held = waiter.join().expect("no panic").expect("its turn");
    assert!(!sharer.is_finished());
    held.unlock().expect("it was held");
    drop(sharer.join().expect("no panic").expect("its turn"));
    drop(keep);
}

#[test]
fn a_waiter_that_gives_up_lets_the_sharers_behind_it_in() {
    let (one, two, three, key) = (manager(), manager(), manager(), unique_key());
    let keep = (one.clone(), three.clone());
    let _first = share(&one, key).expect("it is free");
    let (ctx, canceler) = Context::background().with_cancel();
    let waiter = thread::spawn(move || two.acquire(key).context(&ctx).wait());
    wait_until("new sharers are refused", LIMIT, || share(&three, key).is_none());
    let sharer = thread::spawn(move || three.acquire(key).shared().timeout(LIMIT).wait());
    let behind = thread::spawn(move || one.acquire(key).shared().timeout(LIMIT).wait());
    canceler.cancel();
    let error = waiter.join().expect("no panic").expect_err("it was cancelled");
    assert!(error.is_canceled(), "{error}");
    let _sharer = sharer.join().expect("no panic").expect("nobody keeps it out");
    let _behind = behind.join().expect("no panic").expect("nobody keeps it out");
    drop(keep);
}

#[test]
fn a_downgrade_lets_sharers_in_and_never_lets_go() {
    let (one, two, key) = (manager(), manager(), unique_key());
    let mut lock = alone(&one, key).expect("it is free");
    let sharer = {
        let two = two.clone();
        thread::spawn(move || two.acquire(key).shared().timeout(LIMIT).wait())
    };
    lock.downgrade().expect("it is held");
    let shared = sharer.join().expect("no panic").expect("it is shared");
    assert!(lock.is_held() && alone(&two, key).is_none());
    lock.downgrade().expect("it stays what it is");
    lock.unlock().expect("it was held");
    shared.unlock().expect("it was held");
    alone(&two, key).expect("it is free").unlock().expect("it was held");
}

#[test]
fn a_downgrade_that_a_client_in_the_servers_queue_is_in_the_way_of_changes_nothing() {
    let (one, two, key) = (manager(), manager(), unique_key());
    let mut lock = alone(&one, key).expect("it is free");
    let mut sql = shared_cluster().sql();
    let waiting = format!("SELECT 1 FROM pg_locks WHERE pid = {} AND NOT granted", sql.pid());
    let queued = thread::spawn(move || {
        sql.query(&format!("SELECT pg_advisory_lock({key}), pg_advisory_unlock({key})"));
    });
    let mut look = shared_cluster().sql();
    wait_until("it waits", LIMIT, || !look.query(&waiting).is_empty());
    for _ in 0..2 {
        let error = lock.downgrade().expect_err("the server lets nobody share it now");
        assert!(matches!(error, Error::QueuedFor { .. }), "{error}");
        assert!(lock.is_held() && share(&two, key).is_none());
    }
    lock.unlock().expect("it was held alone to the end");
    queued.join().expect("its turn");
    let mut again = alone(&one, key).expect("it is free");
    again.downgrade().expect("nobody is in the way");
    share(&two, key).expect("it is shared").unlock().expect("it was held");
}

/// Many threads of several processes' worth of managers: readers together, writers alone.
#[test]
fn readers_and_writers_of_many_managers_never_meet() {
    let key = unique_key();
    let inside = AtomicI32::new(0);
    let grants = AtomicU32::new(0);
    thread::scope(|scope| {
        for number in 0..3 {
            let manager = manager();
            for thread in 0..4 {
                let (manager, inside, grants) = (manager.clone(), &inside, &grants);
                scope.spawn(move || {
                    for round in 0..100 {
                        let writes = (round + thread + number) % 3 == 0;
                        let acquire = manager.acquire(key).timeout(LIMIT);
                        let acquire = if writes { acquire } else { acquire.shared() };
                        let mut lock = acquire.wait().expect("its turn");
                        grants.fetch_add(1, Ordering::SeqCst);
                        if writes {
                            assert_eq!(inside.swap(-1, Ordering::SeqCst), 0, "alone");
                            if round % 2 == 0 {
                                // From here on it is a reader.
                                inside.store(1, Ordering::SeqCst);
                                lock.downgrade().expect("it is held");
                                inside.fetch_sub(1, Ordering::SeqCst);
                            } else {
                                inside.store(0, Ordering::SeqCst);
                            }
                        } else {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) >= 0, "no writer");
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(lock);
                    }
                });
            }
        }
    });
    assert_eq!(grants.load(Ordering::SeqCst), 1200);
}

#[test]
fn a_counted_lock_has_so_many_holders_and_no_more() {
    let (one, two, key) = (manager(), manager(), unique_key());
    let take = |manager: &Manager| manager.acquire(key).slots(3).try_now().expect("an answer");
    let first = take(&one).expect("one of three");
    let second = take(&one).expect("two of three: not its own slot again");
    let third = take(&two).expect("three of three");
    assert!(take(&one).is_none() && take(&two).is_none());
    let plain = alone(&one, key).expect("a lock of its own");
    second.unlock().expect("it was held");
    let fourth = take(&two).expect("a slot is free");
    assert!(take(&one).is_none());
    for lock in [first, third, fourth, plain] {
        lock.unlock().expect("it was held");
    }
    let all: Vec<Lock> = (0..3).filter_map(|_| take(&two)).collect();
    assert_eq!(all.len(), 3, "every slot is free again");
    assert!(take(&one).is_none());
}

/// However many of them are taken, by others and by the session itself, before a free one comes.
#[test]
fn a_free_slot_is_found_in_one_batch_and_so_is_that_there_is_none() {
    const SLOTS: u32 = 64;
    let relay = Relay::start(shared_cluster());
    // No heartbeat meanwhile.
    let config = relay.config().heartbeat(LIMIT).reply_timeout(LIMIT * 2);
    let config = config.lease(LIMIT * 5).server_timeout(LIMIT * 10);
    let manager = Manager::connect(config).expect("connects");
    let (direct, key) = (self::manager(), unique_key());
    let take = |manager: &Manager| manager.acquire(key).slots(SLOTS).try_now().expect("an answer");
    // The statements are prepared at their first use.
    take(&manager).expect("it is free").unlock().expect("it was held");
    relay.said();
    let mut taken = Vec::new();
    while taken.len() < SLOTS as usize {
        for is_async in [false, true] {
            let asked = manager.acquire(key).slots(SLOTS);
            let slot = match is_async {
                false => asked.wait(),
                true => block_on(asked),
            };
            // Bind, Execute, Sync.
            assert_eq!(relay.said(), "BES", "behind {} taken ones", taken.len());
            slot.expect("it is free").unlock().expect("it was held");
            assert_eq!(relay.said(), "BES", "the release");
        }
        let by = if taken.len() % 3 == 0 { &manager } else { &direct };
        taken.push(take(by).expect("it is free"));
        relay.said();
    }
    assert!(take(&manager).is_none());
    assert_eq!(relay.said(), "BES", "all are taken");
}

#[test]
fn waiters_for_slots_of_many_managers_all_get_one_and_never_too_many() {
    let key = unique_key();
    let inside = AtomicI32::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            let manager = manager();
            for _ in 0..4 {
                let (manager, inside) = (manager.clone(), &inside);
                scope.spawn(move || {
                    for _ in 0..60 {
                        let acquire = manager.acquire(key).slots(5).timeout(LIMIT);
                        let lock = acquire.wait().expect("its turn");
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 5);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        }
    });
}

#[test]
fn the_most_slots_work_and_what_makes_no_sense_is_refused_with_words() {
    let (one, key) = (manager(), unique_key());
    let many: Vec<Lock> = (0..1000)
        .map(|_| one.acquire(key).slots(1024).try_now().expect("an answer").expect("a slot"))
        .collect();
    assert_eq!(many.len(), 1000);
    for acquire in [
        one.acquire(key).slots(0),
        one.acquire(key).slots(1025),
        one.acquire(key).shared().slots(2),
        one.acquire(key).shared().fenced(),
        one.acquire(key).slots(2).fenced(),
    ] {
        let error = acquire.clone().try_now().expect_err("it makes no sense");
        assert!(matches!(error, Error::Request(_)), "{error}");
        assert!(matches!(block_on(acquire), Err(Error::Request(_))));
    }
}

/// What a wait leaves beside the key in the server's table.
#[test]
fn nothing_is_left_beside_a_key_once_nobody_waits() {
    let cluster = TempCluster::start();
    let connect = || Manager::connect(cluster.url()).expect("connects");
    let (one, two, key) = (connect(), connect(), unique_key());
    for round in 0..20 {
        let held = alone(&one, key).expect("it is free");
        let acquire = two.acquire(key);
        let acquire = match round % 3 {
            0 => acquire,
            1 => acquire.shared(),
            _ => acquire.fenced(),
        };
        let waiter = thread::spawn(move || acquire.timeout(LIMIT).wait());
        wait_until("the waiter is registered", LIMIT, || all_locks(&cluster).len() > 1);
        held.unlock().expect("it was held");
        waiter.join().expect("no panic").expect("its turn").unlock().expect("it was held");
        wait_until("both have let go", LIMIT, || all_locks(&cluster).is_empty());
    }
}

#[test]
fn tokens_grow_from_grant_to_grant_whoever_is_granted() {
    let (one, two, key) = (manager(), manager(), unique_key());
    assert_eq!(alone(&one, key).expect("it is free").token(), None, "not asked for");
    let mut last = None;
    for round in 0..30 {
        let manager = if round % 2 == 0 { &one } else { &two };
        let lock = manager.acquire(key).fenced().timeout(LIMIT).wait().expect("its turn");
        let token = lock.token().expect("it is fenced");
        assert!(last < Some(token), "{last:?} {token}");
        last = Some(token);
        // Handed over within the process, it is a new one as well.
        let next = {
            let manager = manager.clone();
            thread::spawn(move || manager.acquire(key).fenced().timeout(LIMIT).wait())
        };
        drop(lock);
        let next = next.join().expect("no panic").expect("its turn");
        assert!(next.token() > last);
        last = next.token();
    }
}

#[test]
fn a_grant_that_is_kept_back_is_told_later_and_is_no_secret_when_lost() {
    let (one, key) = (manager(), unique_key());
    let pause = Duration::from_millis(50);
    let begin = std::time::Instant::now();
    let lock = one.acquire(key).settle(pause).wait().expect("it is free");
    assert!(begin.elapsed() >= pause, "a pause is kept, however long it really takes");
    drop(lock);
    let lock = block_on(one.acquire(key).settle(pause)).expect("it is free");
    drop(lock);

    // Cancelled while it settles: it is released, and that is said.
    let (ctx, canceler) = Context::background().with_cancel();
    let settling = {
        let one = one.clone();
        thread::spawn(move || one.acquire(key).context(&ctx).settle(LIMIT * 10).wait())
    };
    wait_until("it settles", LIMIT, || alone(&manager(), key).is_none());
    canceler.cancel();
    let error = settling.join().expect("no panic").expect_err("it was cancelled");
    assert!(matches!(error, Error::Canceled(Cause::Canceled)), "{error}");
    wait_until("it is free", LIMIT, || alone(&one, key).is_some());
    let error = one.acquire(key).settle(LIMIT * 10).timeout(pause).wait().expect_err("too long");
    assert!(error.is_timeout(), "{error}");
    assert_eq!(Key::from(key), Key::Bigint(key));
}
