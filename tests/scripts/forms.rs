//! The ways to ask for a lock, and what each looks like on the server.
//!
//! A new way is a variant of [`Form`] with an arm in each of its methods; one that gives back
//! something else than a [`Lock`] is a variant of [`Handle`], too.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use distlock::{Acquire, Context, Error, Key, Lock, Manager};

use crate::support::Sql;

/// What the scripts are about: keys of both spaces, two of which have the same bits.
pub(crate) const KEYS: [Key; 5] = [
    Key::Bigint(-0x0123_4567_89ab_cdef),
    Key::Bigint(0x0000_0007_0000_002a),
    Key::Pair(7, 42),
    Key::Pair(-1, i32::MIN),
    Key::Bigint(i64::MAX),
];

/// How a lock is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By its key alone.
    Plain,
}

impl Form {
    /// What a script may choose from, as often as it is listed.
    pub(crate) const ALL: [Self; 1] = [Self::Plain];

    /// The request, without a context and a time limit.
    fn asked(self, manager: &Manager, key: Key) -> Acquire {
        match self {
            Self::Plain => manager.acquire(key),
        }
    }

    /// The keys that are locked, as places in [`KEYS`], when this one is asked for.
    pub(crate) fn keys(self, key: usize) -> Vec<usize> {
        match self {
            Self::Plain => vec![key],
        }
    }

    /// Whether it may be held while the others are.
    pub(crate) fn admits(self, others: &[Self]) -> bool {
        match self {
            Self::Plain => others.is_empty(),
        }
    }

    /// The mode that `pg_locks` shows.
    fn mode(self) -> &'static str {
        match self {
            Self::Plain => "ExclusiveLock",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) manager: usize,
    /// A place in [`KEYS`].
    pub(crate) key: usize,
    pub(crate) form: Form,
}

impl Ask {
    pub(crate) fn of(self, managers: &[Manager; 2]) -> Acquire {
        self.form.asked(&managers[self.manager], KEYS[self.key])
    }

    pub(crate) fn keys(self) -> Vec<usize> {
        self.form.keys(self.key)
    }

    /// What `pg_locks` shows while it is held by the backend.
    pub(crate) fn traces(self, pid: i32) -> impl Iterator<Item = Trace> {
        let mode = self.form.mode();
        self.keys().into_iter().map(move |key| Trace { key, pid, mode: mode.to_owned() })
    }
}

/// A lock that was granted.
#[derive(Debug)]
pub(crate) enum Handle {
    One(Lock),
}

impl From<Lock> for Handle {
    fn from(lock: Lock) -> Self {
        Self::One(lock)
    }
}

impl Handle {
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::One(lock) => lock.is_held(),
        }
    }

    pub(crate) fn context(&self) -> &Context {
        match self {
            Self::One(lock) => lock.context(),
        }
    }

    pub(crate) fn unlock(self) -> Result<(), Error> {
        match self {
            Self::One(lock) => lock.unlock(),
        }
    }
}

/// One advisory lock on the server.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trace {
    /// A place in [`KEYS`].
    key: usize,
    pid: i32,
    mode: String,
}

/// What of the keys is locked, as `pg_locks` has it (manual: view-pg-locks), in its order.
pub(crate) fn advisory_locks(sql: &mut Sql) -> Vec<Trace> {
    static STATEMENT: OnceLock<String> = OnceLock::new();
    let statement = STATEMENT.get_or_init(|| {
        let places: BTreeSet<String> = KEYS.into_iter().map(|key| place(key).join(",")).collect();
        let places: Vec<String> = places.into_iter().map(|place| format!("({place})")).collect();
        format!(
            "SELECT objsubid, classid::bigint, objid::bigint, pid, mode FROM pg_locks \
             WHERE locktype = 'advisory' AND granted \
             AND (objsubid, classid::bigint, objid::bigint) IN ({})",
            places.join(",")
        )
    });
    let rows = sql.query(statement);
    let mut found: Vec<Trace> = rows
        .into_iter()
        .map(|row| {
            let mut row: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            let mode = row.pop().unwrap_or_default();
            let pid = row.pop().and_then(|pid| pid.parse().ok()).expect("a pid");
            let key = KEYS.iter().position(|key| place(*key).as_slice() == row);
            Trace { key: key.expect("one of the keys"), pid, mode }
        })
        .collect();
    found.sort();
    found
}

/// objsubid, classid and objid of a key; the latter two are unsigned.
fn place(key: Key) -> [String; 3] {
    let (kind, high, low) = match key {
        Key::Bigint(key) => (1, (key >> 32) as u32, key as u32),
        Key::Pair(high, low) => (2, high as u32, low as u32),
    };
    [kind.to_string(), high.to_string(), low.to_string()]
}
