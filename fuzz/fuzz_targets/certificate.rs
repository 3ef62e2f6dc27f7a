//! The hash that a TLS channel is told by (RFC 5929): defined exactly when a second reader of the
//! certificate finds a signature that has one, and as long as that one's.
//!
//! Input: the certificate, in DER form.
#![no_main]

use distlock::proto::end_point::tls_server_end_point;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let length = algorithm(data).and_then(|identifier| hash_length(&dotted(&identifier)?));
    assert_eq!(tls_server_end_point(data).map(|hash| hash.len()), length);
});

/// The identifier in the second of the three parts of a certificate (RFC 5280 section 4.1).
fn algorithm(data: &[u8]) -> Option<Vec<u8>> {
    let [(0x30, certificate)] = &elements(data)?[..] else { return None };
    let [(0x30, _), (0x30, algorithm), (0x03, _)] = &elements(certificate)?[..] else {
        return None;
    };
    // What follows the identifier is its own affair.
    let (tag, identifier, _) = element(algorithm)?;
    (tag == 0x06).then(|| identifier.to_vec())
}

/// All elements of a sequence, by tag and contents.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, contents, rest) = element(bytes)?;
        found.push((tag, contents.to_vec()));
        bytes = rest;
    }
    Some(found)
}

/// The element in front, by the distinguished encoding of its length (X.690 section 10.1).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, first) = (*bytes.first()?, *bytes.get(1)?);
    let digits = if first < 0x80 { 0 } else { usize::from(first - 0x80) };
    if first >= 0x80 && !(1..=4).contains(&digits) {
        return None;
    }
    let mut length = u64::from(first);
    if first >= 0x80 {
        length = 0;
        for digit in bytes.get(2..2 + digits)? {
            length = length * 256 + u64::from(*digit);
        }
        let shortest = (1..=8).find(|count| length < 1 << (8 * count))?;
        if length < 0x80 || shortest != digits {
            return None;
        }
    }
    let rest = bytes.get(2 + digits..)?;
    let length = usize::try_from(length).ok()?;
    Some((tag, rest.get(..length)?, &rest[length..]))
}

/// An object identifier as people write it (X.690 section 8.19); none for one that is not in its
/// shortest form, or has a part beyond 64 bits.
fn dotted(identifier: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut part: u64 = 0;
    let mut begins = true;
    for byte in identifier {
        if begins && *byte == 0x80 {
            return None;
        }
        part = part.checked_mul(128)? + u64::from(byte & 0x7f);
        begins = byte & 0x80 == 0;
        if begins {
            parts.push(part);
            part = 0;
        }
    }
    let first = *parts.first().filter(|_| begins)?;
    let head = first.min(80) / 40;
    let mut text = format!("{head}.{}", first - 40 * head);
    for part in &parts[1..] {
        text += &format!(".{part}");
    }
    Some(text)
}

/// How long the hash is that goes with a signature (RFC 5929 section 4.1).
fn hash_length(identifier: &str) -> Option<usize> {
    match identifier {
        // RSA with MD5, SHA-1 and SHA-256; ECDSA with SHA-1 and SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(32),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(32),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(48),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(64),
        _ => None,
    }
}
