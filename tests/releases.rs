//! Releases and downgrades that are under way when the session is lost or the manager is closed.
//! The server process of the session is stopped meanwhile, so that it answers none of them.

mod support;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use distlock::{Config, Context, Error, Manager};
use support::{TempCluster, block_on, pg_locks_advisory, signal, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

type Asking = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Of every kind one, of keys from 1 to 5.
fn asking(manager: &Manager) -> Vec<Asking> {
    let lock = |key: i64| manager.acquire(key).wait().expect("free");
    let (unlocked, mut downgraded) = (lock(1), lock(2));
    let set = manager.acquire_all([3, 4]).wait().expect("free");
    let term = manager.elect(5).next_term().expect("nobody leads");
    vec![
        Box::pin(unlocked.unlock_async()),
        Box::pin(async move { downgraded.downgrade_async().await }),
        Box::pin(set.unlock_async()),
        Box::pin(term.resign_async()),
    ]
}

/// A manager whose session is believed in while its server process is stopped.
fn patient(cluster: &TempCluster) -> Manager {
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.heartbeat(LIMIT).reply_timeout(LIMIT * 2);
    Manager::connect(config.lease(LIMIT * 5).server_timeout(LIMIT * 10)).expect("connects")
}

/// Futures that were polled once, of which the server has heard nothing; and its process.
fn asked(cluster: &TempCluster, manager: &Manager) -> (Vec<Asking>, i32) {
    let mut futures = asking(manager);
    let (_, backend) = pg_locks_advisory(&mut cluster.sql())[0];
    assert!(signal(backend, "STOP"));
    for future in &mut futures {
        let polled = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "{polled:?}");
    }
    (futures, backend)
}

/// That all slots are free, and a hold for each.
fn assert_nothing_leaked(cluster: &TempCluster, manager: &Manager) {
    let mut sql = cluster.sql();
    wait_until("everything is released", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
    let set = manager.acquire_all(1..=1024).timeout(LIMIT).wait().expect("room for all");
    set.unlock().expect("they were held");
}

#[test]
fn a_session_that_is_lost_ends_what_is_awaited_with_an_error() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let (futures, backend) = asked(&cluster, &manager);
    // It ends without having read anything.
    assert!(signal(backend, "KILL"));
    for future in futures {
        let error = block_on(future).expect_err("nobody answered");
        assert!(error.is_session_lost(), "{error}");
    }
    wait_until("the server is back", LIMIT, || manager.acquire(9).timeout(LIMIT).wait().is_ok());
    assert_nothing_leaked(&cluster, &manager);
}

#[test]
fn what_is_dropped_unanswered_is_released_once_the_server_goes_on() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let (futures, backend) = asked(&cluster, &manager);
    drop(futures);
    // Waits behind the releases of the same session, and is not released by one of them.
    let mut again = Box::pin(manager.acquire(1).into_future());
    let polled = again.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "{polled:?}");
    assert!(signal(backend, "CONT"));
    let again = block_on(again).expect("free");
    let mut sql = cluster.sql();
    wait_until("all others are released", LIMIT, || pg_locks_advisory(&mut sql) == [(1, backend)]);
    assert!(again.is_held());
    block_on(again.unlock_async()).expect("it was held");
    assert_nothing_leaked(&cluster, &manager);
}

#[test]
fn a_manager_that_is_closed_ends_what_is_awaited_with_an_error() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let (futures, backend) = asked(&cluster, &manager);
    manager.close();
    for future in futures {
        let error = block_on(future).expect_err("nobody answered");
        assert!(error.is_closed() || error.is_session_lost(), "{error}");
    }
    assert!(signal(backend, "CONT"));
    let mut sql = cluster.sql();
    wait_until("the session ends", LIMIT, || pg_locks_advisory(&mut sql).is_empty());
}

#[test]
fn what_is_asked_after_the_end_is_refused_or_done_already() {
    let cluster = TempCluster::start();
    let manager = patient(&cluster);
    let futures = asking(&manager);
    manager.close();
    for future in futures {
        let error = block_on(future).expect_err("lost with its manager");
        assert!(error.is_session_lost(), "{error}");
    }
}

#[test]
fn without_a_free_request_the_release_is_not_awaited() {
    let cluster = TempCluster::start();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = Manager::connect(config.max_requests(2)).expect("connects");
    let other = Manager::connect(cluster.url()).expect("connects");
    let [lock, mut kept] = [1, 2].map(|key| manager.acquire(key).wait().expect("free"));
    let set = manager.acquire_all([3, 4]).wait().expect("free");
    let _taken = other.try_lock(&Context::background(), 9).expect("an answer").expect("free");
    let mut waiting: Vec<_> =
        [9, 9].map(|key: i64| Box::pin(manager.acquire(key).into_future())).into();
    for future in &mut waiting {
        let polled = future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "{polled:?}");
    }
    block_on(lock.unlock_async()).expect("as if it was dropped");
    block_on(set.unlock_async()).expect("as if it was dropped");
    let error = block_on(kept.downgrade_async()).expect_err("no room");
    assert!(matches!(error, Error::TooManyRequests { limit: 2 }), "{error}");
    assert!(kept.is_held());
    let mut sql = cluster.sql();
    wait_until("what is dropped is released", LIMIT, || {
        pg_locks_advisory(&mut sql).iter().map(|(key, _)| *key).eq([2, 9])
    });
}

#[test]
fn with_release_on_cancel_an_unlock_is_awaited_and_its_future_may_be_dropped() {
    let cluster = TempCluster::start();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = Manager::connect(config.release_on_cancel(true)).expect("connects");
    let (context, canceler) = Context::background().with_cancel();
    for polls in 0..3 {
        let lock = manager.acquire(1).context(&context).wait().expect("free");
        let mut unlocking = Box::pin(lock.unlock_async());
        for _ in 0..polls {
            let mut cx = TaskContext::from_waker(Waker::noop());
            if unlocking.as_mut().poll(&mut cx).is_ready() {
                break;
            }
        }
        drop(unlocking);
        let again = manager.acquire(1).context(&context).wait().expect("free");
        block_on(again.unlock_async()).expect("it was held");
        assert_eq!(pg_locks_advisory(&mut cluster.sql()), []);
    }
    let lock = manager.acquire(1).context(&context).wait().expect("free");
    canceler.cancel();
    block_on(lock.unlock_async()).expect("it is released already");
    assert_nothing_leaked(&cluster, &manager);
}

/// What is asked for while as many batches are unanswered as there may be goes out together.
#[test]
fn a_release_and_the_try_behind_it_are_one_statement() {
    let cluster = TempCluster::builder().setting("log_statement", "all").start();
    let manager = patient(&cluster);
    let held = manager.acquire(1).wait().expect("free");
    let mut sql = cluster.sql();
    let (_, backend) = pg_locks_advisory(&mut sql)[0];
    assert!(signal(backend, "STOP"));
    let try_async = |key: i64| {
        let mut asked = Box::pin(manager.acquire(key).try_async());
        let polled = asked.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        asked
    };
    let (two, three) = (try_async(2), try_async(3));
    drop(held);
    let tries = [two, three, try_async(4)];
    assert!(signal(backend, "CONT"));
    let held = tries.map(|asked| block_on(asked).expect("an answer").expect("it is free"));
    let keys =
        || pg_locks_advisory(&mut cluster.sql()).iter().map(|lock| lock.0).collect::<Vec<_>>();
    assert_eq!(keys(), [2, 3, 4]);
    let log = cluster.log();
    let begin = log.find("WHEN pg_try_advisory_lock($4)").expect("it is one statement");
    assert!(log[begin..].contains("$1 = '1'") && log[begin..].contains("$4 = '4'"), "{log}");
    drop(held);
    wait_until("everything is released", LIMIT, || keys().is_empty());
}
