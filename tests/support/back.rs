//! Waiting for a manager that has lost its session.

use std::time::Duration;

use distlock::{Context, Lock, Manager};

use super::wait_until;

/// Nothing takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// Tries until the manager has a session again and the key is free.
#[track_caller]
pub fn lock_when_back(manager: &Manager, key: i64) -> Lock {
    let mut lock = None;
    wait_until("the manager is back and the key is free", LIMIT, || {
        lock = match manager.try_lock(&Context::background(), key) {
            Ok(lock) => lock,
            // A session that does not last, as that of a server which is about to stop.
            Err(error) if error.is_session_lost() => None,
            Err(error) => {
                assert!(error.is_unavailable(), "{error}");
                None
            }
        };
        lock.is_some()
    });
    lock.expect("just locked")
}
