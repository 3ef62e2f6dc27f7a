//! The lock statements of a ready session: their texts, their parameters, and what each may answer.
//!
//! All are constants with binary parameters; no text of a caller is ever part of SQL. Each is one
//! SELECT of one row, whose CASE fixes the order in which the lock functions are called (manual:
//! functions-conditional, "CASE"). None of them waits on the server (invariant I5).
//!
//! The texts are not qualified, since the settings statement has put nothing but `pg_catalog` on
//! the search path. They are prepared when they are first used, but for the four of
//! [`STATEMENTS`](super::handshake::STATEMENTS).

mod answer;
mod run;
mod text;

use self::answer::{DOWNGRADED, REGISTERED, REGISTERED_TO_SHARE, RELEASED, RETRIED};
pub use self::answer::{Shape, Token, Value};
pub use self::run::{ROWS_MAX, RUN_MAX, Run, Swap};
use super::buffer::Body;
use super::companion::{self, SLOTS_MAX};
use super::frontend::{INT4_OID, INT8_OID, KeyParameters};

/// A statement for [`Session::submit`](super::session::Session::submit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// `pg_try_advisory_lock`.
    TryLock(KeyParameters),
    /// `pg_advisory_unlock`.
    Unlock(KeyParameters),
    /// `pg_try_advisory_lock_shared`, whoever waits.
    TryLockShared(KeyParameters),
    /// `pg_advisory_unlock_shared`.
    UnlockShared(KeyParameters),
    /// Takes a key in shared mode, unless its gate says that somebody waits to have it alone.
    Share(KeyParameters),
    /// Registers as a waiter, then tries once more, which closes the race with a release in
    /// between; takes the gate if the key is still held.
    Register(KeyParameters),
    /// The same to share the key.
    RegisterShared(KeyParameters),
    /// A registered waiter's next try, which takes the gate if it fails.
    Retry(KeyParameters),
    /// Releases, and notifies if somebody waits.
    Release(KeyParameters),
    /// The same of a key held in shared mode.
    ReleaseShared(KeyParameters),
    /// From exclusive to shared, without letting go in between; notifies if somebody waits.
    Downgrade(KeyParameters),
    /// Opens the gate that kept sharers out, and notifies if somebody waits.
    OpenGate(KeyParameters),
    /// Notifies once more: the first time was lost with its batch.
    Wake(KeyParameters),
    /// After a failure: lets go of whatever this session may have of the key and beside it, and
    /// says whether there was anything. Notifies nobody: the role may not be allowed to.
    Clear(KeyParameters),
    /// The same of a key that was asked for in shared mode.
    ClearShared(KeyParameters),
    /// Takes the first free slot of a counted lock.
    TakeSlot(Slots),
    /// Registers as a waiter, then tries once more.
    RegisterSlots(Slots),
    /// Releases a slot of the counted lock with this first key, and notifies if somebody waits for
    /// one.
    ReleaseSlot(i64, u16),
    /// After a failure: lets go of all slots but those that are held.
    ClearSlots(Slots),
    /// Takes a key and a fencing token. To be followed by a Sync of its own.
    Fence(KeyParameters),
    /// Takes a fencing token for a key that is held. To be followed by a Sync of its own.
    Token,
    /// Listens to a channel. To be followed by a Sync of its own.
    Listen(u8),
    /// Listens to it no more.
    Unlisten(u8),
    /// Asks who holds a key or a slot of it, and who waits for one. To be followed by a Sync of its
    /// own, and not prepared: should the server not know what it asks for, nothing else fails with
    /// it.
    Holders(KeyParameters),
}

/// A counted lock: how many slots it has, and which of them this session holds. A session does not
/// conflict with itself (manual: explicit-locking, "Advisory Locks"), so its own are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// The key of the first slot.
    pub first: i64,
    /// How many there are.
    pub count: u16,
    /// A bit for each slot that is held, the lowest bit of a byte first.
    pub held: [u8; SLOT_BYTES],
}

/// Room for a bit of each slot.
pub const SLOT_BYTES: usize = SLOTS_MAX as usize / 8;

/// How a statement is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its place among all, for [`Session`](super::session::Session) to remember that it is.
    pub index: u8,
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub query: &'static str,
    /// Its parameters' types.
    pub types: &'static [i32],
    /// Its row.
    pub shape: Shape,
}

impl Definition {
    /// A bit for its place among those that stay prepared; none for the unnamed one.
    pub(super) fn bit(&self) -> u64 {
        1_u64.checked_shl(self.index.into()).unwrap_or(0)
    }
}

/// `bytea`.
const BYTEA_OID: i32 = 17;

/// The types of a key in each key space.
const KEY: [&[i32]; 2] = [&[INT8_OID], &[INT4_OID, INT4_OID]];
/// The types of a key and its waiters key.
const WAITED: [&[i32]; 2] = [&[INT8_OID, INT4_OID, INT4_OID], &[INT4_OID, INT4_OID, INT8_OID]];
/// The types of a key, its waiters key and its gate.
const GATED: [&[i32]; 2] = [
    &[INT8_OID, INT4_OID, INT4_OID, INT4_OID, INT4_OID],
    &[INT4_OID, INT4_OID, INT8_OID, INT8_OID],
];
/// The types of a counted lock's first key, its waiters key, its count, and the held slots.
const COUNTED: &[i32] = &[INT8_OID, INT4_OID, INT4_OID, INT4_OID, BYTEA_OID];
/// The types of what [`write_locks`] writes.
const LOCKS: &[i32] = &[INT8_OID, INT4_OID, INT8_OID, INT8_OID, INT8_OID];

impl Statement {
    /// How it is prepared; by another name for each key space.
    pub fn definition(&self) -> Definition {
        use Shape::{Boolean, RegisteredSlot, Slot};
        match self {
            Self::TryLock(key) => of(key, 0, ["t", "tp"], text::TRY, KEY, Boolean),
            Self::Unlock(key) => of(key, 2, ["u", "up"], text::UNLOCK, KEY, Boolean),
            Self::TryLockShared(key) => of(key, 4, ["ts", "tsp"], text::TRY_SHARED, KEY, Boolean),
            Self::UnlockShared(key) => of(key, 6, ["us", "usp"], text::UNLOCK_SHARED, KEY, Boolean),
            Self::Share(key) => of(key, 8, ["s", "sp"], text::SHARE, GATED, Boolean),
            Self::Register(key) => of(key, 10, ["w", "wp"], text::REGISTER, GATED, REGISTERED),
            Self::RegisterShared(key) => {
                of(key, 12, ["ws", "wsp"], text::REGISTER_SHARED, GATED, REGISTERED_TO_SHARE)
            }
            Self::Retry(key) => of(key, 14, ["y", "yp"], text::RETRY, GATED, RETRIED),
            Self::Release(key) => of(key, 16, ["r", "rp"], text::RELEASE, WAITED, RELEASED),
            // A counted lock's waiters key belongs to its first slot: only the parameters differ.
            Self::ReleaseSlot(first, _) => {
                let key = KeyParameters::Bigint(*first);
                of(&key, 16, ["r", "rp"], text::RELEASE, WAITED, RELEASED)
            }
            Self::ReleaseShared(key) => {
                of(key, 18, ["rs", "rsp"], text::RELEASE_SHARED, WAITED, RELEASED)
            }
            Self::Downgrade(key) => of(key, 20, ["d", "dp"], text::DOWNGRADE, WAITED, DOWNGRADED),
            Self::OpenGate(key) => of(key, 22, ["g", "gp"], text::OPEN_GATE, GATED, RELEASED),
            Self::Wake(key) => of(key, 24, ["n", "np"], text::WAKE, WAITED, Boolean),
            Self::Clear(key) => of(key, 26, ["c", "cp"], text::CLEAR, GATED, RELEASED),
            Self::ClearShared(key) => {
                of(key, 28, ["cs", "csp"], text::CLEAR_SHARED, GATED, RELEASED)
            }
            Self::Fence(key) => of(key, 30, ["f", "fp"], text::FENCE, KEY, Shape::Token),
            Self::TakeSlot(slots) => one(32, "st", text::TAKE_SLOT, COUNTED, Slot(slots.count)),
            Self::RegisterSlots(slots) => {
                one(33, "sw", text::REGISTER_SLOTS, COUNTED, RegisteredSlot(slots.count))
            }
            Self::ClearSlots(_) => one(34, "sc", text::CLEAR_SLOTS, COUNTED, RELEASED),
            Self::Token => one(35, "k", text::TOKEN, &[], Shape::Token),
            Self::Listen(channel) => unnamed(text::LISTEN, *channel),
            Self::Unlisten(channel) => unnamed(text::UNLISTEN, *channel),
            Self::Holders(_) => one(UNNAMED, "", text::HOLDERS, LOCKS, Shape::Listing),
        }
    }

    /// Whether its answer counts only once its Sync is answered: its commit makes it durable.
    pub fn commits(&self) -> bool {
        matches!(self, Self::Fence(_) | Self::Token)
    }

    /// Whether it shares its Sync with no other.
    pub fn is_alone(&self) -> bool {
        self.commits() || matches!(self, Self::Listen(_) | Self::Unlisten(_) | Self::Holders(_))
    }

    /// Writes its parameters: as many values as it has types.
    pub(super) fn parameters(&self, body: &mut Body<'_>) {
        match self {
            Self::Listen(_) | Self::Unlisten(_) | Self::Token => {}
            Self::TakeSlot(slots) | Self::RegisterSlots(slots) | Self::ClearSlots(slots) => {
                let first = KeyParameters::Bigint(slots.first);
                first.write(body);
                companion::waiters(first).write(body);
                body.i32(4);
                body.i32(i32::from(slots.count));
                // get_bit refuses a bit beyond the end: as many bytes as the count needs.
                let held = slots.held.get(..usize::from(slots.count).div_ceil(8));
                let held = held.unwrap_or(&slots.held);
                body.length(held.len());
                body.bytes(held);
            }
            Self::ReleaseSlot(first, slot) => {
                KeyParameters::Bigint(*first | i64::from(*slot)).write(body);
                let first = KeyParameters::Bigint(*first);
                companion::waiters(first).write(body);
            }
            Self::Holders(key) => write_locks(*key, body),
            Self::TryLock(key)
            | Self::Unlock(key)
            | Self::TryLockShared(key)
            | Self::UnlockShared(key)
            | Self::Fence(key) => key.write(body),
            Self::Release(key)
            | Self::ReleaseShared(key)
            | Self::Downgrade(key)
            | Self::Wake(key) => {
                key.write(body);
                companion::waiters(*key).write(body);
            }
            Self::Share(key)
            | Self::Register(key)
            | Self::RegisterShared(key)
            | Self::Retry(key)
            | Self::OpenGate(key)
            | Self::Clear(key)
            | Self::ClearShared(key) => {
                key.write(body);
                companion::waiters(*key).write(body);
                companion::gate(*key).write(body);
            }
        }
    }
}

/// Writes where `pg_locks` has a key, its waiters key, its first slot and the waiters key of that.
fn write_locks(key: KeyParameters, body: &mut Body<'_>) {
    let first = KeyParameters::Bigint(companion::first_slot(key));
    let (number, space) = in_pg_locks(key);
    KeyParameters::Bigint(number).write(body);
    body.i32(4);
    body.i32(space);
    for (number, _) in [companion::waiters(key), first, companion::waiters(first)].map(in_pg_locks)
    {
        KeyParameters::Bigint(number).write(body);
    }
}

/// `classid` and `objid` of a key in one number, and its `objsubid` (manual: view-pg-locks).
fn in_pg_locks(key: KeyParameters) -> (i64, i32) {
    match key {
        KeyParameters::Bigint(number) => (number, 1),
        KeyParameters::Pair(high, low) => {
            ((u64::from(high as u32) << 32 | u64::from(low as u32)) as i64, 2)
        }
    }
}

/// The definition for a key; `index` is that of the key space `bigint`.
fn of(
    key: &KeyParameters,
    index: u8,
    names: [&'static str; 2],
    queries: [&'static str; 2],
    types: [&'static [i32]; 2],
    shape: Shape,
) -> Definition {
    let ([name, pair_name], [query, pair_query], [kinds, pair_kinds]) = (names, queries, types);
    match key {
        KeyParameters::Bigint(_) => Definition { index, name, query, types: kinds, shape },
        KeyParameters::Pair(..) => Definition {
            index: index.saturating_add(1),
            name: pair_name,
            query: pair_query,
            types: pair_kinds,
            shape,
        },
    }
}

fn one(
    index: u8,
    name: &'static str,
    query: &'static str,
    types: &'static [i32],
    shape: Shape,
) -> Definition {
    Definition { index, name, query, types, shape }
}

/// A utility statement, which is parsed each time.
fn unnamed(texts: [&'static str; companion::CHANNELS as usize], channel: u8) -> Definition {
    let query = texts.get(usize::from(channel)).copied().unwrap_or(texts[0]);
    Definition { index: UNNAMED, name: "", query, types: &[], shape: Shape::Nothing }
}

/// Of a statement that is not kept.
pub const UNNAMED: u8 = u8::MAX;

/// A bit for each of the statements that are prepared when the session starts.
pub const PREPARED_AT_START: u64 = 0b1111;
