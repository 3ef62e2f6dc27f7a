//! The server's half of SCRAM-SHA-256, straight from RFC 5802 section 3 and without a line of the
//! client's: what the client is judged by, and what makes the verifiers of the recorded roles.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use distlock::proto::scram::IterationLimits;
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

/// A server-first-message that a client has to take (RFC 5802 section 7; the limits are those of
/// `proto_notes.md`, section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFirst {
    /// The client's nonce and the server's.
    pub nonce: String,
    /// The salt.
    pub salt: Vec<u8>,
    /// The iteration count.
    pub iterations: u32,
}

impl ServerFirst {
    /// Reads one; `None` for whatever a client has to refuse.
    pub fn read(message: &[u8], ours: &str, limits: IterationLimits) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let [nonce, salt, iterations] = text.split(',').collect::<Vec<_>>()[..] else {
            return None;
        };
        let nonce = nonce.strip_prefix("r=")?.to_owned();
        let salt = STANDARD.decode(salt.strip_prefix("s=")?).ok()?;
        let iterations: u32 = iterations.strip_prefix("i=")?.parse().ok()?;
        let first = Self { nonce, salt, iterations };
        let is_good = first.nonce.starts_with(ours)
            && (ours.len() + 1..=256).contains(&first.nonce.len())
            && first.nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
            && (1..=1_024).contains(&first.salt.len())
            && (limits.min.max(1)..=limits.max).contains(&iterations)
            // Numbers and base64 have more than one spelling; only the plain one is right.
            && first.text() == text;
        is_good.then_some(first)
    }

    /// As it is sent.
    pub fn text(&self) -> String {
        format!("r={},s={},i={}", self.nonce, STANDARD.encode(&self.salt), self.iterations)
    }
}

/// An exchange with a client that sends no user name, as ours, from its server-first-message on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The client's nonce.
    pub nonce: String,
    /// The server-first-message.
    pub first: ServerFirst,
    /// The GS2 header, and what is bound behind it (`cbind-input`).
    pub bound_to: Vec<u8>,
}

impl Exchange {
    /// `AuthMessage` of RFC 5802 section 3.
    pub fn auth_message(&self) -> String {
        format!("n=,r={},{},{}", self.nonce, self.first.text(), self.without_proof())
    }

    /// `client-final-message-without-proof`.
    fn without_proof(&self) -> String {
        format!("c={},r={}", STANDARD.encode(&self.bound_to), self.first.nonce)
    }

    /// The proof in a client-final-message, if all the rest of it is right.
    pub fn proof(&self, client_final: &[u8]) -> Option<[u8; 32]> {
        let text = std::str::from_utf8(client_final).ok()?;
        let proof = text.strip_prefix(&self.without_proof())?.strip_prefix(",p=")?;
        STANDARD.decode(proof).ok()?.try_into().ok()
    }
}
