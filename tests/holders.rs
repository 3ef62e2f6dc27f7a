//! Who holds a key and who waits for it, against a real server: what is told is what is so, of
//! every kind of lock and for every role, in one round trip, and asking never harms what is held.

mod support;

#[path = "sets/relay.rs"]
mod relay;

use std::collections::BTreeSet;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{self, Poll};
use std::thread;
use std::time::Duration;

use distlock::{Cause, Config, Context, Error, Holders, Key, Manager, Place};
use relay::Relay;
use support::{Sql, TempCluster, block_on, shared_cluster, unique_key, unparker, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// The most that are listed; see `Holders`.
const LISTED_MAX: usize = 32;

fn config() -> Config {
    shared_cluster().url().parse().expect("a URL")
}

fn manager() -> Manager {
    Manager::connect(config()).expect("connects")
}

fn named(name: &str) -> Manager {
    Manager::connect(config().application_name(name)).expect("connects")
}

/// A pair of numbers that no other test uses.
fn unique_pair() -> Key {
    let key = unique_key();
    Key::Pair((key >> 32) as i32 | i32::MIN, -(key as i32))
}

fn ask(manager: &Manager, key: impl Into<Key>) -> Holders {
    manager.holders(key).timeout(LIMIT).wait().expect("an answer")
}

/// The process ids of the holders.
fn holders(told: &Holders) -> BTreeSet<i32> {
    told.holders.iter().filter_map(|holder| holder.session.process_id).collect()
}

fn names(told: &Holders) -> Vec<&str> {
    let names = told.holders.iter().map(|holder| holder.session.application_name.as_deref());
    names.map(Option::unwrap_or_default).collect()
}

/// The functions of a key in SQL.
fn sql_key(key: Key) -> String {
    match key {
        Key::Bigint(key) => format!("({key})"),
        Key::Pair(high, low) => format!("({high}, {low})"),
    }
}

/// A session of another program that waits inside a statement; the thread ends with it.
fn blocked(mut sql: Sql, key: Key, shared: bool) -> (i32, thread::JoinHandle<()>) {
    let (pid, suffix) = (sql.pid(), if shared { "_shared" } else { "" });
    let statement = format!("SELECT pg_advisory_lock{suffix}{}", sql_key(key));
    (pid, thread::spawn(move || drop(sql.query(&statement))))
}

#[test]
fn nobody_holds_a_key_that_nobody_asked_for() {
    let manager = manager();
    for key in [unique_key().into(), unique_pair()] {
        let told = ask(&manager, key);
        assert!(told.holders.is_empty() && told.waiters.is_empty(), "{told:?}");
        assert_eq!((told.holder_count, told.waiter_count), (0, 0));
        assert!(!told.is_truncated());
    }
}

#[test]
fn the_holder_is_told_with_what_the_server_knows_of_it() {
    let (asks, holds) = (manager(), named("the holder"));
    for key in [unique_key().into(), unique_pair()] {
        let lock = holds.acquire(key).wait().expect("free");
        let told = ask(&asks, key);
        let [holder] = &told.holders[..] else { panic!("one holder: {told:?}") };
        let session = &holder.session;
        assert_eq!((holder.shared, holder.place), (false, Place::Key));
        assert!(!session.is_own && !session.is_restricted);
        assert_eq!(session.application_name.as_deref(), Some("the holder"));
        let process_id = session.process_id.expect("it has one");
        let port = session.client_port.expect("over TCP");
        assert_eq!(session.client_address, Some([127, 0, 0, 1].into()));
        let mut sql = shared_cluster().sql();
        let query = format!("SELECT client_port FROM pg_stat_activity WHERE pid = {process_id}");
        assert_eq!(sql.value(&query), Some(port.to_string()));
        // It has taken the lock after it connected, and holds it in no transaction.
        assert!(session.connected_for.expect("known") >= session.statement_for.expect("known"));
        assert_eq!(session.transaction_for, None);
        assert!(told.waiters.is_empty());
        // Its own manager says the same, and that it is its own.
        let own = ask(&holds, key);
        assert!(own.holders[0].session.is_own && holders(&own) == holders(&told));
        lock.unlock().expect("it was held");
        assert!(ask(&asks, key).holders.is_empty());
    }
}

#[test]
fn a_refused_try_can_ask_who_is_at_it() {
    let (one, two, key) = (manager(), named("at it"), unique_key());
    let _lock = two.acquire(key).wait().expect("free");
    assert!(one.try_lock(&Context::background(), key).expect("an answer").is_none());
    let told = block_on(one.holders(key)).expect("an answer");
    assert_eq!(names(&told), ["at it"]);
    assert!(told.to_string().contains("\"at it\""), "{told}");
}

#[test]
fn each_session_that_shares_a_key_is_told_once() {
    let (managers, key) = ([named("a"), named("b"), named("c")], unique_pair());
    let locks = managers
        .each_ref()
        .map(|manager| [(); 2].map(|()| manager.acquire(key).shared().wait().expect("shared")));
    let told = ask(&managers[0], key);
    let found: BTreeSet<_> = names(&told).into_iter().collect();
    assert_eq!(found, BTreeSet::from(["a", "b", "c"]));
    assert_eq!(told.holder_count, 3);
    assert!(told.holders.iter().all(|holder| holder.shared && holder.place == Place::Key));
    assert_eq!(told.holders.iter().filter(|holder| holder.session.is_own).count(), 1);
    drop(locks);
}

#[test]
fn the_slots_of_a_counted_lock_are_told_by_their_numbers() {
    let (one, two) = (named("one"), named("two"));
    for key in [unique_key().into(), unique_pair()] {
        let slot = |manager: &Manager| manager.acquire(key).slots(3).wait().expect("free");
        let held = [slot(&one), slot(&two), slot(&one)];
        // The counted lock is a lock of its own.
        let alone = two.acquire(key).wait().expect("free");
        let told = ask(&two, key);
        let places: Vec<_> = told.holders.iter().map(|holder| holder.place).collect();
        assert_eq!(places, [Place::Key, Place::Slot(0), Place::Slot(1), Place::Slot(2)]);
        assert_eq!(names(&told), ["two", "one", "two", "one"]);
        let waits = thread::spawn({
            let two = two.clone();
            move || two.acquire(key).slots(3).timeout(LIMIT).wait()
        });
        wait_until("the waiter is told", LIMIT, || {
            let told = ask(&one, key);
            let registered = |waiter: &distlock::Waiter| {
                waiter.place == Place::AnySlot
                    && waiter.shared.is_none()
                    && waiter.session.application_name.as_deref() == Some("two")
            };
            told.waiter_count == 1 && told.waiters.iter().all(registered)
        });
        drop((held, alone));
        drop(waits.join().expect("no panic").expect("its turn"));
    }
}

#[test]
fn waiters_of_managers_and_of_other_programs_are_told() {
    for key in [unique_key().into(), unique_pair()] {
        let (holds, waits) = (manager(), named("waits"));
        let lock = holds.acquire(key).wait().expect("free");
        let registered = thread::spawn({
            let waits = waits.clone();
            move || waits.acquire(key).timeout(LIMIT).wait().map(drop)
        });
        wait_until("it has registered", LIMIT, || ask(&holds, key).waiter_count == 1);
        let others = [false, true].map(|shared| blocked(shared_cluster().sql(), key, shared));
        wait_until("all of them wait", LIMIT, || ask(&holds, key).waiter_count == 3);
        let told = ask(&holds, key);
        assert_eq!(told.holder_count, 1);
        assert!(told.waiters.iter().all(|waiter| waiter.place == Place::Key));
        for (shared, (pid, _)) in [false, true].into_iter().zip(&others) {
            let waiter = told.waiters.iter().find(|it| it.session.process_id == Some(*pid));
            let waiter = waiter.expect("it waits");
            assert_eq!(waiter.shared, Some(shared));
            assert!(waiter.session.transaction_for.is_some(), "it is inside a statement");
        }
        let of_manager = told.waiters.iter().find(|waiter| waiter.shared.is_none());
        let name = of_manager.expect("it has registered").session.application_name.as_deref();
        assert_eq!(name, Some("waits"));
        lock.unlock().expect("it was held");
        registered.join().expect("no panic").expect("its turn");
        others.into_iter().for_each(|(_, thread)| thread.join().expect("no panic"));
    }
}

/// The neighbours of a key in `pg_locks`: each differs in one thing.
#[test]
fn the_locks_beside_a_key_are_not_its_own() {
    let (manager, cluster) = (manager(), TempCluster::start());
    let mut sql = shared_cluster().sql();
    let key = unique_key();
    let (high, low) = ((key >> 32) as i32, key as i32);
    let neighbours = [Key::Pair(high, low), Key::Bigint(key ^ 1), Key::Bigint(key ^ (1 << 40))];
    for neighbour in neighbours {
        sql.query(&format!("SELECT pg_advisory_lock{}", sql_key(neighbour)));
    }
    assert_eq!(ask(&manager, key).holder_count, 0);
    assert_eq!(holders(&ask(&manager, neighbours[0])), BTreeSet::from([sql.pid()]));
    // And of another database on the same server.
    let here = Manager::connect(cluster.url()).expect("connects");
    cluster.sql().query("CREATE DATABASE other");
    let mut other = cluster.try_sql_as("postgres", "other").expect("connects");
    other.query("SELECT pg_advisory_lock(7)");
    assert_eq!(ask(&here, 7).holder_count, 0);
    let mut same = cluster.sql();
    same.query("SELECT pg_advisory_lock(7)");
    assert_eq!(holders(&ask(&here, 7)), BTreeSet::from([same.pid()]));
}

#[test]
fn a_transactions_lock_is_told_with_the_age_of_the_transaction() {
    let (manager, key) = (manager(), unique_key());
    let mut sql = shared_cluster().sql();
    sql.query("BEGIN");
    sql.query(&format!("SELECT pg_advisory_xact_lock({key})"));
    let told = ask(&manager, key);
    let session = &told.holders[0].session;
    assert_eq!(session.process_id, Some(sql.pid()));
    // Over a Unix-domain socket.
    assert_eq!((session.client_address, session.client_port), (None, None));
    assert!(session.transaction_for.is_some() && !session.is_restricted);
    sql.query("ROLLBACK");
}

#[test]
fn a_prepared_transaction_holds_without_a_process() {
    let cluster = TempCluster::builder().setting("max_prepared_transactions", "2").start();
    let manager = Manager::connect(cluster.url()).expect("connects");
    let mut sql = cluster.sql();
    sql.query("BEGIN");
    sql.query("SELECT pg_advisory_xact_lock(7)");
    sql.query("PREPARE TRANSACTION 'two'");
    let told = ask(&manager, 7);
    let session = &told.holders[0].session;
    assert_eq!(session.process_id, None);
    assert!(session.is_restricted && session.connected_for.is_none());
    sql.query("ROLLBACK PREPARED 'two'");
}

#[test]
fn a_role_that_may_not_see_others_is_told_so() {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    for role in ["holds", "asks", "monitors"] {
        sql.query(&format!("CREATE ROLE {role} LOGIN"));
    }
    sql.query("GRANT pg_read_all_stats TO monitors");
    let config = |role: &str| cluster.url().parse::<Config>().expect("a URL").user(role);
    let holds = Manager::connect(config("holds").application_name("seen")).expect("connects");
    let asks = Manager::connect(config("asks")).expect("connects");
    let monitors = Manager::connect(config("monitors")).expect("connects");
    let lock = holds.acquire(7).shared().wait().expect("free");
    let own = asks.acquire(7).shared().wait().expect("shared");
    let told = ask(&asks, 7);
    let (mine, theirs): (Vec<_>, Vec<_>) =
        told.holders.iter().map(|holder| &holder.session).partition(|session| session.is_own);
    assert!(!mine[0].is_restricted && mine[0].connected_for.is_some());
    assert!(theirs[0].is_restricted && theirs[0].process_id.is_some());
    let times = [theirs[0].connected_for, theirs[0].transaction_for, theirs[0].statement_for];
    assert_eq!(times, [None; 3]);
    assert_eq!((theirs[0].client_address, theirs[0].client_port), (None, None));
    assert!(ask(&monitors, 7).holders.iter().all(|holder| !holder.session.is_restricted));
    drop((lock, own));
}

/// The server cuts names, and replaces what is not printable ASCII; what it keeps is told as it
/// shows it, and ends nothing.
#[test]
fn no_application_name_confuses_the_answer() {
    let (asks, key) = (manager(), unique_key());
    let mut sql = shared_cluster().sql();
    for name in [
        "'; DROP TABLE locks; --".to_owned(),
        "\"quoted\" \\ {\"json\": [1,2]},".to_owned(),
        "two\nlines\r\n\tand a tab".to_owned(),
        String::new(),
        "ü".repeat(31) + "x",
        "𝄞".repeat(40),
        "n".repeat(200),
    ] {
        let mut holds = shared_cluster().sql();
        holds.query(&format!("SET application_name = $name${name}$name$"));
        holds.query(&format!("SELECT pg_advisory_lock({key})"));
        let told = ask(&asks, key);
        let [holder] = &told.holders[..] else { panic!("one holder: {told:?}") };
        let query =
            format!("SELECT application_name FROM pg_stat_activity WHERE pid = {}", holds.pid());
        assert_eq!(sql.value(&query), holder.session.application_name, "{name:?}");
        assert!(!told.to_string().contains(char::is_control), "{told}");
        holds.query(&format!("SELECT pg_advisory_unlock({key})"));
    }
}

#[test]
fn more_holders_than_can_be_listed_are_counted() {
    let (cluster, key) = (TempCluster::start(), 7);
    let manager = Manager::connect(cluster.url()).expect("connects");
    let shares = |_| {
        let mut sql = cluster.sql();
        // As long as a name can be.
        sql.query(&format!("SET application_name = '{}'", "n".repeat(63)));
        sql.query(&format!("SELECT pg_advisory_lock_shared({key})"));
        sql
    };
    let sharers: Vec<Sql> = (0..LISTED_MAX + 8).map(shares).collect();
    let (_, waits) = blocked(cluster.sql(), key.into(), false);
    wait_until("the waiter is counted", LIMIT, || ask(&manager, key).waiter_count == 1);
    let told = ask(&manager, key);
    assert_eq!(told.holder_count as usize, sharers.len());
    assert_eq!((told.holders.len(), told.waiters.len()), (LISTED_MAX, 0));
    assert!(told.is_truncated());
    let all: BTreeSet<i32> = sharers.iter().map(Sql::pid).collect();
    assert!(holders(&told).is_subset(&all) && holders(&told).len() == LISTED_MAX);
    drop(sharers);
    waits.join().expect("no panic");
}

#[test]
fn a_question_is_one_batch_of_one_statement_each_time() {
    let relay = Relay::start(shared_cluster());
    let manager = Manager::connect(relay.config()).expect("connects");
    let key = unique_key();
    let lock = manager.acquire(key).wait().expect("free");
    relay.said();
    for _ in 0..3 {
        assert_eq!(ask(&manager, key).holder_count, 1);
        let said = relay.said();
        // A heartbeat, if one was due in the meantime, is a Sync of its own.
        let said = said.trim_matches('S');
        assert_eq!(said, "PBE", "Parse, Bind, Execute, and Sync");
    }
    lock.unlock().expect("it was held");
}

#[test]
fn a_question_that_is_given_up_leaves_everything_in_order() {
    let (manager, key) = (manager(), unique_key());
    let lock = manager.acquire(key).wait().expect("free");
    let waker = unparker();
    for round in 0..100 {
        let mut asking = pin!(manager.holders(key).into_future());
        // Not polled at all, asked, or asked and then answered at any time.
        for _ in 0..round % 3 {
            if let Poll::Ready(told) = asking.as_mut().poll(&mut task::Context::from_waker(&waker))
            {
                assert_eq!(told.expect("an answer").holder_count, 1);
                break;
            }
        }
    }
    let (done, canceler) = Context::background().with_cancel();
    canceler.cancel();
    let error = manager.holders(key).context(&done).wait().expect_err("it was cancelled");
    assert!(error.is_canceled(), "{error}");
    let error = manager.holders(key).timeout(Duration::ZERO).wait().expect_err("time is up");
    assert!(error.is_timeout(), "{error}");
    assert!(lock.is_held());
    assert_eq!(ask(&manager, key).holder_count, 1);
    lock.unlock().expect("it was held");
}

#[test]
fn many_ask_at_once_while_locks_come_and_go() {
    let (manager, key) = (manager(), unique_key());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    drop(manager.acquire(key).timeout(LIMIT).wait().expect("its turn"));
                    let told = ask(&manager, key);
                    assert!(told.holders.iter().all(|holder| holder.session.is_own), "{told}");
                }
            });
        }
    });
}

/// The server says no: to the one who asks, and to nobody else.
#[test]
fn a_question_that_the_server_refuses_costs_nothing_else() {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    sql.query("CREATE ROLE app LOGIN");
    sql.query("REVOKE EXECUTE ON FUNCTION pg_stat_get_activity(int) FROM PUBLIC");
    let config = cluster.url().parse::<Config>().expect("a URL").user("app");
    let manager = Manager::connect(config).expect("connects");
    let lock = manager.acquire(7).wait().expect("free");
    for _ in 0..2 {
        let error = manager.holders(7).timeout(LIMIT).wait().expect_err("not allowed");
        assert_eq!(error.sqlstate().map(|state| state.to_string()).as_deref(), Some("42501"));
    }
    assert!(lock.is_held());
    lock.unlock().expect("it was held");
    drop(manager.acquire(8).wait().expect("the session goes on"));
}

#[test]
fn a_question_ends_with_its_session() {
    let mut cluster = TempCluster::start();
    let manager = Manager::connect(cluster.url()).expect("connects");
    let lock = manager.acquire(7).wait().expect("free");
    let process_id = ask(&manager, 7).holders[0].session.process_id.expect("it has one");
    // A session that is stopped answers nothing.
    assert!(support::signal(process_id, "STOP"));
    let asks = thread::spawn({
        let manager = manager.clone();
        move || manager.holders(7).wait()
    });
    wait_until("the session is lost", LIMIT, || !lock.is_held());
    let error = asks.join().expect("no panic").expect_err("no answer");
    let is_lost = matches!(&error, Error::Lost { cause: Cause::ReplyOverdue, .. });
    assert!(is_lost || matches!(&error, Error::Unavailable { .. }), "{error:?}");
    assert!(support::signal(process_id, "CONT"));
    let found = || manager.holders(7).timeout(LIMIT).wait().is_ok();
    wait_until("there is a session again", LIMIT, found);
    cluster.stop(support::StopMode::Immediate);
    wait_until("the loss is known", LIMIT, || {
        matches!(manager.holders(7).wait(), Err(Error::Unavailable { .. } | Error::Lost { .. }))
    });
    manager.close();
    assert!(matches!(manager.holders(7).wait(), Err(Error::Closed)));
}
