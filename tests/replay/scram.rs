//! A SCRAM-SHA-256 server (RFC 5802 section 3) that can be made to lie, straight from the text of
//! the standard and without a line of any client's.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::format::Knobs;
use super::items;

/// The salt of a good server.
pub const SALT: &[u8] = b"sixteen bytes of";

/// Its iteration count, the least that RFC 7677 recommends.
pub const ITERATIONS: u32 = 4_096;

type Hash = [u8; 32];

/// One exchange.
#[derive(Debug, Default)]
pub struct Scram {
    password: String,
    client_first_bare: String,
    server_first: String,
    salt: Vec<u8>,
    iterations: u32,
}

/// What a password, a salt and an iteration count give.
#[derive(Debug, Clone, Copy)]
struct Keys {
    salted: Hash,
    client: Hash,
    server: Hash,
}

impl Scram {
    /// An exchange with a client that should know this password.
    pub fn new(password: &str) -> Self {
        Self { password: password.to_owned(), ..Self::default() }
    }

    /// AuthenticationSASLContinue, for the body of the client's SASLInitialResponse.
    ///
    /// # Errors
    ///
    /// What is wrong with the client's message.
    pub fn challenge(&mut self, initial: &[u8], knobs: &Knobs) -> Result<Vec<u8>, String> {
        let text = String::from_utf8_lossy(initial);
        // Mechanism, NUL, four bytes of length, GS2 header (up to the second comma), the bare rest.
        // The name in it is the startup message's over again, and left out by some clients.
        let bare = text.split_once(",,").map(|(_, bare)| bare).filter(|it| it.starts_with("n="));
        let nonce = bare.and_then(|bare| bare.split_once(",r=")).map(|(_, nonce)| nonce);
        let client_nonce = nonce.ok_or_else(|| format!("no nonce in {text:?}"))?.to_owned();
        self.client_first_bare = bare.unwrap_or_default().to_owned();
        let nonce = match knobs.get("nonce") {
            None => format!("{client_nonce}of-the-server"),
            Some("same") => client_nonce.clone(),
            Some(text) => match text.strip_prefix('+') {
                Some(added) => format!("{client_nonce}{added}"),
                None => text.to_owned(),
            },
        };
        let salt = knobs.get("salt").map_or_else(|| STANDARD.encode(SALT), str::to_owned);
        let count = knobs.get("iterations").map_or_else(|| ITERATIONS.to_string(), str::to_owned);
        self.salt = STANDARD.decode(&salt).unwrap_or_default();
        self.iterations = count.parse().unwrap_or(0);
        self.server_first = match knobs.get("text") {
            Some(text) => text.replace("%c", &client_nonce).replace("%s", &salt),
            None => format!("r={nonce},s={salt},i={count}"),
        };
        let code = 11_u32.to_be_bytes();
        Ok(items::message(b'R', &[&code, self.server_first.as_bytes()].concat()))
    }

    /// AuthenticationSASLFinal, for the body of the client's SASLResponse.
    ///
    /// # Errors
    ///
    /// What is wrong with the client's message, its proof included.
    pub fn verdict(&mut self, response: &[u8], knobs: &Knobs) -> Result<Vec<u8>, String> {
        let text = String::from_utf8_lossy(response);
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or_else(|| format!("no proof in {text:?}"))?;
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let keys = keys(&self.password, &self.salt, self.iterations);
        let signature_of_client = hmac(&sha256(&keys.client), &[message.as_bytes()]);
        if proof != STANDARD.encode(xor(signature_of_client, keys.client)) {
            return Err("the client's proof is wrong".into());
        }
        let mut right = hmac(&keys.server, &[message.as_bytes()]).to_vec();
        let text = match (knobs.get("text"), knobs.get("error"), knobs.get("signature")) {
            (Some(text), ..) => text.replace("%v", &STANDARD.encode(&right)),
            (_, Some(error), _) => format!("e={error}"),
            (.., None) => format!("v={}", STANDARD.encode(&right)),
            (.., Some("wrong")) => {
                right[31] ^= 1;
                format!("v={}", STANDARD.encode(&right))
            }
            (.., Some("short")) => format!("v={}", STANDARD.encode(&right[..31])),
            (.., Some("long")) => format!("v={}", STANDARD.encode([&right[..], b"x"].concat())),
            (.., Some("empty")) => "v=".into(),
            (.., Some("missing")) => String::new(),
            (.., Some("clients")) => format!("v={}", STANDARD.encode(signature_of_client)),
            (.., Some(other)) => return Err(format!("signature={other} is unknown")),
        };
        let code = 12_u32.to_be_bytes();
        Ok(items::message(b'R', &[&code, text.as_bytes()].concat()))
    }

    /// What must never leave the client, whatever the server asks for: the salted password and all
    /// that could stand in for it.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        // Counts that take long are not computed here: no test's time is theirs.
        if self.salt.is_empty() || !(1..=10_000).contains(&self.iterations) {
            return Vec::new();
        }
        let keys = keys(&self.password, &self.salt, self.iterations);
        let stored = sha256(&keys.client);
        let hashes = [keys.salted, keys.client, keys.server, stored];
        hashes
            .iter()
            .flat_map(|hash| [hash.to_vec(), STANDARD.encode(hash).into_bytes(), hex(hash)])
            .collect()
    }
}

/// The hexadecimal text of bytes.
pub fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// Computes the keys of a good server ahead, so that it answers at once.
pub fn warm_up(password: &str) {
    keys(password, SALT, ITERATIONS);
}

fn keys(password: &str, salt: &[u8], iterations: u32) -> Keys {
    type Table = HashMap<(String, Vec<u8>, u32), Keys>;
    static KNOWN: OnceLock<Mutex<Table>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let place = (password.to_owned(), salt.to_vec(), iterations);
    if let Some(keys) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&place) {
        return *keys;
    }
    let mut round = hmac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()]);
    let mut salted = round;
    for _ in 1..iterations {
        round = hmac(password.as_bytes(), &[&round]);
        salted = xor(salted, round);
    }
    let client = hmac(&salted, &[b"Client Key"]);
    let keys = Keys { salted, client, server: hmac(&salted, &[b"Server Key"]) };
    known.lock().unwrap_or_else(PoisonError::into_inner).insert(place, keys);
    keys
}

fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hash {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(mut a: Hash, b: Hash) -> Hash {
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
    a
}
