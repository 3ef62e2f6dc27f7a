//! What works, and may not for long.

use std::fmt;

/// Something about a server that is no error, and that somebody should know;
/// see [`Manager::warnings`](crate::Manager::warnings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The manager alone may fill more than half of the lock table that all sessions of the server
    /// share. A full table fails every session that needs a lock, new connections among them.
    LockTable {
        /// [`Config::max_locks`](crate::Config::max_locks).
        max_locks: u32,
        /// How many locks the server has room for at least: `max_locks_per_transaction` times the
        /// sum of `max_connections` and `max_prepared_transactions` (manual: runtime-config-locks).
        lock_table: u64,
    },
}

impl Warning {
    /// The warning that a lock table of this size calls for.
    pub(crate) fn about_lock_table(max_locks: u32, lock_table: u64) -> Option<Self> {
        (u64::from(max_locks) > lock_table / 2).then_some(Self::LockTable { max_locks, lock_table })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockTable { max_locks, lock_table } => write!(
                f,
                "max_locks is {max_locks}, which is more than half of the {lock_table} locks that \
                 the server has room for, for all of its sessions; lower Config::max_locks, or \
                 raise max_locks_per_transaction on the server"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_the_table_is_too_much() {
        assert_eq!(Warning::about_lock_table(50, 100), None);
        let warning = Warning::about_lock_table(51, 100).unwrap();
        assert!(warning.to_string().contains("51") && warning.to_string().contains("100"));
        assert_eq!(Warning::about_lock_table(0, 0), None);
    }
}
