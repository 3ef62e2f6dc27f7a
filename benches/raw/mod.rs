//! The yardstick: a plain blocking socket that locks and unlocks with two prepared round trips and
//! does nothing else. It checks no more than it must to notice that it went wrong.

use std::io::{Read, Write};
use std::net::TcpStream;

/// A session that is ready and prepared.
pub(crate) struct RawSession {
    socket: TcpStream,
    lock: Vec<u8>,
    unlock: Vec<u8>,
    reply: [u8; 256],
}

impl RawSession {
    /// Connects as `postgres` with trust authentication.
    pub(crate) fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_nodelay(true).expect("a TCP socket has it");
        let mut session =
            Self { socket, lock: statement(b"t"), unlock: statement(b"u"), reply: [0; 256] };
        session.start();
        session
    }

    /// Two round trips.
    pub(crate) fn cycle(&mut self, key: i64) {
        self.round_trip(true, key);
        self.round_trip(false, key);
    }

    /// The reply is BindComplete, DataRow, CommandComplete and ReadyForQuery: 37 bytes.
    fn round_trip(&mut self, lock: bool, key: i64) {
        const REPLY: usize = 37;
        const VALUE: usize = 16;
        let request = if lock { &mut self.lock } else { &mut self.unlock };
        request[KEY_AT..KEY_AT + 8].copy_from_slice(&key.to_be_bytes());
        self.socket.write_all(request).expect("the server listens");
        let mut got = 0;
        while got < REPLY {
            let count = self.socket.read(&mut self.reply[got..]).expect("the server answers");
            assert_ne!(count, 0, "the server has gone");
            got += count;
        }
        assert_eq!((got, self.reply[VALUE]), (REPLY, 1), "it was free, and it was held");
    }

    fn start(&mut self) {
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let mut bytes = (startup.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend_from_slice(startup);
        self.socket.write_all(&bytes).expect("the server listens");
        self.read_until_ready();
        let mut bytes = message(b'P', b"t\0SELECT pg_try_advisory_lock($1)\0\0\x01\0\0\0\x14");
        bytes.extend(message(b'P', b"u\0SELECT pg_advisory_unlock($1)\0\0\x01\0\0\0\x14"));
        bytes.extend(message(b'S', b""));
        self.socket.write_all(&bytes).expect("the server listens");
        self.read_until_ready();
    }

    fn read_until_ready(&mut self) {
        loop {
            let mut header = [0; 5];
            self.socket.read_exact(&mut header).expect("the server answers");
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            let mut body = vec![0; length as usize - 4];
            self.socket.read_exact(&mut body).expect("the server answers");
            match header[0] {
                b'Z' => return,
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }
}

/// Where the key is in [`statement`].
const KEY_AT: usize = 18;

/// Bind, Execute and Sync.
fn statement(name: &[u8; 1]) -> Vec<u8> {
    let mut body = vec![0, name[0], 0];
    body.extend_from_slice(&[0, 1, 0, 1, 0, 1, 0, 0, 0, 8]);
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&[0, 1, 0, 1]);
    let mut bytes = message(b'B', &body);
    bytes.extend(message(b'E', &[0, 0, 0, 0, 0]));
    bytes.extend(message(b'S', b""));
    bytes
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}
