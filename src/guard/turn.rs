//! One turn of the guard: take what callers ask for, read what the server says, act on the
//! deadlines that passed, send what there is to send.
//!
//! A turn is run by whoever has the seat (see the [module above](super)): the guard's own thread,
//! or a caller that waits for an answer. It never blocks; [`Guard::receive`] does, between turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TryRecvError};

use mio::{Registry, Token, Waker};

use super::Shared;
use super::connect::{Connection, Connector, connect_error};
use super::core::{Attempt, Change, Core};
use super::holds::Holds;
use super::startup::{locks, startup};
use super::stream::{Address, Input, Stream};
use super::witness::{Hearing, Witness};
use crate::clock::Time;
use crate::config::{Config, Plan, Proxy};
use crate::context::Cause;
use crate::error::Error;
use crate::proto::frontend::ProtocolVersion;
use crate::proto::probe::Question;
use crate::slots::{Submission, Work};
use crate::sync::atomic::Ordering;
use crate::warning::Warning;

/// What the seat's holder works with.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) core: Core,
    pub(crate) stream: Option<Stream>,
    pub(crate) holds: Holds,
    pub(crate) connector: Connector,
    /// Whom the session, or the attempt to get one, is with.
    pub(crate) peer: Option<Peer>,
    /// The witness that is being heard.
    pub(crate) witness: Option<Hearing>,
    /// With whom there was a session before: no witness has to be heard again, and nobody is asked
    /// again for a protocol version that it does not speak.
    pub(crate) known: Vec<Peer>,
    pub(crate) registry: Registry,
    pub(crate) waker: Arc<Waker>,
    pub(crate) plan: Arc<Plan>,
    /// The queue's other half.
    pub(crate) lot: VecDeque<Submission>,
    /// Who waits for the very first session.
    pub(crate) first: Option<SyncSender<Result<(), Error>>>,
    /// Whether a turn stopped before all its work was done.
    pub(crate) unfinished: bool,
}

/// Whom a session is with.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The index of the endpoint in the plan.
    pub(crate) endpoint: usize,
    pub(crate) address: Address,
    /// The protocol version that it is asked for.
    pub(crate) version: ProtocolVersion,
}

/// How much a turn reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing: the socket was not reported ready.
    Nothing,
    /// What [`Guard::receive`] has read already.
    Received(usize),
    /// What is there, by one call if that gets all of it.
    Once,
    /// Until the socket says that there is no more, as the event loop's edges demand.
    Drain,
}

/// The token of the connection in the event loop.
pub(crate) const CONNECTION: Token = Token(0);

/// A turn reads no more than this, so that a flood cannot keep the deadlines from being noticed.
const READ_MAX: usize = 64 * 1024;

/// Why a connection is given up at once.
const UNTAKEN_OPTION: &str = "the system does not take an option of the socket";

/// How many peers are remembered; the others are strangers each time.
const KNOWN_MAX: usize = 64;

impl Guard {
    pub(crate) fn turn(&mut self, shared: &Shared, now: Time, reading: Reading) {
        self.unfinished = false;
        self.core.tick(now);
        self.take_submissions(shared);
        let reading = match reading {
            Reading::Received(count) => self.take_received(shared, now, count),
            reading => reading,
        };
        // What is read may put off what is due. What it makes due at once has a turn of its own.
        let is_due = now >= self.core.next_timeout();
        // An answer that lies in the socket is not overdue, however late this turn is: after a
        // pause of the process, what has come is read before anything is given up.
        let is_overdue = is_due && self.core.is_overdue(now);
        let reading = if is_overdue { Reading::Drain } else { reading };
        if reading != Reading::Nothing {
            self.read(shared, now, reading);
        }
        if is_due {
            let change = self.core.handle_timeout(now, &mut self.holds.settler(shared));
            self.apply(change, shared);
        }
        if !self.core.is_ready() {
            self.hear_witness(shared, now);
            self.connect(shared, now);
            self.work(shared, now);
        }
        self.core.encode(now);
        self.flush(shared, now);
        // Written after every lost lock was marked, so that a new session's lease covers none of
        // them; the order is what `Node::cause_now` relies on (I8).
        shared.home.believe(self.core.lease_until());
        let wanted = self.core.is_wanted();
        // Written under the seat's lock only.
        if shared.wanted.load(Ordering::Relaxed) != wanted {
            shared.wanted.store(wanted, Ordering::SeqCst);
        }
    }

    /// When the next turn is due at the latest.
    pub(crate) fn next_timeout(&self) -> Time {
        if self.unfinished {
            return Time::ZERO;
        }
        let dialing = match self.core.is_connecting() {
            true => self.connector.next_timeout(),
            false => Time::NEVER,
        };
        self.core.next_timeout().min(dialing)
    }

    /// Ends everything: locks lost, requests failed, goodbye said as far as it goes.
    pub(crate) fn close(&mut self, shared: &Shared) {
        shared.slots.close();
        self.take_submissions(shared);
        self.core.close(&mut self.holds.settler(shared));
        if let (Some(session), Some(stream)) = (self.core.session(), &mut self.stream) {
            // One try: closing the connection says the same.
            let _ = stream.write(session.output());
        }
        self.core.closed();
        self.hang_up();
        self.connector.cancel();
        shared.home.believe(Time::ZERO);
        // What came in between the two is refused by a core that is closed.
        self.take_submissions(shared);
        if let Some(first) = self.first.take() {
            let _ = first.try_send(Err(Error::Closed));
        }
    }

    fn take_submissions(&mut self, shared: &Shared) {
        if !shared.slots.has_submissions() {
            return;
        }
        shared.slots.drain(&mut self.lot);
        let mut settler = self.holds.settler(shared);
        for submission in self.lot.drain(..) {
            match submission {
                Submission::Request(ticket) => match shared.slots.accept(ticket) {
                    Some(Work::Lock { key, wish, mode }) => {
                        self.core.request(ticket, key, wish, mode, &mut settler);
                    }
                    // A hold that is gone already is answered so.
                    Some(Work::Unlock(hold)) => self.core.unlock(ticket, hold, &mut settler),
                    Some(Work::Downgrade(hold)) => {
                        self.core.downgrade(ticket, hold, &mut settler);
                    }
                    Some(Work::Holders(key)) => self.core.inquire(ticket, key, &mut settler),
                    // Its owner has gone, and the Abandon follows.
                    None => {}
                },
                Submission::Abandon(ticket) => {
                    if self.core.abandon(ticket, &mut settler) {
                        shared.slots.free(ticket);
                    }
                }
                Submission::Release(hold) => self.core.release(hold, &mut settler),
            }
        }
    }

    /// Waits in recv(2) for an answer, for a moment, and reads it; for the turn that follows.
    /// `None` where poll(2) has to be waited in.
    pub(crate) fn receive(&mut self) -> Option<Reading> {
        let stream = self.stream.as_mut().filter(|stream| stream.can_receive())?;
        let space = self.core.session()?.space();
        if space.is_empty() {
            return None;
        }
        Some(match stream.receive(space) {
            Input::Bytes(count) => Reading::Received(count),
            Input::Empty => Reading::Nothing,
            Input::End => Reading::Once,
        })
    }

    /// Says what is left to be read.
    fn take_received(&mut self, shared: &Shared, now: Time, count: usize) -> Reading {
        let Some(session) = self.core.session() else { return Reading::Nothing };
        let was_all = count < session.space().len();
        session.filled(count);
        let change = self.core.handle_input(now, &mut self.holds.settler(shared));
        self.apply(change, shared);
        if was_all { Reading::Nothing } else { Reading::Once }
    }

    fn read(&mut self, shared: &Shared, now: Time, reading: Reading) {
        let mut total = 0;
        while total < READ_MAX {
            let (Some(session), Some(stream)) = (self.core.session(), &mut self.stream) else {
                return;
            };
            let space = session.space();
            let room = space.len();
            if room == 0 {
                // Full of what has to wait until we have computed; the turns go on with that.
                self.unfinished = true;
                return;
            }
            match stream.read(space) {
                Ok(Input::Bytes(count)) => {
                    session.filled(count);
                    total += count;
                    let change = self.core.handle_input(now, &mut self.holds.settler(shared));
                    self.apply(change, shared);
                    if reading == Reading::Once && count < room {
                        return;
                    }
                }
                Ok(Input::Empty) => return,
                Ok(Input::End) => {
                    let change = self.core.handle_end(now, &mut self.holds.settler(shared));
                    self.apply(change, shared);
                    // Unless its last word has ended it.
                    if self.stream.is_some() {
                        self.lose(shared, now, "the server closed the connection", None);
                    }
                    return;
                }
                Err(error) => {
                    return self.lose(shared, now, "reading from the server failed", Some(error));
                }
            }
        }
        self.unfinished = true;
    }

    fn flush(&mut self, shared: &Shared, now: Time) {
        while let (Some(session), Some(stream)) = (self.core.session(), &mut self.stream) {
            let output = session.output();
            let is_empty = output.is_empty();
            let result = match is_empty {
                true => Ok(0),
                false => stream.write(output),
            };
            match result {
                Ok(0) => {
                    if let Err(error) = stream.want_room(!is_empty, &self.registry, CONNECTION) {
                        self.lose(shared, now, "the event loop failed", Some(error));
                    }
                    return;
                }
                Ok(count) => session.sent(count),
                Err(error) => {
                    return self.lose(shared, now, "writing to the server failed", Some(error));
                }
            }
        }
    }

    /// A slice of the key derivation; the rest has to wait for the next turn, so that deadlines
    /// and shutdown are noticed in between.
    fn work(&mut self, shared: &Shared, now: Time) {
        let (more, change) = self.core.work(now, &mut self.holds.settler(shared));
        self.unfinished |= more;
        self.apply(change, shared);
    }

    fn connect(&mut self, shared: &Shared, now: Time) {
        if self.core.wants_connection(now) {
            self.core.begin_connecting(now);
            if let Err(error) = self.connector.begin(now, &self.waker) {
                return self.fail(shared, now, error);
            }
        }
        if !self.core.is_connecting() {
            return;
        }
        let deadline = self.core.connect_deadline();
        match self.connector.advance(now, deadline, &self.registry, CONNECTION) {
            Ok(None) => {}
            Ok(Some(connection)) => {
                if let Err(error) = self.start(shared, now, connection) {
                    self.fail(shared, now, error);
                }
            }
            Err(error) => self.fail(shared, now, error),
        }
    }

    /// Starts a session on a connection that stands.
    fn start(&mut self, shared: &Shared, now: Time, connection: Connection) -> Result<(), Error> {
        let Connection { stream, endpoint, address, give_up_at } = connection;
        let config = &self.plan.config;
        stream
            .set_options(&config.socket)
            .map_err(|error| connect_error(address.to_string(), UNTAKEN_OPTION, error))?;
        let known = self.known.iter().find(|peer| peer.address == address);
        // The one that was asked for the newer version in vain is asked for the older one.
        let again = self.peer.take().filter(|peer| peer.address == address);
        let version = match again.as_ref().or(known) {
            Some(peer) => peer.version,
            None if config.ask_3_2 => ProtocolVersion::V3_2,
            None => ProtocolVersion::V3_0,
        };
        let can_ask_older = version == ProtocolVersion::V3_2 && !config.refuse_3_0;
        let attempt = Attempt {
            others: self.connector.has_more(),
            give_up_at,
            silent_until: match (can_ask_older, known) {
                (true, None) => now.after(give_up_at.since(now) / 2),
                // It has spoken this version: silence is for other reasons. If it is not, the next
                // attempt will tell.
                (true, Some(_)) => self.core.connect_deadline(),
                (false, _) => Time::NEVER,
            },
        };
        // A proxy may keep its clients apart today and let them share tomorrow.
        let is_behind_a_proxy = config.proxy == Proxy::SessionAffine;
        let witness = config.witness && (known.is_none() || is_behind_a_proxy);
        let purpose = locks(config, &address, witness)?;
        let startup = startup(config, &self.plan.endpoints[endpoint], &stream, version, purpose)?;
        self.peer = Some(Peer { endpoint, address, version });
        self.stream = Some(stream);
        let settler = &mut self.holds.settler(shared);
        let change = self.core.connected(now, startup, attempt, settler);
        self.apply(change, shared);
        Ok(())
    }

    /// Has a witness look at the session's lock.
    fn ask_witness(&mut self, question: Question) {
        let Some(Peer { endpoint, address, version }) = self.peer.clone() else { return };
        let deadline = self.core.connect_deadline();
        let plan = Arc::clone(&self.plan);
        let tls = self.connector.tls().cloned();
        let witness = Witness { plan, tls, endpoint, address, version, question, deadline };
        // Without a thread there is no witness, which the turn notices.
        let hearing = witness.ask(Arc::clone(&self.waker));
        self.witness = Some(hearing.unwrap_or_else(|_| Hearing::of_nobody()));
    }

    fn hear_witness(&mut self, shared: &Shared, now: Time) {
        let testimony = match self.witness.as_ref().map(Hearing::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(testimony)) => testimony,
            Some(Err(TryRecvError::Disconnected)) => Err(Error::Connect {
                address: self.connector.server().into(),
                reason: "no thread for the second connection, which tests the server's locks"
                    .into(),
                source: None,
            }),
        };
        self.witness = None;
        let change = self.core.witnessed(now, testimony, &mut self.holds.settler(shared));
        self.apply(change, shared);
    }

    fn hang_up(&mut self) {
        self.stream = None;
        // It is about a session that is gone, and goes.
        self.witness = None;
    }

    fn lose(&mut self, shared: &Shared, now: Time, reason: &str, error: Option<std::io::Error>) {
        let reason = match &error {
            Some(error) => format!("{reason} ({error})"),
            None => reason.to_owned(),
        };
        let (address, source) = (self.connector.server().into(), error.map(Arc::new));
        let error = if self.core.is_ready() {
            Error::Disconnected { address, reason: reason.into(), source }
        } else {
            // In the midst of starting, this may be no server of ours at all.
            let hint = "is this a PostgreSQL server, and what does its log say?";
            Error::Connect { address, reason: format!("{reason}; {hint}").into(), source }
        };
        self.fail(shared, now, error);
    }

    fn fail(&mut self, shared: &Shared, now: Time, error: Error) {
        let change =
            self.core.fail(now, Cause::ConnectionLost, error, &mut self.holds.settler(shared));
        self.apply(Some(change), shared);
    }

    /// A known peer that does not answer any more, or hangs up, is asked for the older version the
    /// next time: another one may stand there by now.
    fn doubt(&mut self, error: &Error) {
        let (Error::Connect { .. }, Some(peer)) = (error, &self.peer) else { return };
        let known = self.known.iter_mut().find(|known| known.address == peer.address);
        if let Some(known) = known.filter(|_| !self.plan.config.refuse_3_0) {
            known.version = ProtocolVersion::V3_0;
        }
    }

    /// Nearly always there is none.
    #[inline]
    fn apply(&mut self, change: Option<Change>, shared: &Shared) {
        if let Some(change) = change {
            self.apply_one(change, shared);
        }
    }

    #[cold]
    fn apply_one(&mut self, change: Change, shared: &Shared) {
        match change {
            Change::Ready(greeting) => {
                let Config { max_locks, max_waiters, .. } = self.plan.config;
                let warning =
                    |lock_table| Warning::about_lock_table(max_locks, max_waiters, lock_table);
                if let Some(peer) = &self.peer {
                    // Another server may answer there by now, which does not speak as much.
                    self.known.retain(|known| known.address != peer.address);
                    if self.known.len() < KNOWN_MAX {
                        self.known.push(peer.clone());
                    }
                }
                *shared.warning() = greeting.lock_table.and_then(warning);
                if let Some(first) = self.first.take() {
                    let _ = first.try_send(Ok(()));
                }
            }
            Change::Witness(question) => self.ask_witness(question),
            Change::OlderProtocol => {
                self.hang_up();
                if let Some(peer) = &mut self.peer {
                    peer.version = ProtocolVersion::V3_0;
                    self.connector.again(peer.endpoint, peer.address.clone());
                }
                self.unfinished = true;
            }
            Change::NextAddress(error) => {
                self.hang_up();
                self.doubt(&error);
                let address = self.peer.as_ref().map(|peer| peer.address.clone());
                self.connector.reject(address, error);
                self.unfinished = true;
            }
            Change::Ended(error) => {
                self.hang_up();
                self.doubt(&error);
                self.peer = None;
                self.connector.cancel();
                if let Some(first) = self.first.take() {
                    // The first attempt is the caller's to judge: no second one is made.
                    let _ = first.try_send(Err((*error).clone()));
                    shared.closing.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}
