//! What a batch that has failed leaves to be done again: the statements behind the one that failed
//! were skipped, and nobody was notified.

use super::tables::{Attempt, Held};
use super::{Ledger, Op, OpKind};

#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Whether a statement of the batch that is being answered has failed.
    pub(super) has_failed: bool,
    /// Where the next skipped statement goes: before everything newer, behind its elders.
    pub(super) resend_at: usize,
}

impl Ledger {
    /// A statement was not run, because one before it in its batch failed: send it again, before
    /// everything that is newer.
    pub(crate) fn skipped(&mut self, mut op: Op) {
        let is_moot = match op.kind {
            // It was taken back meanwhile: sent now, it would come behind that.
            OpKind::Enlist => !self.is_still_to_enlist(op.entry),
            OpKind::Wake => !self.may_tell(op.entry),
            // Made anew: a slot that was held then may be let go of by now.
            OpKind::Clear(_) => {
                self.entries[op.entry as usize].attempt = Attempt::Failed;
                true
            }
            _ => false,
        };
        if is_moot {
            self.finish_op(op);
            return self.drop_if_unused(op.entry);
        }
        let is_untold = op.kind == OpKind::DropGate && !self.is_made_sure(op);
        if is_untold && self.entries[op.entry as usize].held != Held::Exclusive {
            // The release that was to tell the sharers may be through already.
            op.kind = OpKind::OpenGate;
        }
        let op = self.permitted(op);
        self.mark_sent(op, false);
        self.resend(op);
    }

    /// Whether nothing may be sent just now: a statement has failed, and which ones behind it were
    /// skipped is known only once their Sync is answered.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovery.has_failed
    }

    /// Whether a registration that was skipped is still wanted, and no later one is under way.
    fn is_still_to_enlist(&mut self, entry: u32) -> bool {
        let state = &mut self.entries[entry as usize];
        let is_last = state.enlisting == 1;
        if !is_last || !state.listed {
            state.enlisting = state.enlisting.saturating_sub(1);
        }
        is_last && state.listed
    }

    /// A batch is through. If it was not committed as a whole, who was to be notified was not:
    /// they are notified once more.
    pub(crate) fn synced(&mut self) {
        let failed = std::mem::take(&mut self.recovery.has_failed);
        while let Some(entry) = self.told.pop() {
            self.entries[entry as usize].ops -= 1;
            if failed && self.online {
                self.push_op(Op::new(OpKind::Wake, entry));
            }
            self.drop_if_unused(entry);
        }
    }

    /// A batch's commit failed, so that nobody was notified; to try again would fail again (the
    /// server's queue of notifications is full). Waiters find out by themselves.
    pub(crate) fn commit_failed(&mut self) {
        self.recovery.has_failed = false;
    }

    /// Puts a statement before everything that is newer, behind its elders that go out again.
    pub(super) fn resend(&mut self, op: Op) {
        self.outbox.insert(self.recovery.resend_at.min(self.outbox.len()), op);
        self.recovery.resend_at += 1;
    }
}
