//! Servers that are none, or not quite: what grants locks that exclude nobody is refused, and
//! what only speaks an older protocol is taken.

use std::time::Duration;

use distlock::{Config, Error, Manager, Proxy, Unsuitability};

use crate::rig::{Fake, Manners, Pglite, Relay, Treatment};
use crate::support::lock_when_back;
use crate::support::{TempCluster, pg_locks_advisory, wait_until};
use crate::{LIMIT, connect, lock, refused, says, try_lock};

#[track_caller]
fn unsuitable(config: Config, kind: Unsuitability) -> Error {
    let error = refused(config);
    assert_eq!(error.unsuitability(), Some(kind), "{error}");
    error
}

#[test]
fn pglite_is_refused_within_the_connect_timeout() {
    let pglite = Pglite::start();
    // It hangs at protocol 3.2: after half of the time it is asked for 3.0.
    let config = pglite.config().connect_timeout(Duration::from_secs(4));
    for proxy in [Proxy::None, Proxy::SessionAffine] {
        let error = unsuitable(config.clone().proxy(proxy), Unsuitability::Engine);
        says(&error, &["PGlite", "use a PostgreSQL server"]);
    }
}

#[test]
fn cockroachdb_is_refused_by_its_name() {
    let version = "CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/06/25, go1.23.7)";
    let by_version = Manners { version, ..Manners::HIDDEN };
    let by_parameter =
        Manners { parameter: Some(("crdb_version", "CockroachDB CCL v25.2.1")), ..Manners::HIDDEN };
    for manners in [by_version, by_parameter] {
        let fake = Fake::start(manners);
        for config in [fake.config(), fake.config().proxy(Proxy::SessionAffine).witness(false)] {
            says(&unsuitable(config, Unsuitability::Engine), &["CockroachDB", "stubs"]);
        }
    }
}

#[test]
fn an_engine_that_is_no_postgresql_is_refused_by_its_version() {
    let fake = Fake::start(Manners { version: "SomeDB 3.1", ..Manners::HIDDEN });
    says(&unsuitable(fake.config(), Unsuitability::Engine), &["SomeDB 3.1"]);
}

#[test]
fn locks_that_pg_locks_does_not_show_are_refused_without_a_witness_too() {
    let fake = Fake::start(Manners { listed: "0", ..Manners::HIDDEN });
    for config in [fake.config(), fake.config().witness(false)] {
        says(&unsuitable(config, Unsuitability::FakeLocks), &["pg_locks"]);
    }
}

#[test]
fn locks_that_everybody_gets_are_refused_by_the_witness_alone() {
    let fake = Fake::start(Manners::HIDDEN);
    says(&unsuitable(fake.config(), Unsuitability::FakeLocks), &["second connection"]);
    // What the witness is for: nothing else gives this one away.
    let config = fake.config().witness(false);
    let (one, two) = (connect(config.clone()), connect(config));
    let both = (lock(&one, 1), lock(&two, 1));
    assert!(both.0.is_held() && both.1.is_held());
}

#[test]
fn a_session_without_a_key_is_one_through_a_proxy() {
    let cluster = TempCluster::start();
    let relay = Relay::start(&cluster, Treatment::HidesTheKey);
    let error = unsuitable(relay.config(), Unsuitability::Pooler);
    assert!(error.is_pooler());
    says(&error, &["announced no server process", "Config::proxy(Proxy::SessionAffine)"]);
    let manager = connect(relay.config().proxy(Proxy::SessionAffine));
    let held = lock(&manager, 1);
    let other = connect(relay.config().proxy(Proxy::SessionAffine));
    assert!(try_lock(&other, 1).is_none() && held.is_held());
}

#[test]
fn a_server_that_returns_no_rows_is_refused_as_no_postgresql() {
    let cluster = TempCluster::start();
    let relay = Relay::start(&cluster, Treatment::HidesTheRows);
    for witness in [true, false] {
        let error = refused(relay.config().witness(witness));
        assert!(matches!(error, Error::Protocol(_)), "{error}");
        says(&error, &["CommandComplete", "identity", "is this a PostgreSQL server?"]);
    }
}

/// Ends the session of the lock, and waits until the manager has another one.
fn lose_session(cluster: &TempCluster, manager: &Manager) {
    let mut sql = cluster.sql();
    let held = lock_when_back(manager, 1);
    let backend = pg_locks_advisory(&mut sql)[0].1;
    sql.query(&format!("SELECT pg_terminate_backend({backend})"));
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
    drop(held);
    lock_when_back(manager, 1).unlock().expect("it was held");
}

#[test]
fn what_no_longer_takes_protocol_3_2_is_asked_for_it_once_more_and_not_at_every_reconnect() {
    let cluster = TempCluster::start();
    for treatment in [Treatment::HangsUpOn3_2, Treatment::IgnoresThe3_2] {
        let relay = Relay::start(&cluster, Treatment::Fair);
        let manager = connect(relay.config().connect_timeout(Duration::from_secs(2)));
        // Another one behind the same address, say.
        relay.turns(treatment);
        lose_session(&cluster, &manager);
        let asked = relay.asked_3_2();
        lose_session(&cluster, &manager);
        lose_session(&cluster, &manager);
        assert_eq!(relay.asked_3_2(), asked, "{treatment:?}");
    }
}

#[test]
fn a_known_server_that_has_become_slow_has_the_whole_connect_timeout_for_its_answer() {
    let cluster = TempCluster::start();
    let relay = Relay::start(&cluster, Treatment::Fair);
    let manager = connect(relay.config().connect_timeout(Duration::from_millis(3_500)));
    let mut sql = cluster.sql();
    // It says nothing for so long: more than half of the time that there is.
    sql.query("ALTER SYSTEM SET pre_auth_delay = 2");
    sql.query("SELECT pg_reload_conf()");
    wait_until("the setting is in force", LIMIT, || {
        sql.value("SHOW pre_auth_delay").as_deref() == Some("2s")
    });
    lose_session(&cluster, &manager);
}

#[test]
fn what_does_not_take_protocol_3_2_is_asked_for_3_0_and_from_then_on_for_nothing_else() {
    let cluster = TempCluster::start();
    for treatment in
        [Treatment::Fair, Treatment::HangsUpOn3_2, Treatment::Refuses3_2, Treatment::IgnoresThe3_2]
    {
        println!("{treatment:?}");
        let relay = Relay::start(&cluster, treatment);
        let manager = connect(relay.config().connect_timeout(Duration::from_secs(2)));
        let asked = relay.asked_3_2();
        assert!(asked >= 1);
        let held = lock(&manager, 1);
        // And again when the session is lost.
        let mut sql = cluster.sql();
        let backend = pg_locks_advisory(&mut sql)[0].1;
        sql.query(&format!("SELECT pg_terminate_backend({backend})"));
        assert!(held.context().done().wait_timeout(LIMIT).is_some());
        lock_when_back(&manager, 1).unlock().expect("it was held");
        match treatment {
            Treatment::Fair => assert!(relay.asked_3_2() > asked),
            _ => assert_eq!(relay.asked_3_2(), asked, "it is known not to take it"),
        }
    }
}
