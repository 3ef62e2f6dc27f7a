//! The backend messages: framing and borrowed decoding (manual: protocol-message-formats).
//!
//! [`decode`] looks at the front of what has arrived. An incomplete message is
//! [`Status::Partial`], not an error; an impossible length is an error as soon as the five bytes
//! of the header are there, before any of the body is waited for. Bodies must be used up exactly.

use super::fault::Violation;
use super::fields::{Fields, split_string};

/// What the front of the input holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// Less than a message; come back with more bytes.
    Partial,
    /// A whole message.
    Complete {
        /// The message.
        message: BackendMessage<'a>,
        /// How many bytes it took.
        size: usize,
    },
}

/// A message from the server. Those that a session of ours can never meet are refused by
/// [`decode`], with their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendMessage<'a> {
    /// 'R'.
    Authentication(Authentication<'a>),
    /// 'K': how to cancel a statement of this session. Only the process id is of use here.
    BackendKeyData {
        /// The server process of the session.
        process_id: i32,
        /// How many bytes the cancel key has; we never use it.
        key_length: usize,
    },
    /// '2'.
    BindComplete,
    /// 'C'.
    CommandComplete,
    /// 'D'.
    DataRow(DataRow<'a>),
    /// 'E'.
    ErrorResponse(Fields<'a>),
    /// 'v': the server does not speak the version that was asked for.
    NegotiateProtocolVersion {
        /// The newest version that it does speak, as in the StartupMessage.
        version: i32,
        /// How many of our protocol options it does not know.
        unknown_options: i32,
    },
    /// 'N'.
    NoticeResponse(Fields<'a>),
    /// 'A'.
    NotificationResponse {
        /// The server process of who notifies.
        process_id: i32,
        /// The channel.
        channel: &'a [u8],
        /// What is told.
        payload: &'a [u8],
    },
    /// 'S'.
    ParameterStatus {
        /// The parameter.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// '1'.
    ParseComplete,
    /// 'Z': the transaction status, one of `I`, `T`, `E`.
    ReadyForQuery(u8),
}

/// An authentication request or its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// 0: the server is content.
    Ok,
    /// 3: the password in clear.
    CleartextPassword,
    /// 5: the password through MD5 with this salt.
    Md5Password([u8; 4]),
    /// 10: a choice of SASL mechanisms, NUL-terminated names.
    Sasl(&'a [u8]),
    /// 11: a further SASL message.
    SaslContinue(&'a [u8]),
    /// 12: the last SASL message.
    SaslFinal(&'a [u8]),
    /// A method that is not spoken here, by its name in the manual.
    Unsupported(&'static str),
}

/// A row. Columns are found when asked for; nothing is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRow<'a> {
    columns: u16,
    values: &'a [u8],
}

/// Size of the type byte and the length.
pub const HEADER: usize = 5;

/// The longest message that is accepted, with its type byte.
pub const FRAME_MAX: usize = 30_001;

/// The longest DataRow, without its type byte.
pub const DATA_ROW_MAX: u32 = 4096;

/// What a server answers to a statement with a row of one byte, up to that byte: BindComplete, and
/// the beginning of DataRow.
const BEFORE_BYTE: [u8; 16] = *b"2\0\0\0\x04D\0\0\0\x0b\0\x01\0\0\0\x01";

/// And behind it: CommandComplete.
const BEHIND_BYTE: [u8; 14] = *b"C\0\0\0\x0dSELECT 1\0";

/// How long all of that is.
pub const BYTE_ANSWER: usize = BEFORE_BYTE.len() + 1 + BEHIND_BYTE.len();

/// The byte that is answered, if the three messages are at the front of `input`, whole and in the
/// usual form: what [`decode`] makes of them, in one look.
pub fn byte_answer(input: &[u8]) -> Option<u8> {
    let (before, rest) = input.split_first_chunk()?;
    let (byte, rest) = rest.split_first()?;
    let behind = rest.first_chunk()?;
    (*before == BEFORE_BYTE && *behind == BEHIND_BYTE).then_some(*byte)
}

/// ReadyForQuery outside of a transaction block.
pub const IDLE: [u8; 6] = *b"Z\0\0\0\x05I";

/// Decodes the message at the front of `input`.
///
/// # Errors
///
/// The first thing that the protocol does not allow.
pub fn decode(input: &[u8]) -> Result<Status<'_>, Violation> {
    let Some((tag, after)) = input.split_first() else {
        return Ok(Status::Partial);
    };
    let kind = kind(*tag)?;
    let Some((length, after)) = after.split_first_chunk::<4>() else {
        return Ok(Status::Partial);
    };
    let length = i32::from_be_bytes(*length);
    let body_length = u32::try_from(length)
        .ok()
        .filter(|length| (kind.min..=kind.max).contains(length))
        .and_then(|length| usize::try_from(length).ok()?.checked_sub(4))
        .ok_or(Violation::Length { message: kind.name, length, min: kind.min, max: kind.max })?;
    let Some((body, _)) = after.split_at_checked(body_length) else {
        return Ok(Status::Partial);
    };
    let message = body_of(*tag, &mut Reader { message: kind.name, rest: body })?;
    Ok(Status::Complete { message, size: body_length.saturating_add(HEADER) })
}

/// The name of a message and the lengths it may have, by its type byte. The caps are what a
/// session of ours can need at most; see "Limits" in `proto_notes.md`.
struct Kind {
    name: &'static str,
    min: u32,
    max: u32,
}

fn kind(tag: u8) -> Result<Kind, Violation> {
    let (name, min, max) = match tag {
        b'R' => ("Authentication", 8, 2048),
        b'K' => ("BackendKeyData", 12, 264),
        b'2' => ("BindComplete", 4, 4),
        b'C' => ("CommandComplete", 5, 256),
        b'D' => ("DataRow", 6, DATA_ROW_MAX),
        b'E' => ("ErrorResponse", 5, 30_000),
        b'v' => ("NegotiateProtocolVersion", 12, 4096),
        b'N' => ("NoticeResponse", 5, 30_000),
        b'A' => ("NotificationResponse", 10, 8_300),
        b'S' => ("ParameterStatus", 6, 8192),
        b'1' => ("ParseComplete", 4, 4),
        b'Z' => ("ReadyForQuery", 5, 5),
        _ => return Err(refused(tag)),
    };
    Ok(Kind { name, min, max })
}

/// Messages that exist and that nothing we send can cause.
fn refused(tag: u8) -> Violation {
    Violation::Unsupported(match tag {
        b'3' => "CloseComplete",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'W' => "CopyBothResponse",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'I' => "EmptyQueryResponse",
        b'V' => "FunctionCallResponse",
        b'n' => "NoData",
        b't' => "ParameterDescription",
        b's' => "PortalSuspended",
        b'T' => "RowDescription",
        _ => return Violation::UnknownMessage(tag),
    })
}

/// The name of a decoded message, as in the manual.
pub fn name(message: &BackendMessage<'_>) -> &'static str {
    match message {
        BackendMessage::Authentication(request) => match request {
            Authentication::Ok => "AuthenticationOk",
            Authentication::CleartextPassword => "AuthenticationCleartextPassword",
            Authentication::Md5Password(_) => "AuthenticationMD5Password",
            Authentication::Sasl(_) => "AuthenticationSASL",
            Authentication::SaslContinue(_) => "AuthenticationSASLContinue",
            Authentication::SaslFinal(_) => "AuthenticationSASLFinal",
            Authentication::Unsupported(name) => name,
        },
        BackendMessage::BackendKeyData { .. } => "BackendKeyData",
        BackendMessage::BindComplete => "BindComplete",
        BackendMessage::CommandComplete => "CommandComplete",
        BackendMessage::DataRow(_) => "DataRow",
        BackendMessage::ErrorResponse(_) => "ErrorResponse",
        BackendMessage::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
        BackendMessage::NoticeResponse(_) => "NoticeResponse",
        BackendMessage::NotificationResponse { .. } => "NotificationResponse",
        BackendMessage::ParameterStatus { .. } => "ParameterStatus",
        BackendMessage::ParseComplete => "ParseComplete",
        BackendMessage::ReadyForQuery(_) => "ReadyForQuery",
    }
}

fn body_of<'a>(tag: u8, body: &mut Reader<'a>) -> Result<BackendMessage<'a>, Violation> {
    let message = match tag {
        b'R' => BackendMessage::Authentication(authentication(body)?),
        b'K' => {
            let process_id = body.i32()?;
            BackendMessage::BackendKeyData { process_id, key_length: body.all().len() }
        }
        b'2' => BackendMessage::BindComplete,
        b'C' => {
            body.string()?;
            BackendMessage::CommandComplete
        }
        b'D' => BackendMessage::DataRow(data_row(body)?),
        b'E' => BackendMessage::ErrorResponse(Fields::new("ErrorResponse", body.all())?),
        b'v' => negotiate(body)?,
        b'N' => BackendMessage::NoticeResponse(Fields::new("NoticeResponse", body.all())?),
        b'A' => {
            let process_id = body.i32()?;
            let channel = body.string()?;
            BackendMessage::NotificationResponse { process_id, channel, payload: body.string()? }
        }
        b'S' => BackendMessage::ParameterStatus { name: body.string()?, value: body.string()? },
        b'1' => BackendMessage::ParseComplete,
        b'Z' => match body.u8()? {
            status @ (b'I' | b'T' | b'E') => BackendMessage::ReadyForQuery(status),
            _ => return Err(body.malformed("no transaction status has this letter")),
        },
        other => return Err(Violation::UnknownMessage(other)),
    };
    if body.rest.is_empty() { Ok(message) } else { Err(body.malformed("bytes after its end")) }
}

/// Manual: protocol-message-formats, the messages that begin with 'R'.
fn authentication<'a>(body: &mut Reader<'a>) -> Result<Authentication<'a>, Violation> {
    Ok(match body.i32()? {
        0 => Authentication::Ok,
        2 => Authentication::Unsupported("AuthenticationKerberosV5"),
        3 => Authentication::CleartextPassword,
        5 => Authentication::Md5Password(body.array::<4>()?),
        7 => Authentication::Unsupported("AuthenticationGSS"),
        8 => {
            body.all();
            Authentication::Unsupported("AuthenticationGSSContinue")
        }
        9 => Authentication::Unsupported("AuthenticationSSPI"),
        10 => Authentication::Sasl(body.all()),
        11 => Authentication::SaslContinue(body.all()),
        12 => Authentication::SaslFinal(body.all()),
        _ => return Err(body.malformed("no authentication request has this number")),
    })
}

/// Manual: protocol-message-formats, NegotiateProtocolVersion. The count must be that of the
/// names that follow.
fn negotiate<'a>(body: &mut Reader<'a>) -> Result<BackendMessage<'a>, Violation> {
    let version = body.i32()?;
    let unknown_options = body.i32()?;
    let mut names: i32 = 0;
    while !body.rest.is_empty() {
        body.string()?;
        names = names.saturating_add(1);
    }
    if names == unknown_options {
        Ok(BackendMessage::NegotiateProtocolVersion { version, unknown_options })
    } else {
        Err(body.malformed("the option count is not that of the options"))
    }
}

/// Checks that the columns are as many as announced and use up the body exactly.
fn data_row<'a>(body: &mut Reader<'a>) -> Result<DataRow<'a>, Violation> {
    let columns = u16::from_be_bytes(body.array::<2>()?);
    let values = body.rest;
    for _ in 0..columns {
        body.column()?;
    }
    Ok(DataRow { columns, values })
}

impl<'a> DataRow<'a> {
    /// How many columns there are.
    pub fn columns(&self) -> u16 {
        self.columns
    }

    /// The values in order; `None` for NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<&'a [u8]>> {
        let mut reader = Reader { message: "DataRow", rest: self.values };
        // `data_row` has been through all of them: no error is left to happen.
        (0..self.columns).map_while(move |_| reader.column().ok())
    }

    /// The one column of a lock statement: a binary `boolean`, exactly one byte of 0 or 1. A value
    /// that is anything else is never taken for a grant (invariant I10).
    pub fn boolean(&self) -> Result<bool, Violation> {
        let malformed = |what| Violation::Malformed { message: "DataRow", what };
        if self.columns != 1 {
            return Err(malformed("a lock statement has one column"));
        }
        match self.values().next() {
            Some(Some([1])) => Ok(true),
            Some(Some([0])) => Ok(false),
            _ => Err(malformed("a lock statement's column is a binary boolean")),
        }
    }
}

/// Checked reading of a body.
struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> Violation {
        Violation::Malformed { message: self.message, what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (value, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed("it is too short"))?;
        self.rest = rest;
        Ok(*value)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn i32(&mut self) -> Result<i32, Violation> {
        self.array::<4>().map(i32::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], Violation> {
        let (value, rest) =
            split_string(self.rest).ok_or_else(|| self.malformed("a string has no end"))?;
        self.rest = rest;
        Ok(value)
    }

    /// The length and the bytes of one column; -1 alone stands for NULL.
    fn column(&mut self) -> Result<Option<&'a [u8]>, Violation> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let (value, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length))
            .ok_or_else(|| self.malformed("a column's length is not that of its bytes"))?;
        self.rest = rest;
        Ok(Some(value))
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn row(body: &[u8]) -> Result<bool, Violation> {
        match decode(&frame(b'D', body))? {
            Status::Complete { message: BackendMessage::DataRow(row), .. } => row.boolean(),
            other => panic!("{other:?}"),
        }
    }

    /// One well-formed example of every message.
    fn examples() -> Vec<Vec<u8>> {
        vec![
            frame(b'R', &[0, 0, 0, 0]),
            frame(b'R', &[0, 0, 0, 3]),
            frame(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]),
            frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
            frame(b'R', b"\0\0\0\x0br=x"),
            frame(b'R', b"\0\0\0\x0cv=x"),
            frame(b'R', &[0, 0, 0, 7]),
            frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
            frame(b'2', b""),
            frame(b'C', b"SELECT 1\0"),
            frame(b'D', &[0, 1, 0, 0, 0, 1, 1]),
            frame(b'E', b"SERROR\0\0"),
            frame(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0"),
            frame(b'N', b"SNOTICE\0\0"),
            frame(b'A', b"\0\0\0\x01channel\0payload\0"),
            frame(b'S', b"TimeZone\0UTC\0"),
            frame(b'1', b""),
            frame(b'Z', b"I"),
        ]
    }

    #[test]
    fn every_truncation_is_partial_and_never_an_error() {
        for example in examples() {
            for length in 0..example.len() {
                assert_eq!(decode(&example[..length]), Ok(Status::Partial), "{example:?} {length}");
            }
            let size = example.len();
            assert!(
                matches!(decode(&example), Ok(Status::Complete { size: s, .. }) if s == size),
                "{example:?}"
            );
        }
    }

    #[test]
    fn a_byte_after_the_end_of_a_body_is_refused() {
        for example in examples() {
            let (tag, body) = (example[0], &example[5..]);
            // These end where their frame ends, whatever is in them.
            let open_ended = tag == b'K' || (tag == b'R' && body[3] >= 10);
            let longer = frame(tag, &[body, b"x"].concat());
            assert_eq!(decode(&longer).is_err(), !open_ended, "{}", example[0] as char);
        }
    }

    #[test]
    fn an_impossible_length_is_refused_from_the_header() {
        for tag in *b"RK2CDEvNAS1Z" {
            for length in [i32::MIN, -1, 0, 3, 30_001, i32::MAX] {
                let mut header = vec![tag];
                header.extend_from_slice(&length.to_be_bytes());
                assert!(matches!(decode(&header), Err(Violation::Length { .. })), "{tag} {length}");
            }
        }
    }

    #[test]
    fn messages_we_never_cause_are_refused_by_name() {
        for tag in *b"3GHWdcIVntsT" {
            assert!(matches!(decode(&[tag]), Err(Violation::Unsupported(_))), "{}", tag as char);
        }
        for tag in 0..=255_u8 {
            if !b"RK2CDEvNAS1Z3GHWdcIVntsT".contains(&tag) {
                assert_eq!(decode(&[tag]), Err(Violation::UnknownMessage(tag)));
            }
        }
    }

    #[test]
    fn only_a_binary_true_is_a_grant() {
        assert_eq!(row(&[0, 1, 0, 0, 0, 1, 1]), Ok(true));
        assert_eq!(row(&[0, 1, 0, 0, 0, 1, 0]), Ok(false));
        let refused: [&[u8]; 9] = [
            &[0, 0],
            &[0, 1, 0, 0, 0, 1, 2],
            &[0, 1, 0, 0, 0, 1, b't'],
            &[0, 1, 0, 0, 0, 0],
            &[0, 1, 0, 0, 0, 2, 1, 1],
            &[0, 1, 0xff, 0xff, 0xff, 0xff],
            &[0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1],
            &[0, 1, 0xff, 0xff, 0xff, 0xfe, 1],
            &[0xff, 0xff, 0, 0, 0, 1, 1],
        ];
        for body in refused {
            assert!(row(body).is_err(), "{body:?}");
        }
    }
}
