//! The texts of the lock statements. `$1` is the key and so on, in the order of
//! [`Statement::parameters`](super::Statement).

use super::companion::CHANNELS;

/// A text for each key space: what stands for the key, its waiters key, its gate, and the payload
/// of a notification.
macro_rules! both {
    ($text:ident) => {
        [
            $text!("$1", "$2, $3", "$4, $5", "$1::text"),
            $text!("$1, $2", "$3", "$4", "$1::text || ',' || $2::text"),
        ]
    };
}

/// If somebody waits, the probe of the waiters key fails. Both key spaces have the number that
/// chooses the channel in `$3`.
macro_rules! told {
    ($w:literal, $payload:literal) => {
        told!($w, $payload, "$3")
    };
    ($w:literal, $payload:literal, $low:literal) => {
        concat!(
            " WHEN pg_try_advisory_lock(",
            $w,
            ") THEN CASE WHEN pg_advisory_unlock(",
            $w,
            ") THEN 'q'::\"char\" ELSE 'x' END WHEN pg_notify('distlock_' || (",
            $low,
            " & 7), ",
            $payload,
            ") IS NULL THEN 'x' ELSE 'k' END"
        )
    };
}
pub(super) const TRY: [&str; 2] =
    ["SELECT pg_try_advisory_lock($1)", "SELECT pg_try_advisory_lock($1, $2)"];
pub(super) const UNLOCK: [&str; 2] =
    ["SELECT pg_advisory_unlock($1)", "SELECT pg_advisory_unlock($1, $2)"];

macro_rules! try_shared {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!("SELECT pg_try_advisory_lock_shared(", $k, ")")
    };
}
macro_rules! unlock_shared {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!("SELECT pg_advisory_unlock_shared(", $k, ")")
    };
}
macro_rules! share {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_try_advisory_lock_shared(",
            $g,
            ") THEN false ",
            "WHEN pg_advisory_unlock_shared(",
            $g,
            ") THEN pg_try_advisory_lock_shared(",
            $k,
            ") END"
        )
    };
}
macro_rules! register {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_try_advisory_lock_shared(",
            $w,
            ") THEN 'r'::\"char\" ",
            "WHEN pg_try_advisory_lock(",
            $k,
            ") THEN 'a' ",
            "WHEN pg_try_advisory_lock(",
            $g,
            ") THEN 'g' ELSE 'w' END"
        )
    };
}
macro_rules! register_shared {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_try_advisory_lock_shared(",
            $w,
            ") THEN 'r'::\"char\" ",
            "WHEN NOT pg_try_advisory_lock_shared(",
            $g,
            ") THEN 'w' ",
            "WHEN NOT pg_advisory_unlock_shared(",
            $g,
            ") THEN 'x' ",
            "WHEN pg_try_advisory_lock_shared(",
            $k,
            ") THEN 'a' ELSE 'w' END"
        )
    };
}
macro_rules! retry {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN pg_try_advisory_lock(",
            $k,
            ") THEN 'a'::\"char\" ",
            "WHEN pg_try_advisory_lock(",
            $g,
            ") THEN 'g' ELSE 'w' END"
        )
    };
}
macro_rules! release {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_advisory_unlock(",
            $k,
            ") THEN 'n'::\"char\"",
            told!($w, $p)
        )
    };
}
macro_rules! release_shared {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_advisory_unlock_shared(",
            $k,
            ") THEN 'n'::\"char\"",
            told!($w, $p)
        )
    };
}
macro_rules! downgrade {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_try_advisory_lock_shared(",
            $k,
            ") THEN 'w'::\"char\" ",
            "WHEN NOT pg_advisory_unlock(",
            $k,
            ") THEN 'n'",
            told!($w, $p)
        )
    };
}
macro_rules! open_gate {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_advisory_unlock(",
            $g,
            ") THEN 'n'::\"char\"",
            told!($w, $p)
        )
    };
}
macro_rules! wake {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!("SELECT pg_notify('distlock_' || ($3 & 7), ", $p, ") IS NOT NULL")
    };
}
/// A waiter may have seen what is let go of here. It is told by a statement of its own: this one
/// must not fail for want of what that takes, a permission, or of room in the server's lock table,
/// as there was none for what failed.
macro_rules! any {
    () => {
        " = 0 THEN 'q'::\"char\" ELSE 'k' END"
    };
}
macro_rules! clear {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN pg_advisory_unlock(",
            $k,
            ")::int + pg_advisory_unlock_shared(",
            $w,
            ")::int + pg_advisory_unlock(",
            $g,
            ")::int",
            any!()
        )
    };
}
/// A try to share also holds the gate for a moment.
macro_rules! clear_shared {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN pg_advisory_unlock_shared(",
            $k,
            ")::int + pg_advisory_unlock_shared(",
            $w,
            ")::int + pg_advisory_unlock(",
            $g,
            ")::int + pg_advisory_unlock_shared(",
            $g,
            ")::int",
            any!()
        )
    };
}
macro_rules! timeline {
    () => {
        "CASE WHEN NOT pg_is_in_recovery() THEN \
         substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END"
    };
}
/// The timeline is that of the log's name, not of the last checkpoint: that one is late after a
/// promotion. The CASE of the first column has to come before it is asked for.
macro_rules! fence {
    ($k:literal, $w:literal, $g:literal, $p:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_is_in_recovery() AND pg_try_advisory_lock(",
            $k,
            ") THEN pg_logical_emit_message(true, 'distlock', '') END, ",
            timeline!()
        )
    };
}
pub(super) const TRY_SHARED: [&str; 2] = both!(try_shared);
pub(super) const UNLOCK_SHARED: [&str; 2] = both!(unlock_shared);
pub(super) const SHARE: [&str; 2] = both!(share);
pub(super) const REGISTER: [&str; 2] = both!(register);
pub(super) const REGISTER_SHARED: [&str; 2] = both!(register_shared);
pub(super) const RETRY: [&str; 2] = both!(retry);
pub(super) const RELEASE: [&str; 2] = both!(release);
pub(super) const RELEASE_SHARED: [&str; 2] = both!(release_shared);
pub(super) const DOWNGRADE: [&str; 2] = both!(downgrade);
pub(super) const OPEN_GATE: [&str; 2] = both!(open_gate);
pub(super) const WAKE: [&str; 2] = both!(wake);
pub(super) const CLEAR: [&str; 2] = both!(clear);
pub(super) const CLEAR_SHARED: [&str; 2] = both!(clear_shared);
pub(super) const FENCE: [&str; 2] = both!(fence);

/// Keys in an array. The rows of a function come in the order of its array, and each is made, with
/// what it calls, when it is its turn.
pub(super) const TRY_RUN: &str = "SELECT pg_try_advisory_lock(k) FROM unnest($1) AS k";
/// Keys, and both numbers of their waiters keys.
pub(super) const RELEASE_RUN: &str = concat!(
    "SELECT CASE WHEN NOT pg_advisory_unlock(k) THEN 'n'::\"char\"",
    told!("a, b", "k::text", "b"),
    " FROM unnest($1, $2, $3) AS t(k, a, b)"
);

/// A release, and what it says in lower case; in upper case if the key that is tried then was free.
pub(super) const SWAP: &str = "SELECT CASE WHEN NOT pg_advisory_unlock($1) THEN 'n'::\"char\" \
     WHEN pg_try_advisory_lock($2, $3) \
     THEN CASE WHEN NOT pg_advisory_unlock($2, $3) THEN 'x'::\"char\" \
     WHEN pg_try_advisory_lock($4) THEN 'Q' ELSE 'q' END \
     WHEN pg_notify('distlock_' || ($3 & 7), $1::text) IS NULL THEN 'x' \
     WHEN pg_try_advisory_lock($4) THEN 'K' ELSE 'k' END";

/// A slot that is neither held here nor by others. The inner CASE keeps the order: a slot of ours
/// would be granted.
pub(super) const TAKE_SLOT: &str = "SELECT coalesce((SELECT s FROM generate_series(0, $4 - 1) s \
     WHERE CASE WHEN get_bit($5, s) = 0 THEN pg_try_advisory_lock($1 + s) ELSE false END \
     LIMIT 1), -1)";
pub(super) const REGISTER_SLOTS: &str = "SELECT CASE \
     WHEN NOT pg_try_advisory_lock_shared($2, $3) THEN -2 \
     ELSE coalesce((SELECT s FROM generate_series(0, $4 - 1) s \
     WHERE CASE WHEN get_bit($5, s) = 0 THEN pg_try_advisory_lock($1 + s) ELSE false END \
     LIMIT 1), -1) END";
pub(super) const CLEAR_SLOTS: &str = concat!(
    "SELECT CASE WHEN pg_advisory_unlock_shared($2, $3)::int + \
     (SELECT count(*) FROM generate_series(0, $4 - 1) s \
     WHERE CASE WHEN get_bit($5, s) = 0 THEN pg_advisory_unlock($1 + s) ELSE false END)",
    any!()
);

pub(super) const TOKEN: &str = concat!(
    "SELECT CASE WHEN NOT pg_is_in_recovery() \
     THEN pg_logical_emit_message(true, 'distlock', '') END, ",
    timeline!()
);

/// The answer is described in [`listing`](super::super::listing). `s` tells what a lock is to the
/// key: -1 the key's own, from 0 on a slot's, below -1 a registration as a waiter.
///
/// The view `pg_stat_activity` is not used, but the function that it is made of (manual:
/// monitoring-stats): the view also reads `pg_database` and `pg_authid`, for which a statement can
/// be made to wait (invariant I5). Of all that are found, only those that are told are looked up
/// there: `l` is read three times, which is why the server makes it once.
pub(super) const HOLDERS: &str = "WITH l AS (\
     SELECT *, row_number() OVER (ORDER BY holds DESC, s, pid) AS n FROM (\
     SELECT *, granted AND s >= -1 AS holds FROM (SELECT *, CASE \
     WHEN space = $2 AND key = $1 THEN -1 \
     WHEN space = 1 AND key & -1024 = $4 THEN key & 1023 \
     WHEN NOT granted OR mode <> 'ShareLock' THEN NULL \
     WHEN space = 2 AND key = $5 THEN -2 \
     WHEN space = 3 - $2 AND key = $3 THEN -3 END AS s FROM (\
     SELECT pid, mode, granted, objsubid AS space, classid::int8 << 32 | objid::int8 AS key \
     FROM pg_locks WHERE locktype = 'advisory' AND database = \
     (SELECT datid FROM pg_stat_get_activity(pg_backend_pid()))) AS advisory) AS placed \
     WHERE s IS NOT NULL) AS found) \
     SELECT int4send((SELECT count(*) FROM l WHERE holds)::int4) || \
     int4send((SELECT count(*) FROM l WHERE NOT holds)::int4) || \
     timestamptz_send(clock_timestamp()) || coalesce((SELECT string_agg(\
     int4send(coalesce(l.pid, 0)) || textsend(\
     CASE WHEN granted THEN CASE mode WHEN 'ShareLock' THEN 's' ELSE 'e' END \
     ELSE CASE mode WHEN 'ShareLock' THEN 'v' ELSE 'w' END END || \
     CASE WHEN l.pid = pg_backend_pid() THEN 'o' WHEN backend_start IS NULL THEN 'x' ELSE 'v' END) \
     || int2send(s::int2) || timestamptz_send(coalesce(backend_start, '-infinity')) || \
     timestamptz_send(coalesce(xact_start, '-infinity')) || \
     timestamptz_send(coalesce(query_start, '-infinity')) || \
     int4send(coalesce(client_port, -2)) || int2send(coalesce(length(address), -1)::int2) || \
     coalesce(address, '') || int2send(coalesce(length(name), -1)::int2) || \
     coalesce(name, ''), '' ORDER BY n) FROM l LEFT JOIN (\
     SELECT *, substr(inet_send(client_addr), 5) AS address, \
     substr(textsend(application_name), 1, 63) AS name FROM pg_stat_get_activity(NULL)) AS a \
     ON a.pid = l.pid WHERE n <= 32), '')";

pub(super) const LISTEN: [&str; CHANNELS as usize] = [
    "LISTEN distlock_0",
    "LISTEN distlock_1",
    "LISTEN distlock_2",
    "LISTEN distlock_3",
    "LISTEN distlock_4",
    "LISTEN distlock_5",
    "LISTEN distlock_6",
    "LISTEN distlock_7",
];
pub(super) const UNLISTEN: [&str; CHANNELS as usize] = [
    "UNLISTEN distlock_0",
    "UNLISTEN distlock_1",
    "UNLISTEN distlock_2",
    "UNLISTEN distlock_3",
    "UNLISTEN distlock_4",
    "UNLISTEN distlock_5",
    "UNLISTEN distlock_6",
    "UNLISTEN distlock_7",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The conditions of a CASE are evaluated in their order, and only as far as needed (manual:
    /// sql-expressions, "Expression Evaluation Rules"): when the look for waiters finds no room in
    /// the lock table, the key has been let go of. What that needs room for comes after it.
    #[test]
    fn a_release_lets_go_before_it_takes_room_in_the_lock_table() {
        for of_both_spaces in [RELEASE, RELEASE_SHARED, OPEN_GATE] {
            for text in of_both_spaces {
                check(text, "SELECT CASE WHEN NOT pg_advisory_unlock");
            }
        }
        // The first is about a key that the session has already: its place in the table is there.
        for text in DOWNGRADE {
            let rest = text.strip_prefix("SELECT CASE WHEN NOT pg_try_advisory_lock_shared($1");
            let (_, rest) = rest.and_then(|rest| rest.split_once(" WHEN ")).expect("a CASE");
            check(rest, "NOT pg_advisory_unlock($1");
        }
        check(RELEASE_RUN, "SELECT CASE WHEN NOT pg_advisory_unlock(k)");
        // The tries of the other key come behind that.
        let (release, _) = SWAP.split_once(" WHEN pg_try_advisory_lock($4)").expect("it tries");
        check(release, "SELECT CASE WHEN NOT pg_advisory_unlock($1)");
    }

    /// It can fail for no reason but that the role may not unlock, or was interrupted.
    #[test]
    fn what_clears_up_lets_go_and_does_nothing_else() {
        for text in [&CLEAR[..], &CLEAR_SHARED, &[CLEAR_SLOTS]].concat() {
            let calls = text.match_indices("pg_").map(|(at, _)| &text[at..]);
            assert!(calls.clone().count() > 1, "{text}");
            assert_eq!(calls.clone().find(|call| !call.starts_with("pg_advisory_unlock")), None);
        }
    }

    fn check(text: &str, beginning: &str) {
        let (before, after) = text.split_once(" WHEN pg_try_advisory_lock(").expect("it looks");
        assert!(before.starts_with(beginning), "{text}");
        assert!(!before.contains("pg_try_") && !after.contains("pg_try_"), "one look: {text}");
    }
}
