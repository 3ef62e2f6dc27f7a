//! Who is alone with a manager waits for the server in recv(2), which nothing but the server ends
//! before it has taken some milliseconds. Whatever else ends a wait is noticed all the same.

mod support;

use std::thread;
use std::time::Duration;

use distlock::{Cause, Config, Context, Error, Lock, Manager};
use support::{TempCluster, pg_locks_advisory, signal, unique_key};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// A manager that has been used by one thread alone for a while, and whose session is believed in
/// while its server process does not answer.
struct Lonely {
    manager: Manager,
    /// That process.
    backend: i32,
    /// Of no other: the session of one that was closed just now may still have it.
    key: i64,
}

fn lonely(cluster: &TempCluster) -> Lonely {
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.heartbeat(LIMIT).reply_timeout(LIMIT * 2);
    let config = config.lease(LIMIT * 5).server_timeout(LIMIT * 10);
    let manager = Manager::connect(config).expect("connects");
    let (context, key) = (Context::background(), unique_key());
    let held = manager.try_lock(&context, key).expect("an answer").expect("it is free");
    let locks = pg_locks_advisory(&mut cluster.sql());
    let (_, backend) = *locks.iter().find(|lock| lock.0 == key).expect("it is held");
    held.unlock().expect("it was held");
    for _ in 0..500 {
        drop(manager.try_lock(&context, key).expect("an answer").expect("it is free"));
    }
    Lonely { manager, backend, key }
}

/// Asks for the key while the server process is stopped and `meanwhile` happens on another thread.
fn asking(
    lonely: &Lonely,
    context: &Context,
    meanwhile: impl FnOnce() + Send,
) -> Result<Option<Lock>, Error> {
    assert!(signal(lonely.backend, "STOP"));
    let result = thread::scope(|scope| {
        scope.spawn(meanwhile);
        lonely.manager.try_lock(context, lonely.key)
    });
    assert!(signal(lonely.backend, "CONT"));
    result
}

/// The key can be had once the server goes on.
fn goes_on(lonely: &Lonely) {
    let lock = lonely.manager.acquire(lonely.key).timeout(LIMIT).wait();
    drop(lock.expect("the server goes on"));
}

#[test]
fn a_deadline_ends_the_wait() {
    let cluster = TempCluster::start();
    for milliseconds in [1, 5, 20, 30, 50, 100] {
        let lonely = lonely(&cluster);
        let context = Context::background().with_timeout(Duration::from_millis(milliseconds));
        let result = asking(&lonely, &context, || ());
        let Err(Error::Canceled(Cause::DeadlineExceeded)) = result else { panic!("{result:?}") };
        goes_on(&lonely);
    }
}

#[test]
fn a_context_that_is_canceled_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let lonely = lonely(&cluster);
        let (context, canceler) = Context::background().with_cancel();
        let result = asking(&lonely, &context, move || canceler.cancel());
        let Err(Error::Canceled(Cause::Canceled)) = result else { panic!("{result:?}") };
        goes_on(&lonely);
    }
}

#[test]
fn closing_the_manager_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let lonely = lonely(&cluster);
        let context = Context::background();
        let result = asking(&lonely, &context, || lonely.manager.close());
        let Err(error) = result else { panic!("granted by nobody") };
        assert!(matches!(error, Error::Closed | Error::Lost { .. }), "{error:?}");
    }
}

#[test]
fn a_session_that_ends_ends_the_wait() {
    let cluster = TempCluster::start();
    for _ in 0..10 {
        let lonely = lonely(&cluster);
        let Lonely { manager, backend, key } = lonely;
        let mut sql = cluster.sql();
        let result = thread::scope(|scope| {
            let kill =
                scope.spawn(move || sql.query(&format!("SELECT pg_terminate_backend({backend})")));
            let mut result = Ok(());
            while result.is_ok() {
                result = manager.try_lock(&Context::background(), key).map(drop);
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
    let lonely = lonely(&cluster);
    let within =
        |milliseconds| Context::background().with_timeout(Duration::from_millis(milliseconds));
    let is_over = |result: &Result<Option<Lock>, Error>| {
        matches!(result, Err(Error::Canceled(Cause::DeadlineExceeded)))
    };
    for _ in 0..10 {
        let result = asking(&lonely, &within(100), || {
            let result = lonely.manager.try_lock(&within(50), unique_key());
            assert!(is_over(&result), "{result:?}");
        });
        assert!(is_over(&result), "{result:?}");
        thread::scope(|scope| {
            for key in 0..3 {
                let manager = &lonely.manager;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let taken = manager.acquire(key).timeout(LIMIT).wait();
                        drop(taken.expect("it is let go of each time"));
                    }
                });
            }
        });
        (0..100).for_each(|_| goes_on(&lonely));
    }
}
