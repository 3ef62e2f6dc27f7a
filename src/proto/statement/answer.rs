//! What the statements answer, and how their rows are read.

use super::super::backend::DataRow;
use super::super::fault::{Unsuitable, Violation};
use super::super::listing::Listing;

/// What a statement answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `false`.
    No,
    /// `true`.
    Yes,
    /// Granted, and registered.
    Granted,
    /// Not granted; registered.
    Waits,
    /// Not granted; registered, and the gate is ours.
    WaitsGated,
    /// Not granted, and not registered: just then somebody looked whether there are waiters.
    Probed,
    /// Released, and nobody waits elsewhere. Of what clears up: there was nothing to let go of.
    Quiet,
    /// Released, and those who wait are notified when the batch is over. Of what clears up: there
    /// was something, and they are still to be notified.
    Told,
    /// This slot was granted.
    Slot(u16),
    /// Granted, with this token; or not granted.
    Token(Option<Token>),
    /// Done; there is nothing to say.
    Done,
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// A fencing token as the server gives it: the timeline, and the place in the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The timeline, which every promotion raises.
    pub timeline: u32,
    /// The log sequence number.
    pub lsn: u64,
}

/// What the one row of a statement may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A boolean.
    Boolean,
    /// One of these letters, as `"char"`.
    Letter(&'static [(u8, Value)]),
    /// A slot of so many, or -1.
    Slot(u16),
    /// The same, or -2 for [`Value::Probed`].
    RegisteredSlot(u16),
    /// A log sequence number, or NULL, and a timeline.
    Token,
    /// A [`Listing`].
    Listing,
    /// A letter that answers two: a [`Swap`](super::Swap).
    Swapped,
    /// No row.
    Nothing,
}

pub(super) const REGISTERED: Shape = Shape::Letter(&[
    (b'a', Value::Granted),
    (b'w', Value::Waits),
    (b'g', Value::WaitsGated),
    (b'r', Value::Probed),
]);
/// Who wants to share takes no gate.
pub(super) const REGISTERED_TO_SHARE: Shape =
    Shape::Letter(&[(b'a', Value::Granted), (b'w', Value::Waits), (b'r', Value::Probed)]);
/// A try registers nobody.
pub(super) const RETRIED: Shape =
    Shape::Letter(&[(b'a', Value::Granted), (b'w', Value::Waits), (b'g', Value::WaitsGated)]);
/// A client that waits for the key in the server's own queue may be in the way.
pub(super) const DOWNGRADED: Shape =
    Shape::Letter(&[(b'q', Value::Quiet), (b'k', Value::Told), (b'w', Value::Waits)]);
pub(super) const RELEASED: Shape = Shape::Letter(&[(b'q', Value::Quiet), (b'k', Value::Told)]);

impl Shape {
    /// What a row of one column with this one byte says, if it may say that.
    pub(in super::super) fn read_byte(self, byte: u8) -> Option<Value> {
        match (self, byte) {
            (Self::Boolean, 0) => Some(Value::No),
            (Self::Boolean, 1) => Some(Value::Yes),
            (Self::Letter(letters), _) => {
                letters.iter().find(|(known, _)| *known == byte).map(|(_, value)| *value)
            }
            _ => None,
        }
    }

    /// Reads the row.
    ///
    /// # Errors
    ///
    /// When it is not exactly of this shape: it is never taken for a grant (invariant I10).
    pub fn read(self, row: &DataRow<'_>) -> Result<Result<Value, Unsuitable>, Violation> {
        let malformed = |what| Violation::Malformed { message: "DataRow", what };
        let mut values = row.values();
        let value = match self {
            Self::Boolean => Value::from(row.boolean()?),
            Self::Letter(_) => self.letter(row, |letter| self.read_byte(letter))?,
            Self::Slot(count) | Self::RegisteredSlot(count) => {
                let (1, Some(Some(bytes))) = (row.columns(), values.next()) else {
                    return Err(malformed("a counted lock's column is an integer"));
                };
                let number = bytes.try_into().map(i32::from_be_bytes);
                match number {
                    Ok(-1) => Value::No,
                    Ok(-2) if matches!(self, Self::RegisteredSlot(_)) => Value::Probed,
                    Ok(slot) => match u16::try_from(slot) {
                        Ok(slot) if slot < count => Value::Slot(slot),
                        _ => return Err(malformed("a slot that the lock does not have")),
                    },
                    Err(_) => return Err(malformed("a counted lock's column is an integer")),
                }
            }
            Self::Token => {
                let (2, Some(lsn), Some(timeline)) = (row.columns(), values.next(), values.next())
                else {
                    return Err(malformed("a fenced statement has two columns"));
                };
                let Some(timeline) = timeline else { return Ok(Err(Unsuitable::Standby)) };
                Value::Token(token(lsn, timeline)?)
            }
            // The session keeps what is in it; no value has room for that.
            Self::Listing => {
                Listing::read(row)?;
                Value::Done
            }
            Self::Swapped => return Err(malformed("a row that answers two is not for one")),
            Self::Nothing => return Err(malformed("a row of a statement that has none")),
        };
        Ok(Ok(value))
    }

    /// Reads a row of one letter.
    pub(super) fn letter<T>(
        self,
        row: &DataRow<'_>,
        meaning: impl FnOnce(u8) -> Option<T>,
    ) -> Result<T, Violation> {
        let malformed = |what| Violation::Malformed { message: "DataRow", what };
        let (1, Some(Some([letter]))) = (row.columns(), row.values().next()) else {
            return Err(malformed("a lock statement's column is one letter"));
        };
        meaning(*letter).ok_or_else(|| {
            malformed(match letter {
                b'n' => "the server denies a lock that this session holds",
                _ => "a letter that the statement does not answer",
            })
        })
    }
}

fn token(lsn: Option<&[u8]>, timeline: &[u8]) -> Result<Option<Token>, Violation> {
    let malformed = |what| Violation::Malformed { message: "DataRow", what };
    let digits = (timeline.len() == 8 && timeline.iter().all(u8::is_ascii_hexdigit))
        .then(|| std::str::from_utf8(timeline).ok())
        .flatten();
    let timeline = digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| malformed("a timeline is eight hexadecimal digits"))?;
    let Some(lsn) = lsn else { return Ok(None) };
    let lsn = lsn
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| malformed("a log sequence number has eight bytes"))?;
    Ok(Some(Token { timeline, lsn }))
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::{BackendMessage, Status, decode};
    use super::super::super::frontend::KeyParameters;
    use super::super::super::rehearsal;
    use super::super::{SLOT_BYTES, Slots, Statement};

    const KEY: KeyParameters = KeyParameters::Bigint(42);
    const SLOTS: Slots = Slots { first: 0, count: 9, held: [0; SLOT_BYTES] };

    /// Whether the row may answer the statement.
    fn answers(statement: Statement, column: &[u8]) -> bool {
        match decode(&rehearsal::row(&[Some(column)])) {
            Ok(Status::Complete { message: BackendMessage::DataRow(row), .. }) => {
                statement.definition().shape.read(&row).is_ok()
            }
            other => panic!("no row: {other:?}"),
        }
    }

    /// As the text of each has them. A try registers nobody, and who wants to share takes no gate.
    #[test]
    fn a_statement_is_answered_by_its_own_letters_only() {
        for (statement, letters) in [
            (Statement::Register(KEY), "awgr"),
            (Statement::RegisterShared(KEY), "awr"),
            (Statement::Retry(KEY), "awg"),
            (Statement::Release(KEY), "qk"),
            (Statement::ReleaseShared(KEY), "qk"),
            (Statement::ReleaseSlot(0, 8), "qk"),
            (Statement::Downgrade(KEY), "qkw"),
            (Statement::OpenGate(KEY), "qk"),
            (Statement::Clear(KEY), "qk"),
            (Statement::ClearShared(KEY), "qk"),
            (Statement::ClearSlots(SLOTS), "qk"),
        ] {
            for letter in 0..=u8::MAX {
                let expected = letters.as_bytes().contains(&letter);
                assert_eq!(answers(statement, &[letter]), expected, "{statement:?} {letter}");
            }
        }
    }

    #[test]
    fn only_who_registers_for_a_slot_is_told_that_somebody_looked() {
        for number in -3..=10_i32 {
            let column = number.to_be_bytes();
            let is_slot = (-1..9).contains(&number);
            assert_eq!(answers(Statement::TakeSlot(SLOTS), &column), is_slot, "{number}");
            let registered = answers(Statement::RegisterSlots(SLOTS), &column);
            assert_eq!(registered, is_slot || number == -2, "{number}");
        }
    }
}
