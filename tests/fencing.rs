//! Fencing tokens grow whatever happens to the server: killed backends, immediate restarts, and
//! promotions of standbys.

mod support;

use std::time::Duration;

use distlock::{Manager, Token};
use support::{StopMode, TempCluster, signal, wait_until};

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
