//! Is this a server whose locks hold? What is asked right after the authentication, and which
//! answers are good (measured with every server and pooler of which `README.md` speaks).
//!
//! A session-level advisory lock is worth something only on the primary itself, in a session that
//! is one server process from its beginning to its end. Three questions find out:
//!
//! * The *identity*: the process is the one that BackendKeyData announced, it is a primary, the
//!   engine is not known for locks that are none, and nobody marked this process before us. It is
//!   marked with a random token, and a lock is taken on a random key.
//! * The *confirmation*, after a ReadyForQuery, when a pooler may have moved us: the same process,
//!   our token, and `pg_locks` shows the lock.
//! * The *testimony* of a witness, a second short-lived connection: it runs in another process and
//!   cannot take the same lock.
//!
//! All names, operators and types are qualified with `pg_catalog`: a role's search path is not
//! trusted, and ours is set only on a server that has passed.

use super::fault::{Unsuitable, Violation};
use super::fields::printable;

/// The random token and key that mark a session.
#[derive(Clone)]
pub struct Mark {
    token: String,
    /// The key that is locked while the session is looked at.
    pub key: i64,
}

/// How many random bytes a [`Mark`] is made of.
pub const MARK_ENTROPY: usize = 24;

/// What a witness is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The process of the session that holds the key.
    pub process_id: i32,
    /// The key.
    pub key: i64,
}

/// What the server said about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The server process.
    pub process_id: i32,
    /// Whether `pg_locks` shows each advisory lock once. YugabyteDB shows its own view.
    lists_locks: bool,
    /// How many locks the server's table has room for, where it says so.
    pub lock_table: Option<u64>,
}

/// What the identity is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Expectation {
    /// The process of BackendKeyData, where there was one.
    pub announced: Option<i32>,
    /// Whether a proxy may stand between that keeps each session on one server process.
    pub session_affine: bool,
    /// Whether the session has to be able to write (`target_session_attrs=read-write`).
    pub read_write: bool,
}

/// Takes the token, the key and [`Expectation::process`], all as text.
///
/// Nothing is changed in a process that will not do anyway: it is not marked if it is not the
/// announced one, and not locked in if somebody else's mark is there. (The two are evaluated in
/// whatever order, so that the lock knows our own mark, too.)
pub const IDENTITY: &str = "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text, \
    pg_catalog.version()::pg_catalog.text, \
    pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
    coalesce(pg_catalog.current_setting('distlock.session', true), ''), \
    CASE WHEN $3 OPERATOR(pg_catalog.=) '' \
    OR $3 OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()::pg_catalog.text \
    THEN CASE WHEN coalesce(pg_catalog.current_setting('distlock.session', true), '') \
    OPERATOR(pg_catalog.=) '' \
    THEN pg_catalog.set_config('distlock.session', $1, false) ELSE '' END ELSE '' END, \
    CASE WHEN $3 OPERATOR(pg_catalog.=) '' \
    OR $3 OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()::pg_catalog.text \
    THEN CASE WHEN coalesce(pg_catalog.current_setting('distlock.session', true), '') \
    OPERATOR(pg_catalog.=) '' \
    OR pg_catalog.current_setting('distlock.session', true) OPERATOR(pg_catalog.=) $1 \
    THEN pg_catalog.pg_try_advisory_lock($2::pg_catalog.int8)::pg_catalog.text \
    ELSE 'false' END ELSE 'false' END, \
    coalesce(pg_catalog.current_setting('transaction_read_only', true), ''), \
    coalesce(pg_catalog.current_setting('max_locks_per_transaction', true), ''), \
    coalesce(pg_catalog.current_setting('max_connections', true), ''), \
    coalesce(pg_catalog.current_setting('max_prepared_transactions', true), '')";

/// How many columns it returns.
pub const IDENTITY_COLUMNS: u16 = 10;

/// Takes the key as text.
pub const CONFIRMATION: &str = "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text, \
    coalesce(pg_catalog.current_setting('distlock.session', true), ''), \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
    WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
    AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
    AND granted AND mode OPERATOR(pg_catalog.=) 'ExclusiveLock' \
    AND objsubid OPERATOR(pg_catalog.=) 1 \
    AND database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database \
    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
    AND ((classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32) \
    OPERATOR(pg_catalog.|) objid::pg_catalog.int8) \
    OPERATOR(pg_catalog.=) $1::pg_catalog.int8)::pg_catalog.text";

/// How many columns it returns.
pub const CONFIRMATION_COLUMNS: u16 = 3;

/// Takes the key as text.
pub const TESTIMONY: &str = "SELECT pg_catalog.pg_backend_pid()::pg_catalog.text, \
    pg_catalog.pg_try_advisory_lock($1::pg_catalog.int8)::pg_catalog.text";

/// How many columns it returns.
pub const TESTIMONY_COLUMNS: u16 = 2;

/// Words in `version()` of engines that speak the protocol and whose session-level advisory locks
/// do not exclude.
const ENGINES: [(&str, &str); 7] = [
    ("CockroachDB", COCKROACH),
    ("PGlite", "PGlite, which runs all connections in one session"),
    ("Redshift", "Redshift, which has no advisory locks"),
    ("Materialize", "Materialize, which has no advisory locks"),
    ("RisingWave", "RisingWave, which has no advisory locks"),
    ("QuestDB", "QuestDB, which has no advisory locks"),
    ("Spanner", "Spanner, which has no advisory locks"),
];

/// How CockroachDB is called in errors.
pub const COCKROACH: &str =
    "CockroachDB, whose session-level advisory locks are stubs that always succeed";

/// In `version()` of YugabyteDB.
const YUGABYTE: &str = "-YB-";

/// The ParameterStatus by which CockroachDB shows itself before the first statement.
pub const COCKROACH_PARAMETER: &[u8] = b"crdb_version";

impl Expectation {
    /// The process that the session has to be with, as text; empty if it may be any.
    pub fn process(&self) -> String {
        match (self.session_affine, self.announced) {
            (true, _) => String::new(),
            (false, Some(process_id)) => process_id.to_string(),
            (false, None) => "none".into(),
        }
    }
}

impl Mark {
    /// A mark out of fresh randomness.
    pub fn new(entropy: [u8; MARK_ENTROPY]) -> Self {
        let (token, key) = entropy.split_at(MARK_ENTROPY - 8);
        let token = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = key.iter().fold(0, |key: i64, byte| key << 8 | i64::from(*byte));
        Self { token, key }
    }

    /// The first parameters of [`IDENTITY`]; the second one is that of [`CONFIRMATION`], too.
    pub fn parameters(&self) -> [String; 2] {
        [self.token.clone(), self.key.to_string()]
    }

    /// Checks the row of [`IDENTITY`].
    ///
    /// # Errors
    ///
    /// [`Unsuitable`] when locks on this session would not be safe, a [`Violation`] when the row is
    /// not one that the statement can return.
    pub fn identify<'a>(
        &self,
        expected: Expectation,
        row: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Result<Identity, Unsuitable>, Violation> {
        let mut row = Row { values: row, what: "not the answer to the question who the server is" };
        let process_id = row.number()?;
        let version = row.text()?;
        if let Err(unsuitable) = check_engine(version) {
            return Ok(Err(unsuitable));
        }
        if row.boolean()? {
            return Ok(Err(Unsuitable::Standby));
        }
        match expected.announced {
            _ if expected.session_affine => {}
            Some(announced) if announced == process_id => {}
            Some(announced) => {
                return Ok(Err(Unsuitable::Pooler { announced, actual: process_id }));
            }
            None => return Ok(Err(Unsuitable::Unannounced)),
        }
        if !row.text()?.is_empty() {
            return Ok(Err(Unsuitable::Shared(
                "its server process was used by another one before",
            )));
        }
        if row.text()? != self.token {
            return Ok(Err(Unsuitable::Shared("a setting of the session was not kept")));
        }
        if !row.boolean()? {
            return Ok(Err(Unsuitable::Fake("a lock on a random key was refused")));
        }
        if row.text()? != "off" && expected.read_write {
            return Ok(Err(Unsuitable::ReadOnly));
        }
        let sizes = [row.text()?, row.text()?, row.text()?].map(|text| text.parse::<u64>().ok());
        let lock_table = match sizes {
            [Some(locks), Some(connections), Some(prepared)] => {
                Some(locks.saturating_mul(connections.saturating_add(prepared)))
            }
            _ => None,
        };
        Ok(Ok(Identity { process_id, lists_locks: !version.contains(YUGABYTE), lock_table }))
    }

    /// Checks the row of [`CONFIRMATION`].
    ///
    /// # Errors
    ///
    /// As for [`Mark::identify`].
    pub fn confirm<'a>(
        &self,
        identity: Identity,
        row: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Result<(), Unsuitable>, Violation> {
        let mut row = Row { values: row, what: "not the answer to the question where the lock is" };
        if row.number()? != identity.process_id {
            return Ok(Err(Unsuitable::Shared("it was moved to another server process")));
        }
        if row.text()? != self.token {
            return Ok(Err(Unsuitable::Shared("a setting of the session was lost")));
        }
        if row.text()? != "1" && identity.lists_locks {
            return Ok(Err(Unsuitable::Fake("pg_locks does not show a lock that was granted")));
        }
        Ok(Ok(()))
    }
}

impl Question {
    /// The parameter of [`TESTIMONY`].
    pub fn parameter(&self) -> String {
        self.key.to_string()
    }

    /// Checks the row of [`TESTIMONY`].
    ///
    /// # Errors
    ///
    /// As for [`Mark::identify`].
    pub fn judge<'a>(
        &self,
        row: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Result<(), Unsuitable>, Violation> {
        let mut row = Row { values: row, what: "not the testimony of the second connection" };
        if row.number()? == self.process_id {
            return Ok(Err(Unsuitable::Shared("a second connection runs in the same process")));
        }
        if row.boolean()? {
            return Ok(Err(Unsuitable::Fake("a second connection could take the same lock")));
        }
        Ok(Ok(()))
    }
}

fn check_engine(version: &str) -> Result<(), Unsuitable> {
    match ENGINES.iter().find(|(word, _)| version.contains(word)) {
        Some((_, what)) => Err(Unsuitable::Engine(what)),
        None if version.contains("PostgreSQL") => Ok(()),
        None => Err(Unsuitable::Version(printable(version.as_bytes(), 64))),
    }
}

/// The values of a row, one after the other.
struct Row<I> {
    values: I,
    what: &'static str,
}

impl<'a, I: Iterator<Item = Option<&'a [u8]>>> Row<I> {
    fn text(&mut self) -> Result<&'a str, Violation> {
        let value = self.values.next().flatten();
        value.and_then(|value| std::str::from_utf8(value).ok()).ok_or_else(|| self.malformed())
    }

    fn number(&mut self) -> Result<i32, Violation> {
        self.text()?.parse().map_err(|_| self.malformed())
    }

    fn boolean(&mut self) -> Result<bool, Violation> {
        match self.text()? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.malformed()),
        }
    }

    fn malformed(&self) -> Violation {
        Violation::Malformed { message: "DataRow", what: self.what }
    }
}

impl std::fmt::Debug for Mark {
    /// The token is not shown: who knows it could pass for this session.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mark").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: Expectation =
        Expectation { announced: Some(77), session_affine: false, read_write: false };

    fn mark() -> Mark {
        let mut entropy = [0xab; MARK_ENTROPY];
        entropy[16..].copy_from_slice(&(-2_i64).to_be_bytes());
        Mark::new(entropy)
    }

    fn row<'a>(values: &'a [&'a str]) -> impl Iterator<Item = Option<&'a [u8]>> {
        values.iter().map(|value| Some(value.as_bytes()))
    }

    const TOKEN: &str = "abababababababababababababababab";

    /// What PostgreSQL 15.18 returned, but for the token.
    const ROW: [&str; 10] = [
        "77",
        "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu",
        "false",
        "",
        TOKEN,
        "true",
        "off",
        "64",
        "100",
        "0",
    ];

    #[test]
    fn a_mark_is_a_token_in_hexadecimal_and_a_key() {
        assert_eq!(mark().parameters(), [TOKEN.to_owned(), "-2".to_owned()]);
        assert!(!format!("{:?}", mark()).contains(TOKEN));
    }

    #[test]
    fn a_primary_is_good_and_tells_the_size_of_its_lock_table() {
        let identity = mark().identify(DIRECT, row(&ROW)).unwrap().unwrap();
        assert_eq!(identity.lock_table, Some(6_400));
        assert_eq!(mark().confirm(identity, row(&["77", TOKEN, "1"])), Ok(Ok(())));
        let mut quiet = ROW;
        quiet[8] = "";
        let identity = mark().identify(DIRECT, row(&quiet)).unwrap().unwrap();
        assert_eq!(identity.lock_table, None);
    }

    #[test]
    fn whatever_makes_a_lock_worthless_is_refused() {
        let rows: [(usize, &str, &str); 8] = [
            (0, "78", "the session was opened with process 77 and runs in process 78"),
            (1, "CockroachDB CCL v26.2 (PostgreSQL compatible)", "CockroachDB, whose"),
            (1, "PostgreSQL 17.4 (PGlite 0.5) on emscripten", "one session"),
            (1, "MySQL 8", "its version is 'MySQL 8'"),
            (2, "true", "standby"),
            (3, TOKEN, "was used by another one before"),
            (4, "x", "was not kept"),
            (5, "false", "was refused"),
        ];
        for (place, value, expected) in rows {
            let mut bad = ROW;
            bad[place] = value;
            let refused = mark().identify(DIRECT, row(&bad)).unwrap().unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let unannounced = Expectation { announced: None, ..DIRECT };
        assert_eq!(mark().identify(unannounced, row(&ROW)), Ok(Err(Unsuitable::Unannounced)));
    }

    #[test]
    fn a_read_only_session_is_refused_only_where_it_has_to_write() {
        let mut read_only = ROW;
        read_only[6] = "on";
        assert!(mark().identify(DIRECT, row(&read_only)).unwrap().is_ok());
        let strict = Expectation { read_write: true, ..DIRECT };
        assert_eq!(mark().identify(strict, row(&read_only)), Ok(Err(Unsuitable::ReadOnly)));
        assert!(mark().identify(strict, row(&ROW)).unwrap().is_ok());
    }

    #[test]
    fn a_proxy_with_session_affinity_may_announce_any_process_but_must_pass_the_rest() {
        for announced in [None, Some(-5)] {
            let expected = Expectation { announced, session_affine: true, read_write: false };
            assert!(mark().identify(expected, row(&ROW)).unwrap().is_ok());
            let mut used = ROW;
            used[3] = "someone";
            assert!(mark().identify(expected, row(&used)).unwrap().is_err());
        }
    }

    #[test]
    fn a_session_that_moved_or_forgot_is_refused() {
        let identity = mark().identify(DIRECT, row(&ROW)).unwrap().unwrap();
        let bad = [["78", TOKEN, "1"], ["77", "", "1"], ["77", TOKEN, "0"]];
        for values in bad {
            assert!(matches!(mark().confirm(identity, row(&values)), Ok(Err(_))), "{values:?}");
        }
    }

    #[test]
    fn yugabyte_need_not_list_the_lock() {
        let mut yugabyte = ROW;
        yugabyte[1] = "PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64";
        let identity = mark().identify(DIRECT, row(&yugabyte)).unwrap().unwrap();
        assert_eq!(mark().confirm(identity, row(&["77", TOKEN, "0"])), Ok(Ok(())));
    }

    #[test]
    fn a_witness_must_run_elsewhere_and_be_refused() {
        let question = Question { process_id: 77, key: 5 };
        assert_eq!(question.judge(row(&["78", "false"])), Ok(Ok(())));
        for values in [["77", "false"], ["78", "true"], ["77", "true"]] {
            assert!(matches!(question.judge(row(&values)), Ok(Err(_))), "{values:?}");
        }
    }

    #[test]
    fn a_row_of_something_else_is_a_violation() {
        let identity = mark().identify(DIRECT, row(&ROW)).unwrap().unwrap();
        for length in 0..ROW.len() {
            assert!(mark().identify(DIRECT, row(&ROW[..length])).is_err(), "{length}");
        }
        for place in [0, 2, 5] {
            let mut bad = ROW;
            bad[place] = "t";
            assert!(mark().identify(DIRECT, row(&bad)).is_err(), "{place}");
        }
        assert!(mark().confirm(identity, row(&["x"])).is_err());
        assert!(Question { process_id: 1, key: 1 }.judge(row(&["2", "maybe"])).is_err());
    }
}
