//! TLS, by rustls: what a manager needs to speak it, made once (manual: libpq-ssl).
//!
//! [`Tls`] is the policy: which certificates are trusted, which is shown, which versions are
//! spoken. Files are read when it is made and never again, so that every reconnect follows the same
//! policy (I10; a policy that changes with a file could be made to weaken). [`Channel`] is one
//! connection under that policy. There is no fallback to a connection in clear anywhere, and no
//! session of TLS is resumed: nothing of an earlier connection is left in a new one.
//!
//! Only this folder knows rustls. What differs from libpq: a certificate has to name the host as a
//! subject alternative name, its common name is not looked at; and certificates of X.509 version 1,
//! or of an authority in the place of a server's, are not taken. Whether a certificate has expired
//! is judged by the wall clock; nothing else here is.

mod channel;
mod files;
mod trouble;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, SupportedProtocolVersion};

pub(crate) use self::channel::Channel;
pub(super) use self::trouble::is_trouble;
use crate::config::{Place, Plan, SslMode, SslNegotiation, SslOptions, TlsVersion};
use crate::error::Error;

/// The policy of a manager.
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    /// Of each endpoint of the plan, what the certificate has to name and the server is told.
    names: Vec<ServerName<'static>>,
    negotiation: SslNegotiation,
}

/// How PostgreSQL calls its protocol in ALPN (manual: protocol-flow, "SSL Session Encryption").
const ALPN: &[u8] = b"postgresql";

impl Tls {
    /// Reads the files and makes the policy; none where the plan asks for no TLS.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the parameter that cannot be used.
    pub(crate) fn new(plan: &Plan) -> Result<Option<Arc<Self>>, Error> {
        let options = &plan.config.ssl;
        if options.mode == SslMode::Disable {
            return Ok(None);
        }
        let count = plan.endpoints.len();
        let names = plan.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let subject = match count {
                1 => "the host".to_owned(),
                _ => format!("host {} of {count}", index + 1),
            };
            match endpoint.place {
                // There is no TLS on it.
                Place::Socket(_) => Ok(nobody()),
                Place::Address(_) | Place::Name(..) => {
                    server_name(&subject, &endpoint.host, options.mode)
                }
            }
        });
        let names = names.collect::<Result<_, _>>()?;
        let config = Arc::new(client_config(options)?);
        Ok(Some(Arc::new(Self { config, names, negotiation: options.negotiation })))
    }

    /// A new channel to an endpoint of the plan.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub(crate) fn channel(&self, endpoint: usize) -> std::io::Result<Channel> {
        let name = self.names.get(endpoint).cloned().unwrap_or_else(nobody);
        Channel::new(Arc::clone(&self.config), name, self.negotiation)
    }
}

impl std::fmt::Debug for Tls {
    /// Nothing of the client's key is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("names", &self.names)
            .field("negotiation", &self.negotiation)
            .finish_non_exhaustive()
    }
}

/// Stands for a host that no certificate could name: no name is an address, so the server is told
/// none.
fn nobody() -> ServerName<'static> {
    ServerName::from(IpAddr::from([0, 0, 0, 0]))
}

/// The host is not repeated in the error: it can be a piece of a password that got there.
fn server_name(subject: &str, host: &str, mode: SslMode) -> Result<ServerName<'static>, Error> {
    match ServerName::try_from(host) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) if mode != SslMode::VerifyFull => Ok(nobody()),
        Err(_) => refuse(format!(
            "sslmode is verify-full, but no certificate can name {subject}; expected a host name \
             of letters, digits and hyphens, or an IP address"
        )),
    }
}

fn client_config(options: &SslOptions) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verify::verifier(options, &provider)?;
    let versions = versions(options)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| invalid(format!("no TLS can be spoken so: {error}")))?
        // Nothing is left out: the verifiers are rustls's own, but for `require`.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match files::identity(options)? {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = options.sni;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn versions(options: &SslOptions) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    let all =
        [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)];
    let range = options.min_version..=options.max_version;
    let chosen: Vec<_> = all.into_iter().filter(|(version, _)| range.contains(version)).collect();
    if chosen.is_empty() {
        return refuse("ssl_min_protocol_version is above ssl_max_protocol_version".into());
    }
    Ok(chosen.into_iter().map(|(_, version)| version).collect())
}

fn invalid(text: String) -> Error {
    Error::Config(text.into())
}

fn refuse<T>(text: String) -> Result<T, Error> {
    Err(invalid(text))
}

#[cfg(test)]
mod tests;
