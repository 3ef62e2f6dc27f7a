//! One connection under TLS: the question whether the server speaks it, the handshake, and what
//! goes through it (manual: protocol-flow, "SSL Session Encryption"; protocol-message-formats,
//! SSLRequest).
//!
//! A value over whatever can be read and written without blocking; [`Stream`](super::super::stream)
//! owns it together with the socket. Everything in it is bounded: what was encrypted and not sent,
//! what was decrypted and not taken, and what the server may send without saying anything.
//!
//! The end of the connection counts the same with TLS's own farewell (close_notify) and without:
//! nothing can be cut off from a message of the protocol without its length showing it, and the end
//! of a session is believed from anybody, for it only ever takes locks away.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::super::stream::Input;
use super::ALPN;
use super::trouble::{explain, is_trouble, trouble};
use crate::config::SslNegotiation;
use crate::proto::end_point::tls_server_end_point;

/// TLS on one connection.
pub(crate) struct Channel {
    connection: Box<ClientConnection>,
    phase: Phase,
    needs_alpn: bool,
    /// How many bytes are decrypted and not taken yet.
    pending: usize,
    /// How many bytes came since any of the protocol was among them.
    fruitless: usize,
    /// What is wrong with what came after the bytes that are still to be taken.
    broken: Option<rustls::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// So much of SSLRequest is sent.
    Request(usize),
    /// One byte says whether the server speaks TLS.
    Answer,
    Handshake,
    Open,
}

/// What came in.
enum Fill {
    Something,
    Nothing,
    End,
}

/// Manual: protocol-message-formats, SSLRequest: the length, and 1234 and 5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// As much plaintext as is encrypted ahead of a socket that takes no more.
const BUFFER_MAX: usize = 64 * 1024;

/// A server that sends more than this without saying anything keeps us from our deadlines. The
/// longest handshake that rustls takes is well below, and PostgreSQL sends nothing else.
const FRUITLESS_MAX: usize = 256 * 1024;

impl Channel {
    pub(super) fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        negotiation: SslNegotiation,
    ) -> io::Result<Self> {
        let mut connection =
            ClientConnection::new(config, name).map_err(|error| explain(&error))?;
        connection.set_buffer_limit(Some(BUFFER_MAX));
        let (phase, needs_alpn) = match negotiation {
            SslNegotiation::Postgres => (Phase::Request(0), false),
            SslNegotiation::Direct => (Phase::Handshake, true),
        };
        Ok(Self {
            connection: Box::new(connection),
            phase,
            needs_alpn,
            pending: 0,
            fruitless: 0,
            broken: None,
        })
    }

    /// Goes on as far as it goes without waiting; true once the channel is open.
    ///
    /// # Errors
    ///
    /// Why there will be none.
    pub(crate) fn advance(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        loop {
            match self.phase {
                Phase::Request(sent) => {
                    let rest = SSL_REQUEST.get(sent..).unwrap_or_default();
                    self.phase = match write(socket, rest)? {
                        0 => return Ok(false),
                        count if count < rest.len() => Phase::Request(sent + count),
                        _ => Phase::Answer,
                    };
                }
                Phase::Answer => match read_byte(socket)? {
                    None => return Ok(false),
                    Some(answer) => {
                        accept(answer, socket)?;
                        self.phase = Phase::Handshake;
                    }
                },
                Phase::Handshake => {
                    if !self.shake_hands(socket)? {
                        return Ok(false);
                    }
                    self.check_alpn()?;
                    self.phase = Phase::Open;
                    self.fruitless = 0;
                }
                Phase::Open => return Ok(true),
            }
        }
    }

    /// Whether bytes are there to be taken, whatever the socket says.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending > 0 || self.broken.is_some()
    }

    /// Whether encrypted bytes wait for room in the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        self.phase == Phase::Open && self.connection.wants_write()
    }

    pub(crate) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        into: &mut [u8],
    ) -> io::Result<Input> {
        if into.is_empty() {
            return Ok(Input::Empty);
        }
        loop {
            match self.connection.reader().read(into) {
                // The farewell.
                Ok(0) => return Ok(Input::End),
                Ok(count) => {
                    self.pending = self.pending.saturating_sub(count);
                    self.fruitless = 0;
                    return Ok(Input::Bytes(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end without a farewell.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Input::End);
                }
                Err(error) => return Err(error),
            }
            if let Some(error) = &self.broken {
                return Err(explain(error));
            }
            match self.fill(socket)? {
                Fill::Something => {}
                Fill::Nothing => return Ok(Input::Empty),
                Fill::End => return Ok(Input::End),
            }
        }
    }

    /// Takes as much as there is room for; 0 when there is none.
    pub(crate) fn write(
        &mut self,
        socket: &mut (impl Read + Write),
        bytes: &[u8],
    ) -> io::Result<usize> {
        // What was taken before goes first, and makes room.
        self.flush(socket)?;
        let taken = self.connection.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(taken)
    }

    /// Sends what is encrypted as far as there is room in the socket.
    pub(crate) fn flush(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says farewell, if that goes without waiting.
    pub(crate) fn close(&mut self, socket: &mut (impl Read + Write)) {
        if self.phase == Phase::Open {
            self.connection.send_close_notify();
            // The end of the connection says the same.
            let _ = self.flush(socket);
        }
    }

    /// The hash of the server's certificate, where it is defined.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        tls_server_end_point(self.connection.peer_certificates()?.first()?)
    }

    fn shake_hands(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        const BROKEN: &str = "the connection ended in the midst of the TLS handshake; does the \
                              server have TLS there, and what does its log say?";
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => error,
            _ => trouble(format!("{BROKEN} ({error})")),
        };
        loop {
            self.flush(socket).map_err(broken)?;
            if !self.connection.is_handshaking() {
                return Ok(!self.connection.wants_write());
            }
            match self.fill(socket).map_err(broken)? {
                Fill::Something => {}
                Fill::Nothing => return Ok(false),
                Fill::End => return Err(trouble(BROKEN.into())),
            }
            // What is wrong in the handshake has no bytes before it.
            if let Some(error) = &self.broken {
                return Err(explain(error));
            }
        }
    }

    /// Without the name of its protocol, a server could be one of another kind, made to answer in
    /// the place of PostgreSQL. With SSLRequest, that question was the name.
    fn check_alpn(&self) -> io::Result<()> {
        if self.needs_alpn && self.connection.alpn_protocol() != Some(ALPN) {
            return Err(trouble(
                "sslnegotiation is direct, but the server does not say by ALPN that it speaks \
                 PostgreSQL's protocol; use PostgreSQL 17 or later, or sslnegotiation=postgres"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Reads once, and decrypts.
    fn fill(&mut self, socket: &mut (impl Read + Write)) -> io::Result<Fill> {
        loop {
            let count = match self.connection.read_tls(socket) {
                Ok(0) => return Ok(Fill::End),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Fill::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Of rustls: messages of TLS itself that are longer than it takes.
                Err(error) if is_trouble(&error) => {
                    return Err(trouble(format!(
                        "the server's TLS messages are too long ({error})"
                    )));
                }
                Err(error) => return Err(error),
            };
            self.fruitless = self.fruitless.saturating_add(count);
            if self.fruitless > FRUITLESS_MAX {
                return Err(trouble(format!(
                    "the server sent {FRUITLESS_MAX} bytes of TLS with nothing in them; is it a \
                     PostgreSQL server?"
                )));
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.pending = state.plaintext_bytes_to_read(),
                // Told after what came before it was taken: a server's last words, say.
                Err(error) => self.broken = Some(error),
            }
            // An answer of TLS to TLS, or an alert. Where there is no room now, `want_room` helps.
            match self.flush(socket) {
                Err(error) if self.broken.is_none() => return Err(error),
                _ => return Ok(Fill::Something),
            }
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("phase", &self.phase)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// Judges the answer to SSLRequest.
fn accept(answer: u8, socket: &mut impl Read) -> io::Result<()> {
    match answer {
        // The server speaks next when we have begun the handshake. What is there already was not
        // encrypted, and must not be taken for something that was (CVE-2021-23222).
        b'S' if read_byte(socket)?.is_some() => Err(trouble(
            "bytes came before the TLS handshake: somebody may stand between this program and \
             the server"
                .into(),
        )),
        b'S' => Ok(()),
        b'N' => Err(trouble(
            "the server has no TLS; set ssl=on there, or, on a network that is trusted, \
             sslmode=disable here"
                .into(),
        )),
        // An ErrorResponse ('E') is of nobody knows whom, so its text is not read
        // (CVE-2024-10977).
        b'E' => Err(trouble(
            "the server answered the request for TLS with an error, which is not shown since \
             anybody may have sent it; look into the server's log"
                .into(),
        )),
        _ => Err(trouble(
            "the answer to the request for TLS is none; is this a PostgreSQL server?".into(),
        )),
    }
}

fn read_byte(socket: &mut impl Read) -> io::Result<Option<u8>> {
    const CLOSED: &str = "the server closed the connection instead of an answer to the request \
                          for TLS; is this a PostgreSQL server, and what does its log say?";
    let mut byte = [0];
    loop {
        match socket.read(&mut byte) {
            Ok(0) => return Err(trouble(CLOSED.into())),
            Ok(_) => return Ok(byte.first().copied()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(trouble(format!("{CLOSED} ({error})"))),
        }
    }
}

fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
