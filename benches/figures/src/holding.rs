//! Taking many locks, to hold them.

use distlock::{LockSet, Manager};

/// How many are asked for at once. After each transaction the server looks at all locks of its
/// session, which takes it milliseconds when they are many; the keys of a set share transactions.
const AT_ONCE: usize = 1_000;

/// So many locks with keys in a row.
pub(crate) fn lock_all(manager: &Manager, first: i64, count: u32) -> Vec<LockSet> {
    let keys: Vec<i64> = (first..first + i64::from(count)).collect();
    let lock = |keys: &[i64]| {
        let set = manager.acquire_all(keys.iter().copied()).try_now().expect("an answer");
        set.expect("they are free")
    };
    keys.chunks(AT_ONCE).map(lock).collect()
}
