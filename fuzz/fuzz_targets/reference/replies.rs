//! What a ready session has to make of the replies to a script of statements and Syncs, read batch
//! by batch, statement by statement (manual: protocol-flow, "Pipelining").

use std::collections::BTreeSet;

use distlock::proto::fault::{Fault, Unsuitable, Violation};
use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::session::Event;
use distlock::proto::statement::{Statement, Value};
use distlock_fuzz::reference::{Message, Outcome, Refusal, key_told, parse};
use distlock_fuzz::script::Step;
use distlock_fuzz::statements::{PREPARED_AT_START, Preparation, Told, Wrong, describe};

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It does not: more bytes may come.
    Open,
    /// With bytes that are no message.
    Refused(Refusal),
    /// With a message out of place.
    Unexpected,
    /// With a report of the server.
    Server(ServerError),
    /// Since the server is a standby.
    Standby,
}

impl End {
    /// The end that a fault of the session is.
    pub fn of(fault: Option<&Fault>) -> Self {
        match fault {
            None => Self::Open,
            Some(Fault::Violation(Violation::Unexpected { .. })) => Self::Unexpected,
            Some(Fault::Violation(violation)) => Self::Refused(super::refusal_of(*violation)),
            Some(Fault::Server(report)) => Self::Server((**report).clone()),
            Some(Fault::Unsuitable(Unsuitable::Standby)) => Self::Standby,
            Some(other) => panic!("no end of a ready session: {other}"),
        }
    }
}

/// The events, and the end. The tickets and marks are the places of the steps.
pub fn read(steps: &[Step], bytes: &[u8]) -> (Vec<Event>, End) {
    let mut replies = Replies {
        rest: bytes,
        events: Vec::new(),
        prepared: PREPARED_AT_START.into(),
        doubt: None,
        unread: None,
    };
    let end = replies.all(steps).err().unwrap_or(End::Unexpected);
    (replies.events, end)
}

struct Replies<'a> {
    rest: &'a [u8],
    events: Vec<Event>,
    /// The names that are prepared so far.
    prepared: BTreeSet<&'static str>,
    /// The latest warning since this was last set to `None`.
    doubt: Option<ServerError>,
    /// A message that was only looked at.
    unread: Option<Message>,
}

impl Replies<'_> {
    fn all(&mut self, steps: &[Step]) -> Result<(), End> {
        let mut first = 0;
        for batch in steps.split_inclusive(|step| *step == Step::Sync) {
            self.batch(first, batch)?;
            first += batch.len() as u64;
        }
        self.next().and_then(out_of_place)
    }

    fn batch(&mut self, first: u64, batch: &[Step]) -> Result<(), End> {
        let mut places = first..;
        let mut has_failed = false;
        for (place, step) in places.by_ref().zip(batch) {
            match step {
                Step::Submit(statement) => has_failed = !self.statement(place, statement)?,
                Step::Sync => {
                    return self.ready_for_query(place..place, Some(place), place > first);
                }
            }
            if has_failed {
                break;
            }
        }
        if !has_failed {
            // The script is over before its Sync.
            return Ok(());
        }
        let end = first + batch.len() as u64;
        match batch.last() {
            Some(Step::Sync) => self.ready_for_query(places.start..end - 1, Some(end - 1), false),
            _ => self.ready_for_query(places.start..end, None, false),
        }
    }

    /// The ReadyForQuery of a batch, of which these statements were not run. If all were, and there
    /// is one, its commit may fail.
    fn ready_for_query(
        &mut self,
        skipped: std::ops::Range<u64>,
        mark: Option<u64>,
        may_fail: bool,
    ) -> Result<(), End> {
        let mut message = self.next()?;
        if let Message::ErrorResponse(report) = &message {
            if may_fail && report.kept().severity == Severity::Error {
                // The commit, once.
                self.events.push(Event::CommitFailed { error: Box::new(report.kept()) });
                message = self.next()?;
            }
        }
        if message != Message::ReadyForQuery(b'I') {
            return out_of_place(message);
        }
        self.events.extend(skipped.map(|ticket| Event::Skipped { ticket }));
        // Without a Sync there is no ReadyForQuery.
        let mark = mark.ok_or(End::Unexpected)?;
        self.events.push(Event::Synced { mark });
        Ok(())
    }

    /// The reply to one statement; false when the server reports that it failed.
    fn statement(&mut self, ticket: u64, statement: &Statement) -> Result<bool, End> {
        let description = describe(statement);
        if let Preparation::Named(name) = description.preparation {
            if self.prepared.insert(name) {
                match self.next()? {
                    Message::ParseComplete => {}
                    message => out_of_place(message)?,
                }
            }
        }
        self.doubt = None;
        let mut told = None;
        for expected in description.reply() {
            match (expected, self.next()?) {
                (b'1', Message::ParseComplete)
                | (b'2', Message::BindComplete)
                | (b'C', Message::CommandComplete { .. }) => {}
                (b'D', Message::DataRow(columns)) => {
                    let row = description.row.read(&columns);
                    told = Some(row.map_err(|wrong| match wrong {
                        Wrong::Malformed => End::Refused(Refusal::Body),
                        Wrong::Standby => End::Standby,
                    })?);
                }
                (_, message) => return self.failed(ticket, message),
            }
        }
        if description.commits {
            match self.next()? {
                message @ Message::ReadyForQuery(b'I') => self.unread = Some(message),
                message => return self.failed(ticket, message),
            }
            if let Some(error) = self.doubt.take() {
                self.events.push(Event::Failed { ticket, error: Box::new(error) });
                return Ok(true);
            }
        }
        self.events.push(match told {
            None => Event::Answer { ticket, value: Value::Done },
            Some(Told::Value(value)) => Event::Answer { ticket, value },
            Some(Told::Listing(listing)) => Event::Listed { ticket, listing: Box::new(listing) },
        });
        Ok(true)
    }

    /// What is no part of a statement's reply is a report that it failed, or out of place.
    fn failed(&mut self, ticket: u64, message: Message) -> Result<bool, End> {
        match message {
            Message::ErrorResponse(report) if report.kept().severity == Severity::Error => {
                self.events.push(Event::Failed { ticket, error: Box::new(report.kept()) });
                Ok(false)
            }
            message => out_of_place(message).map(|()| false),
        }
    }

    /// The next message that is not asynchronous.
    fn next(&mut self) -> Result<Message, End> {
        if let Some(message) = self.unread.take() {
            return Ok(message);
        }
        loop {
            let message = match parse(self.rest) {
                Outcome::Incomplete => return Err(End::Open),
                Outcome::Refused(refusal) => return Err(End::Refused(refusal)),
                Outcome::Message(message, size) => {
                    self.rest = &self.rest[size..];
                    message
                }
            };
            match message {
                Message::NotificationResponse { process_id, channel, payload } => {
                    let key = key_told(&channel, &payload);
                    self.events.extend(key.map(|key| Event::Notified { process_id, key }));
                }
                Message::NoticeResponse(report) if report.is_shutdown() => {
                    return Err(End::Server(report.kept()));
                }
                Message::NoticeResponse(report) => {
                    if report.is_warning() {
                        self.doubt = Some(report.kept());
                    }
                }
                Message::ParameterStatus { name, value }
                    if name == b"in_hot_standby" && value == b"on" =>
                {
                    return Err(End::Standby);
                }
                Message::ParameterStatus { .. } => {}
                message => return Ok(message),
            }
        }
    }
}

fn out_of_place(message: Message) -> Result<(), End> {
    match message {
        Message::ErrorResponse(report) => Err(End::Server(report.kept())),
        _ => Err(End::Unexpected),
    }
}
