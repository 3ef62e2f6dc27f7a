//! The limits, ours and the server's: over one of them is a typed error that names it and says how
//! to raise it, and nothing that was granted before is touched.

mod support;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Acquiring, Config, Context, Error, Key, Lock, Manager};
use support::{
    Sql, TempCluster, block_on, pg_locks_advisory, shared_cluster, unique_key, wait_until,
};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    shared_cluster().url().parse().expect("a URL")
}

fn connect(config: Config) -> Manager {
    Manager::connect(config).expect("connects")
}

fn lock(manager: &Manager, key: i64) -> Lock {
    manager.try_lock(&Context::background(), key).expect("answers").expect("free")
}

/// A request that was polled once; what it ended with, if it did.
fn asked(manager: &Manager, key: i64) -> (Pin<Box<Acquiring>>, Poll<Result<Lock, Error>>) {
    let mut future = Box::pin(manager.acquire(key).into_future());
    let polled = future.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    (future, polled)
}

/// A request that waits for a key that this manager holds.
fn waiting(manager: &Manager, key: i64) -> Pin<Box<Acquiring>> {
    let (future, polled) = asked(manager, key);
    assert!(polled.is_pending(), "{polled:?}");
    future
}

/// That the text names the limit and the setting that raises it.
#[track_caller]
fn says(error: &Error, limit: u32, setting: &str) {
    let text = error.to_string();
    assert!(text.contains(&limit.to_string()) && text.contains(setting), "{text}");
    assert!(error.is_limit() && error.sqlstate().is_none(), "{text}");
}

#[test]
fn over_max_locks_is_an_error_that_leaves_the_held_locks_alone() {
    let manager = connect(config().max_locks(3));
    let ctx = Context::background();
    let mut locks: Vec<Lock> = (0..3).map(|_| lock(&manager, unique_key())).collect();
    let errors = [
        manager.try_lock(&ctx, unique_key()).expect_err("a fourth"),
        manager.lock(&ctx, unique_key()).expect_err("a fourth"),
        block_on(manager.acquire(unique_key()).into_future()).expect_err("a fourth"),
    ];
    for error in &errors {
        assert!(error.is_max_locks() && matches!(error, Error::TooManyLocks { limit: 3 }));
        says(error, 3, "Config::max_locks");
    }
    assert!(locks.iter().all(Lock::is_held));
    let keys: Vec<Key> = locks.iter().map(Lock::key).collect();
    let held = pg_locks_advisory(&mut shared_cluster().sql());
    let is_in_server = |key: &Key| held.iter().any(|(number, _)| Key::Bigint(*number) == *key);
    assert!(keys.iter().all(is_in_server));
    // A key that is held is taken, limit or not; and one released makes room for one.
    assert!(manager.try_lock(&ctx, keys[0]).expect("answers").is_none());
    drop(locks.pop());
    locks.push(lock(&manager, unique_key()));
    assert!(manager.try_lock(&ctx, unique_key()).expect_err("a fourth").is_max_locks());
}

/// The server is asked, and might grant it. Who waits for what this manager holds needs no place.
#[test]
fn over_max_locks_is_an_error_for_who_would_only_wait_for_another_process() {
    let manager = connect(config().max_locks(1));
    let theirs = lock(&connect(config()), unique_key());
    let own = lock(&manager, unique_key());
    let error = manager.acquire(theirs.key()).timeout(LIMIT).wait().expect_err("a second");
    assert!(error.is_max_locks(), "{error}");
    let Key::Bigint(number) = own.key() else { panic!("a number") };
    let waiter = waiting(&manager, number);
    drop(own);
    drop(block_on(waiter).expect("granted"));
    drop(theirs);
}

#[test]
fn over_max_requests_is_an_error_and_releases_need_no_request() {
    let manager = connect(config().max_requests(1));
    let (key, other) = (unique_key(), unique_key());
    let ctx = Context::background();
    let first = lock(&manager, key);
    let second = lock(&manager, other);
    let waiter = waiting(&manager, key);
    let (_future, polled) = asked(&manager, unique_key());
    let Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
    for error in [error, manager.try_lock(&ctx, unique_key()).expect_err("a second request")] {
        assert!(matches!(error, Error::TooManyRequests { limit: 1 }));
        says(&error, 1, "Config::max_requests");
    }
    second.unlock().expect("it was held");
    drop(first);
    let granted = block_on(waiter).expect("granted");
    assert!(granted.is_held());
    drop(lock(&manager, other));
}

#[test]
fn over_max_waiters_is_an_error_and_tries_go_on() {
    let manager = connect(config().max_waiters(2));
    let (key, ctx) = (unique_key(), Context::background());
    let held = lock(&manager, key);
    let waiters = [waiting(&manager, key), waiting(&manager, key)];
    let error = manager.lock(&ctx, key).expect_err("a third waiter");
    assert!(matches!(error, Error::TooManyWaiters { limit: 2 }));
    says(&error, 2, "Config::max_waiters");
    assert!(manager.try_lock(&ctx, key).expect("answers").is_none());
    drop(manager.lock(&ctx, unique_key()).expect("free: nobody waits"));
    drop(held);
    for waiter in waiters {
        drop(block_on(waiter).expect("granted"));
    }
}

#[test]
fn with_no_waiters_allowed_nobody_waits_for_this_manager_nor_for_another() {
    let (manager, other) = (connect(config().max_waiters(0)), connect(config()));
    let (ours, theirs) = (unique_key(), unique_key());
    let held = [lock(&manager, ours), lock(&other, theirs)];
    for key in [ours, theirs] {
        let error = manager.acquire(key).timeout(Duration::from_secs(5)).wait();
        let error = error.expect_err("a waiter");
        assert!(matches!(error, Error::TooManyWaiters { limit: 0 }), "{error}");
    }
    drop(held);
}

#[test]
fn who_waits_for_other_managers_counts_as_a_waiter() {
    let (manager, other) = (connect(config().max_waiters(2)), connect(config()));
    let held: Vec<Lock> = (0..6).map(|_| lock(&other, unique_key())).collect();
    let mut futures: Vec<_> =
        held.iter().map(|lock| Box::pin(manager.acquire(lock.key()).into_future())).collect();
    let mut refused = 0;
    wait_until("all but two are refused", LIMIT, || {
        futures.retain_mut(|future| {
            match future.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Pending => true,
                Poll::Ready(result) => {
                    let error = result.expect_err("held elsewhere");
                    assert!(matches!(error, Error::TooManyWaiters { limit: 2 }), "{error}");
                    refused += 1;
                    false
                }
            }
        });
        refused == 4
    });
    drop(held);
    for waiter in futures {
        drop(block_on(waiter).expect("granted"));
    }
}

/// A server whose lock table is as small as it can be.
fn small_server() -> TempCluster {
    let small = TempCluster::builder().setting("max_locks_per_transaction", "10");
    small.setting("max_connections", "10").setting("max_wal_senders", "0").start()
}

/// Takes locks until the server refuses one.
fn fill(manager: &Manager, locks: &mut Vec<Lock>) -> Error {
    loop {
        let key = locks.len() as i64;
        match manager.try_lock(&Context::background(), key) {
            Ok(lock) => locks.push(lock.expect("free")),
            Err(error) => return error,
        }
    }
}

/// The keys in the server, each with its backend, in the order of the keys. Of an observer that was
/// there before, and by a statement without a shared catalog: both need room in the lock table.
fn held_keys(sql: &mut Sql) -> Vec<(i64, String)> {
    let rows = sql.query(
        "SELECT (classid::bigint << 32) | objid::bigint, pid FROM pg_lock_status() \
         WHERE locktype = 'advisory' AND granted ORDER BY 1",
    );
    let text = |column: &Option<String>| column.clone().expect("not null");
    rows.iter().map(|row| (text(&row[0]).parse().expect("a number"), text(&row[1]))).collect()
}

/// The same, without the backends.
fn keys_in(sql: &mut Sql) -> Vec<i64> {
    held_keys(sql).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_limit_of_more_than_half_of_the_servers_lock_table_is_warned_of() {
    // 10 locks for each of 10 connections.
    let cluster = small_server();
    let config = |locks: u32, waiters: u32| {
        let config = cluster.url().parse::<Config>().expect("a URL");
        config.max_locks(locks).max_waiters(waiters)
    };
    for (locks, waiters) in [(51, 0), (1, 25)] {
        let warned = connect(config(locks, waiters));
        let text: Vec<String> = warned.warnings().iter().map(ToString::to_string).collect();
        assert!(
            matches!(&text[..], [one] if one.contains("51") && one.contains("100")),
            "{text:?}"
        );
    }
    assert_eq!(connect(config(50, 0)).warnings(), []);
    assert_eq!(connect(config(2, 24)).warnings(), []);
}

#[test]
fn a_manager_takes_no_more_of_the_lock_table_than_its_limits_say() {
    const KEYS: i64 = 10;
    let cluster = TempCluster::start();
    let holder = connect(cluster.url().parse().expect("a URL"));
    let config = cluster.url().parse::<Config>().expect("a URL");
    let manager = connect(config.max_locks(2 * KEYS as u32).max_waiters(KEYS as u32));
    let all = 2 * KEYS as usize;
    let others: Vec<Lock> = (0..KEYS).map(|key| lock(&holder, key)).collect();
    let _own: Vec<Lock> = (KEYS..2 * KEYS).map(|key| lock(&manager, key)).collect();
    let taken = || cluster.sql().query("SELECT FROM pg_locks WHERE locktype = 'advisory'").len();
    assert_eq!(taken(), all);
    let (context, canceler) = Context::background().with_cancel();
    thread::scope(|scope| {
        for key in 0..KEYS {
            let asked = manager.acquire(key).context(&context).timeout(LIMIT);
            scope.spawn(move || assert!(asked.wait().expect_err("taken").is_canceled()));
        }
        // The key of the waiters and the gate, of each.
        let mut most = 0;
        wait_until("all wait, with gates", LIMIT, || {
            most = most.max(taken());
            most >= all + 2 * KEYS as usize
        });
        assert_eq!(most, all + 2 * KEYS as usize);
        canceler.cancel();
    });
    wait_until("nothing is left beside the keys", LIMIT, || taken() == all);
    drop(others);
}

#[test]
fn a_full_lock_table_is_an_error_that_leaves_the_held_locks_alone() {
    let cluster = small_server();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = connect(config.max_locks(100_000));
    let (mut sql, mut locks) = (cluster.sql(), Vec::new());
    assert_eq!(held_keys(&mut sql), []);
    let error = fill(&manager, &mut locks);
    println!("the lock table took {} locks", locks.len());
    assert!(error.is_lock_table_full() && !error.is_limit(), "{error}");
    assert_eq!(error.sqlstate().map(|state| state.to_string()).as_deref(), Some("53200"));
    let text = error.to_string();
    let key = locks.len().to_string();
    assert!(text.contains("max_locks_per_transaction") && text.contains(&key), "{text}");
    for _ in 0..3 {
        assert!(fill(&manager, &mut locks).is_lock_table_full());
    }
    assert!(locks.iter().all(|lock| lock.is_held() && !lock.context().is_done()));
    assert_eq!(keys_in(&mut sql), (0..locks.len() as i64).collect::<Vec<_>>());
    // With room there again, the same session goes on.
    let backend = held_keys(&mut sql)[0].1.clone();
    locks.truncate(locks.len() - 20);
    let refilled = fill(&manager, &mut locks);
    assert!(refilled.is_lock_table_full());
    let held = held_keys(&mut sql);
    assert_eq!(held.len(), locks.len());
    assert!(held.iter().all(|(_, pid)| *pid == backend));
}

#[test]
fn a_table_that_fills_in_the_midst_of_many_requests_fails_those_that_found_no_room() {
    const MANY: usize = 200;
    let cluster = small_server();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = connect(config.max_locks(100_000));
    let (mut sql, mut locks) = (cluster.sql(), Vec::new());
    assert_eq!(held_keys(&mut sql), []);
    fill(&manager, &mut locks);
    for round in 0..10 {
        locks.truncate(locks.len() - 50);
        let keys = (0..MANY as i64).map(|n| 1_000_000 * (round + 1) + n);
        // All of them are asked for before the first answer is taken.
        let futures: Vec<_> = keys.map(|key| asked(&manager, key)).collect();
        let mut granted = 0;
        let mut full = 0;
        for (future, polled) in futures {
            let result = match polled {
                Poll::Ready(result) => result,
                Poll::Pending => block_on(future),
            };
            match result {
                Ok(lock) => {
                    granted += 1;
                    locks.push(lock);
                }
                Err(error) => {
                    assert!(error.is_lock_table_full(), "{error}");
                    full += 1;
                }
            }
        }
        assert!(granted + full == MANY && granted > 0 && full > 0, "{granted} {full}");
        assert!(locks.iter().all(Lock::is_held));
        let mut keys: Vec<Key> = locks.iter().map(Lock::key).collect();
        keys.sort_unstable();
        let in_server: Vec<Key> = keys_in(&mut sql).into_iter().map(Key::Bigint).collect();
        assert_eq!(in_server, keys, "round {round}");
    }
}

/// Its tries are rows of a few statements, and so are the releases of what was granted of them.
#[test]
fn a_set_that_finds_no_room_in_the_midst_of_its_keys_leaves_nothing_behind() {
    let cluster = small_server();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = connect(config.max_locks(100_000));
    let (mut sql, mut locks) = (cluster.sql(), Vec::new());
    fill(&manager, &mut locks);
    let backend = held_keys(&mut sql)[0].1.clone();
    for round in 1..=10 {
        locks.truncate(locks.len() - 50);
        let held: Vec<i64> = (0..locks.len() as i64).collect();
        wait_until("there is room", LIMIT, || keys_in(&mut sql) == held);
        let keys = (0..200).map(|n| 1_000_000 * round + n);
        let error = manager.acquire_all(keys).try_now().expect_err("there is none for all");
        assert!(error.is_lock_table_full(), "{error}");
        wait_until("nothing of it is left", LIMIT, || keys_in(&mut sql) == held);
        assert!(locks.iter().all(Lock::is_held));
        // The table shares its room out in an order of its own: it may not be full where it was.
        fill(&manager, &mut locks);
    }
    assert!(held_keys(&mut sql).iter().all(|(_, pid)| *pid == backend), "one session");
}

/// The look for waiters needs a place, and a downgrade makes none.
#[test]
fn a_downgrade_that_finds_no_room_to_look_for_waiters_is_one() {
    let cluster = small_server();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = connect(config.max_locks(100_000));
    let (mut sql, mut locks) = (cluster.sql(), Vec::new());
    assert_eq!(held_keys(&mut sql), []);
    assert!(fill(&manager, &mut locks).is_lock_table_full());
    // Others find no room either: autovacuum, for one.
    let ours = format!("[{}] ERROR:  out of shared memory", held_keys(&mut sql)[0].1);
    let failures = || cluster.log().matches(&ours).count();
    let before = failures();
    let mut lock = locks.pop().expect("a lock");
    lock.downgrade().expect("it was held");
    // To notify takes a place as well, when the batch is committed.
    assert!(failures() > before, "it is about this");
    let shares = "SELECT classid::bigint << 32 | objid::bigint FROM pg_lock_status() \
                  WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    assert_eq!(sql.value(shares), Some(locks.len().to_string()));
    lock.unlock().expect("it was held");
    assert_eq!(keys_in(&mut sql), (0..locks.len() as i64).collect::<Vec<_>>());
    assert!(locks.iter().all(Lock::is_held), "the session goes on");
}

/// A server whose releases fail, before they have let go or after that, with the SQLSTATE of a
/// server without memory: that of a full lock table is the same.
fn failing_server(has_let_go: bool) -> TempCluster {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    for name in ["pg_advisory_unlock", "pg_advisory_unlock_shared"] {
        let unlock = format!("pg_catalog.{name}_as_ever");
        sql.query(&format!("ALTER FUNCTION pg_catalog.{name}(bigint) RENAME TO {name}_as_ever"));
        let let_go = if has_let_go { format!("PERFORM {unlock}(key);") } else { String::new() };
        sql.query(&format!(
            "CREATE FUNCTION pg_catalog.{name}(key bigint) RETURNS boolean LANGUAGE plpgsql AS $$ \
             BEGIN IF current_query() NOT LIKE '%pg_try_%' THEN RETURN {unlock}(key); END IF; \
             {let_go} RAISE 'out of memory' USING ERRCODE = 'out_of_memory'; END $$"
        ));
    }
    cluster
}

#[test]
fn a_release_that_fails_lets_go_whatever_it_had_done_before_that() {
    for has_let_go in [false, true] {
        let cluster = failing_server(has_let_go);
        let manager = connect(cluster.url().parse().expect("a URL"));
        let other = connect(cluster.url().parse().expect("a URL"));
        let kept = lock(&manager, 1);
        lock(&manager, 2).unlock().expect("it was held");
        let shared = manager.acquire(3).shared().try_now().expect("an answer").expect("free");
        shared.unlock().expect("it was held");
        let slot = manager.acquire(4).slots(1).try_now().expect("an answer").expect("free");
        slot.unlock().expect("it was held");
        let mut downgraded = lock(&manager, 5);
        downgraded.downgrade().expect("it was held");
        let beside = other.acquire(5).shared().try_now().expect("an answer").expect("shared");
        downgraded.unlock().expect("it was held");
        beside.unlock().expect("it was held");
        manager.acquire_all(10..20).wait().expect("free").unlock().expect("they were held");
        assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 1, "what is held, and no more");
        let failures = cluster.log().matches("ERROR:  out of memory").count();
        assert!(failures >= 6, "it is about this: {failures}");
        assert!(kept.is_held(), "the session goes on");
    }
}

/// Behind a release the next one here is tried at once; that one must not lose what it is granted.
#[test]
fn a_release_that_fails_lets_nobody_into_a_lock_that_is_held() {
    for has_let_go in [false, true] {
        let cluster = failing_server(has_let_go);
        let managers = [(), ()].map(|()| connect(cluster.url().parse().expect("a URL")));
        let inside = AtomicBool::new(false);
        thread::scope(|scope| {
            for manager in managers.iter().cycle().take(6) {
                scope.spawn(|| {
                    for round in 0..40 {
                        let lock = match manager.acquire(1).timeout(LIMIT).wait() {
                            Ok(lock) => lock,
                            // Tried in one statement with a release.
                            Err(error) if error.is_lock_table_full() => continue,
                            Err(error) => panic!("{error}"),
                        };
                        assert!(!inside.swap(true, Ordering::SeqCst), "alone");
                        assert!(inside.swap(false, Ordering::SeqCst), "still");
                        match round % 2 {
                            0 => lock.unlock().expect("it was held"),
                            _ => drop(lock),
                        }
                    }
                });
            }
        });
        let mut sql = cluster.sql();
        wait_until("nothing is left", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
    }
}

#[test]
fn a_refused_connection_says_what_the_server_said() {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    sql.query("CREATE ROLE app LOGIN CONNECTION LIMIT 1");
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.user("app").dbname("postgres").witness(false);
    let manager = connect(config.clone());
    let held = lock(&manager, 1);
    let error = Manager::connect(config).expect_err("a second session");
    assert_eq!(error.sqlstate().map(|state| state.to_string()).as_deref(), Some("53300"));
    assert!(error.to_string().contains("53300"), "{error}");
    assert!(held.is_held());

    // The same while reconnecting: it goes on, says why there is no session, and comes back.
    sql.query("ALTER ROLE app CONNECTION LIMIT 0");
    let backend = pg_locks_advisory(&mut sql)[0].1;
    sql.query(&format!("SELECT pg_terminate_backend({backend})"));
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
    let why = || manager.try_lock(&Context::background(), 1).err().and_then(|it| it.sqlstate());
    wait_until("the reason is told", LIMIT, || {
        why().is_some_and(|sqlstate| sqlstate.as_str() == "53300")
    });
    sql.query("ALTER ROLE app CONNECTION LIMIT 1");
    drop(manager.acquire(1).timeout(LIMIT).wait().expect("back"));
}
