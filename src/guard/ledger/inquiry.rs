//! Asking the server who holds a key, and who waits for it. It changes nothing here: of the key's
//! entry it needs the number, and that it stays until the answer is in.

use super::op::parameters;
use super::tables::NONE;
use super::{Disagreement, Ledger, Op, OpKind, Sink};
use crate::error::Error;
use crate::key::Key;
use crate::proto::listing::Listing;
use crate::proto::statement::Statement;
use crate::slots::{Mode, Ticket, Wish};

impl Ledger {
    /// Asks who holds a key.
    pub(crate) fn inquire(&mut self, ticket: Ticket, key: Key, sink: &mut impl Sink) {
        let Some(entry) = self.entry_of(key, false) else {
            let limit = self.limits.requests;
            return sink.failed(ticket, Error::TooManyRequests { limit });
        };
        self.enter(ticket, entry, Wish::PLAIN, Mode::Try);
        self.active += 1;
        self.entries[entry as usize].ops += 1;
        self.push_op(Op::new(OpKind::Inquire, ticket.slot));
    }

    /// The answer to it.
    ///
    /// # Errors
    ///
    /// When nobody has asked.
    pub(crate) fn inquiry_answered(
        &mut self,
        op: Op,
        listing: Box<Listing>,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.end_inquiry(op, sink, |sink, ticket| sink.listed(ticket, listing))
    }

    /// The server does not say.
    pub(super) fn inquiry_failed(
        &mut self,
        op: Op,
        error: Error,
        sink: &mut impl Sink,
    ) -> Result<(), Disagreement> {
        self.end_inquiry(op, sink, |sink, ticket| sink.failed(ticket, error))
    }

    fn end_inquiry<S: Sink>(
        &mut self,
        op: Op,
        sink: &mut S,
        tell: impl FnOnce(&mut S, Ticket),
    ) -> Result<(), Disagreement> {
        let (ticket, entry) = self.inquirer(op).ok_or(Disagreement)?;
        let ops = &mut self.entries[entry as usize].ops;
        *ops = ops.saturating_sub(1);
        self.active -= 1;
        self.conclude(ticket, sink, |sink| tell(sink, ticket));
        self.drop_if_unused(entry);
        Ok(())
    }

    /// What is sent for it.
    pub(super) fn inquiry(&self, op: Op) -> Statement {
        let entry = self.inquirer(op).and_then(|(_, entry)| self.entries.get(entry as usize));
        Statement::Holders(parameters(entry.map_or(Key::Bigint(0), |entry| entry.key())))
    }

    /// Who has asked, and the entry of the key.
    fn inquirer(&self, op: Op) -> Option<(Ticket, u32)> {
        let request = self.requests.get(op.entry as usize)?;
        let ticket = Ticket { slot: op.entry, generation: request.generation };
        (request.entry != NONE).then_some((ticket, request.entry))
    }
}
