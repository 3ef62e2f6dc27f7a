//! The floor: the library's protocol of waiting, on a blocking socket that does nothing else.
//!
//! A process registers as a waiter once and for all, so that each release notifies, and each
//! notification is followed by a try. What the library adds to that (a loss noticed while it waits,
//! deadlines, many waiters on one session, no herd) is the difference to its own row.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::raw::{message, statement};
use crate::worker::{Contestant, KEY};

/// Where those who wait for [`KEY`] hold a lock in shared mode; its lowest bits number the channel
/// where they are told of a release (`proto_notes.md`, section 4.12).
fn waiters() -> (i32, i32) {
    let mut x = KEY as u64 ^ 0x7761_6974_6572_7300;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        x = (x ^ (x >> 33)).wrapping_mul(factor);
    }
    x ^= x >> 33;
    ((x >> 32) as i32, x as i32)
}

pub(crate) struct Bare {
    socket: TcpStream,
    attempt: Vec<u8>,
    release: Vec<u8>,
    got: Vec<u8>,
    /// Whether the last release notified somebody, who is to come first.
    told: bool,
}

/// Who let somebody else come first asks again after this time even if nobody releases.
const COURTESY: Duration = Duration::from_millis(50);

impl Bare {
    pub(crate) fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_nodelay(true).expect("a TCP socket has it");
        let [attempt, release] = [b"t", b"r"].map(|name| statement(name, KEY));
        let mut bare = Self { socket, attempt, release, got: Vec::new(), told: false };
        let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let mut bytes = (startup.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend_from_slice(startup);
        bare.ask(&bytes);
        let (high, low) = waiters();
        let channel = format!("distlock_{}", low & 7);
        let listen = format!("LISTEN {channel}; SELECT pg_advisory_lock_shared({high}, {low})\0");
        bare.ask(&message(b'Q', listen.as_bytes()));
        let attempt = "SELECT CASE WHEN pg_try_advisory_lock($1) THEN 'a'::\"char\" ELSE 'w' END";
        let release = format!(
            "SELECT CASE WHEN NOT pg_advisory_unlock($1) THEN 'n'::\"char\" \
             WHEN pg_try_advisory_lock({high}, {low}) \
             THEN CASE WHEN pg_advisory_unlock({high}, {low}) THEN 'q'::\"char\" ELSE 'x' END \
             WHEN pg_notify('{channel}', $1::text) IS NULL THEN 'x' ELSE 'k' END"
        );
        for (name, text) in [("t", attempt), ("r", &release)] {
            let mut body = format!("{name}\0{text}\0").into_bytes();
            body.extend_from_slice(b"\0\x01\0\0\0\x14");
            let bytes = [message(b'P', &body), message(b'S', b"")].concat();
            bare.ask(&bytes);
        }
        bare
    }

    /// Sends that and reads until ReadyForQuery. The row's letter, if there was one, and whether
    /// there was a notification of another session.
    fn ask(&mut self, bytes: &[u8]) -> (Option<u8>, bool) {
        self.socket.write_all(bytes).expect("the server listens");
        let (mut letter, mut notified) = (None, false);
        loop {
            let (tag, body) = self.read().expect("no time is set");
            match tag {
                b'D' => letter = body.last().copied(),
                b'A' => notified = true,
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                b'Z' => return (letter, notified),
                _ => {}
            }
        }
    }

    /// Waits for a notification, for so long at most.
    fn wait(&mut self, limit: Option<Duration>) {
        self.socket.set_read_timeout(limit).expect("a time that is not zero");
        while self.read().is_some_and(|(tag, _)| tag != b'A') {}
        self.socket.set_read_timeout(None).expect("none is always taken");
    }

    /// One message; as many as there are are read from the socket at once. `None` when the time is
    /// over.
    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(&[tag, a, b, c, d]) = self.got.first_chunk() {
                let end = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if self.got.len() >= end {
                    let body = self.got[5..end].to_vec();
                    self.got.drain(..end);
                    return Some((tag, body));
                }
            }
            let mut room = [0; 4096];
            let count = match self.socket.read(&mut room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                count => count.expect("the server answers"),
            };
            assert_ne!(count, 0, "the server has gone");
            self.got.extend_from_slice(&room[..count]);
        }
    }
}

impl Contestant for Bare {
    fn take(&mut self, _: u64) -> bool {
        if std::mem::take(&mut self.told) {
            self.wait(Some(COURTESY));
        }
        loop {
            let attempt = self.attempt.clone();
            match self.ask(&attempt) {
                (Some(b'a'), _) => return true,
                (Some(b'w'), false) => self.wait(None),
                (Some(b'w'), true) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn give(&mut self) {
        let release = self.release.clone();
        let (letter, _) = self.ask(&release);
        assert!(matches!(letter, Some(b'k' | b'q')), "{letter:?}");
        self.told = letter == Some(b'k');
    }
}
