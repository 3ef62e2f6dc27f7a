//! The session settings: what is set after connecting, and what must be read back (invariant I7).
//!
//! One statement sets everything and returns what the server made of it, so that a value that was
//! not taken is noticed. Settings are never sent in the StartupMessage: poolers refuse unknown ones
//! there.

use super::fault::{Unsuitable, Violation};
use super::fields::printable;

/// Values for the settings that depend on the configuration (manual: runtime-config-client,
/// runtime-config-connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// `lock_timeout`, in milliseconds. Nothing of ours waits for a lock, but for a commit that
    /// notifies, or a statement that is planned anew, while others have what it needs locked: an
    /// error in time is better than an answer that is overdue, which costs all locks.
    pub lock_timeout_ms: u32,
    /// `idle_session_timeout`, in milliseconds: after so long without a word from us the server
    /// ends the session and frees its locks. PostgreSQL 14 and later.
    pub idle_session_timeout_ms: u32,
    /// `tcp_keepalives_idle`, in seconds.
    pub tcp_keepalives_idle_s: u32,
    /// `tcp_keepalives_interval`, in seconds.
    pub tcp_keepalives_interval_s: u32,
    /// `tcp_keepalives_count`.
    pub tcp_keepalives_count: u32,
    /// `tcp_user_timeout`, in milliseconds. PostgreSQL 12 and later.
    pub tcp_user_timeout_ms: u32,
    /// `client_connection_check_interval`, in milliseconds. PostgreSQL 14 and later.
    pub client_connection_check_interval_ms: u32,
    /// What the server's end of the connection is.
    pub transport: Transport,
}

/// What the server's end of the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP: the server shows the TCP settings as they were set.
    Tcp,
    /// A Unix socket: the server shows the TCP settings as zero.
    Unix,
    /// A connection of a proxy: nobody here knows which of the two.
    Unknown,
}

/// The settings that every server has; `$1` to `$4`.
macro_rules! base {
    () => {
        "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false), \
         pg_catalog.set_config('statement_timeout', '0', false), \
         pg_catalog.set_config('lock_timeout', $1, false), \
         pg_catalog.set_config('synchronous_commit', 'on', false), \
         pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
         pg_catalog.set_config('tcp_keepalives_idle', $2, false), \
         pg_catalog.set_config('tcp_keepalives_interval', $3, false), \
         pg_catalog.set_config('tcp_keepalives_count', $4, false)"
    };
}

/// With the setting that PostgreSQL 12 added; `$5`.
macro_rules! since_12 {
    () => {
        concat!(base!(), ", pg_catalog.set_config('tcp_user_timeout', $5, false)")
    };
}

const STATEMENT_10: &str = base!();
const STATEMENT_12: &str = since_12!();
const STATEMENT_14: &str = concat!(
    since_12!(),
    ", pg_catalog.set_config('idle_session_timeout', $6, false), \
     pg_catalog.set_config('client_connection_check_interval', $7, false)"
);

/// The oldest major version that is served.
pub const OLDEST_SERVER: u32 = 10;

/// The first number of `server_version`, such as `15` of `15.18 (Debian 15.18-0+deb12u1)`.
///
/// # Errors
///
/// [`Unsuitable`] when it is older than what is served, or no version.
pub fn major_version(value: &[u8]) -> Result<u32, Unsuitable> {
    let digits = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    value
        .get(..digits)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .filter(|major| *major >= OLDEST_SERVER)
        .ok_or_else(|| Unsuitable::Version(printable(value, 64)))
}

/// The names of the settings, in the order of the columns.
const NAMES: [&str; 11] = [
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "synchronous_commit",
    // A role may have `serializable`, and with `deferrable` each statement would wait for others'.
    "default_transaction_isolation",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
    "idle_session_timeout",
    "client_connection_check_interval",
];

/// The statement for a server of this major version, and how many parameters it takes.
pub fn statement(major: u32) -> (&'static str, usize) {
    match major {
        ..12 => (STATEMENT_10, 4),
        12..14 => (STATEMENT_12, 5),
        14.. => (STATEMENT_14, 7),
    }
}

impl SessionSettings {
    /// The parameters of [`statement`], in order.
    pub fn parameters(&self) -> [String; 7] {
        [
            self.lock_timeout_ms,
            self.tcp_keepalives_idle_s,
            self.tcp_keepalives_interval_s,
            self.tcp_keepalives_count,
            self.tcp_user_timeout_ms,
            self.idle_session_timeout_ms,
            self.client_connection_check_interval_ms,
        ]
        .map(|value| value.to_string())
    }

    /// Checks the row that [`statement`] returned.
    ///
    /// # Errors
    ///
    /// [`Unsuitable`] when a setting was not taken, a [`Violation`] when the row is not one that
    /// the statement can return.
    pub fn check<'a>(
        &self,
        row: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Result<(), Unsuitable>, Violation> {
        let malformed =
            Violation::Malformed { message: "DataRow", what: "not the settings' read-back" };
        let mut seen = 0_usize;
        for ((name, wanted), value) in NAMES.iter().zip(self.wanted()).zip(row) {
            // A NULL is not the end of the row: it is a setting whose value nobody knows.
            let actual =
                value.and_then(|value| std::str::from_utf8(value).ok()).ok_or(malformed)?;
            seen = seen.saturating_add(1);
            if !wanted.matches(actual) {
                return Ok(Err(Unsuitable::Setting {
                    name,
                    wanted: wanted.to_text(),
                    actual: printable(actual.as_bytes(), 64),
                }));
            }
        }
        // Eight, nine or eleven by version: the caller has compared the column count.
        if seen < 8 { Err(malformed) } else { Ok(Ok(())) }
    }

    fn wanted(&self) -> [Wanted; 11] {
        let tcp = |value| match self.transport {
            Transport::Tcp => Wanted::Number(value),
            Transport::Unix => Wanted::Number(0),
            Transport::Unknown => Wanted::NumberOrZero(value),
        };
        [
            Wanted::Word("pg_catalog"),
            Wanted::Number(0),
            Wanted::Milliseconds(self.lock_timeout_ms),
            Wanted::Word("on"),
            Wanted::Word("read committed"),
            tcp(self.tcp_keepalives_idle_s),
            tcp(self.tcp_keepalives_interval_s),
            tcp(self.tcp_keepalives_count),
            tcp(self.tcp_user_timeout_ms),
            Wanted::Milliseconds(self.idle_session_timeout_ms),
            Wanted::Milliseconds(self.client_connection_check_interval_ms),
        ]
    }
}

/// How many columns the read-back has for a server of this major version.
pub fn columns(major: u32) -> u16 {
    match major {
        ..12 => 8,
        12..14 => 9,
        14.. => 11,
    }
}

enum Wanted {
    Word(&'static str),
    Number(u32),
    NumberOrZero(u32),
    Milliseconds(u32),
}

impl Wanted {
    fn matches(&self, actual: &str) -> bool {
        match self {
            Self::Word(word) => actual == *word,
            Self::Number(number) => actual.parse() == Ok(*number),
            Self::NumberOrZero(number) => {
                actual.parse().is_ok_and(|actual: u32| actual == *number || actual == 0)
            }
            Self::Milliseconds(wanted) => milliseconds(actual) == Some(u64::from(*wanted)),
        }
    }

    fn to_text(&self) -> Box<str> {
        match self {
            Self::Word(word) => (*word).into(),
            Self::Number(number) | Self::NumberOrZero(number) | Self::Milliseconds(number) => {
                number.to_string().into()
            }
        }
    }
}

/// A time as the server shows it: in the largest unit that divides it (manual: config-setting,
/// "Numeric with Unit").
fn milliseconds(shown: &str) -> Option<u64> {
    let digits = shown.find(|c: char| !c.is_ascii_digit()).unwrap_or(shown.len());
    let (number, unit) = shown.split_at_checked(digits)?;
    let factor: u64 = match unit {
        "ms" | "" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::super::rehearsal::{SESSION_SETTINGS as SETTINGS, SETTINGS as ROW};
    use super::*;

    fn check(
        settings: &SessionSettings,
        row: &[&str],
    ) -> Result<Result<(), Unsuitable>, Violation> {
        settings.check(row.iter().map(|value| Some(value.as_bytes())))
    }

    #[test]
    fn the_read_back_of_a_server_is_accepted() {
        assert_eq!(check(&SETTINGS, &ROW), Ok(Ok(())));
        assert_eq!(check(&SETTINGS, &ROW[..9]), Ok(Ok(())));
        assert_eq!(check(&SETTINGS, &ROW[..8]), Ok(Ok(())));
    }

    #[test]
    fn every_setting_that_was_not_taken_is_refused_by_its_name() {
        for (index, name) in NAMES.iter().enumerate() {
            let mut row = ROW;
            row[index] = "17";
            let refused = check(&SETTINGS, &row);
            assert!(
                matches!(&refused, Ok(Err(Unsuitable::Setting { name: n, .. })) if n == name),
                "{name}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_row_of_something_else_is_a_violation() {
        for row in [&[][..], &ROW[..1], &ROW[..7]] {
            assert!(check(&SETTINGS, row).is_err(), "{row:?}");
        }
    }

    #[test]
    fn over_a_unix_socket_the_tcp_settings_read_zero() {
        let unix = SessionSettings { transport: Transport::Unix, ..SETTINGS };
        let mut row = ROW;
        row[5..9].fill("0");
        assert_eq!(check(&unix, &row), Ok(Ok(())));
        assert!(matches!(check(&unix, &ROW), Ok(Err(Unsuitable::Setting { .. }))));
    }

    #[test]
    fn behind_a_proxy_the_tcp_settings_read_either_but_nothing_else() {
        let proxy = SessionSettings { transport: Transport::Unknown, ..SETTINGS };
        let mut row = ROW;
        assert_eq!(check(&proxy, &row), Ok(Ok(())));
        row[5..9].fill("0");
        assert_eq!(check(&proxy, &row), Ok(Ok(())));
        row[5] = "7200";
        assert!(matches!(check(&proxy, &row), Ok(Err(Unsuitable::Setting { .. }))));
    }

    #[test]
    fn times_are_understood_in_every_unit_the_server_shows() {
        let table = [
            ("0", Some(0)),
            ("1500ms", Some(1_500)),
            ("10s", Some(10_000)),
            ("2min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("ten", None),
            ("10 s", None),
            ("99999999999999999999d", None),
        ];
        for (shown, wanted) in table {
            assert_eq!(milliseconds(shown), wanted, "{shown}");
        }
    }
}
