//! A good server, for the tests, the benches and the fuzz targets: what PostgreSQL 15 says to a
//! session that starts, message by message, and the Startup that it answers. One place for all of
//! them, so that they cannot drift apart.
#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "only tests use it")]

use super::authentication::{Channel, Credentials, Methods};
use super::frontend::ProtocolVersion;
use super::handshake::{LockSession, Purpose, STATEMENTS, Startup};
use super::probe::{MARK_ENTROPY, Mark};
use super::scram::{IterationLimits, NONCE_ENTROPY};
use super::settings::{SessionSettings, Transport};

/// The process that is announced.
pub const PID: i32 = 4711;

/// How often the server may have hashed the password, where the configuration says nothing else.
pub const ITERATIONS: IterationLimits = IterationLimits { min: 4_096, max: 100_000 };

/// The settings that [`SETTINGS`] reads back.
pub const SESSION_SETTINGS: SessionSettings = SessionSettings {
    lock_timeout_ms: 175,
    idle_session_timeout_ms: 10_000,
    tcp_keepalives_idle_s: 2,
    tcp_keepalives_interval_s: 2,
    tcp_keepalives_count: 5,
    tcp_user_timeout_ms: 10_000,
    client_connection_check_interval_ms: 2_000,
    transport: Transport::Tcp,
};

/// The token of the mark of [`startup`], which is not random.
pub const TOKEN: &str = "00000000000000000000000000000000";

/// Its key.
pub const KEY: i64 = 0x0123_4567_89ab_cdef;

/// What both are made of.
const ENTROPY: [u8; MARK_ENTROPY] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
];

/// The row of the identity statement.
pub const IDENTITY: [&str; 10] = [
    "4711",
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

/// The row of the settings statement.
pub const SETTINGS: [&str; 11] =
    ["pg_catalog", "0", "175ms", "on", "read committed", "2", "2", "5", "10000", "10s", "2s"];

/// The row of the confirmation statement.
pub const CONFIRMATION: [&str; 3] = ["4711", TOKEN, "1"];

/// A Startup without a password, a witness, or any randomness.
pub fn startup(methods: Methods) -> Startup {
    Startup {
        version: ProtocolVersion::V3_2,
        refuse_older: false,
        credentials: Credentials {
            user: "app".into(),
            password: None,
            methods,
            entropy: [0; NONCE_ENTROPY],
            iterations: ITERATIONS,
            channel: Channel::default(),
        },
        database: "prod".into(),
        application_name: "distlock".into(),
        options: None,
        purpose: Purpose::Locks(lock_session()),
    }
}

/// What the session of [`startup`] is for.
pub fn lock_session() -> LockSession {
    LockSession {
        settings: SESSION_SETTINGS,
        mark: Mark::new(ENTROPY),
        session_affine: false,
        read_write: false,
        witness: false,
    }
}

/// A message: type byte, length, body (manual: protocol-message-formats).
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len().saturating_add(4)).expect("a short body");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A DataRow.
pub fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = i16::try_from(values.len()).expect("few columns").to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).expect("a short value"));
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    message(b'D', &body)
}

/// A DataRow of texts.
pub fn text_row(values: &[&str]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes())).collect();
    row(&values)
}

/// From AuthenticationOk to the first ReadyForQuery.
pub fn greeting() -> Vec<Vec<u8>> {
    vec![
        message(b'R', &[0; 4]),
        message(b'S', b"in_hot_standby\0off\0"),
        message(b'S', b"server_version\x0015.18 (Debian 15.18-0+deb12u1)\0"),
        message(b'K', &[PID.to_be_bytes(), *b"key!"].concat()),
        message(b'Z', b"I"),
    ]
}

/// The reply to Parse, Bind and Execute of a statement that has this row.
pub fn reply(row: &[u8]) -> Vec<Vec<u8>> {
    vec![message(b'1', b""), message(b'2', b""), row.to_vec(), message(b'C', b"SELECT 1\0")]
}

/// The reply to the identity or the confirmation statement, with its ReadyForQuery.
pub fn asked(row: &[u8]) -> Vec<Vec<u8>> {
    [reply(row), vec![message(b'Z', b"I")]].concat()
}

/// The replies to the settings statement and the Parse messages, with their ReadyForQuery.
pub fn settled(settings: &[u8]) -> Vec<Vec<u8>> {
    let parsed = vec![message(b'1', b""); STATEMENTS.len()];
    [reply(settings), parsed, vec![message(b'Z', b"I")]].concat()
}

/// The reply to the release of the marked key.
pub fn release() -> Vec<Vec<u8>> {
    vec![message(b'2', b""), row(&[Some(&[1])]), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")]
}

/// What a server says until it is known to be good, behind [`greeting`].
pub fn examination() -> Vec<Vec<u8>> {
    [asked(&text_row(&IDENTITY)), asked(&text_row(&CONFIRMATION))].concat()
}

/// All that follows [`greeting`].
pub fn preparation() -> Vec<Vec<u8>> {
    [examination(), settled(&text_row(&SETTINGS)), release()].concat()
}
