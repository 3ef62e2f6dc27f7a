//! What works, and may not for long.

use std::fmt;

/// Something about a server that is no error, and that somebody should know;
/// see [`Manager::warnings`](crate::Manager::warnings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The manager alone may fill more than half of the lock table that all sessions of the server
    /// share: a place for each lock, and two for each key that somebody here waits for. A full
    /// table fails every session that needs a lock, new connections among them.
    LockTable {
        /// [`Config::max_locks`](crate::Config::max_locks).
        max_locks: u32,
        /// [`Config::max_waiters`](crate::Config::max_waiters).
        max_waiters: u32,
        /// How many locks the server has room for at least: `max_locks_per_transaction` times the
        /// sum of `max_connections` and `max_prepared_transactions` (manual: runtime-config-locks).
        lock_table: u64,
    },
}

/// What a waiter may take beside its key: the key that it is registered on, and the gate.
const PLACES_BESIDE: u64 = 2;

impl Warning {
    /// The warning that a lock table of this size calls for.
    pub(crate) fn about_lock_table(
        max_locks: u32,
        max_waiters: u32,
        lock_table: u64,
    ) -> Option<Self> {
        let is_too_much = places(max_locks, max_waiters) > lock_table / 2;
        is_too_much.then_some(Self::LockTable { max_locks, max_waiters, lock_table })
    }
}

/// How many places of the lock table a manager takes at the most.
fn places(max_locks: u32, max_waiters: u32) -> u64 {
    u64::from(max_locks) + PLACES_BESIDE * u64::from(max_waiters)
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockTable { max_locks, max_waiters, lock_table } => write!(
                f,
                "with max_locks of {max_locks} and max_waiters of {max_waiters} the manager may \
                 take {}, which is more than half of the {lock_table} locks that the server has \
                 room for, for all of its sessions; lower Config::max_locks or \
                 Config::max_waiters, or raise max_locks_per_transaction on the server",
                places(*max_locks, *max_waiters)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_of_the_table_is_too_much() {
        assert_eq!(Warning::about_lock_table(50, 0, 100), None);
        let text = Warning::about_lock_table(51, 0, 100).unwrap().to_string();
        assert!(text.contains("51") && text.contains("100"), "{text}");
        assert_eq!(Warning::about_lock_table(0, 0, 0), None);
        assert_eq!(Warning::about_lock_table(u32::MAX, u32::MAX, u64::MAX), None);
    }

    #[test]
    fn what_waiters_take_beside_their_keys_is_counted() {
        assert_eq!(Warning::about_lock_table(40, 5, 100), None);
        let text = Warning::about_lock_table(40, 6, 100).unwrap().to_string();
        assert!(text.contains("may take 52"), "{text}");
    }

    #[test]
    fn the_defaults_suit_a_server_with_its_defaults() {
        let config = crate::Config::new();
        // 64 locks for each of 100 connections.
        let warning = Warning::about_lock_table(config.max_locks, config.max_waiters, 6_400);
        assert_eq!(warning, None);
    }
}
