//! Poolers in front of a real server: what shares a server process among clients is refused, and
//! what keeps each client on one process is taken, if the configuration says so.

use std::time::Duration;

use distlock::{Cause, Config, Manager, Proxy};

use crate::rig::{PgBouncer, Pgpool, PoolMode};
use crate::support::lock_when_back;
use crate::support::{TempCluster, pg_locks_advisory, wait_until};
use crate::{LIMIT, connect, direct, lock, refused, says, try_lock};

fn affine(config: Config) -> Config {
    config.proxy(Proxy::SessionAffine)
}

/// That a key is one manager's at a time, whichever way it comes.
fn check_exclusion(managers: &[Manager]) {
    for (key, holder) in (1..).zip(managers) {
        let held = lock(holder, key);
        let others = managers.iter().filter(|manager| !std::ptr::eq(*manager, holder));
        for other in others {
            assert!(try_lock(other, key).is_none(), "key {key} was given away twice");
        }
        held.unlock().expect("it was held");
        for manager in managers {
            lock(manager, key).unlock().expect("it was held");
        }
    }
}

/// That the server has no advisory lock, soon: a pooler cleans up behind a client on its own time.
fn check_nothing_left(cluster: &TempCluster) {
    let mut sql = cluster.sql();
    wait_until("nothing is left", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
}

#[test]
fn pgbouncer_is_refused_in_every_mode_unless_the_configuration_speaks_of_it() {
    let cluster = TempCluster::start();
    for mode in PoolMode::ALL {
        let bouncer = PgBouncer::start(&cluster, mode, "");
        for witness in [true, false] {
            let error = refused(bouncer.config().witness(witness));
            assert!(error.is_pooler(), "{mode:?}: {error}");
            says(&error, &["connect to PostgreSQL itself", "Config::proxy(Proxy::SessionAffine)"]);
        }
    }
}

#[test]
fn pgbouncer_in_session_mode_locks_for_real() {
    let cluster = TempCluster::start();
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, "");
    let mut managers =
        [bouncer.config(), bouncer.config()].map(|config| connect(affine(config))).to_vec();
    managers.push(connect(direct(&cluster)));
    check_exclusion(&managers);
    // A server process that comes back from one manager is good for the next.
    managers.remove(0).close();
    for _ in 0..3 {
        managers.push(connect(affine(bouncer.config())));
        check_exclusion(&managers);
        managers.pop().expect("just pushed").close();
    }
    let held = lock(&managers[0], 1);
    drop(managers);
    assert!(!held.is_held());
    check_nothing_left(&cluster);
}

#[test]
fn a_server_process_that_ends_behind_pgbouncer_is_a_lost_session() {
    let cluster = TempCluster::start();
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, "");
    let manager = connect(affine(bouncer.config()));
    let held = lock(&manager, 1);
    let mut sql = cluster.sql();
    let backend = |sql: &mut _| {
        let locks = pg_locks_advisory(sql);
        locks.iter().find(|(key, _)| *key == 1).expect("locked").1
    };
    let first = backend(&mut sql);
    sql.query(&format!("SELECT pg_terminate_backend({first})"));
    let cause = held.context().done().wait_timeout(LIMIT).expect("told");
    assert!(matches!(cause, Cause::ServerShutdown | Cause::ConnectionLost), "{cause:?}");
    let again = lock_when_back(&manager, 1);
    assert_ne!(backend(&mut sql), first);
    assert!(held.unlock().expect_err("lost").is_session_lost() && again.is_held());
    again.unlock().expect("it was held");
    manager.close();
    check_nothing_left(&cluster);
}

#[test]
fn a_pgbouncer_that_ends_is_a_lost_session_and_its_return_is_noticed() {
    let cluster = TempCluster::start();
    let mut bouncer = PgBouncer::start(&cluster, PoolMode::Session, "");
    let manager = connect(affine(bouncer.config()));
    let held = lock(&manager, 1);
    bouncer.kill9();
    let cause = held.context().done().wait_timeout(LIMIT).expect("told");
    assert_eq!(cause, Cause::ConnectionLost);
    check_nothing_left(&cluster);
    bouncer.start_again();
    let again = lock_when_back(&manager, 1);
    assert!(again.is_held() && !held.is_held());
}

#[test]
fn pgbouncer_in_transaction_and_statement_mode_is_refused_though_a_proxy_is_allowed() {
    let cluster = TempCluster::start();
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let bouncer = PgBouncer::start(&cluster, mode, "");
        // From the first session on, when its server process is still fresh.
        for _ in 0..3 {
            let error = refused(affine(bouncer.config()));
            assert!(error.is_pooler(), "{mode:?}: {error}");
            says(&error, &["not alone in its server process", "session mode"]);
        }
    }
}

/// In transaction mode nobody cleans up between two clients of a server process.
#[test]
fn a_session_that_is_refused_leaves_nothing_to_the_next_user_of_its_server_process() {
    let cluster = TempCluster::start();
    let settings = "SELECT name, setting FROM pg_settings WHERE source = 'session' \
                    AND name NOT IN ('application_name', 'client_encoding')";
    for mode in PoolMode::ALL {
        let more = "default_pool_size = 1\nserver_reset_query =";
        let bouncer = PgBouncer::start(&cluster, mode, more);
        let mut pids = Vec::new();
        let mut look = || {
            let mut sql = bouncer.sql("postgres");
            pids.push(sql.value("SELECT pg_backend_pid()"));
            assert_eq!(sql.query("SELECT name FROM pg_prepared_statements").len(), 0);
            let mark = sql.value("SELECT current_setting('distlock.session', true)");
            (sql.query(settings), mark.unwrap_or_default())
        };
        let before = look();
        assert!(refused(bouncer.config()).is_pooler());
        assert_eq!(look(), before, "{mode:?}");
        check_nothing_left(&cluster);
        // Where the configuration wrongly allows a pooler, the session has to be marked to be
        // found out; but no setting is made.
        if mode != PoolMode::Session {
            assert!(refused(affine(bouncer.config())).is_pooler());
            assert!(refused(affine(bouncer.config())).is_pooler());
            let (after, mark) = look();
            assert!(after == before.0 && !mark.is_empty(), "{mode:?}: {after:?}");
            assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 1);
        }
        assert!(pids.windows(2).all(|pids| pids[0] == pids[1]), "not the same process: {pids:?}");
        drop(bouncer);
        check_nothing_left(&cluster);
    }
}

#[test]
fn without_a_witness_transaction_mode_is_refused_from_the_second_session_on() {
    let cluster = TempCluster::start();
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let bouncer = PgBouncer::start(&cluster, mode, "");
        // Nobody else is there to show that the server process is shared: this is what the
        // witness is for.
        let config = affine(bouncer.config()).witness(false);
        let alone = connect(config.clone());
        let held = lock(&alone, 1);
        // The second one meets the mark of the first.
        let error = refused(config);
        assert!(error.is_pooler(), "{mode:?}: {error}");
        says(&error, &["used by another one before"]);
        assert!(held.is_held());
    }
}

#[test]
fn pgbouncer_without_its_reset_query_is_refused_from_the_second_session_on() {
    let cluster = TempCluster::start();
    let more = "server_reset_query =\ndefault_pool_size = 1";
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, more);
    let config = affine(bouncer.config()).witness(false);
    let first = connect(config.clone());
    lock(&first, 1).unlock().expect("it was held");
    first.close();
    let error = refused(config);
    assert!(error.is_pooler(), "{error}");
    says(&error, &["used by another one before", "session mode"]);
}

#[test]
fn a_pool_of_one_has_no_room_for_the_witness_and_the_error_says_so() {
    let cluster = TempCluster::start();
    let bouncer = PgBouncer::start(&cluster, PoolMode::Session, "default_pool_size = 1");
    let config = affine(bouncer.config()).connect_timeout(Duration::from_secs(1));
    let error = refused(config.clone());
    says(&error, &["second connection", "Config::witness(false)"]);
    drop(lock(&connect(config.witness(false)), 1));
    check_nothing_left(&cluster);
}

/// Pgpool-II announces the server process that it uses, so it looks like the server.
#[test]
fn pgpool_over_one_server_locks_for_real() {
    let cluster = TempCluster::start();
    // With its cache of answers, which must not answer for the server.
    let cache = "memory_cache_enabled = on\nmemqcache_method = 'shmem'\n\
                 memqcache_total_size = 4MB\nmemqcache_maxcache = 1kB";
    for more in ["", cache] {
        let pool = Pgpool::start(&[&cluster], more);
        let mut managers =
            vec![connect(pool.config()), connect(affine(pool.config())), connect(direct(&cluster))];
        check_exclusion(&managers);
        managers.remove(0).close();
        managers.push(connect(pool.config()));
        check_exclusion(&managers);
        let held = lock(&managers[0], 1);
        drop(managers);
        assert!(!held.is_held());
        check_nothing_left(&cluster);
    }
}

#[test]
fn a_server_process_that_ends_behind_pgpool_is_a_lost_session() {
    let cluster = TempCluster::start();
    let pool = Pgpool::start(&[&cluster], "");
    let manager = connect(pool.config());
    let held = lock(&manager, 1);
    end_lock_sessions(&cluster);
    let cause = held.context().done().wait_timeout(LIMIT).expect("told");
    assert!(matches!(cause, Cause::ServerShutdown | Cause::ConnectionLost), "{cause:?}");
    assert!(lock_when_back(&manager, 1).is_held() && !held.is_held());
}

/// This is why a pooler has to be spoken of: where Pgpool-II takes the end of a server process for
/// the end of the server, and may not give it up, it says nothing for five seconds. The server has
/// freed the locks by then, and the holder learns from its own deadlines.
#[test]
fn a_pgpool_that_keeps_the_end_of_a_session_to_itself_is_found_out_by_the_heartbeat() {
    let cluster = TempCluster::start();
    let silent = "failover_on_backend_shutdown = on\n\
                  backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'";
    let pool = Pgpool::start(&[&cluster], silent);
    let config = affine(pool.config())
        .heartbeat(Duration::from_millis(200))
        .reply_timeout(Duration::from_secs(1))
        .lease(Duration::from_secs(2))
        .server_timeout(Duration::from_secs(4));
    let manager = connect(config);
    let held = lock(&manager, 1);
    end_lock_sessions(&cluster);
    let cause = held.context().done().wait_timeout(LIMIT).expect("told");
    assert!(matches!(cause, Cause::ReplyOverdue | Cause::LeaseExpired), "{cause:?}");
    assert!(lock_when_back(&manager, 1).is_held() && !held.is_held());
}

#[test]
fn pgpool_over_two_servers_announces_another_process_and_locks_on_the_primary() {
    let primary = TempCluster::start();
    let standby = primary.standby();
    let pool = Pgpool::start(&[&primary, &standby], "");
    let error = refused(pool.config());
    assert!(error.is_pooler(), "{error}");
    let managers =
        [affine(pool.config()), affine(pool.config()), direct(&primary)].map(connect).to_vec();
    check_exclusion(&managers);
    assert_eq!(pg_locks_advisory(&mut standby.sql()), []);
    drop(managers);
    check_nothing_left(&primary);
}

fn end_lock_sessions(cluster: &TempCluster) {
    cluster
        .sql()
        .query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
}
