//! The other forms of locks, each where it has to wait: slots, fenced and settled grants, sets,
//! terms; and who holds a key meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use distlock::{Acquire, Cause, Context, Error, Manager, Place, Token};

use crate::executor::Executor;
use crate::grants::yield_now;
use crate::support::unique_key;
use crate::{World, taken};

/// Long enough for a request to wait when it ends; nothing depends on that.
const SHORT: Duration = Duration::from_millis(20);
/// Tasks of each manager.
const TASKS: usize = 8;

/// Tasks of both managers, which get a number each.
async fn all_of_both<E: Executor, F>(on: &E, world: &World, task: impl Fn(Manager, usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let manager = |number: usize| [&world.ours, &world.other][number % 2].clone();
    let tasks: Vec<_> =
        (0..2 * TASKS).map(|number| on.spawn(task(manager(number), number))).collect();
    for task in tasks {
        task.await;
    }
}

pub(crate) async fn tasks_that_wait_for_slots_all_get_one_and_never_too_many<E: Executor>(
    on: E,
    world: World,
) {
    const SLOTS: u32 = 3;
    let key = unique_key();
    let managers = [&world.ours, &world.other];
    let mut held = Vec::new();
    for number in 0..SLOTS as usize {
        let asked = managers[number % 2].acquire(key).slots(SLOTS);
        held.push(on.spawn(asked.into_future()).await.expect("a slot is free"));
    }
    for manager in managers {
        let refused = on.spawn(manager.acquire(key).slots(SLOTS).try_async()).await;
        assert!(refused.expect("an answer").is_none(), "every slot is taken");
        let waited = on.within(SHORT, manager.acquire(key).slots(SLOTS).into_future()).await;
        assert!(waited.is_none(), "every slot is taken: {waited:?}");
    }
    let inside = Arc::new(AtomicU32::new(SLOTS));
    let tasks = all_of_both(&on, &world, |manager, _| {
        let inside = Arc::clone(&inside);
        async move {
            let slot = manager.acquire(key).slots(SLOTS).await.expect("its turn");
            assert!(inside.fetch_add(1, Ordering::SeqCst) < SLOTS, "too many are in");
            yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(slot);
        }
    });
    let releases = async {
        for slot in held {
            yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            slot.unlock_async().await.expect("it was held");
        }
    };
    futures::join!(tasks, releases);
    assert_eq!(inside.load(Ordering::SeqCst), 0);
}

pub(crate) async fn fenced_grants_that_are_waited_for_have_larger_and_larger_tokens<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let first = on.spawn(world.ours.acquire(key).fenced().into_future()).await.expect("free");
    let tokens: Arc<Mutex<Vec<Token>>> = Arc::default();
    tokens.lock().expect("no panic").extend(first.token());
    let tasks = all_of_both(&on, &world, |manager, _| {
        let tokens = Arc::clone(&tokens);
        async move {
            let lock = manager.acquire(key).fenced().await.expect("its turn");
            tokens.lock().expect("no panic").extend(lock.token());
            yield_now().await;
            assert!(lock.is_held());
            drop(lock);
        }
    });
    let release = async { first.unlock_async().await.expect("it was held") };
    futures::join!(tasks, release);
    let tokens = tokens.lock().expect("no panic").clone();
    assert_eq!(tokens.len(), 1 + 2 * TASKS, "each grant has one");
    assert!(tokens.is_sorted_by(|earlier, later| earlier < later), "{tokens:?}");
    world.settle();
    assert_eq!(world.locked(&[key]), []);
}

pub(crate) async fn a_settled_grant_is_told_after_its_pause_or_given_back<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    let settled = |manager: &Manager, pause| -> Acquire { manager.acquire(key).settle(pause) };
    // One that had to wait, and that is kept back then.
    let lock = taken(&world.ours, key);
    let (asked, pause) = (settled(&world.other, SHORT * 2), SHORT * 2);
    let waiting = on.spawn(async move { (asked.await, Instant::now()) });
    on.within(SHORT, std::future::pending::<()>()).await;
    let released = Instant::now();
    lock.unlock_async().await.expect("it was held");
    let (lock, told) = waiting.await;
    assert!(told - released >= pause, "told {:?} after the release", told - released);
    lock.expect("its turn").unlock_async().await.expect("it was held");
    // One that is cancelled, and one that is dropped, while they are kept back.
    let (context, canceler) = Context::background().with_cancel();
    let waiting = on.spawn(settled(&world.ours, Duration::MAX).context(&context).into_future());
    while world.locked(&[key]).is_empty() {
        yield_now().await;
    }
    canceler.cancel();
    match waiting.await {
        Err(Error::Canceled(cause)) => assert_eq!(cause, Cause::Canceled),
        answer => panic!("it was cancelled: {answer:?}"),
    }
    let told = on.within(SHORT, settled(&world.ours, Duration::MAX).into_future()).await;
    assert!(told.is_none(), "it is kept back: {told:?}");
    world.settle();
    assert_eq!(world.locked(&[key]), []);
}

pub(crate) async fn holders_and_waiters_are_told_while_they_hold_and_wait<E: Executor>(
    on: E,
    world: World,
) {
    let key = unique_key();
    let nobody = on.spawn(world.ours.holders(key).into_future()).await.expect("an answer");
    assert_eq!((nobody.holder_count, nobody.waiter_count), (0, 0));
    let lock = on.spawn(world.ours.acquire(key).into_future()).await.expect("free");
    let waiting = on.spawn(world.other.acquire(key).into_future());
    let all = loop {
        let asked = [&world.ours, &world.other].map(|manager| manager.holders(key).into_future());
        let told = on.spawn(futures::future::join_all(asked)).await;
        let told: Vec<_> = told.into_iter().map(|told| told.expect("an answer")).collect();
        // Registering takes a moment.
        if told.iter().all(|told| told.waiter_count == 1) {
            break told;
        }
    };
    for (told, is_ours) in all.iter().zip([true, false]) {
        let (holder, waiter) = (&told.holders[0], &told.waiters[0]);
        assert_eq!((told.holder_count, holder.place, holder.shared), (1, Place::Key, false));
        assert_eq!((holder.session.is_own, waiter.session.is_own), (is_ours, !is_ours));
    }
    lock.unlock_async().await.expect("it was held");
    let next = waiting.await.expect("its turn");
    let told = on.spawn(world.ours.holders(key).into_future()).await.expect("an answer");
    assert_eq!(told.holders[0].session.process_id, all[0].waiters[0].session.process_id);
    next.unlock_async().await.expect("it was held");
}

pub(crate) async fn sets_that_cross_and_have_to_wait_are_granted_as_a_whole<E: Executor>(
    on: E,
    mut world: World,
) {
    let keys = [(); 4].map(|()| unique_key());
    let held = taken(&world.other, keys[2]);
    let waited = on.within(SHORT, world.ours.acquire_all(keys).into_future()).await;
    assert!(waited.is_none(), "one is taken: {waited:?}");
    world.settle();
    assert_eq!(world.locked(&keys), keys[2..3], "nothing of the set is kept");
    let inside: Arc<[AtomicBool; 4]> = Arc::default();
    let visits = Arc::new(AtomicU32::new(0));
    let tasks = all_of_both(&on, &world, |manager, number| {
        let (inside, visits) = (Arc::clone(&inside), Arc::clone(&visits));
        async move {
            // In every order, and all but one of the keys, so that any two of them cross.
            let mut places = [0, 1, 2, 3];
            places.rotate_left(number % 4);
            let places = &places[1..];
            let set = manager.acquire_all(places.iter().map(|place| keys[*place])).await;
            let set = set.expect("its turn");
            for place in places {
                assert!(!inside[*place].swap(true, Ordering::SeqCst), "two hold the key");
            }
            yield_now().await;
            assert!(set.is_held() && set.len() == 3);
            for place in places {
                inside[*place].store(false, Ordering::SeqCst);
            }
            visits.fetch_add(1, Ordering::SeqCst);
            set.unlock_async().await.expect("it was held");
        }
    });
    let release = async {
        yield_now().await;
        held.unlock_async().await.expect("it was held");
    };
    futures::join!(tasks, release);
    assert_eq!(visits.load(Ordering::SeqCst) as usize, 2 * TASKS);
    world.settle();
    assert_eq!(world.locked(&keys), []);
}

pub(crate) async fn an_election_that_has_to_wait_is_won_when_the_term_before_ends<E: Executor>(
    on: E,
    mut world: World,
) {
    let key = unique_key();
    for (leader, candidate) in [(&world.other, &world.ours), (&world.ours, &world.ours)] {
        let term = leader.elect(key).next_term_async().await.expect("nobody leads");
        let mut election = candidate.elect(key);
        let won = on.within(SHORT, election.next_term_async()).await;
        assert!(won.is_none(), "there is a leader: {won:?}");
        let mut campaign = on.spawn(async move { (election.next_term_async().await, election) });
        assert!(on.within(SHORT, &mut campaign).await.is_none() && term.is_leader());
        on.spawn(term.resign_async()).await.expect("it led");
        let (term, mut election) = campaign.await;
        let term = term.expect("elected");
        assert!(term.is_leader() && term.number() == 1);
        // The next one begins when the last one, which another task has, is over.
        let mut campaign = on.spawn(async move { (election.next_term_async().await, election) });
        assert!(on.within(SHORT, &mut campaign).await.is_none() && term.is_leader());
        on.spawn(async { drop(term) }).await;
        let (term, election) = campaign.await;
        let term = term.expect("elected again");
        assert_eq!(term.number(), 2);
        let (context, canceler) = Context::background().with_cancel();
        let mut waiting = election.context(&context);
        let ended = on.spawn(async move { waiting.next_term_async().await });
        canceler.cancel();
        term.resign_async().await.expect("it led");
        assert!(ended.await.expect_err("cancelled").is_canceled());
    }
    world.settle();
    assert_eq!(world.locked(&[key]), []);
}
