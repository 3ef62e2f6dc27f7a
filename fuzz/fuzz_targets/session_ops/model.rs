//! What `session_ops` compares a session with: a second reader of the server's bytes, slow and
//! simple, and a second writer of ours.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::session::{Event, Refused, SessionLimits};
use distlock::proto::statement::Value;
use distlock_fuzz::reference::{Message, Outcome, key_told, parse};
use distlock_fuzz::script::Call;
use distlock_fuzz::statements::{Description, PREPARED_AT_START, Preparation, Row, Told};
use distlock_fuzz::{data_row, message};

/// What is unanswered.
#[derive(Debug)]
enum Pending {
    /// The Parse of a name.
    Parse,
    /// A statement.
    Statement(Asked),
    /// A Sync, and whether its commit may fail.
    Sync { mark: u64, may_fail: bool },
}

/// A statement, or what is left of it.
#[derive(Debug)]
struct Asked {
    tickets: Range<u64>,
    description: Description,
    /// The parts of the reply that are not read yet.
    parts: VecDeque<Vec<u8>>,
    /// Where the bytes ended that were read before it.
    since: usize,
    /// Whether one before it has failed.
    is_doomed: bool,
}

/// Why the outcome of a statement is a failure.
enum Failure {
    /// The server reports that it failed, in the place of this message.
    Reported(ServerError, u8),
    /// A warning says that it may not last.
    Doubtful(ServerError),
}

/// What has to be true of a session.
#[derive(Debug)]
pub struct Model {
    limits: SessionLimits,
    /// Unanswered, oldest first.
    waiting: VecDeque<Pending>,
    /// What has to be told next, of a second ticket that was answered with the last one.
    owed: Option<Event>,
    /// The names that were prepared.
    prepared: BTreeSet<&'static str>,
    /// Whether something is asked since the last Sync, and whether it shares that with nothing.
    is_open: bool,
    is_taken: bool,
    /// All bytes of the server; how many of them the replies so far account for, how many the
    /// notifications, and how many were surely looked at.
    fed: Vec<u8>,
    read: usize,
    told: usize,
    polled: usize,
    is_ready: bool,
    /// What the start-up had not sent yet when the session was ready.
    startup_output: usize,
    /// The output since then, and how much of it was sent.
    output: Vec<u8>,
    sent: usize,
}

impl Model {
    /// Of a session with these limits.
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            owed: None,
            prepared: PREPARED_AT_START.into(),
            is_open: false,
            is_taken: false,
            fed: Vec::new(),
            read: 0,
            told: 0,
            polled: 0,
            is_ready: false,
            startup_output: 0,
            output: Vec::new(),
            sent: 0,
        }
    }

    /// How much is unanswered.
    pub fn unanswered(&self) -> usize {
        let count = |pending: &Pending| match pending {
            Pending::Statement(asked) => asked.tickets.clone().count(),
            _ => 1,
        };
        self.waiting.iter().map(count).sum()
    }

    /// The unanswered statements.
    pub fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().flat_map(|pending| match pending {
            Pending::Statement(asked) => asked.tickets.clone(),
            _ => 0..0,
        })
    }

    /// The oldest unanswered Sync.
    pub fn oldest_mark(&self) -> Option<u64> {
        self.waiting.iter().find_map(|pending| match pending {
            Pending::Sync { mark, .. } => Some(*mark),
            _ => None,
        })
    }

    /// Whether a ready session takes a statement, with so many bytes still to send.
    pub fn may_submit(
        &self,
        call: &Call,
        description: &Description,
        unsent: usize,
    ) -> Result<(), Refused> {
        // It, its Sync and its Parse, as section 7 of `proto_notes.md` has them.
        let is_new = self.is_new(description);
        let parse = if description.row == Row::Listing { 2_048 } else { 512 };
        let is_run = matches!(call, Call::Run(..));
        let size = if is_run { 1_920 } else { 256 };
        let places = call.tickets() as usize + 1 + usize::from(is_new);
        if is_run && !(1..=64).contains(&call.tickets())
            || unsent + parse + size + 256 > self.limits.write_buffer
            || self.unanswered() + places > self.limits.in_flight
        {
            return Err(Refused::Busy);
        }
        let has_to_begin = is_new || description.is_alone;
        if self.is_taken || self.is_open && has_to_begin {
            return Err(Refused::SyncFirst);
        }
        Ok(())
    }

    /// Whether a ready session takes a Sync.
    pub fn may_sync(&self, unsent: usize) -> Result<(), Refused> {
        let has_room = self.unanswered() < self.limits.in_flight;
        let is_taken = has_room && unsent + message(b'S', b"").len() <= self.limits.write_buffer;
        if is_taken { Ok(()) } else { Err(Refused::Busy) }
    }

    /// Whether a statement has to be parsed first.
    fn is_new(&self, description: &Description) -> bool {
        match description.preparation {
            Preparation::Named(name) => !self.prepared.contains(name),
            Preparation::Never => true,
        }
    }

    /// A statement was accepted, with tickets from `first` on. Whether its name was parsed for it.
    pub fn submitted(&mut self, first: u64, call: &Call, description: &Description) -> bool {
        let is_new = self.is_new(description);
        let name = match description.preparation {
            Preparation::Named(name) => name,
            Preparation::Never => "",
        };
        if is_new {
            // The text is the library's; nothing else is.
            let query = call.query();
            let mut body = [name.as_bytes(), b"\0", query.as_bytes(), b"\0"].concat();
            body.extend((description.parameters.len() as u16).to_be_bytes());
            body.extend(description.parameters.iter().flat_map(|(oid, _)| oid.to_be_bytes()));
            self.output.extend(message(b'P', &body));
        }
        let is_named = !name.is_empty() && self.prepared.insert(name);
        if is_named {
            self.waiting.push_back(Pending::Parse);
        }
        let mut body = [b"\0", name.as_bytes(), b"\0\0\x01\0\x01"].concat();
        let values: Vec<&[u8]> = description.parameters.iter().map(|(_, v)| &v[..]).collect();
        // The parameters and their count are laid out as the values of a DataRow are.
        body.extend_from_slice(&data_row(&values)[5..]);
        body.extend_from_slice(b"\0\x01\0\x01");
        self.output.extend(message(b'B', &body));
        self.output.extend(message(b'E', b"\0\0\0\0\0"));
        (self.is_open, self.is_taken) = (true, description.is_alone);
        self.waiting.push_back(Pending::Statement(Asked {
            tickets: first..first + call.tickets(),
            description: description.clone(),
            parts: description.parts().into(),
            since: self.polled,
            is_doomed: false,
        }));
        is_named
    }

    /// A Sync was accepted.
    pub fn synced(&mut self, mark: u64) {
        self.waiting.push_back(Pending::Sync { mark, may_fail: self.is_open });
        (self.is_open, self.is_taken) = (false, false);
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
            while self.take_reply(None) != Message::ReadyForQuery(b'I') {}
        }
        self.told = self.read;
    }

    /// There is no event until more bytes come.
    pub fn polled(&mut self) {
        assert_eq!(self.owed, None, "an answer that was never told");
        self.polled = self.fed.len();
        if self.is_ready {
            assert_eq!(self.next_notified(), None, "a notification that was never told");
            self.parsed_by(self.polled);
        }
    }

    /// An event: it must be the next one, and the server's bytes must say so.
    pub fn happened(&mut self, event: &Event) {
        if let Some(owed) = self.owed.take() {
            return assert_eq!(*event, owed);
        }
        if let Event::Notified { .. } = event {
            // It answers nothing.
            assert_eq!(self.next_notified().as_ref(), Some(event));
            self.parsed_by(self.told);
        } else {
            self.answered(event);
        }
        self.polled = self.polled.max(self.read).max(self.told);
    }

    fn answered(&mut self, event: &Event) {
        if let Some(Pending::Parse) = self.waiting.front() {
            self.parsed();
        }
        if let Event::CommitFailed { error } = event {
            let Some(Pending::Sync { may_fail, .. }) = self.waiting.front_mut() else {
                panic!("a commit of nothing");
            };
            assert!(std::mem::take(may_fail), "a commit fails once, and if all was run");
            return assert_eq!(self.take_error(), **error);
        }
        match (event, self.waiting.pop_front().expect("an event for nothing")) {
            (Event::Synced { mark: told }, Pending::Sync { mark, .. }) => {
                assert_eq!(*told, mark);
                assert_eq!(self.take_reply(None), Message::ReadyForQuery(b'I'));
            }
            (event, Pending::Statement(mut asked)) => {
                assert_eq!(*event, self.outcome(&mut asked));
                if !asked.tickets.is_empty() {
                    self.waiting.push_front(Pending::Statement(asked));
                }
            }
            (event, pending) => panic!("{event:?} in answer to {pending:?}"),
        }
    }

    /// The outcome of the next ticket of a statement, and of the one behind it, if that is owed.
    fn outcome(&mut self, asked: &mut Asked) -> Event {
        let ticket = asked.tickets.next().expect("it is not all told");
        if asked.is_doomed {
            // The ReadyForQuery is there, and stays for the Sync.
            let next = self.peek_reply(self.fed.len());
            assert_eq!(next, Some(Message::ReadyForQuery(b'I')));
            return Event::Skipped { ticket };
        }
        match self.reply(asked) {
            Ok(Some(Told::Value(value))) => Event::Answer { ticket, value },
            Ok(Some(Told::Both([value, second]))) => {
                let next = asked.tickets.next().expect("of two");
                self.owed = Some(Event::Answer { ticket: next, value: second });
                Event::Answer { ticket, value }
            }
            Ok(Some(Told::Listing(listing))) => {
                Event::Listed { ticket, listing: Box::new(listing) }
            }
            Ok(None) => Event::Answer { ticket, value: Value::Done },
            Err(Failure::Doubtful(error)) => Event::Failed { ticket, error: Box::new(error) },
            Err(Failure::Reported(error, instead)) => {
                let error = Box::new(error);
                asked.is_doomed = true;
                // Once it is bound it is run, and nobody knows how far.
                if asked.description.row == Row::Swapped && instead != b'2' {
                    let next = asked.tickets.next().expect("of two");
                    self.owed = Some(Event::Failed { ticket: next, error: error.clone() });
                }
                Event::Failed { ticket, error }
            }
        }
    }

    /// Reads the next part of the reply to a statement.
    fn reply(&mut self, asked: &mut Asked) -> Result<Option<Told>, Failure> {
        let (mut told, mut doubt) = (None, None);
        for expected in asked.parts.pop_front().expect("a part for each outcome") {
            match (expected, self.take_reply(Some((asked.since, &mut doubt)))) {
                (b'1', Message::ParseComplete)
                | (b'2', Message::BindComplete)
                | (b'C', Message::CommandComplete { .. }) => {}
                (b'D', Message::DataRow(columns)) => {
                    let row = asked.description.row;
                    told = Some(row.read(&columns).expect("an answer of its own"));
                }
                (_, message) => return Err(Failure::Reported(self.failed(message), expected)),
            }
        }
        if !asked.description.commits {
            return Ok(told);
        }
        let read = self.read;
        match self.take_reply(Some((asked.since, &mut doubt))) {
            Message::ReadyForQuery(b'I') => self.read = read,
            message => return Err(Failure::Reported(self.failed(message), b'Z')),
        }
        doubt.map_or(Ok(told), |error| Err(Failure::Doubtful(error)))
    }

    /// A message that is no part of the reply is a report; nothing more of the batch is run.
    fn failed(&mut self, message: Message) -> ServerError {
        for pending in &mut self.waiting {
            match pending {
                Pending::Statement(asked) => asked.is_doomed = true,
                Pending::Parse => panic!("it does not begin its batch"),
                Pending::Sync { may_fail, .. } => {
                    *may_fail = false;
                    break;
                }
            }
        }
        report(message)
    }

    /// The messages up to `place` were looked at.
    fn parsed_by(&mut self, place: usize) {
        if let Some(Pending::Parse) = self.waiting.front() {
            if self.peek_reply(place).is_some() {
                self.parsed();
            }
        }
    }

    fn parsed(&mut self) {
        assert_eq!(self.take_reply(None), Message::ParseComplete);
        self.waiting.pop_front();
    }

    fn take_error(&mut self) -> ServerError {
        let message = self.take_reply(None);
        report(message)
    }

    /// The next message that is not asynchronous. Of the warnings before it, but those that were
    /// polled by `since`, the last one is kept.
    fn take_reply(&mut self, mut doubt: Option<(usize, &mut Option<ServerError>)>) -> Message {
        loop {
            let (message, end) = self.message_at(self.read).expect("an event before its bytes");
            self.read = end;
            match (message, &mut doubt) {
                (Message::NoticeResponse(report), Some((since, doubt)))
                    if end > *since && report.is_warning() =>
                {
                    **doubt = Some(report.kept());
                }
                (message, _) if is_asynchronous(&message) => {}
                (message, _) => return message,
            }
        }
    }

    /// The same without taking it, if it is among the bytes up to `limit`.
    fn peek_reply(&self, limit: usize) -> Option<Message> {
        let mut place = self.read;
        while place < limit {
            let (message, end) = self.message_at(place)?;
            if !is_asynchronous(&message) {
                return Some(message).filter(|_| end <= limit);
            }
            place = end;
        }
        None
    }

    /// The next notification of ours, as an event.
    fn next_notified(&mut self) -> Option<Event> {
        loop {
            let (message, end) = self.message_at(self.told)?;
            self.told = end;
            if let Message::NotificationResponse { process_id, channel, payload } = message {
                if let Some(key) = key_told(&channel, &payload) {
                    return Some(Event::Notified { process_id, key });
                }
            }
        }
    }

    /// A message, and where it ends.
    fn message_at(&self, place: usize) -> Option<(Message, usize)> {
        match parse(&self.fed[place..]) {
            Outcome::Message(message, size) => Some((message, place + size)),
            Outcome::Incomplete => None,
            Outcome::Refused(refusal) => panic!("the session goes on after {refusal:?}"),
        }
    }
}

fn is_asynchronous(message: &Message) -> bool {
    matches!(
        message,
        Message::NotificationResponse { .. }
            | Message::NoticeResponse(_)
            | Message::ParameterStatus { .. }
    )
}

fn report(message: Message) -> ServerError {
    let Message::ErrorResponse(report) = message else { panic!("no report: {message:?}") };
    let report = report.kept();
    assert_eq!(report.severity, Severity::Error);
    report
}
