//! Roles with settings, limits and privileges of their own: the session's settings are ours
//! whatever the role's are, and what a role lacks is named.

use std::time::Duration;

use distlock::{Config, Context, Key, Proxy};

use crate::rig::{PgBouncer, PoolMode};
use crate::support::{TempCluster, pg_locks_advisory, wait_until};
use crate::{LIMIT, connect, direct, lock, refused, says, sqlstate, try_lock};

/// A cluster with a role `app`, made by these statements.
fn cluster(statements: &str) -> TempCluster {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    for statement in std::iter::once("CREATE ROLE app LOGIN").chain(statements.split(';')) {
        sql.query(statement);
    }
    cluster
}

fn as_app(cluster: &TempCluster) -> Config {
    direct(cluster).user("app")
}

/// That two managers of the role exclude each other.
fn check_exclusion(config: &Config) {
    let managers = [connect(config.clone()), connect(config.clone())];
    for key in [Key::from(1), Key::from((1, 2))] {
        let ctx = Context::background();
        let held = managers[0].try_lock(&ctx, key).expect("answers").expect("free");
        assert!(managers[1].try_lock(&ctx, key).expect("answers").is_none());
        held.unlock().expect("it was held");
    }
}

/// Settings that a role may have, and what they are in a session of ours.
const SETTINGS: [(&str, &str, &str); 10] = [
    ("search_path", "public", "pg_catalog"),
    ("statement_timeout", "1s", "0"),
    ("lock_timeout", "1s", "750ms"),
    ("synchronous_commit", "off", "on"),
    ("tcp_keepalives_idle", "700", "2"),
    ("tcp_keepalives_interval", "700", "2"),
    ("tcp_keepalives_count", "70", "5"),
    ("tcp_user_timeout", "700", "10000"),
    // Since PostgreSQL 14.
    ("idle_session_timeout", "1s", "10s"),
    ("client_connection_check_interval", "0", "2s"),
];

#[test]
fn the_settings_of_a_session_are_ours_whatever_the_role_has() {
    let cluster = cluster("ALTER ROLE app SET default_transaction_read_only = on");
    let mut sql = cluster.sql();
    let known = sql.query("SELECT name FROM pg_settings");
    let is_known = |name: &str| known.iter().any(|row| row[0].as_deref() == Some(name));
    let settings = SETTINGS.into_iter().filter(|(name, _, _)| is_known(name));
    for (name, role, _) in settings.clone() {
        sql.query(&format!("ALTER ROLE app SET {name} = '{role}'"));
    }
    check_exclusion(&as_app(&cluster));
    let mut own = cluster.try_sql_as("app", "postgres").expect("connects");
    for (name, role, _) in settings.clone() {
        assert_eq!(own.value(&format!("SHOW {name}")).as_deref(), Some(role), "{name}");
    }
    // Nobody can read the settings of another session. So the observer takes over the server
    // process itself, from a pooler that does not clean up.
    let more = "server_reset_query =\ndefault_pool_size = 1";
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, more);
    let manager = connect(bouncer.config().user("app").proxy(Proxy::SessionAffine).witness(false));
    let held = lock(&manager, 1);
    let locks = pg_locks_advisory(&mut cluster.sql());
    let pid = locks.iter().find(|(key, _)| *key == 1).expect("locked").1;
    held.unlock().expect("it was held");
    manager.close();
    let mut after = bouncer.sql("app");
    let pid_after = after.value("SELECT pg_backend_pid()").expect("a number");
    assert_eq!(pid_after, pid.to_string());
    for (name, _, ours) in settings {
        assert_eq!(after.value(&format!("SHOW {name}")).as_deref(), Some(ours), "{name}");
    }
}

#[test]
fn a_role_whose_transactions_would_wait_for_others_locks_at_once() {
    // Serializable, read-only and deferrable: each statement would wait for a safe snapshot, and
    // there is none while somebody else writes.
    let cluster = cluster(
        "ALTER ROLE app SET default_transaction_isolation = serializable;
         ALTER ROLE app SET default_transaction_read_only = on;
         ALTER ROLE app SET default_transaction_deferrable = on;
         CREATE TABLE written (n int)",
    );
    let manager = connect(as_app(&cluster));
    let mut writer = cluster.sql();
    writer.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
    writer.query("INSERT INTO written VALUES (1)");
    lock(&manager, 1).unlock().expect("it was held");
    writer.query("COMMIT");
}

#[test]
fn a_search_path_with_functions_of_the_same_names_changes_nothing() {
    let cluster = cluster("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC");
    let mut sql = cluster.sql();
    for (head, result, value) in [
        ("pg_try_advisory_lock(bigint)", "boolean", "true"),
        ("pg_try_advisory_lock(int, int)", "boolean", "true"),
        ("pg_advisory_unlock(bigint)", "boolean", "true"),
        ("pg_advisory_unlock(int, int)", "boolean", "true"),
        ("pg_backend_pid()", "int", "1"),
        ("pg_is_in_recovery()", "boolean", "true"),
        ("version()", "text", "'evil'"),
        ("current_setting(text, boolean)", "text", "'evil'"),
        ("set_config(text, text, boolean)", "text", "'evil'"),
    ] {
        sql.query(&format!(
            "CREATE FUNCTION evil.{head} RETURNS {result} LANGUAGE sql AS $$ SELECT {value} $$"
        ));
    }
    sql.query("CREATE VIEW evil.pg_locks AS SELECT 1 AS x; CREATE DOMAIN evil.text AS int");
    sql.query("ALTER ROLE app SET search_path = evil, pg_catalog");
    let mut evil = cluster.try_sql_as("app", "postgres").expect("connects");
    assert_eq!(evil.value("SELECT version()").as_deref(), Some("evil"));
    check_exclusion(&as_app(&cluster));
}

#[test]
fn a_role_with_one_connection_is_told_about_the_witness_and_works_without() {
    let cluster = cluster("ALTER ROLE app CONNECTION LIMIT 1");
    let error = refused(as_app(&cluster));
    assert_eq!(sqlstate(&error).as_deref(), Some("53300"), "{error}");
    says(&error, &["second connection, which tests the server's locks", "Config::witness(false)"]);
    let mut sql = cluster.sql();
    wait_until("its place is free again", LIMIT, || {
        let left = sql.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'");
        left.as_deref() == Some("0")
    });
    let manager = connect(as_app(&cluster).witness(false));
    let held = lock(&manager, 1);
    assert!(try_lock(&connect(direct(&cluster)), 1).is_none() && held.is_held());
}

#[test]
fn a_role_without_any_privilege_locks_for_real() {
    let cluster = cluster(
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC; \
         GRANT CONNECT ON DATABASE postgres TO app; \
         REVOKE ALL ON pg_stat_activity FROM PUBLIC",
    );
    let mut app = cluster.try_sql_as("app", "postgres").expect("connects");
    let (denied, _) = app.try_query("SELECT * FROM pg_stat_activity").expect_err("denied");
    assert_eq!(denied, "42501");
    check_exclusion(&as_app(&cluster));
}

#[test]
fn a_role_that_may_not_lock_is_told_what_it_lacks() {
    for function in ["pg_try_advisory_lock(bigint)", "pg_advisory_unlock(bigint)"] {
        let cluster =
            cluster(&format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC"));
        let error = refused(as_app(&cluster));
        assert_eq!(sqlstate(&error).as_deref(), Some("42501"), "{error}");
        let name = function.split('(').next().expect("a name");
        says(&error, &[name, "grant the role what it lacks"]);
        assert_eq!(error.unsuitability(), None);
    }
    let cluster = cluster("REVOKE SELECT ON pg_catalog.pg_locks FROM PUBLIC");
    let error = refused(as_app(&cluster));
    assert_eq!(sqlstate(&error).as_deref(), Some("42501"), "{error}");
    says(&error, &["pg_locks", "grant the role what it lacks"]);
}

#[test]
fn a_role_that_may_not_lock_pairs_is_told_so_by_the_request_and_goes_on() {
    let cluster =
        cluster("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_lock(int, int) FROM PUBLIC");
    let manager = connect(as_app(&cluster));
    let held = lock(&manager, 1);
    let error = manager.try_lock(&Context::background(), (1, 2)).expect_err("denied");
    assert_eq!(sqlstate(&error).as_deref(), Some("42501"), "{error}");
    says(&error, &["pg_try_advisory_lock", "grant the role what it lacks"]);
    assert!(held.is_held());
    lock(&manager, 2).unlock().expect("it was held");
    assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 1);
}

/// To look for waiters takes one of these, and to notify them the other: without it a key
/// goes back all the same.
#[test]
fn a_role_that_may_not_notify_releases_whatever_it_holds_and_keeps_its_session() {
    for function in ["pg_notify(text, text)", "pg_try_advisory_lock(int, int)"] {
        let cluster =
            cluster(&format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC"));
        let manager = connect(as_app(&cluster));
        let kept = lock(&manager, 1);
        let context = Context::background();
        let shared = manager.acquire(2).shared().context(&context).wait().expect("free");
        shared.unlock().expect("it was held");
        let slot = manager.acquire(3).slots(4).context(&context).wait().expect("free");
        slot.unlock().expect("it was held");
        let mut downgraded = manager.acquire(4).context(&context).wait().expect("free");
        downgraded.downgrade().expect("it was held");
        assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 2, "what is held, and no more");
        let other = connect(direct(&cluster));
        let beside = other.acquire(4).shared().context(&context).wait().expect("it is shared");
        beside.unlock().expect("it was held");
        downgraded.unlock().expect("it was held");
        assert!(kept.is_held(), "the session goes on");
        lock(&other, 4).unlock().expect("it was held");
    }
}

/// Each of them fails a batch, and with it what was sent along.
#[test]
fn a_role_that_may_not_notify_is_told_so_once_a_session() {
    let cluster =
        cluster("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC");
    let denials = || cluster.log().matches("permission denied for function pg_notify").count();
    let manager = connect(as_app(&cluster));
    let context = Context::background();
    let kept = lock(&manager, 1);
    for round in 0..5 {
        lock(&manager, 2).unlock().expect("it was held");
        let shared = manager.acquire(3).shared().context(&context).wait().expect("free");
        shared.unlock().expect("it was held");
        let slot = manager.acquire(4).slots(4).context(&context).wait().expect("free");
        slot.unlock().expect("it was held");
        let mut downgraded = lock(&manager, 5);
        downgraded.downgrade().expect("it was held");
        downgraded.unlock().expect("it was held");
        let set = manager.acquire_all(10..30).wait().expect("free");
        set.unlock().expect("it was held");
        assert_eq!(denials(), 1, "round {round}");
    }
    // A waiter that gives up opens the gate, which is denied as well.
    let other = connect(direct(&cluster));
    let theirs = lock(&other, 6);
    let given_up = manager.acquire(6).timeout(Duration::from_millis(200)).wait();
    assert!(given_up.expect_err("taken").is_timeout());
    let beside = || pg_locks_advisory(&mut cluster.sql()).len();
    wait_until("nothing is left but the two locks", LIMIT, || beside() == 2);
    assert!(theirs.is_held() && kept.is_held(), "the session goes on");
    assert_eq!(denials(), 1);
}

/// A try that fails when it has taken the key, or the slot. What may have been taken goes back by
/// a statement of its own, which has to ask for nothing but that.
#[test]
fn a_role_that_may_not_notify_keeps_its_locks_when_a_try_fails() {
    let cluster =
        cluster("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC");
    let mut sql = cluster.sql();
    for name in ["pg_try_advisory_lock", "pg_try_advisory_lock_shared"] {
        let try_lock = format!("pg_catalog.{name}_as_ever");
        sql.query(&format!("ALTER FUNCTION pg_catalog.{name}(bigint) RENAME TO {name}_as_ever"));
        sql.query(&format!(
            "CREATE FUNCTION pg_catalog.{name}(key bigint) RETURNS boolean LANGUAGE plpgsql AS $$ \
             BEGIN IF key <> 7 AND current_query() NOT LIKE '%generate_series%' THEN \
             RETURN {try_lock}(key); END IF; \
             PERFORM {try_lock}(key); RAISE 'no memory' USING ERRCODE = 'out_of_memory'; END $$"
        ));
    }
    let manager = connect(as_app(&cluster));
    let kept = lock(&manager, 1);
    for round in 1..=3 {
        let results = [
            manager.acquire(7).try_now(),
            manager.acquire(7).shared().try_now(),
            manager.acquire(8).slots(4).try_now(),
        ];
        for result in results {
            let error = result.expect_err("it fails");
            assert!(error.is_lock_table_full(), "{error}");
        }
        assert_eq!(cluster.log().matches("no memory").count(), 3 * round, "it is about this");
        let taken = || pg_locks_advisory(&mut cluster.sql());
        wait_until("what is held is left, and no more", LIMIT, || taken().len() == 1);
        assert!(kept.is_held(), "the session goes on");
    }
    assert_eq!(cluster.log().matches("permission denied for function pg_notify").count(), 1);
}

#[test]
fn more_locks_than_half_of_the_servers_table_are_warned_about() {
    let small = TempCluster::builder().setting("max_locks_per_transaction", "10");
    let cluster = small.setting("max_connections", "20").setting("max_wal_senders", "0").start();
    // As many as the documentation of the setting says (manual: runtime-config-locks).
    let half = 10 * 20 / 2;
    for max_locks in [1, half] {
        let manager = connect(direct(&cluster).max_locks(max_locks).max_waiters(0));
        assert_eq!(manager.warnings(), [], "{max_locks}");
    }
    for max_locks in [half + 1, 1_000_000] {
        let manager = connect(direct(&cluster).max_locks(max_locks).max_waiters(0));
        let [warning] = manager.warnings()[..] else { panic!("{:?}", manager.warnings()) };
        let text = warning.to_string();
        for word in [&max_locks.to_string(), "200", "max_locks_per_transaction"] {
            assert!(text.contains(word), "{text}");
        }
        // It is no error.
        drop(lock(&manager, 1));
    }
}
