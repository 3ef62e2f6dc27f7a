//! Random scripts: four threads that try, wait, give up, are cancelled, poll and drop, release and
//! keep locks of every form, one or several, on five keys and two managers, against a real server.
//! After each script, what the managers' locks say is what `pg_locks` shows; then all is released,
//! and nothing is left.
//!
//! A script is a pure function of its seed (`plan`); how the threads interleave is not, so a
//! failure may take several runs of its seed to come again. Environment variables:
//!
//! * `DISTLOCK_SCRIPTS`: how many scripts, 10,000 if it is not set.
//! * `DISTLOCK_SCRIPT`: a seed, as a failure prints it; it is played that many times.
//!
//! `forms` has the ways to ask for a lock, and is where a new one goes; `traces` has what each
//! looks like in `pg_locks`; `rooms` proves that holders exclude each other; `worker` plays one
//! thread's part.

mod support;

#[path = "scripts/forms.rs"]
mod forms;
#[path = "scripts/plan.rs"]
mod plan;
#[path = "scripts/rooms.rs"]
mod rooms;
#[path = "scripts/tally.rs"]
mod tally;
#[path = "scripts/traces.rs"]
mod traces;
#[path = "scripts/worker.rs"]
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Config, Context, Manager};
use forms::{Form, KEYS};
use plan::{Plan, THREADS};
use support::{TempCluster, wait_until};
use tally::Event;
use traces::{Observer, Trace, expected};
use worker::{Held, Report, Worker, World};

/// How many scripts are played if nothing else is asked for.
const SCRIPTS: u64 = 10_000;

/// Nothing here takes this long; a script that hangs fails instead.
const HANG: Duration = Duration::from_secs(60);

#[test]
fn after_any_script_the_locks_say_what_the_server_says_and_nothing_is_left() {
    let scripts = number("DISTLOCK_SCRIPTS").unwrap_or(SCRIPTS);
    let one = number("DISTLOCK_SCRIPT");
    let mut stage = Stage::new();
    let begin = Instant::now();
    for seed in 0..scripts {
        stage.play(one.unwrap_or(seed));
    }
    println!("{scripts} scripts in {:.1?}: {:?}", begin.elapsed(), stage.world.tally);
    // That the scripts do what they are for.
    if scripts >= SCRIPTS && one.is_none() {
        assert_eq!(stage.world.tally.never(), Vec::<(Event, Form)>::new());
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} should be a number, is {text:?}")))
}

/// What all scripts share: the server, two managers, an observer, and the threads.
struct Stage {
    world: Arc<World>,
    /// The pids of the managers' backends.
    pids: [i32; 2],
    parts: Vec<Sender<Arc<Plan>>>,
    reports: Receiver<Report>,
    observer: Observer,
    _cluster: TempCluster,
}

/// Says which script it was, if the test fails in it.
struct Named<'a>(&'a Plan);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("in the script of DISTLOCK_SCRIPT={}:\n{:#?}", self.0.seed, self.0);
        }
    }
}

impl Stage {
    fn new() -> Self {
        let cluster = TempCluster::start();
        // The second manager releases a lock as soon as its requester's context is done.
        let managers = [false, true].map(|release_on_cancel| {
            let config: Config = cluster.url().parse().expect("a URL");
            Manager::connect(config.release_on_cancel(release_on_cancel)).expect("a session")
        });
        let mut observer = Observer::new(cluster.sql(), &managers[0]);
        let pids = [&managers[0], &managers[1]].map(|manager| observer.pid_of(manager));
        let world = Arc::new(World::new(managers));
        let (report, reports) = channel();
        let parts = (0..THREADS).map(|number| {
            let (part, parts) = channel::<Arc<Plan>>();
            let (world, report) = (Arc::clone(&world), report.clone());
            thread::spawn(move || {
                let mut worker = Worker::new(number, world);
                // Ends when the test does.
                parts.iter().map(|plan| worker.report(&plan)).try_for_each(|it| report.send(it))
            });
            part
        });
        let parts = parts.collect();
        Self { world, pids, parts, reports, observer, _cluster: cluster }
    }

    /// One script, from nothing held to nothing held.
    fn play(&mut self, seed: u64) {
        let plan = Arc::new(Plan::of(seed));
        let _named = Named(&plan);
        for part in &self.parts {
            part.send(Arc::clone(&plan)).expect("the thread lives");
        }
        let mut held: Vec<Held> = Vec::new();
        for _ in &self.parts {
            let report = self.reports.recv_timeout(HANG).expect("no thread hangs");
            held.extend(report.unwrap_or_else(|panic| panic!("a thread panicked: {panic}")));
        }
        // All threads are at rest. What a deadline is about to release has to be gone first,
        // without a look at the context: that would see to it.
        for lock in held.iter().filter(|lock| lock.is_released_by_time()) {
            wait_until("the release at the deadline", HANG, || lock.handle.is_gone());
        }
        self.settle();
        for lock in &held {
            let is_held = lock.handle.is_held();
            assert_eq!(is_held, !lock.may_be_gone(), "what the lock of {:?} says", lock.ask);
        }
        let still_held = held.iter().filter(|lock| lock.handle.is_held());
        let shown = expected(still_held.map(|lock| (lock.ask, self.pids[lock.ask.manager])));
        assert_eq!(self.observer.traces_at_rest(), shown, "pg_locks, and the locks");

        let mut ending = plan.ending.clone();
        while !held.is_empty() {
            let lock = held.swap_remove(ending.below(held.len() as u64) as usize);
            self.world.let_go(lock, ending.below(2) == 0);
        }
        self.settle();
        assert_eq!(self.observer.traces_at_rest(), Vec::<Trace>::new(), "all is released");
        assert!(self.world.rooms.are_empty(), "somebody is still in");
    }

    /// Waits until the sessions have sent all that they have to release: a grant that comes too
    /// late is released in front of the second lock's release.
    fn settle(&self) {
        for manager in self.world.managers.iter().chain(&self.world.managers) {
            let lock = manager.try_lock(&Context::background(), SETTLE_KEY).expect("an answer");
            lock.expect("only one thread is at it").unlock().expect("it was held");
        }
    }
}

/// None of the scripts' keys.
const SETTLE_KEY: i64 = 1;

#[test]
fn the_scripts_are_what_their_seeds_make_them() {
    let text = |seed| format!("{:?}", Plan::of(seed));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    assert!(!KEYS.contains(&distlock::Key::Bigint(SETTLE_KEY)));
}
