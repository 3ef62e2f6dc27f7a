//! What the server's answers lead to.

use super::attempt::is_denied;
use super::tables::{Attempt, Doubt, Held, NONE};
use super::{Disagreement, Ledger, Op, OpKind, Sink, TOLD_MAX};
use crate::error::{Error, SqlState};
use crate::proto::statement::Value;
use crate::slots::{Ticket, Want};
use crate::token::Token;

impl Ledger {
    /// A statement was answered.
    ///
    /// # Errors
    ///
    /// When the answer contradicts the ledger.
    pub(crate) fn answered(
        &mut self,
        op: Op,
        value: Value,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.finish_op(op);
        if !op.is_about_key() {
            return Ok(());
        }
        let entry = op.entry;
        match op.kind {
            kind if kind.is_try() => self.tried(kind, entry, value, sink)?,
            OpKind::Release | OpKind::ReleaseShared | OpKind::ReleaseSlot(_) => {
                self.released(op, value, sink)?;
            }
            _ if self.is_made_sure(op) => self.made_sure(op, sink)?,
            OpKind::ShareToo if value == Value::Yes => {
                self.push_op(Op { kind: OpKind::ShareOnly, ..op });
            }
            OpKind::ShareToo => {
                // What the session shares it could share again.
                self.doubts.retain(|doubt| !doubt.is_of(entry, OpKind::UnlockShared));
                let key = self.entries[entry as usize].key();
                self.not_downgraded(op, &Error::QueuedFor { key }, sink);
            }
            OpKind::ShareOnly if self.doubts_about(entry, OpKind::UnlockShared) => {
                self.wake(entry);
                self.downgraded(op, sink)?;
            }
            kind if kind.is_plain() && value != Value::Yes => return Err(Disagreement),
            OpKind::ShareOnly => self.downgraded(op, sink)?,
            kind if kind.is_plain() => self.released(op, Value::Quiet, sink)?,
            OpKind::Downgrade if value == Value::Waits => {
                let key = self.entries[entry as usize].key();
                self.not_downgraded(op, &Error::QueuedFor { key }, sink);
            }
            OpKind::Downgrade => {
                self.note_told(entry, value)?;
                self.downgraded(op, sink)?;
            }
            OpKind::OpenGate => self.note_told(entry, value)?,
            // The gate is ours from the answer that says so until it is dropped, once; an opening
            // that was denied has not been run. What has taken it away would take the key as well.
            OpKind::DropGate if value != Value::Yes => return Err(Disagreement),
            OpKind::Clear(_) => self.cleared(entry, value, sink)?,
            OpKind::Enlist => self.enlisted(entry, value),
            OpKind::Wake => self.track(entry),
            // Whether it was registered matters to nobody any more.
            _ => {}
        }
        self.settle(entry);
        self.drop_if_unused(entry);
        Ok(())
    }

    fn tried(
        &mut self,
        kind: OpKind,
        entry: u32,
        value: Value,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        let state = &mut self.entries[entry as usize];
        let (true, Some(ticket)) = (state.attempt.is_trying(), state.attempted()) else {
            return Err(Disagreement);
        };
        let is_registering = kind == OpKind::Register;
        match value {
            Value::Probed if is_registering => state.probed += 1,
            Value::WaitsGated => state.gate = true,
            _ => {}
        }
        if is_registering && value != Value::Probed {
            self.listed(entry);
        }
        if kind == OpKind::Knock && value == Value::Yes {
            self.push_op(Op::new(OpKind::Unknock, entry));
            if self.entries[entry as usize].held != Held::Shared {
                // The last of those to share with has let go in the meantime.
                self.push_op(Op::new(OpKind::Try, entry));
                return Ok(());
            }
        }
        let (slot, token) = match value {
            Value::Yes | Value::Granted => (0, None),
            Value::Slot(slot) => (slot, None),
            Value::Token(Some(token)) => (0, Some(Token::from(token))),
            Value::Token(None) if kind == OpKind::Token => return Err(Disagreement),
            Value::No | Value::Waits | Value::WaitsGated | Value::Probed | Value::Token(None) => {
                self.refuse(entry, sink);
                return Ok(());
            }
            Value::Quiet | Value::Told | Value::Done => return Err(Disagreement),
        };
        let state = &mut self.entries[entry as usize];
        if self.requests[ticket.slot as usize].fenced && token.is_none() {
            // Granted by the registration, which gives none.
            state.held = Held::Exclusive;
            state.since = self.now;
            state.handed = 0;
            self.push_op(Op::new(OpKind::Token, entry));
            return Ok(());
        }
        if kind != OpKind::Token {
            state.since = self.now;
            // While other slots are held here, nothing was offered to other processes.
            state.handed = if state.holders == 0 { 0 } else { state.handed };
        }
        self.granted(entry, slot, token, sink);
        Ok(())
    }

    fn released(&mut self, op: Op, value: Value, sink: &mut impl Sink) -> Result<(), Disagreement> {
        if op.tells {
            self.tell(op, sink)?;
        }
        let state = &mut self.entries[op.entry as usize];
        state.releasing = state.releasing.saturating_sub(1);
        self.note_told(op.entry, value)?;
        // Who was refused in the meantime may have it now.
        self.stop_cooling(op.entry);
        self.end_stay(op.entry, value == Value::Told);
        match value {
            Value::Told => self.yield_to_others(op.entry),
            _ => self.advance(op.entry, sink),
        }
        Ok(())
    }

    fn downgraded(&mut self, op: Op, sink: &mut impl Sink) -> Result<(), Disagreement> {
        let entry = op.entry;
        self.tell(op, sink)?;
        // It may have been asked for again meanwhile.
        while self.tellers.iter().any(|teller| teller.is_of(op)) {
            self.tell(op, sink)?;
        }
        self.end_downgrade(entry, sink);
        Ok(())
    }

    /// The key is held alone as before.
    fn not_downgraded(&mut self, op: Op, error: &Error, sink: &mut impl Sink) {
        while let Some(ticket) = self.take_teller(op) {
            self.conclude(ticket, sink, |sink| sink.failed(ticket, error.clone()));
        }
        self.entries[op.entry as usize].held = Held::Exclusive;
        self.end_downgrade(op.entry, sink);
    }

    fn end_downgrade(&mut self, entry: u32, sink: &mut impl Sink) {
        self.entries[entry as usize].downgrading = false;
        if let Some(at) = self.owed.iter().position(|(of, _)| *of == entry) {
            let (_, teller) = self.owed.swap_remove(at);
            self.give_back(entry, 0, teller);
        }
        self.advance(entry, sink);
    }

    /// What lets go has failed, and may have done so before, or after: while it looked whether
    /// somebody waits, which takes room in the server's lock table. The error does not tell; 53200
    /// is that of a full lock table, and of a backend without memory for anything.
    ///
    /// So the session may have the key once more than is known here. One more unlock makes sure,
    /// and either answer to it is right. It must not meet what somebody else here has of the key:
    /// it goes out while nothing of the key is held or under way, and no try begins before it is
    /// answered. A try that was under way already may be granted to a session that has the key
    /// still, so it does not tell either: then that hold is released first.
    fn let_go_in_doubt(&mut self, op: Op, sink: &mut impl Sink) -> Result<(), Disagreement> {
        let entry = op.entry;
        let kind = op.kind.plain().ok_or(Disagreement)?;
        let mut doubt = Doubt { entry, kind, tells: op.tells, sent: false };
        match op.kind {
            OpKind::Downgrade => {
                // Held alone, shared, or both: so it is shared, perhaps twice, until it is let go.
                self.doubts.push(Doubt { kind: OpKind::UnlockShared, tells: false, ..doubt });
                self.entries[entry as usize].ops += 1;
                self.resend(Op { kind, ..op });
                return Ok(());
            }
            OpKind::OpenGate => {}
            _ => {
                let state = &mut self.entries[entry as usize];
                state.releasing = state.releasing.saturating_sub(1);
            }
        }
        let state = &self.entries[entry as usize];
        let has_again = !state.attempt.is_none() || self.has_again(doubt);
        if has_again || state.ops > 0 {
            self.wake(entry);
        }
        // The key is asked for here again, or held: nobody has to wait until that is over.
        if has_again && std::mem::take(&mut doubt.tells) {
            self.tell(op, sink)?;
        }
        self.doubts.push(doubt);
        // Who waited for the answer, and may have what is not in doubt.
        self.stop_cooling(entry);
        self.yield_to_others(entry);
        self.settle(entry);
        self.drop_if_unused(entry);
        Ok(())
    }

    fn made_sure(&mut self, op: Op, sink: &mut impl Sink) -> Result<(), Disagreement> {
        let is_it = |doubt: &Doubt| doubt.sent && doubt.is_of(op.entry, op.kind);
        let at = self.doubts.iter().position(is_it).ok_or(Disagreement)?;
        self.doubts.swap_remove(at);
        if op.tells {
            self.tell(op, sink)?;
        }
        // Sent along, it might get ahead: the unlock may be skipped, and go out again.
        self.wake(op.entry);
        self.stop_cooling(op.entry);
        self.yield_to_others(op.entry);
        Ok(())
    }

    /// Gives back whatever a failed try may have taken, once nothing else of the key is under way:
    /// a release that was skipped goes out again, and would find that let go of.
    pub(super) fn clear_up(&mut self, entry: u32) {
        let want = self.attempted(entry).map_or(Want::Exclusive, |request| request.want);
        let state = &mut self.entries[entry as usize];
        if state.attempt == Attempt::Failed && state.ops == 0 {
            state.attempt = Attempt::Reconciling;
            self.push_op(Op::new(OpKind::Clear(want), entry));
        }
    }

    fn enlisted(&mut self, entry: u32, value: Value) {
        let state = &mut self.entries[entry as usize];
        state.enlisting = state.enlisting.saturating_sub(1);
        // A later one has been taken back and made anew: that one says how it is.
        if value == Value::No && state.enlisting == 0 {
            self.unlisted(entry);
        }
    }

    /// Answers who waits for a release or a downgrade.
    fn tell(&mut self, op: Op, sink: &mut impl Sink) -> Result<(), Disagreement> {
        let ticket = self.take_teller(op).ok_or(Disagreement)?;
        self.conclude(ticket, sink, |sink| sink.done(ticket));
        Ok(())
    }

    fn take_teller(&mut self, op: Op) -> Option<Ticket> {
        let position = self.tellers.iter().position(|teller| teller.is_of(op))?;
        let teller = self.tellers.remove(position)?;
        self.active -= 1;
        Some(teller.ticket)
    }

    /// Remembers whether others wait for the key, and whom a failure of this batch would leave
    /// without their notification.
    fn note_told(&mut self, entry: u32, value: Value) -> Result<(), Disagreement> {
        let state = &mut self.entries[entry as usize];
        match value {
            Value::Told => {
                self.rivals.told(state.key(), self.now);
                self.track(entry);
            }
            Value::Quiet => self.rivals.quiet(state.key()),
            _ => return Err(Disagreement),
        }
        Ok(())
    }

    /// Remembers that waiters of a key are notified with this batch.
    fn track(&mut self, entry: u32) {
        if self.told.len() < TOLD_MAX {
            self.entries[entry as usize].ops += 1;
            self.told.push(entry);
        }
    }

    fn cleared(
        &mut self,
        entry: u32,
        value: Value,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        let state = &self.entries[entry as usize];
        let (Attempt::Reconciling, Some(ticket)) = (state.attempt, state.attempted()) else {
            return Err(Disagreement);
        };
        let at = self.failures.iter().position(|(of, _)| *of == entry).ok_or(Disagreement)?;
        let (_, error) = self.failures.swap_remove(at);
        self.end_attempt(entry);
        self.unlisted(entry);
        let state = &mut self.entries[entry as usize];
        state.gate = false;
        if state.holders == 0 {
            state.held = Held::Nothing;
        }
        match value {
            // Others may have found it taken.
            Value::Told => self.wake(entry),
            Value::Quiet => {}
            _ => return Err(Disagreement),
        }
        self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        self.advance(entry, sink);
        Ok(())
    }

    /// A statement failed. For a try, nothing is known of the lock: it is unlocked before the
    /// requester is told (I2).
    ///
    /// # Errors
    ///
    /// When what was to make sure that nothing is left has failed, so that a lock may be left that
    /// nobody owns.
    pub(crate) fn failed(
        &mut self,
        op: Op,
        error: Error,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.recovery.has_failed = true;
        self.finish_op(op);
        match op.kind {
            OpKind::Listen => {
                self.hear_no_more(op.entry);
                return Ok(());
            }
            OpKind::Unlisten => return Ok(()),
            OpKind::Inquire => return self.inquiry_failed(op, error, sink),
            _ => {}
        }
        let entry = op.entry;
        let error = match error.sqlstate() {
            Some(SqlState::OUT_OF_MEMORY) => {
                Error::LockTableFull { key: self.entries[entry as usize].key() }
            }
            _ => error,
        };
        if op.kind == OpKind::Knock {
            return self.knock_failed(entry, error, sink);
        }
        let is_denied = is_denied(&error);
        let state = &mut self.entries[entry as usize];
        match (op.kind, state.attempt) {
            (kind, Attempt::Trying | Attempt::Sent) if kind.is_try() => {
                state.attempt = Attempt::Failed;
                self.failures.push((entry, error));
            }
            (kind, _) if kind.releases() && is_denied => self.let_go_denied(op),
            (OpKind::ShareToo, _) if is_denied => self.not_downgraded(op, &error, sink),
            (kind, _) if kind.releases() => self.let_go_in_doubt(op, sink)?,
            (OpKind::Enlist, _) => {
                // It may be registered all the same.
                self.enlisted(entry, Value::No);
                if !self.entries[entry as usize].listed {
                    self.push_op(Op::new(OpKind::Delist, entry));
                }
            }
            (OpKind::Wake, _) if is_denied => self.tell_no_more(&[0, 1]),
            (OpKind::Wake, _) => {}
            _ => return Err(Disagreement),
        }
        self.drop_if_unused(entry);
        Ok(())
    }

    /// What it may have left at the gate is taken back; the key itself it has not touched.
    fn knock_failed(
        &mut self,
        entry: u32,
        error: Error,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.push_op(Op::new(OpKind::Unknock, entry));
        let ticket = self.entries[entry as usize].attempted().ok_or(Disagreement)?;
        self.end_attempt(entry);
        self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        self.advance(entry, sink);
        self.settle(entry);
        Ok(())
    }

    pub(super) fn mark_sent(&mut self, op: Op, value: bool) {
        if !op.is_about_key() {
            return;
        }
        let attempt = &mut self.entries[op.entry as usize].attempt;
        if op.kind.is_try() && attempt.is_trying() {
            *attempt = if value { Attempt::Sent } else { Attempt::Trying };
        }
    }

    /// Brings what the server has beside a key in line with who waits for it here.
    pub(super) fn settle(&mut self, entry: u32) {
        if !self.online {
            return;
        }
        if self.entries[entry as usize].head == NONE {
            self.stop_cooling(entry);
        }
        let is_idle = self.entries[entry as usize].attempt.is_none();
        let first_is_exclusive =
            self.first(entry).is_some_and(|(_, request)| request.want == Want::Exclusive);
        let state = &mut self.entries[entry as usize];
        let has_it_alone = state.held == Held::Exclusive;
        if state.gate && is_idle && (has_it_alone || !first_is_exclusive) {
            state.gate = false;
            // The release of who has it alone will tell the sharers.
            let kind = if has_it_alone { OpKind::DropGate } else { OpKind::OpenGate };
            self.push_op(Op::new(kind, entry));
        }
        let state = &mut self.entries[entry as usize];
        if is_idle && state.head == NONE {
            state.heard = 0;
            if state.listed && !self.stays(entry) {
                self.unlisted(entry);
                self.push_op(Op::new(OpKind::Delist, entry));
            }
        }
    }
}
