//! Taking turns: all clients of a group run in short blocks, again and again, each time in another
//! order, so that what the machine does meanwhile meets all of them.

use std::time::{Duration, Instant};

use crate::clients::Client;

/// How often, and how long, a group takes turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns {
    /// Each with new sessions: where the scheduler puts a server process, it tends to leave it.
    pub(crate) generations: usize,
    /// Blocks of each client in a generation.
    pub(crate) rounds: usize,
    /// Cycles before each block that are not counted: caches get warm, and whoever works
    /// differently in a burst has found out that it is in one.
    pub(crate) warm_up: u32,
    /// Cycles of a block.
    pub(crate) cycles: u32,
    /// After this long no generation begins.
    pub(crate) limit: Duration,
}

/// The rounds of one generation; adds the microseconds of a cycle, for each block, to the times of
/// its client.
pub(crate) fn interleaved(
    turns: Turns,
    generation: usize,
    clients: &mut [Box<dyn Client>],
    times: &mut [Vec<f64>],
) {
    for round in 0..turns.rounds {
        for at in order(clients.len(), generation * turns.rounds + round) {
            clients[at].cycles(turns.warm_up);
            let start = Instant::now();
            clients[at].cycles(turns.cycles);
            let time = start.elapsed() / turns.cycles;
            times[at].push(time.as_secs_f64() * 1e6);
        }
    }
}

/// The order of a turn: it begins with another one each time, and every second time it goes
/// backwards, so that nobody always follows the same one.
pub(crate) fn order(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| {
        let n = (n + turn) % count;
        if turn.is_multiple_of(2) { n } else { count - 1 - n }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_has_everybody_once_and_begins_with_another_one() {
        let mut first = Vec::new();
        for turn in 0..6 {
            let mut all: Vec<usize> = order(3, turn).collect();
            first.push(all[0]);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
        first.sort_unstable();
        assert_eq!(first, [0, 0, 1, 1, 2, 2]);
    }
}
