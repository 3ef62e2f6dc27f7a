//! A second reader of backend messages, to compare the library's with: slow and simple, by
//! recursive descent over owned bytes. Written from the manual (protocol-message-formats,
//! protocol-error-fields) and from the limits in section 7 of `proto_notes.md`, without a line of
//! the library's; only the names of its results are used.

use std::collections::VecDeque;

use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::frontend::KeyParameters;

/// What the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet: more bytes have to come.
    Incomplete,
    /// Nothing that may come.
    Refused(Refusal),
    /// A message, and how many bytes it has.
    Message(Message, usize),
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No message has this type byte.
    Unknown,
    /// A message that nothing we send can cause.
    NeverAsked,
    /// A length that it cannot have.
    Length,
    /// A body that is not as the manual has it.
    Body,
}

/// A backend message, with all of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the manual")]
pub enum Message {
    Authentication(Request),
    BackendKeyData { process_id: i32, key: Vec<u8> },
    BindComplete,
    CommandComplete { tag: Vec<u8> },
    DataRow(Vec<Option<Vec<u8>>>),
    ErrorResponse(Report),
    NegotiateProtocolVersion { version: i32, options: Vec<Vec<u8>> },
    NoticeResponse(Report),
    NotificationResponse { process_id: i32, channel: Vec<u8>, payload: Vec<u8> },
    ParameterStatus { name: Vec<u8>, value: Vec<u8> },
    ParseComplete,
    ReadyForQuery(u8),
}

/// An authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the manual")]
pub enum Request {
    Ok,
    CleartextPassword,
    Md5Password([u8; 4]),
    Sasl(Vec<u8>),
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    /// Kerberos V5, GSS, SSPI.
    NotSpoken(i32),
}

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(pub Vec<(u8, Vec<u8>)>);

/// Reads the message at the front.
pub fn parse(input: &[u8]) -> Outcome {
    let Some(tag) = input.first() else { return Outcome::Incomplete };
    let (least, most) = match limits(*tag) {
        Ok(limits) => limits,
        Err(refusal) => return Outcome::Refused(refusal),
    };
    if input.len() < 5 {
        return Outcome::Incomplete;
    }
    let mut header = Body(input[1..5].iter().copied().collect());
    let length = header.int32().expect("four bytes");
    if length < least || length > most {
        return Outcome::Refused(Refusal::Length);
    }
    let size = length as usize + 1;
    if input.len() < size {
        return Outcome::Incomplete;
    }
    let mut body = Body(input[5..size].iter().copied().collect());
    match body.message(*tag) {
        Some(message) if body.0.is_empty() => Outcome::Message(message, size),
        _ => Outcome::Refused(Refusal::Body),
    }
}

/// The least and the most that the length of a message may be.
fn limits(tag: u8) -> Result<(i32, i32), Refusal> {
    Ok(match tag {
        b'R' => (8, 2_048),
        b'K' => (12, 264),
        b'2' | b'1' => (4, 4),
        b'C' => (5, 256),
        b'D' => (6, 4_096),
        b'E' | b'N' => (5, 30_000),
        b'v' => (12, 4_096),
        b'A' => (10, 8_300),
        b'S' => (6, 8_192),
        b'Z' => (5, 5),
        _ if b"3GHWdcIVntsT".contains(&tag) => return Err(Refusal::NeverAsked),
        _ => return Err(Refusal::Unknown),
    })
}

/// The rest of a body. What it does not hold is `None`, which makes the message malformed.
struct Body(VecDeque<u8>);

impl Body {
    fn byte1(&mut self) -> Option<u8> {
        self.0.pop_front()
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        (count <= self.0.len()).then(|| self.0.drain(..count).collect())
    }

    fn int32(&mut self) -> Option<i32> {
        let bytes = self.bytes(4)?;
        Some(bytes.iter().fold(0_u32, |number, byte| number * 256 + u32::from(*byte)) as i32)
    }

    fn int16(&mut self) -> Option<u16> {
        Some(u16::from(self.byte1()?) * 256 + u16::from(self.byte1()?))
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let length = self.0.iter().take_while(|byte| **byte != 0).count();
        let text = self.bytes(length)?;
        // Its NUL.
        self.byte1()?;
        Some(text)
    }

    fn rest(&mut self) -> Vec<u8> {
        self.0.drain(..).collect()
    }

    fn message(&mut self, tag: u8) -> Option<Message> {
        Some(match tag {
            b'R' => Message::Authentication(self.request()?),
            b'K' => Message::BackendKeyData { process_id: self.int32()?, key: self.rest() },
            b'2' => Message::BindComplete,
            b'C' => Message::CommandComplete { tag: self.string()? },
            b'D' => {
                let columns = self.int16()?;
                let values = (0..columns).map(|_| self.value());
                Message::DataRow(values.collect::<Option<_>>()?)
            }
            b'E' => Message::ErrorResponse(self.report()?),
            b'v' => {
                let (version, count) = (self.int32()?, self.int32()?);
                let mut options = Vec::new();
                while !self.0.is_empty() {
                    options.push(self.string()?);
                }
                // No more and no fewer than announced; a negative number is none.
                if usize::try_from(count) != Ok(options.len()) {
                    return None;
                }
                Message::NegotiateProtocolVersion { version, options }
            }
            b'N' => Message::NoticeResponse(self.report()?),
            b'A' => Message::NotificationResponse {
                process_id: self.int32()?,
                channel: self.string()?,
                payload: self.string()?,
            },
            b'S' => Message::ParameterStatus { name: self.string()?, value: self.string()? },
            b'1' => Message::ParseComplete,
            _ => Message::ReadyForQuery(self.byte1().filter(|status| b"ITE".contains(status))?),
        })
    }

    fn request(&mut self) -> Option<Request> {
        Some(match self.int32()? {
            0 => Request::Ok,
            3 => Request::CleartextPassword,
            5 => Request::Md5Password(self.bytes(4)?.try_into().ok()?),
            8 => {
                self.rest();
                Request::NotSpoken(8)
            }
            number @ (2 | 7 | 9) => Request::NotSpoken(number),
            10 => Request::Sasl(self.rest()),
            11 => Request::SaslContinue(self.rest()),
            12 => Request::SaslFinal(self.rest()),
            _ => return None,
        })
    }

    /// A column: its length and so many bytes; -1 and none for NULL.
    fn value(&mut self) -> Option<Option<Vec<u8>>> {
        match self.int32()? {
            -1 => Some(None),
            length => Some(Some(self.bytes(usize::try_from(length).ok()?)?)),
        }
    }

    /// Fields of a type byte and a string each, until a zero byte.
    fn report(&mut self) -> Option<Report> {
        let mut fields = Vec::new();
        loop {
            match self.byte1()? {
                0 => return Some(Report(fields)),
                tag => fields.push((tag, self.string()?)),
            }
        }
    }
}

impl Report {
    /// The first field of a type.
    fn field(&self, wanted: u8) -> Option<&[u8]> {
        self.0.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| &value[..])
    }

    /// What has to be kept of it.
    pub fn kept(&self) -> ServerError {
        // 'S' is localized, 'V' is not (manual: protocol-error-fields).
        let severity = match self.field(b'V').or_else(|| self.field(b'S')) {
            None => Severity::Fatal,
            Some(word) => match std::str::from_utf8(word).unwrap_or_default() {
                "ERROR" => Severity::Error,
                "WARNING" | "NOTICE" | "DEBUG" | "INFO" | "LOG" => Severity::Notice,
                _ => Severity::Fatal,
            },
        };
        let sqlstate = match self.field(b'C') {
            Some([a, b, c, d, e]) => [*a, *b, *c, *d, *e],
            _ => *b"XX000",
        };
        let message = shown(self.field(b'M').unwrap_or(b"(no message)"));
        ServerError { severity, sqlstate, message: message.into() }
    }

    /// Whether it says that the server goes down (manual: errcodes-appendix, class 57).
    pub fn is_shutdown(&self) -> bool {
        matches!(self.field(b'C'), Some(b"57P01" | b"57P02"))
    }

    /// Whether its SQLSTATE is of class 01.
    pub fn is_warning(&self) -> bool {
        self.kept().sqlstate.starts_with(b"01")
    }
}

/// The key that a notification is of, if it is one of the library's: on one of its channels, one
/// decimal number, or two with a comma between them, as `str::parse` takes them.
pub fn key_told(channel: &[u8], payload: &[u8]) -> Option<KeyParameters> {
    let text = String::from_utf8(payload.to_vec()).ok()?;
    let parts: Vec<&str> = text.splitn(2, ',').collect();
    match parts[..] {
        _ if !channel.starts_with(b"distlock_") => None,
        [number] => Some(KeyParameters::Bigint(number.parse().ok()?)),
        [high, low] => Some(KeyParameters::Pair(high.parse().ok()?, low.parse().ok()?)),
        _ => None,
    }
}

/// At most 1,024 bytes of it, as text that can be shown: one U+FFFD for what is not UTF-8, and an
/// escape for what is invisible or moves the cursor.
fn shown(bytes: &[u8]) -> String {
    let mut rest = &bytes[..bytes.len().min(1_024)];
    let mut text = String::new();
    while !rest.is_empty() {
        let (valid, skip) = match std::str::from_utf8(rest) {
            Ok(_) => (rest.len(), 0),
            Err(error) => {
                let valid = error.valid_up_to();
                (valid, error.error_len().unwrap_or(rest.len() - valid))
            }
        };
        text.push_str(std::str::from_utf8(&rest[..valid]).expect("checked"));
        if skip > 0 {
            text.push('\u{fffd}');
        }
        rest = &rest[valid + skip..];
    }
    text.chars().map(escape).collect()
}

fn escape(character: char) -> String {
    match u32::from(character) {
        0x09 => "\\t".to_owned(),
        0x0a => "\\n".to_owned(),
        0x0d => "\\r".to_owned(),
        // C0, DEL and C1; directional marks; separators and overrides; isolates.
        code @ (0..0x20 | 0x7f..0xa0 | 0x200e..=0x200f | 0x2028..=0x202e | 0x2066..=0x2069) => {
            format!("\\u{{{code:x}}}")
        }
        _ => character.to_string(),
    }
}
