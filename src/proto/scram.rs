//! The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677; manual: sasl-authentication).
//!
//! A value that is fed the server's messages and gives the client's. It frames no messages (the
//! codec does), draws no random numbers (the caller brings the entropy), and looks at no clock:
//! [`ScramClient::derive`] does the long computation in slices, so that the caller can keep its
//! deadline between two of them. Channel binding is not here yet. The authentication state machine
//! of the session drives it, and takes AuthenticationOk only with a [`ServerVerified`] in hand.
//!
//! The server's messages are hostile until its signature was verified: the grammar is read
//! strictly, without the extensions that RFC 5802 leaves room for and that PostgreSQL never sends.

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use stringprep::tables;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// How many random bytes a nonce is made of; 18 make 24 base64 characters without padding.
pub const NONCE_ENTROPY: usize = 18;

/// The GS2 header (RFC 5802 section 7): no channel binding, no authorization identity. The first
/// message begins with it and the last one repeats it, so both are made from this constant.
const GS2_HEADER: &str = "n,,";

/// The longest nonce taken, ours and the server's part together. PostgreSQL's has 48 characters.
const MAX_NONCE: usize = 256;

/// The longest salt taken, in bytes. PostgreSQL's have 16.
const MAX_SALT: usize = 1024;

/// How much of a text from the server is shown in an error.
const MAX_SHOWN: usize = 64;

/// The length of a SHA-256 hash.
const HASH: usize = 32;

/// The length of the blocks that SHA-256 works in, which is that of an HMAC key.
const BLOCK: usize = 64;

type Hash = Zeroizing<[u8; HASH]>;

/// One exchange with one server. The steps must be taken in the order of the methods below.
///
/// Any error ends the exchange: every later step fails with [`ScramError::OutOfOrder`], and the
/// session must be closed.
pub struct ScramClient {
    limits: IterationLimits,
    client_first: String,
    client_final: String,
    step: Step,
    /// On the heap, so that moving the client leaves no copies of them behind.
    secrets: Box<Secrets>,
}

/// The iteration counts that are taken from a server; both ends are taken.
///
/// Too few make it cheap to guess the password from a recorded exchange (RFC 7677 section 4 asks
/// for 4,096 at least), and a hostile server can ask for as few as it likes. Too many let a server
/// burn this machine's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IterationLimits {
    /// The lowest count that is taken. Zero is refused whatever this says.
    pub min: u32,
    /// The highest count that is taken.
    pub max: u32,
}

/// Proof that the server knows the password: only [`ScramClient::server_final`] can make one.
#[derive(Debug)]
#[must_use = "AuthenticationOk may be believed only where the server was verified"]
pub struct ServerVerified(());

/// Why an exchange failed. No text holds a password or anything that was made from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// A message of the server does not follow the grammar of RFC 5802 section 7.
    #[error(
        "the SCRAM {message} is malformed: expected {expected}; check that the address is that \
         of a PostgreSQL server"
    )]
    Malformed {
        /// The name of the message in RFC 5802.
        message: &'static str,
        /// What should have been there.
        expected: &'static str,
    },

    /// The server's nonce does not belong to this exchange, or adds nothing to it.
    #[error(
        "the server's SCRAM nonce is wrong: expected {expected}; the messages may be replayed \
         from another session, check what is between this program and the server"
    )]
    Nonce {
        /// What the nonce should have been.
        expected: &'static str,
    },

    /// The server asks for an iteration count outside the limits.
    #[error(
        "the server asks for {count} SCRAM iterations, expected {min} to {max}; set the role's \
         password again with scram_iterations in these bounds, or change the client's limits if \
         the server is to be trusted with it"
    )]
    Iterations {
        /// The count as the server wrote it, shortened if it is long.
        count: Box<str>,
        /// The lowest count that is taken.
        min: u32,
        /// The highest count that is taken.
        max: u32,
    },

    /// A step was taken twice, too early, or after an error.
    #[error("SCRAM step out of order: got {got}, expected {expected}; close the session")]
    OutOfOrder {
        /// The step that was tried.
        got: &'static str,
        /// The step that is next.
        expected: &'static str,
    },

    /// The server ended the exchange with an error of its own (`e=`).
    #[error("the server refused the SCRAM exchange: {0}; check the user name and the password")]
    Refused(Box<str>),

    /// The server's signature is not the one that the password gives.
    #[error(
        "the server's SCRAM signature is wrong: expected one made with this user's password; the \
         server does not know it and may be an impostor, check the address before trying again"
    )]
    ServerSignature,
}

/// What the exchange waits for.
enum Step {
    ServerFirst { nonce: String, bare: String },
    ClientFinal(Derivation),
    ServerFinal,
    Over,
}

/// The derivation of the salted password, and what will be signed with it.
struct Derivation {
    /// The PBKDF2 rounds that are still to be run.
    remaining: u32,
    /// `client-final-message-without-proof` of RFC 5802 section 7.
    without_proof: String,
    /// `AuthMessage` of RFC 5802 section 3.
    auth_message: String,
}

/// What must not outlive the exchange; each field is wiped when it is dropped.
#[derive(Default)]
struct Secrets {
    /// The prepared password as an HMAC key. The password itself is not kept.
    password: HmacKey,
    /// U(i) of PBKDF2 (RFC 5802 section 2.2, `Hi`).
    round: Hash,
    /// The XOR of the rounds; with all of them, `SaltedPassword`.
    salted: Hash,
    /// What the server must answer with.
    server_signature: Hash,
}

/// A key as HMAC takes it: filled up with zeros to a block, and hashed first if it is longer.
struct HmacKey(Zeroizing<[u8; BLOCK]>);

/// The attributes of a `server-first-message`, checked.
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl IterationLimits {
    /// From the minimum of RFC 7677, which is PostgreSQL's default, to some 10 to 50 ms of work.
    #[cfg_attr(not(any(test, fuzzing, feature = "__internals")), expect(dead_code))]
    pub const DEFAULT: Self = Self { min: 4_096, max: 100_000 };
}

impl ScramClient {
    /// Begins an exchange.
    ///
    /// The entropy must be fresh from a cryptographic random source: a nonce that comes twice lets
    /// a recorded server be replayed. The password is prepared as the server does it.
    pub fn new(password: &str, entropy: [u8; NONCE_ENTROPY], limits: IterationLimits) -> Self {
        // "The server will ignore the user name that the client sends in the client-first-message"
        // and takes that of the startup message (manual: sasl-authentication); libpq sends none.
        Self::with_nonce("", STANDARD.encode(entropy), password, limits)
    }

    fn with_nonce(user: &str, nonce: String, password: &str, limits: IterationLimits) -> Self {
        let bare = format!("n={user},r={nonce}");
        let mut secrets = Box::<Secrets>::default();
        secrets.password.set(&prepare(password));
        Self {
            limits,
            client_first: format!("{GS2_HEADER}{bare}"),
            client_final: String::new(),
            step: Step::ServerFirst { nonce, bare },
            secrets,
        }
    }

    /// The `client-first-message`: the data of the SASLInitialResponse message.
    pub fn client_first(&self) -> &[u8] {
        self.client_first.as_bytes()
    }

    /// Takes the `server-first-message`: the data of AuthenticationSASLContinue.
    pub fn server_first(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let step = mem::replace(&mut self.step, Step::Over);
        let Step::ServerFirst { nonce, bare } = step else {
            return Err(step.out_of_order("a server-first-message"));
        };
        let text = std::str::from_utf8(message).map_err(|_| malformed_first("UTF-8 text"))?;
        let first = ServerFirst::parse(text, &nonce, self.limits)?;
        // The signatures cover the header too, which is what makes stripping channel binding show.
        let without_proof = format!("c={},r={}", STANDARD.encode(GS2_HEADER), first.nonce);
        let auth_message = format!("{bare},{text},{without_proof}");
        self.secrets.first_round(&first.salt);
        let remaining = first.iterations.saturating_sub(1);
        self.step = Step::ClientFinal(Derivation { remaining, without_proof, auth_message });
        Ok(())
    }

    /// Runs at most `rounds` rounds of the key derivation; true once the salted password is ready.
    ///
    /// A round takes 0.1 to 0.5 microseconds (5 unoptimized). Always false before
    /// [`Self::server_first`] has taken a message, and after an error: do not loop on it then.
    pub fn derive(&mut self, rounds: u32) -> bool {
        match &mut self.step {
            Step::ClientFinal(derivation) => {
                let rounds = rounds.min(derivation.remaining);
                self.secrets.rounds(rounds);
                derivation.remaining = derivation.remaining.saturating_sub(rounds);
                derivation.remaining == 0
            }
            Step::ServerFinal => true,
            Step::ServerFirst { .. } | Step::Over => false,
        }
    }

    /// The `client-final-message`: the data of the SASLResponse message.
    pub fn client_final(&mut self) -> Result<&[u8], ScramError> {
        let step = mem::replace(&mut self.step, Step::Over);
        let Step::ClientFinal(Derivation { remaining: 0, without_proof, auth_message }) = step
        else {
            return Err(step.out_of_order("the client-final-message"));
        };
        let proof = self.secrets.sign(auth_message.as_bytes());
        self.client_final = format!("{without_proof},p={}", STANDARD.encode(*proof));
        self.step = Step::ServerFinal;
        Ok(self.client_final.as_bytes())
    }

    /// Takes the `server-final-message`: the data of AuthenticationSASLFinal.
    pub fn server_final(self, message: &[u8]) -> Result<ServerVerified, ScramError> {
        let Step::ServerFinal = self.step else {
            return Err(self.step.out_of_order("a server-final-message"));
        };
        if let Some(reason) = message.strip_prefix(b"e=") {
            return Err(ScramError::Refused(shown(reason)));
        }
        let malformed = || ScramError::Malformed {
            message: "server-final-message",
            expected: "v= with the base64 of 32 bytes and nothing after it",
        };
        let verifier = message.strip_prefix(b"v=").ok_or_else(malformed)?;
        let signature = decode(verifier, HASH..=HASH).ok_or_else(malformed)?;
        // In constant time: how long it takes must not tell how much of a guess was right.
        if bool::from(self.secrets.server_signature.ct_eq(signature.as_slice())) {
            Ok(ServerVerified(()))
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClient")
            .field("limits", &self.limits)
            .field("next", &self.step.name())
            .finish_non_exhaustive()
    }
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::ServerFirst { .. } => "a server-first-message",
            Self::ClientFinal(Derivation { remaining: 0, .. }) => "the client-final-message",
            Self::ClientFinal(_) => "more rounds of the key derivation",
            Self::ServerFinal => "a server-final-message",
            Self::Over => "nothing, since the exchange has failed",
        }
    }

    fn out_of_order(&self, got: &'static str) -> ScramError {
        ScramError::OutOfOrder { got, expected: self.name() }
    }
}

impl<'a> ServerFirst<'a> {
    /// Reads `r=<nonce>,s=<salt>,i=<count>`, in this order and with nothing around it.
    fn parse(text: &'a str, ours: &str, limits: IterationLimits) -> Result<Self, ScramError> {
        if text.starts_with("m=") {
            // RFC 5802 section 5.1: an unknown mandatory extension must fail the authentication.
            return Err(malformed_first("no mandatory extension (m=)"));
        }
        let mut attributes = text.split(',');
        let mut value = |name, expected| {
            let attribute = attributes.next().and_then(|text| text.strip_prefix(name));
            attribute.ok_or_else(|| malformed_first(expected))
        };
        let nonce = value("r=", "the nonce (r=) first")?;
        let salt = value("s=", "the salt (s=) after the nonce")?;
        let count = value("i=", "the iteration count (i=) after the salt")?;
        if attributes.next().is_some() {
            return Err(malformed_first("nothing after the iteration count"));
        }
        check_nonce(nonce, ours)?;
        let salt = decode(salt.as_bytes(), 1..=MAX_SALT)
            .ok_or_else(|| malformed_first("a salt of 1 to 1,024 bytes in padded base64"))?;
        Ok(Self { nonce, salt, iterations: parse_iterations(count, limits)? })
    }
}

fn malformed_first(expected: &'static str) -> ScramError {
    ScramError::Malformed { message: "server-first-message", expected }
}

fn check_nonce(nonce: &str, ours: &str) -> Result<(), ScramError> {
    let wrong = |expected| Err(ScramError::Nonce { expected });
    if nonce.len() > MAX_NONCE {
        return wrong("256 characters at most");
    }
    // RFC 5802 section 7, `printable`; the comma is out already, since it ends the attribute.
    if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("printable ASCII characters without space");
    }
    match nonce.strip_prefix(ours) {
        Some("") => wrong("characters of the server's own after the client's nonce"),
        Some(_) => Ok(()),
        None => wrong("one that begins with the client's nonce"),
    }
}

/// Reads base64, padded and without stray bits, of so many bytes.
fn decode(text: &[u8], lengths: RangeInclusive<usize>) -> Option<Vec<u8>> {
    // The decoder takes memory for whatever length it is given, so that is looked at first.
    if text.len() > lengths.end().saturating_mul(2) {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| lengths.contains(&bytes.len()))
}

/// Reads a `posit-number` of RFC 5802 section 7: digits, of which the first is not zero.
fn parse_iterations(text: &str, limits: IterationLimits) -> Result<u32, ScramError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return Err(malformed_first(
            "an iteration count of decimal digits, above zero, without sign, space or leading zero",
        ));
    }
    let IterationLimits { min, max } = limits;
    match text.parse() {
        Ok(count) if (min..=max).contains(&count) => Ok(count),
        // Only a count above u32::MAX fails to parse, and that is above any limit.
        _ => Err(ScramError::Iterations { count: shown(text.as_bytes()), min, max }),
    }
}

/// A text of the server as it may stand in an error: short, and nothing but printable ASCII, so
/// that it can neither flood a log nor forge a line in it.
fn shown(text: &[u8]) -> Box<str> {
    let printable = |byte: u8| matches!(byte, b' '..=b'~').then_some(char::from(byte));
    let shown = text.iter().take(MAX_SHOWN).map(|&byte| printable(byte).unwrap_or('?'));
    let mut shown: String = shown.collect();
    if text.len() > MAX_SHOWN {
        shown.push_str("...");
    }
    shown.into_boxed_str()
}

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
fn prepare(password: &str) -> Zeroizing<Vec<u8>> {
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
    fn first_round(&mut self, salt: &[u8]) {
        self.round = self.password.hmac(&[salt, &1_u32.to_be_bytes()]);
        self.salted.clone_from(&self.round);
    }

    /// U(i) := HMAC(password, U(i-1)), each XORed into the result.
    fn rounds(&mut self, count: u32) {
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
    fn sign(&mut self, auth_message: &[u8]) -> Hash {
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
    fn set(&mut self, secret: &[u8]) {
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

fn xor(to: &mut [u8; HASH], with: &[u8; HASH]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= *with;
    }
}

#[cfg(test)]
mod tests;
