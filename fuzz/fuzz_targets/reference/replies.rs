//! What a ready session has to make of the replies to a script of statements and Syncs, read batch
//! by batch, statement by statement (manual: protocol-flow, "Pipelining").

use std::collections::BTreeSet;

use distlock::proto::fault::{Fault, Unsuitable, Violation};
use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::session::Event;
use distlock::proto::statement::Value;
use distlock_fuzz::reference::{Message, Outcome, Refusal, key_told, parse};
use distlock_fuzz::script::{Call, Step};
use distlock_fuzz::statements::{PREPARED_AT_START, Preparation, Row, Told, Wrong};

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

/// The events, and the end. The tickets and marks are numbered from zero on.
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
            let behind = first + batch.iter().map(Step::numbers).sum::<u64>();
            self.batch(first..behind, batch)?;
            first = behind;
        }
        self.next().and_then(out_of_place)
    }

    fn batch(&mut self, numbers: std::ops::Range<u64>, batch: &[Step]) -> Result<(), End> {
        let mut number = numbers.start;
        for step in batch {
            match step {
                Step::Submit(call) => {
                    if let Some(skipped) = self.call(number, call)? {
                        return match batch.last() {
                            Some(Step::Sync) => {
                                let mark = numbers.end - 1;
                                self.ready_for_query(skipped..mark, Some(mark), false)
                            }
                            _ => self.ready_for_query(skipped..numbers.end, None, false),
                        };
                    }
                }
                Step::Sync => {
                    let is_heartbeat = number == numbers.start;
                    return self.ready_for_query(number..number, Some(number), !is_heartbeat);
                }
            }
            number += step.numbers();
        }
        // The script is over before its Sync.
        Ok(())
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

    /// The reply to one statement. When the server reports that it failed: the first ticket that
    /// was not run because of that.
    fn call(&mut self, first: u64, call: &Call) -> Result<Option<u64>, End> {
        let description = call.describe();
        if let Preparation::Named(name) = description.preparation {
            if self.prepared.insert(name) {
                match self.next()? {
                    Message::ParseComplete => {}
                    message => out_of_place(message)?,
                }
            }
        }
        self.doubt = None;
        for (ticket, part) in (first..).zip(description.parts()) {
            let mut told = None;
            for expected in part {
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
                    (_, message) => {
                        let may_have_run = expected != b'2';
                        let of_both = may_have_run && description.row == Row::Swapped;
                        let failed = ticket..ticket + 1 + u64::from(of_both);
                        return self.failed(failed, message).map(Some);
                    }
                }
            }
            let mut doubt = None;
            if description.commits {
                match self.next()? {
                    message @ Message::ReadyForQuery(b'I') => self.unread = Some(message),
                    message => return self.failed(ticket..ticket + 1, message).map(Some),
                }
                doubt = self.doubt.take();
            }
            match doubt {
                None => self.answer(ticket, told),
                Some(error) => {
                    self.events.push(Event::Failed { ticket, error: Box::new(error) });
                }
            }
        }
        Ok(None)
    }

    fn answer(&mut self, ticket: u64, told: Option<Told>) {
        let answer = |ticket, value| Event::Answer { ticket, value };
        match told {
            None => self.events.push(answer(ticket, Value::Done)),
            Some(Told::Value(value)) => self.events.push(answer(ticket, value)),
            Some(Told::Both([value, second])) => {
                self.events.extend([answer(ticket, value), answer(ticket + 1, second)]);
            }
            Some(Told::Listing(listing)) => {
                self.events.push(Event::Listed { ticket, listing: Box::new(listing) });
            }
        }
    }

    /// What is no part of a statement's reply is a report that these have failed, or out of place.
    fn failed(&mut self, tickets: std::ops::Range<u64>, message: Message) -> Result<u64, End> {
        let skipped = tickets.end;
        match message {
            Message::ErrorResponse(report) if report.kept().severity == Severity::Error => {
                self.events.extend(tickets.map(|ticket| {
                    let error = Box::new(report.kept());
                    Event::Failed { ticket, error }
                }));
                Ok(skipped)
            }
            message => out_of_place(message).map(|()| skipped),
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
