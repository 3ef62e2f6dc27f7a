//! The examples, run: each is a module here, and what it promises is checked.
//!
//! `examples/demo` checks itself (`scripts/demo`).

mod support;

#[path = "../examples/cancellation_token.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod cancellation_token;
#[path = "../examples/tokio.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod tokio_worker;

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use cancellation_token::{context_of, token_of};
use distlock::{Cause, Context, Key, Manager};
use support::{TempCluster, pg_locks_advisory, shared_cluster, signal, wait_exit, wait_until};
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long; what hangs fails instead.
const HANG: Duration = Duration::from_secs(60);

/// The URL for the process that is the worker.
const WORKER: &str = "DISTLOCK_TEST_URL_OF_A_WORKER";

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

#[test]
fn workers_take_turns_and_end_after_their_rounds() {
    let cluster = TempCluster::start();
    let url = cluster.url();
    tokio().block_on(async {
        let worker = || tokio_worker::run(&url, 3);
        let (first, second) = tokio::join!(worker(), worker());
        first.and(second).expect("their turns");
    });
    let mut sql = cluster.sql();
    wait_until("the last release", HANG, || pg_locks_advisory(&mut sql).is_empty());
}

/// Not a test by itself: the process that the test below interrupts.
#[test]
fn a_worker_of_its_own() {
    let Ok(url) = env::var(WORKER) else { return };
    // One thread, which comes to the task that listens for the signal before it has a lock.
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let worker = tokio_worker::run(&url, u32::MAX);
    one_thread.expect("a runtime").block_on(worker).expect("it ends in order");
}

#[test]
fn a_worker_that_is_interrupted_lets_go_and_ends_in_order() {
    let cluster = TempCluster::start();
    let program = env::current_exe().expect("this program");
    let mut worker = Command::new(program)
        .args(["--exact", "a_worker_of_its_own"])
        .env(WORKER, cluster.url())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut sql = cluster.sql();
    let Key::Bigint(key) = Key::from("nightly report") else { panic!("a name is a bigint") };
    wait_until("its first lock", HANG, || {
        pg_locks_advisory(&mut sql).iter().any(|(locked, _)| *locked == key)
    });
    assert!(signal(worker.id(), "INT"), "it runs");
    assert!(wait_exit(&mut worker, HANG), "it goes on");
    let status = worker.wait().expect("it has ended");
    assert!(status.success(), "{status}");
    wait_until("the release", HANG, || pg_locks_advisory(&mut sql).is_empty());
}

#[test]
fn the_example_of_the_bridge_runs() {
    let cluster = TempCluster::start();
    tokio().block_on(cancellation_token::run(&cluster.url())).expect("it ends in order");
}

#[test]
fn a_token_is_cancelled_when_the_lock_is_lost_and_a_context_when_the_token_is() {
    let manager = Manager::connect(shared_cluster().url()).expect("a session");
    let key = support::unique_key();
    tokio().block_on(async {
        let shutdown = CancellationToken::new();
        let context = context_of(&shutdown, &Context::background());
        let lock = manager.acquire(key).context(&context).await.expect("free");
        let token = token_of(lock.context());
        assert!(!token.is_cancelled() && !context.is_done());
        shutdown.cancel();
        // Through both bridges.
        token.cancelled().await;
        assert_eq!(context.err(), Some(Cause::Canceled));
        assert_eq!(lock.context().err(), Some(Cause::Canceled));
        drop(lock);

        let lock = manager.acquire(key).await.expect("free");
        let token = token_of(lock.context());
        let mut sql = shared_cluster().sql();
        let held = pg_locks_advisory(&mut sql);
        let (_, pid) = held.iter().find(|(locked, _)| *locked == key).expect("it is held");
        assert!(!token.is_cancelled());
        sql.query(&format!("SELECT pg_terminate_backend({pid})"));
        token.cancelled().await;
        assert_eq!(lock.context().err(), Some(Cause::ServerShutdown));
    });
}
