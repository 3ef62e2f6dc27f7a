//! Scripts: what the backend says and what the application asks, in turns, and what comes of it.
//!
//! [`Script::play`] plays one in every way that the network could cut it, and returns the outcome
//! that all of them share.

use std::ops::Range;

use distlock::proto::authentication::{Channel, Credentials, Methods};
use distlock::proto::fault::Fault;
use distlock::proto::handshake::{LockSession, Purpose, Startup};
use distlock::proto::probe::Question;
use distlock::proto::rehearsal;
use distlock::proto::scram::IterationLimits;
use distlock::proto::session::{Event, Session, SessionLimits};
use distlock::proto::statement::{Run, Statement, Swap};
use zeroize::Zeroizing;

use super::backend;

/// The password of every script; it must never be seen in clear where it was not asked for.
pub(crate) const PASSWORD: &str = "canary-pencil";

/// Everything allowed, so that a script needs to say only what it forbids.
pub(crate) const ALL: Methods =
    Methods { none: true, password: true, md5: true, scram_sha_256: true };

/// The policy over TCP, unless the configuration says otherwise.
pub(crate) const STRICT: Methods =
    Methods { none: false, password: false, md5: false, scram_sha_256: true };

/// The end of a played script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<Event>,
    /// Everything that was sent.
    pub(crate) sent: Vec<u8>,
    pub(crate) fault: Option<Fault>,
}

#[derive(Debug, Clone)]
enum Turn {
    Backend(Vec<u8>),
    Submit(Statement, u64),
    /// The keys, with the tickets from this one on.
    SubmitRun(Run, Vec<i64>, u64),
    SubmitSwap(Swap, [u64; 2]),
    Sync(u64),
}

/// A story: its policy and its turns.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    methods: Methods,
    iterations: IterationLimits,
    channel: Channel,
    role: Role,
    turns: Vec<Turn>,
}

/// What the session of a script is for.
#[derive(Debug, Clone, Copy)]
enum Role {
    Locks,
    /// Locks, once a witness was heard.
    Witnessed,
    /// To be that witness.
    Witness,
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    EveryByte,
    At(usize),
}

impl Script {
    /// An empty one.
    pub(crate) fn new(methods: Methods) -> Self {
        // Any count above zero, so that the tests need not compute for long.
        let iterations = IterationLimits { min: 1, max: 4_096 };
        let channel = Channel::default();
        Self { methods, iterations, channel, role: Role::Locks, turns: Vec::new() }
    }

    /// What the session runs through, and whether it is to be bound to that.
    pub(crate) fn through(self, channel: Channel) -> Self {
        Self { channel, ..self }
    }

    /// The session has to wait for a witness.
    pub(crate) fn witnessed(self) -> Self {
        Self { role: Role::Witnessed, ..self }
    }

    /// The session is the witness for a lock of the process [`rehearsal::PID`].
    pub(crate) fn witness(self) -> Self {
        Self { role: Role::Witness, ..self }
    }

    /// A session that was let in by trust, up to [`Event::Ready`].
    pub(crate) fn ready() -> Self {
        Self::new(ALL).says_all(backend::greeting()).says_all(backend::preparation())
    }

    /// The backend says something, in one turn: it then waits for us.
    pub(crate) fn says(mut self, bytes: Vec<u8>) -> Self {
        self.turns.push(Turn::Backend(bytes));
        self
    }

    /// The same with several messages in one turn.
    pub(crate) fn says_all(self, messages: Vec<Vec<u8>>) -> Self {
        self.says(messages.concat())
    }

    pub(crate) fn submits(mut self, statement: Statement, ticket: u64) -> Self {
        self.turns.push(Turn::Submit(statement, ticket));
        self
    }

    pub(crate) fn submits_run(mut self, run: Run, keys: &[i64], first: u64) -> Self {
        self.turns.push(Turn::SubmitRun(run, keys.to_vec(), first));
        self
    }

    pub(crate) fn submits_swap(mut self, swap: Swap, tickets: [u64; 2]) -> Self {
        self.turns.push(Turn::SubmitSwap(swap, tickets));
        self
    }

    pub(crate) fn syncs(mut self, mark: u64) -> Self {
        self.turns.push(Turn::Sync(mark));
        self
    }

    /// Plays the script whole, and byte by byte.
    #[track_caller]
    pub(crate) fn play_in_bytes(&self) -> Outcome {
        let outcome = self.run(Cut::Whole).0;
        assert_eq!(self.run(Cut::EveryByte).0, outcome, "byte by byte");
        outcome
    }

    /// Plays the script whole, byte by byte, and split at every position.
    #[track_caller]
    pub(crate) fn play(&self) -> Outcome {
        let outcome = self.play_in_bytes();
        let lengths = self.turns.iter().map(|turn| match turn {
            Turn::Backend(bytes) => bytes.len(),
            _ => 0,
        });
        for at in 1..lengths.sum() {
            assert_eq!(self.run(Cut::At(at)).0, outcome, "split at {at}");
        }
        outcome
    }

    /// The same for long ones: whole, and byte by byte.
    #[track_caller]
    pub(crate) fn play_long(&self) -> Outcome {
        let outcome = self.run(Cut::Whole).0;
        assert_eq!(self.run(Cut::EveryByte).0, outcome, "byte by byte");
        outcome
    }

    /// Plays the script and expects a fault.
    #[track_caller]
    pub(crate) fn fails(&self) -> Fault {
        let outcome = self.play();
        outcome.fault.unwrap_or_else(|| panic!("no fault, but {:?}", outcome.events))
    }

    /// The session at the end of the script, played whole.
    #[track_caller]
    pub(crate) fn session(&self) -> Session {
        let (outcome, session) = self.run(Cut::Whole);
        assert_eq!(outcome.fault, None);
        session
    }

    fn run(&self, cut: Cut) -> (Outcome, Session) {
        let lock_session = rehearsal::lock_session();
        let purpose = match self.role {
            Role::Locks => Purpose::Locks(lock_session),
            Role::Witnessed => Purpose::Locks(LockSession { witness: true, ..lock_session }),
            Role::Witness => {
                Purpose::Testimony(Question { process_id: rehearsal::PID, key: rehearsal::KEY })
            }
        };
        let mut startup = Startup { purpose, ..startup(self.methods, self.iterations) };
        startup.credentials.channel = self.channel.clone();
        let mut session = Session::new(startup, SessionLimits::DEFAULT).expect("a short start");
        let mut outcome = Outcome { events: Vec::new(), sent: Vec::new(), fault: None };
        collect(&mut session, &mut outcome);
        let mut offset = 0;
        for turn in &self.turns {
            match turn {
                Turn::Backend(bytes) => {
                    for piece in pieces(bytes.len(), offset, cut) {
                        // As much as the read buffer takes at once.
                        for part in bytes[piece].chunks(SessionLimits::DEFAULT.read_buffer / 2) {
                            feed(&mut session, part);
                            collect(&mut session, &mut outcome);
                        }
                    }
                    offset += bytes.len();
                }
                Turn::Submit(statement, ticket) if outcome.fault.is_none() => {
                    session.submit(statement, *ticket).expect("room in the ring");
                }
                Turn::SubmitRun(run, keys, first) if outcome.fault.is_none() => {
                    let rows = keys.iter().copied().zip(*first..);
                    session.submit_run(*run, rows).expect("room in the ring");
                }
                Turn::SubmitSwap(swap, tickets) if outcome.fault.is_none() => {
                    session.submit_swap(*swap, *tickets).expect("room in the ring");
                }
                Turn::Sync(mark) if outcome.fault.is_none() => {
                    session.sync(*mark).expect("room in the ring");
                }
                _ => {}
            }
            collect(&mut session, &mut outcome);
        }
        (outcome, session)
    }
}

/// The start that every script has.
pub(crate) fn startup(methods: Methods, iterations: IterationLimits) -> Startup {
    let startup = rehearsal::startup(methods);
    let password = Some(Zeroizing::new(PASSWORD.into()));
    Startup { credentials: Credentials { password, iterations, ..startup.credentials }, ..startup }
}

/// Gives bytes to a session, as a stream would.
pub(crate) fn feed(session: &mut Session, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = session.space();
        let count = space.len().min(bytes.len());
        assert!(count > 0, "the read buffer is full");
        space[..count].copy_from_slice(&bytes[..count]);
        session.filled(count);
        bytes = &bytes[count..];
    }
}

/// Takes what a session has to give until it waits for bytes; once failed, it stays failed.
fn collect(session: &mut Session, outcome: &mut Outcome) {
    loop {
        match session.poll_event() {
            Ok(event) => {
                assert_eq!(outcome.fault, None, "it failed before");
                match event {
                    Some(event) => outcome.events.push(event),
                    None if session.is_deriving() => session.derive(3).expect("it derives"),
                    None => break,
                }
            }
            Err(fault) => {
                if outcome.fault.is_none() {
                    outcome.fault = Some(fault);
                }
                assert!(!session.is_ready() && session.poll_event().is_err(), "it recovered");
                break;
            }
        }
    }
    outcome.sent.extend_from_slice(session.output());
    session.sent(session.output().len());
}

/// How `length` bytes at `offset` of the whole arrive.
fn pieces(length: usize, offset: usize, cut: Cut) -> Vec<Range<usize>> {
    match cut {
        Cut::EveryByte => (0..length).map(|at| at..at + 1).collect(),
        Cut::At(at) if at > offset && at < offset + length => {
            vec![0..at - offset, at - offset..length]
        }
        Cut::At(_) | Cut::Whole => std::iter::once(0..length).collect(),
    }
}

/// What a script that comes to its end without a fault says once it is ready.
pub(crate) fn events(script: &Script) -> Vec<Event> {
    let mut outcome = script.play();
    assert_eq!(outcome.fault, None);
    assert!(matches!(outcome.events.remove(0), Event::Ready(_)));
    outcome.events
}
