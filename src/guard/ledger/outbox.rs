//! The statements that are to be sent, and how many of them go as one.

use super::{Ledger, Op, OpKind};
use crate::key::Key;
#[cfg(test)]
use crate::proto::statement::Statement;
use crate::proto::statement::{ROWS_MAX, Run, Swap};
use crate::slots::Want;

/// From so many on, statements of one kind go as one with several rows. With pgbench (PostgreSQL
/// 15, a prepared try and an unlock) such a round trip took as long as a plain one with 1 and with
/// 4 rows, 71 to 84 us, and 94 to 128 us with 64. Fewer are not worth a statement that has to be
/// prepared first.
const ROWS_MIN: usize = 4;

/// So far it is looked for what can go together.
const LOOK_MAX: usize = 4 * ROWS_MAX;

/// What goes to the session next.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Next {
    One(Op),
    /// The first two.
    Swap(Swap, [Op; 2]),
    /// So many from the front of the queue: [`Ledger::rows`].
    Several(Run, usize),
}

impl Ledger {
    /// The next to be sent, where there is room for so many. Where there is next to none, answers
    /// are to come, and a long queue waits for them: sent in scraps, it would be put in order for
    /// each of them, and each would be a batch.
    pub(crate) fn next(&mut self, room: usize) -> Option<Next> {
        if self.outbox.len() < ROWS_MIN {
            return self.one_or_two();
        }
        if room < ROWS_MIN {
            return None;
        }
        self.gather();
        let op = *self.outbox.front()?;
        let Some(run) = self.run_of(&op) else { return Some(Next::One(op)) };
        let like = |op: &&Op| self.run_of(op) == Some(run);
        let most = room.min(ROWS_MAX);
        let count = self.outbox.iter().take(most).take_while(like).count();
        if count >= ROWS_MIN {
            return Some(Next::Several(run, count));
        }
        // A try that goes with a release is not one of several.
        let tries = self.outbox.iter().skip(count).take(ROWS_MIN);
        match tries.filter(|op| op.kind == OpKind::Try).count() {
            ..ROWS_MIN => self.one_or_two(),
            _ => Some(Next::One(op)),
        }
    }

    /// A release and the try behind it go together.
    fn one_or_two(&self) -> Option<Next> {
        let first = *self.outbox.front()?;
        if first.kind != OpKind::Release {
            return Some(Next::One(first));
        }
        let second = self.outbox.get(1).filter(|op| op.kind == OpKind::Try);
        Some(second.and_then(|second| self.swap(first, *second)).unwrap_or(Next::One(first)))
    }

    fn swap(&self, first: Op, second: Op) -> Option<Next> {
        let [Key::Bigint(release), Key::Bigint(try_lock)] =
            [first, second].map(|op| self.entries[op.entry as usize].key())
        else {
            return None;
        };
        let request = self.attempted(second.entry)?;
        let is_plain = request.want == Want::Exclusive && !request.fenced;
        is_plain.then_some(Next::Swap(Swap { release, try_lock }, [first, second]))
    }

    /// The keys and numbers of the first `count`.
    pub(crate) fn rows(&self, count: usize) -> impl Iterator<Item = (i64, u64)> + Clone + '_ {
        self.outbox.iter().take(count).filter_map(|op| {
            let (_, key) = Run::of(&self.statement(*op))?;
            Some((key, op.to_number()))
        })
    }

    /// The next statement to send, alone.
    #[cfg(test)]
    pub(crate) fn peek_op(&self) -> Option<(Op, Statement)> {
        let op = *self.outbox.front()?;
        Some((op, self.statement(op)))
    }

    /// Tells that the statement of the first one is on its way.
    pub(crate) fn pop_op(&mut self) {
        let Some(op) = self.outbox.pop_front() else { return };
        self.recovery.resend_at = self.recovery.resend_at.saturating_sub(1);
        self.mark_sent(op, true);
    }

    fn run_of(&self, op: &Op) -> Option<Run> {
        // Anything else need not be made to be looked at.
        match op.kind {
            OpKind::Try | OpKind::Release => Run::of(&self.statement(*op)).map(|(run, _)| run),
            _ => None,
        }
    }

    /// Moves releases before tries, as far as nothing else is between them. A key that is tried is
    /// not held, so that no release is moved before the try of its own key.
    fn gather(&mut self) {
        let front = self.outbox.iter().take(LOOK_MAX);
        let front = front.take_while(|op| self.run_of(op).is_some());
        let [mut plain, mut releases] = [0; 2];
        for op in front {
            plain += 1;
            releases += usize::from(op.kind == OpKind::Release);
        }
        if releases < ROWS_MIN && plain - releases < ROWS_MIN {
            return;
        }
        self.gathered.clear();
        let mut releases = 0;
        for at in 0..plain {
            let op = self.outbox[at];
            if op.kind == OpKind::Release {
                self.outbox[releases] = op;
                releases += 1;
            } else {
                self.gathered.push(op);
            }
        }
        for (at, op) in (releases..).zip(self.gathered.drain(..)) {
            self.outbox[at] = op;
        }
    }
}

/// Room for [`Ledger::gather`].
pub(super) fn gathered() -> Vec<Op> {
    Vec::with_capacity(LOOK_MAX)
}
