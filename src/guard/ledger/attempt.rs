//! How a request gets its key, and how a holder lets go: tries, grants, and hand-overs from one
//! holder to the next.

use std::time::Duration;

use super::tables::{Attempt, End, Held, Request};
use super::{Ledger, Op, OpKind, Sink, Teller, Terms};
use crate::error::Error;
use crate::key::Key;
use crate::slots::{HoldId, Mode, Ticket, Want, Wish};
use crate::token::Token;

/// A key goes from holder to holder within a process for so long, and so often, before other
/// processes get their turn.
const HANDED_FOR: Duration = Duration::from_millis(5);
/// See [`HANDED_FOR`].
const HANDED_MAX: u16 = 256;

impl OpKind {
    /// Whether it may grant the key to the request of the attempt.
    pub(super) fn is_try(self) -> bool {
        matches!(self, Self::Try | Self::Register | Self::Retry | Self::Knock | Self::Token)
    }

    /// Whether it lets go of something, and then looks whether somebody waits.
    pub(super) fn releases(self) -> bool {
        matches!(
            self,
            Self::Release
                | Self::ReleaseShared
                | Self::ReleaseSlot(_)
                | Self::Downgrade
                | Self::OpenGate
        )
    }

    /// What a role does in its place that may not look whether somebody waits, or not tell them:
    /// they find out by polling.
    pub(super) fn plain(self) -> Option<Self> {
        match self {
            Self::Release => Some(Self::Unlock),
            Self::ReleaseShared => Some(Self::UnlockShared),
            Self::ReleaseSlot(slot) => Some(Self::UnlockSlot(slot)),
            // The other half goes out once this one is answered: a client in the server's own queue
            // may be in its way, and would have the key.
            Self::Downgrade => Some(Self::ShareToo),
            Self::OpenGate => Some(Self::DropGate),
            _ => None,
        }
    }

    /// Whether it is one of these, and about the key itself.
    pub(super) fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Unlock
                | Self::UnlockShared
                | Self::UnlockSlot(_)
                | Self::ShareToo
                | Self::ShareOnly
        )
    }
}

/// What the session may do beside letting go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permits {
    /// Look whether somebody waits for a key, and tell them; in each key space, since the functions
    /// that look are not the same.
    may_tell: [bool; 2],
}

impl Permits {
    /// What every role has by default.
    pub(super) const ALL: Self = Self { may_tell: [true; 2] };
}

impl Ledger {
    // ----- what the state of a key allows -----

    /// Whether a sharer may share what the session has. After a while somebody elsewhere may wait
    /// to have the key alone: then it has to be asked.
    pub(super) fn can_join(&self, entry: u32, wish: Wish) -> bool {
        let state = &self.entries[entry as usize];
        self.shares(entry, wish.want)
            && state.attempt.is_none()
            && self.now < state.since.after(HANDED_FOR)
    }

    /// Whether the session shares the key, and the request wants no more.
    pub(super) fn shares(&self, entry: u32, want: Want) -> bool {
        let state = &self.entries[entry as usize];
        want == Want::Shared && state.held == Held::Shared && !state.downgrading
    }

    /// Whether a try makes sense: nothing here excludes it.
    pub(super) fn is_open(&self, entry: u32, want: Want) -> bool {
        let state = &self.entries[entry as usize];
        let is_idle = state.attempt.is_none() && state.retry_at.is_none();
        is_idle && self.leaves_room(entry, want) && !self.is_in_doubt(entry)
    }

    /// Whether a request may have it beside what the session has.
    fn leaves_room(&self, entry: u32, want: Want) -> bool {
        let state = &self.entries[entry as usize];
        match (state.held, want) {
            (Held::Nothing, _) => true,
            (Held::Slots, Want::Slot(count)) => state.holders < u32::from(count),
            (Held::Shared, Want::Shared) => !state.downgrading,
            _ => false,
        }
    }

    /// Whether a request that does not want to wait may see what becomes of the try that is under
    /// way: where that is granted, it may be, too.
    pub(super) fn goes_along(&self, entry: u32, wish: Wish) -> bool {
        let state = &self.entries[entry as usize];
        let is_plural = |want| matches!(want, Want::Shared | Want::Slot(_));
        state.attempt.is_trying()
            && is_plural(wish.want)
            && self.attempted(entry).is_some_and(|request| is_plural(request.want))
            && self.last(entry).is_none_or(|last| last.mode != Mode::Wait)
    }

    /// Whether a request that does not want to wait went along with a try which has left nothing
    /// for it.
    fn is_left_out(&self, entry: u32, request: &Request) -> bool {
        let is_through = self.entries[entry as usize].attempt.is_none();
        is_through && request.mode != Mode::Wait && !self.leaves_room(entry, request.want)
    }

    // ----- trying -----

    pub(super) fn begin_try(&mut self, entry: u32, ticket: Ticket, sink: &mut impl Sink) {
        let request = &self.requests[ticket.slot as usize];
        let state = &self.entries[entry as usize];
        let may_wait = request.mode == Mode::Wait && request.want == Want::Exclusive;
        let wants_gate = may_wait && state.listed && !state.gate;
        let kind = match wants_gate {
            _ if self.shares(entry, request.want) => OpKind::Knock,
            true => OpKind::Retry,
            false => OpKind::Try,
        };
        self.begin(kind, entry, ticket, sink);
    }

    /// Makes an attempt for a request.
    pub(super) fn begin(&mut self, kind: OpKind, entry: u32, ticket: Ticket, sink: &mut impl Sink) {
        if self.locks_used >= self.limits.locks {
            let error = Error::TooManyLocks { limit: self.limits.locks };
            return self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        }
        if self.entries[entry as usize].listed {
            // It may have rested until now.
            self.listen(entry);
        }
        self.locks_used += 1;
        self.active += 1;
        let state = &mut self.entries[entry as usize];
        state.attempt(ticket);
        state.notified = false;
        self.push_op(Op::new(kind, entry));
    }

    /// The attempt is through.
    pub(super) fn end_attempt(&mut self, entry: u32) {
        self.entries[entry as usize].attempt = Attempt::None;
        self.locks_used -= 1;
        self.active -= 1;
    }

    /// Starts what the first of the queue can have now, and the next.
    pub(super) fn advance(&mut self, entry: u32, sink: &mut impl Sink) {
        while self.online {
            let Some((ticket, request)) = self.first(entry) else { return };
            let wish = Wish { want: request.want, fenced: request.fenced };
            if self.can_join(entry, wish) {
                self.dequeue(ticket.slot);
                self.join(entry, ticket, sink);
            } else if self.is_open(entry, wish.want) && !self.waits_for_release(entry) {
                self.dequeue(ticket.slot);
                self.begin_try(entry, ticket, sink);
            } else if self.is_left_out(entry, request) {
                self.dequeue(ticket.slot);
                self.conclude(ticket, sink, |sink| sink.refused(ticket));
            } else {
                return;
            }
        }
    }

    // ----- granting -----

    /// The server has granted the key to the request that is being tried.
    pub(super) fn granted(
        &mut self,
        entry: u32,
        slot: u16,
        token: Option<Token>,
        sink: &mut impl Sink,
    ) {
        let Some(ticket) = self.entries[entry as usize].attempted() else { return };
        let request = &self.requests[ticket.slot as usize];
        let held = match request.want {
            Want::Exclusive => Held::Exclusive,
            Want::Shared => Held::Shared,
            Want::Slot(_) => Held::Slots,
        };
        self.end_attempt(entry);
        if self.entries[entry as usize].listed && held == Held::Exclusive {
            self.has_its_turn(entry);
            self.stay(entry);
        }
        let state = &mut self.entries[entry as usize];
        state.held = held;
        state.refusals = 0;
        state.probed = 0;
        state.notified = false;
        state.heard = 0;
        self.locks_used += 1;
        self.hand(entry, slot, ticket, token, sink);
        // Also where the requester has gone: those who came along wait for what became of this try.
        self.advance(entry, sink);
    }

    /// Gives a hold to a request, which may have gone: then it is let go of (I3).
    fn hand(
        &mut self,
        entry: u32,
        slot: u16,
        ticket: Ticket,
        token: Option<Token>,
        sink: &mut impl Sink,
    ) {
        let (hold, wanted) = self.offer(entry, slot, ticket, token, sink);
        if !wanted {
            self.let_go(hold, None, sink);
        }
    }

    /// Makes a hold and offers it to a request; says whether that is still there.
    fn offer(
        &mut self,
        entry: u32,
        slot: u16,
        ticket: Ticket,
        token: Option<Token>,
        sink: &mut impl Sink,
    ) -> (HoldId, bool) {
        let index = self.new_hold(entry, slot);
        let id = HoldId { index, generation: self.holds[index as usize].generation };
        let terms = Terms { token, since: self.entries[entry as usize].since };
        let mut wanted = false;
        self.conclude(ticket, sink, |sink| wanted = sink.granted(ticket, id, terms));
        (id, wanted)
    }

    /// One more sharer of what the session shares already.
    pub(super) fn join(&mut self, entry: u32, ticket: Ticket, sink: &mut impl Sink) {
        if self.locks_used >= self.limits.locks {
            let error = Error::TooManyLocks { limit: self.limits.locks };
            return self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        }
        let (hold, wanted) = self.offer(entry, 0, ticket, None, sink);
        if wanted {
            self.locks_used += 1;
        } else {
            // The session had it before, and has it still.
            self.drop_hold(hold.index);
        }
    }

    // ----- letting go -----

    /// A holder lets go: the hold goes to the next one here, or back to the server, and right
    /// behind it the try of the first waiter.
    pub(super) fn let_go(&mut self, id: HoldId, teller: Option<Ticket>, sink: &mut impl Sink) {
        let hold = self.drop_hold(id.index);
        let entry = hold.entry;
        sink.released(id);
        let state = &self.entries[entry as usize];
        let is_shared_still = state.held == Held::Shared && state.holders > 0;
        if is_shared_still {
            self.locks_used -= 1;
        }
        if is_shared_still || self.hand_over(entry, hold.slot, sink) {
            if let Some(ticket) = teller {
                self.conclude(ticket, sink, |sink| sink.done(ticket));
            }
            self.settle(entry);
            return self.drop_if_unused(entry);
        }
        self.active += u32::from(teller.is_some());
        if self.entries[entry as usize].downgrading {
            return self.owed.push((entry, teller));
        }
        self.give_back(entry, hold.slot, teller);
        // Of a counted lock, somebody may wait for what others hold while this one is let go.
        self.stop_cooling(entry);
        self.advance(entry, sink);
        self.settle(entry);
    }

    /// Releases what the session has of a key whose last holder let go, or one slot.
    pub(super) fn give_back(&mut self, entry: u32, slot: u16, teller: Option<Ticket>) {
        let state = &mut self.entries[entry as usize];
        let kind = match state.held {
            Held::Exclusive | Held::Nothing => OpKind::Release,
            Held::Shared => OpKind::ReleaseShared,
            Held::Slots => OpKind::ReleaseSlot(slot),
        };
        if state.holders == 0 {
            state.held = Held::Nothing;
        }
        state.releasing += 1;
        state.handed = 0;
        // Of a counted lock, `since` may be about another slot than this one.
        let was_long = self.now >= state.since.after(HANDED_FOR) || state.holders > 0;
        state.was_long = was_long || state.was_long && state.releasing > 1;
        self.locks_used -= 1;
        if let Some(ticket) = teller {
            self.tellers.push_back(Teller { entry, slot, downgrades: false, ticket });
        }
        self.push_op(Op { kind, tells: teller.is_some(), entry });
    }

    /// The form of a statement that the session may run.
    pub(super) fn permitted(&self, op: Op) -> Op {
        // Nearly every role may do all, which is quickly said.
        if self.permits.may_tell == [true; 2] || !op.kind.releases() || self.may_tell(op.entry) {
            return op;
        }
        Op { kind: op.kind.plain().unwrap_or(op.kind), ..op }
    }

    /// What lets go was denied. Permissions are looked at before anything is run, so that nothing
    /// was let go of: it goes back in the plain way, in the place of the other.
    ///
    /// What all of them do beside it is denied from now on, too: to ask for it again would fail a
    /// batch each time. A downgrade may have been denied for its own sake.
    pub(super) fn let_go_denied(&mut self, op: Op) {
        let Some(kind) = op.kind.plain() else { return };
        if op.kind != OpKind::Downgrade {
            self.tell_no_more(&[self.space_of(op.entry)]);
        }
        self.entries[op.entry as usize].ops += 1;
        self.resend(Op { kind, ..op });
    }

    /// What is queued goes the plain way, too. Of those who are to be woken nobody is: that is
    /// denied once more at most, and what is skipped then is dropped.
    pub(super) fn tell_no_more(&mut self, spaces: &[usize]) {
        for space in spaces {
            self.permits.may_tell[*space] = false;
        }
        for at in 0..self.outbox.len() {
            self.outbox[at] = self.permitted(self.outbox[at]);
        }
    }

    /// Lets go once more of what may not have been let go of; nothing else of the key is under way.
    pub(super) fn make_sure(&mut self, entry: u32) {
        for at in 0..self.doubts.len() {
            let doubt = self.doubts[at];
            if doubt.entry == entry && !doubt.sent && !self.has_again(doubt) {
                self.doubts[at].sent = true;
                self.push_op(Op { kind: doubt.kind, tells: doubt.tells, entry });
            }
        }
    }

    /// Who waits may not have been told, or too early.
    pub(super) fn wake(&mut self, entry: u32) {
        if self.may_tell(entry) {
            self.push_op(Op::new(OpKind::Wake, entry));
        }
    }

    pub(super) fn may_tell(&self, entry: u32) -> bool {
        self.permits.may_tell[self.space_of(entry)]
    }

    fn space_of(&self, entry: u32) -> usize {
        usize::from(matches!(self.entries[entry as usize].key(), Key::Pair(..)))
    }

    /// Hands a hold that was let go to the first of the queue, if that one wants the same, and
    /// other processes have not waited for too long. The server does not hear of it.
    fn hand_over(&mut self, entry: u32, slot: u16, sink: &mut impl Sink) -> bool {
        loop {
            let state = &self.entries[entry as usize];
            let is_over = state.handed >= HANDED_MAX || self.now >= state.since.after(HANDED_FOR);
            if !self.online || is_over || state.downgrading || !state.attempt.is_none() {
                return false;
            }
            let held = state.held;
            let Some((ticket, request)) = self.first(entry) else { return false };
            let is_same = match (held, request.want) {
                (Held::Exclusive, Want::Exclusive) => true,
                (Held::Slots, Want::Slot(count)) => slot < count,
                _ => false,
            };
            if !is_same {
                return false;
            }
            let fenced = request.fenced;
            self.dequeue(ticket.slot);
            let state = &mut self.entries[entry as usize];
            state.handed += 1;
            state.heard = 0;
            if fenced {
                // A token of its own is the server's to give, while the key stays ours.
                self.active += 1;
                state.attempt(ticket);
                self.push_op(Op::new(OpKind::Token, entry));
                return true;
            }
            let (hold, wanted) = self.offer(entry, slot, ticket, None, sink);
            if wanted {
                return true;
            }
            self.drop_hold(hold.index);
        }
    }

    // ----- refusals -----

    /// Somebody else has the key: who does not want to wait hears of it, the others wait.
    pub(super) fn refuse(&mut self, entry: u32, sink: &mut impl Sink) {
        let Some(ticket) = self.entries[entry as usize].attempted() else { return };
        self.end_attempt(entry);
        while let Some((along, Mode::Try | Mode::InTurn)) =
            self.first(entry).map(|(ticket, first)| (ticket, first.mode))
        {
            self.dequeue(along.slot);
            self.conclude(along, sink, |sink| sink.refused(along));
        }
        let request = &self.requests[ticket.slot as usize];
        let want = request.want;
        if request.mode != Mode::Wait || request.abandoned {
            self.conclude(ticket, sink, |sink| sink.refused(ticket));
        } else if !request.waits && self.waiting >= self.limits.waiters {
            let error = Error::TooManyWaiters { limit: self.limits.waiters };
            self.conclude(ticket, sink, |sink| sink.failed(ticket, error));
        } else {
            self.enqueue(entry, ticket.slot, End::Front);
        }
        match self.first(entry) {
            None => {}
            // The one behind who has gone wants something else, and may have it.
            Some((_, first)) if first.want != want => self.advance(entry, sink),
            Some(_) => self.wait_elsewhere(entry, sink),
        }
    }
}

/// Whether the role may not do what was asked for.
pub(super) fn is_denied(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.as_str() == "42501")
}
