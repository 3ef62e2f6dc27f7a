//! A poll that waits for the answer itself (`Config::linger`): what it must not do to other tasks,
//! and to its own.

mod support;

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::Duration;

use distlock::{Config, Manager};
use support::{TempCluster, block_on, pg_locks_advisory, signal};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// So many cycles in a row, and the polls wait for their answers.
const BURST: usize = 50;

/// A manager that waits for answers which a busy machine gives late, and whose session is believed
/// in while its server process is stopped.
fn patient(cluster: &TempCluster) -> Manager {
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.heartbeat(LIMIT).reply_timeout(LIMIT * 2).linger(Duration::from_millis(1));
    Manager::connect(config.lease(LIMIT * 5).server_timeout(LIMIT * 10)).expect("connects")
}

async fn cycles(manager: &Manager, count: usize) {
    for _ in 0..count {
        drop(manager.acquire(1).await.expect("nobody else wants it"));
    }
}

#[test]
fn a_poll_does_not_wait_for_a_server_that_has_stopped() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let kept = manager.acquire(2).wait().expect("free");
    let (_, backend) = pg_locks_advisory(&mut cluster.sql())[0];
    for _ in 0..20 {
        block_on(cycles(&manager, BURST));
        assert!(signal(backend, "STOP"));
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut asking = pin!(manager.acquire(3).into_future());
                let polled = asking.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
                sender.send(polled.is_pending()).expect("somebody listens");
                drop(block_on(asking));
            });
            let is_pending = receiver.recv_timeout(LIMIT);
            assert!(signal(backend, "CONT"));
            assert_eq!(is_pending, Ok(true), "the poll ends, without an answer");
        });
    }
    assert!(kept.is_held());
}

#[test]
fn other_tasks_run_while_one_locks_and_releases_all_the_time() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tasks = tokio::task::LocalSet::new();
    let turns = Rc::new(Cell::new(0));
    let others = Rc::clone(&turns);
    tasks.spawn_local(async move {
        loop {
            others.set(others.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    tasks.block_on(&runtime.expect("a runtime"), async {
        let mut windows = 0;
        for _ in 0..BURST {
            let before = turns.get();
            // More than there are polls in a row that wait.
            cycles(&manager, 5).await;
            windows += usize::from(turns.get() != before);
        }
        // Now and then an answer is there before it is waited for.
        assert!(windows > BURST / 2, "others had turns in {windows} of {BURST} windows");
    });
}
