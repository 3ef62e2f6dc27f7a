//! What is wrong, in words: rustls's errors as the errors of the connection.
//!
//! Nothing of what a server says in clear is in them, and what a certificate says is escaped.

use std::fmt::Write as _;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// How many names of a certificate are shown.
const NAMES_MAX: usize = 4;

/// How much of each.
const NAME_MAX: usize = 100;

/// An error of TLS, as the connection's.
pub(super) fn trouble(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Whether it is one. The operating system has none of this kind for a socket.
pub(in super::super) fn is_trouble(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

pub(super) fn explain(error: &Error) -> io::Error {
    trouble(match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "the server shows no certificate".into(),
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::NoApplicationProtocol => "the server speaks another protocol; is it a PostgreSQL \
                                         server?"
            .into(),
        Error::PeerIncompatible(what) => format!(
            "the server has no version or cipher in common with this program ({what:?}); allow \
             TLS 1.2 or 1.3 with AES-GCM or ChaCha20 there, and check ssl_min_protocol_version \
             and ssl_max_protocol_version"
        ),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            format!("what came is not TLS ({error}); is this a PostgreSQL server with TLS?")
        }
        other => format!("the TLS session failed: {other}"),
    })
}

fn certificate(error: &CertificateError) -> String {
    const WHAT: &str = "the server's certificate is not accepted:";
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{WHAT} it has expired; renew it, and check this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{WHAT} it is not valid yet; check this machine's clock")
        }
        CertificateError::UnknownIssuer => format!(
            "{WHAT} none of the authorities of sslrootcert has signed it; name the right \
             authority, or check who answers there"
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "{WHAT} it is not for the host '{}' ({}); connect to a name that it has, or check who \
             answers there",
            expected.to_str(),
            names(presented)
        ),
        CertificateError::NotValidForName => {
            format!("{WHAT} it is not for this host; check who answers there")
        }
        CertificateError::BadSignature => format!(
            "{WHAT} its signature is wrong; another authority of the same name may have signed \
             it, so check sslrootcert, and who answers there"
        ),
        other => {
            let text = format!("{other:?}");
            let hint = if text.contains("CaUsedAsEndEntity") {
                "it is that of an authority (CA:TRUE); make the server one of its own, and have \
                 it signed by the authority"
            } else if text.contains("UnsupportedCertVersion") {
                "it is of an old version of X.509; make it anew, with the host as a subject \
                 alternative name"
            } else {
                "make it anew, with the host as a subject alternative name, and a key of RSA \
                 (2048 bits or more), ECDSA or Ed25519"
            };
            format!("{WHAT} {hint} ({other})")
        }
    }
}

/// What a certificate is for, as rustls puts it.
fn names(presented: &[String]) -> String {
    let mut text = String::new();
    for name in presented.iter().take(NAMES_MAX) {
        let name: String = name.chars().take(NAME_MAX).flat_map(char::escape_default).collect();
        let separator = if text.is_empty() { "it has " } else { ", " };
        // A String takes everything.
        let _ = write!(text, "{separator}{name}");
    }
    match presented.len() {
        0 => "it has no subject alternative name".into(),
        count if count > NAMES_MAX => format!("{text}, and {} more", count - NAMES_MAX),
        _ => text,
    }
}

fn alert_received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "the server demands a certificate of the client; set sslcert and sslkey".into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => format!(
            "the server does not accept the client's certificate (alert {alert:?}); check sslcert, \
             and the server's ssl_ca_file"
        ),
        AlertDescription::HandshakeFailure => "the server ended the handshake (alert \
            HandshakeFailure): it has no cipher in common with this program, or demands a \
            certificate of the client (sslcert)"
            .into(),
        AlertDescription::ProtocolVersion => "the server speaks none of the TLS versions that are \
            allowed here; check ssl_min_protocol_version and ssl_max_protocol_version on both sides"
            .into(),
        AlertDescription::NoApplicationProtocol => {
            "the server speaks another protocol (ALPN); is it a PostgreSQL server?".into()
        }
        AlertDescription::UnrecognisedName => {
            "the server does not know the host name (SNI); check the host, or set sslsni=0".into()
        }
        other => format!("the server ended the TLS session (alert {other:?})"),
    }
}
