//! Waits that are cut short, and locks that are lost.

use std::time::Duration;

use distlock::{Cause, Context, Error};

use crate::executor::Executor;
use crate::support::{pg_locks_advisory, shared_cluster, unique_key, wait_until};
use crate::{HANG, World, taken};

/// Long enough for a request to be on its way, or to wait, when it ends; nothing depends on which.
const SHORT: Duration = Duration::from_millis(20);

#[track_caller]
fn assert_canceled(answer: Result<distlock::Lock, Error>, cause: Cause) {
    match answer {
        Err(Error::Canceled(found)) => assert_eq!(found, cause),
        answer => panic!("it should have been canceled ({cause}): {answer:?}"),
    }
}

pub(crate) async fn a_wait_ends_by_its_context_and_its_time_and_leaves_no_trace<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let lock = taken(&world.ours, key);
    let background = Context::background();
    for manager in [world.ours.clone(), world.other.clone()] {
        let (context, canceler) = background.with_cancel();
        let waiting = on.spawn(manager.acquire(key).context(&context).into_future());
        // Whether it waits already or has yet to begin, it ends.
        on.within(SHORT, std::future::pending::<()>()).await;
        canceler.cancel();
        assert_canceled(waiting.await, Cause::Canceled);
        let late = on.spawn(manager.acquire(key).context(&context).into_future());
        assert_canceled(late.await, Cause::Canceled);

        let deadline = background.with_timeout(SHORT);
        let waiting = on.spawn(manager.acquire(key).context(&deadline).into_future());
        assert_canceled(waiting.await, Cause::DeadlineExceeded);
        for time in [SHORT, Duration::ZERO] {
            let waiting = on.spawn(manager.acquire(key).timeout(time).into_future());
            assert_canceled(waiting.await, Cause::DeadlineExceeded);
        }
    }
    world.settle();
    assert_eq!(world.locked(&[key]), [key]);
    assert!(lock.is_held());
    lock.unlock().expect("it was held");
    assert_eq!(world.locked(&[key]), [], "a wait that has ended was granted");
    drop(taken(&world.other, key));
    world.wait_until_free(key);
}

pub(crate) async fn a_wait_ended_by_the_executors_own_timer_leaves_no_trace<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let lock = taken(&world.ours, key);
    for manager in [world.ours.clone(), world.other.clone()] {
        for time in [SHORT, Duration::ZERO] {
            let waited = on.within(time, manager.acquire(key).into_future()).await;
            assert!(waited.is_none(), "it is taken: {waited:?}");
        }
    }
    lock.unlock().expect("it was held");
    world.settle();
    assert_eq!(world.locked(&[key]), [], "a wait that was dropped was granted");
    // The time is not up when there is nothing to wait for.
    let lock = on.within(HANG, world.other.acquire(key).into_future()).await;
    lock.expect("in time").expect("free").unlock().expect("it was held");
}

pub(crate) async fn the_context_of_a_lock_ends_with_its_session<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let lock = on.spawn(world.ours.acquire(key).into_future()).await.expect("free");
    let (child, _canceler) = lock.context().with_cancel();
    let holders = pg_locks_advisory(&mut world.sql);
    let (_, pid) = holders.iter().find(|(locked, _)| *locked == key).expect("it is held");
    // Another lock of the session, and a request of another session that gets the key.
    let second = on.spawn(world.ours.acquire(unique_key()).into_future()).await.expect("free");
    let others = on.spawn(world.other.acquire(key).into_future());
    let ends = [lock.context(), &child, second.context()];
    let ends = ends.map(|context| on.spawn(context.done().into_future()));
    let terminated = world.sql.value(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(terminated.as_deref(), Some("t"));
    for end in ends {
        assert_eq!(end.await, Cause::ServerShutdown);
    }
    assert!(!lock.is_held() && !second.is_held());
    assert_eq!(lock.context().err(), Some(Cause::ServerShutdown));
    let others = others.await.expect("free since the session is gone");
    assert!(others.is_held());
    match lock.unlock() {
        Err(Error::Lost { cause, .. }) => assert_eq!(cause, Cause::ServerShutdown),
        unlocked => panic!("it was lost: {unlocked:?}"),
    }
    others.unlock().expect("it was held");
    // The manager goes on, with another session.
    let again = on.spawn(world.ours.acquire(key).into_future()).await.expect("the next session");
    let holders = pg_locks_advisory(&mut shared_cluster().sql());
    let (_, next_pid) = holders.iter().find(|(locked, _)| *locked == key).expect("it is held");
    assert_ne!(next_pid, pid);
    drop(again);
    wait_until("the last release", HANG, || world.locked(&[key]).is_empty());
}
