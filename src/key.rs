//! What is locked: a number in one of the two key spaces of PostgreSQL's advisory locks.
//!
//! The server knows an advisory lock by one `bigint` or by a pair of `integer`s (manual:
//! functions-admin, "Advisory Lock Functions"); the two spaces never meet. Everything in this
//! crate is decided on the number, never on the name it was made from (invariant I1): two names
//! with one hash exclude each other, which is a wait, never two holders.
//!
//! [`Key::from`] makes the key of a name; [`Key::in_namespace`] that of a name among those of one
//! purpose; [`scheme`] the keys of other programs, to share locks with them. [`Named`] keeps name
//! and key together for messages.
//!
//! Advisory locks belong to a database: the same key in another database of the same server is
//! another lock.

mod hash;
pub mod scheme;

use std::fmt::{self, Write as _};

/// The key of a lock.
///
/// ```
/// use distlock::Key;
///
/// assert_eq!(Key::from("job"), Key::Bigint(4999694984129765468));
/// assert_eq!(Key::from(7), Key::Bigint(7));
/// assert_ne!(Key::from((0, 7)), Key::Bigint(7));
/// ```
///
/// The name is hashed, and not kept: whatever knows only the key ([`Lock::key`](crate::Lock::key),
/// an [`Error`](crate::Error), [`Holders`](crate::Holders)) prints no name. [`Named`] has both.
///
/// It prints as the number, or both numbers, that the advisory lock functions take. With `{:#}` it
/// also prints what to look for in the view `pg_locks`, which has a `bigint` in two halves (manual:
/// view-pg-locks), in the form of an SQL condition.
///
/// ```
/// # use distlock::Key;
/// assert_eq!(Key::Bigint(-2).to_string(), "-2");
/// assert_eq!(Key::Pair(-1, 2).to_string(), "(-1, 2)");
/// assert_eq!(
///     format!("{:#}", Key::Bigint(-2)),
///     "-2 (classid = 4294967295 AND objid = 4294967294 AND objsubid = 1)",
/// );
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
        Self::Bigint(hash::fnv1a_64(hash::FNV_64, name.as_bytes()) as i64)
    }

    /// The key of a name among the names of one purpose, which no name of another purpose gets
    /// but by a collision of hashes: `("a", "bc")` and `("ab", "c")` differ.
    ///
    /// It is the key of one longer name: the number of the namespace's UTF-8 bytes in decimal
    /// digits, a colon, the namespace, a colon, the name. The number says where the namespace
    /// ends, so both may hold any characters, colons too. Any language that can make the key of a
    /// name can make this one; in Python the name is `f"{len(ns.encode())}:{ns}:{name}"`.
    ///
    /// A plain name of this form has the same key. Where names come from outside, have all of them
    /// in namespaces, or none.
    ///
    /// ```
    /// use distlock::Key;
    ///
    /// assert_eq!(Key::in_namespace("invoice", "42"), Key::from("7:invoice:42"));
    /// assert_ne!(Key::in_namespace("a", "bc"), Key::in_namespace("ab", "c"));
    /// ```
    pub const fn in_namespace(namespace: &str, name: &str) -> Self {
        // As many digits as the largest length has.
        let mut digits = [0; 20];
        let mut first = digits.len();
        let mut rest = namespace.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let (_, digits) = digits.split_at(first);
        let mut hash = hash::fnv1a_64(hash::FNV_64, digits);
        hash = hash::fnv1a_64(hash, b":");
        hash = hash::fnv1a_64(hash, namespace.as_bytes());
        hash = hash::fnv1a_64(hash, b":");
        Self::Bigint(hash::fnv1a_64(hash, name.as_bytes()) as i64)
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
        // In pg_locks, objsubid tells the two spaces apart, and the halves are without a sign.
        let (classid, objid, objsubid) = match *self {
            Self::Bigint(key) => {
                write!(f, "{key}")?;
                ((key >> 32) as u32, key as u32, 1)
            }
            Self::Pair(high, low) => {
                write!(f, "({high}, {low})")?;
                (high as u32, low as u32, 2)
            }
        };
        if f.alternate() {
            write!(f, " (classid = {classid} AND objid = {objid} AND objsubid = {objsubid})")?;
        }
        Ok(())
    }
}

/// A name and the key that was made from it: locks the key, prints both.
///
/// A [`Key`] does not keep its name, and neither do locks and errors, which print the number. Where
/// messages should have both, a program prints this beside them, for as long as the name is
/// borrowed: the name, and the key in parentheses. Of a pair that is `job ((1, 2))`.
///
/// ```
/// use distlock::Key;
/// use distlock::key::{Named, scheme};
///
/// let job = Named::from("job");
/// assert_eq!(job.to_string(), "job (4999694984129765468)");
/// assert_eq!(Key::from(job), Key::from("job"));
///
/// # fn example(manager: &distlock::Manager, job: Named<'_>) -> Result<(), distlock::Error> {
/// let lock = manager.acquire(job).wait()?;
/// println!("{job}: held, for {:?} at least", lock.remaining());
/// # Ok(())
/// # }
/// let shared = Named { name: "job", key: scheme::sqlx("job") };
/// assert_eq!(shared.to_string(), "job (-8075846316381025412)");
/// ```
///
/// Control characters of the name are printed escaped, so that a name from outside cannot forge a
/// line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Named<'a> {
    /// What it is called.
    pub name: &'a str,
    /// What is locked.
    pub key: Key,
}

impl<'a> From<&'a str> for Named<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, key: Key::from_name(name) }
    }
}

impl From<Named<'_>> for Key {
    fn from(named: Named<'_>) -> Self {
        named.key
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.name.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        write!(f, " ({})", self.key)
    }
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

    #[test]
    fn a_key_prints_as_pg_locks_has_it() {
        let both = |key: Key| format!("{key:#}");
        assert_eq!(both(Key::Bigint(1)), "1 (classid = 0 AND objid = 1 AND objsubid = 1)");
        assert_eq!(
            both(Key::Bigint(i64::MIN)),
            "-9223372036854775808 (classid = 2147483648 AND objid = 0 AND objsubid = 1)"
        );
        assert_eq!(
            both(Key::Pair(-1, i32::MIN)),
            "(-1, -2147483648) (classid = 4294967295 AND objid = 2147483648 AND objsubid = 2)"
        );
    }

    #[test]
    fn a_namespace_ends_where_its_length_says() {
        let splits = [("", "a:bc"), ("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")];
        for (index, (namespace, name)) in splits.into_iter().enumerate() {
            for (other, rest) in splits.into_iter().skip(index + 1) {
                assert_ne!(Key::in_namespace(namespace, name), Key::in_namespace(other, rest));
            }
        }
        assert_ne!(Key::in_namespace("a:", "b"), Key::in_namespace("a", ":b"));
        assert_ne!(Key::in_namespace("1:a", "b"), Key::in_namespace("1", "a:b"));
    }

    /// What the documentation says to programs in other languages.
    #[test]
    fn a_namespaced_key_is_the_key_of_the_documented_name() {
        let long = "n".repeat(1234);
        for namespace in ["", "a", "invoice", "Rechnungen für Köln", ":", "0123456789", &long] {
            for name in ["", "42", "ü:1", "7:invoice:42"] {
                let text = format!("{}:{namespace}:{name}", namespace.len());
                assert_eq!(Key::in_namespace(namespace, name), Key::from(text));
            }
        }
        assert_eq!(Key::in_namespace("invoice", "42"), Key::Bigint(6676887140310190089));
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_a_log() {
        let named = Named { name: "a\nb\u{1b}[0m ü\"", key: Key::Pair(1, 2) };
        assert_eq!(named.to_string(), "a\\nb\\u{1b}[0m ü\" ((1, 2))");
    }

    #[test]
    fn a_key_is_small() {
        assert!(size_of::<Key>() <= 16);
    }
}
