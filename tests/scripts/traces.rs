//! What of the scripts' locks the server has, by `pg_locks`.

use std::thread;
use std::time::{Duration, Instant};

use distlock::{Key, Manager};

use crate::forms::{Ask, KEYS, Place, slots};
use crate::support::Sql;

/// One advisory lock on the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trace {
    at: At,
    pid: i32,
    mode: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Known(Place),
    /// Neither a key nor a slot: `objsubid`, `classid` and `objid`. Such is what waiters hold
    /// beside a key, and nobody waits when this is looked at.
    Else(Numbers),
}

impl Trace {
    fn is_registration(&self) -> bool {
        matches!(self.at, At::Else(_)) && self.mode == "ShareLock"
    }
}

/// `objsubid`, `classid` and `objid` (manual: view-pg-locks); the latter two are unsigned.
type Numbers = [i64; 3];

/// Nobody stays registered for so long, on however slow a machine.
const STAY_MAX: Duration = Duration::from_secs(20);

/// Looks at the server.
pub(crate) struct Observer {
    sql: Sql,
    /// Of each key the first of its slots.
    slots: [Numbers; KEYS.len()],
}

impl Observer {
    /// Learns where the slots are, by locking the first one of each key.
    pub(crate) fn new(mut sql: Sql, manager: &Manager) -> Self {
        let slots = std::array::from_fn(|key| {
            let lock = manager.acquire(KEYS[key]).slots(slots(key)).wait().expect("it is free");
            let locked = advisory_locks(&mut sql);
            lock.unlock().expect("it was held");
            assert_eq!(locked.len(), 1, "nothing else is locked: {locked:?}");
            locked[0].0
        });
        Self { sql, slots }
    }

    /// The pid of the manager's session.
    pub(crate) fn pid_of(&mut self, manager: &Manager) -> i32 {
        let lock = manager.acquire(KEYS[0]).wait().expect("it is free");
        let locked = advisory_locks(&mut self.sql);
        lock.unlock().expect("it was held");
        let held = locked.iter().find(|(at, ..)| *at == numbers_of(KEYS[0]));
        held.expect("it is held").1
    }

    /// All advisory locks that the server has while nobody waits, in their order. Who has just had
    /// a key stays registered as a waiter for a moment, and not for longer.
    pub(crate) fn traces_at_rest(&mut self) -> Vec<Trace> {
        let mut traces = self.traces();
        let begin = Instant::now();
        while begin.elapsed() < STAY_MAX && traces.iter().any(Trace::is_registration) {
            thread::sleep(Duration::from_millis(1));
            traces = self.traces();
        }
        traces
    }

    fn traces(&mut self) -> Vec<Trace> {
        let locked = advisory_locks(&mut self.sql).into_iter();
        let traces = locked.map(|(at, pid, mode)| Trace { at: self.place(at), pid, mode });
        let mut traces: Vec<Trace> = traces.collect();
        traces.sort();
        traces
    }

    fn place(&self, at: Numbers) -> At {
        let key = KEYS.iter().position(|key| numbers_of(*key) == at);
        let is_slot = |key: &usize| {
            let [kind, high, first] = self.slots[*key];
            (first..first + i64::from(slots(*key))).any(|low| at == [kind, high, low])
        };
        let slot = || (0..KEYS.len()).find(is_slot).map(Place::Slot);
        key.map(Place::Key).or_else(slot).map_or(At::Else(at), At::Known)
    }
}

/// What `pg_locks` shows of what the backends with these pids hold, in its order.
pub(crate) fn expected(held: impl Iterator<Item = (Ask, i32)>) -> Vec<Trace> {
    let mut traces = Vec::new();
    for (ask, pid) in held {
        for place in ask.places() {
            let trace = Trace { at: At::Known(place), pid, mode: ask.form.mode().to_owned() };
            // Those who share a key in one session share its lock; slots are locks of their own.
            if matches!(place, Place::Slot(_)) || !traces.contains(&trace) {
                traces.push(trace);
            }
        }
    }
    traces.sort();
    traces
}

fn advisory_locks(sql: &mut Sql) -> Vec<(Numbers, i32, String)> {
    let rows = sql.query(
        "SELECT objsubid, classid::bigint, objid::bigint, pid, mode FROM pg_locks \
         WHERE locktype = 'advisory' AND granted",
    );
    let number = |field: &Option<String>| {
        field.as_deref().and_then(|field| field.parse().ok()).expect("a number")
    };
    let rows = rows.into_iter().map(|row| {
        let at = [number(&row[0]), number(&row[1]), number(&row[2])];
        let pid = i32::try_from(number(&row[3])).expect("a pid");
        (at, pid, row[4].clone().unwrap_or_default())
    });
    rows.collect()
}

fn numbers_of(key: Key) -> Numbers {
    let (kind, high, low) = match key {
        Key::Bigint(key) => (1, (key >> 32) as u32, key as u32),
        Key::Pair(high, low) => (2, high as u32, low as u32),
    };
    [kind, i64::from(high), i64::from(low)]
}
