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

impl Scale {
    pub(crate) const FULL: Self = Self {
        is_whole: true,
        cycle: Turns { generations: 80, rounds: 4, warm_up: 50, cycles: 100 },
        crowd: Spans { generations: 5, rounds: 4, span: Duration::from_millis(400) },
        losses: 20,
        flat: Repeats { generations: 3, rounds: 15 },
        exact: Counts { cycles: 10_000, idle_seconds: 64 },
    };

    /// Ends within three minutes.
    pub(crate) const QUICK: Self = Self {
        is_whole: false,
        cycle: Turns { generations: 30, rounds: 2, warm_up: 50, cycles: 100 },
        crowd: Spans { generations: 2, rounds: 3, span: Duration::from_millis(250) },
        losses: 5,
        flat: Repeats { generations: 1, rounds: 7 },
        exact: Counts { cycles: 3_000, idle_seconds: 32 },
    };
}
