//! When a session's rows are good: `src/proto/probe.rs` and `settings.rs` once more, as plain
//! conditions on whole rows.

use distlock::proto::rehearsal::{PID, SESSION_SETTINGS, TOKEN};
use distlock::proto::settings::Transport;
use distlock_fuzz::settings_columns;

/// What the session stands up to.
pub struct Case {
    /// The session is the witness's.
    pub is_testimony: bool,
    /// A proxy may stand between.
    pub session_affine: bool,
    /// It has to be able to write.
    pub read_write: bool,
    /// A witness has to be heard.
    pub witness: bool,
    /// What the server's end of the connection is.
    pub transport: Transport,
    /// The server's version.
    pub major: u32,
    /// The process of BackendKeyData.
    pub announced: Option<i32>,
}

impl Case {
    /// Zero is a plain session with PostgreSQL 15.
    pub fn new(flags: u16) -> Self {
        let bit = |n: u16| flags & (1 << n) != 0;
        let pick = |n: u16| usize::from(flags >> n & 3);
        Self {
            is_testimony: bit(0),
            session_affine: bit(1),
            read_write: bit(2),
            witness: bit(3),
            transport: [Transport::Tcp, Transport::Unix, Transport::Unknown, Transport::Tcp]
                [pick(4)],
            major: [15, 10, 12, 18][pick(6)],
            announced: [Some(PID), None, Some(PID + 1), Some(-PID)][pick(8)],
        }
    }
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(pub Option<Vec<u8>>);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(Some(text.as_bytes().to_vec()))
    }
}

/// All values as text; none when there are not so many, or one is not text.
fn texts(row: &[Value], columns: usize) -> Option<Vec<&str>> {
    let texts = row.iter().map(|value| std::str::from_utf8(value.0.as_deref()?).ok());
    texts.collect::<Option<Vec<_>>>().filter(|_| row.len() == columns)
}

/// Decimal digits, behind a sign or not.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    // Far more than fits any number that is compared to.
    let value = |digits: &str| digits.bytes().fold(0, |n, b| n * 10 + i128::from(b - b'0'));
    (digits.len() <= 30).then(|| sign * value(digits))
}

/// The same, without a minus.
fn unsigned(text: &str) -> Option<i128> {
    integer(text).filter(|_| !text.starts_with('-'))
}

fn process(text: &str) -> Option<i32> {
    i32::try_from(integer(text)?).ok()
}

/// The process, if the identity is one to lock with.
pub fn identity(case: &Case, row: &[Value]) -> Option<i32> {
    let texts = texts(row, 10)?;
    let process_id = process(texts[0])?;
    let others =
        ["CockroachDB", "PGlite", "Redshift", "Materialize", "RisingWave", "QuestDB", "Spanner"];
    let conditions = [
        texts[1].contains("PostgreSQL"),
        !others.iter().any(|other| texts[1].contains(other)),
        texts[2] == "false",
        case.session_affine || case.announced == Some(process_id),
        texts[3].is_empty(),
        texts[4] == TOKEN,
        texts[5] == "true",
        !case.read_write || texts[6] == "off",
    ];
    conditions.iter().all(|holds| *holds).then_some(process_id)
}

/// How many locks there is room for, where all three numbers are numbers.
pub fn lock_table(identity: &[Value]) -> Option<u64> {
    let most = i128::from(u64::MAX);
    let texts = texts(identity, 10)?;
    let number = |text: &str| unsigned(text).filter(|number| *number <= most);
    let (locks, sessions) = (number(texts[7])?, (number(texts[8])? + number(texts[9])?).min(most));
    u64::try_from(locks.checked_mul(sessions).unwrap_or(most).min(most)).ok()
}

/// Whether `pg_locks` has to show the lock.
pub fn is_listed(identity: &[Value]) -> bool {
    texts(identity, 10).is_some_and(|texts| !texts[1].contains("-YB-"))
}

/// Whether the settings are those that were set.
pub fn settings(case: &Case, row: &[Value]) -> bool {
    let Some(texts) = texts(row, settings_columns(case.major)) else { return false };
    let ours = SESSION_SETTINGS;
    let tcp = |text: &str, wanted: u32| {
        let is_wanted = unsigned(text) == Some(wanted.into());
        let is_zero = unsigned(text) == Some(0);
        match case.transport {
            Transport::Tcp => is_wanted,
            Transport::Unix => is_zero,
            Transport::Unknown => is_wanted || is_zero,
        }
    };
    texts.iter().enumerate().all(|(place, text)| match place {
        0 => *text == "pg_catalog",
        1 => unsigned(text) == Some(0),
        2 => is_time(text, ours.lock_timeout_ms),
        3 => *text == "on",
        4 => *text == "read committed",
        5 => tcp(text, ours.tcp_keepalives_idle_s),
        6 => tcp(text, ours.tcp_keepalives_interval_s),
        7 => tcp(text, ours.tcp_keepalives_count),
        8 => tcp(text, ours.tcp_user_timeout_ms),
        9 => is_time(text, ours.idle_session_timeout_ms),
        _ => is_time(text, ours.client_connection_check_interval_ms),
    })
}

/// A time, with its unit (manual: config-setting).
fn is_time(text: &str, wanted_ms: u32) -> bool {
    let units = [("ms", 1), ("min", 60_000), ("s", 1_000), ("h", 3_600_000), ("d", 86_400_000)];
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    let digits = Some(digits).filter(|digits| !digits.starts_with(['+', '-']));
    digits.and_then(integer).is_some_and(|number| number * factor == wanted_ms.into())
}

/// Whether it is still the same process, and the lock is where it has to be.
pub fn confirmation(row: &[Value], process_id: i32, is_listed: bool) -> bool {
    texts(row, 3).is_some_and(|texts| {
        process(texts[0]) == Some(process_id)
            && texts[1] == TOKEN
            && (texts[2] == "1" || !is_listed)
    })
}

/// Whether the witness is in another process, and did not get the lock.
pub fn testimony(row: &[Value], holder: i32) -> bool {
    texts(row, 2).is_some_and(|texts| {
        process(texts[0]).is_some_and(|process| process != holder) && texts[1] == "false"
    })
}
