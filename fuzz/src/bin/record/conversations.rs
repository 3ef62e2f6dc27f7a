//! What is said in a ready session: scripts as in `src/script.rs`, all in one write, and what other
//! sessions do beside it.

use std::thread;
use std::time::Duration;

use distlock::proto::frontend::KeyParameters;
use distlock_fuzz::script::*;
use distlock_fuzz::statements::{channel, first_slot, gate, waiters};

use super::support::{Sql, TempCluster, wait_until};
use super::{Connection, Seeds};

/// The key that most of it is about.
const KEY: KeyParameters = KeyParameters::Bigint(KEYS[0]);

/// The one with the next number.
const OTHER: KeyParameters = KeyParameters::Bigint(KEYS[1]);

/// A counted lock's first key as the scripts have it.
const FIRST: KeyParameters = KeyParameters::Bigint(KEYS[0] & !0x3ff);

const LIMIT: Duration = Duration::from_secs(10);

pub fn all(cluster: &TempCluster, seeds: &mut Seeds<'_>) {
    let mut stage = Stage { cluster, observer: cluster.sql(), seeds };
    stage.alone();
    stage.with_others();
    stage.with_failures();
    stage.with_holders();
}

struct Stage<'a, 'b> {
    cluster: &'a TempCluster,
    /// A superuser's.
    observer: Sql,
    seeds: &'a mut Seeds<'b>,
}

impl Stage<'_, '_> {
    /// Nobody else has to do with the keys.
    fn alone(&mut self) {
        let [one, two, three] = [1, 2, 3].map(|number| of_key(number, TRY_LOCK));
        let many = [TRY_LOCK, one, two, three, SYNC];
        let many = [&many[..], &[1, 2, 3].map(|number| of_key(number, UNLOCK)), &[SYNC, SYNC]];
        let listen = of_channel(channel(KEY), LISTEN);
        let unlisten = of_channel(channel(KEY), UNLISTEN);
        for (name, script) in [
            ("heartbeat", &[SYNC][..]),
            ("granted", &[TRY_LOCK, UNLOCK, SYNC]),
            ("granted_pair", &[TRY_LOCK | PAIR, UNLOCK | PAIR, SYNC]),
            ("twice", &[TRY_LOCK, TRY_LOCK, SYNC, UNLOCK, UNLOCK, SYNC]),
            ("not_held", &[UNLOCK, UNLOCK | PAIR, SYNC]),
            ("denied", &[RELEASE, SYNC]),
            ("many", &many.concat()),
            (
                "shared",
                &[TRY_LOCK_SHARED, UNLOCK_SHARED, SHARE, RELEASE_SHARED, SHARE | PAIR, SYNC],
            ),
            ("quiet", &[TRY_LOCK, RELEASE, TRY_LOCK, DOWNGRADE, RELEASE_SHARED, SYNC]),
            ("waited", &[REGISTER, RETRY, CLEAR, REGISTER_SHARED, CLEAR_SHARED, SYNC]),
            ("notified", &[listen, WAKE, SYNC, unlisten, SYNC]),
            ("slots", &[TAKE_SLOT, RELEASE_SLOT, REGISTER_SLOTS, CLEAR_SLOTS, SYNC]),
            ("fenced", &[FENCE, TOKEN, FENCE | PAIR, SYNC]),
            ("run", &[of_key(3, TRY_RUN), of_key(3, RELEASE_RUN), SYNC]),
            ("swaps", &[TRY_LOCK, SWAP, of_key(1, SWAP | PAIR), of_key(1, SWAP), SYNC]),
            ("swap_denied", &[SWAP, SYNC]),
        ] {
            self.say(name, script);
        }
    }

    /// The observer holds what is asked for, or waits for it.
    fn with_others(&mut self) {
        for (name, script, function, key) in [
            (
                "refused",
                &[TRY_LOCK, TRY_LOCK | PAIR, TRY_LOCK_SHARED, SHARE, FENCE, SYNC][..],
                "pg_advisory_lock",
                KEY,
            ),
            ("gated", &[REGISTER, RETRY, OPEN_GATE, CLEAR, SYNC], "pg_advisory_lock", KEY),
            ("shut", &[SHARE, REGISTER_SHARED, CLEAR_SHARED, SYNC], "pg_advisory_lock", gate(KEY)),
            ("probed", &[REGISTER, REGISTER_SHARED, SYNC], "pg_advisory_lock", waiters(KEY)),
            ("slots_taken", &[TAKE_SLOT, REGISTER_SLOTS, SYNC], "pg_advisory_lock", FIRST),
            ("slots_probed", &[REGISTER_SLOTS, SYNC], "pg_advisory_lock", waiters(FIRST)),
            (
                "told",
                &[TRY_LOCK, RELEASE, TRY_LOCK, DOWNGRADE, RELEASE_SHARED, SYNC],
                "pg_advisory_lock_shared",
                waiters(KEY),
            ),
            ("run_refused", &[of_key(3, TRY_RUN), SYNC], "pg_advisory_lock", KEY),
            ("swap_refused", &[TRY_LOCK, SWAP, SYNC], "pg_advisory_lock", OTHER),
            (
                "run_told",
                &[of_key(1, TRY_RUN), of_key(1, RELEASE_RUN), TRY_LOCK, SWAP, SYNC],
                "pg_advisory_lock_shared",
                waiters(KEY),
            ),
        ] {
            self.observer.query(&format!("SELECT {function}({})", sql(key)));
            self.say(name, script);
            self.observer.query("SELECT pg_advisory_unlock_all()");
        }
    }

    fn with_failures(&mut self) {
        // The lock table gets full: the first fails, the others of its batch are skipped.
        let script =
            [TRY_LOCK, of_key(1, TRY_LOCK), of_key(2, TRY_LOCK | PAIR), SYNC, UNLOCK, SYNC];
        for (name, script) in
            [("table_full", &script[..]), ("run_full", &[of_key(3, TRY_RUN), TRY_LOCK, SYNC])]
        {
            self.say_after(name, script, |stage| {
                let full =
                    "SELECT pg_advisory_lock_shared(n) FROM generate_series(1000, 1000000) n";
                stage.observer.try_query(full).expect_err("more locks than there is room for");
            });
            self.observer.query("SELECT pg_advisory_unlock_all()");
        }
        let script = [TRY_LOCK, SYNC];
        self.say_after("terminated", &script, |stage| {
            stage.observer.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'trusted'",
            );
            stage.wait_until_all_have_left();
        });
        self.say_after("parameter", &script, |stage| {
            stage.observer.query("ALTER SYSTEM SET timezone = 'Europe/Vienna'");
            stage.observer.query("SELECT pg_reload_conf()");
            // Another session: it reads the file whenever it comes to it.
            let mut sql = stage.cluster.sql();
            let shown = "SELECT setting FROM pg_settings WHERE name = 'TimeZone'";
            wait_until("the server has read it", LIMIT, || {
                sql.value(shown).as_deref() == Some("Europe/Vienna")
            });
        });
        let function = "EXECUTE ON FUNCTION pg_stat_get_activity(int)";
        self.observer.query(&format!("REVOKE {function} FROM PUBLIC"));
        self.say("holders_not_allowed", &[HOLDERS, TRY_LOCK, SYNC]);
        self.observer.query(&format!("GRANT {function} TO PUBLIC"));
        // The release alone would be allowed.
        let function = "EXECUTE ON FUNCTION pg_try_advisory_lock(bigint)";
        self.say_after("swap_not_allowed", &[SWAP, SYNC, RELEASE, SYNC], |stage| {
            stage.observer.query(&format!("REVOKE {function} FROM PUBLIC"));
        });
        self.observer.query(&format!("GRANT {function} TO PUBLIC"));
    }

    /// Who holds a key is asked while nobody does, some, and more than are listed.
    fn with_holders(&mut self) {
        self.say("nobody", &[HOLDERS, SYNC]);
        self.say("own", &[TRY_LOCK | PAIR, HOLDERS | PAIR, SYNC]);
        let (mut neighbour, _) = Connection::open(self.cluster, "trusted", "postgres");
        neighbour.submit(&[TRY_LOCK_SHARED, REGISTER_SHARED, SYNC]);
        neighbour.run();
        self.observer.query(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock_shared({}); PREPARE TRANSACTION 'kept'; \
             SELECT pg_advisory_lock_shared({}), pg_advisory_lock({} + 7)",
            sql(KEY),
            sql(KEY),
            sql(first_slot(KEY))
        ));
        let mut blocked = self.cluster.sql();
        let lock = format!("SELECT pg_advisory_lock({})", sql(KEY));
        let blocked = thread::spawn(move || blocked.query(&lock));
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        wait_until("it waits", LIMIT, || self.observer.value(waits).as_deref() == Some("1"));
        self.say_beside("some", &[HOLDERS, TRY_LOCK_SHARED, SYNC]);
        drop(neighbour);
        self.observer.query("ROLLBACK PREPARED 'kept'");
        self.observer.query("SELECT pg_advisory_unlock_all()");
        blocked.join().expect("it got the key");
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        wait_until("all is free", LIMIT, || self.observer.value(held).as_deref() == Some("0"));
        self.observer.query(&format!(
            "SELECT pg_advisory_lock({} + n) FROM generate_series(0, 39) n",
            sql(first_slot(KEY))
        ));
        self.say("crowd", &[HOLDERS, SYNC]);
        self.observer.query("SELECT pg_advisory_unlock_all()");
    }

    fn say(&mut self, name: &str, script: &[u8]) {
        self.say_after(name, script, |_| ());
    }

    /// The same once something has happened in the ready session's presence.
    fn say_after(&mut self, name: &str, script: &[u8], before: impl FnOnce(&mut Self)) {
        // What the last one held is free then.
        self.wait_until_all_have_left();
        let (mut connection, _) = Connection::open(self.cluster, "trusted", "postgres");
        before(self);
        connection.submit(script);
        self.seeds.ready(name, script, &connection.run());
    }

    /// The same while another session of the same role stays.
    fn say_beside(&mut self, name: &str, script: &[u8]) {
        let (mut connection, _) = Connection::open(self.cluster, "trusted", "postgres");
        connection.submit(script);
        self.seeds.ready(name, script, &connection.run());
    }

    fn wait_until_all_have_left(&mut self) {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'trusted'";
        wait_until("all have left", LIMIT, || self.observer.value(left).as_deref() == Some("0"));
    }
}

/// A key as the parameters of a lock function.
fn sql(key: KeyParameters) -> String {
    match key {
        KeyParameters::Bigint(number) => number.to_string(),
        KeyParameters::Pair(high, low) => format!("{high}, {low}"),
    }
}
