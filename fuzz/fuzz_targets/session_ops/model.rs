//! What `session_ops` compares a session with: a second reader of the server's bytes, slow and
//! simple, and a second writer of ours.

use std::collections::{BTreeSet, VecDeque};

use distlock::proto::fields::{ServerError, Severity};
use distlock::proto::session::{Event, Refused, SessionLimits};
use distlock::proto::statement::{Statement, Value};
use distlock_fuzz::reference::{Message, Outcome, key_told, parse};
use distlock_fuzz::statements::{Description, PREPARED_AT_START, Preparation, Row, Told};
use distlock_fuzz::{data_row, message};

/// What is unanswered.
#[derive(Debug)]
enum Pending {
    /// The Parse of a name.
    Parse,
    /// A statement.
    Statement {
        ticket: u64,
        description: Description,
        /// Where the bytes ended that were polled before it.
        since: usize,
        /// Whether one before it has failed.
        is_doomed: bool,
    },
    /// A Sync, and whether its commit may fail.
    Sync { mark: u64, may_fail: bool },
}

/// What has to be true of a session.
#[derive(Debug)]
pub struct Model {
    limits: SessionLimits,
    /// Unanswered, oldest first.
    waiting: VecDeque<Pending>,
    /// The names that were prepared.
    prepared: BTreeSet<&'static str>,
    /// Whether something is asked since the last Sync, and whether it shares that with nothing.
    is_open: bool,
    is_taken: bool,
    /// All bytes of the server; how many of them the replies so far account for, how many the
    /// notifications, and how many were polled.
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
        self.waiting.len()
    }

    /// The unanswered statements.
    pub fn tickets(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.iter().filter_map(|pending| match pending {
            Pending::Statement { ticket, .. } => Some(*ticket),
            _ => None,
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
    pub fn may_submit(&self, description: &Description, unsent: usize) -> Result<(), Refused> {
        // It, its Sync and its Parse, as section 7 of `proto_notes.md` has them.
        let is_new = self.is_new(description);
        let parse = if description.row == Row::Listing { 2_048 } else { 512 };
        if unsent + parse + 2 * 256 > self.limits.write_buffer
            || self.unanswered() + 2 + usize::from(is_new) > self.limits.in_flight
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

    /// A statement was accepted. Whether its name was parsed for it.
    pub fn submitted(
        &mut self,
        ticket: u64,
        statement: &Statement,
        description: &Description,
    ) -> bool {
        let is_new = self.is_new(description);
        let name = match description.preparation {
            Preparation::Named(name) => name,
            Preparation::Never => "",
        };
        if is_new {
            // The text is the library's; nothing else is.
            let query = statement.definition().query;
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
        let (description, since) = (description.clone(), self.polled);
        (self.is_open, self.is_taken) = (true, description.is_alone);
        let is_doomed = false;
        self.waiting.push_back(Pending::Statement { ticket, description, since, is_doomed });
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
        self.polled = self.fed.len();
        if self.is_ready {
            assert_eq!(self.next_notified(), None, "a notification that was never told");
            if let (Some(Pending::Parse), Some(_)) = (self.waiting.front(), self.peek_reply()) {
                self.parsed();
            }
        }
    }

    /// An event: it must be the next one, and the server's bytes must say so.
    pub fn happened(&mut self, event: &Event) {
        if let Event::Notified { .. } = event {
            // It answers nothing.
            return assert_eq!(self.next_notified().as_ref(), Some(event));
        }
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
            (event, Pending::Statement { ticket, description, since, is_doomed }) => {
                self.concluded(event, ticket, &description, since, is_doomed);
            }
            (event, pending) => panic!("{event:?} in answer to {pending:?}"),
        }
    }

    fn concluded(
        &mut self,
        event: &Event,
        ticket: u64,
        description: &Description,
        since: usize,
        is_doomed: bool,
    ) {
        if is_doomed {
            assert_eq!(*event, Event::Skipped { ticket });
            // The ReadyForQuery is there, and stays for the Sync.
            return assert_eq!(self.peek_reply(), Some(Message::ReadyForQuery(b'I')));
        }
        let expected = match self.reply(description, since) {
            Ok(Some(Told::Value(value))) => Event::Answer { ticket, value },
            Ok(Some(Told::Listing(listing))) => {
                Event::Listed { ticket, listing: Box::new(listing) }
            }
            Ok(None) => Event::Answer { ticket, value: Value::Done },
            Err(error) => Event::Failed { ticket, error: Box::new(error) },
        };
        assert_eq!(*event, expected);
    }

    /// Reads the reply to a statement; an error is a report that it failed, or may not last.
    fn reply(
        &mut self,
        description: &Description,
        since: usize,
    ) -> Result<Option<Told>, ServerError> {
        let mut told = None;
        let mut doubt = None;
        for expected in description.reply() {
            match (expected, self.take_reply(Some((since, &mut doubt)))) {
                (b'1', Message::ParseComplete)
                | (b'2', Message::BindComplete)
                | (b'C', Message::CommandComplete { .. }) => {}
                (b'D', Message::DataRow(columns)) => {
                    told = Some(description.row.read(&columns).expect("an answer of its own"));
                }
                (_, message) => return Err(self.failed(message)),
            }
        }
        if !description.commits {
            return Ok(told);
        }
        let read = self.read;
        match self.take_reply(Some((since, &mut doubt))) {
            Message::ReadyForQuery(b'I') => self.read = read,
            message => return Err(self.failed(message)),
        }
        doubt.map_or(Ok(told), Err)
    }

    /// A message that is no part of the reply is a report; nothing more of the batch is run.
    fn failed(&mut self, message: Message) -> ServerError {
        for pending in &mut self.waiting {
            match pending {
                Pending::Statement { is_doomed, .. } => *is_doomed = true,
                Pending::Parse => panic!("it does not begin its batch"),
                Pending::Sync { may_fail, .. } => {
                    *may_fail = false;
                    break;
                }
            }
        }
        report(message)
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

    /// The same without taking it, if it is there.
    fn peek_reply(&self) -> Option<Message> {
        let mut place = self.read;
        loop {
            let (message, end) = self.message_at(place)?;
            if !is_asynchronous(&message) {
                return Some(message);
            }
            place = end;
        }
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
