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
    /// Keys for which a registration of that batch is not made again: neither is it taken back.
    not_enlisted: Vec<u32>,
}

impl Ledger {
    /// A statement was not run, because one before it in its batch failed: send it again, before
    /// everything that is newer.
    pub(crate) fn skipped(&mut self, mut op: Op) {
        let is_moot = match op.kind {
            // It was taken back meanwhile: sent now, it would come behind that.
            OpKind::Enlist => !self.is_still_to_enlist(op.entry),
            // What is to be taken back was not made. A later one, which may be on its way, stands.
            OpKind::Delist => self.was_not_enlisted(op.entry),
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
        if matches!(op.kind, OpKind::Listen | OpKind::Enlist) {
            self.hears_late(op);
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

    /// What was let go of before the session is registered, or listens, has notified it of nothing:
    /// who was tried before that, in the next batch, and was refused, tries once more behind it.
    fn hears_late(&mut self, op: Op) {
        let entries = match op.kind {
            OpKind::Listen => 0..self.entries.len() as u32,
            _ => op.entry..op.entry + 1,
        };
        for entry in entries {
            let is_of_channel =
                op.kind != OpKind::Listen || u32::from(self.channel_of(entry)) == op.entry;
            let state = &mut self.entries[entry as usize];
            state.notified |= is_of_channel && state.attempt == Attempt::Sent;
        }
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
            self.recovery.not_enlisted.push(entry);
            return false;
        }
        true
    }

    fn was_not_enlisted(&mut self, entry: u32) -> bool {
        let known = &mut self.recovery.not_enlisted;
        let at = known.iter().position(|known| *known == entry);
        at.map(|at| known.swap_remove(at)).is_some()
    }

    /// A batch is through. If it was not committed as a whole, who was to be notified was not:
    /// they are notified once more.
    pub(crate) fn synced(&mut self) {
        let failed = std::mem::take(&mut self.recovery.has_failed);
        self.recovery.not_enlisted.clear();
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
