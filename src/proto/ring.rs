//! What a ready session has asked for and not heard of yet, oldest first, and the whitelist of the
//! messages that may answer it.
//!
//! Answers come in order (invariant I4). After an error the server skips to the Sync (manual:
//! protocol-flow, "Pipelining"); what it skipped is told, so that it can be sent again.

use std::collections::VecDeque;

use super::backend::{self, BackendMessage};
use super::companion;
use super::event::Event;
use super::fault::{Fault, Unsuitable, Violation};
use super::fields::{Fields, ServerError, Severity};
use super::listing::Listing;
use super::statement::{Shape, Swap, Value};

/// The unanswered statements and Syncs. INVARIANT: never more than `capacity`.
#[derive(Debug)]
pub(super) struct Ring {
    pending: VecDeque<Pending>,
    capacity: usize,
    /// The marks of the Syncs among them.
    marks: VecDeque<u64>,
    /// A warning that came with a statement whose commit has to be durable.
    doubt: Option<Box<ServerError>>,
    /// The row of a statement that asks who holds a key, until its CommandComplete.
    listing: Option<Box<Listing>>,
    /// What was told together with the last event, of the second one of a [`Swap`].
    second: Option<Second>,
}

/// See [`Ring::take_second`].
#[derive(Debug)]
enum Second {
    Answer { ticket: u64, value: Value },
    Failed { ticket: u64, error: Box<ServerError> },
}

#[derive(Debug, Clone, Copy)]
enum Pending {
    /// A statement is prepared, at the beginning of a batch.
    Parse,
    Statement {
        ticket: u64,
        shape: Shape,
        /// Whether it counts only with its Sync.
        commits: bool,
        /// Whether another row of the same statement follows, which is for the next one.
        has_more: bool,
        reply: Reply,
    },
    Sync {
        mark: u64,
        /// Whether its commit may fail, which it does once: the batch has done something.
        may_fail: bool,
    },
}

/// The next message of a statement's reply.
#[derive(Debug, Clone, Copy)]
enum Reply {
    ParseComplete,
    BindComplete,
    DataRow,
    CommandComplete {
        value: Value,
    },
    /// All is answered but the Sync.
    Commit {
        value: Value,
    },
    /// ErrorResponse was seen: the server skips to the Sync.
    Skipping,
}

/// What a message led to.
pub(super) enum Progress {
    Event(Event),
    /// An event that comes before the message, which is looked at once more.
    EventBefore(Event),
    Message,
    Starved,
}

impl From<Event> for Progress {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        let pending = VecDeque::with_capacity(capacity);
        let marks = VecDeque::with_capacity(capacity);
        Self { pending, capacity, marks, doubt: None, listing: None, second: None }
    }

    /// How many more fit.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.pending.len())
    }

    pub(super) fn push_parse(&mut self) {
        self.pending.push_back(Pending::Parse);
    }

    pub(super) fn push_statement(&mut self, ticket: u64, shape: Shape, commits: bool) {
        let reply = match shape {
            // These are not prepared.
            Shape::Nothing | Shape::Listing => Reply::ParseComplete,
            _ => Reply::BindComplete,
        };
        let has_more = false;
        self.pending.push_back(Pending::Statement { ticket, shape, commits, has_more, reply });
    }

    /// One statement with a row for each ticket.
    pub(super) fn push_run(&mut self, tickets: impl Iterator<Item = u64>, shape: Shape) {
        let mut reply = Reply::BindComplete;
        for ticket in tickets {
            let (commits, has_more) = (false, true);
            self.pending.push_back(Pending::Statement { ticket, shape, commits, has_more, reply });
            reply = Reply::DataRow;
        }
        if let Some(Pending::Statement { has_more, .. }) = self.pending.back_mut() {
            *has_more = false;
        }
    }

    /// One statement whose row answers two tickets.
    pub(super) fn push_swap(&mut self, tickets: [u64; 2]) {
        let (shape, commits, has_more) = (Shape::Swapped, false, false);
        for ticket in tickets {
            let reply = Reply::BindComplete;
            self.pending.push_back(Pending::Statement { ticket, shape, commits, has_more, reply });
        }
    }

    pub(super) fn push_sync(&mut self, mark: u64, may_fail: bool) {
        self.pending.push_back(Pending::Sync { mark, may_fail });
        self.marks.push_back(mark);
    }

    /// The mark of the oldest unanswered Sync.
    pub(super) fn oldest_mark(&self) -> Option<u64> {
        self.marks.front().copied()
    }

    /// How many batches are unanswered.
    pub(super) fn batches(&self) -> usize {
        self.marks.len()
    }

    /// The tickets of the unanswered statements, oldest first.
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.iter().filter_map(|pending| match pending {
            Pending::Statement { ticket, .. } => Some(*ticket),
            _ => None,
        })
    }

    /// Where the session is, for an error or a trace.
    pub(super) fn state(&self) -> &'static str {
        match self.pending.front() {
            Some(Pending::Parse) => "where ParseComplete has to follow",
            Some(Pending::Statement { reply, .. }) => reply.state(),
            Some(Pending::Sync { .. }) => "where ReadyForQuery has to follow",
            None => "while nothing was asked",
        }
    }

    /// Takes the messages that may come at any time (manual: protocol-flow, "Asynchronous
    /// Operations"); `None` if it is none of them.
    pub(super) fn handle_asynchronous(
        &mut self,
        message: &BackendMessage<'_>,
    ) -> Result<Option<Progress>, Fault> {
        match message {
            BackendMessage::NotificationResponse { process_id, channel, payload } => {
                // Anybody may notify on our channels, of anything.
                let is_ours = channel.starts_with(companion::CHANNEL_PREFIX.as_bytes());
                let key = companion::parse_payload(payload).filter(|_| is_ours);
                Ok(Some(match key {
                    Some(key) => Progress::Event(Event::Notified { process_id: *process_id, key }),
                    None => Progress::Message,
                }))
            }
            // A primary that was demoted: its locks are not the cluster's any more.
            BackendMessage::ParameterStatus { name: b"in_hot_standby", value: b"on" } => {
                Err(Unsuitable::Standby.into())
            }
            BackendMessage::ParameterStatus { .. } => Ok(Some(Progress::Message)),
            BackendMessage::NoticeResponse(report) => {
                report.check_shutdown()?;
                self.noticed(*report);
                Ok(Some(Progress::Message))
            }
            _ => Ok(None),
        }
    }

    /// A notice came. With a statement whose commit has to be durable, a warning says that it may
    /// not be: "canceling wait for synchronous replication" has no error of its own.
    fn noticed(&mut self, report: Fields<'_>) {
        let commits =
            matches!(self.pending.front(), Some(Pending::Statement { commits: true, .. }));
        if commits {
            let report = report.to_error();
            if report.sqlstate.starts_with(b"01") {
                self.doubt = Some(Box::new(report));
            }
        }
    }

    /// Takes what a server usually answers, if it is there in one piece: a row of one byte with
    /// what is around it, or ReadyForQuery. Says how long that is. What comes of it is what comes
    /// of [`Ring::handle`], message by message.
    pub(super) fn take_usual(&mut self, bytes: &[u8]) -> Option<(Event, usize)> {
        if let Some(byte) = backend::byte_answer(bytes) {
            return Some((self.take_byte(byte)?, backend::BYTE_ANSWER));
        }
        let is_ready = bytes.starts_with(&backend::IDLE);
        is_ready.then(|| Some((self.take_ready()?, backend::IDLE.len())))?
    }

    fn take_byte(&mut self, byte: u8) -> Option<Event> {
        let Some(Pending::Statement { ticket, shape, commits, has_more, reply }) =
            self.pending.front()
        else {
            return None;
        };
        let is_whole = !commits && !has_more && matches!(reply, Reply::BindComplete);
        if is_whole && *shape == Shape::Swapped {
            let values = Swap::read_byte(byte)?;
            return Some(self.take_swapped(*ticket, values));
        }
        let value = is_whole.then(|| shape.read_byte(byte))??;
        let event = Event::Answer { ticket: *ticket, value };
        self.pending.pop_front();
        Some(event)
    }

    /// Takes both tickets of a [`Swap`].
    fn take_swapped(&mut self, ticket: u64, [released, tried]: [Value; 2]) -> Event {
        self.pending.pop_front();
        self.second = self.pop_second().map(|ticket| Second::Answer { ticket, value: tried });
        Event::Answer { ticket, value: released }
    }

    fn pop_second(&mut self) -> Option<u64> {
        match self.pending.pop_front() {
            Some(Pending::Statement { ticket, .. }) => Some(ticket),
            _ => None,
        }
    }

    /// The event that belongs to the last one: the server tells both at once.
    pub(super) fn take_second(&mut self) -> Option<Event> {
        Some(match self.second.take()? {
            Second::Answer { ticket, value } => Event::Answer { ticket, value },
            Second::Failed { ticket, error } => Event::Failed { ticket, error },
        })
    }

    /// Takes the answer to a Sync, if that is what is next.
    fn take_ready(&mut self) -> Option<Event> {
        let Some(Pending::Sync { mark, .. }) = self.pending.front() else { return None };
        let event = Event::Synced { mark: *mark };
        self.pending.pop_front();
        self.marks.pop_front();
        Some(event)
    }

    /// Takes the next message that the oldest unanswered statement or Sync calls for.
    /// (Asynchronous messages, which may come at any time, were taken before.)
    pub(super) fn handle(&mut self, message: &BackendMessage<'_>) -> Result<Progress, Fault> {
        let unexpected =
            |state| Err(Violation::Unexpected { message: backend::name(message), state }.into());
        if let BackendMessage::ErrorResponse(report) = message {
            return self.failed(report.severity(), report.to_error());
        }
        if let Some(progress) = self.handle_swapped(message)? {
            return Ok(progress);
        }
        let state = self.state();
        match (self.pending.front_mut(), message) {
            (Some(Pending::Parse), BackendMessage::ParseComplete) => {
                self.pending.pop_front();
                Ok(Progress::Message)
            }
            (
                Some(Pending::Statement { ticket, reply: Reply::Skipping, .. }),
                BackendMessage::ReadyForQuery(b'I'),
            ) => {
                let event = Event::Skipped { ticket: *ticket };
                self.pending.pop_front();
                Ok(Progress::EventBefore(event))
            }
            (
                Some(Pending::Statement { ticket, reply: Reply::Commit { value }, .. }),
                BackendMessage::ReadyForQuery(b'I'),
            ) => {
                let event = match self.doubt.take() {
                    None => Event::Answer { ticket: *ticket, value: *value },
                    Some(error) => Event::Failed { ticket: *ticket, error },
                };
                self.pending.pop_front();
                Ok(Progress::EventBefore(event))
            }
            (Some(Pending::Statement { ticket, shape, commits, has_more, reply }), message) => {
                let Some(next) = reply.next(*shape, message, &mut self.listing)? else {
                    return unexpected(reply.state());
                };
                let value = match next {
                    Reply::CommandComplete { value } if *has_more => value,
                    Reply::Commit { value } if !*commits => value,
                    _ => {
                        *reply = next;
                        return Ok(Progress::Message);
                    }
                };
                let ticket = *ticket;
                self.pending.pop_front();
                Ok(Progress::Event(match self.listing.take() {
                    Some(listing) => Event::Listed { ticket, listing },
                    None => Event::Answer { ticket, value },
                }))
            }
            (_, BackendMessage::ReadyForQuery(b'I')) => {
                self.take_ready().map_or_else(|| unexpected(state), |event| Ok(event.into()))
            }
            _ => unexpected(state),
        }
    }

    /// Takes the row of a [`Swap`], which is for both of its tickets, and its CommandComplete.
    fn handle_swapped(&mut self, message: &BackendMessage<'_>) -> Result<Option<Progress>, Fault> {
        let Some(Pending::Statement { ticket, shape: Shape::Swapped, reply, .. }) =
            self.pending.front()
        else {
            return Ok(None);
        };
        match (reply, message) {
            (Reply::DataRow, BackendMessage::DataRow(row)) => {
                let values = Swap::read(row)?;
                for (pending, value) in self.pending.iter_mut().zip(values) {
                    if let Pending::Statement { reply, .. } = pending {
                        *reply = Reply::CommandComplete { value };
                    }
                }
                Ok(Some(Progress::Message))
            }
            (Reply::CommandComplete { value }, BackendMessage::CommandComplete) => {
                let (ticket, value) = (*ticket, *value);
                let tried = match self.pending.get(1) {
                    Some(Pending::Statement {
                        reply: Reply::CommandComplete { value }, ..
                    }) => *value,
                    _ => return Ok(None),
                };
                Ok(Some(self.take_swapped(ticket, [value, tried]).into()))
            }
            _ => Ok(None),
        }
    }

    fn failed(&mut self, severity: Severity, error: ServerError) -> Result<Progress, Fault> {
        let error = Box::new(error);
        match self.pending.front_mut() {
            Some(Pending::Statement { ticket, reply, shape, .. })
                if severity == Severity::Error && !matches!(reply, Reply::Skipping) =>
            {
                // Of a swap that was begun both may have taken effect, or one. Before BindComplete
                // nothing is run: permissions are looked at until then.
                let was_begun = !matches!(reply, Reply::BindComplete);
                let has_second = *shape == Shape::Swapped && was_begun;
                let event = Event::Failed { ticket: *ticket, error: error.clone() };
                self.pending.pop_front();
                if has_second {
                    let second = self.pop_second();
                    self.second = second.map(|ticket| Second::Failed { ticket, error });
                }
                self.doubt = None;
                self.listing = None;
                self.mark_skipping();
                Ok(Progress::Event(event))
            }
            // The commit failed, once: what the batch did to session-level locks stands.
            Some(Pending::Sync { may_fail: may_fail @ true, .. })
                if severity == Severity::Error =>
            {
                *may_fail = false;
                Ok(Progress::Event(Event::CommitFailed { error }))
            }
            // FATAL ends the session; an ERROR that no statement explains is not one we can place.
            _ => Err(Fault::Server(error)),
        }
    }

    /// After an error the server runs nothing more of the batch.
    fn mark_skipping(&mut self) {
        for pending in &mut self.pending {
            match pending {
                Pending::Statement { reply, .. } => *reply = Reply::Skipping,
                Pending::Parse => {}
                Pending::Sync { may_fail, .. } => {
                    *may_fail = false;
                    break;
                }
            }
        }
    }
}

impl Reply {
    /// What comes next once this has come; none if it is something else.
    fn next(
        self,
        shape: Shape,
        message: &BackendMessage<'_>,
        listing: &mut Option<Box<Listing>>,
    ) -> Result<Option<Self>, Fault> {
        Ok(Some(match (self, message) {
            (Self::ParseComplete, BackendMessage::ParseComplete) => Self::BindComplete,
            (Self::BindComplete, BackendMessage::BindComplete) => match shape {
                Shape::Nothing => Self::CommandComplete { value: Value::Done },
                _ => Self::DataRow,
            },
            (Self::DataRow, BackendMessage::DataRow(row)) if shape == Shape::Listing => {
                *listing = Some(Box::new(Listing::read(row)?));
                Self::CommandComplete { value: Value::Done }
            }
            (Self::DataRow, BackendMessage::DataRow(row)) => {
                Self::CommandComplete { value: shape.read(row)?? }
            }
            (Self::CommandComplete { value }, BackendMessage::CommandComplete) => {
                Self::Commit { value }
            }
            _ => return Ok(None),
        }))
    }

    fn state(self) -> &'static str {
        match self {
            Self::ParseComplete => "where ParseComplete has to follow",
            Self::BindComplete => "where BindComplete has to follow",
            Self::DataRow => "where DataRow has to follow",
            Self::CommandComplete { .. } => "where CommandComplete has to follow",
            Self::Commit { .. } | Self::Skipping => "where ReadyForQuery has to follow",
        }
    }
}
