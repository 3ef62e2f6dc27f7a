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

use super::backend::{self, BackendMessage, Status};
use super::budget::Budget;
use super::buffer::{Body, ReadBuf, WriteBuf};
pub use super::event::Event;
use super::fault::Fault;
use super::frontend::{self, LONG_PARSE_MAX, PARSE_MAX, STATEMENT_MAX};
use super::handshake::{Handshake, Startup, Step};
use super::ring::{Progress, Ring};
use super::statement::{
    Definition, PREPARED_AT_START, ROWS_MAX, RUN_MAX, Run, Shape, Statement, Swap,
};

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
    /// 32 KiB to read, since an ErrorResponse may have 30,000 bytes; 16 KiB to write, which is
    /// about what 256 unanswered statements need.
    pub const DEFAULT: Self =
        Self { read_buffer: 32 * 1024, write_buffer: 16 * 1024, in_flight: 256 };
}

/// Why a statement or a Sync was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room, or no ready session; try again when answers have come.
    Busy,
    /// The statement begins a batch: a [`Session::sync`] has to come first.
    SyncFirst,
}

/// One connection to the server.
#[derive(Debug)]
pub struct Session {
    incoming: ReadBuf,
    outgoing: WriteBuf,
    state: State,
    ring: Ring,
    batch: Batch,
    /// A bit for each statement that is prepared.
    prepared: u64,
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

/// What was submitted since the last Sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Empty,
    Open,
    /// A statement that shares its Sync with no other.
    Alone,
}

/// What has to fit before a statement is taken: itself, what prepares it, and its Sync.
fn submit_room(definition: &Definition, size: usize) -> usize {
    let parse = match definition.shape {
        Shape::Listing => LONG_PARSE_MAX,
        _ => PARSE_MAX,
    };
    parse.saturating_add(size).saturating_add(STATEMENT_MAX)
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
            ring: Ring::new(limits.in_flight),
            batch: Batch::Empty,
            prepared: PREPARED_AT_START,
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
            let event = match self.state {
                State::Failed => {
                    return Err(Fault::Internal("the session has already failed"));
                }
                // All is taken in: nothing has to be decoded to know that.
                State::Ready if self.incoming.bytes().is_empty() => {
                    return Ok(self.ring.take_second());
                }
                State::Ready => self.stride(),
                State::Starting(_) => None,
            };
            if event.is_some() {
                return Ok(event);
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

    /// The connection has ended: looks for an error of the server that would wait until
    /// [`Session::derive`] is done, which it never will be.
    ///
    /// # Errors
    ///
    /// The server's error.
    pub fn last_word(&mut self) -> Result<(), Fault> {
        let State::Starting(handshake) = &mut self.state else { return Ok(()) };
        match backend::decode(self.incoming.bytes()) {
            Ok(Status::Complete {
                message: message @ BackendMessage::ErrorResponse(_), ..
            }) if handshake.is_deriving() => {
                handshake.handle(&message, &mut self.outgoing).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Queues a lock statement, and before it, once, what prepares it. To be followed by
    /// [`Session::sync`] before the next events are polled: what is submitted after an error and
    /// before its Sync would be taken for a statement of a batch that the server skips.
    ///
    /// # Errors
    ///
    /// [`Refused`], when too much is unanswered or unsent, the session is not ready, or a Sync has
    /// to come first: what prepares a statement must not be skipped because of another one's
    /// failure, and some statements share their Sync with no other.
    pub fn submit(&mut self, statement: &Statement, ticket: u64) -> Result<(), Refused> {
        let definition = statement.definition();
        let is_alone = statement.is_alone();
        self.admit(&definition, is_alone, 1, STATEMENT_MAX)?;
        let parameters = |body: &mut Body<'_>| statement.parameters(body);
        self.write(&definition, parameters)?;
        self.ring.push_statement(ticket, definition.shape, statement.commits());
        self.batch = if is_alone { Batch::Alone } else { Batch::Open };
        Ok(())
    }

    /// The same for several statements of one kind, which become one with a row for each ticket;
    /// at most [`ROWS_MAX`] of them. What becomes of each is told as if they had been submitted one
    /// by one.
    ///
    /// # Errors
    ///
    /// As for [`Session::submit`].
    pub fn submit_run(
        &mut self,
        run: Run,
        rows: impl Iterator<Item = (i64, u64)> + Clone,
    ) -> Result<(), Refused> {
        let definition = run.definition();
        let count = rows.clone().count();
        if !(1..=ROWS_MAX).contains(&count) {
            return Err(Refused::Busy);
        }
        self.admit(&definition, false, count, RUN_MAX)?;
        let keys = rows.clone().map(|(key, _)| key);
        self.write(&definition, |body| run.parameters(body, keys))?;
        self.ring.push_run(rows.map(|(_, ticket)| ticket), definition.shape);
        self.batch = Batch::Open;
        Ok(())
    }

    /// The same for a release and a try that become one statement. What becomes of each is told as
    /// if they had been submitted one by one; but when the statement fails after it was begun, both
    /// have failed.
    ///
    /// # Errors
    ///
    /// As for [`Session::submit`].
    pub fn submit_swap(&mut self, swap: Swap, tickets: [u64; 2]) -> Result<(), Refused> {
        let definition = Swap::definition();
        self.admit(&definition, false, tickets.len(), STATEMENT_MAX)?;
        self.write(&definition, |body| swap.parameters(body))?;
        self.ring.push_swap(tickets);
        self.batch = Batch::Open;
        Ok(())
    }

    /// Whether a statement can be taken now that has so many tickets and bytes.
    fn admit(
        &self,
        definition: &Definition,
        is_alone: bool,
        tickets: usize,
        size: usize,
    ) -> Result<(), Refused> {
        let is_prepared = self.is_prepared(definition);
        // Room is kept for the Sync that has to follow.
        let places = tickets.saturating_add(if is_prepared { 1 } else { 2 });
        let room = submit_room(definition, size);
        if !self.is_ready() || self.ring.room() < places || self.outgoing.room() < room {
            return Err(Refused::Busy);
        }
        let fits = match self.batch {
            Batch::Empty => true,
            Batch::Open => is_prepared && !is_alone,
            Batch::Alone => false,
        };
        if fits { Ok(()) } else { Err(Refused::SyncFirst) }
    }

    fn is_prepared(&self, definition: &Definition) -> bool {
        self.prepared & definition.bit() != 0
    }

    /// Writes a statement that was admitted, and before it, once, what prepares it. It does not
    /// fail: there is room for the longest.
    fn write(
        &mut self,
        definition: &Definition,
        parameters: impl FnOnce(&mut Body<'_>),
    ) -> Result<(), Refused> {
        let Definition { name, query, types, .. } = *definition;
        if !self.is_prepared(definition) {
            frontend::parse(&mut self.outgoing, name, query, types).map_err(|_| Refused::Busy)?;
            if definition.bit() != 0 {
                self.ring.push_parse();
                self.prepared |= definition.bit();
            }
        }
        frontend::bind(&mut self.outgoing, name, types.len(), parameters)
            .map_err(|_| Refused::Busy)?;
        frontend::execute(&mut self.outgoing).map_err(|_| Refused::Busy)
    }

    /// Queues a Sync: the end of a batch, or alone the heartbeat. `mark` comes back with its
    /// answer.
    ///
    /// # Errors
    ///
    /// [`Refused::Busy`], as for [`Session::submit`].
    pub fn sync(&mut self, mark: u64) -> Result<(), Refused> {
        if !self.is_ready() || self.ring.room() == 0 {
            return Err(Refused::Busy);
        }
        frontend::sync(&mut self.outgoing).map_err(|_| Refused::Busy)?;
        self.ring.push_sync(mark, self.batch != Batch::Empty);
        self.batch = Batch::Empty;
        Ok(())
    }

    /// The mark of the oldest unanswered Sync.
    pub fn oldest_mark(&self) -> Option<u64> {
        self.ring.oldest_mark()
    }

    /// How many statements can be submitted besides what prepares them and their Sync.
    pub fn room(&self) -> usize {
        self.ring.room().saturating_sub(2)
    }

    /// How many Syncs are unanswered.
    pub fn batches(&self) -> usize {
        self.ring.batches()
    }

    /// The tickets of the unanswered statements, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.ring.tickets()
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
            State::Ready => self.ring.state(),
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
                self.outgoing.stop_wiping();
                self.budget = Budget::of_unasked();
                Some(Event::Ready(greeting))
            }
        }
    }

    /// Takes what is left of the last answer, or what a server usually answers, in one stride.
    fn stride(&mut self) -> Option<Event> {
        if let Some(event) = self.ring.take_second() {
            return Some(event);
        }
        let (event, size) = self.ring.take_usual(self.incoming.bytes())?;
        self.incoming.consume(size);
        if matches!(event, Event::Synced { .. }) {
            self.budget = Budget::of_unasked();
        }
        Some(event)
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
            State::Ready | State::Failed => match self.ring.handle_asynchronous(&message)? {
                Some(progress) => {
                    // Anybody who may connect can notify on our channels, as often as they like:
                    // that must not end a session. The deadlines bound what it costs.
                    if !matches!(message, BackendMessage::NotificationResponse { .. }) {
                        self.budget.take(size)?;
                    }
                    progress
                }
                None => {
                    let progress = self.ring.handle(&message)?;
                    if matches!(progress, Progress::Event(Event::Synced { .. })) {
                        self.budget = Budget::of_unasked();
                    }
                    progress
                }
            },
        };
        if !matches!(progress, Progress::EventBefore(_)) {
            self.incoming.consume(size);
        }
        Ok(progress)
    }
}
