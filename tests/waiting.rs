//! Waiting for a key of another process, against a real server: by notification, not by asking.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use distlock::{Lock, Manager};
use support::{TempCluster, pg_locks_advisory, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn connect(cluster: &TempCluster) -> Manager {
    Manager::connect(cluster.url()).expect("connects")
}

fn wait(manager: &Manager, key: i64) -> thread::JoinHandle<Lock> {
    let manager = manager.clone();
    thread::spawn(move || manager.acquire(key).timeout(LIMIT).wait().expect("its turn"))
}

/// How many sessions are registered as waiters: they hold something shared.
fn registered(cluster: &TempCluster) -> usize {
    let query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    cluster.sql().value(query).and_then(|count| count.parse().ok()).expect("a count")
}

/// The server's own log says what was asked while waiting: nothing.
#[test]
fn a_registered_waiter_asks_nothing_until_it_is_notified() {
    let cluster = TempCluster::builder().setting("log_statement", "all").start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let begin = Instant::now();
    let waiter = wait(&other, 1);
    wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
    let asked = |log: &str| log.matches("advisory_lock($1)").count();
    // The last of what led to the registration may still be on its way to the log.
    let mut before = 0;
    wait_until("the registration is in the log", LIMIT, || {
        before = asked(&cluster.log());
        cluster.log().contains("LISTEN distlock_")
    });
    // A pause, not a race: whatever comes in it would be a poll.
    thread::sleep(Duration::from_millis(200));
    let polls = asked(&cluster.log()) - before;
    // It looks after the end of holders each half second at the most, on however slow a machine.
    let most = 1 + begin.elapsed().as_millis() as usize / 500;
    held.unlock().expect("it was held");
    waiter.join().expect("no panic").unlock().expect("it was held");
    assert!(polls <= most, "{polls} statements while waiting; one may be the registration");
    assert!(cluster.log().contains("pg_notify"), "the release tells");
}

/// The channel that a waiter listens to is the one that the statement of the release makes.
#[test]
fn a_release_notifies_on_the_channel_that_the_waiter_listens_to() {
    let cluster = TempCluster::builder().setting("log_statement", "all").start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    for key in 0..40 {
        let held = holder.acquire(key).try_now().expect("an answer").expect("it is free");
        let begin = cluster.log().len();
        let waiter = wait(&other, key);
        wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
        held.unlock().expect("it was held");
        waiter.join().expect("no panic").unlock().expect("it was held");
        let log = cluster.log();
        let said = log.get(begin..).unwrap_or_default();
        let release = said.split("pg_notify").nth(1).expect("the release is in the log");
        let low = release.split("$3 = '").nth(1).and_then(|rest| rest.split('\'').next());
        let low: i32 = low.and_then(|low| low.parse().ok()).expect("its parameters");
        let channel = format!("LISTEN distlock_{}", low & 7);
        assert!(log.contains(&channel), "key {key}: {channel}");
        wait_until("nobody waits", LIMIT, || registered(&cluster) == 0);
    }
    let channels =
        (0..8).filter(|number| cluster.log().contains(&format!("LISTEN distlock_{number}")));
    assert_eq!(channels.count(), 8, "40 keys use all of them, each for itself");
}

#[test]
fn a_release_that_nobody_waits_for_notifies_nobody() {
    let cluster = TempCluster::builder().setting("autovacuum", "off").start();
    let manager = connect(&cluster);
    let xid = || cluster.sql().value("SELECT pg_current_xact_id()").expect("an xid");
    let before: u64 = xid().parse().expect("a number");
    for _ in 0..100 {
        drop(manager.acquire(1).try_now().expect("an answer").expect("it is free"));
    }
    drop(manager);
    let after: u64 = xid().parse().expect("a number");
    assert_eq!(after, before + 1, "a notification takes a transaction id; these are our own");
}

/// The end of a holder notifies nobody: waiters find out by themselves.
#[test]
fn a_holder_that_ends_without_a_word_is_followed_all_the_same() {
    let cluster = TempCluster::start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let waiter = wait(&other, 1);
    wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
    let query = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l \
                 WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' \
                 AND objsubid = 1 AND objid = 1";
    cluster.sql().query(query);
    waiter.join().expect("no panic").unlock().expect("it was held");
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
}

/// The number beside a key may be taken for other reasons: that ends in polling, not in a spin.
#[test]
fn a_companion_key_that_somebody_else_holds_leads_to_polling() {
    let cluster = TempCluster::builder().setting("log_statement", "all").start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let waiter = wait(&other, 1);
    wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
    let query = "SELECT classid::int8, objid::int8 FROM pg_locks \
                 WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    let row = cluster.sql().query(query).remove(0);
    let halves: Vec<i64> = row.iter().flatten().map(|half| half.parse().expect("oid")).collect();
    held.unlock().expect("it was held");
    waiter.join().expect("no panic").unlock().expect("it was held");

    let mut stranger = cluster.sql();
    let (high, low) = (halves[0] as u32 as i32, halves[1] as u32 as i32);
    wait_until("the stranger has it", LIMIT, || {
        let query = format!("SELECT pg_try_advisory_lock({high}, {low})");
        stranger.value(&query).as_deref() == Some("t")
    });
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let waiter = wait(&other, 1);
    let asked = |log: &str| log.matches("pg_try_advisory_lock($1)").count();
    let before = asked(&cluster.log());
    wait_until("it asks, again and again", LIMIT, || asked(&cluster.log()) > before + 3);
    assert_eq!(registered(&cluster), 0, "it could not register");
    held.unlock().expect("it was held");
    waiter.join().expect("no panic").unlock().expect("it was held");
    assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 0);
}

/// NOTIFY needs no privilege.
#[test]
fn a_flood_of_notifications_by_another_role_costs_no_lock_and_no_turn() {
    let cluster = TempCluster::start();
    cluster.sql().query("CREATE ROLE stranger LOGIN");
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let own = other.acquire(2).try_now().expect("an answer").expect("it is free");
    let waiter = wait(&other, 1);
    wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
    let mut stranger = cluster.try_sql_as("stranger", "postgres").expect("trusted");
    for channel in 0..8 {
        let numbers = "SELECT count(*) FROM generate_series(1, 20000) AS i";
        let notified = format!("pg_notify('distlock_{channel}', i::text) IS NOT NULL");
        let count = stranger.value(&format!("{numbers} WHERE {notified}"));
        assert_eq!(count.as_deref(), Some("20000"));
    }
    held.unlock().expect("it was held");
    waiter.join().expect("no panic").unlock().expect("it was held");
    own.unlock().expect("it was held all the time");
}

/// A stranger's commit that notified, and waits for a standby that does not come. The server lets
/// nobody else commit a notification meanwhile.
fn stuck_commit(cluster: &TempCluster) -> thread::JoinHandle<()> {
    let mut stranger = cluster.sql();
    stranger.query("CREATE TABLE written (n int)");
    cluster.sql().query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    cluster.sql().query("SELECT pg_reload_conf()");
    let mut observer = cluster.sql();
    let stuck = thread::spawn(move || {
        // Ends with its backend.
        let _ = stranger.try_query("INSERT INTO written VALUES (1); NOTIFY stranger");
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until("it waits", LIMIT, || observer.value(waiting).as_deref() == Some("1"));
    stuck
}

fn end_stuck_commit(cluster: &TempCluster, stuck: thread::JoinHandle<()>) {
    cluster.sql().query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    );
    stuck.join().expect("no panic");
}

#[test]
fn a_commit_that_cannot_notify_costs_no_lock_and_the_waiter_finds_out_by_asking() {
    let cluster = TempCluster::start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let take = |key: i64| holder.acquire(key).try_now().expect("an answer").expect("it is free");
    // Three batches that notify, one behind the other.
    let held = [1, 3, 4].map(take);
    let own = take(2);
    let waiters = [1, 3, 4].map(|key| wait(&other, key));
    wait_until("the waiters are registered", LIMIT, || registered(&cluster) == 3);
    let stuck = stuck_commit(&cluster);
    drop(held);
    for waiter in waiters {
        waiter.join().expect("no panic").unlock().expect("it was held");
    }
    assert!(own.is_held(), "the session goes on");
    own.unlock().expect("it was held all the time");
    end_stuck_commit(&cluster, stuck);
}

/// It writes nothing but its commit, for which the server does not wait.
#[test]
fn a_release_that_notifies_does_not_wait_for_a_standby() {
    let cluster = TempCluster::builder().setting("synchronous_standby_names", "nobody").start();
    let (holder, other) = (connect(&cluster), connect(&cluster));
    let held = holder.acquire(1).try_now().expect("an answer").expect("it is free");
    let own = holder.acquire(2).try_now().expect("an answer").expect("it is free");
    let waiter = wait(&other, 1);
    wait_until("the waiter is registered", LIMIT, || registered(&cluster) == 1);
    held.unlock().expect("it was held");
    waiter.join().expect("no panic").unlock().expect("it was held");
    own.unlock().expect("it was held all the time");
}
