//! The witness: a second, short-lived connection that tells whether the first one's lock excludes.
//!
//! It runs on a thread of its own, with an event loop of its own, so that the guard's turns never
//! wait for it. It has the same credentials and policy as the session that it is about, and says
//! goodbye as soon as it has been answered. When that session ends first it goes, too: a server
//! that hangs up on the one and leaves the other without an answer gathers no threads here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel, sync_channel};

use mio::{Events, Poll, Token, Waker};

use super::connect::connect_error;
use super::convert;
use super::core::DERIVE_ROUNDS;
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

/// A witness that is being heard; dropped, it is sent away.
#[derive(Debug)]
pub(crate) struct Hearing {
    testimony: Receiver<Result<(), Error>>,
    dismissal: Option<Arc<Dismissal>>,
}

/// How the witness learns that nobody listens any more.
#[derive(Debug)]
struct Dismissal {
    is_dismissed: AtomicBool,
    waker: Waker,
}

const CONNECTION: Token = Token(0);
const WAKER: Token = Token(1);

impl Hearing {
    /// One that has nobody to be heard: there is no thread for it.
    pub(crate) fn of_nobody() -> Self {
        Self { testimony: channel().1, dismissal: None }
    }

    /// What the witness has said.
    ///
    /// # Errors
    ///
    /// When it has not, or never will.
    pub(crate) fn try_recv(&self) -> Result<Result<(), Error>, TryRecvError> {
        self.testimony.try_recv()
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        if let Some(dismissal) = &self.dismissal {
            dismissal.is_dismissed.store(true, Ordering::Release);
            // Fails only when the event loop is gone, and with it the witness.
            let _ = dismissal.waker.wake();
        }
    }
}

impl Witness {
    /// Asks. The waker tells when the answer is there.
    ///
    /// # Errors
    ///
    /// When there is no thread, or no event loop, to be had.
    pub(crate) fn ask(self, waker: Arc<Waker>) -> io::Result<Hearing> {
        let (sender, testimony) = sync_channel(1);
        let poll = Poll::new()?;
        let is_dismissed = AtomicBool::new(false);
        let dismissal =
            Arc::new(Dismissal { is_dismissed, waker: Waker::new(poll.registry(), WAKER)? });
        let own = Arc::clone(&dismissal);
        std::thread::Builder::new().name("distlock-witness".into()).spawn(move || {
            let testimony = self.testify(poll, &own.is_dismissed).map_err(convert::testimony);
            // The manager may be gone by now: then nobody wants to know.
            let _ = sender.send(testimony);
            let _ = waker.wake();
        })?;
        Ok(Hearing { testimony, dismissal: Some(dismissal) })
    }

    fn testify(&self, mut poll: Poll, is_dismissed: &AtomicBool) -> Result<(), Error> {
        let broken = |error| self.broken("the system reports an error", error);
        let mut events = Events::with_capacity(4);
        let mut stream = self.connect(&mut poll, &mut events, is_dismissed)?;
        let endpoint = &self.plan.endpoints[self.endpoint];
        let purpose = Purpose::Testimony(self.question);
        let startup = startup(&self.plan.config, endpoint, &stream, self.version, purpose)?;
        let mut session = Session::new(startup, SessionLimits::DEFAULT).map_err(convert::error)?;
        loop {
            self.check_deadline(is_dismissed)?;
            while session.is_deriving() {
                self.check_deadline(is_dismissed)?;
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
                Input::Empty => self.sleep(&mut poll, &mut events, is_dismissed)?,
                Input::End => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Err(self.broken("the server closed the connection", error));
                }
            }
        }
    }

    fn connect(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        is_dismissed: &AtomicBool,
    ) -> Result<Stream, Error> {
        let refused = |error| self.broken("no connection", error);
        let tls = self.tls.as_deref().map(|tls| (tls, self.endpoint));
        let mut stream =
            Stream::connect(&self.address, tls, poll.registry(), CONNECTION).map_err(refused)?;
        while !stream.is_connected().map_err(refused)? {
            self.sleep(poll, events, is_dismissed)?;
        }
        stream.set_options(&self.plan.config.socket).map_err(refused)?;
        Ok(stream)
    }

    fn sleep(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        is_dismissed: &AtomicBool,
    ) -> Result<(), Error> {
        let span = self.check_deadline(is_dismissed)?;
        match poll.poll(events, Some(span)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(self.broken("the event loop failed", error))
            }
            _ => self.check_deadline(is_dismissed).map(drop),
        }
    }

    fn check_deadline(&self, is_dismissed: &AtomicBool) -> Result<std::time::Duration, Error> {
        if is_dismissed.load(Ordering::Acquire) {
            let error = io::ErrorKind::Interrupted.into();
            return Err(self.broken("the session that it is about has ended", error));
        }
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
