//! Lock and release on one thread over TCP, against a private server, next to a plain blocking
//! socket that does it with two prepared round trips.
//!
//! Machines are noisy, and a loop over loopback has two regimes: the server wakes on the caller's
//! core, or, once the scheduler has moved it away after some 50 ms, on another. So the contestants
//! take turns in blocks that are long enough to settle, and the medians of their blocks are
//! compared; then once more in short bursts. Criterion's own figures follow.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod raw;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use distlock::{Context, Manager};
use raw::RawSession;
use support::TempCluster;

/// Settled: blocks of this many cycles.
const LONG: Turns = Turns { blocks: 3, cycles: 3_000 };
/// Bursts: a service that locks now and then.
const SHORT: Turns = Turns { blocks: 100, cycles: 25 };
/// Where the scheduler puts a backend, it tends to leave it: so all is done with this many fresh
/// pairs of sessions.
const PAIRS: usize = 10;

#[derive(Clone, Copy)]
struct Turns {
    blocks: usize,
    cycles: u32,
}

fn dropped(manager: &Manager, context: &Context) {
    drop(manager.try_lock(context, 2).expect("an answer").expect("it is free"));
}

fn unlocked(manager: &Manager, context: &Context) {
    let lock = manager.try_lock(context, 3).expect("an answer").expect("it is free");
    lock.unlock().expect("it was held");
}

/// Runs the contestants in turns; returns the times of a cycle, a block each.
fn interleaved<const N: usize>(
    turns: Turns,
    mut contestants: [&mut dyn FnMut(); N],
) -> [Vec<Duration>; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..turns.blocks {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..turns.cycles {
                contestant();
            }
            times.push(start.elapsed() / turns.cycles);
        }
    }
    times
}

fn figures(cluster: &TempCluster, title: &str, turns: Turns) {
    let mut times = [const { Vec::new() }; 3];
    for pair in 0..PAIRS {
        // Which of the two connects first decides where its backend comes to run.
        let raw_first = (pair % 2 == 0).then(|| RawSession::connect(cluster.port()));
        let manager = Manager::connect(cluster.url()).expect("a session");
        let mut raw = raw_first.unwrap_or_else(|| RawSession::connect(cluster.port()));
        let context = Context::background();
        let new = interleaved(
            turns,
            [&mut || raw.cycle(1), &mut || dropped(&manager, &context), &mut || {
                unlocked(&manager, &context)
            }],
        );
        for (times, new) in times.iter_mut().zip(new) {
            times.extend(new);
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    let names = ["two blocking round trips", "try_lock and drop", "try_lock and unlock"];
    let at = |part: usize| PAIRS * turns.blocks * part / 10;
    let yardstick = times[0][at(5)].as_secs_f64();
    println!("{title:26} {:>10} {:>10} {:>10}   ratio of medians", "p10", "p50", "p90");
    for (name, times) in names.iter().zip(&times) {
        let [low, median, high] = [1, 5, 9].map(|part| times[at(part)]);
        let ratio = median.as_secs_f64() / yardstick;
        println!("{name:26} {low:>10.1?} {median:>10.1?} {high:>10.1?}   {ratio:.2}");
    }
}

fn cycles(criterion: &mut Criterion) {
    let cluster = TempCluster::start();
    // A trial run only shows that it runs.
    let trial = std::env::args().any(|argument| argument == "--test");
    let few = |turns: Turns| if trial { Turns { blocks: 1, cycles: 10 } } else { turns };
    figures(&cluster, "settled, one cycle", few(LONG));
    figures(&cluster, "in bursts, one cycle", few(SHORT));
    let manager = Manager::connect(cluster.url()).expect("a session");
    let context = Context::background();
    let mut raw = RawSession::connect(cluster.port());
    let mut group = criterion.benchmark_group("roundtrip");
    group.bench_function("two blocking round trips", |bencher| bencher.iter(|| raw.cycle(1)));
    group.bench_function("try_lock and drop", |bencher| {
        bencher.iter(|| dropped(&manager, &context));
    });
    group.bench_function("try_lock and unlock", |bencher| {
        bencher.iter(|| unlocked(&manager, &context));
    });
    group.finish();
}

criterion_group!(benches, cycles);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
