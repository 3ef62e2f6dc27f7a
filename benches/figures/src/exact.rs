//! What is counted and not timed, by a process of its own (`counted`), which the figures are the
//! only contents of.

mod callgrind;
mod strace;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::clients::Server;
use crate::figure::Goal::AtMost;
use crate::report::Report;
use crate::spread::Spread;
use crate::support::Scratch;

/// How much is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Cycles of the shorter one of two runs.
    pub(crate) cycles: u32,
    /// How often both are run; the median counts.
    pub(crate) repeats: usize,
    /// How long an idle manager is watched.
    pub(crate) idle_seconds: u32,
}

/// Locks that are held at once.
const HELD: u32 = 100_000;

/// The program that counts.
fn counted() -> PathBuf {
    let own = std::env::current_exe().expect("this program is a file");
    own.with_file_name("counted")
}

/// What it prints, or prints with another program around it.
fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no number for {word:?} in {text:?}"))
}

/// A manager with nothing to do, in a process of its own.
pub(crate) struct Idle(Child);

impl Idle {
    /// Starts it. It wakes so seldom that it may be watched while other things are timed.
    pub(crate) fn start(server: &Server, counts: Counts) -> Self {
        let seconds = counts.idle_seconds.to_string();
        let mut command = Command::new(counted());
        command.args(["idle", &server.url(), &seconds]).stdout(Stdio::piped());
        Self(command.spawn().expect("it starts"))
    }

    /// Waits for its end, and says the figures.
    pub(crate) fn finish(self, report: &mut Report) {
        let output = self.0.wait_with_output().expect("it is ours");
        assert!(output.status.success(), "the idle process: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("it prints text");
        let (wakes, seconds) = (number(&text, "wakes"), number(&text, "seconds"));
        println!("detail idle {wakes} wake-ups in {seconds:.1} s");
        report.figure(
            "idle_wakeups_per_s",
            wakes / seconds,
            "1/s",
            (AtMost, 0.6),
            "wake-ups of all threads of a connected manager with nothing to do",
        );
        report.figure(
            "idle_heap_kib",
            number(&text, "heap") / 1024.0,
            "KiB",
            (AtMost, 256.0),
            "heap of a connected manager with nothing to do, all that it sets aside",
        );
    }
}

/// Counts all but the idle manager, and says the figures.
pub(crate) fn run(server: &Server, counts: Counts, report: &mut Report) {
    allocations(server, report);
    held(server, report);
    let scratch = Scratch::new();
    let calls = median("syscalls", counts, || strace::calls(&scratch, server, counts.cycles));
    report.figure(
        "syscalls_per_cycle",
        calls,
        "calls",
        (AtMost, 4.0),
        "system calls of all threads for one cycle of one thread, with strace",
    );
    let instructions =
        median("instructions", counts, || callgrind::instructions(&scratch, server, counts.cycles));
    report.figure(
        "instructions_per_cycle",
        instructions,
        "instructions",
        (AtMost, 6_000.0),
        "instructions in user space of all threads for one cycle of one thread, with callgrind",
    );
}

/// Counts so often, and says what came of each.
fn median(what: &str, counts: Counts, count: impl FnMut() -> f64) -> f64 {
    let values: Vec<f64> = std::iter::repeat_with(count).take(counts.repeats).collect();
    println!("detail {what} in each run: {values:.2?}");
    Spread::of(&values).p50
}

/// The worst kind of cycle counts.
fn allocations(server: &Server, report: &mut Report) {
    let mut command = Command::new(counted());
    command.args(["allocations", &server.url()]);
    let text = output(command);
    let mut worst: f64 = 0.0;
    let mut kinds = 0;
    // As in `granted and dropped: 0 allocations, 0 bytes in 2000 cycles`.
    for line in text.lines().filter(|line| !line.starts_with('(')) {
        println!("detail allocations {line}");
        let numbers = line.rsplit_once(": ").expect("a name and its numbers").1;
        let words: Vec<&str> = numbers.split(' ').collect();
        let [allocations, cycles] = [words[0], words[5]].map(|word| word.parse::<f64>());
        worst = worst.max(allocations.expect("a number") / cycles.expect("a number"));
        kinds += 1;
    }
    assert!(kinds >= 15, "all kinds of cycles are counted: {text}");
    report.figure(
        "allocs_per_cycle",
        worst,
        "allocations",
        (AtMost, 0.0),
        "allocations of the whole process for one cycle, of the worst kind of cycle",
    );
}

fn held(server: &Server, report: &mut Report) {
    let mut command = Command::new(counted());
    command.args(["held", &server.url(), &HELD.to_string()]);
    let text = output(command);
    let (all, connected) = (number(&text, "bytes"), number(&text, "connected"));
    let each = |bytes: f64| bytes / f64::from(HELD);
    println!(
        "detail held {:.1} bytes each, of which {:.1} are set aside when it connects",
        each(all),
        each(connected)
    );
    report.figure(
        "bytes_per_held_lock",
        each(all),
        "bytes",
        (AtMost, 200.0),
        "heap of the client for each of 100,000 held locks, with all that it sets aside",
    );
}

/// A run of the cycles of the child, under the program whose command this is.
fn cycles(mut command: Command, server: &Server, count: u32) {
    command.arg(counted()).args(["cycles", &server.url(), &count.to_string()]);
    output(command);
}
