//! Who is alone with a manager waits for the server in recv(2), which nothing but the server ends
//! before it has taken some milliseconds. Whatever else ends a wait is noticed all the same.

mod support;

use std::thread;
use std::time::Duration;

use distlock::{Cause, Config, Context, Error, Lock, Manager};
use support::{TempCluster, pg_locks_advisory, signal};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

const KEY: i64 = 7;

/// A manager that has been used by one thread alone for a while, and whose session is believed in
/// while its server process does not answer; and that process.
fn lonely(cluster: &TempCluster) -> (Manager, i32) {
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.heartbeat(LIMIT).reply_timeout(LIMIT * 2);
    let config = config.lease(LIMIT * 5).server_timeout(LIMIT * 10);
    let manager = Manager::connect(config).expect("connects");
    let context = Context::background();
    let held = manager.try_lock(&context, KEY).expect("an answer").expect("it is free");
    let (_, backend) = pg_locks_advisory(&mut cluster.sql())[0];
    held.unlock().expect("it was held");
    for _ in 0..500 {
        drop(manager.try_lock(&context, KEY).expect("an answer").expect("it is free"));
    }
    (manager, backend)
}

/// Asks for the key while the server process is stopped and `meanwhile` happens on another thread.
fn asking(
    manager: &Manager,
    backend: i32,
    context: &Context,
    meanwhile: impl FnOnce() + Send,
) -> Result<Option<Lock>, Error> {
    assert!(signal(backend, "STOP"));
    let result = thread::scope(|scope| {
        scope.spawn(meanwhile);
        manager.try_lock(context, KEY)
    });
    assert!(signal(backend, "CONT"));
    result
}

#[test]
fn a_deadline_ends_the_wait() {
    let cluster = TempCluster::start();
    for milliseconds in [1, 5, 20, 30, 50, 100] {
        let (manager, backend) = lonely(&cluster);
        let context = Context::background().with_timeout(Duration::from_millis(milliseconds));
        let result = asking(&manager, backend, &context, || ());
        let Err(Error::Canceled(Cause::DeadlineExceeded)) = result else { panic!("{result:?}") };
        drop(manager.acquire(KEY).timeout(LIMIT).wait().expect("the server goes on"));
    }
}

#[test]
fn a_context_that_is_canceled_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let (manager, backend) = lonely(&cluster);
        let (context, canceler) = Context::background().with_cancel();
        let result = asking(&manager, backend, &context, move || canceler.cancel());
        let Err(Error::Canceled(Cause::Canceled)) = result else { panic!("{result:?}") };
        drop(manager.acquire(KEY).timeout(LIMIT).wait().expect("the server goes on"));
    }
}

#[test]
fn closing_the_manager_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let (manager, backend) = lonely(&cluster);
        let context = Context::background();
        let result = asking(&manager, backend, &context, || manager.close());
        let Err(error) = result else { panic!("granted by nobody") };
        assert!(matches!(error, Error::Closed | Error::Lost { .. }), "{error:?}");
    }
}

#[test]
fn a_session_that_ends_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let (manager, backend) = lonely(&cluster);
        let mut sql = cluster.sql();
        let result = thread::scope(|scope| {
            let kill =
                scope.spawn(move || sql.query(&format!("SELECT pg_terminate_backend({backend})")));
            let mut result = Ok(());
            while result.is_ok() {
                result = manager.try_lock(&Context::background(), KEY).map(drop);
            }
            kill.join().expect("no panic");
            result
        });
        let error = result.expect_err("the session is over");
        assert!(error.is_session_lost() || matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
}

/// Who comes while one waits like that sends what it asks for once that wait is over.
#[test]
fn others_are_served_as_well() {
    let cluster = TempCluster::start();
    let (manager, backend) = lonely(&cluster);
    for round in 0..10 {
        let short = Context::background().with_timeout(Duration::from_millis(50));
        let result = asking(
            &manager,
            backend,
            &Context::background().with_timeout(Duration::from_millis(100)),
            || {
                let result = manager.try_lock(&short, KEY + 1);
                let Err(Error::Canceled(Cause::DeadlineExceeded)) = result else {
                    panic!("round {round}: {result:?}")
                };
            },
        );
        let Err(Error::Canceled(Cause::DeadlineExceeded)) = result else { panic!("{result:?}") };
        thread::scope(|scope| {
            for key in 0..3 {
                let manager = &manager;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let taken = manager.acquire(key).timeout(LIMIT).wait();
                        drop(taken.expect("it is let go of each time"));
                    }
                });
            }
        });
        for _ in 0..100 {
            drop(manager.acquire(KEY).timeout(LIMIT).wait().expect("it is free"));
        }
    }
}
