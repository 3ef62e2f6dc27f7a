//! The parameters about TLS, with the names and the meaning that libpq gives them (manual:
//! libpq-ssl; libpq-connect). Values only: what is done with them is up to the guard.
//!
//! A connection is either in clear or under the protection that was asked for. There is no mode
//! that tries TLS and goes on without.

#![cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only TLS reads all of it"))]

use std::path::{Path, PathBuf};

/// Whether the connection is protected by TLS (`sslmode`).
///
/// libpq's `allow` and `prefer` are not here: with them whoever is in the way can have the
/// connection in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// No TLS: for a network that is trusted.
    #[default]
    Disable,
    /// TLS, with whoever answers. With a [`RootCert`], the same as [`Self::VerifyCa`], as in libpq.
    Require,
    /// TLS with a server whose certificate a trusted authority has signed.
    VerifyCa,
    /// And the certificate names the host.
    VerifyFull,
}

/// How TLS begins (`sslnegotiation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// After the server was asked for it, which every server understands.
    #[default]
    Postgres,
    /// TLS from the first byte, with ALPN (PostgreSQL 17 and later).
    Direct,
}

/// Whether the proof of the password is bound to the TLS connection (`channel_binding`), so that
/// nobody can pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    #[default]
    Prefer,
    /// Or the connection ends.
    Require,
}

/// Whose signatures on the server's certificate are trusted (`sslrootcert`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootCert {
    /// The authorities that the operating system trusts.
    System,
    /// Those of a file in PEM form.
    File(PathBuf),
}

/// As `sslrootcert` has it: `system` is no file; a file of this name is `./system`.
impl From<PathBuf> for RootCert {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "system" { Self::System } else { Self::File(path) }
    }
}

impl From<&Path> for RootCert {
    fn from(path: &Path) -> Self {
        Self::from(path.to_owned())
    }
}

impl From<String> for RootCert {
    fn from(path: String) -> Self {
        Self::from(PathBuf::from(path))
    }
}

impl From<&str> for RootCert {
    fn from(path: &str) -> Self {
        Self::from(PathBuf::from(path))
    }
}

/// `sslcertmode`: whether the server gets the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SslCertMode {
    /// Never.
    Disable,
    /// When it asks for it and there is one.
    #[default]
    Allow,
    /// There has to be one.
    Require,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// All that is configured about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SslOptions {
    pub(crate) mode: SslMode,
    pub(crate) negotiation: SslNegotiation,
    pub(crate) channel_binding: ChannelBinding,
    /// The verifying modes need one.
    pub(crate) root_cert: Option<RootCert>,
    /// The client's certificate chain in PEM form, and its key.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// `sslsni`: whether the server is told which host is meant.
    pub(crate) sni: bool,
    pub(crate) min_version: TlsVersion,
    pub(crate) max_version: TlsVersion,
}

impl Default for SslOptions {
    fn default() -> Self {
        Self {
            mode: SslMode::default(),
            negotiation: SslNegotiation::default(),
            channel_binding: ChannelBinding::default(),
            root_cert: None,
            cert: None,
            key: None,
            sni: true,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
        }
    }
}
