//! The server's half of one connection, as a pure value: the client's bytes go in, and what the
//! script does comes out. [`server`](super::server) plays it over sockets, and a test can play it
//! into a client that is a pure value itself.
//!
//! It knows no client in particular. Where a script says `good`, a [`Good`] server answers, which
//! is the one part that depends on what the client asks.

use std::sync::Arc;
use std::time::Duration;

use super::format::{Alteration, Connection, Expect, Knobs, Step, Until};
use super::items;
use super::scram::Scram;

/// A frontend message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// The type byte; 0 for those that have none: StartupMessage, SSLRequest and the like.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

/// A server that behaves, from the end of the authentication on.
pub trait Good: std::fmt::Debug {
    /// What follows AuthenticationOk, up to ReadyForQuery.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// Takes one message, and adds the answer to it.
    fn handle(&mut self, message: &Frontend, out: &mut Vec<u8>);
    /// The name of the statement that begins with this message.
    fn names(&self, message: &Frontend) -> Option<&'static str>;
    /// Whether the client has all that it needs to work.
    fn is_ready(&self) -> bool;
    /// Lies in one place from now on.
    fn alter(&mut self, alteration: &Alteration);
    /// Whether every lie was told.
    fn has_lied(&self) -> bool;
    /// Whether a second connection is to test this one.
    fn awaits_witness(&self) -> bool {
        false
    }
}

/// What to do next with the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Do {
    /// Send bytes.
    Send(Vec<u8>),
    /// Do nothing for a while.
    Pause(Duration),
    /// Nothing before the client has sent more.
    Read,
    /// The script is over; what the client sends is still to be received.
    Rest,
    /// Close the connection.
    Close,
    /// Reset it.
    Reset,
}

/// A change of all that a script sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tamper {
    /// None.
    #[default]
    Nothing,
    /// Puts bytes in front of a message, counted from 0.
    Insert(usize, Vec<u8>),
    /// Ends the connection after so many bytes.
    Cut(usize, End),
}

/// The end of a connection that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In good order.
    Close,
    /// With a reset.
    Reset,
    /// Not at all: silence.
    Silence,
}

/// A script under way.
#[derive(Debug)]
pub struct Player {
    script: Arc<Connection>,
    at: usize,
    /// How far a step is that takes several turns.
    round: u64,
    good: Box<dyn Good>,
    password: Option<String>,
    scram: Scram,
    stage: Stage,
    tamper: Tamper,
    cut: Option<Do>,
    over: bool,
    sent_bytes: usize,
    /// Where each of the messages ended that were sent.
    boundaries: Vec<usize>,
    /// Everything that was received.
    log: Vec<u8>,
    /// How much of it was taken as messages.
    taken: usize,
    /// Where the last expected message ended.
    expected: usize,
    trouble: Option<String>,
}

/// How far the good server's part of a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Started,
    Offered,
    Challenged,
    Authenticated,
    Greeted,
}

/// How a SCRAM server answers a message.
type Answer = fn(&mut Scram, &[u8], &Knobs) -> Result<Vec<u8>, String>;

/// More than any client of a test says; the rest is dropped.
const LOG_MAX: usize = 256 * 1024;

/// How much of a flood goes out at once.
const CHUNK: usize = 32 * 1024;

/// The part of a flooded message that becomes the number of the round.
const COUNTER: &[u8] = b"#######";

impl Player {
    /// A script that has not begun. With a password, the good server asks for it by SCRAM-SHA-256.
    pub fn new(script: Arc<Connection>, good: Box<dyn Good>, password: Option<&str>) -> Self {
        Self {
            script,
            at: 0,
            round: 0,
            good,
            password: password.map(str::to_owned),
            scram: Scram::new(password.unwrap_or_default()),
            stage: Stage::Fresh,
            tamper: Tamper::Nothing,
            cut: None,
            over: false,
            sent_bytes: 0,
            boundaries: Vec::new(),
            log: Vec::with_capacity(4 * 1024),
            taken: 0,
            expected: 0,
            trouble: None,
        }
    }

    /// The same with a change of all that it sends.
    #[must_use]
    pub fn tampered(mut self, tamper: Tamper) -> Self {
        self.tamper = tamper;
        self
    }

    /// Takes bytes of the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        let room = LOG_MAX.saturating_sub(self.log.len());
        self.log.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// All that was received.
    pub fn log(&self) -> &[u8] {
        &self.log
    }

    /// What was received after the last message that the script expected.
    pub fn unexpected(&self) -> &[u8] {
        &self.log[self.expected..]
    }

    /// What a client must not send, made from the password.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        self.scram.secrets()
    }

    /// Why the script was not played to its end, if it was not.
    pub fn unplayed(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        if self.over {
            return None;
        }
        let left = self.script.steps.iter().enumerate().skip(self.at);
        // What needs no word of the client may be cut short: it may hang up as soon as it likes.
        let mut needed = left.filter(|(_, step)| match step {
            Step::Good(Until::End) => self.stage != Stage::Greeted || !self.good.has_lied(),
            Step::Expect(_) | Step::Good(_) => true,
            Step::ScramChallenge(_) | Step::ScramVerdict(_) => true,
            _ => false,
        });
        let (at, step) = needed.next()?;
        Some(format!("the client went away before step {}: {step:?}", at + 1))
    }

    /// How many bytes were sent, but for those of a change.
    pub fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    /// The numbers of bytes after which a message that was sent had ended.
    pub fn boundaries(&self) -> &[usize] {
        &self.boundaries
    }

    /// Whether a second connection is to test this one.
    pub fn awaits_witness(&self) -> bool {
        self.good.awaits_witness()
    }

    /// What to do next.
    pub fn next(&mut self) -> Do {
        if let Some(cut) = self.cut.take() {
            return cut;
        }
        match self.play() {
            Do::Send(bytes) => Do::Send(self.tampered_with(bytes)),
            other => other,
        }
    }

    fn play(&mut self) -> Do {
        if self.trouble.is_some() || self.over {
            return Do::Rest;
        }
        let script = Arc::clone(&self.script);
        loop {
            let Some(step) = script.steps.get(self.at) else { return Do::Rest };
            let (done, next) = match step {
                Step::Expect(expect) => match self.expect(*expect) {
                    true => (true, None),
                    false => (false, Some(Do::Read)),
                },
                Step::Send(bytes) => (true, Some(Do::Send(bytes.clone()))),
                Step::Flood(count, bytes) => self.flood(*count, bytes),
                Step::Stream(count, byte) => {
                    let rest = count.saturating_sub(self.round);
                    let size = rest.min(CHUNK as u64);
                    self.round += size;
                    let bytes = vec![*byte; usize::try_from(size).unwrap_or(0)];
                    (size == rest, Some(Do::Send(bytes)))
                }
                Step::Trickle(pause, bytes) => {
                    self.round += 1;
                    let at = usize::try_from(self.round / 2).unwrap_or(0);
                    match self.round % 2 {
                        1 => (false, Some(Do::Pause(*pause))),
                        _ => (at == bytes.len(), Some(Do::Send(vec![bytes[at - 1]]))),
                    }
                }
                Step::Wait(pause) => {
                    self.round += 1;
                    (self.round > 1, (self.round == 1).then_some(Do::Pause(*pause)))
                }
                Step::Close => (true, Some(Do::Close)),
                Step::Reset => (true, Some(Do::Reset)),
                Step::Alter(alteration) => {
                    self.good.alter(alteration);
                    (true, None)
                }
                Step::Authenticated => {
                    self.stage = Stage::Authenticated;
                    (true, None)
                }
                Step::ScramChallenge(knobs) => self.scram(knobs, Scram::challenge),
                Step::ScramVerdict(knobs) => self.scram(knobs, Scram::verdict),
                Step::Good(until) => self.behave(until),
            };
            if done {
                self.at += 1;
                self.round = 0;
            }
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn expect(&mut self, expect: Expect) -> bool {
        while let Some(message) = self.message() {
            let (tag, code) = (message.tag, message.body.first_chunk::<4>());
            let major = code.map(|code| u16::from_be_bytes([code[0], code[1]]));
            let found = match expect {
                Expect::Startup => tag == 0 && major == Some(3),
                Expect::SslRequest => tag == 0 && code == Some(&80_877_103_u32.to_be_bytes()),
                Expect::Tag(wanted) => tag == wanted,
            };
            if found {
                if expect == Expect::Startup {
                    self.stage = Stage::Started;
                }
                self.expected = self.taken;
                return true;
            }
        }
        false
    }

    fn flood(&mut self, count: Option<u64>, message: &[u8]) -> (bool, Option<Do>) {
        let place = message.windows(COUNTER.len()).position(|window| window == COUNTER);
        let mut bytes = Vec::with_capacity(CHUNK + message.len());
        while bytes.len() < CHUNK && count.is_none_or(|count| self.round < count) {
            let start = bytes.len();
            bytes.extend_from_slice(message);
            if let Some(place) = place {
                let number = format!("{:07}", self.round % 10_000_000);
                bytes[start + place..start + place + COUNTER.len()]
                    .copy_from_slice(number.as_bytes());
            }
            self.round += 1;
        }
        let done = count.is_some_and(|count| self.round >= count);
        (done, Some(Do::Send(bytes)))
    }

    fn scram(&mut self, knobs: &Knobs, answer: Answer) -> (bool, Option<Do>) {
        let Some(message) = self.message() else { return (false, Some(Do::Read)) };
        match answer(&mut self.scram, &message.body, knobs) {
            Ok(bytes) if message.tag == b'p' => {
                self.expected = self.taken;
                (true, Some(Do::Send(bytes)))
            }
            Ok(_) => (false, None),
            Err(trouble) => {
                self.trouble = Some(trouble);
                (false, Some(Do::Rest))
            }
        }
    }

    /// One turn of the good server.
    fn behave(&mut self, until: &Until) -> (bool, Option<Do>) {
        let mut out = Vec::new();
        match self.stage {
            Stage::Started => self.ask_for_password(&mut out),
            Stage::Authenticated => {
                self.good.greet(&mut out);
                self.stage = Stage::Greeted;
            }
            Stage::Greeted => return self.answer_batch(until),
            Stage::Fresh | Stage::Offered | Stage::Challenged => {
                let Some(message) = self.message() else { return (false, Some(Do::Read)) };
                if let Err(trouble) = self.authenticate(&message, &mut out) {
                    self.trouble = Some(trouble);
                    return (false, Some(Do::Rest));
                }
            }
        }
        self.expected = self.taken;
        let done = *until == Until::Authenticated && self.stage == Stage::Authenticated;
        (done, (!out.is_empty()).then_some(Do::Send(out)))
    }

    fn ask_for_password(&mut self, out: &mut Vec<u8>) {
        let (item, stage) = match self.password {
            Some(_) => ("@sasl", Stage::Offered),
            None => ("@auth-ok", Stage::Authenticated),
        };
        out.extend(items::bytes_of(item).unwrap_or_default());
        self.stage = stage;
    }

    fn authenticate(&mut self, message: &Frontend, out: &mut Vec<u8>) -> Result<(), String> {
        let knobs = Knobs::default();
        match (self.stage, message.tag) {
            // A request for encryption is declined.
            (Stage::Fresh, 0) if message.body.first() == Some(&4) => out.push(b'N'),
            (Stage::Fresh, 0) => self.ask_for_password(out),
            (Stage::Offered, b'p') => {
                out.extend(self.scram.challenge(&message.body, &knobs)?);
                self.stage = Stage::Challenged;
            }
            (Stage::Challenged, b'p') => {
                out.extend(self.scram.verdict(&message.body, &knobs)?);
                out.extend(items::bytes_of("@auth-ok").unwrap_or_default());
                self.stage = Stage::Authenticated;
            }
            (stage, tag) => return Err(format!("{:?} at {stage:?}", char::from(tag))),
        }
        Ok(())
    }

    /// Answers up to the next Sync, as one piece; of a batch with the statement that is waited for
    /// only what comes before that.
    fn answer_batch(&mut self, until: &Until) -> (bool, Option<Do>) {
        if *until == Until::Session && self.good.is_ready() {
            return (true, None);
        }
        let before = self.taken;
        let mut batch = Vec::new();
        loop {
            let Some(message) = self.message() else {
                // Half a batch is read again when the rest of it is there.
                self.taken = before;
                return (false, Some(Do::Read));
            };
            let is_end = matches!(message.tag, b'S' | b'Q' | b'X');
            batch.push(message);
            if is_end {
                break;
            }
        }
        let (mut out, mut dropped, mut found) = (Vec::new(), Vec::new(), false);
        for message in &batch {
            let name = self.good.names(message);
            found |= name.is_some_and(|name| *until == Until::Statement(name.to_owned()));
            self.good.handle(message, if found { &mut dropped } else { &mut out });
        }
        self.expected = self.taken;
        (found, (!out.is_empty()).then_some(Do::Send(out)))
    }

    /// The next whole message of the client.
    fn message(&mut self) -> Option<Frontend> {
        let (message, size) = split(&self.log[self.taken..])?;
        self.taken += size;
        Some(message)
    }

    fn tampered_with(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let out = match &self.tamper {
            Tamper::Nothing => bytes,
            Tamper::Cut(after, end) => {
                let room = after.saturating_sub(self.sent_bytes).min(bytes.len());
                if self.sent_bytes + bytes.len() >= *after {
                    self.cut = Some(match end {
                        End::Close => Do::Close,
                        End::Reset => Do::Reset,
                        End::Silence => Do::Rest,
                    });
                    self.over = true;
                }
                bytes[..room].to_vec()
            }
            Tamper::Insert(before, inserted) => {
                let mut out = Vec::with_capacity(bytes.len());
                let (mut rest, mut number) = (&bytes[..], self.boundaries.len());
                while let Some((_, size)) = split(rest) {
                    if number == *before {
                        out.extend_from_slice(inserted);
                    }
                    number += 1;
                    out.extend_from_slice(&rest[..size]);
                    rest = &rest[size..];
                }
                self.note(&bytes);
                return out;
            }
        };
        self.note(&out);
        out
    }

    /// Only scripts of whole messages have boundaries; a flood would have too many.
    fn note(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let (true, Some((_, size))) = (self.boundaries.len() < 256, split(rest)) {
            rest = &rest[size..];
            self.boundaries.push(self.sent_bytes + bytes.len() - rest.len());
        }
        self.sent_bytes += bytes.len();
    }
}

/// The message at the front of a stream of either side. StartupMessage and its like have no type
/// byte, but begin with the zero of a short length.
pub fn split(bytes: &[u8]) -> Option<(Frontend, usize)> {
    let (tag, rest) = match bytes.split_first()? {
        (0, _) => (0, bytes),
        (tag, rest) => (*tag, rest),
    };
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk::<4>()?)).ok()?;
    let body = rest.get(4..length)?.to_vec();
    Some((Frontend { tag, body }, length + usize::from(tag != 0)))
}

/// All whole messages of a client.
pub fn messages(log: &[u8]) -> Vec<Frontend> {
    let (mut found, mut rest) = (Vec::new(), log);
    while let Some((message, size)) = split(rest) {
        rest = &rest[size..];
        found.push(message);
    }
    found
}
