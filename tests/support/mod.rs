//! What the tests, the benches and the examples share to meet a real PostgreSQL: private
//! throw-away clusters (`cluster`), standbys of them (`standby`), an observer that looks into the
//! server on a connection of its own (`sql`), and a bounded wait for what becomes true eventually.
//!
//! But for `back`, it does not use the library: what the library claims is checked against what the
//! server says to somebody else. A machine without PostgreSQL fails the test loudly; nothing is
//! ever skipped.
//!
//! Included with `mod support;` by tests, and with
//! `#[path = "../tests/support/mod.rs"] mod support;` by benches and examples.
#![allow(dead_code, reason = "each binary uses a part of it")]
#![allow(unreachable_pub, reason = "a module of many binaries, public in none")]
#![allow(unused_imports, reason = "each binary uses a part of it")]

mod back;
mod cluster;
mod executor;
mod scratch;
mod sql;
mod standby;

pub use back::lock_when_back;
pub use cluster::{Builder, StopMode, TempCluster, free_port, is_program, tail, wait_exit};
pub use executor::{await_for, block_on, block_on_with, unparker};
pub use scratch::{Scratch, ServerUser};
pub use sql::{Row, Sql, SqlFailure};

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The cluster of this process for all tests that leave the server as it is: each takes keys of
/// its own from [`unique_key`]. A test that restarts the server or kills sessions at large
/// starts its own; this one is handed out shared, so it cannot be stopped.
///
/// Statics are not dropped; the watchdog ends the server when the process is gone.
pub fn shared_cluster() -> &'static TempCluster {
    static SHARED: OnceLock<TempCluster> = OnceLock::new();
    SHARED.get_or_init(TempCluster::start)
}

/// A key that no other test of this process uses, with bits in both of its halves.
pub fn unique_key() -> i64 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let low = NEXT.fetch_add(1, Ordering::Relaxed);
    (i64::from(std::process::id()) << 32) | i64::from(low)
}

/// Polls `f` each millisecond until it is true; panics with `what` when `limit` is over.
///
/// For conditions that become true eventually, after an event of another process. It is not a
/// measurement and not a way to let a race settle.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut f: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !f() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal, by the shell: std has no call for it, and not every system has the program.
/// Says whether the process was there.
#[must_use]
pub fn signal(pid: impl std::fmt::Display, name: &str) -> bool {
    let kill = format!("kill -s {name} {pid}");
    let status = std::process::Command::new("/bin/sh").args(["-c", &kill]).status();
    status.expect("every system has a shell").success()
}

/// The bigint advisory locks that are held in the database of `sql`, each with the pid of its
/// backend, in the order of the keys (manual: view-pg-locks).
pub fn pg_locks_advisory(sql: &mut Sql) -> Vec<(i64, i32)> {
    // objsubid 1 marks a single bigint key; its high half is classid, its low half objid.
    let rows = sql.query(
        "SELECT (classid::bigint << 32) | objid::bigint, pid FROM pg_locks \
         WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = \
         (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2",
    );
    rows.iter().map(|row| (number(row, 0), number(row, 1))).collect()
}

fn number<T: std::str::FromStr>(row: &Row, column: usize) -> T {
    let text = row.get(column).and_then(Option::as_deref).unwrap_or("NULL");
    text.parse().unwrap_or_else(|_| panic!("column {column} should be a number, is {text:?}"))
}
