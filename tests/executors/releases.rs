//! Unlocks and downgrades that are awaited.

use distlock::{Cause, Lock, Manager};

use crate::executor::Executor;
use crate::polls::{Asking, Pace, drop_after};
use crate::support::unique_key;
use crate::{World, taken};

pub(crate) async fn what_is_unlocked_is_free_once_the_future_is_ready<E: Executor>(
    on: E,
    mut world: World,
) {
    let keys = [(); 4].map(|()| unique_key());
    for manager in [world.ours.clone(), world.other.clone()] {
        let lock = taken(&manager, keys[0]);
        let set = manager.acquire_all(keys[1..3].to_vec()).await.expect("free");
        let term = manager.elect(keys[3]).next_term_async().await.expect("nobody leads");
        assert_eq!(world.locked(&keys), keys);
        let contexts = [lock.context(), set.context(), term.context()].map(Clone::clone);
        on.spawn(lock.unlock_async()).await.expect("it was held");
        assert_eq!(world.locked(&keys), keys[1..]);
        on.spawn(set.unlock_async()).await.expect("they were held");
        assert_eq!(world.locked(&keys), keys[3..]);
        on.spawn(term.resign_async()).await.expect("it led");
        assert_eq!(world.locked(&keys), []);
        for context in contexts {
            assert_eq!(context.done().await, Cause::Released);
        }
    }
}

/// What is held of the keys, and its unlock.
fn unlocking(manager: &Manager, keys: &[i64]) -> Asking<()> {
    match keys {
        [key] => Box::pin(taken(manager, *key).unlock_async()),
        _ => {
            let set = manager.acquire_all(keys.to_vec()).try_now().expect("an answer");
            Box::pin(set.expect("they are free").unlock_async())
        }
    }
}

pub(crate) async fn a_lock_whose_unlock_is_dropped_after_any_number_of_polls_is_released_once<
    E: Executor,
>(
    on: E,
    mut world: World,
) {
    let keys = [(); 4].map(|()| unique_key());
    for polls in 0..6 {
        for pace in [Pace::Woken, Pace::Eager] {
            for keys in [&keys[..1], &keys] {
                let unlocking = unlocking(&world.ours, keys);
                on.spawn(drop_after(polls, pace, unlocking)).await;
                // Behind the release in the same session, and so granted; a second release would be
                // one of these.
                let again: Vec<Lock> = keys.iter().map(|key| taken(&world.ours, *key)).collect();
                world.settle();
                assert!(again.iter().all(Lock::is_held));
                assert_eq!(world.locked(keys), keys, "after {polls} polls");
                for lock in again {
                    lock.unlock_async().await.expect("it was held");
                }
                assert_eq!(world.locked(keys), []);
            }
        }
    }
}

pub(crate) async fn a_downgrade_lets_sharers_in_and_never_lets_go<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let mut lock = taken(&world.ours, key);
    let sharer = on.spawn(world.other.acquire(key).shared().into_future());
    let lock = on.spawn(async move {
        lock.downgrade_async().await.expect("it is held");
        // It stays what it is.
        lock.downgrade_async().await.expect("it is held");
        lock
    });
    let (lock, sharer) = (lock.await, sharer.await.expect("it is shared"));
    assert!(lock.is_held() && sharer.is_held());
    sharer.unlock_async().await.expect("it was held");
    let alone = on.spawn(world.other.acquire(key).try_async()).await.expect("an answer");
    assert!(alone.is_none(), "one holder is left");
    on.spawn(lock.unlock_async()).await.expect("it was held");
    assert_eq!(world.locked(&[key]), []);
}

pub(crate) async fn a_downgrade_dropped_after_any_number_of_polls_leaves_the_lock_held<
    E: Executor,
>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    for polls in 0..6 {
        for is_asked_again in [true, false] {
            let mut lock = taken(&world.ours, key);
            let lock = on.spawn(async move {
                drop_some(polls, &mut lock).await;
                assert!(lock.is_held());
                if is_asked_again {
                    lock.downgrade_async().await.expect("it is held");
                }
                lock
            });
            let lock = lock.await;
            assert_eq!(world.locked(&[key]), [key]);
            if is_asked_again {
                let sharer = world.other.acquire(key).shared().await.expect("it is shared");
                assert!(lock.is_held());
                sharer.unlock_async().await.expect("it was held");
            }
            lock.unlock_async().await.expect("it was held");
            assert_eq!(world.locked(&[key]), [], "after {polls} polls");
        }
    }
}

/// Polls a downgrade so often, and drops it; the lock is only borrowed.
async fn drop_some(polls: u32, lock: &mut Lock) {
    let mut downgrading = std::pin::pin!(lock.downgrade_async());
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(downgrading.as_mut().poll(cx).is_ready())
        });
        if polled.await {
            return;
        }
        crate::grants::yield_now().await;
    }
}
