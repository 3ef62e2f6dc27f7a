//! A socket of the system: TCP or Unix.
//!
//! Its descriptor blocks once it is connected, and each call here says that it must not
//! (`MSG_DONTWAIT`, manual page recv(2)), but for [`Socket::receive`]: that one call is for who has
//! nothing to do but to wait for this socket, and spares the poll(2) before it.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use super::stream::Address;

/// A socket that is connected, or about to be.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How long [`Socket::receive`] waits; the system rounds that up to its next tick.
pub(super) const RECEIVE_MAX: Duration = Duration::from_millis(2);

/// A tick of the slowest systems (`CONFIG_HZ`, manual page time(7)), twice: it begins in one.
pub(super) const TICKS: Duration = Duration::from_millis(20);

impl Socket {
    /// Starts to connect.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => Self::Tcp(TcpStream::connect(*address)?),
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        })
    }

    /// Whether it is connected by now; an error if it cannot be.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let error = match self {
            Self::Tcp(socket) => socket.take_error()?,
            Self::Unix(socket) => socket.take_error()?,
        };
        if let Some(error) = error {
            return Err(error);
        }
        let peer = match self {
            Self::Tcp(socket) => socket.peer_addr().map(drop),
            Self::Unix(socket) => socket.peer_addr().map(drop),
        };
        match peer {
            Ok(()) => self.let_block().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// From now on a call blocks that does not say otherwise.
    fn let_block(&self) -> io::Result<()> {
        sockopt::set_socket_timeout(self, Timeout::Recv, Some(RECEIVE_MAX))?;
        Ok(rustix::io::ioctl_fionbio(self, false)?)
    }

    /// Has the event loop tell of it.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self.source(), token, interest)
    }

    /// Has the event loop tell of something else.
    pub(super) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self.source(), token, interest)
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(socket) => socket,
            Self::Unix(socket) => socket,
        }
    }

    /// Reads, and waits for up to [`RECEIVE_MAX`] and a tick until there is something to read.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self, into, RecvFlags::empty())?.0)
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&*self, into, RecvFlags::DONTWAIT)?.0)
    }
}

/// Without a signal when the server has gone.
const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&*self, bytes, AT_ONCE)?)
    }

    /// Several TLS records in one call.
    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg(&*self, bytes, &mut SendAncillaryBuffer::default(), AT_ONCE)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}
