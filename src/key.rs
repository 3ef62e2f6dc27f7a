//! What is locked: a number in one of the two key spaces of PostgreSQL's advisory locks.
//!
//! The server knows an advisory lock by one `bigint` or by a pair of `integer`s (manual:
//! functions-admin, "Advisory Lock Functions"); the two spaces never meet. Everything in this
//! crate is decided on the number, never on the name it was made from (invariant I1): two names
//! with one hash exclude each other, which is a wait, never two holders.

use std::fmt;

/// The key of a lock.
///
/// ```
/// use distlock::Key;
///
/// assert_eq!(Key::from("job"), Key::Bigint(4999694984129765468));
/// assert_eq!(Key::from(7), Key::Bigint(7));
/// assert_ne!(Key::from((0, 7)), Key::Bigint(7));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// One `bigint`, as in `pg_try_advisory_lock(bigint)`.
    Bigint(i64),
    /// Two `integer`s, as in `pg_try_advisory_lock(int, int)`.
    Pair(i32, i32),
}

impl Key {
    /// The key of a name: the 64-bit FNV-1a hash of its UTF-8 bytes as a `bigint`.
    ///
    /// This is the number that the Go library ldelossa/distlock uses for the same name, so that
    /// programs written with either can share a fleet.
    ///
    /// ```
    /// const JOB: distlock::Key = distlock::Key::from_name("job");
    /// assert_eq!(JOB, distlock::Key::from("job"));
    /// ```
    pub const fn from_name(name: &str) -> Self {
        Self::Bigint(fnv1a(name.as_bytes()) as i64)
    }
}

impl From<i64> for Key {
    fn from(key: i64) -> Self {
        Self::Bigint(key)
    }
}

impl From<(i32, i32)> for Key {
    fn from((high, low): (i32, i32)) -> Self {
        Self::Pair(high, low)
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self::from_name(name)
    }
}

impl From<&String> for Key {
    fn from(name: &String) -> Self {
        Self::from_name(name)
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Self::from_name(&name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bigint(key) => write!(f, "{key}"),
            Self::Pair(high, low) => write!(f, "({high}, {low})"),
        }
    }
}

/// FNV-1a with the 64-bit parameters of its authors.
const fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = OFFSET_BASIS;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that the Go library sends for these names.
    #[test]
    fn names_hash_as_in_the_go_library() {
        assert_eq!(Key::from("job"), Key::Bigint(4999694984129765468));
        assert_eq!(Key::from("my-resource-name"), Key::Bigint(8514355869883808142));
        assert_eq!(Key::from(""), Key::Bigint(0xcbf2_9ce4_8422_2325_u64 as i64));
    }

    #[test]
    fn the_two_key_spaces_never_meet() {
        assert_ne!(Key::Bigint(0), Key::Pair(0, 0));
        assert_eq!(Key::Pair(-1, 2).to_string(), "(-1, 2)");
    }
}
