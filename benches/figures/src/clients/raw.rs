//! The yardstick, and the floor: blocking sockets that do nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::{Client, Server};
use crate::raw::RawSession;

/// A blocking socket.
pub(crate) struct Raw<S> {
    session: RawSession<S>,
    key: i64,
    /// Whether a release goes out with the next request, instead of being awaited before it.
    rides: bool,
}

impl Raw<TcpStream> {
    pub(crate) fn tcp(server: &Server, key: i64, rides: bool) -> Self {
        Self { session: RawSession::connect(server.port), key, rides }
    }
}

impl Raw<UnixStream> {
    pub(crate) fn unix(server: &Server, key: i64, rides: bool) -> Self {
        let session = RawSession::connect_unix(&server.socket_directory, server.port);
        Self { session, key, rides }
    }
}

impl<S: Read + Write> Raw<S> {
    /// Releases by the library's statements.
    pub(crate) fn careful(self) -> Self {
        Self { session: self.session.careful(), ..self }
    }

    /// Takes other keys, to keep them.
    pub(crate) fn lock_many(&mut self, first: i64, count: u32) {
        self.session.lock_many(first, count);
    }
}

impl<S: Read + Write> Client for Raw<S> {
    fn cycles(&mut self, count: u32) {
        if self.rides {
            return self.session.riding_cycles(self.key, count);
        }
        for _ in 0..count {
            self.session.cycle(self.key);
        }
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        self.session.try_lock(self.key);
        look();
        self.session.unlock(self.key);
    }
}
