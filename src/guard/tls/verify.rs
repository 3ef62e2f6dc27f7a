//! Whom to take for the server: what the modes of `sslmode` ask of its certificate (manual:
//! libpq-ssl, "Client Verification of Server Certificates").
//!
//! The chain, the host name and the signatures of the handshake are all checked by rustls; here is
//! only said which of these checks a mode has.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{files, refuse};
use crate::config::{SslMode, SslOptions};
use crate::error::Error;

/// The verifier of a mode.
pub(super) fn verifier(
    options: &SslOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let algorithms = provider.signature_verification_algorithms;
    let roots = match &options.root_cert {
        Some(root_cert) => Some(Arc::new(files::roots(root_cert)?)),
        None => None,
    };
    match (options.mode, roots) {
        (SslMode::VerifyFull, Some(roots)) => {
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            match builder.build() {
                Ok(verifier) => Ok(verifier),
                Err(error) => refuse(format!("sslrootcert cannot be used: {error}")),
            }
        }
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => refuse(
            "sslmode asks for a verified server, but no authority is named to verify it with; set \
             sslrootcert to a file, or to system"
                .into(),
        ),
        // As in libpq, `require` is `verify-ca` where there is an authority to ask.
        (_, roots) => Ok(Arc::new(ChainOnly { roots, algorithms })),
    }
}

/// Asks for a certificate that a trusted authority has signed, for any host; or for any certificate
/// at all, where no authority is trusted. In either case the server has to have its key.
#[derive(Debug)]
struct ChainOnly {
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
