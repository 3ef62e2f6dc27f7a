//! The connection: TCP, with TLS or without, or Unix. Knows no messages. Nothing here blocks but
//! [`Stream::sleep`], and [`Stream::receive`] for a moment.
//!
//! Whoever drives a stream need not know of TLS: it is connected when the handshake is through, and
//! what is read and written is what went in at the other end.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::socket::Socket;
use super::tls::{Channel, Tls};
use crate::clock::Time;
use crate::config::SocketOptions;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A socket that is connected, or about to be.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    tls: Option<Box<Channel>>,
    /// Whether the socket itself is connected.
    is_dialed: bool,
    /// Whether the event loop also tells when there is room to write. Only then: a Unix socket
    /// reports room after every byte the server reads, which would wake an idle guard for nothing.
    wants_room: bool,
    /// What [`Stream::receive`] has met with, for [`Stream::read`] to tell.
    failed: Option<io::Error>,
}

/// What [`Stream::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Empty,
    /// The server has closed the connection.
    End,
}

/// What ended [`Stream::sleep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) stream: bool,
    pub(crate) other: bool,
}

impl Stream {
    /// Starts to connect; [`Stream::is_connected`] tells when it is through. With a policy for TLS,
    /// and the index of the endpoint in the plan, TCP is secured; Unix sockets never are (as in
    /// libpq).
    pub(crate) fn connect(
        address: &Address,
        tls: Option<(&Tls, usize)>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = Socket::connect(address)?;
        let tls = match (address, tls) {
            (Address::Tcp(_), Some((tls, endpoint))) => Some(Box::new(tls.channel(endpoint)?)),
            _ => None,
        };
        let mut stream = Self { socket, tls, is_dialed: false, wants_room: true, failed: None };
        stream.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// Goes on with connecting as far as it goes without waiting. Whether the connection is made;
    /// an error if it cannot be.
    pub(crate) fn is_connected(&mut self) -> io::Result<bool> {
        // Looked at once: later errors of the socket are TLS's to tell, in its words.
        self.is_dialed = self.is_dialed || self.socket.is_connected()?;
        match (self.is_dialed, &mut self.tls) {
            (true, Some(tls)) => tls.advance(&mut self.socket),
            (is_dialed, _) => Ok(is_dialed),
        }
    }

    /// Whether what goes through is under TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The hash that tells the TLS channel, where there is one and it is defined.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        self.tls.as_ref()?.end_point()
    }

    /// Sets the options of a TCP socket, and that small messages go out at once. Measured: without
    /// the latter the same work ran at 36 locks a second instead of 3,500, for Nagle's algorithm
    /// meets delayed acknowledgements.
    pub(crate) fn set_options(&self, options: &SocketOptions) -> io::Result<()> {
        let Socket::Tcp(socket) = &self.socket else { return Ok(()) };
        socket.set_nodelay(true)?;
        sockopt::set_socket_keepalive(socket, options.keepalives)?;
        if let Some(idle) = options.keepalives_idle.filter(|_| options.keepalives) {
            sockopt::set_tcp_keepidle(socket, idle)?;
        }
        if let Some(interval) = options.keepalives_interval.filter(|_| options.keepalives) {
            sockopt::set_tcp_keepintvl(socket, interval)?;
        }
        if let Some(count) = options.keepalives_count.filter(|_| options.keepalives) {
            sockopt::set_tcp_keepcnt(socket, count)?;
        }
        if let Some(timeout) = options.tcp_user_timeout {
            let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(socket, milliseconds)?;
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<Input> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(tls) = &mut self.tls {
            return tls.read(&mut self.socket, into);
        }
        loop {
            return match self.socket.read(into) {
                Ok(0) => Ok(Input::End),
                Ok(count) => Ok(Input::Bytes(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Input::Empty),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Whether [`Stream::receive`] can be called: the socket must be all that there is to wait for.
    pub(crate) fn can_receive(&self) -> bool {
        self.tls.is_none() && !self.wants_room
    }

    /// Reads, and waits for that for a moment: for up to [`RECEIVE_MAX`](super::socket), which
    /// nothing but the socket ends. [`Input::End`] if it has ended or failed: [`Stream::read`] says
    /// which.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> Input {
        match self.socket.receive(into) {
            Ok(0) => Input::End,
            Ok(count) => Input::Bytes(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Input::Empty,
                _ => {
                    self.failed = Some(error);
                    Input::End
                }
            },
        }
    }

    /// Writes as much as there is room for; 0 when there is none. With TLS, some of what was taken
    /// may still wait for room in the socket: [`Stream::want_room`] sees to that.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.write(&mut self.socket, bytes);
        }
        loop {
            return match self.socket.write(bytes) {
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Has the event loop tell when there is room to write, or no longer. With TLS this also sends
    /// on what waits, and wants room for as long as something does.
    pub(crate) fn want_room(
        &mut self,
        wanted: bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let mut wanted = wanted;
        if let Some(tls) = &mut self.tls {
            if tls.has_unsent() {
                tls.flush(&mut self.socket)?;
            }
            wanted |= tls.has_unsent();
        }
        if self.wants_room == wanted {
            return Ok(());
        }
        self.wants_room = wanted;
        let interest = match wanted {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        self.socket.reregister(registry, token, interest)
    }

    /// Sleeps until there is something to read (or room to write, where that is wanted), the other
    /// descriptor is readable, or `limit` has come. Unlike the
    /// event loop's, this readiness is level-triggered: nothing has to be drained.
    pub(crate) fn sleep(&self, other: BorrowedFd<'_>, now: Time, limit: Time) -> io::Result<Ready> {
        // What TLS has decrypted is not in the socket any more, which would be slept on in vain.
        if self.tls.as_ref().is_some_and(|tls| tls.has_pending()) {
            return Ok(Ready { stream: true, other: false });
        }
        let wanted = match self.wants_room {
            true => PollFlags::IN | PollFlags::OUT,
            false => PollFlags::IN,
        };
        let span = limit.since(now);
        let timeout = Timespec {
            tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: span.subsec_nanos().into(),
        };
        let timeout = if limit == Time::NEVER { None } else { Some(&timeout) };
        let mut fds = [
            PollFd::from_borrowed_fd(self.as_fd(), wanted),
            PollFd::from_borrowed_fd(other, PollFlags::IN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {
                let [stream, other] = fds.map(|fd| !fd.revents().is_empty());
                Ok(Ready { stream, other })
            }
            Err(rustix::io::Errno::INTR) => Ok(Ready { stream: false, other: false }),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.socket);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_options_of_the_socket_are_those_of_the_configuration() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let poll = mio::Poll::new().unwrap();
        let connect = || Stream::connect(&address, None, poll.registry(), Token(0)).unwrap();
        let stream = connect();
        let options = SocketOptions {
            keepalives: true,
            keepalives_idle: Some(Duration::from_secs(7)),
            keepalives_interval: Some(Duration::from_secs(3)),
            keepalives_count: Some(4),
            tcp_user_timeout: Some(Duration::from_millis(12_345)),
        };
        stream.set_options(&options).unwrap();
        assert!(sockopt::tcp_nodelay(&stream).unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(3));
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 4);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 12_345);

        let stream = connect();
        stream.set_options(&SocketOptions { keepalives: false, ..options }).unwrap();
        assert!(!sockopt::socket_keepalive(&stream).unwrap());
        assert_ne!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
    }

    /// A stream that is connected, and its other end.
    fn connected() -> (Stream, std::net::TcpStream, mio::Poll) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let poll = mio::Poll::new().unwrap();
        let mut stream = Stream::connect(&address, None, poll.registry(), Token(0)).unwrap();
        let (server, _) = listener.accept().unwrap();
        while !stream.is_connected().unwrap() {}
        stream.want_room(false, poll.registry(), Token(0)).unwrap();
        assert!(stream.can_receive());
        (stream, server, poll)
    }

    #[test]
    fn a_wait_for_the_socket_alone_ends_without_it() {
        let (mut stream, mut server, _poll) = connected();
        assert_eq!(stream.receive(&mut [0; 8]), Input::Empty);
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), Input::Empty, "and this does not wait");
        server.write_all(b"abc").unwrap();
        let mut space = [0; 8];
        while stream.receive(&mut space) == Input::Empty {}
        assert_eq!(&space[..3], b"abc");
    }

    #[test]
    fn what_ends_the_connection_during_such_a_wait_is_read_next() {
        let (mut stream, server, _poll) = connected();
        drop(server);
        while stream.receive(&mut [0; 8]) == Input::Empty {}
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), Input::End);
        // What is unread when a socket is closed makes it a reset.
        let (mut stream, server, _poll) = connected();
        while stream.write(b"unread").unwrap() == 0 {}
        server.peek(&mut [0; 8]).unwrap();
        drop(server);
        while stream.receive(&mut [0; 8]) == Input::Empty {}
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// A full socket must not keep the guard.
    #[test]
    fn writing_never_waits() {
        let (mut stream, _server, _poll) = connected();
        while stream.write(&[0; 64 * 1024]).unwrap() > 0 {}
    }
}
