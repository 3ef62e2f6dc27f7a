//! A release and the try that is behind it in the queue, as one statement.
//!
//! A thread that locks and unlocks in a loop asks for nothing else; the server's work for a
//! statement is many times of what its lock does. The try comes after the release and after those
//! who wait were told of it, as in statements of their own: the CASE has the order.

use super::super::backend::DataRow;
use super::super::buffer::Body;
use super::super::companion;
use super::super::fault::Violation;
use super::super::frontend::{INT4_OID, INT8_OID, KeyParameters};
use super::answer::{Shape, Value};
use super::{Definition, text};

/// [`Statement::Release`](super::Statement) of one `bigint` key, then
/// [`Statement::TryLock`](super::Statement) of another, or of the same one.
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
