//! The test support, tested: what every other test takes for granted about its server.

mod support;

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::task::Poll;
use std::time::Duration;

use support::{
    StopMode, TempCluster, await_for, pg_locks_advisory, shared_cluster, unique_key, wait_until,
};

/// Set for the process that owns a cluster and is killed.
const OWNER: &str = "DISTLOCK_TEST_OWNER_OF_A_CLUSTER";

fn refuses(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

#[test]
fn a_cluster_answers_over_tcp_and_over_its_socket() {
    let cluster = shared_cluster();
    let mut tcp = cluster.try_sql_as("postgres", "postgres").expect("trusted over TCP");
    let mut unix = cluster.sql();
    assert_ne!(tcp.pid(), unix.pid());
    for sql in [&mut tcp, &mut unix] {
        assert_eq!(sql.value("SELECT pg_backend_pid()"), Some(sql.pid().to_string()));
    }
    assert_eq!(unix.value("SHOW data_directory").map(PathBuf::from), Some(cluster.data_dir()));
    let port = cluster.port().to_string();
    assert_eq!(cluster.url(), format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    assert!(cluster.socket_config_string().contains(&format!("port={port}")));
}

#[test]
fn the_observer_tells_rows_nulls_and_errors_apart() {
    let mut sql = shared_cluster().sql();
    let rows = sql.query("SELECT 1, NULL, 'a' UNION ALL SELECT 2, '', 'b' ORDER BY 1; SELECT 3");
    let text = |s: &str| Some(s.to_owned());
    let first = vec![text("1"), None, text("a")];
    assert_eq!(rows, [first, vec![text("2"), text(""), text("b")], vec![text("3")]]);
    assert_eq!(sql.value("SELECT 1 WHERE false"), None);
    let (sqlstate, message) = sql.try_query("SELECT nonsense").expect_err("no such column");
    assert_eq!(sqlstate, "42703");
    assert!(message.contains("nonsense"), "{message}");
    // The connection is good after an error, and its end has a reason.
    let pid = sql.pid();
    assert_eq!(sql.value("SELECT 7").as_deref(), Some("7"));
    shared_cluster().sql().query(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(sql.try_query("SELECT 1").expect_err("the backend is gone").0, "57P01");
}

#[test]
fn advisory_locks_are_listed_with_their_key_and_pid() {
    let mut holder = shared_cluster().sql();
    let mut observer = shared_cluster().sql();
    let keys = [unique_key(), -unique_key(), i64::MIN + unique_key()];
    for key in keys {
        holder.query(&format!("SELECT pg_advisory_lock({key})"));
        assert!(pg_locks_advisory(&mut observer).contains(&(key, holder.pid())));
    }
    holder.query("SELECT pg_advisory_unlock_all()");
    let left = pg_locks_advisory(&mut observer);
    assert!(!left.iter().any(|(key, _)| keys.contains(key)), "{left:?}");
}

#[test]
fn settings_and_authentication_rules_take_effect() {
    let cluster = TempCluster::builder()
        .setting("max_locks_per_transaction", "10")
        .setting("application_name", "it's me")
        .hba("host all refused 127.0.0.1/32 reject")
        .start();
    let mut sql = cluster.sql();
    assert_eq!(sql.value("SHOW max_locks_per_transaction").as_deref(), Some("10"));
    assert_eq!(sql.value("SHOW fsync").as_deref(), Some("off"));
    sql.query("CREATE ROLE refused LOGIN; CREATE ROLE welcome LOGIN");
    let (sqlstate, _) = cluster.try_sql_as("refused", "postgres").expect_err("rejected");
    assert_eq!(sqlstate, "28000");
    cluster.try_sql_as("welcome", "postgres").expect("trusted");
}

#[test]
fn a_cluster_comes_back_on_its_port_with_its_data_after_every_kind_of_end() {
    let mut cluster = TempCluster::start();
    let port = cluster.port();
    cluster.sql().query("CREATE TABLE kept (n int)");
    let mut restarts: u32 = 0;
    let mut check = |cluster: &TempCluster, mut before: support::Sql| {
        assert_eq!(cluster.port(), port);
        let old = before.try_query("SELECT 1").expect_err("its session ended").0;
        assert!(["57P01", "57P02", "08006"].contains(&old.as_str()), "{old}");
        let mut sql = cluster.sql();
        restarts += 1;
        sql.query("INSERT INTO kept VALUES (1)");
        assert_eq!(sql.value("SELECT count(*) FROM kept"), Some(restarts.to_string()));
    };

    let before = cluster.sql();
    cluster.restart_fast();
    check(&cluster, before);

    let before = cluster.sql();
    cluster.stop(StopMode::Immediate);
    assert!(refuses(port));
    cluster.start_again();
    check(&cluster, before);

    let before = cluster.sql();
    let old_pid = cluster.postmaster_pid();
    cluster.kill9_postmaster();
    cluster.start_again();
    assert_ne!(cluster.postmaster_pid(), old_pid);
    check(&cluster, before);

    cluster.stop(StopMode::Smart);
    assert!(cluster.try_sql().is_err());
    cluster.start_again();
    assert_eq!(cluster.sql().value("SELECT count(*) FROM kept").as_deref(), Some("3"));
}

#[test]
fn a_dropped_cluster_is_gone_with_its_directory() {
    let cluster = TempCluster::start();
    let (port, directory) = (cluster.port(), cluster.socket_dir().to_owned());
    let mut session = cluster.sql();
    drop(cluster);
    assert!(refuses(port));
    assert!(!directory.exists(), "{} is left", directory.display());
    assert!(session.try_query("SELECT 1").is_err());
}

#[test]
fn a_cluster_that_was_stopped_or_killed_is_dropped_like_a_running_one() {
    for end in [TempCluster::kill9_postmaster, |cluster: &mut TempCluster| {
        cluster.stop(StopMode::Fast);
    }] {
        let mut cluster = TempCluster::start();
        end(&mut cluster);
        let directory = cluster.socket_dir().to_owned();
        drop(cluster);
        assert!(!directory.exists(), "{} is left", directory.display());
    }
}

#[test]
fn a_cluster_whose_owner_is_killed_disappears() {
    if std::env::var_os(OWNER).is_some() {
        own_a_cluster_until_killed();
    }
    let mut owner = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "a_cluster_whose_owner_is_killed_disappears", "--nocapture"])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test starts itself");
    let lines = BufReader::new(owner.stdout.take().expect("piped")).lines();
    let said = lines
        .map(|line| line.expect("the owner's output"))
        .find_map(|line| line.split_once("CLUSTER ").map(|(_, rest)| rest.to_owned()))
        .expect("the owner says where its cluster is");
    let (port, directory) = said.split_once(' ').expect("a port and a directory");
    let (port, directory) = (port.parse().expect("a port"), Path::new(directory));
    assert!(!refuses(port));
    assert!(directory.exists());

    owner.kill().expect("SIGKILL");
    owner.wait().expect("the owner has ended");
    let limit = Duration::from_secs(20);
    wait_until("the server is gone", limit, || refuses(port));
    wait_until("its directory is gone", limit, || !directory.exists());
}

/// The owner's side of the test above.
fn own_a_cluster_until_killed() -> ! {
    let cluster = TempCluster::start();
    println!("CLUSTER {} {}", cluster.port(), cluster.socket_dir().display());
    // Until SIGKILL, or until the end of the process that would send it.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

#[test]
#[should_panic(expected = "not within 5ms: the moon is made of cheese")]
fn a_condition_that_does_not_come_true_is_named() {
    wait_until("the moon is made of cheese", Duration::from_millis(5), || false);
}

#[test]
fn a_result_that_nobody_was_woken_for_is_none() {
    let second_poll = |wakes: bool| {
        let mut polls = 0;
        let future = poll_fn(move |cx| {
            polls += 1;
            if wakes {
                cx.waker().wake_by_ref();
            }
            if polls == 2 { Poll::Ready(polls) } else { Poll::Pending }
        });
        await_for(future, if wakes { Duration::from_secs(60) } else { Duration::from_millis(20) })
    };
    assert_eq!(second_poll(true), Some(2));
    assert_eq!(second_poll(false), None);
}

#[test]
fn a_future_that_wakes_itself_for_ever_is_awaited_no_longer_than_said() {
    let busy = poll_fn(|cx| -> Poll<()> {
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    assert_eq!(await_for(busy, Duration::from_millis(20)), None);
}
