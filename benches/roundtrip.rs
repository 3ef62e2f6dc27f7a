//! Lock and release on one thread over TCP, against a private server, next to a plain blocking
//! socket that does it with two prepared round trips.
//!
//! Machines are noisy, and a loop over loopback has two regimes (the server wakes on the same core
//! or on the other): so the two are first measured in short blocks that take turns, and judged by
//! the ratio of their medians. Criterion's own figures follow.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod raw;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use distlock::{Context, Manager};
use raw::RawSession;
use support::TempCluster;

const KEY: i64 = 42;
const BLOCKS: usize = 400;
const CYCLES_A_BLOCK: u32 = 25;

fn dropped(manager: &Manager, context: &Context) {
    drop(manager.try_lock(context, KEY).expect("an answer").expect("it is free"));
}

fn unlocked(manager: &Manager, context: &Context) {
    let lock = manager.try_lock(context, KEY).expect("an answer").expect("it is free");
    lock.unlock().expect("it was held");
}

/// Runs the contestants in turns; returns the times of a cycle, sorted.
fn interleaved<const N: usize>(contestants: [&mut dyn FnMut(); N]) -> [Vec<Duration>; N] {
    let mut times = [const { Vec::new() }; N];
    let mut contestants = contestants;
    for _ in 0..BLOCKS {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..CYCLES_A_BLOCK {
                contestant();
            }
            times.push(start.elapsed() / CYCLES_A_BLOCK);
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    times
}

fn figures(cluster: &TempCluster) {
    let manager = Manager::connect(cluster.url()).expect("a session");
    let context = Context::background();
    let mut raw = RawSession::connect(cluster.port());
    let times =
        interleaved([&mut || raw.cycle(KEY), &mut || dropped(&manager, &context), &mut || {
            unlocked(&manager, &context)
        }]);
    let names = ["two blocking round trips", "try_lock and drop", "try_lock and unlock"];
    let yardstick = times[0][BLOCKS / 2].as_secs_f64();
    println!("{:26} {:>10} {:>10} {:>10}   ratio of medians", "one cycle", "p10", "p50", "p90");
    for (name, times) in names.iter().zip(&times) {
        let [low, median, high] = [BLOCKS / 10, BLOCKS / 2, BLOCKS * 9 / 10].map(|at| times[at]);
        let ratio = median.as_secs_f64() / yardstick;
        println!("{name:26} {low:>10.1?} {median:>10.1?} {high:>10.1?}   {ratio:.2}");
    }
}

fn cycles(criterion: &mut Criterion) {
    let cluster = TempCluster::start();
    figures(&cluster);
    let manager = Manager::connect(cluster.url()).expect("a session");
    let context = Context::background();
    let mut raw = RawSession::connect(cluster.port());
    let mut group = criterion.benchmark_group("roundtrip");
    group.bench_function("two blocking round trips", |bencher| bencher.iter(|| raw.cycle(KEY)));
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
