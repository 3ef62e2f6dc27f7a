//! How leadership passes, played under thousands of schedules by shuttle.
//!
//! This program is made of the library's own files (`seat.rs`, `thread.rs`, `rhythm.rs`,
//! `linger.rs`, `slots.rs`, `context.rs`, `acquire.rs`, `lock.rs`, ...), which are compiled here
//! with other neighbours: [`sync`] for mutexes, atomics and parking, [`shell`] for the event loop,
//! the pipe and the clock, and [`guard::turn`] (`toy.rs`) for everything below a turn: keys and
//! statements, and a [server](world) that answers at once, late, or never. Nothing of what is
//! checked is a copy.
//!
//! shuttle, not loom: the code takes thousands of steps and the clock, of which loom's exhaustive
//! search sees no end. For that shuttle's atomics are sequentially consistent: what the two fences
//! of `seat.rs` are for cannot be seen here.
//!
//! # What holds
//!
//! Whenever everybody sleeps, [`guard::judge`] looks before the clock goes on:
//!
//! * Every request that is waited for is known to the guard, and every one that is known is waited
//!   for: none lies in the queue, no answer or abandonment is overlooked.
//! * While nobody has the seat and an answer is to come to somebody, or a notification may, the
//!   thread is in the event loop: a caller that could take over and sleeps would have lost
//!   leadership. The thread is never away for long while nobody has the seat, and leaves nothing in
//!   the socket.
//! * Only a release lies in the queue, while nobody waits for a lock, and while the thread looks
//!   within `STAND_ASIDE`; which finds it.
//! * Nobody sleeps beyond its deadline, or with a context that is done. Nothing that is due to the
//!   guard comes later than the one who sleeps for it wakes.
//! * A poll lingers only while the thread looks, and ends when it does.
//!
//! And every call ends: by its answer, its deadline, the reply timeout or the close, which needs no
//! timeout at all (while somebody closes, the clock does not go on for it).
//!
//! # Planted bugs
//!
//! Each of these was left out, and what it broke was found by the scenario that is named, or by
//! several:
//!
//! * `drive`, `kick` or `attend` nudges who has the seat: a request or a release lies in the queue
//!   (`leadership_passes_among_four_callers`, `a_poll_lingers_while_others_come`)
//! * the look at the queue after leaving, of a caller or of the thread: a request lies in the queue
//!   (`leadership_passes_between_callers_of_different_keys`)
//! * the next driver is woken by who leaves, after it has left: an answer that nobody reads (the
//!   same)
//! * the thread is called if answers are waited for, or if it is away: an answer that is read late
//!   (`leadership_passes_among_four_callers`)
//! * the thread is called for an earlier deadline: a timer that is late (the same)
//! * the look at the queue, the news or the closing after `driver_sleeps` was set, or that order: a
//!   request in the queue, a cancelled caller that sleeps, a close that hangs
//!   (`a_cancelled_caller_leaves_at_once`, `closing_ends_all_waiting`)
//! * who waits to be notified looks at the news, the limit or the closing: it waits without
//!   sleeping (`who_waits_to_be_notified_gives_up_in_time`, `deadlines_are_kept_by_whoever_waits`)
//! * the poker nudges: a cancelled caller sleeps (`a_cancelled_caller_leaves_at_once`)
//! * the alarm at a caller's deadline: it sleeps on (`deadlines_are_kept_by_whoever_waits`)
//! * the kick after a request was abandoned: the guard works for nobody
//!   (`a_late_server_sends_the_thread_away`)
//! * the release stays while the thread does not stand aside, or while somebody waits: a release in
//!   the queue that nobody looks at, or that somebody waits for
//!   (`leadership_passes_among_four_callers`)
//! * the thread's place is `BUSY` after it stood aside: the same
//!   (`releases_ride_among_several_callers`)
//! * the thread that finds the seat taken nudges for what is queued: the same
//!   (`leadership_passes_among_four_callers`)
//! * the thread reads after it stood aside: an answer stays in the socket (the same)
//! * a poll that lingers: sends the thread aside, calls it if it is away, is set before that, is
//!   looked at by who enters the event loop, shortens the pause, is ended: it lingers, and nobody
//!   looks (`a_poll_lingers_while_others_come`)
//! * closing calls the thread, or nudges: it hangs (`closing_ends_all_waiting`)
//! * a call unparks, sets its flag, or wakes the event loop: the same
//! * the queue's flag is cleared under its lock: a request in the queue
//!
//! Not found, for it breaks nothing that is promised: that the thread does not wake the caller that
//! could take over (it reads the answer itself), and that it does not look for releases that ride
//! (it has its turn anyway once no caller has read for one pause). Not found either, for no
//! scenario leads there often enough: that `leave` does not look after what others have queued when
//! a task comes back at once (`for_good`), and that `sleeps_until` is told after the thread has
//! left the seat.
//!
//! # More schedules
//!
//! `DISTLOCK_MODEL_ROUNDS=20 cargo test --test model` plays twenty times as many, and
//! `DISTLOCK_MODEL_SEED=7` others; an argument after `--` is a part of the names to play.
#![allow(
    // Of the library's files only a part is used here, and their unit tests are not run.
    dead_code,
    unused_imports,
    // Their public items are public in the library only, which is where they are documented.
    unreachable_pub,
    missing_docs,
    // What is public in the library is not to this lint here.
    clippy::needless_pass_by_ref_mut
)]

// `clock.rs` reads this crate's clock.
extern crate self as rustix;

mod shell;
mod sync;
mod world;

/// The library's own files.
#[path = "../../src"]
mod library {
    pub(crate) mod acquire;
    pub(crate) mod clock;
    pub(crate) mod context;
    pub(crate) mod error;
    pub(crate) mod foreign;
    pub(crate) mod holders;
    pub(crate) mod key;
    pub(crate) mod lock;
    pub(crate) mod slab;
    pub(crate) mod slots;
    pub(crate) mod token;
    pub(crate) mod warning;
}

/// The guard's own files, and what is put around them.
#[path = "../../src/guard"]
mod guard {
    pub(crate) mod linger;
    pub(crate) mod rhythm;
    pub(crate) mod seat;
    pub(crate) mod thread;

    #[path = "../../tests/model/judge.rs"]
    pub(crate) mod judge;
    #[path = "../../tests/model/scenarios.rs"]
    pub(crate) mod scenarios;
    #[path = "../../tests/model/scene.rs"]
    pub(crate) mod scene;
    #[path = "../../tests/model/toy.rs"]
    pub(crate) mod turn;

    use crate::shell::{Bell, Ear, EventLoop, LoopWaker, socket};
}

use context::Context;
use key::Key;
use library::{
    acquire, clock, context, error, foreign, holders, key, lock, slab, slots, token, warning,
};
use shell::{time, timer};

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::time::Instant;

use guard::scenarios;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// A scenario, and how many schedules of each kind it is played under.
struct Model(&'static str, fn(), usize);

macro_rules! models {
    ($($name:ident: $count:expr),* $(,)?) => {
        &[$(Model(stringify!($name), scenarios::$name, $count)),*]
    };
}

/// A schedule of more steps does not end.
const STEPS_MAX: usize = 200_000;

/// How many times a PCT schedule changes who goes first.
const DEPTH: usize = 4;

const MODELS: &[Model] = models![
    leadership_passes_between_callers_of_different_keys: 4_000,
    leadership_passes_among_four_callers: 4_000,
    callers_of_one_key_wait_for_each_other: 4_000,
    a_late_server_sends_the_thread_away: 4_000,
    deadlines_are_kept_by_whoever_waits: 4_000,
    a_server_that_falls_silent_is_given_up: 4_000,
    a_burst_ends_with_a_release: 4_000,
    releases_ride_among_several_callers: 4_000,
    a_burst_ends_as_the_thread_comes_back: 4_000,
    timers_belong_to_the_seat: 4_000,
    who_waits_to_be_notified_gives_up_in_time: 4_000,
    answers_meet_deadlines: 4_000,
    a_cancelled_caller_leaves_at_once: 4_000,
    closing_ends_all_waiting: 4_000,
    a_poll_lingers_while_others_come: 4_000,
    a_cancelled_task_leaves_at_once: 4_000,
    tasks_give_up: 4_000,
    sets_and_single_locks: 4_000,
    who_was_alone_looks_up_in_time: 4_000,
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {text:?}")))
}

thread_local! {
    /// Which model this thread plays.
    static PLAYED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Whatever goes wrong ends the program, also where the library would catch the panic.
fn fail(panic: &PanicHookInfo<'_>) {
    let name = PLAYED.with(|played| played.borrow().clone());
    println!("model {name}: FAILED: {panic}\n{}", world::describe());
    std::process::exit(1);
}

/// Plays one model.
fn check(model: &Model, rounds: u64, seed: u64) {
    let Model(name, play, count) = *model;
    let count = count * rounds as usize;
    let begin = Instant::now();
    let mut config = Config::new();
    config.stack_size = 0x2_0000;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    PLAYED.set(format!("{name}, random schedules, seed {seed}"));
    world::LOOKS.set(world::LOOKS_MAX);
    Runner::new(RandomScheduler::new_from_seed(seed, count), config.clone()).run(play);
    PLAYED.set(format!("{name}, PCT schedules, seed {seed}"));
    // These are not fair: who looks again and again may keep from running who it looks for.
    config.max_steps = MaxSteps::ContinueAfter(STEPS_MAX / 10);
    world::LOOKS.set(usize::MAX);
    Runner::new(PctScheduler::new_from_seed(seed, DEPTH, count), config).run(play);
    println!("model {name}: {} schedules, {:.1} s", 2 * count, begin.elapsed().as_secs_f32());
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let rounds = number("DISTLOCK_MODEL_ROUNDS").unwrap_or(1);
    let seed = number("DISTLOCK_MODEL_SEED").unwrap_or(1);
    let is_wanted =
        |model: &&Model| wanted.is_empty() || wanted.iter().any(|name| model.0.contains(&**name));
    let queue: Mutex<Vec<&Model>> = Mutex::new(MODELS.iter().filter(is_wanted).rev().collect());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(model) = queue.lock().expect("no panic here").pop() else { return };
                    std::panic::set_hook(Box::new(fail));
                    check(model, rounds, seed);
                }
            });
        }
    });
}
