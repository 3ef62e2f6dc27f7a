//! What a ready session is asked: any statement of the library and Syncs, a byte each.
//!
//! The five low bits say what it is ([`SYNC`] and so on), the two above them which of four keys or
//! counted locks it is about, the highest the key space.

use std::collections::BTreeSet;

use distlock::proto::frontend::KeyParameters;
use distlock::proto::session::{Session, SessionLimits};
use distlock::proto::statement::{SLOT_BYTES, Slots, Statement};

use crate::ready_session;
use crate::statements::{PREPARED_AT_START, Preparation, describe};

/// A Sync, as is what has no meaning.
pub const SYNC: u8 = 0;

/// Set in what is about a pair of keys.
pub const PAIR: u8 = 0x80;

macro_rules! kinds {
    ($($name:ident = $number:literal,)*) => {
        $(#[doc = concat!("The statement number ", $number, ".")] pub const $name: u8 = $number;)*
    };
}
kinds! {
    TRY_LOCK = 1,
    UNLOCK = 2,
    TRY_LOCK_SHARED = 3,
    UNLOCK_SHARED = 4,
    SHARE = 5,
    REGISTER = 6,
    REGISTER_SHARED = 7,
    RETRY = 8,
    RELEASE = 9,
    RELEASE_SHARED = 10,
    DOWNGRADE = 11,
    OPEN_GATE = 12,
    WAKE = 13,
    CLEAR = 14,
    CLEAR_SHARED = 15,
    TAKE_SLOT = 16,
    REGISTER_SLOTS = 17,
    RELEASE_SLOT = 18,
    CLEAR_SLOTS = 19,
    FENCE = 20,
    TOKEN = 21,
    LISTEN = 22,
    UNLISTEN = 23,
    HOLDERS = 24,
}

/// The four keys, with bits in both halves and in the sign.
pub const KEYS: [i64; 4] = [42, -1, 0x0123_4567_89ab_cdef, i64::MIN + 7];

/// How many slots each counted lock has.
pub const COUNTS: [u16; 4] = [1, 9, 64, 1024];

/// The same statement of another of the four keys.
pub const fn of_key(number: u8, op: u8) -> u8 {
    op | (number & 3) << 5
}

/// The same of one of the eight channels.
pub const fn of_channel(number: u8, op: u8) -> u8 {
    op | number << 5
}

/// A number in one of the two key spaces; in the other its halves.
pub fn key(number: i64, is_pair: bool) -> KeyParameters {
    if is_pair {
        KeyParameters::Pair((number >> 32) as i32, number as i32)
    } else {
        KeyParameters::Bigint(number)
    }
}

/// What a byte means; none for a Sync. A salt that is not zero makes it one of many more keys and
/// counted locks, some slots of which are held.
pub fn statement(op: u8, salt: u8) -> Option<Statement> {
    let place = op >> 5;
    let number = usize::from(place & 3);
    let spread = i64::from(salt).wrapping_mul(-0x0123_4567_89ab_cdef);
    let bigint = KEYS[number].wrapping_add(spread);
    let key = key(bigint, op & PAIR != 0);
    let count = match salt {
        0 => COUNTS[number],
        _ => u16::from(salt) * 4 + u16::from(place & 3),
    };
    let mut held = [0; SLOT_BYTES];
    held.iter_mut().zip(1_u8..).for_each(|(byte, n)| *byte = salt.wrapping_mul(n));
    let slots = Slots { first: bigint & !0x3ff, count, held };
    Some(match op & 0x1f {
        TRY_LOCK => Statement::TryLock(key),
        UNLOCK => Statement::Unlock(key),
        TRY_LOCK_SHARED => Statement::TryLockShared(key),
        UNLOCK_SHARED => Statement::UnlockShared(key),
        SHARE => Statement::Share(key),
        REGISTER => Statement::Register(key),
        REGISTER_SHARED => Statement::RegisterShared(key),
        RETRY => Statement::Retry(key),
        RELEASE => Statement::Release(key),
        RELEASE_SHARED => Statement::ReleaseShared(key),
        DOWNGRADE => Statement::Downgrade(key),
        OPEN_GATE => Statement::OpenGate(key),
        WAKE => Statement::Wake(key),
        CLEAR => Statement::Clear(key),
        CLEAR_SHARED => Statement::ClearShared(key),
        TAKE_SLOT => Statement::TakeSlot(slots),
        REGISTER_SLOTS => Statement::RegisterSlots(slots),
        RELEASE_SLOT => Statement::ReleaseSlot(slots.first, count - 1),
        CLEAR_SLOTS => Statement::ClearSlots(slots),
        FENCE => Statement::Fence(key),
        TOKEN => Statement::Token,
        LISTEN => Statement::Listen(place),
        UNLISTEN => Statement::Unlisten(place),
        HOLDERS => Statement::Holders(key),
        _ => return None,
    })
}

/// One thing that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A statement.
    Submit(Statement),
    /// The end of a batch.
    Sync,
}

/// What a script asks. A Sync is put before each statement that has to begin a batch: the first of
/// its kind, and what shares its Sync with nothing, as well as what follows that.
pub fn steps(script: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut prepared = BTreeSet::from(PREPARED_AT_START);
    let (mut is_open, mut is_taken) = (false, false);
    for op in script {
        let Some(statement) = statement(*op, 0) else {
            steps.push(Step::Sync);
            (is_open, is_taken) = (false, false);
            continue;
        };
        let description = describe(&statement);
        let is_new = match description.preparation {
            Preparation::Named(name) => prepared.insert(name),
            Preparation::Never => true,
        };
        if is_taken || is_open && (is_new || description.is_alone) {
            steps.push(Step::Sync);
        }
        steps.push(Step::Submit(statement));
        (is_open, is_taken) = (true, description.is_alone);
    }
    steps
}

/// A ready session that was asked this, and has sent it. The tickets and marks are the places of
/// the steps.
///
/// # Panics
///
/// When it does not take all of it, which has room for scripts of 63 bytes.
pub fn session_asked(steps: &[Step]) -> Session {
    let mut session = ready_session(SessionLimits::DEFAULT);
    for (number, step) in (0_u64..).zip(steps) {
        match step {
            Step::Submit(statement) => session.submit(statement, number).expect("in order"),
            Step::Sync => session.sync(number).expect("room for a Sync"),
        }
        let sent = session.output().len();
        session.sent(sent);
    }
    session
}
