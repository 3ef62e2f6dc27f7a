//! The server's half of SCRAM-SHA-256, straight from RFC 5802 section 3 and without a line of the
//! client's: what the client is judged by, and what makes the verifiers of the recorded roles.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The keys of one password, salt and iteration count.
#[derive(Debug)]
pub struct Keys {
    stored: [u8; 32],
    server: [u8; 32],
}

impl Keys {
    /// `Hi`, and the two keys that the server keeps.
    pub fn new(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut round = hmac(password, &[salt, &1_u32.to_be_bytes()]);
        let mut salted = round;
        for _ in 1..iterations {
            round = hmac(password, &[&round]);
            salted = xor(salted, round);
        }
        let client = hmac(&salted, &[b"Client Key"]);
        Self { stored: Sha256::digest(client).into(), server: hmac(&salted, &[b"Server Key"]) }
    }

    /// As `pg_authid.rolpassword` has it (manual: catalog-pg-authid).
    pub fn verifier(&self, salt: &[u8], iterations: u32) -> String {
        let [salt, stored, server] =
            [salt, &self.stored, &self.server].map(|bytes| STANDARD.encode(bytes));
        format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
    }

    /// Whether a client-final-message proves the password.
    pub fn accepts(&self, auth_message: &[u8], proof: &[u8; 32]) -> bool {
        let client_key = xor(hmac(&self.stored, &[auth_message]), *proof);
        <[u8; 32]>::from(Sha256::digest(client_key)) == self.stored
    }

    /// The only right server-final-message.
    pub fn server_final(&self, auth_message: &[u8]) -> String {
        format!("v={}", STANDARD.encode(hmac(&self.server, &[auth_message])))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
    a
}
