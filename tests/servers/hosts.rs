//! Several servers in one configuration: of a primary and its standbys the primary is found, and
//! followed when it moves.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use distlock::{Config, Manager};

use crate::support::lock_when_back;
use crate::support::{StopMode, TempCluster, pg_locks_advisory};
use crate::{LIMIT, connect, lock, refused, says};

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

#[test]
fn what_is_no_postgresql_does_not_keep_the_servers_behind_it_from_being_tried() {
    let primary = TempCluster::start();
    for words in ["SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\u{4a}\0\0\0\n8"]
    {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = other.local_addr().expect("bound").port();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for mut client in other.incoming().flatten() {
                let _ = client.write_all(words.as_bytes());
                kept.push(client);
            }
        });
        let hosts = [("127.0.0.1", port), ("127.0.0.1", primary.port())];
        let manager = connect(Config::new().hosts(hosts).user("postgres").dbname("postgres"));
        assert!(is_with(&manager, &primary));
    }
}
