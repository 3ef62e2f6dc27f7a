//! The fields of ErrorResponse and NoticeResponse (manual: protocol-error-fields).
//!
//! Read leniently, since an error in an error helps nobody: a missing severity counts as FATAL, a
//! malformed SQLSTATE as internal error, bad UTF-8 is replaced, control characters are escaped,
//! and texts are cut. Only the frame must be right: each field ends, and so does the list.

use std::fmt;

use super::fault::{Fault, Violation};

/// What the server reported, in owned and printable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// How bad it is.
    pub severity: Severity,
    /// The SQLSTATE as sent; five bytes, not yet checked for their characters.
    pub sqlstate: [u8; 5],
    /// The primary message, cut and escaped.
    pub message: Box<str>,
}

impl ServerError {
    /// Whether the server lacks a function, a table, a type, or the use of one.
    pub fn is_lacking(&self) -> bool {
        matches!(&self.sqlstate, b"42883" | b"42P01" | b"42704" | b"0A000")
    }

    /// Whether it may be about the protocol version; see [`may_be_about_version`].
    pub fn may_be_about_version(&self) -> bool {
        may_be_about_version(&self.sqlstate)
    }
}

/// Whether an error may be about the protocol version: it is one of the connection, of a feature,
/// or of the server itself (manual: errcodes-appendix, classes 08, 0A and XX).
pub fn may_be_about_version(sqlstate: &[u8]) -> bool {
    [b"08", b"0A", b"XX"].iter().any(|class| sqlstate.starts_with(*class))
}

/// The severity field, not localized ('V'), or localized ('S') where that is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session is over: FATAL, PANIC, or a severity that is not known.
    Fatal,
    /// WARNING, NOTICE, DEBUG, INFO, LOG.
    Notice,
}

/// The longest message text that is kept, in bytes.
pub const MESSAGE_MAX: usize = 1024;

/// ADMIN SHUTDOWN: `pg_terminate_backend`, or a fast or immediate shutdown.
pub const ADMIN_SHUTDOWN: [u8; 5] = *b"57P01";
/// CRASH SHUTDOWN: another backend died and the server starts over.
pub const CRASH_SHUTDOWN: [u8; 5] = *b"57P02";

/// The undecoded body of an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the frame: fields of a type byte and a string each, then a zero byte, then the end.
    pub fn new(message: &'static str, body: &'a [u8]) -> Result<Self, Violation> {
        let mut rest = body;
        loop {
            match rest.split_first() {
                Some((0, [])) => return Ok(Self { body }),
                Some((0, _)) => {
                    return Err(Violation::Malformed {
                        message,
                        what: "bytes after the last field",
                    });
                }
                Some((_, after)) => match split_string(after) {
                    Some((_, after)) => rest = after,
                    None => {
                        return Err(Violation::Malformed { message, what: "a field has no end" });
                    }
                },
                None => {
                    return Err(Violation::Malformed {
                        message,
                        what: "the field list has no end",
                    });
                }
            }
        }
    }

    /// The first field of a type.
    fn field(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.body;
        while let Some((tag, after)) = rest.split_first() {
            let (value, after) = split_string(after)?;
            if *tag == wanted {
                return Some(value);
            }
            rest = after;
        }
        None
    }

    /// The SQLSTATE, `XX000` where there is none of five bytes.
    pub fn sqlstate(&self) -> [u8; 5] {
        self.field(b'C').and_then(|code| code.try_into().ok()).unwrap_or(*b"XX000")
    }

    /// The severity; what is missing or unknown counts as fatal.
    pub fn severity(&self) -> Severity {
        match self.field(b'V').or_else(|| self.field(b'S')) {
            Some(b"ERROR") => Severity::Error,
            Some(b"WARNING" | b"NOTICE" | b"DEBUG" | b"INFO" | b"LOG") => Severity::Notice,
            _ => Severity::Fatal,
        }
    }

    /// A notice that the server is going down. Measured: an immediate shutdown announces itself
    /// with a WARNING, and the locks are gone before the connection is.
    pub fn check_shutdown(self) -> Result<(), Fault> {
        match self.sqlstate() {
            ADMIN_SHUTDOWN | CRASH_SHUTDOWN => Err(Fault::Server(Box::new(self.to_error()))),
            _ => Ok(()),
        }
    }

    /// Everything that is kept of the report. This allocates: it is for reports that are shown.
    pub fn to_error(self) -> ServerError {
        let message = self.field(b'M').unwrap_or(b"(no message)");
        ServerError {
            severity: self.severity(),
            sqlstate: self.sqlstate(),
            message: printable(message, MESSAGE_MAX),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, printable(&self.sqlstate, 5))
    }
}

/// Text of the server as it may be shown: valid UTF-8, control characters escaped, cut to `max`
/// bytes of input.
pub fn printable(bytes: &[u8], max: usize) -> Box<str> {
    let kept = bytes.get(..max).unwrap_or(bytes);
    let mut text = String::new();
    for character in String::from_utf8_lossy(kept).chars() {
        if character.is_control() || is_invisible_mark(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text.into_boxed_str()
}

/// Line and paragraph separators, and the marks that turn the direction of text around: in a log
/// they would show something else than what was sent.
fn is_invisible_mark(character: char) -> bool {
    matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Splits a NUL-terminated string off the front.
pub fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (value, rest) = bytes.split_at_checked(end)?;
    Some((value, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(body: &[u8]) -> ServerError {
        Fields::new("ErrorResponse", body).expect("a well-formed list").to_error()
    }

    #[test]
    fn the_fields_of_a_server_are_found() {
        let body = b"SFEHLER\0VERROR\0C53200\0Mout of shared memory\0\0";
        let error = report(body);
        assert_eq!(error.severity, Severity::Error);
        assert_eq!(error.sqlstate, *b"53200");
        assert_eq!(&*error.message, "out of shared memory");
    }

    #[test]
    fn what_is_missing_counts_as_the_worst() {
        let error = report(b"\0");
        assert_eq!(error.severity, Severity::Fatal);
        assert_eq!(error.sqlstate, *b"XX000");
        assert_eq!(report(b"SFEHLER\0\0").severity, Severity::Fatal);
        assert_eq!(report(b"C5320\0\0").sqlstate, *b"XX000");
    }

    #[test]
    fn a_frame_without_ends_is_refused_at_every_length() {
        let body = b"SERROR\0VERROR\0C42883\0Mtext\0\0";
        assert!(Fields::new("ErrorResponse", body).is_ok());
        for length in 0..body.len() {
            assert!(Fields::new("ErrorResponse", &body[..length]).is_err(), "{length}");
        }
        assert!(Fields::new("ErrorResponse", b"SERROR\0\0x").is_err());
    }

    #[test]
    fn hostile_text_is_cut_and_escaped() {
        let mut body = vec![b'M'];
        body.extend_from_slice(b"\x1b[2J\xff\n\xe2\x80\xae");
        body.extend(std::iter::repeat_n(b'x', 5000));
        body.extend_from_slice(b"\0\0");
        let message = report(&body).message;
        assert!(message.starts_with("\\u{1b}[2J\u{fffd}\\n\\u{202e}x"), "{message:?}");
        assert!(message.len() < 2 * MESSAGE_MAX);
    }
}
