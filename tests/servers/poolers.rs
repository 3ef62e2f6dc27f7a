//! Poolers in front of a real server: what shares a server process among clients is refused, and
//! what keeps each client on one process is taken, if the configuration says so.

use distlock::{Config, Proxy};

use crate::rig::{PgBouncer, Pgpool, PoolMode};
use crate::support::{TempCluster, pg_locks_advisory, wait_until};
use crate::{LIMIT, connect, direct, lock, refused, says, try_lock};

fn affine(config: Config) -> Config {
    config.proxy(Proxy::SessionAffine)
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
    let managers = [
        connect(affine(bouncer.config())),
        connect(affine(bouncer.config())),
        connect(direct(&cluster)),
    ];
    for (key, holder) in (1..).zip(&managers) {
        let held = lock(holder, key);
        let others = managers.iter().filter(|manager| !std::ptr::eq(*manager, holder));
        for other in others {
            assert!(try_lock(other, key).is_none(), "key {key} was given away twice");
        }
        held.unlock().expect("it was held");
        for manager in &managers {
            lock(manager, key).unlock().expect("it was held");
        }
    }
    drop(managers);
    let mut sql = cluster.sql();
    wait_until("nothing is left", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
}

#[test]
fn pgpool_probe() {
    let cluster = TempCluster::start();
    let pool = Pgpool::start(&cluster, "");
    println!("{:?}", pool.try_sql().expect("connects").try_query("SHOW pool_version"));
    println!("{:?}", cluster.sql().try_query("SHOW pool_version"));
    println!("{:?}", distlock::Manager::connect(pool.config()));
    println!("{:?}", cluster.log());
}
