//! Reading a small file that the configuration refers to, within a limit and without waiting.
//!
//! `passfile` and `service` call it. The contents are wiped when they are dropped, as both may hold
//! passwords. Errors say which file by the words that they are given and never by its path: a piece
//! of a password can end up as the name of a file.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::refuse;
use crate::error::Error;

/// Far more than any honest file needs.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is expected of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// What the file is called in errors.
    pub(super) name: &'a str,
    /// Whether it may be missing, as nobody named it.
    pub(super) may_be_missing: bool,
    /// Whether nobody but its owner may have any access.
    pub(super) is_private: bool,
}

/// Reads a file; `None` for one that is not there, where that is allowed.
pub(super) fn read(
    path: &Path,
    expected: Expected<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let name = expected.name;
    // Before it is opened: opening a pipe would wait for its other end.
    match path.metadata() {
        Ok(metadata) => expected.check(&metadata)?,
        // As in libpq: who may not even look into the directory has no file there.
        Err(_) if expected.may_be_missing => return Ok(None),
        Err(error) => return failed(name, &error),
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return failed(name, &error),
    };
    // And again, as the name may stand for another file by now.
    let metadata = file.metadata().or_else(|error| failed(name, &error))?;
    expected.check(&metadata)?;
    // At its full size at once, so that it never moves and leaves a copy behind. One more byte
    // tells whether the file grew.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(vec![0; size.saturating_add(1)]);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return failed(name, &error),
        }
    }
    if filled > size {
        return refuse(format_args!("{name} was written to while it was read; try again"));
    }
    bytes.truncate(filled);
    Ok(Some(bytes))
}

impl Expected<'_> {
    fn check(self, metadata: &Metadata) -> Result<(), Error> {
        let name = self.name;
        if !metadata.is_file() {
            return refuse(format_args!("{name} is not a regular file"));
        }
        if self.is_private && metadata.permissions().mode() & 0o077 != 0 {
            return refuse(format_args!(
                "{name} can be read or written by others than its owner, so it is not used; \
                 change its mode with chmod 0600, or remove it"
            ));
        }
        if metadata.len() > MAX_BYTES {
            return refuse(format_args!(
                "{name} has {} bytes; at most {MAX_BYTES} are allowed",
                metadata.len()
            ));
        }
        Ok(())
    }
}

fn failed<T>(name: &str, error: &io::Error) -> Result<T, Error> {
    // Only what kind of error it is: its text could have the path in it.
    refuse(format_args!("{name} cannot be read: {}", error.kind()))
}
