//! The server's messages, read strictly (RFC 5802 section 7): without the extensions that the RFC
//! leaves room for and that PostgreSQL never sends. Called by the exchange above only.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{IterationLimits, ScramError};

/// The longest nonce taken, ours and the server's part together. PostgreSQL's has 48 characters.
const MAX_NONCE: usize = 256;

/// The longest salt taken, in bytes. PostgreSQL's have 16.
const MAX_SALT: usize = 1024;

/// How much of a text from the server is shown in an error.
const MAX_SHOWN: usize = 64;

/// The attributes of a `server-first-message`, checked.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// Reads `r=<nonce>,s=<salt>,i=<count>`, in this order and with nothing around it.
    pub(super) fn parse(
        text: &'a str,
        ours: &str,
        limits: IterationLimits,
    ) -> Result<Self, ScramError> {
        if text.starts_with("m=") {
            // RFC 5802 section 5.1: an unknown mandatory extension must fail the authentication.
            return Err(malformed_first("no mandatory extension (m=)"));
        }
        let mut attributes = text.split(',');
        let mut value = |name, expected| {
            let attribute = attributes.next().and_then(|text| text.strip_prefix(name));
            attribute.ok_or_else(|| malformed_first(expected))
        };
        let nonce = value("r=", "the nonce (r=) first")?;
        let salt = value("s=", "the salt (s=) after the nonce")?;
        let count = value("i=", "the iteration count (i=) after the salt")?;
        if attributes.next().is_some() {
            return Err(malformed_first("nothing after the iteration count"));
        }
        check_nonce(nonce, ours)?;
        let salt = decode(salt.as_bytes(), 1..=MAX_SALT)
            .ok_or_else(|| malformed_first("a salt of 1 to 1,024 bytes in padded base64"))?;
        Ok(Self { nonce, salt, iterations: parse_iterations(count, limits)? })
    }
}

pub(super) fn malformed_first(expected: &'static str) -> ScramError {
    ScramError::Malformed { message: "server-first-message", expected }
}

fn check_nonce(nonce: &str, ours: &str) -> Result<(), ScramError> {
    let wrong = |expected| Err(ScramError::Nonce { expected });
    if nonce.len() > MAX_NONCE {
        return wrong("256 characters at most");
    }
    // RFC 5802 section 7, `printable`; the comma is out already, since it ends the attribute.
    if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("printable ASCII characters without space");
    }
    match nonce.strip_prefix(ours) {
        Some("") => wrong("characters of the server's own after the client's nonce"),
        Some(_) => Ok(()),
        None => wrong("one that begins with the client's nonce"),
    }
}

/// Reads base64, padded and without stray bits, of so many bytes.
pub(super) fn decode(text: &[u8], lengths: RangeInclusive<usize>) -> Option<Vec<u8>> {
    // The decoder takes memory for whatever length it is given, so that is looked at first.
    if text.len() > lengths.end().saturating_mul(2) {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| lengths.contains(&bytes.len()))
}

/// Reads a `posit-number` of RFC 5802 section 7: digits, of which the first is not zero.
fn parse_iterations(text: &str, limits: IterationLimits) -> Result<u32, ScramError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(malformed_first(
            "an iteration count of decimal digits, above zero, without sign, space or leading zero",
        ));
    }
    let IterationLimits { min, max } = limits;
    match text.parse() {
        Ok(count) if (min..=max).contains(&count) => Ok(count),
        // Only a count above u32::MAX fails to parse, and that is above any limit.
        _ => Err(ScramError::Iterations { count: shown(text.as_bytes()), min, max }),
    }
}

/// A text of the server as it may stand in an error: short, and nothing but printable ASCII, so
/// that it can neither flood a log nor forge a line in it.
pub(super) fn shown(text: &[u8]) -> Box<str> {
    let printable = |byte: u8| matches!(byte, b' '..=b'~').then_some(char::from(byte));
    let shown = text.iter().take(MAX_SHOWN).map(|&byte| printable(byte).unwrap_or('?'));
    let mut shown: String = shown.collect();
    if text.len() > MAX_SHOWN {
        shown.push_str("...");
    }
    shown.into_boxed_str()
}
