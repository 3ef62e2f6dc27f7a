//! Roles with settings, limits and privileges of their own: the session's settings are ours
//! whatever the role's are, and what a role lacks is named.

use distlock::{Config, Context, Key, Proxy};

use crate::rig::{PgBouncer, PoolMode};
use crate::support::{TempCluster, pg_locks_advisory};
use crate::{connect, direct, lock, refused, says, sqlstate, try_lock};

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

const OWN_SETTINGS: &str = "ALTER ROLE app SET idle_session_timeout = '1s'; \
    ALTER ROLE app SET statement_timeout = '1s'; ALTER ROLE app SET lock_timeout = '1s'; \
    ALTER ROLE app SET search_path = public; \
    ALTER ROLE app SET default_transaction_read_only = on; \
    ALTER ROLE app SET synchronous_commit = off; \
    ALTER ROLE app SET tcp_keepalives_idle = 700; ALTER ROLE app SET tcp_user_timeout = 700; \
    ALTER ROLE app SET client_connection_check_interval = 0";

#[test]
fn the_settings_of_a_session_are_ours_whatever_the_role_has() {
    let cluster = cluster(OWN_SETTINGS);
    check_exclusion(&as_app(&cluster));
    let mut own = cluster.try_sql_as("app", "postgres").expect("connects");
    assert_eq!(own.value("SHOW search_path").as_deref(), Some("public"));
    assert_eq!(own.value("SHOW statement_timeout").as_deref(), Some("1s"));
    // Nobody can read the settings of another session. So the observer takes over the server
    // process itself, from a pooler that does not clean up.
    let more = "server_reset_query =\ndefault_pool_size = 1";
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, more);
    let manager =
        connect(bouncer.config().user("app").proxy(Proxy::SessionAffine).witness(false));
    let held = lock(&manager, 1);
    let locks = pg_locks_advisory(&mut cluster.sql());
    let pid = locks.iter().find(|(key, _)| *key == 1).expect("locked").1;
    held.unlock().expect("it was held");
    manager.close();
    let mut after = bouncer.sql("app");
    let pid_after = after.value("SELECT pg_backend_pid()").expect("a number");
    assert_eq!(pid_after, pid.to_string());
    for (name, value) in [
        ("idle_session_timeout", "10s"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("search_path", "pg_catalog"),
        ("synchronous_commit", "on"),
        ("tcp_keepalives_idle", "2"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "5"),
        ("tcp_user_timeout", "10000"),
        ("client_connection_check_interval", "2s"),
    ] {
        assert_eq!(after.value(&format!("SHOW {name}")).as_deref(), Some(value), "{name}");
    }
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
