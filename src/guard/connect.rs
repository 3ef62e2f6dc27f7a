//! Making the connection: names are resolved on a thread of their own, addresses tried in turn.
//!
//! Resolving a name can block for as long as the system's resolver likes, so it never runs on the
//! guard's thread. At most one such thread exists: while one hangs, no other is started.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use mio::{Registry, Token, Waker};

use super::stream::{Address, Stream};
use crate::clock::Time;
use crate::config::Config;
use crate::error::Error;

/// The attempt to connect that is under way.
#[derive(Debug)]
pub(crate) struct Connector {
    target: Target,
    resolving: Option<Receiver<io::Result<Vec<SocketAddr>>>>,
    /// Addresses still to be tried.
    addresses: VecDeque<Address>,
    dialing: Option<(Stream, Address, Time)>,
    last_error: Option<Error>,
}

#[derive(Debug)]
enum Target {
    Socket(PathBuf),
    Literal(SocketAddr),
    Name(String, u16),
}

impl Connector {
    pub(crate) fn new(config: &Config) -> Self {
        let target = match (config.socket_path(), config.host.parse::<IpAddr>()) {
            (Some(path), _) => Target::Socket(path),
            (None, Ok(address)) => Target::Literal(SocketAddr::new(address, config.port)),
            (None, Err(_)) => Target::Name(config.host.clone(), config.port),
        };
        Self {
            target,
            resolving: None,
            addresses: VecDeque::new(),
            dialing: None,
            last_error: None,
        }
    }

    /// The server as the configuration has it, for errors.
    pub(crate) fn server(&self) -> String {
        self.target.to_string()
    }

    /// Whether the server is reached over TCP.
    pub(crate) fn is_tcp(&self) -> bool {
        !matches!(self.target, Target::Socket(_))
    }

    /// Starts an attempt. `waker` wakes the event loop when a name is resolved.
    ///
    /// # Errors
    ///
    /// When no thread can be had for resolving.
    pub(crate) fn begin(&mut self, waker: &Arc<Waker>) -> Result<(), Error> {
        self.addresses.clear();
        self.dialing = None;
        self.last_error = None;
        match &self.target {
            Target::Socket(path) => self.addresses.push_back(Address::Unix(path.clone())),
            Target::Literal(address) => self.addresses.push_back(Address::Tcp(*address)),
            Target::Name(host, port) => {
                if self.resolving.is_none() {
                    let receiver = resolve(host.clone(), *port, Arc::clone(waker));
                    self.resolving = Some(receiver.map_err(|error| {
                        connect_error(host.clone(), "no thread to resolve the name", error)
                    })?);
                }
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
    ) -> Result<Option<Stream>, Error> {
        if self.take_resolved()? == Resolution::Pending {
            return Ok(None);
        }
        loop {
            if let Some((stream, address, give_up_at)) = self.dialing.take() {
                match stream.is_connected() {
                    Ok(true) => return Ok(Some(stream)),
                    Ok(false) if now < give_up_at => {
                        self.dialing = Some((stream, address, give_up_at));
                        return Ok(None);
                    }
                    Ok(false) => self.note(&address, io::ErrorKind::TimedOut.into()),
                    Err(error) => self.note(&address, error),
                }
            }
            let Some(address) = self.addresses.pop_front() else {
                return Err(self.last_error.take().unwrap_or_else(|| no_address(&self.target)));
            };
            // What is left of the time is shared among the addresses that are left, so that one
            // that swallows packets does not keep the others from being tried.
            let share = deadline.since(now) / (self.addresses.len() as u32 + 1);
            match Stream::connect(&address, registry, token) {
                Ok(stream) => self.dialing = Some((stream, address, now.after(share))),
                Err(error) => self.note(&address, error),
            }
        }
    }

    /// When [`Connector::advance`] has to be called at the latest.
    pub(crate) fn next_timeout(&self) -> Time {
        self.dialing.as_ref().map_or(Time::NEVER, |(_, _, give_up_at)| *give_up_at)
    }

    /// Gives the attempt up. A thread that still resolves is left alone; its answer is used by the
    /// next attempt.
    pub(crate) fn cancel(&mut self) {
        self.dialing = None;
        self.addresses.clear();
    }

    fn take_resolved(&mut self) -> Result<Resolution, Error> {
        let Some(receiver) = &self.resolving else { return Ok(Resolution::Done) };
        let resolved = match receiver.try_recv() {
            Err(TryRecvError::Empty) => return Ok(Resolution::Pending),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the resolver's thread died")),
            Ok(resolved) => resolved,
        };
        self.resolving = None;
        match resolved {
            Ok(addresses) => {
                self.addresses.extend(addresses.into_iter().map(Address::Tcp));
                Ok(Resolution::Done)
            }
            Err(error) => {
                let reason = "the name cannot be resolved; check the host";
                Err(connect_error(self.target.to_string(), reason, error))
            }
        }
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
            _ => "the system reports an error",
        };
        self.last_error = Some(connect_error(address.to_string(), reason, error));
    }
}

#[derive(PartialEq, Eq)]
enum Resolution {
    Pending,
    Done,
}

fn resolve(
    host: String,
    port: u16,
    waker: Arc<Waker>,
) -> io::Result<Receiver<io::Result<Vec<SocketAddr>>>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("distlock-resolve".into()).spawn(move || {
        let resolved = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The manager may be gone by now: then nobody wants to know.
        let _ = sender.send(resolved);
        let _ = waker.wake();
    })?;
    Ok(receiver)
}

fn connect_error(address: String, reason: &str, error: io::Error) -> Error {
    Error::Connect {
        address: address.into(),
        reason: format!("{reason} ({error})").into(),
        source: Some(Arc::new(error)),
    }
}

fn no_address(target: &Target) -> Error {
    Error::Connect {
        address: target.to_string().into(),
        reason: "the name has no address; check the host".into(),
        source: None,
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Literal(address) => write!(f, "{address}"),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
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
