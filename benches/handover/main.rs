//! The hand-over of one key: from the call that releases it to the next grant.
//!
//! Between processes, this program again, each with a session of its own; next to the waiting of
//! the original library, and to the queue of the server. Within a process, between the threads of
//! one manager, next to a bare park and unpark. The contestants take turns, and the yardstick is
//! the round trip of the same run. `benches/README.md` says how each figure is taken.
//!
//! | arguments | what is run |
//! |---|---|
//! | none | the hand-over |
//! | `--fairness [--processes 50] [--seconds 60] [--method unlock]` | how the grants are spread |
//! | `--test` | a trial run of both, which only shows that they run |

mod bare;
mod crew;
mod fairness;
mod holds;
mod local;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../../tests/support/mod.rs"]
mod support;
mod worker;

use std::thread;
use std::time::{Duration, Instant};

use crew::Crew;
use distlock::Manager;
use fairness::Race;
use holds::{Figures, at, median, now, shown};
use local::Line;
use raw::RawSession;
use support::TempCluster;
use worker::Method;

const HOLD: Duration = Duration::from_millis(1);
/// Enough for all sessions, their witnesses, and those that end while the next ones begin.
const CONNECTIONS: &str = "400";

/// How long the hand-over is measured.
struct Scale {
    sizes: &'static [usize],
    rounds: usize,
    /// Of each contestant, in each round.
    block: Duration,
    /// Round trips before each block.
    round_trips: usize,
}

const FULL: Scale =
    Scale { sizes: &[2, 8, 50], rounds: 3, block: Duration::from_secs(2), round_trips: 500 };

const TRIAL: Scale =
    Scale { sizes: &[2], rounds: 1, block: Duration::from_millis(100), round_trips: 10 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &arguments[..] {
        if first == "--worker" {
            return worker::run(rest);
        }
    }
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} has a value")).as_str())
    };
    let number = |name: &str, default: usize| {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{name} {text}"));
        value(name).map_or(default, number)
    };
    // Cargo gives `--bench` to a bench that is to measure, and not to one that is to be tried.
    let trial = has("--test") || !has("--bench");
    let cluster = TempCluster::builder().setting("max_connections", CONNECTIONS).start();
    let (processes, seconds) = if trial { (2, 1) } else { (50, 60) };
    let processes = number("--processes", processes).max(1);
    let time = Duration::from_secs(number("--seconds", seconds) as u64);
    let mut overlaps = 0;
    if trial || !has("--fairness") {
        let scale = if trial { &TRIAL } else { &FULL };
        overlaps += between_processes(&cluster, scale);
        overlaps += between_threads(&cluster, scale);
    }
    if trial || has("--fairness") {
        let word = value("--method").unwrap_or("unlock");
        let method = Method::of(word).unwrap_or_else(|| panic!("--method {word}"));
        fairness::print_head(processes, time);
        for hold in [Duration::ZERO, HOLD] {
            overlaps += fairness::run(Race { method, processes, time, hold }, cluster.port());
        }
    }
    assert_eq!(overlaps, 0, "somebody had the key while somebody else had it");
}

/// As all that measures, it returns how many holds overlapped.
fn between_processes(cluster: &TempCluster, scale: &Scale) -> usize {
    let mut overlaps = 0;
    for &processes in scale.sizes {
        let mut raw = RawSession::connect(cluster.port());
        let first = Manager::connect(cluster.url()).expect("a session");
        let [mut round_trips, mut rested] = [const { Vec::new() }; 2];
        let mut figures = [const { Vec::new() }; 2];
        for figures in &mut figures {
            figures.resize_with(Method::ALL.len(), Figures::default);
        }
        let [loops, drains] = &mut figures;
        for _ in 0..scale.rounds {
            for (n, method) in Method::ALL.into_iter().enumerate() {
                round_trips.push(round_trip(&mut raw, scale.round_trips));
                rested.push(rested_round_trip(&mut raw, scale.round_trips / 10));
                let work = 2 * scale.block;
                let mut crew = Crew::start(&[(method, processes)], cluster.port(), work);
                crew.looped(scale.block, HOLD, &mut loops[n]);
                let begin = Instant::now();
                while begin.elapsed() < scale.block {
                    crew.drained(&first, HOLD, &mut drains[n]);
                }
            }
        }
        let round_trip = median(round_trips);
        let rested = median(rested);
        println!(
            "\n{processes} processes; one round trip {round_trip:.1?}, after {HOLD:?} of rest \
             {rested:.1?}"
        );
        print_head("round trip");
        for (n, method) in Method::ALL.into_iter().enumerate() {
            print(&format!("{}: in a loop", method.title()), &mut loops[n], round_trip);
            print(&format!("{}: each once", method.title()), &mut drains[n], round_trip);
            overlaps += loops[n].overlaps + drains[n].overlaps;
        }
    }
    overlaps
}

fn between_threads(cluster: &TempCluster, scale: &Scale) -> usize {
    let mut overlaps = 0;
    let manager = Manager::connect(cluster.url()).expect("a session");
    for &threads in scale.sizes {
        let (mut ours, mut bare) = (Figures::default(), Figures::default());
        for _ in 0..scale.rounds {
            local::looped(&Line::default(), threads, scale.block, HOLD, &mut bare);
            local::looped(&manager, threads, scale.block, HOLD, &mut ours);
        }
        bare.sort();
        let yardstick = at(&bare.next, 50).expect("hand-overs");
        println!("\n{threads} threads of one process");
        print_head("bare");
        print("park and unpark", &mut bare, yardstick);
        print("lock, unlock", &mut ours, yardstick);
        overlaps += bare.overlaps + ours.overlaps;
    }
    overlaps
}

/// The median of a blocking, prepared round trip, while nobody else does anything.
fn round_trip(raw: &mut RawSession, count: usize) -> u64 {
    let one = |_| {
        let begin = now();
        raw.cycle(1);
        (now() - begin) / 2
    };
    median((0..count).map(one).collect()).as_nanos() as u64
}

/// The same after the rest of a hold, when server and caller have to be woken from a deeper sleep.
fn rested_round_trip(raw: &mut RawSession, count: usize) -> u64 {
    let one = |_| {
        raw.try_lock(1);
        thread::sleep(HOLD);
        let begin = now();
        raw.unlock(1);
        now() - begin
    };
    median((0..count).map(one).collect()).as_nanos() as u64
}

fn print_head(yardstick: &str) {
    println!(
        "{:33} {:>7} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9} {:>11} {:>8}",
        "",
        "count",
        "p50",
        "p90",
        "p99",
        "max",
        format!("/{yardstick}"),
        "to waiter",
        "p50",
        "grants",
        "overlaps"
    );
}

fn print(title: &str, figures: &mut Figures, yardstick: Duration) {
    figures.sort();
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| at(&figures.next, percent));
    let ratio = p50.map(|p50| p50.as_secs_f64() / yardstick.as_secs_f64());
    let share = figures.to_waiter.len() as f64 / figures.next.len().max(1) as f64;
    let [least, most] = [figures.grants.iter().min(), figures.grants.iter().max()];
    println!(
        "{title:33} {:>7} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>9} {:>11} {:>8}",
        figures.next.len(),
        shown(p50),
        shown(p90),
        shown(p99),
        shown(max),
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        format!("{:.1} %", share * 100.0),
        shown(at(&figures.to_waiter, 50)),
        format!("{}-{}", least.unwrap_or(&0), most.unwrap_or(&0)),
        figures.overlaps,
    );
}
