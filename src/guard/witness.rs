//! The witness: a second, short-lived connection that tells whether the first one's lock excludes.
//!
//! It runs on a thread of its own, with an event loop of its own, so that the guard's turns never
//! wait for it. It has the same credentials and policy as the session that it is about, and says
//! goodbye as soon as it has been answered.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use mio::{Events, Poll, Token, Waker};

use super::connect::connect_error;
use super::convert;
use super::startup::startup;
use super::stream::{Address, Input, Stream};
use super::tls::Tls;
use crate::clock::Time;
use crate::config::Plan;
use crate::error::Error;
use crate::proto::frontend::ProtocolVersion;
use crate::proto::handshake::Purpose;
use crate::proto::probe::Question;
use crate::proto::session::{Event, Session, SessionLimits};

/// Who is asked, where, and until when.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The index of the endpoint in the plan.
    pub(crate) endpoint: usize,
    pub(crate) address: Address,
    pub(crate) version: ProtocolVersion,
    pub(crate) question: Question,
    pub(crate) deadline: Time,
}

const CONNECTION: Token = Token(0);

/// How many rounds of key derivation run between two looks at the clock.
const DERIVE_ROUNDS: u32 = 1_000;

impl Witness {
    /// Asks. The answer comes through the receiver, and the waker tells when it is there.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub(crate) fn ask(self, waker: Arc<Waker>) -> io::Result<Receiver<Result<(), Error>>> {
        let (sender, receiver) = sync_channel(1);
        std::thread::Builder::new().name("distlock-witness".into()).spawn(move || {
            let testimony = self.testify().map_err(convert::testimony);
            // The manager may be gone by now: then nobody wants to know.
            let _ = sender.send(testimony);
            let _ = waker.wake();
        })?;
        Ok(receiver)
    }

    fn testify(&self) -> Result<(), Error> {
        let broken = |error| self.broken("the system reports an error", error);
        let mut poll = Poll::new().map_err(broken)?;
        let mut events = Events::with_capacity(4);
        let mut stream = self.connect(&mut poll, &mut events)?;
        let endpoint = &self.plan.endpoints[self.endpoint];
        let purpose = Purpose::Testimony(self.question);
        let startup = startup(&self.plan.config, endpoint, &stream, self.version, purpose)?;
        let mut session = Session::new(startup, SessionLimits::DEFAULT).map_err(convert::error)?;
        loop {
            while session.is_deriving() {
                self.check_deadline()?;
                session.derive(DERIVE_ROUNDS).map_err(convert::error)?;
            }
            if let Some(Event::Ready(_)) = session.poll_event().map_err(convert::error)? {
                session.terminate();
                let _ = stream.write(session.output());
                return Ok(());
            }
            if session.is_deriving() {
                continue;
            }
            let sent = stream.write(session.output()).map_err(broken)?;
            session.sent(sent);
            match stream.read(session.space()).map_err(broken)? {
                Input::Bytes(count) => session.filled(count),
                Input::Empty => self.sleep(&mut poll, &mut events)?,
                Input::End => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Err(self.broken("the server closed the connection", error));
                }
            }
        }
    }

    fn connect(&self, poll: &mut Poll, events: &mut Events) -> Result<Stream, Error> {
        let refused = |error| self.broken("no connection", error);
        let tls = self.tls.as_deref().map(|tls| (tls, self.endpoint));
        let mut stream =
            Stream::connect(&self.address, tls, poll.registry(), CONNECTION).map_err(refused)?;
        while !stream.is_connected().map_err(refused)? {
            self.sleep(poll, events)?;
        }
        stream.set_options(&self.plan.config.socket).map_err(refused)?;
        Ok(stream)
    }

    fn sleep(&self, poll: &mut Poll, events: &mut Events) -> Result<(), Error> {
        let span = self.check_deadline()?;
        match poll.poll(events, Some(span)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(self.broken("the event loop failed", error))
            }
            _ => self.check_deadline().map(drop),
        }
    }

    fn check_deadline(&self) -> Result<std::time::Duration, Error> {
        let now = Time::now();
        if now >= self.deadline {
            let error = io::ErrorKind::TimedOut.into();
            return Err(self.broken("no answer within the connect timeout", error));
        }
        Ok(self.deadline.since(now))
    }

    fn broken(&self, reason: &str, error: io::Error) -> Error {
        connect_error(self.address.to_string(), reason, error)
    }
}
