//! Standbys: each keeps a lock table of its own, so it is refused until it is promoted, and of
//! several servers the primary is found.

use std::fs;

use distlock::{Config, Manager, Proxy, Unsuitability};

use crate::support::{ServerUser, StopMode, TempCluster, pg_locks_advisory, wait_until};
use crate::{LIMIT, connect, direct, lock, lock_when_back, refused, says, try_lock};

/// A way to several servers.
fn list(clusters: &[&TempCluster]) -> Config {
    let hosts = vec!["127.0.0.1"; clusters.len()].join(",");
    let ports: Vec<_> = clusters.iter().map(|cluster| cluster.port().to_string()).collect();
    let text = format!("host={hosts} port={} user=postgres dbname=postgres", ports.join(","));
    text.parse().expect("a list of servers")
}

/// Whether the manager's session is with this server.
fn is_with(manager: &Manager, cluster: &TempCluster) -> bool {
    let held = lock(manager, 77);
    let is_there = pg_locks_advisory(&mut cluster.sql()).iter().any(|(key, _)| *key == 77);
    held.unlock().expect("it was held");
    is_there
}

#[test]
fn a_standby_is_refused_until_it_is_promoted() {
    let mut primary = TempCluster::start();
    let standby = primary.standby();
    let held = lock(&connect(direct(&primary)), 1);
    for config in [
        direct(&standby),
        direct(&standby).witness(false),
        direct(&standby).proxy(Proxy::SessionAffine),
        standby.socket_config_string().parse().expect("a list of keywords"),
    ] {
        let error = refused(config);
        assert!(error.is_standby(), "{error}");
        assert_eq!(error.unsuitability(), Some(Unsuitability::Standby));
        says(&error, &["standby", "connect to the primary"]);
    }
    drop(held);
    primary.stop(StopMode::Fast);
    standby.promote();
    let managers = [connect(direct(&standby)), connect(direct(&standby))];
    let held = lock(&managers[0], 1);
    assert!(try_lock(&managers[1], 1).is_none() && held.is_held());
}

#[test]
fn a_primary_that_becomes_a_standby_is_left_alone_until_it_is_promoted() {
    let mut cluster = TempCluster::start();
    let manager = connect(direct(&cluster));
    let held = lock(&manager, 1);
    cluster.stop(StopMode::Fast);
    // An empty file of this name makes a server a standby (manual: standby-settings).
    let signal = cluster.data_dir().join("standby.signal");
    fs::write(&signal, "").expect("cannot write standby.signal");
    if let Some((uid, gid)) = ServerUser::get().ids() {
        std::os::unix::fs::chown(&signal, Some(uid), Some(gid)).expect("cannot chown a file");
    }
    cluster.start_again();
    let ctx = distlock::Context::background();
    wait_until("the reason is told", LIMIT, || {
        manager.try_lock(&ctx, 1).is_err_and(|error| error.is_unavailable() && error.is_standby())
    });
    assert!(!held.is_held());
    cluster.promote();
    assert!(lock_when_back(&manager, 1).is_held());
}

#[test]
fn of_several_servers_the_primary_is_taken_wherever_it_stands() {
    let primary = TempCluster::start();
    let (one, two) = (primary.standby(), primary.standby());
    for order in [[&one, &primary, &two], [&one, &two, &primary], [&primary, &one, &two]] {
        assert!(is_with(&connect(list(&order)), &primary));
    }
    let error = refused(list(&[&one, &two]));
    assert!(error.is_standby(), "{error}");
    says(&error, &[&one.port().to_string(), &two.port().to_string()]);
}

#[test]
fn with_a_list_of_servers_the_manager_follows_the_primary() {
    let mut primary = TempCluster::start();
    let standby = primary.standby();
    let manager = connect(list(&[&primary, &standby]));
    assert!(is_with(&manager, &primary));
    let held = lock(&manager, 1);
    standby.wait_for_replay_of(&primary);
    primary.stop(StopMode::Fast);
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
    standby.promote();
    let again = lock_when_back(&manager, 1);
    assert!(again.is_held() && !held.is_held());
    assert_eq!(pg_locks_advisory(&mut standby.sql()).len(), 1);
    again.unlock().expect("it was held");
    assert!(is_with(&manager, &standby));
}
