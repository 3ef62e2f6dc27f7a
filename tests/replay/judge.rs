//! Whether what came of a vector is what it says: the errors of the public interface, the faults
//! of the protocol's state machine, and what the server has received.

use distlock::proto::fault::{Fault, Unsuitable};
use distlock::{AuthMethods, Cause, Config, Error, Outcome as LockOutcome, Proxy, Unsuitability};

use super::format::{Never, Outcome, Vector};
use super::player::{self, Frontend};
use super::scram;
use super::server::{Address, Record};

/// The password of every vector that has one.
pub const PASSWORD: &str = "c4nary-of-the-vectors";

/// The role of every vector.
pub const USER: &str = "app";

/// What came of a vector, and why it is wrong.
pub type Verdict = Result<(), String>;

/// An error against an outcome that says `fails`.
pub fn error(wanted: &Outcome, error: &Error) -> Verdict {
    check_text(&error.to_string())?;
    check_text(&format!("{error:?}"))?;
    let is_kind = match wanted.words.first().map(String::as_str) {
        Some("protocol") => matches!(error, Error::Protocol(_)),
        Some("auth") => matches!(error, Error::Auth(_)) && error.is_auth(),
        Some("connect") => matches!(error, Error::Connect { .. }),
        Some("disconnected") => matches!(error, Error::Disconnected { .. }),
        Some("config") => error.is_config(),
        Some("lost") => {
            (match (wanted.words.get(1).map(String::as_str), error.outcome()) {
                _ if !error.is_session_lost() => false,
                (Some("unknown"), outcome) => outcome == LockOutcome::Unknown,
                (Some("not-acquired"), outcome) => outcome == LockOutcome::NotAcquired,
                _ => false,
            }) && has_cause(wanted, error)
        }
        Some("table-full") => error.is_lock_table_full(),
        Some("server") => {
            let state = error.sqlstate().map(|state| state.as_str().to_owned());
            matches!(error, Error::Server { .. }) && state.as_ref() == wanted.words.get(1)
        }
        Some("unsuitable") => {
            let kind = error.unsuitability().map(name_of_kind);
            kind == wanted.words.get(1).map(String::as_str)
        }
        Some("any") => !matches!(error, Error::Closed),
        _ => return Err(format!("`{}` is no kind of error", wanted.words.join(" "))),
    };
    check(wanted, is_kind, &error.to_string())
}

fn has_cause(wanted: &Outcome, error: &Error) -> bool {
    match (wanted.words.get(2), error) {
        (Some(wanted), Error::Lost { cause, .. }) => name_of_cause(*cause) == wanted,
        _ => false,
    }
}

/// The error behind [`Error::Unavailable`] against an outcome.
pub fn unavailable(wanted: &Outcome, found: &Error) -> Verdict {
    match found {
        Error::Unavailable { last: Some(last) } => error(wanted, last),
        other => Err(format!("wanted the reason of an absent session, found {other}")),
    }
}

/// A fault against an outcome that says `fails`: the same kinds, and the same texts.
pub fn fault(wanted: &Outcome, fault: &Fault) -> Verdict {
    let text = fault.to_string();
    check_text(&text)?;
    let is_kind = match (wanted.words.first().map(String::as_str), fault) {
        (Some("protocol"), Fault::Violation(_)) | (Some("auth"), Fault::Auth(_)) => true,
        (Some("server"), Fault::Server(error)) => {
            let state = distlock::SqlState::new(error.sqlstate);
            Some(state.as_str()) == wanted.words.get(1).map(String::as_str)
        }
        (Some("unsuitable"), Fault::Unsuitable(reason)) => {
            Some(name_of_reason(reason)) == wanted.words.get(1).map(String::as_str)
        }
        (Some("any"), _) => true,
        _ => false,
    };
    check(wanted, is_kind, &text)
}

/// A fault of a session that was ready, against the cause that its locks have to show.
pub fn cause_of_fault(wanted: &str, fault: Option<&Fault>) -> Verdict {
    let found = match fault {
        Some(Fault::Violation(_) | Fault::Internal(_)) => "protocol-violation",
        Some(Fault::Server(_) | Fault::Unsuitable(_)) => "server-shutdown",
        Some(Fault::Auth(_)) => "connection-lost",
        // What has to do with time or the connection is not the state machine's to see.
        None if ["connection-lost", "reply-overdue"].contains(&wanted) => return Ok(()),
        None => "no fault",
    };
    if found == wanted { Ok(()) } else { Err(format!("wanted {wanted}, found {fault:?}")) }
}

/// The name of a cause in the vectors.
pub fn name_of_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::ConnectionLost => "connection-lost",
        Cause::ReplyOverdue => "reply-overdue",
        Cause::LeaseExpired => "lease-expired",
        Cause::ServerShutdown => "server-shutdown",
        Cause::ProtocolViolation => "protocol-violation",
        Cause::ManagerClosed => "manager-closed",
        _ => "another one",
    }
}

fn check(wanted: &Outcome, is_kind: bool, text: &str) -> Verdict {
    let has_all = wanted.phrases.iter().all(|phrase| text.contains(phrase));
    let has_absent = wanted.absent.iter().any(|phrase| text.contains(phrase));
    if is_kind && has_all && !has_absent {
        return Ok(());
    }
    let words = wanted.words.join(" ");
    Err(format!("wanted {words} {:?} without {:?}, found: {text}", wanted.phrases, wanted.absent))
}

/// A text that may be shown anywhere.
fn check_text(text: &str) -> Verdict {
    if text.contains(PASSWORD) {
        return Err(format!("the password is in {text:?}"));
    }
    if text.len() > 16 * 1024 || text.chars().any(char::is_control) {
        return Err(format!("a text that cannot be shown: {text:?}"));
    }
    Ok(())
}

fn name_of_kind(kind: Unsuitability) -> &'static str {
    match kind {
        Unsuitability::Standby => "standby",
        Unsuitability::Pooler => "pooler",
        Unsuitability::FakeLocks => "fake-locks",
        Unsuitability::Engine => "engine",
        Unsuitability::Setting => "setting",
        Unsuitability::ReadOnly => "read-only",
        Unsuitability::Protocol => "protocol",
        _ => "another one",
    }
}

fn name_of_reason(reason: &Unsuitable) -> &'static str {
    match reason {
        Unsuitable::Standby => "standby",
        Unsuitable::Pooler { .. } | Unsuitable::Unannounced | Unsuitable::Shared(_) => "pooler",
        Unsuitable::Fake(_) => "fake-locks",
        Unsuitable::Engine(_) | Unsuitable::Foreign(..) | Unsuitable::Version(_) => "engine",
        Unsuitable::Setting { .. } => "setting",
        Unsuitable::ReadOnly => "read-only",
        Unsuitable::Protocol | Unsuitable::Unkeyed(..) => "protocol",
    }
}

/// What the server has received, against what it must never receive.
pub fn received(vector: &Vector, records: &[Record]) -> Verdict {
    for record in records {
        secrets(vector, &record.log, &record.secrets)?;
        if record.script.is_some_and(|at| at + 1 == vector.connections.len()) {
            nevers(vector, &record.log, record.expected)?;
        }
    }
    Ok(())
}

/// Secrets in what one connection has received.
pub fn secrets(vector: &Vector, log: &[u8], derived: &[Vec<u8>]) -> Verdict {
    let may = |what: &str| vector.may.iter().any(|may| may == what);
    let mut forbidden = derived.to_vec();
    if !may("cleartext") {
        forbidden.push(PASSWORD.as_bytes().to_vec());
    }
    forbidden.push(base64(PASSWORD.as_bytes()));
    forbidden.push(md5_of(&[PASSWORD, USER].concat()));
    forbidden.push(md5_of(PASSWORD));
    for secret in &forbidden {
        if log.windows(secret.len()).any(|window| window == secret) {
            return Err(format!("the client sent {:?}", secret.escape_ascii().to_string()));
        }
    }
    let is_md5 = |message: &Frontend| {
        message.tag == b'p' && message.body.starts_with(b"md5") && message.body.len() == 36
    };
    if !may("md5") && player::messages(log).iter().any(is_md5) {
        return Err("the client sent the password through MD5".into());
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes).into_bytes()
}

fn md5_of(text: &str) -> Vec<u8> {
    use md5::Digest as _;
    scram::hex(&md5::Md5::digest(text))
}

/// What the vector itself forbids, in what its last script's connection has received.
pub fn nevers(vector: &Vector, log: &[u8], expected: usize) -> Verdict {
    let messages = player::messages(log);
    let count = |tag: u8| messages.iter().filter(|message| message.tag == tag).count();
    for never in &vector.never {
        let broken = match never {
            Never::Tag(tag) => count(*tag) > 0,
            Never::MoreThan(most, tag) => count(*tag) > *most,
            Never::Bytes(bytes) => log.windows(bytes.len()).any(|window| window == bytes),
            Never::More => !matches!(&log[expected..], b"" | b"X\0\0\0\x04"),
        };
        if broken {
            return Err(format!("{never:?}, but: {}", log[expected..].escape_ascii()));
        }
    }
    Ok(())
}

/// The client's configuration for a server at an address.
///
/// # Errors
///
/// What the library says to a connection string.
pub fn config(vector: &Vector, address: &Address) -> Result<Config, Error> {
    let ms = std::time::Duration::from_millis;
    let mut config = match vector.setting("string") {
        Some(text) => text.parse::<Config>()?,
        None => Config::new(),
    };
    config = match address {
        Address::Tcp(port) => config.host("127.0.0.1").port(*port),
        Address::Unix(folder) => config.host(folder.to_string_lossy()),
    };
    config = config
        .user(USER)
        .connect_timeout(ms(1_000))
        .heartbeat(ms(1_500))
        .lease(ms(3_000))
        // As in `distlock::proto::rehearsal`, so that both kinds of replay have the same bytes.
        .reply_timeout(ms(700))
        .server_timeout(ms(10_000))
        // Small tables, so that what the server's bytes take is seen beside them.
        .max_locks(8)
        .max_requests(8)
        .max_waiters(8)
        .witness(false);
    for (key, value) in &vector.config {
        let number = || ms(value.parse().unwrap_or(0));
        config = match key.as_str() {
            "user" => config.user(value),
            "dbname" => config.dbname(value),
            "application_name" => config.application_name(value),
            "password" if value.is_empty() => config.password(PASSWORD),
            "password" => config.password(value),
            "require_auth" => config.require_auth(methods(value)?),
            "proxy" => config.proxy(Proxy::SessionAffine),
            "witness" => config.witness(true),
            "host" => config.host(value),
            "connect_timeout" => config.connect_timeout(number()),
            "heartbeat" => config.heartbeat(number()),
            "reply_timeout" => config.reply_timeout(number()),
            "string" | "unix" => config,
            _ => panic!("{}: no configuration has `{key}`", vector.name),
        };
    }
    Ok(config)
}

/// The methods of a `require_auth` setting.
///
/// # Errors
///
/// What the library says to them.
pub fn methods(value: &str) -> Result<AuthMethods, Error> {
    value.parse()
}
