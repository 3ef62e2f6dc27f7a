//! Locks are awaited on any executor: each scenario is written once, against the trait `Executor`
//! and the public interface, and runs under all of the executors here, which share no code.
//!
//! `executor` has the executors; the scenarios are in `grants` (what is granted, to whom),
//! `forms` (slots, tokens, pauses, sets, terms, who holds), `endings` (waits and locks that are cut
//! short), `releases` (unlocks and downgrades) and `polls` (who polls, how often, with what waker).

#[path = "../support/mod.rs"]
mod support;

mod endings;
mod executor;
mod forms;
mod grants;
mod polls;
mod releases;

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use distlock::{Context, Lock, Manager};
use executor::{Executor, Hand, Local, Pollster, Pool, Smol, TokioMany, TokioOne};
use support::{Sql, pg_locks_advisory, shared_cluster, unique_key, wait_until};

/// Nothing here takes this long; what hangs fails instead.
const HANG: Duration = Duration::from_secs(30);

/// A test of each scenario under each executor.
macro_rules! under_each_executor {
    ($($scenarios:ident: $($scenario:ident),*;)*) => {
        $($(mod $scenario {
            use super::*;
            under_each_executor!(@ $scenarios $scenario
                by_hand Hand, pollster Pollster, futures_local Local, futures_pool Pool,
                tokio_one_thread TokioOne, tokio_threads TokioMany, smol Smol);
        })*)*
    };
    (@ $scenarios:ident $scenario:ident $($name:ident $executor:ident),*) => {
        $(#[test]
        fn $name() {
            in_time(|| {
                let executor = $executor::new();
                executor.clone().run($scenarios::$scenario(executor, World::new()));
            });
        }
        )*
    };
}

under_each_executor! {
    grants:
        a_lock_is_granted_refused_and_released,
        of_200_tasks_on_5_keys_never_two_are_in,
        joined_and_selected_requests_each_get_what_is_theirs;
    forms:
        tasks_that_wait_for_slots_all_get_one_and_never_too_many,
        fenced_grants_that_are_waited_for_have_larger_and_larger_tokens,
        a_settled_grant_is_told_after_its_pause_or_given_back,
        holders_and_waiters_are_told_while_they_hold_and_wait,
        sets_that_cross_and_have_to_wait_are_granted_as_a_whole,
        an_election_that_has_to_wait_is_won_when_the_term_before_ends;
    endings:
        a_wait_ends_by_its_context_and_its_time_and_leaves_no_trace,
        a_wait_ended_by_the_executors_own_timer_leaves_no_trace,
        the_context_of_a_lock_ends_with_its_session;
    releases:
        what_is_unlocked_is_free_once_the_future_is_ready,
        a_lock_whose_unlock_is_dropped_after_any_number_of_polls_is_released_once,
        a_downgrade_lets_sharers_in_and_never_lets_go,
        a_downgrade_dropped_after_any_number_of_polls_leaves_the_lock_held;
    polls:
        a_request_dropped_after_any_number_of_polls_leaves_what_is_held,
        a_grant_that_was_not_looked_at_goes_with_its_future,
        a_future_goes_on_from_thread_to_thread,
        the_waker_of_the_last_poll_is_the_one_that_is_called;
}

/// Runs a scenario in a thread of its own: one that is never woken again fails.
fn in_time(scenario: impl FnOnce() + Send + 'static) {
    let (sender, ended) = channel();
    let thread = thread::spawn(move || {
        scenario();
        sender.send(())
    });
    let is_hanging = ended.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout);
    assert!(!is_hanging, "the scenario hangs");
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Two managers of the shared cluster, and an observer.
struct World {
    ours: Manager,
    other: Manager,
    sql: Sql,
}

impl World {
    fn new() -> Self {
        let manager = || Manager::connect(shared_cluster().url()).expect("a session");
        Self { ours: manager(), other: manager(), sql: shared_cluster().sql() }
    }

    /// Which of the keys are locked, in their order.
    fn locked(&mut self, keys: &[i64]) -> Vec<i64> {
        let all = pg_locks_advisory(&mut self.sql);
        keys.iter().copied().filter(|key| all.iter().any(|(locked, _)| locked == key)).collect()
    }

    /// Waits until the sessions have sent all that they have to release: a grant that comes too
    /// late is released in front of the second lock's release.
    fn settle(&self) {
        for manager in [&self.ours, &self.other, &self.ours, &self.other] {
            taken(manager, unique_key()).unlock().expect("it was held");
        }
    }

    /// Waits until nobody has the key any more.
    fn wait_until_free(&mut self, key: i64) {
        wait_until("the release", HANG, || self.locked(&[key]).is_empty());
    }
}

/// A lock that is free, taken by a thread that blocks.
#[track_caller]
fn taken(manager: &Manager, key: i64) -> Lock {
    let answer = manager.try_lock(&Context::background(), key).expect("an answer");
    answer.expect("it is free")
}
