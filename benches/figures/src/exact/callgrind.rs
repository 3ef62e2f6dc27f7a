//! Instructions in user space, by valgrind's callgrind.

use std::process::Command;

use super::cycles;
use crate::clients::Server;
use crate::support::Scratch;

/// The instructions of a cycle: the difference of two runs, as for the system calls.
pub(super) fn instructions(scratch: &Scratch, server: &Server, count: u32) -> f64 {
    let [short, long] = [count, 2 * count].map(|count| total(scratch, server, count));
    (long - short) / f64::from(count)
}

fn total(scratch: &Scratch, server: &Server, count: u32) -> f64 {
    let path = scratch.path().join("callgrind");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", path.display()));
    cycles(command, server, count);
    let text = std::fs::read_to_string(&path).expect("callgrind writes its counts");
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = totals.and_then(|totals| totals.trim().parse().ok());
    total.expect("callgrind says the totals")
}
