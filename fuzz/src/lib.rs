//! What the fuzz targets share: how their inputs are read, the fixed Startup, backend messages, and
//! second readers and a SCRAM server to compare the library with. Used by `fuzz_targets/` and by
//! the programs that make the seeds; it knows nothing of libFuzzer, so that they build without it.
#![forbid(unsafe_code)]

pub mod frontend;
pub mod listing;
pub mod reference;
pub mod scram;
pub mod script;
pub mod statements;

use std::fmt::Display;

use distlock::proto::authentication::{Credentials, Methods};
use distlock::proto::fault::Fault;
use distlock::proto::handshake::Startup;
use distlock::proto::rehearsal;
use distlock::proto::scram::{IterationLimits, NONCE_ENTROPY};
use distlock::proto::session::{Event, Session, SessionLimits};
use zeroize::Zeroizing;

/// A fuzz input, read from the front. What is beyond the end is zero, so that every input means
/// something.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of an input.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// The next four bytes.
    pub fn i32(&mut self) -> i32 {
        i32::from(self.u16() as i16) << 16 | i32::from(self.u16())
    }

    /// The next bytes, so many as the byte before them says.
    pub fn counted(&mut self) -> &'a [u8] {
        let count = usize::from(self.u8());
        self.bytes(count)
    }

    /// As [`Self::counted`], as text: what is not UTF-8 is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.counted()).into_owned()
    }

    /// The next bytes, fewer than asked for at the end.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// The password of every Startup.
pub const PASSWORD: &str = "pencil";

/// The same for every session, so that recorded SCRAM exchanges can be replayed.
pub const ENTROPY: [u8; NONCE_ENTROPY] = [0x5a; NONCE_ENTROPY];

/// What the nonce of [`ENTROPY`] looks like in a message.
pub const NONCE: &str = "WlpaWlpaWlpaWlpaWlpaWlpa";

/// The one Startup; `mask` says which authentication methods are allowed and whether there is a
/// password.
pub fn startup(mask: u8) -> Startup {
    let bit = |n: u8| mask & (1 << n) != 0;
    let methods = Methods { none: bit(0), password: bit(1), md5: bit(2), scram_sha_256: bit(3) };
    let startup = rehearsal::startup(methods);
    let credentials = Credentials {
        user: "fuzz".into(),
        password: bit(4).then(|| Zeroizing::new(PASSWORD.into())),
        entropy: ENTROPY,
        // Few, so that an execution stays short: the count is the server's to choose.
        iterations: IterationLimits { min: 1, max: 16 },
        ..startup.credentials
    };
    Startup { credentials, database: "postgres".into(), ..startup }
}

/// The mask of [`startup`] that allows everything.
pub const ANY_METHOD: u8 = 0x1f;

pub use distlock::proto::rehearsal::message;

/// A DataRow of these values.
pub fn data_row(values: &[&[u8]]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
    rehearsal::row(&values)
}

/// All that a server sends, with trust, until the session is prepared.
pub fn handshake() -> Vec<u8> {
    [rehearsal::greeting(), rehearsal::preparation()].concat().concat()
}

/// How many settings a server of this major version is given (`proto_notes.md`, section 4.4).
pub fn settings_columns(major: u32) -> usize {
    match major {
        ..12 => 8,
        12..14 => 9,
        14.. => 11,
    }
}

/// A session that [`handshake`] has made ready; all it had to send is sent.
pub fn ready_session(limits: SessionLimits) -> Session {
    let mut session = Session::new(startup(ANY_METHOD), limits).expect("a StartupMessage");
    let mut trace = Trace::default();
    trace.feed(&mut session, &handshake());
    assert!(matches!(trace.events[..], [Event::Ready(_)]), "not ready: {trace:?}");
    session
}

/// All that a session said and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The events.
    pub events: Vec<Event>,
    /// The end, if it has come.
    pub fault: Option<Fault>,
    /// What it had to send.
    pub output: Vec<u8>,
}

impl Trace {
    /// Gives the session bytes and does all that follows from them.
    pub fn feed(&mut self, session: &mut Session, mut bytes: &[u8]) {
        loop {
            if self.fault.is_some() {
                return;
            }
            let space = session.space();
            let count = space.len().min(bytes.len());
            assert!(count > 0 || bytes.is_empty(), "no space, though events were polled");
            let (now, later) = bytes.split_at(count);
            space[..count].copy_from_slice(now);
            session.filled(count);
            bytes = later;
            self.settle(session);
            if bytes.is_empty() {
                return;
            }
        }
    }

    /// Takes events, derives, and sends, until nothing more happens.
    fn settle(&mut self, session: &mut Session) {
        loop {
            match session.poll_event() {
                Ok(Some(event)) => self.events.push(event),
                Ok(None) if session.is_deriving() => {
                    session.derive(3).expect("a response that fits");
                }
                Ok(None) => break,
                Err(fault) => {
                    check_text(&fault);
                    assert!(session.poll_event().is_err(), "a session came back from the dead");
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        self.output.extend_from_slice(session.output());
        let sent = session.output().len();
        session.sent(sent);
        assert!(session.output().is_empty());
    }
}

/// A text that may be shown anywhere: bounded, no control characters, and without the password.
pub fn check_text(error: &impl Display) {
    let text = error.to_string();
    assert!(text.len() < 16 * 1024, "{} bytes of text", text.len());
    assert!(!text.chars().any(char::is_control), "control characters: {text:?}");
}
