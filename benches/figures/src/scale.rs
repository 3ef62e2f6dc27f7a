//! How much is measured.

use std::time::Duration;

use crate::crowd::Spans;
use crate::exact::Counts;
use crate::flat::Repeats;
use crate::turns::Turns;

/// Repeats of each group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Whether it is all that is to be measured, and not a quick look.
    pub(crate) is_whole: bool,
    pub(crate) cycle: Turns,
    pub(crate) crowd: Spans,
    pub(crate) losses: usize,
    pub(crate) flat: Repeats,
    pub(crate) exact: Counts,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        is_whole: true,
        cycle: Turns { generations: 60, rounds: 4, warm_up: 50, cycles: 100, limit: seconds(180) },
        crowd: Spans {
            generations: 5,
            rounds: 4,
            span: Duration::from_millis(400),
            limit: seconds(120),
        },
        losses: 20,
        flat: Repeats { generations: 3, rounds: 15, limit: seconds(60) },
        exact: Counts { cycles: 10_000, repeats: 3, idle_seconds: 64 },
    };

    /// Ends within three minutes, even where the machine has other things to do.
    pub(crate) const QUICK: Self = Self {
        is_whole: false,
        cycle: Turns { generations: 30, rounds: 2, warm_up: 50, cycles: 100, limit: seconds(35) },
        crowd: Spans {
            generations: 3,
            rounds: 2,
            span: Duration::from_millis(250),
            limit: seconds(20),
        },
        losses: 5,
        flat: Repeats { generations: 1, rounds: 5, limit: seconds(20) },
        exact: Counts { cycles: 3_000, repeats: 1, idle_seconds: 32 },
    };
}
