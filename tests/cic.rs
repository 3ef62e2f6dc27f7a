//! `CREATE INDEX CONCURRENTLY` while many wait for a lock. It waits for every snapshot that is
//! older than its own (manual: sql-createindex, "Building Indexes Concurrently"), so whoever waits
//! for a lock inside a statement stops it; and if it is the holder of the lock who builds the
//! index, both wait for ever. Invariant I5: our waiters are inside no statement.

mod support;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Acquiring, Context, Manager};
use support::{Sql, TempCluster, pg_locks_advisory, wait_until};

const KEY: i64 = 7;
const OTHER_KEY: i64 = 8;
const WAITERS: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);

/// Of the sessions of all managers: those that are idle and have no snapshot, and the others.
const ACTIVITY: &str = "SELECT count(*) FILTER (WHERE is_quiet), \
     count(*) FILTER (WHERE NOT is_quiet) FROM (SELECT state = 'idle' AND backend_xmin IS NULL \
     AND backend_xid IS NULL AND xact_start IS NULL AS is_quiet FROM pg_stat_activity \
     WHERE application_name = 'distlock') AS sessions";

fn cluster() -> TempCluster {
    // A manager has a second session while it connects.
    let cluster = TempCluster::builder().setting("max_connections", "150").start();
    cluster.sql().query("CREATE TABLE small AS SELECT n FROM generate_series(1, 100) AS n");
    cluster
}

fn manager(cluster: &TempCluster) -> Manager {
    Manager::connect(cluster.url()).expect("connects")
}

/// A future that waits for the key, and has been told by the server that it is taken: what was
/// asked behind it on the same session is answered.
fn queued(manager: &Manager) -> Pin<Box<Acquiring>> {
    let mut future = Box::pin(manager.acquire(KEY).into_future());
    assert!(waits(&mut future), "the key is taken");
    let other = manager.try_lock(&Context::background(), OTHER_KEY).expect("an answer");
    other.expect("free").unlock().expect("it was held");
    assert!(waits(&mut future), "the key is taken");
    future
}

fn waits(future: &mut Pin<Box<Acquiring>>) -> bool {
    future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending()
}

fn is_built(sql: &mut Sql, index: &str) -> bool {
    let valid = format!("SELECT indisvalid FROM pg_index WHERE indexrelid = '{index}'::regclass");
    sql.value(&valid).as_deref() == Some("t")
}

#[test]
fn the_holder_builds_an_index_concurrently_while_fifty_managers_wait() {
    let cluster = cluster();
    let mut application = cluster.sql();
    let holder = manager(&cluster);
    let lock = holder.lock(&Context::background(), KEY).expect("free");
    let managers: Vec<Manager> = (0..WAITERS).map(|_| manager(&cluster)).collect();
    let mut waiting: Vec<_> = managers.iter().map(queued).collect();
    let all = (WAITERS + 1).to_string();
    let mut observer = cluster.sql();
    let mut all_are_quiet = || {
        let row = observer.query(ACTIVITY).remove(0);
        row == [Some(all.clone()), Some("0".to_owned())]
    };
    wait_until("every session is idle and has no snapshot", LIMIT, &mut all_are_quiet);
    application.query("CREATE INDEX CONCURRENTLY built ON small (n)");
    assert!(is_built(&mut application, "built"));
    assert!(waiting.iter_mut().all(waits), "nobody has the key but its holder");
    assert!(lock.is_held());
    wait_until("every session is idle and has no snapshot", LIMIT, &mut all_are_quiet);
    assert_eq!(pg_locks_advisory(&mut application).len(), 1);
    lock.unlock().expect("it was held");
    drop(waiting);
    wait_until("no lock is left", LIMIT, || pg_locks_advisory(&mut application).is_empty());
}

/// Why that is worth a test; and that it would be seen.
#[test]
fn a_waiter_inside_a_statement_would_stop_it() {
    let cluster = cluster();
    let mut application = cluster.sql();
    let holder = manager(&cluster);
    let lock = holder.lock(&Context::background(), KEY).expect("free");
    let mut waiter = cluster.sql();
    let waiting = thread::spawn(move || waiter.query(&format!("SELECT pg_advisory_lock({KEY})")));
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    wait_until("it waits", LIMIT, || application.value(waits).as_deref() == Some("1"));
    application.query("SET statement_timeout = '500ms'");
    let stopped = application.try_query("CREATE INDEX CONCURRENTLY stopped ON small (n)");
    assert_eq!(stopped.expect_err("it waits for the waiter").0, "57014");
    assert!(!is_built(&mut application, "stopped"));
    lock.unlock().expect("it was held");
    waiting.join().expect("it has the key");
}
