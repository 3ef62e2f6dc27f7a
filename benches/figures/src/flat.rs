//! Whether a cycle takes as long with 100,000 locks held as with none: ours, and the bare socket's,
//! which shows what the server itself does.

use std::time::{Duration, Instant};

use distlock::{Config, LockSet, Manager};

use crate::clients::{Client, Ours, Raw, Server};
use crate::figure::Goal::AtMost;
use crate::holding::lock_all;
use crate::report::{Report, Row};
use crate::spread::Spread;
use crate::turns::order;

const HELD: u32 = 100_000;

/// The keys that are held by ours and by the socket, others in each generation, and those of the
/// cycles.
const FIRST_KEYS: [i64; 2] = [2_000_000, 1_002_000_000];
const CYCLE_KEY: i64 = 1;

/// What takes turns, and whether it holds the locks. The third shows what two managers that hold
/// nothing differ by.
const NAMES: [&str; 5] = [
    "distlock, none held",
    "distlock, 100,000 held",
    "(again) distlock, none held",
    "(floor) raw tcp, none held",
    "(floor) raw tcp, 100,000 held",
];

/// How often they take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeats {
    /// Each with new sessions.
    pub(crate) generations: usize,
    pub(crate) rounds: usize,
    /// After this long no generation begins.
    pub(crate) limit: Duration,
}

/// About how long a block is, and the least and the most cycles in it: those that are compared
/// differ much.
const BLOCK: Duration = Duration::from_millis(10);
const CYCLES: [u32; 2] = [3, 100];

/// The microseconds of a cycle, in a block.
fn cycle(client: &mut dyn Client) -> f64 {
    let timed = |client: &mut dyn Client, count: u32| {
        let start = Instant::now();
        client.cycles(count);
        start.elapsed() / count
    };
    let warm = timed(client, CYCLES[0]);
    let count = BLOCK.as_nanos() / warm.as_nanos().max(1);
    let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(CYCLES[0], CYCLES[1]);
    timed(client, count).as_secs_f64() * 1e6
}

/// Measures, and says the figure.
pub(crate) fn run(server: &Server, repeats: Repeats, report: &mut Report) {
    let mut times = NAMES.map(|_| Vec::new());
    let start = Instant::now();
    for generation in 0..repeats.generations {
        if generation > 0 && start.elapsed() > repeats.limit {
            break;
        }
        let [ours, theirs] = FIRST_KEYS.map(|key| key + generation as i64 * i64::from(HELD));
        let mut held: Vec<Vec<LockSet>> = Vec::new();
        let mut clients: Vec<Box<dyn Client>> = Vec::new();
        for (n, count) in [0, HELD, 0].into_iter().enumerate() {
            let config: Config = server.url().parse().expect("a URL");
            let manager = Manager::connect(config.max_locks(HELD + 16)).expect("a session");
            held.push(lock_all(&manager, ours, count));
            clients.push(Box::new(Ours::new(manager, CYCLE_KEY + n as i64, true)));
        }
        let mut raw = [3, 4].map(|n| Raw::tcp(server, CYCLE_KEY + n, false));
        raw[1].lock_many(theirs, HELD);
        for raw in raw {
            clients.push(Box::new(raw));
        }
        for round in 0..repeats.rounds {
            for at in order(clients.len(), generation * repeats.rounds + round) {
                times[at].push(cycle(&mut *clients[at]));
            }
        }
        assert!(held.iter().flatten().all(LockSet::is_held), "all that time");
    }
    let rows: Vec<Row> = NAMES
        .into_iter()
        .zip(&times)
        .map(|(name, times)| Row { name: name.into(), spread: Spread::of(times) })
        .collect();
    let [none, many, again] = [0, 1, 2].map(|n: usize| rows[n].spread.p50);
    report.group("one cycle of a session that holds other locks", "us", rows);
    report.check("none_held_vs_itself".into(), again / none);
    report.figure(
        "flat_100k",
        many / none,
        "ratio",
        (AtMost, 1.1),
        "one cycle with 100,000 locks held, to none held",
    );
}
