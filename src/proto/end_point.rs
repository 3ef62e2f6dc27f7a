//! What a TLS channel is told by: `tls-server-end-point`, the hash of the server's certificate
//! (RFC 5929 section 4.1; RFC 5280 section 4.1 for the certificate).
//!
//! The hash function is that of the certificate's signature, with SHA-256 in the place of MD5 and
//! SHA-1. Where the signature has none, or more than one, the hash is not defined, and nothing can
//! be bound to that channel. Nothing is verified here; the TLS library has done that before.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The hash of a certificate in DER form; none where it is not defined.
pub fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match hash_of_signature(signature_algorithm(certificate)?)? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// `signatureAlgorithm.algorithm` of a `Certificate`, as the bytes of the object identifier.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, []) = element(certificate, SEQUENCE)? else { return None };
    let (_to_be_signed, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, rest) = element(rest, SEQUENCE)?;
    let (_signature, []) = element(rest, BIT_STRING)? else { return None };
    let (identifier, _parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    Some(identifier)
}

/// The contents of the element in front, and what follows it. Strict: the length has to be the
/// shortest that DER allows, and no longer than what is there (X.690 sections 8.1.3 and 10.1).
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Four bytes of length are 4 GiB; no certificate has more.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            let length = digits.iter().try_fold(0_usize, |sum, digit| {
                sum.checked_mul(256)?.checked_add((*digit).into())
            })?;
            let is_shortest = length > 0x7f && digits.first() != Some(&0);
            (Some(length).filter(|_| is_shortest)?, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The hash function in a signature algorithm (RFC 8017 appendix A.2.4, RFC 5758 section 3.2,
/// RFC 3279 section 2.2). RSA-PSS names its own in its parameters, which PostgreSQL before 16 does
/// not read; so it counts as not defined, as it does there.
fn hash_of_signature(identifier: &[u8]) -> Option<Hash> {
    /// 1.2.840.113549.1.1, PKCS #1.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    /// 1.2.840.10045.4, signatures of ANSI X9.62.
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    match (identifier.strip_prefix(RSA), identifier.strip_prefix(ECDSA)) {
        // MD5 (4), SHA-1 (5), and SHA-256 (11).
        (Some([4 | 5 | 11]), _) => Some(Hash::Sha256),
        (Some([12]), _) => Some(Hash::Sha384),
        (Some([13]), _) => Some(Hash::Sha512),
        // SHA-1, and SHA-256 (3.2).
        (_, Some([1] | [3, 2])) => Some(Hash::Sha256),
        (_, Some([3, 3])) => Some(Hash::Sha384),
        (_, Some([3, 4])) => Some(Hash::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "a test that cannot go on has failed"
    )]

    use super::*;

    const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

    fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = contents.len();
        let length = match length {
            0..=0x7f => vec![length as u8],
            0x80..=0xff => vec![0x81, length as u8],
            _ => vec![0x82, (length >> 8) as u8, length as u8],
        };
        [&[tag], length.as_slice(), contents].concat()
    }

    /// As much of a certificate as is looked at.
    fn certificate(algorithm: &[u8], size: usize) -> Vec<u8> {
        let parts = [
            der(SEQUENCE, &vec![0x55; size]),
            der(SEQUENCE, &[der(OBJECT_IDENTIFIER, algorithm), vec![0x05, 0x00]].concat()),
            der(BIT_STRING, &[0; 72]),
        ];
        der(SEQUENCE, &parts.concat())
    }

    #[test]
    fn the_hash_function_is_that_of_the_signature() {
        let rsa =
            |last: u8| [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01][..], &[last]].concat();
        let ecdsa = |last: &[u8]| [&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04][..], last].concat();
        let rows = [
            (rsa(4), Some(32)),
            (rsa(5), Some(32)),
            (rsa(11), Some(32)),
            (rsa(12), Some(48)),
            (rsa(13), Some(64)),
            (ecdsa(&[1]), Some(32)),
            (ecdsa(&[3, 2]), Some(32)),
            (ecdsa(&[3, 3]), Some(48)),
            (ecdsa(&[3, 4]), Some(64)),
            // RSA-PSS, RSA with MD2, SHA-224 and SHA-512/256, ECDSA with SHA-224.
            (rsa(10), None),
            (rsa(2), None),
            (rsa(14), None),
            (rsa(16), None),
            (ecdsa(&[3, 1]), None),
            (ecdsa(&[3]), None),
            (ecdsa(&[3, 2, 0]), None),
            // Ed25519, Ed448, nothing.
            (vec![0x2b, 0x65, 0x70], None),
            (vec![0x2b, 0x65, 0x71], None),
            (vec![], None),
        ];
        for (algorithm, length) in rows {
            let found = tls_server_end_point(&certificate(&algorithm, 300));
            assert_eq!(found.map(|hash| hash.len()), length, "{algorithm:02x?}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_whole_certificate() {
        for size in [0, 1, 100, 127, 128, 255, 256, 300, 60_000] {
            let certificate = certificate(ECDSA_WITH_SHA384, size);
            let hash = tls_server_end_point(&certificate);
            assert_eq!(hash, Some(Sha384::digest(&certificate).to_vec()), "{size}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_long_has_no_hash() {
        let good = certificate(ECDSA_WITH_SHA384, 150);
        for end in 0..good.len() {
            assert_eq!(tls_server_end_point(&good[..end]), None, "{end}");
        }
        assert_eq!(tls_server_end_point(&[good.as_slice(), &[0]].concat()), None);
        assert_eq!(tls_server_end_point(&[0x30; 4096]), None);
    }

    #[test]
    fn any_byte_changed_is_survived() {
        let good = certificate(ECDSA_WITH_SHA384, 20);
        for (at, value) in (0..good.len()).flat_map(|at| (0..=255).map(move |value| (at, value))) {
            let mut changed = good.clone();
            changed[at] = value;
            // Whatever it is: it has a hash of the right length, or none.
            let hash = tls_server_end_point(&changed);
            assert!(hash.is_none_or(|hash| [32, 48, 64].contains(&hash.len())));
        }
    }

    #[test]
    fn a_length_that_is_not_the_shortest_is_refused() {
        let rows: [&[u8]; 9] = [
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 0x81, 0x7f],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0xff],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x31, 0x00],
            &[0x30],
        ];
        for row in rows {
            let padded = [row, &[0; 200]].concat();
            let taken = element(&padded, SEQUENCE);
            assert!(taken.is_none() || row == [0x30], "{row:02x?}");
        }
        assert_eq!(element(&[0x30, 0x01, 7, 8], SEQUENCE), Some((&[7][..], &[8][..])));
    }
}
