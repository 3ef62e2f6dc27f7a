//! System calls, by strace.

use std::collections::BTreeMap;
use std::process::Command;

use super::cycles;
use crate::clients::Server;
use crate::support::Scratch;

/// The system calls of a cycle: the difference of two runs, of which one is twice as long, so that
/// connecting and closing cancel each other out.
pub(super) fn calls(scratch: &Scratch, server: &Server, count: u32) -> f64 {
    let [short, long] = [count, 2 * count].map(|count| summary(scratch, server, count));
    let mut total = 0.0;
    for (name, calls) in &long {
        let before = short.get(name).copied().unwrap_or_default();
        let each = (*calls as f64 - before as f64) / f64::from(count);
        if each.abs() >= 0.005 {
            println!("detail syscalls {name} {each:.2}");
        }
        total += each;
    }
    total
}

/// How often each call was made.
fn summary(scratch: &Scratch, server: &Server, count: u32) -> BTreeMap<String, u64> {
    let path = scratch.path().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&path);
    cycles(command, server, count);
    let text = std::fs::read_to_string(&path).expect("strace writes its summary");
    let calls = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let calls = words.next()?.parse().ok()?;
        Some((words.next()?.to_owned(), calls)).filter(|(name, _)| name != "total")
    });
    let calls: BTreeMap<String, u64> = calls.collect();
    assert!(calls.values().sum::<u64>() > u64::from(count), "a cycle takes a call: {text}");
    calls
}
