//! Certificates and their authorities, made afresh for each test.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// A certificate with its key, in PEM form.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate for a server that is `localhost` and 127.0.0.1; change what is to be wrong with
/// it.
pub(crate) fn params() -> CertificateParams {
    let mut params = params_for(&["localhost"]);
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params
}

/// A certificate for these host names.
pub(crate) fn params_for(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    named(&mut params, "server");
    params
}

/// Gives the certificate a common name.
pub(crate) fn named(params: &mut CertificateParams, name: &str) {
    params.distinguished_name.push(DnType::CommonName, name);
}

/// A certificate that was good once.
pub(crate) fn expired() -> CertificateParams {
    let mut params = params();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    params
}

impl Identity {
    fn new(certificate: &Certificate, key: &KeyPair) -> Self {
        let certificate = pem("CERTIFICATE", certificate.der());
        Self { certificate, key: pem("PRIVATE KEY", &key.serialize_der()) }
    }
}

/// In PEM form (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, &PKCS_ECDSA_P256_SHA256)
    }

    /// One that signs with RSA and this hash.
    pub(crate) fn rsa(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority_params(name), rsa_key(algorithm));
        Self { issuer: issuer.expect("an authority") }
    }

    /// One whose signatures are of this kind.
    pub(crate) fn with(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key);
        Self { issuer: issuer.expect("an authority") }
    }

    /// An authority that this one has signed.
    pub(crate) fn subordinate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(authority_params(name), key, &self.issuer);
        Self { issuer: issuer.expect("an authority") }
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> String {
        pem("CERTIFICATE", self.issuer.der())
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Identity {
        self.sign_key(params, &KeyPair::generate().expect("a key"))
    }

    /// A certificate for this key.
    pub(crate) fn sign_key(&self, params: &CertificateParams, key: &KeyPair) -> Identity {
        Identity::new(&params.signed_by(key, &self.issuer).expect("a certificate"), key)
    }
}

/// The one RSA key that there is.
pub(crate) fn rsa_key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("rsa.pem")).expect("PEM");
    KeyPair::from_der_and_sign_algo(&key, algorithm).expect("a key")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    named(&mut params, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A certificate that nobody but itself has signed.
pub(crate) fn self_signed(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().expect("a key");
    Identity::new(&params.self_signed(&key).expect("a certificate"), &key)
}
