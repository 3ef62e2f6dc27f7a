//! The ledger's statements, and the numbers that stand for them in the session.

/// A statement about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpKind {
    /// Try to lock.
    Try,
    /// Unlock what was held; anything but `true` is a broken invariant.
    Unlock,
    /// The same, and somebody waits for the answer.
    UnlockAndTell,
    /// Unlock what a failed try may have locked; either answer is right.
    Verify,
}

/// A statement to send. The number goes through the session as its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: OpKind,
    pub(super) entry: u32,
}

impl Op {
    /// The number that goes through the session with the statement.
    pub(crate) fn to_number(self) -> u32 {
        let kind = match self.kind {
            OpKind::Try => 0,
            OpKind::Unlock => 1,
            OpKind::Verify => 2,
            OpKind::UnlockAndTell => 3,
        };
        self.entry << 2 | kind
    }

    /// The inverse of [`Op::to_number`].
    pub(crate) fn from_number(number: u32) -> Self {
        let kind = match number & 3 {
            0 => OpKind::Try,
            1 => OpKind::Unlock,
            2 => OpKind::Verify,
            _ => OpKind::UnlockAndTell,
        };
        Self { kind, entry: number >> 2 }
    }
}
