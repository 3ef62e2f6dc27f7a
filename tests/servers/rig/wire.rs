//! The few messages of the protocol that the pretenders need (manual: protocol-message-formats).
//! Blocking, and without any care for hostile input: the other side is our own library.

use std::io::{self, Read, Write};

/// A message with its type byte.
#[derive(Debug)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

/// Protocol 3.2 in a StartupMessage.
pub const VERSION_3_2: u32 = 196_610;

/// Reads the StartupMessage: the version, and the whole message to send on.
pub fn read_startup(from: &mut impl Read) -> io::Result<(u32, Vec<u8>)> {
    let mut message = vec![0; 8];
    from.read_exact(&mut message)?;
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]);
    let version = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    message.resize(length as usize, 0);
    from.read_exact(&mut message[8..])?;
    Ok((version, message))
}

/// Reads one message.
pub fn read(from: &mut impl Read) -> io::Result<Message> {
    let mut header = [0; 5];
    from.read_exact(&mut header)?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let mut body = vec![0; length as usize - 4];
    from.read_exact(&mut body)?;
    Ok(Message { kind: header[0], body })
}

/// Writes one message.
pub fn write(to: &mut impl Write, kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    to.write_all(&[&[kind], &length.to_be_bytes()[..], body].concat())
}

/// DataRow, of text columns.
pub fn data_row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).expect("few columns").to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).expect("a short value").to_be_bytes());
        body.extend(value.as_bytes());
    }
    body
}

/// ErrorResponse, FATAL.
pub fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    format!("SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0").into_bytes()
}

/// The first two texts of a Parse message: the statement's name, and the statement.
pub fn parse_texts(body: &[u8]) -> (String, String) {
    let mut texts = body.split(|byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
    (text(), text())
}

/// The statement's name and the parameters of a Bind message.
pub fn bind_values(body: &[u8]) -> (String, Vec<Vec<u8>>) {
    let portal = body.iter().position(|byte| *byte == 0).expect("a portal's name");
    let rest = &body[portal + 1..];
    let name = rest.iter().position(|byte| *byte == 0).expect("a statement's name");
    let statement = String::from_utf8_lossy(&rest[..name]).into_owned();
    let mut rest = &rest[name + 1..];
    let int16 = |rest: &mut &[u8]| {
        let number = u16::from_be_bytes([rest[0], rest[1]]);
        *rest = &rest[2..];
        usize::from(number)
    };
    let formats = int16(&mut rest);
    rest = &rest[formats * 2..];
    let count = int16(&mut rest);
    let mut values = Vec::new();
    for _ in 0..count {
        let length = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        values.push(rest[4..4 + length].to_vec());
        rest = &rest[4 + length..];
    }
    (statement, values)
}
