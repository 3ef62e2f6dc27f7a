//! An independent observer: a small blocking client of the simple query protocol (manual:
//! protocol-flow), with trust authentication, over TCP or a Unix socket.
//!
//! It shares no code with the library, on purpose, and is no example of how to write a client:
//! it copies what it reads and gives up on anything unexpected. Used by tests, benches and the
//! demonstration to look into `pg_locks`, to end backends, to create roles.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One row: each column as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// A statement or a connection that failed: SQLSTATE and message. What happens to the socket
/// itself is reported as 08006 (manual: errcodes-appendix, connection_failure).
pub type SqlFailure = (String, String);

/// No statement of a test takes this long; a server that hangs fails the test instead.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer messages mean that we lost our place in the stream.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection.
pub struct Sql {
    stream: Box<dyn Stream>,
    pid: i32,
}

impl fmt::Debug for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sql").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Sql {
    /// Connects over TCP.
    pub fn connect_tcp(
        address: SocketAddr,
        user: &str,
        database: &str,
    ) -> Result<Self, SqlFailure> {
        let stream = TcpStream::connect_timeout(&address, READ_TIMEOUT).map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(broken)?;
        Self::start(Box::new(stream), user, database)
    }

    /// Connects over the Unix socket at `path`.
    pub fn connect_unix(path: &Path, user: &str, database: &str) -> Result<Self, SqlFailure> {
        let stream = UnixStream::connect(path).map_err(broken)?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(broken)?;
        Self::start(Box::new(stream), user, database)
    }

    fn start(stream: Box<dyn Stream>, user: &str, database: &str) -> Result<Self, SqlFailure> {
        let mut sql = Self { stream, pid: 0 };
        // StartupMessage of protocol 3.0 (manual: protocol-message-formats).
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", user, "database", database, "application_name", "observer", ""] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        sql.send(None, &body)?;
        sql.until_ready()?;
        Ok(sql)
    }

    /// The pid of the backend of this connection.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The rows of one statement, or of several separated by semicolons; panics when one fails.
    #[track_caller]
    pub fn query(&mut self, statement: &str) -> Vec<Row> {
        match self.try_query(statement) {
            Ok(rows) => rows,
            Err((sqlstate, message)) => panic!("{sqlstate}: {message}\nstatement: {statement}"),
        }
    }

    /// The rows, or the first error.
    pub fn try_query(&mut self, statement: &str) -> Result<Vec<Row>, SqlFailure> {
        let mut body = statement.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        self.until_ready()
    }

    /// The first column of the first row: `None` when it is NULL or there is no row.
    #[track_caller]
    pub fn value(&mut self, statement: &str) -> Option<String> {
        self.query(statement).into_iter().next()?.into_iter().next()?
    }

    /// Reads messages up to ReadyForQuery, and gathers what they say.
    fn until_ready(&mut self) -> Result<Vec<Row>, SqlFailure> {
        let mut rows = Vec::new();
        let mut failure: Option<SqlFailure> = None;
        loop {
            let (kind, body) = match self.receive() {
                Ok(message) => message,
                // A FATAL error has said why the connection ends; that is the better answer.
                Err(error) => return Err(failure.unwrap_or_else(|| broken(error))),
            };
            match kind {
                b'Z' => return failure.map_or(Ok(rows), Err),
                b'D' => rows.push(data_row(&body).map_err(broken)?),
                b'E' if failure.is_none() => failure = Some(error_fields(&body)),
                b'K' => self.pid = Fields(&body).int32().map_err(broken)?,
                b'R' if Fields(&body).int32().map_err(broken)? != 0 => {
                    let text = "the observer logs in by trust only; the server asks for more";
                    return Err((String::from("08001"), String::from(text)));
                }
                // Parameters, notices, row descriptions, command tags: of no interest here.
                _ => {}
            }
        }
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<(), SqlFailure> {
        let length = u32::try_from(body.len() + 4).expect("a statement below 4 GiB");
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        match self.stream.write_all(&message) {
            Ok(()) => Ok(()),
            // The server may have said why before it hung up.
            Err(error) => Err(self.until_ready().err().unwrap_or_else(|| broken(error))),
        }
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let [kind, length @ ..] = header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=MAX_MESSAGE).contains(&length) {
            return Err(malformed("the length of a message"));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

/// What is left of a message's body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| malformed("a message"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn int16(&mut self) -> io::Result<i16> {
        let bytes = self.take(2)?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn int32(&mut self) -> io::Result<i32> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// DataRow (manual: protocol-message-formats).
fn data_row(body: &[u8]) -> io::Result<Row> {
    let mut fields = Fields(body);
    let mut row = Vec::new();
    for _ in 0..fields.int16()? {
        row.push(match usize::try_from(fields.int32()?) {
            // A length of -1 is NULL.
            Err(_) => None,
            Ok(length) => Some(String::from_utf8_lossy(fields.take(length)?).into_owned()),
        });
    }
    Ok(row)
}

/// The SQLSTATE and the message of an ErrorResponse (manual: protocol-error-fields).
fn error_fields(body: &[u8]) -> SqlFailure {
    let field = |wanted: u8| {
        body.split(|&byte| byte == 0)
            .find_map(|field| field.strip_prefix(&[wanted]))
            .map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
    };
    (field(b'C'), field(b'M'))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not as the manual has it"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn broken(error: io::Error) -> SqlFailure {
    (String::from("08006"), format!("connection: {error}"))
}
