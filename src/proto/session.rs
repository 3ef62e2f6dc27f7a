//! A session: one connection to the server, from its first byte to its last.
//!
//! Call order, as in the rest of this crate's pure values: put bytes in ([`Session::space`],
//! [`Session::filled`]), take events out ([`Session::poll_event`]) until there is none, do the work
//! that is left ([`Session::derive`]), then send what there is to send ([`Session::output`],
//! [`Session::sent`]). Once [`Event::Ready`] came, statements can be submitted.
//!
//! Statements share a Sync: [`Session::submit`] any number, then [`Session::sync`]. Answers come
//! in the order of the statements (invariant I4), each exactly once: an [`Event::Answer`], or,
//! after an error, one [`Event::Failed`] and an [`Event::Skipped`] for each statement up to the
//! Sync (manual: protocol-flow, "Pipelining"). Session-level locks survive an error, so the
//! answers before it stand (manual: explicit-locking, "Advisory Locks").

use std::collections::VecDeque;

use super::backend::{self, BackendMessage, Status};
use super::budget::Budget;
use super::buffer::{ReadBuf, WriteBuf};
use super::fault::{Fault, Unsuitable, Violation};
use super::fields::{ServerError, Severity};
use super::frontend::{self, KeyParameters, STATEMENT_MAX};
use super::handshake::{Greeting, Handshake, STATEMENTS, Startup, Step};
use super::probe::Question;

/// The sizes of a session, fixed when it is made (invariant I6).
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The read buffer, in bytes; the longest acceptable message must fit.
    pub read_buffer: usize,
    /// The write buffer, in bytes.
    pub write_buffer: usize,
    /// Statements and Syncs that may be unanswered at once.
    pub in_flight: usize,
}

impl SessionLimits {
    /// 32 KiB to read, since an ErrorResponse may have 30,000 bytes; 256 unanswered statements and
    /// the write buffer that they need.
    pub const DEFAULT: Self =
        Self { read_buffer: 32 * 1024, write_buffer: 256 * STATEMENT_MAX, in_flight: 256 };
}

/// A lock statement (manual: functions-admin, "Advisory Lock Functions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// `pg_try_advisory_lock`.
    TryLock(KeyParameters),
    /// `pg_advisory_unlock`.
    Unlock(KeyParameters),
}

/// What happened. The tickets are those given to [`Session::submit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A witness is to answer this; [`Session::witnessed`] goes on.
    Witness(Question),
    /// The session is authenticated, set up and prepared.
    Ready(Greeting),
    /// A statement's answer: its row and its CommandComplete are in.
    Answer {
        /// The statement.
        ticket: u32,
        /// What the function returned.
        value: bool,
    },
    /// A statement failed; whether it took effect is not known (invariant I2).
    Failed {
        /// The statement.
        ticket: u32,
        /// The server's report.
        error: Box<ServerError>,
    },
    /// A statement was not run, because one before it failed.
    Skipped {
        /// The statement.
        ticket: u32,
    },
    /// A Sync was answered.
    Synced {
        /// What was given to [`Session::sync`].
        mark: u64,
    },
}

/// The in-flight ring has no room; try again when answers have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// One connection to the server.
#[derive(Debug)]
pub struct Session {
    incoming: ReadBuf,
    outgoing: WriteBuf,
    state: State,
    /// What is unanswered, oldest first. INVARIANT: never longer than `limits.in_flight`.
    ring: VecDeque<Pending>,
    limits: SessionLimits,
    /// Whether the server has said anything but an error.
    answered: bool,
    /// What the server may still say before the session is ready; from then on, what it may say
    /// unasked before the next Sync is answered.
    budget: Budget,
}

#[derive(Debug)]
enum State {
    Starting(Box<Handshake>),
    Ready,
    Failed,
}

#[derive(Debug, Clone, Copy)]
enum Pending {
    Statement { ticket: u32, reply: Reply },
    Sync { mark: u64 },
}

/// The next message of a statement's reply.
#[derive(Debug, Clone, Copy)]
enum Reply {
    BindComplete,
    DataRow,
    CommandComplete {
        value: bool,
    },
    /// ErrorResponse was seen: the server skips to the Sync.
    Skipping,
}

// The longest message always fits, so that a full buffer always holds a whole one.
const _: () = assert!(SessionLimits::DEFAULT.read_buffer > backend::FRAME_MAX);

impl Session {
    /// A new session; the StartupMessage is ready to be sent.
    ///
    /// # Errors
    ///
    /// When the StartupMessage cannot be written.
    pub fn new(startup: Startup, limits: SessionLimits) -> Result<Self, Fault> {
        let mut outgoing = WriteBuf::new(limits.write_buffer);
        let handshake = Handshake::new(startup, &mut outgoing)?;
        Ok(Self {
            incoming: ReadBuf::new(limits.read_buffer),
            outgoing,
            state: State::Starting(Box::new(handshake)),
            ring: VecDeque::with_capacity(limits.in_flight),
            limits,
            answered: false,
            budget: Budget::of_startup(),
        })
    }

    /// Where the next bytes of the server go; never empty while events are polled.
    pub fn space(&mut self) -> &mut [u8] {
        self.incoming.space()
    }

    /// Tells that `count` bytes were put into [`Session::space`].
    pub fn filled(&mut self, count: usize) {
        self.incoming.filled(count);
    }

    /// The next event, or none until more bytes come.
    ///
    /// # Errors
    ///
    /// The reason why the session is over. Every later call is an error too.
    pub fn poll_event(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if matches!(self.state, State::Failed) {
                return Err(Fault::Internal("the session has already failed"));
            }
            match self.step() {
                Ok(Progress::Event(event) | Progress::EventBefore(event)) => {
                    return Ok(Some(event));
                }
                Ok(Progress::Message) => {}
                Ok(Progress::Starved) => return Ok(None),
                Err(fault) => {
                    self.state = State::Failed;
                    return Err(fault);
                }
            }
        }
    }

    /// Queues a lock statement. To be followed by [`Session::sync`] before the next events are
    /// polled: what is submitted after an error and before its Sync would be taken for a statement
    /// of a batch that the server skips.
    ///
    /// # Errors
    ///
    /// [`Busy`] when too much is unanswered, unsent, or the session is not ready.
    pub fn submit(&mut self, statement: Statement, ticket: u32) -> Result<(), Busy> {
        // Room is kept for the Sync that has to follow.
        let ring_room = self.limits.in_flight.saturating_sub(self.ring.len());
        if !self.is_ready() || ring_room < 2 || self.outgoing.room() < 3 * STATEMENT_MAX {
            return Err(Busy);
        }
        let (name, key) = match statement {
            Statement::TryLock(key @ KeyParameters::Bigint(_)) => (STATEMENTS[0].0, key),
            Statement::Unlock(key @ KeyParameters::Bigint(_)) => (STATEMENTS[1].0, key),
            Statement::TryLock(key @ KeyParameters::Pair(..)) => (STATEMENTS[2].0, key),
            Statement::Unlock(key @ KeyParameters::Pair(..)) => (STATEMENTS[3].0, key),
        };
        frontend::bind_key(&mut self.outgoing, name, key).map_err(|_| Busy)?;
        frontend::execute(&mut self.outgoing).map_err(|_| Busy)?;
        self.ring.push_back(Pending::Statement { ticket, reply: Reply::BindComplete });
        Ok(())
    }

    /// Queues a Sync: the end of a batch, or alone the heartbeat. `mark` comes back with its
    /// answer.
    ///
    /// # Errors
    ///
    /// [`Busy`], as for [`Session::submit`].
    pub fn sync(&mut self, mark: u64) -> Result<(), Busy> {
        if !self.is_ready() || self.ring.len() >= self.limits.in_flight {
            return Err(Busy);
        }
        frontend::sync(&mut self.outgoing).map_err(|_| Busy)?;
        self.ring.push_back(Pending::Sync { mark });
        Ok(())
    }

    /// The mark of the oldest unanswered Sync.
    pub fn oldest_mark(&self) -> Option<u64> {
        self.ring.iter().find_map(|pending| match pending {
            Pending::Sync { mark } => Some(*mark),
            Pending::Statement { .. } => None,
        })
    }

    /// The tickets of the unanswered statements, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = u32> + '_ {
        self.ring.iter().filter_map(|pending| match pending {
            Pending::Statement { ticket, .. } => Some(*ticket),
            Pending::Sync { .. } => None,
        })
    }

    /// The bytes to send.
    pub fn output(&self) -> &[u8] {
        self.outgoing.pending()
    }

    /// Tells that the first `count` bytes of [`Session::output`] were sent.
    pub fn sent(&mut self, count: usize) {
        self.outgoing.sent(count);
    }

    /// Whether [`Session::derive`] has work to do.
    pub fn is_deriving(&self) -> bool {
        matches!(&self.state, State::Starting(handshake) if handshake.is_deriving())
    }

    /// Does at most `rounds` rounds of the SCRAM key derivation.
    ///
    /// # Errors
    ///
    /// As for [`Session::poll_event`].
    pub fn derive(&mut self, rounds: u32) -> Result<(), Fault> {
        let State::Starting(handshake) = &mut self.state else { return Ok(()) };
        let derived = handshake.derive(rounds, &mut self.outgoing);
        if derived.is_err() {
            self.state = State::Failed;
        }
        derived
    }

    /// The witness was heard, and content; see [`Event::Witness`].
    ///
    /// # Errors
    ///
    /// As for [`Session::poll_event`].
    pub fn witnessed(&mut self) -> Result<Option<Event>, Fault> {
        let State::Starting(handshake) = &mut self.state else { return Ok(None) };
        let step = handshake.witnessed(&mut self.outgoing);
        if step.is_err() {
            self.state = State::Failed;
        }
        Ok(self.take_step(step?))
    }

    /// Whether the server has said nothing so far, or nothing but an error: it may not know the
    /// protocol version that was asked for.
    pub fn is_unanswered(&self) -> bool {
        !self.answered
    }

    /// Whether statements may be submitted.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Where the session is, for an error or a trace.
    pub fn state(&self) -> &'static str {
        match &self.state {
            State::Starting(handshake) => handshake.state(),
            State::Ready => match self.ring.front() {
                Some(Pending::Statement { reply, .. }) => reply.state(),
                Some(Pending::Sync { .. }) => "where ReadyForQuery has to follow",
                None => "while nothing was asked",
            },
            State::Failed => "after the session failed",
        }
    }

    /// Says goodbye; to be sent as far as it goes, then the connection is closed.
    pub fn terminate(&mut self) {
        // Without room there is no goodbye: closing the connection says the same.
        let _ = frontend::terminate(&mut self.outgoing);
        self.state = State::Failed;
    }

    fn take_step(&mut self, step: Step) -> Option<Event> {
        match step {
            Step::Continue => None,
            Step::Witness(question) => Some(Event::Witness(question)),
            Step::Done(greeting) => {
                self.state = State::Ready;
                self.budget = Budget::of_unasked();
                Some(Event::Ready(greeting))
            }
        }
    }

    /// Takes one message.
    fn step(&mut self) -> Result<Progress, Fault> {
        // It is our turn: what the server sends meanwhile waits, so that the outcome does not
        // depend on when it comes.
        if self.is_deriving() {
            return Ok(Progress::Starved);
        }
        let Status::Complete { message, size } = backend::decode(self.incoming.bytes())? else {
            return Ok(Progress::Starved);
        };
        let progress = match &mut self.state {
            State::Starting(handshake) => {
                self.budget.take(size)?;
                let step = handshake.handle(&message, &mut self.outgoing)?;
                self.answered = true;
                match self.take_step(step) {
                    Some(event) => Progress::Event(event),
                    None => Progress::Message,
                }
            }
            State::Ready | State::Failed if handle_asynchronous(&message)? => {
                self.budget.take(size)?;
                Progress::Message
            }
            State::Ready | State::Failed => {
                let progress = handle_ready(&mut self.ring, &message)?;
                if matches!(progress, Progress::Event(Event::Synced { .. })) {
                    self.budget = Budget::of_unasked();
                }
                progress
            }
        };
        if !matches!(progress, Progress::EventBefore(_)) {
            self.incoming.consume(size);
        }
        Ok(progress)
    }
}

enum Progress {
    Event(Event),
    /// An event that comes before the message, which is looked at once more.
    EventBefore(Event),
    Message,
    Starved,
}

/// The ready session's whitelist: the next message that the oldest unanswered statement or Sync
/// calls for. (Asynchronous messages, which may come at any time, were taken before.)
fn handle_ready(
    ring: &mut VecDeque<Pending>,
    message: &BackendMessage<'_>,
) -> Result<Progress, Fault> {
    let unexpected =
        |state| Err(Violation::Unexpected { message: backend::name(message), state }.into());
    match (ring.front_mut(), message) {
        (Some(Pending::Statement { ticket, reply }), BackendMessage::ErrorResponse(report))
            if report.severity() == Severity::Error && !matches!(reply, Reply::Skipping) =>
        {
            let event = Event::Failed { ticket: *ticket, error: Box::new(report.to_error()) };
            ring.pop_front();
            mark_skipping(ring);
            Ok(Progress::Event(event))
        }
        // FATAL ends the session; an ERROR that no statement explains is not one we can place.
        (_, BackendMessage::ErrorResponse(report)) => {
            Err(Fault::Server(Box::new(report.to_error())))
        }
        (
            Some(Pending::Statement { ticket, reply: Reply::Skipping }),
            BackendMessage::ReadyForQuery(b'I'),
        ) => {
            let event = Event::Skipped { ticket: *ticket };
            ring.pop_front();
            Ok(Progress::EventBefore(event))
        }
        (Some(Pending::Statement { ticket, reply }), message) => match (*reply, message) {
            (Reply::BindComplete, BackendMessage::BindComplete) => {
                *reply = Reply::DataRow;
                Ok(Progress::Message)
            }
            (Reply::DataRow, BackendMessage::DataRow(row)) => {
                *reply = Reply::CommandComplete { value: row.boolean()? };
                Ok(Progress::Message)
            }
            (Reply::CommandComplete { value }, BackendMessage::CommandComplete) => {
                let event = Event::Answer { ticket: *ticket, value };
                ring.pop_front();
                Ok(Progress::Event(event))
            }
            (reply, _) => unexpected(reply.state()),
        },
        (Some(Pending::Sync { mark }), BackendMessage::ReadyForQuery(b'I')) => {
            let event = Event::Synced { mark: *mark };
            ring.pop_front();
            Ok(Progress::Event(event))
        }
        (Some(Pending::Sync { .. }), _) => unexpected("where ReadyForQuery has to follow"),
        (None, _) => unexpected("while nothing was asked"),
    }
}

/// Takes the messages that may come at any time (manual: protocol-flow, "Asynchronous
/// Operations"); says whether it was one.
fn handle_asynchronous(message: &BackendMessage<'_>) -> Result<bool, Fault> {
    match message {
        BackendMessage::NotificationResponse => Ok(true),
        // A primary that was demoted: its locks are not the cluster's any more.
        BackendMessage::ParameterStatus { name: b"in_hot_standby", value: b"on" } => {
            Err(Unsuitable::Standby.into())
        }
        BackendMessage::ParameterStatus { .. } => Ok(true),
        BackendMessage::NoticeResponse(report) => report.check_shutdown().map(|()| true),
        _ => Ok(false),
    }
}

/// After an error the server runs nothing more of the batch.
fn mark_skipping(ring: &mut VecDeque<Pending>) {
    for pending in ring {
        match pending {
            Pending::Statement { reply, .. } => *reply = Reply::Skipping,
            Pending::Sync { .. } => break,
        }
    }
}

impl Reply {
    fn state(self) -> &'static str {
        match self {
            Self::BindComplete => "where BindComplete has to follow",
            Self::DataRow => "where DataRow has to follow",
            Self::CommandComplete { .. } => "where CommandComplete has to follow",
            Self::Skipping => "where ReadyForQuery has to follow an error",
        }
    }
}
