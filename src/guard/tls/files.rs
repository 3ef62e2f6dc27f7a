//! The files of certificates and keys, in PEM form (RFC 7468): read once, when the manager is made.
//!
//! Every error names the parameter and never the path: a piece of a password can end up as the name
//! of a file. The bytes of a private key are wiped as soon as the cryptography has its own copy;
//! that copy is freed, but not wiped, with the manager.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize as _, Zeroizing};

use super::{invalid, refuse};
use crate::config::{RootCert, SslOptions};
use crate::error::Error;

/// No honest file is longer: all the authorities of an operating system take some 250 KiB.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Whose signatures are trusted.
pub(super) fn roots(root_cert: &RootCert) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match root_cert {
        RootCert::File(path) => {
            for certificate in certificates("sslrootcert", path)? {
                roots.add(certificate).map_err(|error| {
                    unusable(
                        "sslrootcert",
                        format_args!("a certificate in it cannot be used: {error}"),
                    )
                })?;
            }
        }
        RootCert::System => {
            // Where OpenSSL looks, too: SSL_CERT_FILE and SSL_CERT_DIR come first.
            let found = rustls_native_certs::load_native_certs();
            // Some in there may be of kinds that are not used any more.
            let (usable, _) = roots.add_parsable_certificates(found.certs);
            if usable == 0 {
                let why = found.errors.first().map(ToString::to_string);
                return refuse(format!(
                    "sslrootcert is system, but the operating system has no usable certificates \
                     of authorities ({}); install them (ca-certificates), or name a file",
                    why.as_deref().unwrap_or("none was found")
                ));
            }
        }
    }
    Ok(roots)
}

/// The client's certificate and its key, where one is configured.
pub(super) fn identity(options: &SslOptions) -> Result<Option<CertifiedKey>, Error> {
    let (cert, key) = match (&options.cert, &options.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return refuse("sslcert needs its private key; set sslkey, too".into()),
        (None, Some(_)) => return refuse("sslkey is of no use alone; set sslcert, too".into()),
    };
    let chain = certificates("sslcert", cert)?;
    let mut der = private_key(key)?;
    let signer = any_supported_type(&der);
    der.zeroize();
    let signer = signer.map_err(|_| {
        let what = "expected an RSA key of at least 2048 bits, or one for ECDSA on P-256, P-384 \
                    or P-521, or for Ed25519";
        unusable("sslkey", format_args!("{what}"))
    })?;
    let identity = CertifiedKey::new(chain, signer);
    match identity.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(unusable("sslkey", format_args!("it is not the key of the certificate of sslcert")))
        }
        // Whatever else is wrong with it, the server will say.
        _ => Ok(Some(identity)),
    }
}

/// All certificates of a file; one at least.
fn certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(parameter, path, |_| Ok(()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            let what = format_args!("expected certificates in PEM form, and there are none in it");
            Err(unusable(parameter, what))
        }
        Err(_) => {
            let what = format_args!("expected certificates in PEM form, and it is damaged");
            Err(unusable(parameter, what))
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read("sslkey", path, check_key_file)?;
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        let what = "it is encrypted, and sslpassword is not supported; store it decrypted \
                    (openssl pkey -in .. -out ..), readable by its owner only";
        return Err(unusable("sslkey", format_args!("{what}")));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let what = "expected a private key in PEM form (PKCS#8, PKCS#1 or SEC1)";
        unusable("sslkey", format_args!("{what}"))
    })
}

/// As libpq has it: nobody else may have access to the key; where root owns it, a group may read
/// it. Asked of the file that is read, not of one that had its name a moment ago.
fn check_key_file(file: &File) -> Result<(), Error> {
    let metadata = file.metadata().map_err(|error| unreadable("sslkey", &error))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let what = "others have access to it; chmod it to 0600, or, if root owns it, to 0640";
        return Err(unusable("sslkey", format_args!("{what}")));
    }
    Ok(())
}

fn read(
    parameter: &str,
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), Error>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unreadable = |error| unreadable(parameter, &error);
    let check_kind = |metadata: &Metadata| match metadata.is_file() && metadata.len() <= FILE_MAX {
        true => Ok(()),
        false => Err(unusable(parameter, format_args!("expected a file of a few kilobytes"))),
    };
    // Before it is opened: opening a pipe would wait for its other end.
    check_kind(&path.metadata().map_err(unreadable)?)?;
    let file = File::open(path).map_err(unreadable)?;
    // And again, as the name may stand for another file by now.
    let metadata = file.metadata().map_err(unreadable)?;
    check_kind(&metadata)?;
    check(&file)?;
    // Room for all of it from the start: growing would leave copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_MAX).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

fn unreadable(parameter: &str, error: &std::io::Error) -> Error {
    unusable(parameter, format_args!("it cannot be read ({error})"))
}

fn unusable(parameter: &str, what: std::fmt::Arguments<'_>) -> Error {
    invalid(format!("the file of {parameter} cannot be used: {what}"))
}
