//! Locks through TLS: everything that goes through a connection in clear goes through this one.

use std::future::{Future as _, IntoFuture as _};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Cause, Config, Context, Lock, Manager};

use super::authority::{Authority, params};
use super::fake::{serve, url};
use super::server::{LIMIT, Server, fails, works};
use super::support::{StopMode, block_on, pg_locks_advisory, wait_until};

fn server() -> Server {
    Server::of(&Authority::new("ours"), &params())
}

fn only(version: &str) -> String {
    format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}")
}

fn lock(manager: &Manager, key: i64) -> Lock {
    manager.try_lock(&Context::background(), key).expect("answers").expect("free")
}

#[test]
fn each_version_of_tls_carries_locks() {
    let server = server();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let manager = works(&format!("{} {}", server.verified(), only(version)));
        assert_eq!(server.tls_version().as_deref(), Some(version));
        for key in 0..50 {
            lock(&manager, key).unlock().expect("it was held");
        }
        manager.close();
        wait_until("the session is gone", LIMIT, || server.tls_version().is_none());
    }
}

#[test]
fn a_server_that_speaks_another_version_is_told_of() {
    let server = server();
    server.sql().query("ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'");
    server.sql().query("SELECT pg_reload_conf()");
    wait_until("the server has read its configuration", LIMIT, || {
        server.sql().value("SHOW ssl_max_protocol_version").as_deref() == Some("TLSv1.2")
    });
    let config = format!("{} {}", server.verified(), only("TLSv1.3"));
    fails(&config, &["ssl_min_protocol_version"]);
    works(&server.verified());
}

#[test]
fn a_lock_through_tls_excludes_one_in_clear() {
    let server = server();
    let secured = works(&server.verified());
    let clear = works(&server.url("host=127.0.0.1 sslmode=disable"));
    let held = lock(&secured, 7);
    assert!(clear.try_lock(&Context::background(), 7).expect("answers").is_none());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| clear.acquire(7).timeout(LIMIT).wait());
        held.unlock().expect("it was held");
        let passed_on = waiter.join().expect("no panic").expect("it was released");
        assert!(secured.try_lock(&Context::background(), 7).expect("answers").is_none());
        drop(passed_on);
    });
}

#[test]
fn a_unix_socket_has_no_tls_whatever_is_asked_for() {
    let server = server();
    let socket = server.cluster.socket_config_string();
    let manager = works(&format!("{socket} sslmode=verify-full {}", server.root()));
    assert_eq!(server.tls_version(), None);
    drop(manager);
}

#[test]
fn a_thousand_requests_in_flight_are_all_answered() {
    const THREADS: i64 = 8;
    const EACH: i64 = 125;
    let server = server();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let manager = works(&format!("{} {}", server.verified(), only(version)));
        for round in 0..3 {
            let first = round * THREADS * EACH;
            let locks: Vec<Lock> = thread::scope(|scope| {
                let start = |thread| {
                    let first = first + thread * EACH;
                    let manager = &manager;
                    scope.spawn(move || burst(manager, first..first + EACH))
                };
                let threads: Vec<_> = (0..THREADS).map(start).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
            });
            assert_eq!(locks.len(), 1_000);
            assert_eq!(pg_locks_advisory(&mut server.sql()).len(), 1_000);
            drop(locks);
            let mut sql = server.sql();
            wait_until("all are released", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
        }
    }
}

/// Asks for all keys before it waits for any.
fn burst(manager: &Manager, keys: std::ops::Range<i64>) -> Vec<Lock> {
    let mut requests: Vec<_> =
        keys.map(|key| Box::pin(manager.acquire(key).into_future())).collect();
    let mut locks = Vec::new();
    requests.retain_mut(|request| {
        match request.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
            std::task::Poll::Ready(lock) => {
                locks.push(lock.expect("free"));
                false
            }
            std::task::Poll::Pending => true,
        }
    });
    locks.extend(requests.into_iter().map(|request| block_on(request).expect("free")));
    locks
}

#[test]
fn a_silent_holder_keeps_its_lock_by_heartbeats() {
    let server = server();
    let config: Config = server.verified().parse().expect("a connection string");
    let config = config
        .heartbeat(Duration::from_millis(100))
        .reply_timeout(Duration::from_millis(900))
        .lease(Duration::from_millis(1_100))
        .server_timeout(Duration::from_millis(1_300));
    let manager = Manager::connect(config).expect("connects");
    let lock = lock(&manager, 1);
    assert_eq!(lock.context().done().wait_timeout(Duration::from_secs(3)), None);
    assert!(lock.is_held());
}

#[test]
fn the_end_of_the_session_is_noticed_and_a_new_one_is_secured_again() {
    let mut server = server();
    let manager = works(&server.verified());
    let lost = |server: &mut Server, end: &dyn Fn(&mut Server)| {
        let lock = lock(&manager, 1);
        end(server);
        let cause = lock.context().done().wait_timeout(LIMIT).expect("it is noticed");
        assert!(matches!(cause, Cause::ConnectionLost | Cause::ServerShutdown), "{cause:?}");
        assert!(!lock.is_held());
        wait_until("the manager is back", LIMIT, || {
            matches!(manager.try_lock(&Context::background(), 1), Ok(Some(_)))
        });
        assert!(server.tls_version().is_some());
    };
    lost(&mut server, &|server| {
        server.sql().query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'distlock'",
        );
    });
    lost(&mut server, &|server| server.cluster.restart_fast());
    lost(&mut server, &|server| {
        server.cluster.stop(StopMode::Immediate);
        server.cluster.start_again();
    });
    lost(&mut server, &|server| {
        server.cluster.kill9_postmaster();
        server.cluster.start_again();
    });
}

#[test]
fn a_network_that_passes_one_byte_at_a_time_passes_everything() {
    let server = server();
    let upstream = server.cluster.port();
    let port = serve(move |client| {
        let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).expect("it listens");
        let back = (upstream.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
        let there = thread::spawn(move || pass_bytes(client, upstream));
        pass_bytes(back.0, back.1);
        there.join().expect("no panic");
    });
    for version in ["TLSv1.2", "TLSv1.3"] {
        let parameters = format!("sslmode=verify-full {} {}", server.root(), only(version));
        let manager = works(&url(port, &parameters));
        let locks: Vec<Lock> = (0..20).map(|key| lock(&manager, key)).collect();
        drop(locks);
        lock(&manager, 0).unlock().expect("it was held");
    }
}

fn pass_bytes(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).expect("a socket");
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if bytes[..count].iter().any(|byte| to.write_all(&[*byte]).is_err()) {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
