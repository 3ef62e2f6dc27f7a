//! The parameters about TLS, with the names and the meaning that libpq gives them (manual:
//! libpq-ssl; libpq-connect). Values only: what is done with them is up to the guard.
//!
//! A connection is either in clear or under the protection that was asked for. There is no mode
//! that tries TLS and goes on without.

#![allow(dead_code, reason = "the parser and the guard are about to use it")]

use std::path::PathBuf;

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SslMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS, with whoever answers.
    Require,
    /// TLS with a server whose certificate a trusted authority has signed.
    VerifyCa,
    /// And the certificate names the host.
    VerifyFull,
}

/// `sslnegotiation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SslNegotiation {
    /// SSLRequest first.
    #[default]
    Postgres,
    /// TLS from the first byte, with ALPN (PostgreSQL 17 and later).
    Direct,
}

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    #[default]
    Prefer,
    /// Or the connection ends.
    Require,
}

/// `sslrootcert`: whose signatures are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// The authorities that the operating system trusts.
    System,
    /// Those of a file in PEM form.
    File(PathBuf),
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    V1_2,
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
