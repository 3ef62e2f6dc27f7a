//! How many pairs of lock and release a second come through one connection, when many threads or
//! tasks ask at once, each for a key of its own.

mod pgbench;
mod tasks;
mod threads;
mod woken;

use std::time::{Duration, Instant};

use distlock::Manager;

use crate::clients::{Flavor, Server};
use crate::figure::Goal::AtLeast;
use crate::report::{Report, Row};
use crate::spread::Spread;
use crate::support::{Sql, pg_locks_advisory};
use crate::turns::order;
use pgbench::Pgbench;
use tasks::{OurTasks, TheirTasks};
use threads::Threads;
use woken::Woken;

/// Many at once.
trait Crowd {
    /// Works for about so long. Returns the pairs a second; the time is until all releases have
    /// been answered.
    fn run(&mut self, span: Duration) -> f64;
}

/// How often, and how long, they take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    /// Each with new sessions.
    pub(crate) generations: usize,
    pub(crate) rounds: usize,
    pub(crate) span: Duration,
    /// After this long no generation begins.
    pub(crate) limit: Duration,
}

/// Their keys, one for each thread or task; no two crowds are at work at once.
const FIRST_KEY: i64 = 10_000;
const KEYS: i64 = 1_000;

/// The part of a span that is run before it and not counted.
const WARM_UP: u32 = 8;

struct Entrant {
    name: String,
    make: Box<Make>,
}

type Make = dyn Fn(&Server) -> Box<dyn Crowd>;

/// Measures, and says the figures.
pub(crate) fn run(server: &Server, observer: &mut Sql, spans: Spans, report: &mut Report) {
    let entrants = entrants();
    let mut speeds = vec![Vec::new(); entrants.len()];
    let start = Instant::now();
    for generation in 0..spans.generations {
        if generation > 0 && start.elapsed() > spans.limit {
            break;
        }
        let mut crowds: Vec<Option<Box<dyn Crowd>>> = entrants.iter().map(|_| None).collect();
        for at in order(entrants.len(), generation) {
            crowds[at] = Some((entrants[at].make)(server));
        }
        let mut crowds: Vec<_> = crowds.into_iter().flatten().collect();
        for round in 0..spans.rounds {
            for at in order(entrants.len(), generation * spans.rounds + round) {
                crowds[at].run(spans.span / WARM_UP);
                speeds[at].push(crowds[at].run(spans.span));
                nothing_is_held(observer, &entrants[at].name);
            }
        }
    }
    let row = |(entrant, speeds): (Entrant, Vec<f64>)| Row {
        name: entrant.name,
        spread: Spread::of(&speeds),
    };
    let rows = entrants.into_iter().zip(speeds).map(row).collect();
    report.group("many at once on one connection", "pairs/s", rows);
    figures(report);
}

fn nothing_is_held(observer: &mut Sql, name: &str) {
    let ours = FIRST_KEY..FIRST_KEY + KEYS;
    let left = pg_locks_advisory(observer).iter().filter(|(key, _)| ours.contains(key)).count();
    assert_eq!(left, 0, "keys that are still locked after {name}");
}

fn entrants() -> Vec<Entrant> {
    let mut all = Vec::new();
    let mut add = |name: String, make: Box<Make>| {
        all.push(Entrant { name, make });
    };
    let manager = |server: &Server| Manager::connect(server.url()).expect("a session");
    add(
        "distlock, 64 threads, drop".into(),
        Box::new(move |s| Box::new(Threads::new(manager(s), 64, true))),
    );
    add("pgbench, pipelines of 64".into(), Box::new(|s| Box::new(Pgbench::new(s, 64))));
    for flavor in Flavor::ALL {
        for count in [64, 1000] {
            let name = flavor.name();
            add(
                format!("tokio-postgres, {count} tasks, {name}"),
                Box::new(move |s| Box::new(TheirTasks::new(s, flavor, count))),
            );
            add(
                format!("distlock, {count} tasks, {name}"),
                Box::new(move |s| Box::new(OurTasks::new(manager(s), flavor, count))),
            );
        }
    }
    add(
        "(awaited) distlock, 64 threads, unlock".into(),
        Box::new(move |s| Box::new(Threads::new(manager(s), 64, false))),
    );
    add("(floor) 64 threads, only woken".into(), Box::new(|_| Box::new(Woken::new(64))));
    all
}

fn figures(report: &mut Report) {
    let group = report.groups.last().expect("it was just added");
    let threads = group.most("distlock, 64 threads, drop");
    let tasks = group.most("distlock, 1000 tasks");
    let to_tokio_postgres = threads / group.most("tokio-postgres, 64 tasks");
    let to_pgbench = threads / group.most("pgbench");
    let tasks = tasks / group.most("tokio-postgres, 1000 tasks");
    let mut say =
        |name, value, goal, what| report.figure(name, value, "ratio", (AtLeast, goal), what);
    say(
        "threads64_vs_tokio_postgres",
        to_tokio_postgres,
        4.0,
        "pairs a second of 64 threads on one manager, to 64 tasks on one tokio-postgres connection",
    );
    say("threads64_vs_pgbench", to_pgbench, 1.3, "to pgbench with pipelines of 64 pairs");
    say("tasks1000_vs_tokio_postgres", tasks, 4.0, "1,000 tasks, to 1,000 of tokio-postgres");
}
