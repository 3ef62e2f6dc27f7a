//! The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677; manual: sasl-authentication).
//!
//! A value that is fed the server's messages and gives the client's. It frames no messages (the
//! codec does), draws no random numbers (the caller brings the entropy), and looks at no clock:
//! [`ScramClient::derive`] does the long computation in slices, so that the caller can keep its
//! deadline between two of them. What the channel is bound to, and whether it has to be, is decided
//! by the authentication state machine of the session, which drives it and takes AuthenticationOk
//! only with a [`ServerVerified`] in hand.
//!
//! The server's messages are hostile until its signature was verified: the grammar is read
//! strictly, without the extensions that RFC 5802 leaves room for and that PostgreSQL never sends.

use std::fmt;
use std::mem;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use self::grammar::{ServerFirst, decode, malformed_first, shown};
use self::keys::{HASH, Secrets, prepare};

mod grammar;
mod keys;
#[cfg(test)]
mod tests;

/// How many random bytes a nonce is made of; 18 make 24 base64 characters without padding.
pub const NONCE_ENTROPY: usize = 18;

/// The mechanism without channel binding.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The mechanism with channel binding.
pub const PLUS_MECHANISM: &str = "SCRAM-SHA-256-PLUS";

/// One exchange with one server. The steps must be taken in the order of the methods below.
///
/// Any error ends the exchange: every later step fails with [`ScramError::OutOfOrder`], and the
/// session must be closed.
pub struct ScramClient {
    limits: IterationLimits,
    binding: Binding,
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

/// What an exchange is bound to (the GS2 header, RFC 5802 section 7). The signatures of both sides
/// cover it: that is what makes it show when somebody in between strips the binding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Binding {
    /// `n`: to nothing, for this side cannot or will not.
    #[default]
    None,
    /// `y`: to nothing, for the server does not offer it, and this side could. A server that did
    /// offer it ends the exchange.
    NotOffered,
    /// `p=tls-server-end-point`: to the certificate with this hash (RFC 5929 section 4.1).
    EndPoint(Vec<u8>),
}

/// Proof that the server knows the password: only [`ScramClient::server_final`] can make one.
#[derive(Debug)]
#[must_use = "AuthenticationOk may be believed only where the server was verified"]
pub struct ServerVerified {
    is_bound: bool,
}

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
impl ScramClient {
    /// Begins an exchange.
    ///
    /// The entropy must be fresh from a cryptographic random source: a nonce that comes twice lets
    /// a recorded server be replayed. The password is prepared as the server does it.
    pub fn new(
        password: &str,
        entropy: [u8; NONCE_ENTROPY],
        limits: IterationLimits,
        binding: Binding,
    ) -> Self {
        // "The server will ignore the user name that the client sends in the client-first-message"
        // and takes that of the startup message (manual: sasl-authentication); libpq sends none.
        Self::with_nonce("", STANDARD.encode(entropy), password, limits, binding)
    }

    fn with_nonce(
        user: &str,
        nonce: String,
        password: &str,
        limits: IterationLimits,
        binding: Binding,
    ) -> Self {
        let bare = format!("n={user},r={nonce}");
        let mut secrets = Box::<Secrets>::default();
        secrets.password.set(&prepare(password));
        Self {
            limits,
            client_first: format!("{}{bare}", binding.header()),
            binding,
            client_final: String::new(),
            step: Step::ServerFirst { nonce, bare },
            secrets,
        }
    }

    /// The name of the mechanism that the server has to run (manual: sasl-authentication).
    pub fn mechanism(&self) -> &'static str {
        match self.binding {
            Binding::EndPoint(_) => PLUS_MECHANISM,
            Binding::None | Binding::NotOffered => MECHANISM,
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
        let without_proof = format!("c={},r={}", self.binding.encoded(), first.nonce);
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
            Ok(ServerVerified { is_bound: matches!(self.binding, Binding::EndPoint(_)) })
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

impl Binding {
    /// The GS2 header, without an authorization identity.
    fn header(&self) -> &'static str {
        match self {
            Self::None => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// The value of `c=`: the header once more, and what the exchange is bound to.
    fn encoded(&self) -> String {
        let header = self.header().as_bytes();
        match self {
            Self::None | Self::NotOffered => STANDARD.encode(header),
            Self::EndPoint(hash) => STANDARD.encode([header, hash].concat()),
        }
    }
}

impl ServerVerified {
    /// Whether the exchange was bound to the channel: nobody stands between.
    pub fn is_bound(&self) -> bool {
        self.is_bound
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
