//! The frontend messages that we send (manual: protocol-message-formats).
//!
//! One function for each, named as in the manual. They write into a [`WriteBuf`] and allocate
//! nothing. No text of a caller is ever part of SQL: statements are constants, keys are binary
//! parameters.

use super::buffer::{Body, Full, WriteBuf};

/// A protocol version to ask for (manual: protocol-overview, "Protocol Versions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolVersion {
    /// What every server speaks.
    V3_0,
    /// Longer cancel keys; servers that do not speak it offer 3.0 instead.
    V3_2,
}

impl ProtocolVersion {
    /// As in the StartupMessage.
    pub const fn to_number(self) -> i32 {
        match self {
            Self::V3_0 => 0x0003_0000,
            Self::V3_2 => 0x0003_0002,
        }
    }
}

/// Type OIDs of the parameters that are used (catalog `pg_type`).
pub const INT8_OID: i32 = 20;
/// See [`INT8_OID`].
pub const INT4_OID: i32 = 23;
/// See [`INT8_OID`].
pub const TEXT_OID: i32 = 25;

/// Asks for a session. Parameters are pairs of name and value.
pub fn startup_message(
    buf: &mut WriteBuf,
    version: ProtocolVersion,
    parameters: &[(&str, &str)],
) -> Result<(), Full> {
    buf.message(None, |body| {
        body.i32(version.to_number());
        for (name, value) in parameters {
            body.string(name);
            body.string(value);
        }
        body.u8(0);
    })
}

/// Answers AuthenticationCleartextPassword or AuthenticationMD5Password.
pub fn password_message(buf: &mut WriteBuf, password: &str) -> Result<(), Full> {
    buf.message(Some(b'p'), |body| body.string(password))
}

/// Chooses a SASL mechanism and sends its first message.
pub fn sasl_initial_response(
    buf: &mut WriteBuf,
    mechanism: &str,
    response: &[u8],
) -> Result<(), Full> {
    buf.message(Some(b'p'), |body| {
        body.string(mechanism);
        body.length(response.len());
        body.bytes(response);
    })
}

/// Sends a further SASL message.
pub fn sasl_response(buf: &mut WriteBuf, response: &[u8]) -> Result<(), Full> {
    buf.message(Some(b'p'), |body| body.bytes(response))
}

/// Makes a prepared statement; an empty name is the unnamed statement.
pub fn parse(buf: &mut WriteBuf, name: &str, query: &str, types: &[i32]) -> Result<(), Full> {
    buf.message(Some(b'P'), |body| {
        body.string(name);
        body.string(query);
        body.count(types.len());
        for oid in types {
            body.i32(*oid);
        }
    })
}

/// The key of an advisory lock as parameters of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyParameters {
    /// One `bigint`.
    Bigint(i64),
    /// Two `integer`s.
    Pair(i32, i32),
}

/// Binds parameters to a prepared lock statement, in the unnamed portal; parameters and result
/// binary. `parameters` writes `count` of them, each as its length and its bytes.
pub(super) fn bind(
    buf: &mut WriteBuf,
    statement: &str,
    count: usize,
    parameters: impl FnOnce(&mut Body<'_>),
) -> Result<(), Full> {
    // One format code stands for all parameters, and one for all columns: 1 is binary.
    const BINARY: [u8; 4] = [0, 1, 0, 1];
    buf.message(Some(b'B'), |body| {
        body.u8(0);
        body.string(statement);
        body.bytes(&BINARY);
        body.count(count);
        parameters(body);
        body.bytes(&BINARY);
    })
}

/// Binds a key to a prepared lock statement that takes nothing else.
pub fn bind_key(buf: &mut WriteBuf, statement: &str, key: KeyParameters) -> Result<(), Full> {
    bind(buf, statement, key.count(), |body| key.write(body))
}

impl KeyParameters {
    /// Its 64 bits; of a pair the first number above the second.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        match self {
            Self::Bigint(key) => key.to_be_bytes(),
            Self::Pair(high, low) => {
                let ([a, b, c, d], [e, f, g, h]) = (high.to_be_bytes(), low.to_be_bytes());
                [a, b, c, d, e, f, g, h]
            }
        }
    }

    /// How many parameters it takes.
    fn count(self) -> usize {
        match self {
            Self::Bigint(_) => 1,
            Self::Pair(..) => 2,
        }
    }

    /// Writes them.
    pub(super) fn write(self, body: &mut Body<'_>) {
        match self {
            Self::Bigint(key) => {
                let [a, b, c, d, e, f, g, h] = key.to_be_bytes();
                body.bytes(&[0, 0, 0, 8, a, b, c, d, e, f, g, h]);
            }
            Self::Pair(high, low) => {
                let ([a, b, c, d], [e, f, g, h]) = (high.to_be_bytes(), low.to_be_bytes());
                body.bytes(&[0, 0, 0, 4, a, b, c, d, 0, 0, 0, 4, e, f, g, h]);
            }
        }
    }
}

/// Binds text parameters to the unnamed statement, in the unnamed portal; result in text.
pub fn bind_text(buf: &mut WriteBuf, parameters: &[&str]) -> Result<(), Full> {
    buf.message(Some(b'B'), |body| {
        body.string("");
        body.string("");
        body.i16(0);
        body.count(parameters.len());
        for parameter in parameters {
            body.length(parameter.len());
            body.bytes(parameter.as_bytes());
        }
        body.i16(0);
    })
}

/// Runs the unnamed portal to its end.
pub fn execute(buf: &mut WriteBuf) -> Result<(), Full> {
    buf.constant(b"E\0\0\0\x09\0\0\0\0\0")
}

/// Ends a batch: the server commits and answers ReadyForQuery. Alone it is the heartbeat.
pub fn sync(buf: &mut WriteBuf) -> Result<(), Full> {
    buf.constant(b"S\0\0\0\x04")
}

/// Ends the session in good order.
pub fn terminate(buf: &mut WriteBuf) -> Result<(), Full> {
    buf.constant(b"X\0\0\0\x04")
}

/// The most bytes that one lock statement (Bind and Execute) or one Sync takes.
pub const STATEMENT_MAX: usize = 256;

/// The most bytes that the Parse of a lock statement takes.
pub const PARSE_MAX: usize = 512;

/// The same of the statement that asks who holds a key.
pub const LONG_PARSE_MAX: usize = 2048;
