//! What `session_ops` compares a session with: a second reader of the server's bytes, slow and
//! simple; a second writer of ours; and a server that keeps to the protocol.

use std::collections::VecDeque;

use distlock::proto::handshake::STATEMENTS;
use distlock::proto::session::Event;
use distlock::proto::statement::Value;
use distlock_fuzz::{data_row, message};

/// What is unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// A statement.
    Statement {
        /// Its number.
        ticket: u64,
    },
    /// A Sync.
    Sync {
        /// Its number.
        mark: u64,
    },
}

/// What has to be true of a session.
#[derive(Debug, Default)]
pub struct Model {
    /// Unanswered, oldest first; whether an error has doomed it.
    waiting: VecDeque<(Pending, bool)>,
    /// All bytes of the server, and how many of them the events so far account for.
    fed: Vec<u8>,
    read: usize,
    is_ready: bool,
    /// What the start-up had not sent yet when the session was ready.
    startup_output: usize,
    /// The output since then, and how much of it was sent.
    output: Vec<u8>,
    sent: usize,
}

impl Model {
    /// How much is unanswered.
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// The unanswered statements.
    pub fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().filter_map(|(pending, _)| match pending {
            Pending::Statement { ticket } => Some(*ticket),
            Pending::Sync { .. } => None,
        })
    }

    /// The oldest unanswered Sync.
    pub fn oldest_mark(&self) -> Option<u64> {
        self.waiting.iter().find_map(|(pending, _)| match pending {
            Pending::Statement { .. } => None,
            Pending::Sync { mark } => Some(*mark),
        })
    }

    /// A statement was accepted.
    pub fn submitted(&mut self, ticket: u64, kind: u8, key: i64) {
        self.waiting.push_back((Pending::Statement { ticket }, false));
        let mut body = vec![0];
        body.extend_from_slice(STATEMENTS[usize::from(kind)].0.as_bytes());
        body.extend_from_slice(b"\0\0\x01\0\x01");
        let key = key.to_be_bytes();
        let parameters: &[&[u8]] = if kind < 2 { &[&key] } else { &[&key[..4], &key[4..]] };
        // The parameters and their count are laid out as the values of a DataRow are.
        body.extend_from_slice(&data_row(parameters)[5..]);
        body.extend_from_slice(b"\0\x01\0\x01");
        self.output.extend(message(b'B', &body));
        self.output.extend(message(b'E', b"\0\0\0\0\0"));
    }

    /// A Sync was accepted.
    pub fn synced(&mut self, mark: u64) {
        self.waiting.push_back((Pending::Sync { mark }, false));
        self.output.extend(message(b'S', b""));
    }

    /// Bytes of the server were given to the session.
    pub fn fed(&mut self, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
    }

    /// The first `count` bytes of the output are about to be sent.
    pub fn sent(&mut self, count: usize) {
        if self.is_ready {
            let startup = count.min(self.startup_output);
            self.startup_output -= startup;
            self.sent += count - startup;
        }
    }

    /// Behind what is left of the start-up's, the output is that of the accepted calls.
    pub fn check_output(&self, bytes: &[u8]) {
        if self.is_ready {
            let ours = &self.output[self.sent..];
            assert_eq!(&bytes[self.startup_output..], ours, "not the output of the calls");
        }
    }

    /// The session is ready, with so many bytes still to send.
    pub fn ready(&mut self, startup_output: usize) {
        assert!(!self.is_ready, "ready twice");
        self.is_ready = true;
        self.startup_output = startup_output;
        // The batches: authentication, identity and settings, confirmation, statements, release.
        for _ in 0..5 {
            while self.next_frame().0 != b'Z' {}
        }
    }

    /// An event: it must be the next one, and the server's bytes must say so.
    pub fn happened(&mut self, event: &Event) {
        match event {
            // Asynchronous, and answers nothing; see `next_reply`.
            Event::Notified { .. } => return,
            Event::CommitFailed { .. } => {
                let (pending, is_doomed) = self.waiting.front().expect("an event for nothing");
                assert!(matches!(pending, Pending::Sync { .. }) && !is_doomed);
                assert_eq!(self.next_reply().0, b'E');
                return;
            }
            _ => {}
        }
        let (pending, is_doomed) = self.waiting.pop_front().expect("an event for nothing");
        match (event, pending) {
            (Event::Answer { ticket: told, value }, Pending::Statement { ticket }) => {
                assert!(*told == ticket && !is_doomed);
                assert_eq!(self.next_reply(), (b'2', vec![]));
                let value = match value {
                    Value::Yes => 1,
                    Value::No => 0,
                    other => panic!("{other:?} in answer to a boolean"),
                };
                let row = (b'D', vec![0, 1, 0, 0, 0, 1, value]);
                assert_eq!(self.next_reply(), row, "not the bytes of this answer");
                assert_eq!(self.next_reply().0, b'C');
            }
            (Event::Failed { ticket: told, .. }, Pending::Statement { ticket }) => {
                assert!(*told == ticket && !is_doomed);
                let mut tags = Vec::new();
                while tags.last() != Some(&b'E') {
                    tags.push(self.next_reply().0);
                }
                assert!([&b"E"[..], b"2E", b"2DE"].contains(&&tags[..]), "{tags:?}");
                let batch = self.waiting.iter_mut();
                batch
                    .take_while(|(pending, _)| matches!(pending, Pending::Statement { .. }))
                    .for_each(|(_, is_doomed)| *is_doomed = true);
            }
            (Event::Skipped { ticket: told }, Pending::Statement { ticket }) => {
                assert!(*told == ticket && is_doomed);
                // The ReadyForQuery is there, and stays for the Sync.
                let read = self.read;
                assert_eq!(self.next_reply(), (b'Z', b"I".to_vec()));
                self.read = read;
            }
            (Event::Synced { mark: told }, Pending::Sync { mark }) => {
                assert_eq!(*told, mark);
                assert_eq!(self.next_reply(), (b'Z', b"I".to_vec()));
            }
            (event, pending) => panic!("{event:?} in answer to {pending:?}"),
        }
    }

    /// The next message that is not asynchronous.
    fn next_reply(&mut self) -> (u8, Vec<u8>) {
        loop {
            let frame = self.next_frame();
            if !matches!(frame.0, b'A' | b'N' | b'S') {
                return frame;
            }
        }
    }

    fn next_frame(&mut self) -> (u8, Vec<u8>) {
        let rest = &self.fed[self.read..];
        let [tag, a, b, c, d, rest @ ..] = rest else { panic!("an event before its bytes") };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        let body = rest.get(..length).expect("an event before its bytes").to_vec();
        self.read += 5 + length;
        (*tag, body)
    }
}

/// A server that keeps to the protocol.
#[derive(Debug, Default)]
pub struct Server {
    /// What it has not answered yet.
    pub queue: VecDeque<Pending>,
    is_skipping: bool,
}

impl Server {
    /// Whether nothing is asked after the last Sync.
    pub fn is_batch_closed(&self) -> bool {
        !matches!(self.queue.back(), Some(Pending::Statement { .. }))
    }

    /// The reply to the oldest request that gets one; `kind` chooses among the possible ones.
    pub fn reply(&mut self, kind: u8) -> Vec<u8> {
        let bound = message(b'2', b"");
        let row = data_row(&[&[kind & 1]]);
        let error = message(b'E', b"SFEHLER\0VERROR\0C53200\0Mout of shared memory\0\0");
        let asynchronous = match kind >> 6 {
            1 => message(b'N', b"SWARNUNG\0VWARNING\0C01000\0Mby the way\0\0"),
            2 => message(b'A', b"\0\0\0\x07channel\0payload\0"),
            3 => message(b'S', b"TimeZone\0UTC\0"),
            _ => Vec::new(),
        };
        let reply = loop {
            match self.queue.pop_front() {
                None => break Vec::new(),
                Some(Pending::Sync { .. }) => {
                    self.is_skipping = false;
                    break message(b'Z', b"I");
                }
                Some(Pending::Statement { .. }) if self.is_skipping => {}
                Some(Pending::Statement { .. }) => {
                    let errors = [vec![], bound.clone(), [bound.clone(), row.clone()].concat()];
                    break match errors.get(usize::from(kind >> 1 & 7)) {
                        Some(before) => {
                            self.is_skipping = true;
                            [&before[..], &error].concat()
                        }
                        None => [bound, row, message(b'C', b"SELECT 1\0")].concat(),
                    };
                }
            }
        };
        [asynchronous, reply].concat()
    }
}
