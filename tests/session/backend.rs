//! The backend's half of a script: its messages, made by hand (manual: protocol-message-formats),
//! and a SCRAM server that knows the password (RFC 5802). It keeps no state and checks nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

pub(crate) use distlock::proto::rehearsal::{
    CONFIRMATION, IDENTITY, KEY, PID, SETTINGS, asked, examination, greeting, message, preparation,
    release, reply, row, settled, text_row,
};

/// A message that begins with 'R'.
pub(crate) fn authentication(code: i32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

pub(crate) fn authentication_ok() -> Vec<u8> {
    authentication(0, b"")
}

/// AuthenticationSASL, as a server sends it that knows SCRAM-SHA-256 alone.
pub(crate) fn sasl() -> Vec<u8> {
    authentication(10, b"SCRAM-SHA-256\0\0")
}

pub(crate) fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub(crate) fn key_data(process_id: i32) -> Vec<u8> {
    message(b'K', &[process_id.to_be_bytes(), *b"key!"].concat())
}

pub(crate) fn negotiate(version: i32, options: i32, names: &[u8]) -> Vec<u8> {
    message(b'v', &[&version.to_be_bytes(), &options.to_be_bytes()[..], names].concat())
}

pub(crate) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub(crate) fn parse_complete() -> Vec<u8> {
    message(b'1', b"")
}

pub(crate) fn bind_complete() -> Vec<u8> {
    message(b'2', b"")
}

pub(crate) fn command_complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

pub(crate) fn notification() -> Vec<u8> {
    message(b'A', b"\0\0\0\x01channel\0payload\0")
}

/// The row of a lock statement.
pub(crate) fn boolean(value: bool) -> Vec<u8> {
    row(&[Some(&[u8::from(value)])])
}

/// The whole answer of a lock statement.
pub(crate) fn answer(value: bool) -> Vec<u8> {
    [bind_complete(), boolean(value), command_complete()].concat()
}

/// ErrorResponse ('E') or NoticeResponse ('N').
pub(crate) fn report(tag: u8, severity: &str, sqlstate: &str) -> Vec<u8> {
    let fields = format!("S{severity}\0V{severity}\0C{sqlstate}\0Mtext of {sqlstate}\0\0");
    message(tag, fields.as_bytes())
}

pub(crate) fn error(sqlstate: &str) -> Vec<u8> {
    report(b'E', "ERROR", sqlstate)
}

pub(crate) fn fatal(sqlstate: &str) -> Vec<u8> {
    report(b'E', "FATAL", sqlstate)
}

pub(crate) fn notice() -> Vec<u8> {
    report(b'N', "WARNING", "01000")
}

/// The server's half of SCRAM-SHA-256, for a client whose entropy is zeros.
#[derive(Debug)]
pub(crate) struct ScramServer {
    pub(crate) server_first: String,
    /// The value of `c=`, in base64: what the exchange is bound to.
    binding: String,
    salted: [u8; 32],
}

const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

impl ScramServer {
    pub(crate) fn new(password: &str, iterations: u32) -> Self {
        let server_first =
            format!("r={NONCE}theirs,s={},i={iterations}", STANDARD.encode(b"salt of the role"));
        let mut round = hmac(password.as_bytes(), &[b"salt of the role", &1_u32.to_be_bytes()]);
        let mut salted = round;
        for _ in 1..iterations {
            round = hmac(password.as_bytes(), &[&round]);
            salted = xor(salted, round);
        }
        Self { server_first, binding: "biws".into(), salted }
    }

    /// One whose client sends this header, and is bound to this.
    pub(crate) fn bound_to(mut self, header: &str, data: &[u8]) -> Self {
        self.binding = STANDARD.encode([header.as_bytes(), data].concat());
        self
    }

    /// AuthenticationSASLContinue.
    pub(crate) fn challenge(&self) -> Vec<u8> {
        authentication(11, self.server_first.as_bytes())
    }

    /// AuthenticationSASLFinal.
    pub(crate) fn verdict(&self) -> Vec<u8> {
        let signature = hmac(&hmac(&self.salted, &[b"Server Key"]), &[self.signed().as_bytes()]);
        authentication(12, format!("v={}", STANDARD.encode(signature)).as_bytes())
    }

    /// The client-final-message that proves the password.
    pub(crate) fn proof(&self) -> String {
        let client_key = hmac(&self.salted, &[b"Client Key"]);
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let proof = xor(client_key, hmac(&stored_key, &[self.signed().as_bytes()]));
        format!("c={},r={NONCE}theirs,p={}", self.binding, STANDARD.encode(proof))
    }

    /// `AuthMessage` of RFC 5802 section 3.
    fn signed(&self) -> String {
        format!("n=,r={NONCE},{},c={},r={NONCE}theirs", self.server_first, self.binding)
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(mut to: [u8; 32], with: [u8; 32]) -> [u8; 32] {
    to.iter_mut().zip(with).for_each(|(to, with)| *to ^= with);
    to
}
