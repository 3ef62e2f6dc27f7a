//! The yardstick: a plain blocking socket, over TCP or a Unix one, that locks and unlocks with two
//! prepared round trips and does nothing else. It checks no more than it must to notice that it
//! went wrong.
//!
//! It can also send a release together with the next request, and wait inside the server, in the
//! queue that every advisory lock has there. And it can release by the library's own statements,
//! which look for waiters ([`RawSession::careful`]).
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A session that is ready and prepared.
pub(crate) struct RawSession<S = TcpStream> {
    socket: S,
    lock: Vec<u8>,
    unlock: Vec<u8>,
    wait: Vec<u8>,
    /// A release and the next request, where its two keys are, and what it answers.
    both: Vec<u8>,
    both_keys: [usize; 2],
    both_reply: (usize, &'static [(usize, u8)]),
    reply: [u8; 256],
    /// What a release that was in order answers.
    unlocked: u8,
}

impl RawSession {
    /// Connects as `postgres` with trust authentication.
    pub(crate) fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_nodelay(true).expect("a TCP socket has it");
        Self::over(socket)
    }
}

impl RawSession<UnixStream> {
    /// The same over the server's Unix socket, which is in this directory.
    pub(crate) fn connect_unix(directory: &Path, port: u16) -> Self {
        let path = directory.join(format!(".s.PGSQL.{port}"));
        Self::over(UnixStream::connect(path).expect("the server listens"))
    }
}

impl<S: Read + Write> RawSession<S> {
    fn over(socket: S) -> Self {
        let [lock, unlock, wait] = [b"t", b"u", b"w"].map(|name| statement(name, 0));
        // In one write, and with one Sync.
        let second = unlock.len() - SYNC;
        let both = [&unlock[..second], &lock].concat();
        let mut session = Self {
            socket,
            lock,
            unlock,
            wait,
            both,
            both_keys: [KEY_AT, second + KEY_AT],
            both_reply: (2 * reply_length(TRUE) - READY, TWO_VALUES),
            reply: [0; 256],
            unlocked: 1,
        };
        session.start();
        session
    }

    /// The same with the statements of the library, which look for waiters: one that releases, and
    /// one that releases and then asks.
    pub(crate) fn careful(mut self) -> Self {
        let waiters: [&[u8]; 2] = [&[1, 2, 3, 4], &[5, 6, 7, 8]];
        self.unlock = bound(b"r", 0, &waiters);
        self.unlocked = b'q';
        self.both = bound(b"x", 0, &[waiters[0], waiters[1], &[0; 8]]);
        // Two integers, each with its length, and the length of the second key.
        self.both_keys = [KEY_AT, KEY_AT + 8 + 2 * 8 + 4];
        self.both_reply = (reply_length(TRUE), &[(VALUE, b'Q')]);
        self
    }

    /// Two round trips.
    pub(crate) fn cycle(&mut self, key: i64) {
        self.try_lock(key);
        self.unlock(key);
    }

    /// So many cycles, where each release goes out together with the next request: one round trip
    /// each, and one more for the last release.
    pub(crate) fn riding_cycles(&mut self, key: i64, count: u32) {
        for at in self.both_keys {
            self.both[at..at + 8].copy_from_slice(&key.to_be_bytes());
        }
        let (length, values) = self.both_reply;
        self.try_lock(key);
        for _ in 1..count {
            self.socket.write_all(&self.both).expect("the server listens");
            self.read(length);
            for (at, value) in values {
                assert_eq!(self.reply[*at], *value, "it was held, and it was free");
            }
        }
        self.unlock(key);
    }

    /// `pg_try_advisory_lock`; the key has to be free.
    pub(crate) fn try_lock(&mut self, key: i64) {
        self.round_trip(|session| &mut session.lock, key, TRUE);
    }

    /// `pg_advisory_unlock`; the key has to be held by this session.
    pub(crate) fn unlock(&mut self, key: i64) {
        self.round_trip(|session| &mut session.unlock, key, &[self.unlocked]);
    }

    /// `pg_advisory_lock`: the answer comes when the key is ours, however long that takes.
    pub(crate) fn wait(&mut self, key: i64) {
        self.round_trip(|session| &mut session.wait, key, VOID);
    }

    fn round_trip(&mut self, request: fn(&mut Self) -> &mut Vec<u8>, key: i64, value: &[u8]) {
        let bytes = request(self);
        bytes[KEY_AT..KEY_AT + 8].copy_from_slice(&key.to_be_bytes());
        let bytes = std::mem::take(bytes);
        self.socket.write_all(&bytes).expect("the server listens");
        *request(self) = bytes;
        self.read(reply_length(value));
        assert_eq!(&self.reply[VALUE..VALUE + value.len()], value, "it was free, and it was held");
    }

    /// Reads so many bytes, and there must be no more.
    fn read(&mut self, length: usize) {
        let mut got = 0;
        while got < length {
            let count = self.socket.read(&mut self.reply[got..]).expect("the server answers");
            assert_ne!(count, 0, "the server has gone");
            got += count;
        }
        assert_eq!(got, length, "the server answers what was asked");
    }

    /// Takes that many keys in a row, in one statement.
    pub(crate) fn lock_many(&mut self, first: i64, count: u32) {
        let last = first + i64::from(count) - 1;
        let statement =
            format!("SELECT count(pg_advisory_lock(n)) FROM generate_series({first}, {last}) n\0");
        self.socket.write_all(&message(b'Q', statement.as_bytes())).expect("the server listens");
        self.read_until_ready();
    }

    fn start(&mut self) {
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let mut bytes = (startup.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend_from_slice(startup);
        self.socket.write_all(&bytes).expect("the server listens");
        self.read_until_ready();
        let mut bytes = message(b'P', b"t\0SELECT pg_try_advisory_lock($1)\0\0\x01\0\0\0\x14");
        bytes.extend(message(b'P', b"u\0SELECT pg_advisory_unlock($1)\0\0\x01\0\0\0\x14"));
        bytes.extend(message(b'P', b"w\0SELECT pg_advisory_lock($1)\0\0\x01\0\0\0\x14"));
        bytes.extend(message(b'P', RELEASE));
        bytes.extend(message(b'P', SWAP));
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

/// The library's release (`src/proto/statement/text.rs`): a key, and the one that waiters hold.
const RELEASE: &[u8] = b"r\0SELECT CASE WHEN NOT pg_advisory_unlock($1) THEN 'n'::\"char\" \
    WHEN pg_try_advisory_lock($2, $3) THEN CASE WHEN pg_advisory_unlock($2, $3) \
    THEN 'q'::\"char\" ELSE 'x' END WHEN pg_notify('distlock_' || ($3 & 7), $1::text) IS NULL \
    THEN 'x' ELSE 'k' END\0\0\x03\0\0\0\x14\0\0\0\x17\0\0\0\x17";

/// The same, and then a try (the same file).
const SWAP: &[u8] = b"x\0SELECT CASE WHEN NOT pg_advisory_unlock($1) THEN 'n'::\"char\" \
    WHEN pg_try_advisory_lock($2, $3) \
    THEN CASE WHEN NOT pg_advisory_unlock($2, $3) THEN 'x'::\"char\" \
    WHEN pg_try_advisory_lock($4) THEN 'Q' ELSE 'q' END \
    WHEN pg_notify('distlock_' || ($3 & 7), $1::text) IS NULL THEN 'x' \
    WHEN pg_try_advisory_lock($4) THEN 'K' ELSE 'k' END\0\
    \0\x04\0\0\0\x14\0\0\0\x17\0\0\0\x17\0\0\0\x14";

/// The one column of a row, in the binary format (`void` has no bytes).
const TRUE: &[u8] = &[1];
const VOID: &[u8] = &[];

/// Where the column is in a reply: BindComplete, DataRow, CommandComplete and ReadyForQuery.
const VALUE: usize = 16;

/// Those of a release and a request that share a Sync.
const TWO_VALUES: &[(usize, u8)] = &[(VALUE, 1), (reply_length(TRUE) - READY + VALUE, 1)];

/// The length of Sync, and that of ReadyForQuery.
const SYNC: usize = 5;
const READY: usize = 6;

/// How long a reply with this column is.
const fn reply_length(value: &[u8]) -> usize {
    36 + value.len()
}

/// Where the key is in [`statement`].
const KEY_AT: usize = 18;

/// Bind, Execute and Sync of a prepared statement with a key for its one parameter.
pub(crate) fn statement(name: &[u8; 1], key: i64) -> Vec<u8> {
    bound(name, key, &[])
}

/// The same of one with more parameters.
fn bound(name: &[u8; 1], key: i64, more: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, name[0], 0];
    body.extend_from_slice(&[0, 1, 0, 1, 0, more.len() as u8 + 1]);
    for value in [&[&key.to_be_bytes()[..]], more].concat() {
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value);
    }
    body.extend_from_slice(&[0, 1, 0, 1]);
    let mut bytes = message(b'B', &body);
    bytes.extend(message(b'E', &[0, 0, 0, 0, 0]));
    bytes.extend(message(b'S', b""));
    bytes
}

pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}
