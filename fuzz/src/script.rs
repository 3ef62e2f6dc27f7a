//! What a ready session is asked: any statement of the library, several as one, and Syncs, a byte
//! each.
//!
//! The five low bits say what it is ([`SYNC`] and so on), the two above them which of four keys or
//! counted locks it is about, the highest the key space. Of several as one see [`SWAP`] and
//! [`TRY_RUN`].

use std::collections::BTreeSet;

use distlock::proto::frontend::KeyParameters;
use distlock::proto::session::{Refused, Session, SessionLimits};
use distlock::proto::statement::{Run, SLOT_BYTES, Slots, Statement, Swap};

use crate::ready_session;
use crate::statements::{self, Description, PREPARED_AT_START, Preparation};

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

/// A release and a try as one statement: of the key, and of the one with the next number; with
/// [`PAIR`] of the same key twice.
pub const SWAP: u8 = 25;

/// Several tries as one statement: of so many keys as [`of_key`] says, and one more; with [`PAIR`]
/// from the second key on.
pub const TRY_RUN: u8 = 26;

/// The same of releases.
pub const RELEASE_RUN: u8 = 27;

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

/// What is asked in one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A statement of one ticket.
    One(Statement),
    /// Several of a kind, each of one of these keys.
    Run(Run, Vec<i64>),
    /// A release and a try.
    Swap(Swap),
}

impl Call {
    /// How many tickets it has.
    pub fn tickets(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Run(_, keys) => keys.len() as u64,
            Self::Swap(_) => 2,
        }
    }

    /// The library's text of it.
    pub fn query(&self) -> &'static str {
        match self {
            Self::One(statement) => statement.definition().query,
            Self::Run(run, _) => run.definition().query,
            Self::Swap(_) => Swap::definition().query,
        }
    }

    /// What is to be known of it.
    pub fn describe(&self) -> Description {
        match self {
            Self::One(statement) => statements::describe(statement),
            Self::Run(run, keys) => statements::describe_run(*run, keys),
            Self::Swap(swap) => statements::describe_swap(*swap),
        }
    }

    /// Asks a session for it; its tickets have the numbers from `first` on.
    ///
    /// # Errors
    ///
    /// As the session's own.
    pub fn submit(&self, session: &mut Session, first: u64) -> Result<(), Refused> {
        match self {
            Self::One(statement) => session.submit(statement, first),
            Self::Run(run, keys) => session.submit_run(*run, keys.iter().copied().zip(first..)),
            Self::Swap(swap) => session.submit_swap(*swap, [first, first + 1]),
        }
    }
}

/// What a byte means; none for a Sync. A salt that is not zero makes it one of many more keys and
/// counted locks, some slots of which are held; and a run of none to 69 rows.
pub fn call(op: u8, salt: u8) -> Option<Call> {
    let place = op >> 5;
    let spread = i64::from(salt).wrapping_mul(-0x0123_4567_89ab_cdef);
    let numbered = |n: usize| KEYS[n % 4].wrapping_add(spread).wrapping_add((n / 4) as i64);
    let (number, is_other) = (usize::from(place & 3), op & PAIR != 0);
    let run = |run| {
        let rows = if salt == 0 { number + 1 } else { usize::from(salt % 70) };
        let first = usize::from(is_other);
        Call::Run(run, (first..first + rows).map(numbered).collect())
    };
    Some(match op & 0x1f {
        SWAP => {
            let next = number + usize::from(!is_other);
            Call::Swap(Swap { release: numbered(number), try_lock: numbered(next) })
        }
        TRY_RUN => run(Run::TryLock),
        RELEASE_RUN => run(Run::Release),
        _ => Call::One(statement(op, salt)?),
    })
}

/// The same of one ticket.
fn statement(op: u8, salt: u8) -> Option<Statement> {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A statement.
    Submit(Call),
    /// The end of a batch.
    Sync,
}

impl Step {
    /// How many tickets and marks it has.
    pub fn numbers(&self) -> u64 {
        match self {
            Self::Submit(call) => call.tickets(),
            Self::Sync => 1,
        }
    }
}

/// What a script asks. A Sync is put before each statement that has to begin a batch: the first of
/// its kind, and what shares its Sync with nothing, as well as what follows that.
pub fn steps(script: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut prepared = BTreeSet::from(PREPARED_AT_START);
    let (mut is_open, mut is_taken) = (false, false);
    for op in script {
        let Some(call) = call(*op, 0) else {
            steps.push(Step::Sync);
            (is_open, is_taken) = (false, false);
            continue;
        };
        let description = call.describe();
        let is_new = match description.preparation {
            Preparation::Named(name) => prepared.insert(name),
            Preparation::Never => true,
        };
        if is_taken || is_open && (is_new || description.is_alone) {
            steps.push(Step::Sync);
        }
        steps.push(Step::Submit(call));
        (is_open, is_taken) = (true, description.is_alone);
    }
    steps
}

/// A ready session that was asked this, and has sent it. The tickets and marks are numbered from
/// zero on.
///
/// # Panics
///
/// When it does not take all of it, which has room for scripts of 63 bytes.
pub fn session_asked(steps: &[Step]) -> Session {
    let mut session = ready_session(SessionLimits::DEFAULT);
    let mut number = 0;
    for step in steps {
        match step {
            Step::Submit(call) => call.submit(&mut session, number).expect("in order"),
            Step::Sync => session.sync(number).expect("room for a Sync"),
        }
        number += step.numbers();
        let sent = session.output().len();
        session.sent(sent);
    }
    session
}
