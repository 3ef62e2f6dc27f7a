//! Several statements as one: of one kind, with a row for each, or a release and the try that is
//! behind it in the queue.
//!
//! A statement costs the server some ten times of what its lock does, so a long queue is sent as
//! arrays of keys. The rows of a function in FROM come in the order of the arrays, and each calls
//! the lock functions when it is made (manual: queries-table-expressions, "Table Functions"). After
//! an error the rows before it stand, as they would as statements of their own (I2).

use super::super::backend::DataRow;
use super::super::buffer::Body;
use super::super::companion;
use super::super::fault::Violation;
use super::super::frontend::{INT4_OID, INT8_OID, KeyParameters};
use super::answer::{RELEASED, Shape, Value};
use super::{Definition, Statement, text};

/// The most rows of one statement.
pub const ROWS_MAX: usize = 64;

/// `bigint[]`.
const INT8_ARRAY_OID: i32 = 1016;
/// `integer[]`.
const INT4_ARRAY_OID: i32 = 1007;

/// The most bytes that such a statement takes, Bind and Execute: three arrays of keys, and room for
/// the messages around them.
pub const RUN_MAX: usize = 128 + ROWS_MAX * (12 + 8 + 8);

/// A kind of statement that can have several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Of [`Statement::TryLock`].
    TryLock,
    /// Of [`Statement::Release`].
    Release,
}

impl Run {
    /// The kind of a statement, and its key, if it can be one of several.
    pub fn of(statement: &Statement) -> Option<(Self, i64)> {
        match *statement {
            Statement::TryLock(KeyParameters::Bigint(key)) => Some((Self::TryLock, key)),
            Statement::Release(KeyParameters::Bigint(key)) => Some((Self::Release, key)),
            _ => None,
        }
    }

    /// How it is prepared.
    pub fn definition(self) -> Definition {
        match self {
            Self::TryLock => Definition {
                index: 36,
                name: "tm",
                query: text::TRY_RUN,
                types: &[INT8_ARRAY_OID],
                shape: Shape::Boolean,
            },
            Self::Release => Definition {
                index: 37,
                name: "rm",
                query: text::RELEASE_RUN,
                types: &[INT8_ARRAY_OID, INT4_ARRAY_OID, INT4_ARRAY_OID],
                shape: RELEASED,
            },
        }
    }

    /// Writes its parameters.
    pub(in super::super) fn parameters(
        self,
        body: &mut Body<'_>,
        keys: impl Iterator<Item = i64> + Clone,
    ) {
        let count = keys.clone().count();
        array(body, INT8_OID, 8, count);
        for key in keys.clone() {
            body.i32(8);
            body.i64(key);
        }
        if self == Self::TryLock {
            return;
        }
        for half in [0..4, 4..8] {
            array(body, INT4_OID, 4, count);
            for key in keys.clone() {
                body.i32(4);
                body.bytes(waiters(key).get(half.clone()).unwrap_or_default());
            }
        }
    }
}

/// Both numbers of a waiters key.
fn waiters(key: i64) -> [u8; 8] {
    companion::waiters(KeyParameters::Bigint(key)).to_bytes()
}

/// The head of an array in one dimension, its length before it: how many dimensions, whether there
/// are NULLs, the type, and the dimension's size and lower bound (`array_send`).
fn array(body: &mut Body<'_>, oid: i32, size: usize, count: usize) {
    body.length(size.saturating_add(4).saturating_mul(count).saturating_add(20));
    body.i32(1);
    body.i32(0);
    body.i32(oid);
    body.length(count);
    body.i32(1);
}

/// [`Statement::Release`] of one `bigint` key, then [`Statement::TryLock`] of another, or of the
/// same one: all that a thread asks for that locks and unlocks in a loop. The try comes after the
/// release and after those who wait were told of it, as in statements of their own: the CASE has
/// the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// The key to release.
    pub release: i64,
    /// The key to try.
    pub try_lock: i64,
}

impl Swap {
    /// How it is prepared.
    pub fn definition() -> Definition {
        Definition {
            index: 38,
            name: "x",
            query: text::SWAP,
            types: &[INT8_OID, INT4_OID, INT4_OID, INT8_OID],
            shape: Shape::Swapped,
        }
    }

    /// Writes its parameters.
    pub(in super::super) fn parameters(self, body: &mut Body<'_>) {
        let release = KeyParameters::Bigint(self.release);
        release.write(body);
        companion::waiters(release).write(body);
        KeyParameters::Bigint(self.try_lock).write(body);
    }

    /// What its letter says of the release and of the try.
    pub(in super::super) fn read_byte(letter: u8) -> Option<[Value; 2]> {
        match letter {
            b'q' => Some([Value::Quiet, Value::No]),
            b'Q' => Some([Value::Quiet, Value::Yes]),
            b'k' => Some([Value::Told, Value::No]),
            b'K' => Some([Value::Told, Value::Yes]),
            _ => None,
        }
    }

    /// Reads its row.
    pub(in super::super) fn read(row: &DataRow<'_>) -> Result<[Value; 2], Violation> {
        Shape::Swapped.letter(row, Self::read_byte)
    }
}
