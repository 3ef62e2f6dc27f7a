//! The scenarios. Each is played under thousands of schedules.

use std::time::Duration;

use super::scene::{Act, MICROSECOND, MILLISECOND, Past, act, block_on, pause, play, poll_for};
use crate::context::Context;
use crate::world::{Manners, NEVER, choose};

/// Answers at once, soon, and late.
const PROMPT: &[u64] = &[0, 30 * MICROSECOND, 300 * MICROSECOND, 3 * MILLISECOND];
const LATE: &[u64] = &[30 * MICROSECOND, 10 * MILLISECOND, 70 * MILLISECOND, 150 * MILLISECOND];
const NEVER_OR_SOON: &[u64] = &[30 * MICROSECOND, 30 * MICROSECOND, MILLISECOND, NEVER];

/// Answers that come about when the thread looks.
const AS_IT_LOOKS: &[u64] = &[1_980 * MICROSECOND, 2_000 * MICROSECOND, 2_020 * MICROSECOND];

const fn server(answers: &'static [u64]) -> Manners {
    Manners { answers, is_slow: false, is_contended: false }
}

const fn slow(answers: &'static [u64]) -> Manners {
    Manners { is_slow: true, ..server(answers) }
}

/// One of a few pasts.
fn some_past() -> Past {
    Past { burst: choose(2) == 0, calls: choose(2) == 0, linger: None, alone: choose(2) == 0 }
}

/// Locks and lets go, so often.
fn cycles(key: i64, count: usize) -> Act {
    act(move |manager| {
        for _ in 0..count {
            drop(manager.lock(key));
        }
    })
}

/// The same, and waits for the server's answer to the release.
fn cycles_with_unlock(key: i64, count: usize) -> Act {
    act(move |manager| {
        for _ in 0..count {
            if let Ok(lock) = manager.lock(key) {
                let _ = manager.unlock(lock);
            }
        }
    })
}

fn tries(key: i64, count: usize) -> Act {
    act(move |manager| {
        for _ in 0..count {
            drop(manager.try_lock(key));
        }
    })
}

/// Two callers whose statements are in flight together: who leaves first hands the socket over.
pub(crate) fn leadership_passes_between_callers_of_different_keys() {
    play(slow(PROMPT), some_past(), vec![cycles(1, 2), cycles_with_unlock(2, 1)]);
}

pub(crate) fn leadership_passes_among_four_callers() {
    let acts = vec![cycles(1, 1), cycles_with_unlock(2, 1), cycles(1, 1), tries(3, 2)];
    play(slow(PROMPT), some_past(), acts);
}

pub(crate) fn callers_of_one_key_wait_for_each_other() {
    let acts = vec![cycles(1, 2), cycles_with_unlock(1, 1), cycles(1, 1)];
    play(server(PROMPT), some_past(), acts);
}

/// One waits for 150 milliseconds, so that the thread looks ever less often; others come and go.
pub(crate) fn a_late_server_sends_the_thread_away() {
    let visitor = act(|manager| {
        pause(20 * MILLISECOND);
        drop(manager.try_lock(2));
        pause(30 * MILLISECOND);
        drop(manager.lock_within(3, Duration::from_millis(10)));
    });
    play(slow(LATE), some_past(), vec![cycles(1, 2), visitor]);
}

/// What has a deadline ends at it, whoever has the seat, and whether or not there is an answer.
pub(crate) fn deadlines_are_kept_by_whoever_waits() {
    let hurried = |key, after| {
        act(move |manager| {
            drop(manager.lock_within(key, Duration::from_nanos(after)));
        })
    };
    let acts = vec![
        hurried(1, 2 * MILLISECOND),
        hurried(1, 20 * MILLISECOND),
        hurried(2, 100 * MICROSECOND),
        cycles(2, 1),
    ];
    play(server(LATE), some_past(), acts);
}

/// The reply timeout ends what a silent server leaves open.
pub(crate) fn a_server_that_falls_silent_is_given_up() {
    let acts = vec![cycles(1, 2), cycles_with_unlock(2, 1), tries(1, 1)];
    play(slow(NEVER_OR_SOON), some_past(), acts);
}

/// A release is the last thing that anybody asks for: the thread finds it.
pub(crate) fn a_burst_ends_with_a_release() {
    let past = Past { burst: true, calls: true, linger: None, alone: choose(2) == 0 };
    play(server(PROMPT), past, vec![cycles(1, 3)]);
}

pub(crate) fn releases_ride_among_several_callers() {
    let past = Past { burst: true, calls: true, linger: None, alone: choose(2) == 0 };
    let late = act(|manager| {
        pause(50 * MICROSECOND);
        drop(manager.lock(1));
    });
    play(slow(PROMPT), past, vec![cycles(1, 2), late, tries(2, 2)]);
}

/// The thread comes back from standing aside while releases ride.
pub(crate) fn a_burst_ends_as_the_thread_comes_back() {
    let past = Past { burst: true, calls: true, linger: None, alone: choose(2) == 0 };
    play(server(AS_IT_LOOKS), past, vec![cycles(1, 4)]);
}

/// Others have the keys: they are asked for again, at times that somebody has to keep.
pub(crate) fn timers_belong_to_the_seat() {
    let manners = Manners { is_contended: true, ..server(PROMPT) };
    play(manners, some_past(), vec![cycles(1, 2), cycles(2, 2), cycles_with_unlock(3, 1)]);
}

/// Who waits to be notified keeps the seat, and looks up in time all the same.
pub(crate) fn who_waits_to_be_notified_gives_up_in_time() {
    let manners = Manners { is_contended: true, ..server(PROMPT) };
    let past = Past { alone: false, ..some_past() };
    let (context, canceler) = Context::background().with_cancel();
    let when = choose(4) as u64 * 500 * MICROSECOND;
    let acts = match choose(3) {
        0 => vec![act(|manager| drop(manager.lock_within(1, Duration::from_millis(2))))],
        1 => vec![
            act(move |manager| drop(manager.lock_under(1, &context))),
            act(move |_| {
                pause(when);
                canceler.cancel();
            }),
        ],
        _ => vec![
            cycles(1, 1),
            act(move |manager| {
                pause(when);
                manager.close();
            }),
        ],
    };
    play(manners, past, acts);
}

/// An answer comes just when its caller gives up.
pub(crate) fn answers_meet_deadlines() {
    let hurried = |key| {
        act(move |manager| {
            for _ in 0..2 {
                drop(manager.lock_within(key, Duration::from_nanos(300 * MICROSECOND)));
            }
        })
    };
    let answers = &[270 * MICROSECOND, 290 * MICROSECOND, 310 * MICROSECOND];
    play(server(answers), some_past(), vec![hurried(1), hurried(2)]);
}

/// Whoever waits is told by others: contexts that are cancelled.
pub(crate) fn a_cancelled_caller_leaves_at_once() {
    let (context, canceler) = Context::background().with_cancel();
    let (other, also) = (context.clone(), context.clone());
    let acts = vec![
        act(move |manager| drop(manager.lock_under(1, &context))),
        act(move |manager| drop(manager.lock_under(1, &other))),
        act(move |_| {
            pause(40 * MICROSECOND);
            canceler.cancel();
        }),
        act(move |manager| drop(manager.lock_under(2, &also))),
    ];
    play(slow(LATE), some_past(), acts);
}

pub(crate) fn closing_ends_all_waiting() {
    let acts = vec![
        cycles(1, 2),
        cycles_with_unlock(1, 1),
        act(|manager| {
            pause(choose(3) as u64 * 100 * MICROSECOND);
            manager.close();
        }),
        tries(2, 1),
    ];
    // Who hears nothing for a moment would be waited for, which takes a clock that goes on.
    play(slow(NEVER_OR_SOON), Past { alone: false, ..some_past() }, acts);
}

/// Polls that linger, and tasks that do not.
pub(crate) fn a_poll_lingers_while_others_come() {
    let past = Past { linger: Some(Duration::from_micros(100)), ..some_past() };
    let acts = vec![
        act(|manager| {
            for _ in 0..2 {
                drop(block_on(async { manager.acquire(1).await }));
            }
        }),
        cycles(2, 1),
    ];
    play(slow(LATE), past, acts);
}

/// A poll that lingers is told, too.
pub(crate) fn a_cancelled_task_leaves_at_once() {
    let past = Past { linger: Some(Duration::from_micros(100)), ..some_past() };
    let (context, canceler) = Context::background().with_cancel();
    let acts = vec![
        act(move |manager| {
            let future = manager.acquire(1).context(&context).into_future();
            drop(poll_for(future, &context, usize::MAX));
        }),
        act(move |_| {
            pause(20 * MICROSECOND);
            canceler.cancel();
        }),
        act(|manager| drop(block_on(async { manager.acquire(2).await }))),
    ];
    play(slow(LATE), past, acts);
}

/// A task that is dropped while its request is under way, and one with a deadline.
pub(crate) fn tasks_give_up() {
    let past = Past { linger: Some(Duration::from_micros(100)), ..some_past() };
    let acts = vec![
        act(|manager| {
            drop(poll_for(manager.acquire(1).into_future(), &Context::background(), 1));
            drop(block_on(async { manager.acquire(1).try_async().await }));
        }),
        act(|manager| {
            let timeout = Duration::from_millis(4);
            drop(block_on(async { manager.acquire(1).timeout(timeout).await }));
        }),
        cycles(1, 1),
    ];
    play(server(LATE), past, acts);
}

/// Several keys at once, by a blocked caller and by a task.
pub(crate) fn sets_and_single_locks() {
    let acts = vec![
        act(|manager| drop(manager.lock(1))),
        act(|manager| drop(block_on(async { manager.acquire(1).await }))),
        act(|manager| {
            if let Ok(lock) = block_on(async { manager.acquire(2).await }) {
                let _ = block_on(lock.unlock_async());
            }
        }),
    ];
    play(slow(PROMPT), some_past(), acts);
}

/// Who was alone hears nobody for a moment: nothing waits for longer than that.
pub(crate) fn who_was_alone_looks_up_in_time() {
    let past = Past { alone: true, ..some_past() };
    let (context, canceler) = Context::background().with_cancel();
    let acts = vec![
        act(move |manager| drop(manager.lock_under(1, &context))),
        cycles_with_unlock(2, 1),
        act(move |_| {
            pause(choose(3) as u64 * MILLISECOND);
            canceler.cancel();
        }),
        tries(3, 2),
    ];
    play(slow(LATE), past, acts);
}
