//! The password file (manual: libpq-pgpass): lines of `host:port:database:user:password`.
//!
//! `plan` reads it once, when the manager is made. A password that is found counts for the server
//! that it was asked for and no other. Unlike libpq, which warns on standard error and goes on
//! without, nothing that is wrong with the file is passed over: with it the password would be
//! missing, and the reason too.

use zeroize::Zeroizing;

use super::file::{self, Expected};
use super::{Config, Secret, refuse};
use crate::error::Error;

/// Far more than any honest line needs.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// Where the packages of most systems have the server's socket, so that a line for `localhost`
/// counts there too. libpq takes the directory that it was built with.
const DEFAULT_SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// The contents of the file.
pub(super) struct Passfile {
    bytes: Zeroizing<Vec<u8>>,
    name: &'static str,
}

/// Whose password is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login<'a> {
    /// The host as it was given: a name, an address, or the directory of a socket.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

impl Passfile {
    /// Reads the file that the configuration names, or else `~/.pgpass` if it is there and the
    /// environment counts.
    pub(super) fn read(config: &Config) -> Result<Option<Self>, Error> {
        let (path, name) = match (&config.passfile, &config.home) {
            (Some(path), _) => (path.clone(), "the password file"),
            (None, Some(home)) => (home.join(".pgpass"), "the password file ~/.pgpass"),
            (None, None) => return Ok(None),
        };
        let may_be_missing = config.passfile.is_none();
        let expected = Expected { name, may_be_missing, is_private: true };
        let Some(bytes) = file::read(&path, expected)? else { return Ok(None) };
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.len() > MAX_LINE_BYTES || line.contains(&0) {
                return refuse(format_args!(
                    "line {} of {name} has a NUL in it, or more than {MAX_LINE_BYTES} bytes",
                    index + 1
                ));
            }
        }
        Ok(Some(Self { bytes, name }))
    }

    /// The password of the first line that matches. An empty one is none.
    pub(super) fn find(&self, login: Login<'_>) -> Result<Option<Secret>, Error> {
        let host = match login.host {
            DEFAULT_SOCKET_DIRECTORY => "localhost",
            host => host,
        };
        let port = login.port.to_string();
        let wanted = [host, &port, login.database, login.user];
        for (index, line) in self.bytes.split(|byte| *byte == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let mut rest = Some(line);
            while let Some([line @ .., b'\r']) = rest {
                rest = Some(line);
            }
            for token in wanted {
                rest = rest.and_then(|rest| after_match(rest, token.as_bytes()));
            }
            let Some(encoded) = rest else { continue };
            let password = unescape(encoded);
            return match std::str::from_utf8(&password) {
                Ok("") => Ok(None),
                Ok(password) => Ok(Some(Secret::from(password))),
                Err(_) => refuse(format_args!(
                    "the password in line {} of {} is not UTF-8",
                    index + 1,
                    self.name
                )),
            };
        }
        Ok(None)
    }
}

/// What follows the first field of a line and its colon, if the field is `*` or the token, with a
/// backslash before each colon and backslash.
fn after_match<'a>(line: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let (mut line, mut token) = (line, token);
    loop {
        let (is_escaped, after) = match line {
            [b'\\', rest @ ..] => (true, rest),
            _ => (false, line),
        };
        match (after, token) {
            ([b':', rest @ ..], []) if !is_escaped => return Some(rest),
            ([byte, rest @ ..], [wanted, tokens @ ..]) if byte == wanted => {
                (line, token) = (rest, tokens);
            }
            _ => return None,
        }
    }
}

/// The last field of a line: up to the end, or a colon without a backslash.
fn unescape(encoded: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut password = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut bytes = encoded.iter();
    while let Some(byte) = bytes.next() {
        password.push(match byte {
            b':' => break,
            b'\\' => *bytes.next().unwrap_or(byte),
            _ => *byte,
        });
    }
    password
}
