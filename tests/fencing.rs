//! Fencing tokens grow whatever happens to the server: killed backends, immediate restarts, and
//! promotions of standbys. And what they are for: the two ways of the README to refuse a write that
//! comes late.

mod support;

use std::thread;
use std::time::Duration;

use distlock::{Lock, Manager, Token};
use support::{
    Sql, StopMode, TempCluster, pg_locks_advisory, shared_cluster, signal, unique_key, wait_until,
};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// The settings of a server that people would use: what is committed is on the disk.
fn durable() -> TempCluster {
    TempCluster::builder().setting("fsync", "on").setting("synchronous_commit", "on").start()
}

fn connect(cluster: &TempCluster) -> Manager {
    Manager::connect(cluster.url()).expect("connects")
}

/// A token of a manager that may have to reconnect first.
fn token(manager: &Manager) -> Token {
    let mut token = None;
    wait_until("a fenced grant", LIMIT, || {
        let granted = manager.acquire("fenced").fenced().timeout(LIMIT).wait();
        token = granted.ok().and_then(|lock| lock.token());
        token.is_some()
    });
    token.expect("there was a grant")
}

#[test]
fn tokens_grow_across_killed_backends_and_immediate_restarts() {
    let mut cluster = durable();
    let manager = connect(&cluster);
    let mut last = token(&manager);
    let mut grow = |manager: &Manager, what: &str| {
        for _ in 0..3 {
            let next = token(manager);
            assert!(next > last, "{what}: {next} after {last}");
            last = next;
        }
    };
    for _ in 0..4 {
        // Not ended but killed: the server starts over from its log.
        let query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'distlock'";
        let pid = cluster.sql().value(query).expect("the manager's session");
        assert!(signal(pid, "KILL"));
        grow(&manager, "a killed backend");
    }
    for _ in 0..4 {
        cluster.stop(StopMode::Immediate);
        cluster.start_again();
        grow(&manager, "an immediate restart");
    }
}

/// Not replayed to the last byte, so that what was written is lost in part: the timeline counts.
#[test]
fn tokens_grow_across_promotions() {
    let mut primary = TempCluster::start();
    let mut last = token(&connect(&primary));
    for promotion in 0..20 {
        let standby = primary.standby();
        let before = token(&connect(&primary));
        assert!(before > last, "promotion {promotion}: {before} after {last}");
        primary.stop(StopMode::Immediate);
        standby.promote();
        last = token(&connect(&standby));
        assert!(last > before, "promotion {promotion}: {last} after {before}");
        assert!(last.timeline > before.timeline);
        primary = standby;
    }
}

/// A holder that has lost its session, and the one that has the key now. With the managers, which
/// locks do not keep.
fn succession() -> ([Lock; 2], [Manager; 2]) {
    let (cluster, key) = (shared_cluster(), unique_key());
    let managers = [(); 2].map(|()| connect(cluster));
    let former = managers[0].acquire(key).fenced().timeout(LIMIT).wait().expect("its turn");
    let mut sql = cluster.sql();
    let held = pg_locks_advisory(&mut sql);
    let (_, backend) = held.iter().find(|(locked, _)| *locked == key).expect("it is held");
    sql.query(&format!("SELECT pg_terminate_backend({backend})"));
    let latter = managers[1].acquire(key).fenced().timeout(LIMIT).wait().expect("its turn");
    assert!(former.context().done().wait_timeout(LIMIT).is_some() && latter.is_held());
    ([former, latter], managers)
}

fn token_of(lock: &Lock) -> i64 {
    lock.token().expect("it is fenced").to_i64().expect("a young cluster")
}

/// Makes a table for a test; gives the first of its sessions.
fn ledger(test: &str) -> Sql {
    let mut sql = shared_cluster().sql();
    sql.query(&format!("CREATE SCHEMA {test}; SET search_path = {test}"));
    sql.query("CREATE TABLE ledger (id int, balance bigint, token bigint NOT NULL DEFAULT 0)");
    sql.query("INSERT INTO ledger VALUES (1, 0)");
    sql
}

/// A session of a program that writes with the statement of the README.
fn writer(test: &str) -> Sql {
    let readme = include_str!("../README.md");
    let recipe = readme.lines().find(|line| line.starts_with("UPDATE ledger SET balance"));
    let (statement, _) = recipe.expect("a recipe").split_once("--").expect("what no row means");
    let mut sql = shared_cluster().sql();
    sql.query(&format!("SET search_path = {test}"));
    // What it returns stands for the count of rows that a driver gives.
    sql.query(&format!("PREPARE guarded (bigint, bigint, int) AS {statement} RETURNING id"));
    sql
}

/// Whether the write was taken.
fn write(sql: &mut Sql, lock: &Lock, balance: i64) -> bool {
    let token = token_of(lock);
    !sql.query(&format!("EXECUTE guarded ({balance}, {token}, 1)")).is_empty()
}

/// The one row of the table, as balance and token.
fn row(sql: &mut Sql) -> [i64; 2] {
    let row = sql.query("SELECT balance, token FROM ledger").remove(0);
    let number = |column: usize| row[column].as_ref().and_then(|text| text.parse().ok());
    [0, 1].map(|column| number(column).expect("a number"))
}

#[test]
fn a_guarded_update_refuses_who_comes_late_and_takes_every_write_of_the_holder() {
    let mut all = ledger("late");
    let ([former, latter], _keep) = succession();
    let [mut late, mut sql] = [(); 2].map(|()| writer("late"));
    assert!(write(&mut late, &former, 10) && write(&mut late, &former, 11), "nobody is later");
    assert!(write(&mut sql, &latter, 20), "the first write of the holder");
    assert!(!write(&mut late, &former, 12), "who comes late is refused");
    assert!(write(&mut sql, &latter, 21), "the second write of the holder, with the same token");
    assert!(!write(&mut late, &former, 13), "for good");
    assert_eq!(row(&mut all), [21, token_of(&latter)]);
}

#[test]
fn a_guarded_update_refuses_who_comes_late_also_if_it_waits_for_the_row() {
    let mut all = ledger("waits");
    let ([former, latter], _keep) = succession();
    for (is_former_first, taken) in [(true, true), (false, false)] {
        let [mut first, mut second] = [(); 2].map(|()| writer("waits"));
        // Neither has written yet.
        all.query("UPDATE ledger SET token = 0");
        let (one, two) = if is_former_first { (&former, &latter) } else { (&latter, &former) };
        first.query("BEGIN");
        assert!(write(&mut first, one, 30));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| write(&mut second, two, 31));
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            wait_until("it waits for the row", LIMIT, || all.value(waits).as_deref() == Some("1"));
            first.query("COMMIT");
            assert_eq!(waiting.join().expect("no panic"), taken, "the token that was committed");
        });
        assert_eq!(row(&mut all)[1], token_of(&latter));
    }
}

#[test]
fn who_sets_the_token_before_it_reads_computes_with_what_nobody_changes_any_more() {
    let mut all = ledger("reads");
    let ([former, latter], _keep) = succession();
    let [mut late, mut sql] = [(); 2].map(|()| writer("reads"));
    assert!(write(&mut late, &former, 10));
    let token = token_of(&latter);
    let first = format!("UPDATE ledger SET token = {token} WHERE id = 1 AND token <= {token}");
    let read = sql.value(&format!("{first} RETURNING balance")).expect("it is not too late");
    assert!(!write(&mut late, &former, 99), "what was read would not be true any more");
    assert!(write(&mut sql, &latter, read.parse::<i64>().expect("a number") + 1));
    assert_eq!(row(&mut all), [11, token]);
}

/// A resource outside of the database, which knows tokens as they are sent to it.
struct Resource<T> {
    largest: Option<T>,
    writes: Vec<&'static str>,
}

impl<T: Ord> Resource<T> {
    /// Whether the write was taken.
    fn write(&mut self, token: T, what: &'static str) -> bool {
        if self.largest.as_ref().is_some_and(|largest| token < *largest) {
            return false;
        }
        self.largest = Some(token);
        self.writes.push(what);
        true
    }
}

fn check_a_resource<T: Ord>(locks: &[Lock; 2], sent: impl Fn(&Lock) -> T) {
    let [former, latter] = locks;
    let mut resource = Resource { largest: None, writes: Vec::new() };
    assert!(resource.write(sent(former), "a") && resource.write(sent(former), "b"));
    assert!(resource.write(sent(latter), "c"), "the first write of the holder");
    assert!(!resource.write(sent(former), "late"), "who comes late is refused");
    assert!(resource.write(sent(latter), "d"), "the second write, with the same token");
    assert!(!resource.write(sent(former), "late"), "for good");
    assert_eq!(resource.writes, ["a", "b", "c", "d"]);
}

#[test]
fn a_resource_elsewhere_that_keeps_the_largest_token_refuses_who_comes_late() {
    let (locks, _keep) = succession();
    check_a_resource(&locks, token_of);
    // Sent as text, and read there.
    check_a_resource(&locks, |lock| -> Token {
        let text = lock.token().expect("it is fenced").to_string();
        text.parse().expect("a token")
    });
}
