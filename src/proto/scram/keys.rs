//! The keys of an exchange: how the password is prepared, and what is made of it (RFC 5802
//! sections 2.2 and 3; manual: sasl-authentication).
//!
//! Everything here is wiped when it is dropped. Called by the exchange above only.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use stringprep::tables;
use zeroize::{Zeroize as _, Zeroizing};

/// The length of a SHA-256 hash.
pub(super) const HASH: usize = 32;

/// The length of the blocks that SHA-256 works in, which is that of an HMAC key.
pub(super) const BLOCK: usize = 64;

pub(super) type Hash = Zeroizing<[u8; HASH]>;

/// What must not outlive the exchange; each field is wiped when it is dropped.
#[derive(Default)]
pub(super) struct Secrets {
    /// The prepared password as an HMAC key. The password itself is not kept.
    pub(super) password: HmacKey,
    /// U(i) of PBKDF2 (RFC 5802 section 2.2, `Hi`).
    pub(super) round: Hash,
    /// The XOR of the rounds; with all of them, `SaltedPassword`.
    pub(super) salted: Hash,
    /// What the server must answer with.
    pub(super) server_signature: Hash,
}

/// A key as HMAC takes it: filled up with zeros to a block, and hashed first if it is longer.
pub(super) struct HmacKey(pub(super) Zeroizing<[u8; BLOCK]>);

/// The password as the server prepared it when it was set.
///
/// "It is processed with SASLprep as if it was in UTF-8", but if it "contains UTF-8 byte sequences
/// that are prohibited by the SASLprep algorithm, the raw password will be used without SASLprep
/// processing, instead of throwing an error" (manual: sasl-authentication).
///
/// The server looks for prohibited characters before it normalizes, and does not take a password of
/// which nothing is left. SASLprep looks after, when some of these characters are gone, so they are
/// looked for here as well. What remains different, and fails to authenticate, is text with
/// right-to-left letters in forms that normalize to others, or next to symbols that do (U+2122).
pub(super) fn prepare(password: &str) -> Zeroizing<Vec<u8>> {
    let refused = password.contains(tables::unassigned_code_point)
        || password.contains(tables::change_display_properties_or_deprecated);
    match stringprep::saslprep(password) {
        Ok(Cow::Owned(prepared)) if !refused && !prepared.is_empty() => prepared.into_bytes(),
        _ => password.as_bytes().to_vec(),
    }
    .into()
}

impl Secrets {
    /// U1 := HMAC(password, salt || INT(1)) (RFC 5802 section 2.2).
    pub(super) fn first_round(&mut self, salt: &[u8]) {
        self.round = self.password.hmac(&[salt, &1_u32.to_be_bytes()]);
        self.salted.clone_from(&self.round);
    }

    /// U(i) := HMAC(password, U(i-1)), each XORed into the result.
    pub(super) fn rounds(&mut self, count: u32) {
        // The key is hashed once and the state copied, which halves the work of a round.
        let keyed = self.password.begin();
        for _ in 0..count {
            let mut mac = keyed.clone();
            mac.update(self.round.as_slice());
            *self.round = mac.finalize().into_bytes().into();
            xor(&mut self.salted, &self.round);
        }
    }

    /// Makes the client's proof, and the signature that the server must answer with (RFC 5802
    /// section 3). Wipes what is not needed any more.
    pub(super) fn sign(&mut self, auth_message: &[u8]) -> Hash {
        let salted = HmacKey::new(self.salted.as_slice());
        let client_key = salted.hmac(&[b"Client Key"]);
        let server_key = salted.hmac(&[b"Server Key"]);
        let stored_key = sha256(client_key.as_slice());
        let mut proof = HmacKey::new(stored_key.as_slice()).hmac(&[auth_message]);
        xor(&mut proof, &client_key);
        *self = Self {
            server_signature: HmacKey::new(server_key.as_slice()).hmac(&[auth_message]),
            ..Self::default()
        };
        proof
    }
}

impl HmacKey {
    fn new(secret: &[u8]) -> Self {
        let mut key = Self::default();
        key.set(secret);
        key
    }

    /// Fills the key in where it stands, so that no copy of it is left on the way.
    pub(super) fn set(&mut self, secret: &[u8]) {
        let hash = (secret.len() > BLOCK).then(|| sha256(secret));
        let bytes = hash.as_ref().map_or(secret, |hash| hash.as_slice());
        self.0.zeroize();
        for (to, from) in self.0.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    fn begin(&self) -> Hmac<Sha256> {
        Hmac::new((&*self.0).into())
    }

    /// The HMAC of the parts, one after the other.
    fn hmac(&self, parts: &[&[u8]]) -> Hash {
        let mut mac = self.begin();
        for part in parts {
            mac.update(part);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

impl Default for HmacKey {
    fn default() -> Self {
        Self(Zeroizing::new([0; BLOCK]))
    }
}

fn sha256(bytes: &[u8]) -> Hash {
    Zeroizing::new(Sha256::digest(bytes).into())
}

pub(super) fn xor(to: &mut [u8; HASH], with: &[u8; HASH]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= *with;
    }
}
