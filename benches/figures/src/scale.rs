//! How much is measured.

use std::time::Duration;

use crate::crowd::Spans;
use crate::turns::Turns;

/// Repeats of each group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) cycle: Turns,
    pub(crate) crowd: Spans,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        cycle: Turns { generations: 80, rounds: 4, cycles: 100 },
        crowd: Spans { generations: 5, rounds: 4, span: Duration::from_millis(400) },
    };

    /// Ends within three minutes.
    pub(crate) const QUICK: Self = Self {
        cycle: Turns { generations: 30, rounds: 2, cycles: 100 },
        crowd: Spans { generations: 2, rounds: 3, span: Duration::from_millis(250) },
    };
}
