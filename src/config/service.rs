//! The service file: named groups of parameters (manual: libpq-pgservice).
//!
//! [`fill`] is called for every connection string and for the environment; it reads a file only if
//! a service is named. The rules are those of libpq, down to the length of a line: `name=value`
//! without spaces around the `=` and without quotes, `#` for comments, and the first value of a
//! name counts. LDAP is not asked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file::{self, Expected};
use super::keyword::Keyword;
use super::settings::{Settings, Source, home, is_space, text_of};
use super::{Secret, refuse};
use crate::error::Error;

/// The size of libpq's buffer for a line, less the terminating NUL.
const MAX_LINE_BYTES: usize = 1023;

/// Completes the settings with those of the service that they or the environment name.
pub(super) fn fill(
    settings: &mut Settings,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<(), Error> {
    let service = match settings.get(Keyword::Service) {
        Some(value) => Some(value.text.clone()),
        None => text_of("PGSERVICE", variable)?,
    };
    let Some(service) = service else { return Ok(()) };
    let service = service.expose();
    let (path, expected) = match settings.get(Keyword::Servicefile) {
        Some(value) => {
            (Some(PathBuf::from(value.text.expose())), named("the file that servicefile names"))
        }
        None => match variable("PGSERVICEFILE") {
            Some(path) => (Some(PathBuf::from(path)), named("the file that PGSERVICEFILE names")),
            None => {
                let path = home(variable).map(|home| home.join(".pg_service.conf"));
                (path, Expected { may_be_missing: true, ..named("~/.pg_service.conf") })
            }
        },
    };
    if let Some(path) = path {
        if fill_from(&path, expected, service, settings)? {
            return Ok(());
        }
    }
    if let Some(directory) = variable("PGSYSCONFDIR") {
        let path = Path::new(&directory).join("pg_service.conf");
        let name = "pg_service.conf in the directory that PGSYSCONFDIR names";
        let expected = Expected { may_be_missing: true, ..named(name) };
        if fill_from(&path, expected, service, settings)? {
            return Ok(());
        }
    }
    refuse(format_args!(
        "there is no definition of the service that was asked for; expected a line with its name \
         in brackets in {}, or in pg_service.conf in the directory that PGSYSCONFDIR names",
        expected.name
    ))
}

fn named(name: &str) -> Expected<'_> {
    Expected { name, may_be_missing: false, is_private: false }
}

/// Whether the service was there.
fn fill_from(
    path: &Path,
    expected: Expected<'_>,
    service: &str,
    settings: &mut Settings,
) -> Result<bool, Error> {
    let Some(bytes) = file::read(path, expected)? else { return Ok(false) };
    let name = expected.name;
    let mut is_found = false;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let place = format_args!("line {} of {name}", index + 1).to_string();
        if line.len() >= MAX_LINE_BYTES {
            return refuse(format_args!(
                "{place} is too long; at most {} bytes are allowed",
                MAX_LINE_BYTES - 1
            ));
        }
        let line = match std::str::from_utf8(line) {
            Ok(line) if !line.contains('\0') => line.trim_matches(is_space),
            _ => return refuse(format_args!("{place} is not UTF-8 text, or has a NUL in it")),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix('[') {
            if is_found {
                break;
            }
            is_found = head.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
        } else if is_found {
            take_line(line, &place, index + 1, settings)?;
        }
    }
    Ok(is_found)
}

fn take_line(line: &str, place: &str, number: usize, settings: &mut Settings) -> Result<(), Error> {
    if line.starts_with("ldap") {
        return refuse(format_args!(
            "{place} refers to an LDAP server, which is not supported; write the parameters there"
        ));
    }
    let Some((key, value)) = line.split_once('=') else {
        return refuse(format_args!("{place} has no `=`; expected name=value"));
    };
    match Keyword::from_name(key) {
        Some(Keyword::Service | Keyword::Servicefile) => refuse(format_args!(
            "{place} refers to another service, which is not supported; write its parameters there"
        )),
        Some(keyword) => {
            let text = Secret::from(value);
            settings.set_default(keyword, text, Source::Service { line: number });
            Ok(())
        }
        None => {
            // The line may be a piece of a password, so the name is not repeated.
            refuse(format_args!(
                "{place} is not a known parameter; expected the name of one, `=` and its value, \
                 without spaces around the `=`"
            ))
        }
    }
}
