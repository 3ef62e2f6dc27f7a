//! What is granted, and to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use distlock::{Cause, Context, Manager};
use futures::FutureExt;

use crate::executor::Executor;
use crate::support::unique_key;
use crate::{World, taken};

pub(crate) async fn a_lock_is_granted_refused_and_released<E: Executor>(on: E, mut world: World) {
    let key = unique_key();
    let lock = world.ours.acquire(key).context(&Context::background()).await.expect("free");
    assert!(lock.is_held());
    assert_eq!(lock.key(), distlock::Key::Bigint(key));
    assert_eq!(world.locked(&[key]), [key]);
    for manager in [world.ours.clone(), world.other.clone()] {
        let refused = on.spawn(manager.acquire(key).try_async());
        assert!(refused.await.expect("an answer").is_none(), "two have it");
    }
    let done = on.spawn(lock.context().done().into_future());
    drop(lock);
    assert_eq!(done.await, Cause::Released);
    // Behind the release in the same session, and so granted.
    let again = on.spawn(world.ours.acquire(key).try_async()).await.expect("an answer");
    again.expect("it is free").unlock().expect("it was held");
    assert_eq!(world.locked(&[key]), []);
    let others = on.spawn(world.other.acquire(key).into_future()).await.expect("free");
    assert_eq!(world.locked(&[key]), [key]);
    others.unlock().expect("it was held");
    assert_eq!(world.locked(&[key]), []);
}

const TASKS: usize = 200;

/// What one key excludes: whether somebody is in, and how many have been.
#[derive(Default)]
struct Room {
    key: i64,
    inside: AtomicBool,
    visits: AtomicU32,
}

async fn visit(manager: Manager, room: Arc<Room>) {
    let lock = manager.acquire(room.key).await.expect("its turn");
    assert!(!room.inside.swap(true, Ordering::SeqCst), "two are in");
    assert!(lock.is_held());
    // A read and a write that only exclusion makes one, with other tasks let in between.
    let before = room.visits.load(Ordering::SeqCst);
    yield_now().await;
    room.visits.store(before + 1, Ordering::SeqCst);
    room.inside.store(false, Ordering::SeqCst);
    drop(lock);
}

pub(crate) async fn of_200_tasks_on_5_keys_never_two_are_in<E: Executor>(on: E, mut world: World) {
    let rooms: Vec<Arc<Room>> =
        (0..5).map(|_| Arc::new(Room { key: unique_key(), ..Room::default() })).collect();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let manager = [&world.ours, &world.other][task % 2].clone();
            on.spawn(visit(manager, Arc::clone(&rooms[task % 5])))
        })
        .collect();
    for task in tasks {
        task.await;
    }
    let visits: Vec<u32> = rooms.iter().map(|room| room.visits.load(Ordering::SeqCst)).collect();
    assert_eq!(visits, [TASKS as u32 / 5; 5]);
    world.settle();
    let keys: Vec<i64> = rooms.iter().map(|room| room.key).collect();
    assert_eq!(world.locked(&keys), []);
}

pub(crate) async fn joined_and_selected_requests_each_get_what_is_theirs<E: Executor>(
    on: E,
    mut world: World,
) {
    let keys: Vec<i64> = (0..3).map(|_| unique_key()).collect();
    let (ours, other) = (world.ours.clone(), world.other.clone());
    let [first, second, third] = [keys[0], keys[1], keys[2]];
    let locks = on.spawn(async move {
        let (first, second, third) = futures::join!(
            ours.acquire(first).into_future(),
            other.acquire(second).into_future(),
            ours.acquire(third).into_future(),
        );
        [first, second, third].map(|lock| lock.expect("free"))
    });
    let [first, second, third] = locks.await;
    assert_eq!(world.locked(&keys), keys);

    // A request, in both managers, beside what ends first.
    let manager = [&world.ours, &world.other].map(Clone::clone);
    let (context, canceler) = Context::background().with_cancel();
    let key = keys[0];
    let ended = on.spawn(async move {
        let mut here = manager[0].acquire(key).into_future().fuse();
        let mut there = manager[1].acquire(key).into_future().fuse();
        futures::select! {
            lock = here => panic!("it is taken: {lock:?}"),
            lock = there => panic!("it is taken: {lock:?}"),
            cause = context.done().into_future().fuse() => cause,
        }
    });
    canceler.cancel();
    assert_eq!(ended.await, Cause::Canceled);
    for lock in [first, second, third] {
        lock.unlock().expect("it was held");
    }
    world.settle();
    assert_eq!(world.locked(&keys), []);
    drop(taken(&world.other, key));
}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    let mut is_first = true;
    std::future::poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
