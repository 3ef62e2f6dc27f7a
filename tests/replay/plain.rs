//! A good server for clients of any kind: it answers every statement with one row of one value,
//! as simple or extended query (manual: protocol-flow), and knows no client. For replaying the
//! vectors to other programs.

use super::format::Alteration;
use super::items::{self, data_row};
use super::player::{Frontend, Good};

/// A server that answers everything with [`Plain::value`].
#[derive(Debug)]
pub struct Plain {
    /// The value of the one column, `bool` in binary or in text as the client asked for.
    pub value: bool,
    /// Whether its client prepares a statement first: the session is ready when that is done.
    pub prepares: bool,
    binary: bool,
    parameters: u16,
    described: bool,
    prepared: bool,
    greeted: bool,
    altered: Vec<Alteration>,
}

/// The OIDs of `bool` and `bigint` (catalog `pg_type`).
const BOOL_OID: u32 = 16;
const BIGINT_OID: u32 = 20;

impl Plain {
    /// A server that says true or false.
    pub fn new(value: bool) -> Self {
        Self {
            value,
            prepares: false,
            binary: false,
            parameters: 0,
            described: false,
            prepared: false,
            greeted: false,
            altered: Vec::new(),
        }
    }

    fn row_description(&self) -> Vec<u8> {
        let format = u16::from(self.binary).to_be_bytes();
        let body = [
            &[0, 1][..],
            b"answer\0",
            &[0; 6],
            &BOOL_OID.to_be_bytes(),
            &1_u16.to_be_bytes(),
            &u32::MAX.to_be_bytes(),
            &format,
        ];
        items::message(b'T', &body.concat())
    }

    fn row(&self) -> Vec<u8> {
        let value = match (self.binary, self.value) {
            (true, value) => vec![u8::from(value)],
            (false, true) => b"t".to_vec(),
            (false, false) => b"f".to_vec(),
        };
        data_row(&[Some(value)])
    }
}

impl Good for Plain {
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.greeted = true;
        for parameter in [
            &b"server_version\x0015.18\0"[..],
            b"server_encoding\0UTF8\0",
            b"client_encoding\0UTF8\0",
            b"DateStyle\0ISO, MDY\0",
            b"TimeZone\0Etc/UTC\0",
            b"integer_datetimes\0on\0",
            b"standard_conforming_strings\0on\0",
        ] {
            out.extend(items::message(b'S', parameter));
        }
        let key = [items::PROCESS_ID.to_be_bytes(), *b"key!"].concat();
        out.extend(items::message(b'K', &key));
        out.extend(items::message(b'Z', b"I"));
    }

    fn handle(&mut self, message: &Frontend, out: &mut Vec<u8>) {
        match message.tag {
            b'P' => {
                // One parameter at the most: a key.
                let has_one = message.body.windows(2).any(|window| window == b"$1");
                self.parameters = u16::from(has_one);
                out.extend(items::message(b'1', b""));
            }
            b'B' => {
                // The last format code, of the results, stands for the one column.
                self.binary = message.body.ends_with(&[0, 1, 0, 1]);
                out.extend(items::message(b'2', b""));
            }
            b'D' => {
                if message.body.first() == Some(&b'S') {
                    // A parameter is taken for bigint, whatever it is.
                    let mut body = self.parameters.to_be_bytes().to_vec();
                    for _ in 0..self.parameters {
                        body.extend_from_slice(&BIGINT_OID.to_be_bytes());
                    }
                    out.extend(items::message(b't', &body));
                }
                out.extend(self.row_description());
                self.described = true;
            }
            b'E' => {
                out.extend(self.row());
                out.extend(items::message(b'C', b"SELECT 1\0"));
            }
            b'C' => out.extend(items::message(b'3', b"")),
            b'S' => {
                self.prepared |= self.described;
                out.extend(items::message(b'Z', b"I"));
            }
            b'Q' => {
                self.binary = false;
                out.extend(self.row_description());
                out.extend(self.row());
                out.extend(items::message(b'C', b"SELECT 1\0"));
                out.extend(items::message(b'Z', b"I"));
            }
            _ => {}
        }
    }

    fn names(&self, message: &Frontend) -> Option<&'static str> {
        match message.tag {
            b'Q' | b'P' | b'B' => Some("lock"),
            b'S' => Some("sync"),
            _ => None,
        }
    }

    fn is_ready(&self) -> bool {
        if self.prepares { self.prepared } else { self.greeted }
    }

    fn alter(&mut self, alteration: &Alteration) {
        self.altered.push(alteration.clone());
    }

    /// What is altered is about one client's own questions: it is passed over here.
    fn has_lied(&self) -> bool {
        true
    }
}

#[test]
fn a_plain_server_answers_simple_and_extended_queries() {
    use std::sync::Arc;

    use super::format::{Connection, Step, Until};
    use super::player::{Do, Player};

    let steps = vec![Step::Good(Until::End)];
    let script = Arc::new(Connection { always: true, witness: false, steps });
    let mut player = Player::new(script, Box::new(Plain::new(true)), None);
    let mut said = |bytes: &[u8]| {
        player.receive(bytes);
        let mut tags = Vec::new();
        while let Do::Send(bytes) = player.next() {
            let mut rest = &bytes[..];
            while let Some((message, size)) = super::player::split(rest) {
                tags.push(message.tag);
                rest = &rest[size..];
            }
        }
        String::from_utf8(tags).expect("letters")
    };
    assert_eq!(said(b"\0\0\0\x10\0\x03\0\0user\0a\0\0"), "RSSSSSSSKZ");
    assert_eq!(said(&items::message(b'Q', b"SELECT true\0")), "TDCZ");
    let extended = [
        items::message(b'P', b"\0SELECT true\0\0\0"),
        items::message(b'D', b"S\0"),
        items::message(b'B', b"\0\0\0\0\0\0\0\x01\0\x01"),
        items::message(b'E', b"\0\0\0\0\0"),
        items::message(b'S', b""),
    ];
    assert_eq!(said(&extended.concat()), "1tT2DCZ");
}
