//! Standbys: each keeps a lock table of its own, so it is refused until it is promoted.

use std::fs;

use distlock::{Context, Proxy, Unsuitability};

use crate::support::lock_when_back;
use crate::support::{ServerUser, StopMode, TempCluster, wait_until};
use crate::{LIMIT, connect, direct, lock, refused, says, try_lock};

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
    let ctx = Context::background();
    wait_until("the reason is told", LIMIT, || {
        manager.try_lock(&ctx, 1).is_err_and(|error| error.is_unavailable() && error.is_standby())
    });
    assert!(!held.is_held());
    cluster.promote();
    assert!(lock_when_back(&manager, 1).is_held());
}
