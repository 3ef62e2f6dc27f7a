//! What a ready session has to make of the replies to a script of statements and Syncs, read batch
//! by batch, statement by statement (manual: protocol-flow, "Pipelining").

use distlock::proto::fault::{Fault, Unsuitable, Violation};
use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::session::Event;
use distlock_fuzz::reference::{Message, Outcome, Refusal, parse};

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

/// The events, and the end. The tickets and marks of the script are its places.
pub fn read(script: &[u8], bytes: &[u8]) -> (Vec<Event>, End) {
    let mut replies = Replies { rest: bytes, events: Vec::new() };
    let end = replies.all(script).err().unwrap_or(End::Unexpected);
    (replies.events, end)
}

struct Replies<'a> {
    rest: &'a [u8],
    events: Vec<Event>,
}

impl Replies<'_> {
    fn all(&mut self, script: &[u8]) -> Result<(), End> {
        let mut first = 0;
        for batch in script.split_inclusive(|op| op % 5 == 4) {
            let is_closed = batch.last().is_some_and(|op| op % 5 == 4);
            let tickets = first..first + (batch.len() - usize::from(is_closed)) as u64;
            first += batch.len() as u64;
            self.batch(tickets.clone(), is_closed.then_some(tickets.end))?;
        }
        self.next().and_then(out_of_place)
    }

    fn batch(&mut self, tickets: std::ops::Range<u64>, mark: Option<u64>) -> Result<(), End> {
        for ticket in tickets.clone() {
            if !self.statement(ticket)? {
                return self.end_of_batch(ticket + 1..tickets.end, mark, false);
            }
        }
        match mark {
            Some(_) => self.end_of_batch(0..0, mark, !tickets.is_empty()),
            None => Ok(()),
        }
    }

    /// The ReadyForQuery of a batch, of which these statements were not run. If all were, and there
    /// is one, its commit may fail.
    fn end_of_batch(
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
    fn statement(&mut self, ticket: u64) -> Result<bool, End> {
        let mut value = false;
        for expected in [b'2', b'D', b'C'] {
            match (expected, self.next()?) {
                (b'2', Message::BindComplete) => {}
                (b'D', Message::DataRow(values)) => {
                    value = match &values[..] {
                        [Some(value)] if value == &[0] || value == &[1] => value == &[1],
                        _ => return Err(End::Refused(Refusal::Body)),
                    };
                }
                (b'C', Message::CommandComplete { .. }) => {
                    self.events.push(Event::Answer { ticket, value: value.into() });
                }
                (_, Message::ErrorResponse(report))
                    if report.kept().severity == Severity::Error =>
                {
                    let error = Box::new(report.kept());
                    self.events.push(Event::Failed { ticket, error });
                    return Ok(false);
                }
                (_, message) => out_of_place(message)?,
            }
        }
        Ok(true)
    }

    /// The next message that is not asynchronous.
    fn next(&mut self) -> Result<Message, End> {
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
                    let key = key_told(&payload).filter(|_| channel.starts_with(b"distlock_"));
                    self.events.extend(key.map(|key| Event::Notified { process_id, key }));
                }
                Message::NoticeResponse(report) if report.is_shutdown() => {
                    return Err(End::Server(report.kept()));
                }
                Message::NoticeResponse(_) => {}
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

/// One decimal number, or two with a comma between them, as `str::parse` takes them.
fn key_told(payload: &[u8]) -> Option<KeyParameters> {
    let text = String::from_utf8(payload.to_vec()).ok()?;
    let parts: Vec<&str> = text.splitn(2, ',').collect();
    match parts[..] {
        [number] => Some(KeyParameters::Bigint(number.parse().ok()?)),
        [high, low] => Some(KeyParameters::Pair(high.parse().ok()?, low.parse().ok()?)),
        _ => None,
    }
}

fn out_of_place(message: Message) -> Result<(), End> {
    match message {
        Message::ErrorResponse(report) => Err(End::Server(report.kept())),
        _ => Err(End::Unexpected),
    }
}
