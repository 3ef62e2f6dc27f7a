//! Making the connection: names are resolved on threads of their own, the servers and their
//! addresses tried in turn.
//!
//! Resolving a name can block for as long as the system's resolver likes, so it never runs on the
//! guard's thread. At most one such thread exists for each entry of the list of hosts: while one
//! hangs, no other is started for it. [`Connector::advance`] is called until it gives a connection;
//! when that turns out to be with a server that will not do, it goes on with the next address.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use mio::{Registry, Token, Waker};

use super::jitter::Jitter;
use super::stream::{Address, Stream};
use super::tls::{Tls, is_trouble};
use crate::clock::Time;
use crate::config::{Place, Plan};
use crate::error::Error;

/// The attempt to connect that is under way.
#[derive(Debug)]
pub(crate) struct Connector {
    plan: Arc<Plan>,
    tls: Option<Arc<Tls>>,
    /// The names that are being looked up, by the index of their endpoint.
    resolving: Vec<Option<Receiver<Resolved>>>,
    /// Endpoints still to be tried.
    endpoints: VecDeque<usize>,
    /// The endpoint whose addresses are tried, and until when its name is waited for.
    endpoint: usize,
    resolved_by: Option<Time>,
    /// Its addresses still to be tried.
    addresses: VecDeque<Address>,
    dialing: Option<(Stream, Address, Time)>,
    /// Why the servers tried so far would not do, and which one it was where the error does not
    /// say.
    errors: Vec<(Option<Address>, Error)>,
    jitter: Jitter,
}

/// A connection, and whom it is with.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// The index of the endpoint in the plan.
    pub(crate) endpoint: usize,
    pub(crate) address: Address,
    /// Until when it is to be tried, if there are others.
    pub(crate) give_up_at: Time,
}

/// What a name was resolved to, and when.
type Resolved = (Time, io::Result<Vec<SocketAddr>>);

/// As long as the longest pause between two attempts: so much older than an attempt may its answers
/// be, where the resolver takes longer than an attempt does.
const FRESH: Duration = Duration::from_secs(5);

impl Connector {
    pub(crate) fn new(plan: Arc<Plan>, tls: Option<Arc<Tls>>, seed: u64) -> Self {
        Self {
            tls,
            resolving: plan.endpoints.iter().map(|_| None).collect(),
            plan,
            endpoints: VecDeque::new(),
            endpoint: 0,
            resolved_by: None,
            addresses: VecDeque::new(),
            dialing: None,
            errors: Vec::new(),
            jitter: Jitter::new(seed),
        }
    }

    /// The servers as the configuration has them, for errors.
    pub(crate) fn server(&self) -> String {
        let places = self.plan.endpoints.iter().map(|endpoint| endpoint.place.to_string());
        places.collect::<Vec<_>>().join(", ")
    }

    /// The policy for TLS, where it is to be spoken.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Starts an attempt. `waker` wakes the event loop when a name is resolved.
    ///
    /// # Errors
    ///
    /// When no thread can be had for resolving.
    pub(crate) fn begin(&mut self, now: Time, waker: &Arc<Waker>) -> Result<(), Error> {
        self.cancel();
        self.errors.clear();
        let mut order: Vec<usize> = (0..self.plan.endpoints.len()).collect();
        if self.plan.shuffle {
            self.jitter.shuffle(&mut order);
        }
        self.endpoints = order.into();
        for (endpoint, resolving) in self.plan.endpoints.iter().zip(&mut self.resolving) {
            forget_stale(now, resolving);
            if let (Place::Name(host, port), None) = (&endpoint.place, &resolving) {
                let receiver = resolve(host.clone(), *port, Arc::clone(waker));
                *resolving = Some(receiver.map_err(|error| {
                    connect_error(host.clone(), "no thread to resolve the name", error)
                })?);
            }
        }
        Ok(())
    }

    /// Goes on with the attempt as far as it goes without waiting.
    ///
    /// # Errors
    ///
    /// When there is no address left to try.
    pub(crate) fn advance(
        &mut self,
        now: Time,
        deadline: Time,
        registry: &Registry,
        token: Token,
    ) -> Result<Option<Connection>, Error> {
        loop {
            if let Some((mut stream, address, give_up_at)) = self.dialing.take() {
                match stream.is_connected() {
                    Ok(true) => {
                        let (endpoint, give_up_at) = (self.endpoint, self.share(now, deadline));
                        return Ok(Some(Connection { stream, endpoint, address, give_up_at }));
                    }
                    Ok(false) if now < give_up_at => {
                        self.dialing = Some((stream, address, give_up_at));
                        return Ok(None);
                    }
                    Ok(false) => self.note(&address, io::ErrorKind::TimedOut.into()),
                    Err(error) => self.note(&address, error),
                }
            }
            if self.resolved_by.is_some() && !self.take_resolved(now) {
                return Ok(None);
            }
            if let Some(address) = self.addresses.pop_front() {
                let tls = self.tls.as_deref().map(|tls| (tls, self.endpoint));
                match Stream::connect(&address, tls, registry, token) {
                    Ok(stream) => {
                        self.dialing = Some((stream, address, self.share(now, deadline)));
                    }
                    Err(error) => self.note(&address, error),
                }
            } else if let Some(endpoint) = self.endpoints.pop_front() {
                self.enter(endpoint, now, deadline);
            } else {
                return Err(self.verdict());
            }
        }
    }

    /// When [`Connector::advance`] has to be called at the latest.
    pub(crate) fn next_timeout(&self) -> Time {
        let dialing = self.dialing.as_ref().map(|(_, _, give_up_at)| *give_up_at);
        dialing.or(self.resolved_by).unwrap_or(Time::NEVER)
    }

    /// Whether there are addresses left to try, or errors of others to be reported with the last.
    pub(crate) fn has_more(&self) -> bool {
        !(self.addresses.is_empty() && self.endpoints.is_empty() && self.errors.is_empty())
    }

    /// The server of the last connection will not do.
    pub(crate) fn reject(&mut self, address: Option<Address>, error: Error) {
        self.errors.push((address, error));
    }

    /// The server of the last connection is to be asked once more.
    pub(crate) fn again(&mut self, endpoint: usize, address: Address) {
        self.endpoint = endpoint;
        self.addresses.push_front(address);
    }

    /// Gives the attempt up. Threads that still resolve are left alone; their answers are used by
    /// the next attempt.
    pub(crate) fn cancel(&mut self) {
        self.dialing = None;
        self.resolved_by = None;
        self.addresses.clear();
        self.endpoints.clear();
    }

    /// What is left of the time is shared among the addresses and servers that are left, so that
    /// one that swallows packets does not keep the others from being tried.
    fn share(&self, now: Time, deadline: Time) -> Time {
        let rest = self.addresses.len() + self.endpoints.len();
        let parts = u32::try_from(rest).unwrap_or(u32::MAX).saturating_add(1);
        now.after(deadline.since(now) / parts)
    }

    fn enter(&mut self, endpoint: usize, now: Time, deadline: Time) {
        self.endpoint = endpoint;
        match self.plan.endpoints.get(endpoint).map(|endpoint| &endpoint.place) {
            Some(Place::Socket(path)) => self.addresses.push_back(Address::Unix(path.clone())),
            Some(Place::Address(address)) => self.addresses.push_back(Address::Tcp(*address)),
            Some(Place::Name(..)) => self.resolved_by = Some(self.share(now, deadline)),
            None => {}
        }
    }

    /// Looks whether the name is resolved; `false` while it has to be waited for.
    fn take_resolved(&mut self, now: Time) -> bool {
        let place = self.plan.endpoints[self.endpoint].place.to_string();
        let unresolved = "the name cannot be resolved; check the host";
        let slot = &mut self.resolving[self.endpoint];
        match slot.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => {
                if self.resolved_by.is_some_and(|until| now < until) {
                    return false;
                }
                let error = io::ErrorKind::TimedOut.into();
                self.errors.push((None, connect_error(place, unresolved, error)));
            }
            None | Some(Err(TryRecvError::Disconnected)) => {
                *slot = None;
                let error = io::Error::other("the resolver's thread died");
                self.errors.push((None, connect_error(place, unresolved, error)));
            }
            Some(Ok((_, resolved))) => {
                *slot = None;
                match resolved {
                    Ok(addresses) if addresses.is_empty() => {
                        let reason = "the name has no address; check the host".into();
                        let address = place.into();
                        self.errors.push((None, Error::Connect { address, reason, source: None }));
                    }
                    Ok(mut addresses) => {
                        if self.plan.shuffle {
                            self.jitter.shuffle(&mut addresses);
                        }
                        self.addresses.extend(addresses.into_iter().map(Address::Tcp));
                    }
                    Err(error) => self.errors.push((None, connect_error(place, unresolved, error))),
                }
            }
        }
        self.resolved_by = None;
        true
    }

    fn note(&mut self, address: &Address, error: io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "nothing listens there; is the server running, and is the port right?"
            }
            io::ErrorKind::NotFound => {
                "there is no such socket; is the server running, and is the directory right?"
            }
            io::ErrorKind::PermissionDenied => "the system does not permit it",
            io::ErrorKind::TimedOut => "no answer in time; is the address right, and reachable?",
            _ if is_trouble(&error) => "TLS cannot be set up",
            _ => "the system reports an error",
        };
        self.errors.push((None, connect_error(address.to_string(), reason, error)));
    }

    /// Why none of the servers will do: what the only one said; of several, all of it in one text,
    /// under the head of what tells most.
    fn verdict(&mut self) -> Error {
        let mut errors = std::mem::take(&mut self.errors);
        if errors.len() == 1 {
            return errors.remove(0).1;
        }
        let texts = errors.iter().map(|(address, error)| match (address, error) {
            (None, _) | (_, Error::Connect { .. }) => error.to_string(),
            (Some(address), _) => format!("{address}: {error}"),
        });
        let texts: Vec<_> = texts.collect();
        let reason: Box<str> = format!("no server would do: {}", texts.join("; ")).into();
        let rank = |error: &Error| match error {
            Error::Unsuitable { .. } => 2,
            Error::Server { .. } => 1,
            _ => 0,
        };
        match errors.into_iter().map(|(_, error)| error).max_by_key(rank) {
            Some(Error::Unsuitable { kind, .. }) => Error::Unsuitable { kind, reason },
            Some(Error::Server { sqlstate, .. }) => Error::Server { sqlstate, message: reason },
            _ => Error::Connect { address: self.server().into(), reason, source: None },
        }
    }
}

/// Drops an answer that an earlier attempt has not used, since the session was with a server before
/// it in the list. That may be long ago, and the name stand for another machine by now.
fn forget_stale(now: Time, resolving: &mut Option<Receiver<Resolved>>) {
    match resolving.as_ref().map(Receiver::try_recv) {
        None | Some(Err(TryRecvError::Empty)) => {}
        Some(Ok(resolved)) if now.since(resolved.0) <= FRESH => {
            let (sender, receiver) = sync_channel(1);
            // There is room for one.
            let _ = sender.send(resolved);
            *resolving = Some(receiver);
        }
        Some(_) => *resolving = None,
    }
}

fn resolve(host: String, port: u16, waker: Arc<Waker>) -> io::Result<Receiver<Resolved>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("distlock-resolve".into()).spawn(move || {
        let resolved = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The manager may be gone by now: then nobody wants to know.
        let _ = sender.send((Time::now(), resolved));
        let _ = waker.wake();
    })?;
    Ok(receiver)
}

pub(super) fn connect_error(address: String, reason: &str, error: io::Error) -> Error {
    Error::Connect {
        address: address.into(),
        reason: format!("{reason} ({error})").into(),
        source: Some(Arc::new(error)),
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::Poll;

    use super::*;
    use crate::config::Config;

    const STALE: ([u8; 4], u16) = ([192, 0, 2, 1], 5432);

    /// What the second attempt takes `localhost` for, so long after the first has resolved it, and
    /// has not needed it.
    fn resolved_after(pause: Duration) -> Vec<SocketAddr> {
        let plan = Config::new().user("app").host("127.0.0.1,localhost").into_plan().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(1)).unwrap());
        let mut connector = Connector::new(Arc::new(plan), None, 1);
        let now = Time::now();
        let (sender, receiver) = sync_channel(1);
        sender.send((now, Ok(vec![SocketAddr::from(STALE)]))).unwrap();
        connector.resolving[1] = Some(receiver);
        connector.begin(now.after(pause), &waker).unwrap();
        connector.resolving[1].as_ref().unwrap().recv().unwrap().1.unwrap()
    }

    #[test]
    fn an_attempt_does_not_go_where_a_name_led_long_before_it() {
        let resolved = resolved_after(FRESH + Duration::from_nanos(1));
        assert!(resolved.iter().all(|address| address.ip().is_loopback()), "{resolved:?}");
    }

    #[test]
    fn an_answer_that_came_between_two_attempts_counts_for_the_second() {
        assert_eq!(resolved_after(FRESH), [SocketAddr::from(STALE)]);
    }
}
