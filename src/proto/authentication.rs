//! The authentication exchange: from the StartupMessage to AuthenticationOk (manual: protocol-flow,
//! "Start-up"; sasl-authentication).
//!
//! The server chooses the method, and the configuration says which ones it may choose; nothing of
//! the password is used for any other. A whitelist: each state takes the messages of the table and
//! nothing else. AuthenticationOk is good only with a proof in hand that an allowed exchange took
//! place. [`Handshake`](super::handshake::Handshake) drives it.
//!
//! | state | takes | then |
//! |---|---|---|
//! | Asked | AuthenticationOk, if allowed | Done |
//! | Asked | a password request; AuthenticationSASL | AwaitOk; SaslContinue |
//! | SaslContinue | AuthenticationSASLContinue | Deriving |
//! | Deriving | nothing: what comes waits until we have computed | SaslFinal |
//! | SaslFinal | AuthenticationSASLFinal | AwaitOk |
//! | AwaitOk | AuthenticationOk | Done |

use zeroize::Zeroizing;

use super::backend::{self, Authentication, BackendMessage};
use super::buffer::{Full, WriteBuf};
use super::fault::{AuthFault, Fault, Violation};
use super::fields::split_string;
use super::frontend;
use super::md5::md5_password;
use super::scram::{IterationLimits, NONCE_ENTROPY, ScramClient, ServerVerified};

/// Who we are, and how the server may find out. Made afresh for every connection.
pub struct Credentials {
    /// The role.
    pub user: String,
    /// The password, where one is configured.
    pub password: Option<Zeroizing<String>>,
    /// The authentication methods that may be used.
    pub methods: Methods,
    /// Randomness for the SCRAM nonce.
    pub entropy: [u8; NONCE_ENTROPY],
    /// How many SCRAM iterations are accepted.
    pub iterations: IterationLimits,
}

/// Which authentication methods the configuration allows, as libpq's `require_auth` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// AuthenticationOk without any exchange.
    pub none: bool,
    /// The password in clear.
    pub password: bool,
    /// The password through MD5.
    pub md5: bool,
    /// SCRAM-SHA-256.
    pub scram_sha_256: bool,
}

/// The exchange.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Credentials,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked,
    SaslContinue(Box<ScramClient>),
    Deriving(Box<ScramClient>),
    SaslFinal(Box<ScramClient>),
    #[expect(dead_code, reason = "the proof is never read: that it exists is what it says")]
    AwaitOk(Authenticated),
    Done,
}

/// Proof that an allowed exchange took place; AuthenticationOk counts for nothing without it.
#[derive(Debug)]
enum Authenticated {
    /// A password was sent, in clear or through MD5: this side proved itself, the server did not.
    PasswordSent,
    /// The server's signature was verified.
    Scram(ServerVerified),
}

impl Authenticator {
    /// An exchange that has not begun.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, state: State::Asked }
    }

    /// Where it is, for an error or a trace.
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Asked => UNTOUCHED,
            State::SaslContinue(_) => "where AuthenticationSASLContinue has to follow",
            State::Deriving(_) => "before our SASL response was sent",
            State::SaslFinal(_) => "where AuthenticationSASLFinal has to follow",
            State::AwaitOk(_) => "where AuthenticationOk has to follow",
            State::Done => "after the authentication",
        }
    }

    /// Whether nothing was asked of us yet.
    pub fn is_untouched(&self) -> bool {
        matches!(self.state, State::Asked)
    }

    /// Takes one authentication message; writes what is to be answered. True once the server has
    /// let us in, and we are content with it.
    ///
    /// # Errors
    ///
    /// The reason why the two sides cannot trust each other. The exchange is over then.
    pub fn handle(
        &mut self,
        message: &Authentication<'_>,
        out: &mut WriteBuf,
    ) -> Result<bool, Fault> {
        self.state = match (std::mem::replace(&mut self.state, State::Done), message) {
            (State::Asked, request) => self.handle_request(request, out)?,
            (State::SaslContinue(mut scram), Authentication::SaslContinue(body)) => {
                scram.server_first(body).map_err(AuthFault::from)?;
                State::Deriving(scram)
            }
            (State::SaslFinal(scram), Authentication::SaslFinal(body)) => {
                let proof = scram.server_final(body).map_err(AuthFault::from)?;
                State::AwaitOk(Authenticated::Scram(proof))
            }
            (State::AwaitOk(_), Authentication::Ok) => State::Done,
            (state, message) => {
                self.state = state;
                return Err(self.unexpected(message));
            }
        };
        let is_done = matches!(self.state, State::Done);
        if is_done {
            self.credentials.password = None;
        }
        Ok(is_done)
    }

    /// Whether [`Authenticator::derive`] has work to do.
    pub fn is_deriving(&self) -> bool {
        matches!(self.state, State::Deriving(_))
    }

    /// Computes at most `rounds` rounds of the key derivation that the server's iteration count
    /// demands, and sends the response once it is through. In slices, so that a large count never
    /// keeps a deadline from being noticed.
    ///
    /// # Errors
    ///
    /// When the response cannot be made.
    pub fn derive(&mut self, rounds: u32, out: &mut WriteBuf) -> Result<(), Fault> {
        let State::Deriving(scram) = &mut self.state else { return Ok(()) };
        if !scram.derive(rounds) {
            return Ok(());
        }
        let response = scram.client_final().map_err(AuthFault::from)?;
        frontend::sasl_response(out, response)
            .map_err(|Full| Fault::Internal("the SASL response does not fit its buffer"))?;
        self.state = match std::mem::replace(&mut self.state, State::Done) {
            State::Deriving(scram) => State::SaslFinal(scram),
            other => other,
        };
        Ok(())
    }

    /// Answers an authentication request, if the configuration allows its method.
    fn handle_request(
        &self,
        request: &Authentication<'_>,
        out: &mut WriteBuf,
    ) -> Result<State, Fault> {
        let methods = self.credentials.methods;
        let permit = |allowed: bool, asked: &'static str| match asked {
            _ if allowed => Ok(()),
            "none" => Err(AuthFault::Unasked { allowed: methods.to_string().into() }),
            _ if self.credentials.password.is_none() => Err(AuthFault::NoPassword),
            _ => Err(AuthFault::Refused { asked, allowed: methods.to_string().into() }),
        };
        let full = |Full| Fault::Internal("an authentication response does not fit its buffer");
        match request {
            Authentication::Ok => {
                permit(methods.none, "none")?;
                Ok(State::Done)
            }
            Authentication::CleartextPassword => {
                permit(methods.password, "password")?;
                frontend::password_message(out, self.password()?).map_err(full)?;
                Ok(State::AwaitOk(Authenticated::PasswordSent))
            }
            Authentication::Md5Password(salt) => {
                permit(methods.md5, "md5")?;
                let response = md5_password(&self.credentials.user, self.password()?, *salt);
                let response = std::str::from_utf8(&response)
                    .map_err(|_| Fault::Internal("an md5 response is hexadecimal"))?;
                frontend::password_message(out, response).map_err(full)?;
                Ok(State::AwaitOk(Authenticated::PasswordSent))
            }
            Authentication::Sasl(mechanisms) => {
                permit(methods.scram_sha_256, "scram-sha-256")?;
                choose_mechanism(mechanisms)?;
                let credentials = &self.credentials;
                let scram =
                    ScramClient::new(self.password()?, credentials.entropy, credentials.iterations);
                frontend::sasl_initial_response(out, MECHANISM, scram.client_first())
                    .map_err(full)?;
                Ok(State::SaslContinue(Box::new(scram)))
            }
            Authentication::Unsupported(name) => Err(AuthFault::Unsupported(name).into()),
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                let message = backend::name(&BackendMessage::Authentication(*request));
                Err(Violation::Unexpected { message, state: UNTOUCHED }.into())
            }
        }
    }

    fn password(&self) -> Result<&str, AuthFault> {
        self.credentials
            .password
            .as_ref()
            .map(|password| password.as_str())
            .ok_or(AuthFault::NoPassword)
    }

    fn unexpected(&self, message: &Authentication<'_>) -> Fault {
        let message = backend::name(&BackendMessage::Authentication(*message));
        Violation::Unexpected { message, state: self.state() }.into()
    }
}

/// Where an exchange is that has not begun.
const UNTOUCHED: &str = "before an authentication request";

/// The mechanism that we speak (manual: sasl-authentication).
const MECHANISM: &str = "SCRAM-SHA-256";

/// Looks for our mechanism in a list of NUL-terminated names that ends with an empty one.
fn choose_mechanism(list: &[u8]) -> Result<(), Fault> {
    let malformed = |what| Violation::Malformed { message: "AuthenticationSASL", what };
    let mut found = false;
    let mut rest = list;
    loop {
        let (name, after) = split_string(rest).ok_or_else(|| malformed("the list has no end"))?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(malformed("bytes after the end of the list").into());
            }
            break;
        }
        found |= name == MECHANISM.as_bytes();
        rest = after;
    }
    if found { Ok(()) } else { Err(AuthFault::Unsupported("SASL other than SCRAM-SHA-256").into()) }
}

impl std::fmt::Display for Methods {
    /// As `require_auth` lists them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (self.none, "none"),
            (self.password, "password"),
            (self.md5, "md5"),
            (self.scram_sha_256, "scram-sha-256"),
        ];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(allowed, _)| *allowed) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl std::fmt::Debug for Credentials {
    /// Neither the password nor the entropy is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("methods", &self.methods)
            .finish_non_exhaustive()
    }
}
