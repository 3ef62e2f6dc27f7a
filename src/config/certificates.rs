//! What the parameters about TLS come to together, and which files they mean (manual: libpq-ssl).
//!
//! `plan` calls [`resolve`]. Files are found here, and their modes are looked at; reading them is
//! up to the guard. The rules are those of libpq but where that would go on with less than was
//! asked for: a file that was named and is not there is an error here.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::hosts::Server;
use super::plan::Place;
use super::ssl::{RootCert, SslCertMode, SslMode, SslNegotiation, SslOptions};
use super::{Config, refuse};
use crate::error::Error;

/// The options in force, with the files of `~/.postgresql` where none were named.
///
/// Where all servers are reached by Unix-domain sockets there is no TLS, whatever was asked for
/// (as in libpq), and no file is looked for.
pub(super) fn resolve(config: &Config, servers: &[Server]) -> Result<SslOptions, Error> {
    let mut ssl = config.ssl_options();
    check(config, &ssl)?;
    if servers.iter().all(|server| matches!(server.place, Place::Socket(_))) {
        ssl.mode = SslMode::Disable;
    }
    if ssl.mode == SslMode::Disable {
        return Ok(ssl);
    }
    let directory = config.home.as_ref().map(|home| home.join(".postgresql"));
    let directory = directory.as_deref();
    resolve_authorities(&mut ssl, directory)?;
    let unnamed = |server: &Server| !server.has_name && !matches!(server.place, Place::Socket(_));
    if ssl.mode == SslMode::VerifyFull && servers.iter().any(unnamed) {
        return refuse(format_args!(
            "sslmode is verify-full, but hostaddr has an entry without a name in host; add the \
             name that the certificate of that server carries"
        ));
    }
    resolve_client_certificate(&mut ssl, config.ssl_cert_mode, directory)?;
    Ok(ssl)
}

/// What does not go together, whatever files there are.
fn check(config: &Config, ssl: &SslOptions) -> Result<(), Error> {
    if ssl.root_cert == Some(RootCert::System) && ssl.mode != SslMode::VerifyFull {
        return refuse(format_args!(
            "sslrootcert is system, with which only sslmode=verify-full is safe: anyone can have \
             a certificate of these authorities; use verify-full, or leave sslmode out"
        ));
    }
    if ssl.negotiation == SslNegotiation::Direct && ssl.mode == SslMode::Disable {
        return refuse(format_args!(
            "sslnegotiation is direct, but sslmode is disable; use sslmode=verify-full, verify-ca \
             or require, or leave sslnegotiation out"
        ));
    }
    if ssl.min_version > ssl.max_version {
        return refuse(format_args!(
            "ssl_min_protocol_version is above ssl_max_protocol_version; raise the one or lower \
             the other"
        ));
    }
    // libpq would use the certificate, as its default is to try TLS; here the default is not to.
    if config.ssl_mode.is_none() && ssl.mode == SslMode::Disable && ssl.cert.is_some() {
        return refuse(format_args!(
            "sslcert is given, but sslmode is not, and is disable then; add sslmode=verify-full, \
             or sslmode=disable if the certificate is not wanted"
        ));
    }
    Ok(())
}

fn resolve_authorities(ssl: &mut SslOptions, directory: Option<&Path>) -> Result<(), Error> {
    if ssl.root_cert.is_none() {
        if let Some(path) = default_file(directory, "root.crt")? {
            ssl.root_cert = Some(RootCert::File(path));
        }
    }
    if matches!(ssl.root_cert, Some(RootCert::File(_)))
        && default_file(directory, "root.crl")?.is_some()
    {
        return refuse(format_args!(
            "~/.postgresql/root.crl is there, a list of revoked certificates, with which libpq \
             would verify the server; no such list is looked at here, and a revoked certificate \
             would be taken; move it away, or use sslmode=disable on a network that is trusted"
        ));
    }
    match (&ssl.root_cert, ssl.mode) {
        (None, SslMode::VerifyCa | SslMode::VerifyFull) => refuse(format_args!(
            "sslmode asks for the server's certificate to be verified, but nothing says which \
             authorities to trust; set sslrootcert to their certificates, or to system for those \
             of the operating system, or put them into ~/.postgresql/root.crt"
        )),
        // As in libpq, where authorities are known they count.
        (Some(_), SslMode::Require) => {
            ssl.mode = SslMode::VerifyCa;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn resolve_client_certificate(
    ssl: &mut SslOptions,
    mode: SslCertMode,
    directory: Option<&Path>,
) -> Result<(), Error> {
    if mode == SslCertMode::Disable {
        (ssl.cert, ssl.key) = (None, None);
        return Ok(());
    }
    if ssl.cert.is_none() {
        ssl.cert = default_file(directory, "postgresql.crt")?;
    }
    if ssl.cert.is_none() {
        if mode == SslCertMode::Require {
            return refuse(format_args!(
                "sslcertmode is require, but there is no certificate to send; set sslcert and \
                 sslkey, or put them into ~/.postgresql"
            ));
        }
        if ssl.key.is_some() {
            return refuse(format_args!(
                "sslkey is given without sslcert; a key is of use only with its certificate"
            ));
        }
        return Ok(());
    }
    if ssl.key.is_none() {
        ssl.key = directory.map(|directory| directory.join("postgresql.key"));
    }
    match &ssl.key {
        Some(key) => check_key(key),
        None => refuse(format_args!("sslcert is given without sslkey; add the file of its key")),
    }
}

/// A file of `~/.postgresql`, if it is there.
fn default_file(directory: Option<&Path>, name: &str) -> Result<Option<PathBuf>, Error> {
    let Some(path) = directory.map(|directory| directory.join(name)) else { return Ok(None) };
    match path.metadata() {
        Ok(_) => Ok(Some(path)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => refuse(format_args!("~/.postgresql/{name} cannot be used: {}", error.kind())),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The owner alone may have access to the key; where that is root, its group may read it, too.
fn check_key(path: &Path) -> Result<(), Error> {
    let is_private = |metadata: &Metadata| match metadata.uid() {
        0 => metadata.mode() & 0o037 == 0,
        _ => metadata.mode() & 0o077 == 0,
    };
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            refuse(format_args!("the file of the client's key (sslkey) is not a regular file"))
        }
        Ok(metadata) if !is_private(&metadata) => refuse(format_args!(
            "the file of the client's key (sslkey) can be read or written by others than its \
             owner; change its mode with chmod 0600 (0640 for a file of root)"
        )),
        Ok(_) => Ok(()),
        Err(error) => refuse(format_args!(
            "the file of the client's key (sslkey, or ~/.postgresql/postgresql.key) cannot be \
             used: {}",
            error.kind()
        )),
    }
}
