//! How the grants are spread over the processes that want them.

use std::time::Duration;

use crate::crew::Crew;
use crate::holds::{Figures, at, shown};
use crate::worker::Method;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Race {
    pub(crate) method: Method,
    pub(crate) processes: usize,
    pub(crate) time: Duration,
    pub(crate) hold: Duration,
}

/// Runs it and prints a line; how many holds overlapped.
pub(crate) fn run(race: Race, port: u16) -> usize {
    let Race { method, processes, time, hold } = race;
    let mut crew = Crew::start(&[(method, processes)], port, time);
    let mut figures = Figures::default();
    crew.looped(time, hold, &mut figures);
    figures.sort();
    let mut grants = figures.grants.clone();
    grants.sort_unstable();
    let (least, most) = (grants[0], grants[processes - 1]);
    let ratio = if least > 0 { format!("{:.1}", most as f64 / least as f64) } else { "-".into() };
    println!(
        "{:22} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6.3} {:>9} {:>9} {:>9} {:>8}",
        method.title(),
        format!("{hold:?}"),
        grants.iter().sum::<usize>(),
        least,
        most,
        ratio,
        grants.iter().filter(|count| **count == 0).count(),
        gini(&grants),
        shown(at(&figures.waits, 50)),
        shown(at(&figures.waits, 99)),
        shown(at(&figures.waits, 100)),
        figures.overlaps,
    );
    figures.overlaps
}

/// The head of the table.
pub(crate) fn print_head(processes: usize, time: Duration) {
    println!("{processes} processes, {time:?} each");
    println!(
        "{:22} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>9} {:>9} {:>9} {:>8}",
        "",
        "hold",
        "grants",
        "least",
        "most",
        "ratio",
        "starved",
        "Gini",
        "wait p50",
        "p99",
        "longest",
        "overlaps"
    );
}

/// 0 if all have the same, and close to 1 if one has it all. The counts are sorted.
fn gini(grants: &[usize]) -> f64 {
    let total: usize = grants.iter().sum();
    let weighted: usize = grants.iter().enumerate().map(|(n, count)| (n + 1) * count).sum();
    let count = grants.len() as f64;
    if total == 0 {
        0.0
    } else {
        2.0 * weighted as f64 / (count * total as f64) - 1.0 - 1.0 / count
    }
}
