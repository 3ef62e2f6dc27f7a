//! The authentication exchange: from the StartupMessage to AuthenticationOk (manual: protocol-flow,
//! "Start-up"; sasl-authentication).
//!
//! The server chooses the method, and the configuration says which ones it may choose; nothing of
//! the password is used for any other. A whitelist: each state takes the messages of the table and
//! nothing else. AuthenticationOk is good only with a proof in hand that an allowed exchange took
//! place, and that it was bound to the TLS channel where that is demanded.
//! [`Handshake`](super::handshake::Handshake) drives it.
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
use super::scram::{
    Binding, IterationLimits, MECHANISM, NONCE_ENTROPY, PLUS_MECHANISM, ScramClient, ServerVerified,
};

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
    /// What the exchange may, or has to, be bound to.
    pub channel: Channel,
}

/// What the exchange runs through, and whether it is to be bound to that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channel {
    /// Whether it is TLS.
    pub is_tls: bool,
    /// The hash of the server's certificate (`tls-server-end-point`), where it is defined.
    pub end_point: Option<Vec<u8>>,
    /// Whether to bind.
    pub binding: ChannelBinding,
}

/// Whether SCRAM is bound to the TLS channel, as libpq's `channel_binding` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    #[default]
    Prefer,
    /// Or the exchange fails. No method but SCRAM can then be used.
    Require,
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
            (State::AwaitOk(proof), Authentication::Ok) => {
                self.check_binding(&proof)?;
                State::Done
            }
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

    /// The last look, at what took place rather than at what was meant to.
    fn check_binding(&self, proof: &Authenticated) -> Result<(), AuthFault> {
        let is_bound = match proof {
            Authenticated::PasswordSent => false,
            Authenticated::Scram(verified) => verified.is_bound(),
        };
        match self.credentials.channel.binding {
            ChannelBinding::Require if !is_bound => {
                Err(AuthFault::Unbound("an exchange that was not bound"))
            }
            _ => Ok(()),
        }
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
        self.credentials.channel.check(request)?;
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
                let credentials = &self.credentials;
                let binding = credentials.channel.choose(Mechanisms::parse(mechanisms)?)?;
                let Credentials { entropy, iterations, .. } = *credentials;
                let scram = ScramClient::new(self.password()?, entropy, iterations, binding);
                frontend::sasl_initial_response(out, scram.mechanism(), scram.client_first())
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

/// Which of our mechanisms a server offers.
#[derive(Debug, Clone, Copy, Default)]
struct Mechanisms {
    scram: bool,
    scram_plus: bool,
}

impl Mechanisms {
    /// Reads a list of NUL-terminated names that ends with an empty one.
    fn parse(list: &[u8]) -> Result<Self, Violation> {
        let malformed = |what| Violation::Malformed { message: "AuthenticationSASL", what };
        let mut found = Self::default();
        let mut rest = list;
        loop {
            let (name, after) =
                split_string(rest).ok_or_else(|| malformed("the list has no end"))?;
            if name.is_empty() {
                return match after {
                    [] => Ok(found),
                    _ => Err(malformed("bytes after the end of the list")),
                };
            }
            found.scram |= name == MECHANISM.as_bytes();
            found.scram_plus |= name == PLUS_MECHANISM.as_bytes();
            rest = after;
        }
    }
}

impl Channel {
    /// Refuses what cannot be bound where it has to be, before anything is answered.
    fn check(&self, request: &Authentication<'_>) -> Result<(), AuthFault> {
        if self.binding != ChannelBinding::Require {
            return Ok(());
        }
        match request {
            Authentication::Ok => Err(AuthFault::Unbound("no authentication")),
            Authentication::CleartextPassword => Err(AuthFault::Unbound("password authentication")),
            Authentication::Md5Password(_) => Err(AuthFault::Unbound("md5 authentication")),
            Authentication::Sasl(_) if !self.is_tls => Err(AuthFault::BindingWithoutTls),
            Authentication::Sasl(_) if self.end_point.is_none() => Err(AuthFault::NoEndPoint),
            _ => Ok(()),
        }
    }

    /// Chooses between what is offered and what we can.
    ///
    /// With TLS, a server offers SCRAM-SHA-256-PLUS first and SCRAM-SHA-256 after it. As in libpq,
    /// the one with PLUS is an alarm where there is no TLS: it was taken off on the way.
    fn choose(&self, offered: Mechanisms) -> Result<Binding, AuthFault> {
        if offered.scram_plus && !self.is_tls {
            return Err(AuthFault::PlusWithoutTls);
        }
        let end_point = self.end_point.as_ref().filter(|_| self.is_tls);
        match (self.binding, end_point) {
            (ChannelBinding::Require, _) if !offered.scram_plus => {
                Err(AuthFault::Unbound("SCRAM-SHA-256 without channel binding"))
            }
            (ChannelBinding::Prefer | ChannelBinding::Require, Some(hash))
                if offered.scram_plus =>
            {
                Ok(Binding::EndPoint(hash.clone()))
            }
            // Never reached: `check` has seen to it. But no path may lead on from here.
            (ChannelBinding::Require, _) => Err(AuthFault::NoEndPoint),
            _ if !offered.scram => Err(AuthFault::Unsupported("SASL other than SCRAM-SHA-256")),
            (ChannelBinding::Prefer, Some(_)) => Ok(Binding::NotOffered),
            _ => Ok(Binding::None),
        }
    }
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
            .field("channel_binding", &self.channel.binding)
            .finish_non_exhaustive()
    }
}
