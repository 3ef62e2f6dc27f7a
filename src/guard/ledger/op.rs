//! The ledger's statements, and the numbers that stand for them in the session.

use super::Ledger;
use crate::key::Key;
use crate::proto::companion;
use crate::proto::frontend::KeyParameters;
use crate::proto::statement::{SLOT_BYTES, Slots, Statement};
use crate::slots::Want;

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpKind {
    /// Try for the request that is being tried, in the way that it wants the key.
    Try,
    /// Register as a waiter, and try once more.
    Register,
    /// A registered waiter's next try, which takes the gate if it fails.
    Retry,
    /// Look whether the gate is open, for one more sharer of what the session has shared for long.
    Knock,
    /// Take back what that has left at the gate.
    Unknock,
    /// A fencing token for a key that is ours already.
    Token,
    /// Release an exclusive hold; anything but a release is a broken invariant.
    Release,
    /// Release an exclusive hold without a look for waiters, which this role may not take.
    Unlock,
    /// The same with the last shared hold.
    UnlockShared,
    /// The same with a slot.
    UnlockSlot(u16),
    /// For such a role, the first half of a downgrade: share what is held alone.
    ShareToo,
    /// The second half: let go of what was held alone. Somebody waits for the answer.
    ShareOnly,
    /// Release the last shared hold.
    ReleaseShared,
    /// Release a slot.
    ReleaseSlot(u16),
    /// Make an exclusive hold a shared one; somebody waits for the answer.
    Downgrade,
    /// After a failure: let go of whatever the failed try may have taken (I2). Tells nobody.
    Clear(Want),
    /// Register as a waiter without trying; if that fails, the key is polled.
    Enlist,
    /// Wait no more.
    Delist,
    /// Let sharers in again, and tell them.
    OpenGate,
    /// The same, when a release will tell them.
    DropGate,
    /// Tell those who wait once more.
    Wake,
    /// Listen to a channel, whose number is in the place of the entry.
    Listen,
    /// No more.
    Unlisten,
    /// Ask who holds a key. The number of the slot that asks is in the place of the entry.
    Inquire,
}

/// A statement to send. The number goes through the session as its ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: OpKind,
    /// Whether somebody waits for the answer: to a release, that is.
    pub(crate) tells: bool,
    pub(super) entry: u32,
}

impl Op {
    pub(super) fn new(kind: OpKind, entry: u32) -> Self {
        Self { kind, tells: false, entry }
    }

    /// The number that goes through the session with the statement.
    pub(crate) fn to_number(self) -> u64 {
        let (kind, detail): (u64, u16) = match self.kind {
            OpKind::Try => (0, 0),
            OpKind::Register => (1, 0),
            OpKind::Retry => (2, 0),
            OpKind::Token => (3, 0),
            OpKind::Release => (4, 0),
            OpKind::ReleaseShared => (5, 0),
            OpKind::ReleaseSlot(slot) => (6, slot),
            OpKind::Downgrade => (7, 0),
            OpKind::Clear(Want::Exclusive) => (8, 0),
            OpKind::Clear(Want::Shared) => (9, 0),
            OpKind::Clear(Want::Slot(count)) => (10, count),
            OpKind::Enlist => (11, 0),
            OpKind::Delist => (12, 0),
            OpKind::OpenGate => (13, 0),
            OpKind::DropGate => (14, 0),
            OpKind::Wake => (15, 0),
            OpKind::Listen => (16, 0),
            OpKind::Unlisten => (17, 0),
            OpKind::Knock => (18, 0),
            OpKind::Unknock => (19, 0),
            OpKind::Unlock => (20, 0),
            OpKind::Inquire => (21, 0),
            OpKind::UnlockShared => (22, 0),
            OpKind::UnlockSlot(slot) => (23, slot),
            OpKind::ShareToo => (24, 0),
            OpKind::ShareOnly => (25, 0),
        };
        u64::from(self.entry) << 32 | u64::from(detail) << 16 | u64::from(self.tells) << 8 | kind
    }

    /// The inverse of [`Op::to_number`].
    pub(crate) fn from_number(number: u64) -> Self {
        let detail = (number >> 16) as u16;
        let kind = match number & 0xff {
            0 => OpKind::Try,
            1 => OpKind::Register,
            2 => OpKind::Retry,
            3 => OpKind::Token,
            4 => OpKind::Release,
            5 => OpKind::ReleaseShared,
            6 => OpKind::ReleaseSlot(detail),
            7 => OpKind::Downgrade,
            8 => OpKind::Clear(Want::Exclusive),
            9 => OpKind::Clear(Want::Shared),
            10 => OpKind::Clear(Want::Slot(detail)),
            11 => OpKind::Enlist,
            12 => OpKind::Delist,
            13 => OpKind::OpenGate,
            14 => OpKind::DropGate,
            15 => OpKind::Wake,
            16 => OpKind::Listen,
            17 => OpKind::Unlisten,
            18 => OpKind::Knock,
            19 => OpKind::Unknock,
            21 => OpKind::Inquire,
            22 => OpKind::UnlockShared,
            23 => OpKind::UnlockSlot(detail),
            24 => OpKind::ShareToo,
            25 => OpKind::ShareOnly,
            _ => OpKind::Unlock,
        };
        Self { kind, tells: number >> 8 & 1 == 1, entry: (number >> 32) as u32 }
    }

    /// Whether it changes what the session has of a key: not a channel, and no question.
    pub(super) fn is_about_key(self) -> bool {
        !matches!(self.kind, OpKind::Listen | OpKind::Unlisten | OpKind::Inquire)
    }
}

impl Ledger {
    /// What is sent for an op. A try is for the request that the key's attempt is for.
    pub(crate) fn statement(&self, op: Op) -> Statement {
        let channel = op.entry as u8;
        match op.kind {
            OpKind::Listen => return Statement::Listen(channel),
            OpKind::Unlisten => return Statement::Unlisten(channel),
            OpKind::Token => return Statement::Token,
            OpKind::Inquire => return self.inquiry(op),
            _ => {}
        }
        let key = parameters(self.entries[op.entry as usize].key());
        let (want, fenced) = match self.attempted(op.entry) {
            Some(request) => (request.want, request.fenced),
            None => (Want::Exclusive, false),
        };
        match (op.kind, want) {
            (OpKind::Try, Want::Exclusive) if fenced => Statement::Fence(key),
            (OpKind::Try, Want::Exclusive) => Statement::TryLock(key),
            (OpKind::Try, Want::Shared) => Statement::Share(key),
            (OpKind::Try, Want::Slot(count)) => Statement::TakeSlot(self.slots(op.entry, count)),
            (OpKind::Register, Want::Exclusive) => Statement::Register(key),
            (OpKind::Register, Want::Shared) => Statement::RegisterShared(key),
            (OpKind::Register, Want::Slot(count)) => {
                Statement::RegisterSlots(self.slots(op.entry, count))
            }
            (OpKind::Retry, _) => Statement::Retry(key),
            (OpKind::Release, _) => Statement::Release(key),
            (OpKind::Unlock | OpKind::ShareOnly, _) => Statement::Unlock(key),
            (OpKind::UnlockShared, _) => Statement::UnlockShared(key),
            (OpKind::UnlockSlot(slot), _) => {
                let slot = self.first_slot(op.entry) | i64::from(slot);
                Statement::Unlock(KeyParameters::Bigint(slot))
            }
            (OpKind::ShareToo, _) => Statement::TryLockShared(key),
            (OpKind::ReleaseShared, _) => Statement::ReleaseShared(key),
            (OpKind::ReleaseSlot(slot), _) => {
                Statement::ReleaseSlot(self.first_slot(op.entry), slot)
            }
            (OpKind::Downgrade, _) => Statement::Downgrade(key),
            (OpKind::Clear(Want::Exclusive), _) => Statement::Clear(key),
            (OpKind::Clear(Want::Shared), _) => Statement::ClearShared(key),
            (OpKind::Clear(Want::Slot(count)), _) => {
                Statement::ClearSlots(self.slots(op.entry, count))
            }
            (OpKind::Enlist, _) => Statement::TryLockShared(companion::waiters(key)),
            (OpKind::Delist, _) => Statement::UnlockShared(companion::waiters(key)),
            (OpKind::Knock, _) => Statement::TryLockShared(companion::gate(key)),
            (OpKind::Unknock, _) => Statement::UnlockShared(companion::gate(key)),
            (OpKind::OpenGate, _) => Statement::OpenGate(key),
            (OpKind::DropGate, _) => Statement::Unlock(companion::gate(key)),
            (OpKind::Wake, _) => Statement::Wake(key),
            (OpKind::Token | OpKind::Listen | OpKind::Unlisten | OpKind::Inquire, _) => {
                Statement::Token
            }
        }
    }

    /// A counted lock as the next statement has it, with the slots that the session holds: those
    /// of holders, and those whose release is still behind it.
    fn slots(&self, entry: u32, count: u16) -> Slots {
        let mut held = [0; SLOT_BYTES];
        let behind = self.outbox.iter().filter(|op| op.entry == entry);
        let released = behind.filter_map(|op| match op.kind {
            OpKind::ReleaseSlot(slot) | OpKind::UnlockSlot(slot) => Some(slot),
            _ => None,
        });
        for slot in self.slots_of(entry).chain(released) {
            held[usize::from(slot / 8)] |= 1 << (slot % 8);
        }
        Slots { first: self.first_slot(entry), count, held }
    }

    fn first_slot(&self, entry: u32) -> i64 {
        match self.entries[entry as usize].key() {
            Key::Bigint(first) => first,
            Key::Pair(..) => 0,
        }
    }
}

/// A key as a statement's parameters.
pub(crate) fn parameters(key: Key) -> KeyParameters {
    match key {
        Key::Bigint(key) => KeyParameters::Bigint(key),
        Key::Pair(high, low) => KeyParameters::Pair(high, low),
    }
}
