//! Authentication under any messages in any order and any policy: each message is taken or refused
//! as a simple model says, answered byte for byte as the manual has it, and a session gets to its
//! statements only on a path that the policy allows; with SCRAM only behind the right signature.
//! Of the password nothing is sent but what an allowed request asked for.
//!
//! Input: two bytes for the policy, see `Policy::new`, then messages, see `server::say`.
#![no_main]

#[path = "authentication/model.rs"]
mod model;
#[path = "authentication/server.rs"]
mod server;

use distlock::proto::authentication::ChannelBinding;
use distlock::proto::handshake::Startup;
use distlock::proto::rehearsal::{self, PID, SETTINGS, row};
use distlock::proto::session::{Event, Session, SessionLimits};
use distlock_fuzz::reference::{Message, Outcome, Request, parse};
use distlock_fuzz::scram::Exchange;
use distlock_fuzz::{Input, Trace, check_text, settings_columns, startup};
use libfuzzer_sys::fuzz_target;
use md5::{Digest as _, Md5};
use model::{END_POINT, Expected, LIMITS, Model, Policy};
use zeroize::Zeroizing;

/// The password. Nothing that we send looks like it by chance: no base64 has a `-`.
const CANARY: &str = "canary-in-a-coal-mine";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let policy = Policy::new(input.u8(), input.u8());
    let mut session =
        Session::new(startup_of(policy), SessionLimits::DEFAULT).expect("a StartupMessage");
    session.sent(session.output().len());
    let mut model = Model::new(policy);
    let mut trace = Trace::default();
    let mut exchanges = Vec::new();
    // Bounded, so that the budget of a session's start is not what ends it.
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let bytes = server::say(&mut input, &model);
        let before = trace.output.len();
        trace.feed(&mut session, &bytes);
        let expected = model.take(&parse(&bytes));
        let said = &trace.output[before..];
        check_secrets(&policy, &model, &session, &trace);
        assert_eq!(trace.fault.is_none(), expected != Expected::Refusal, "{:?}", trace.fault);
        match expected {
            Expected::Refusal => return assert!(said.is_empty(), "an answer to what is refused"),
            Expected::Bytes(answer) => assert_eq!(said, answer),
            Expected::Proof(exchange) => check_proof(said, exchange, &mut exchanges),
            Expected::Statements => {
                check_path(&policy, &model, &exchanges);
                return check_ready(&mut session, trace, &model);
            }
        }
        assert!(trace.events.is_empty() && !session.is_ready(), "ready without a statement");
    }
});

fn startup_of(policy: Policy) -> Startup {
    let mut startup = startup(policy.mask);
    startup.version = policy.version();
    startup.refuse_older = policy.refuse_older;
    startup.credentials.iterations = LIMITS;
    startup.credentials.channel = policy.channel();
    let password = startup.credentials.password.take();
    startup.credentials.password = password.map(|_| Zeroizing::new(CANARY.to_owned()));
    startup
}

/// The SASLResponse proves the password to a server that has it, and is nothing else.
fn check_proof(said: &[u8], exchange: Exchange, exchanges: &mut Vec<Exchange>) {
    let body = said.get(5..).expect("an answer");
    assert_eq!(said, distlock_fuzz::message(b'p', body));
    let proof = exchange.proof(body).expect("a client-final-message");
    let auth_message = exchange.auth_message();
    assert!(model::keys(&exchange).accepts(auth_message.as_bytes(), &proof));
    exchanges.push(exchange);
}

/// What was accepted, looked at once more as a whole.
fn check_path(policy: &Policy, model: &Model, exchanges: &[Exchange]) {
    let allows = |bit: u8| policy.mask & (1 << bit) != 0;
    let is_allowed = match (&model.accepted[..], exchanges) {
        ([Request::Ok], []) => allows(0),
        ([Request::CleartextPassword, Request::Ok], []) => allows(1) && policy.has_password(),
        ([Request::Md5Password(_), Request::Ok], []) => allows(2) && policy.has_password(),
        (
            [
                Request::Sasl(_),
                Request::SaslContinue(_),
                Request::SaslFinal(signature),
                Request::Ok,
            ],
            [exchange],
        ) => {
            allows(3)
                && policy.has_password()
                && signature == model::right_final(exchange).as_bytes()
        }
        _ => false,
    };
    assert!(is_allowed, "authenticated with {:?} under {policy:?}", model.accepted);
    let bound_to = [&b"p=tls-server-end-point,,"[..], &END_POINT].concat();
    let is_bound = exchanges.iter().any(|exchange| exchange.bound_to == bound_to);
    assert!(is_bound || policy.binding != ChannelBinding::Require, "bound to nothing");
    assert!(!is_bound || (policy.is_tls && policy.has_end_point), "bound to what is not there");
}

/// The rest of a good server makes it ready, if its process is the one that was announced.
fn check_ready(session: &mut Session, mut trace: Trace, model: &Model) {
    let columns = settings_columns(model.major.expect("needed for the statements"));
    let settings: Vec<_> = SETTINGS[..columns].iter().map(|text| Some(text.as_bytes())).collect();
    let rest =
        [rehearsal::examination(), rehearsal::settled(&row(&settings)), rehearsal::release()];
    trace.feed(session, &rest.concat().concat());
    let is_ready = matches!(trace.events[..], [Event::Ready(_)]);
    assert_eq!(is_ready, model.announced == Some(PID), "{:?}", trace.fault);
    assert_eq!(session.is_ready(), is_ready);
}

/// The password goes out only to whom it may, and is shown to nobody.
fn check_secrets(policy: &Policy, model: &Model, session: &Session, trace: &Trace) {
    let was_sent = |secret: &[u8]| trace.output.windows(secret.len()).any(|w| w == secret);
    let asked = |request: &Request| model.accepted.contains(request);
    if !asked(&Request::CleartextPassword) {
        assert!(!was_sent(CANARY.as_bytes()), "the password was sent");
    }
    let stored = Md5::new().chain_update(CANARY).chain_update("fuzz").finalize();
    let stored: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!was_sent(stored.as_bytes()), "what the server stores for md5 was sent");
    if !policy.has_password() && !model.is_authenticated() {
        assert!(trace.output.is_empty(), "an answer without a password");
    }
    if let Some(fault) = &trace.fault {
        check_text(fault);
        let shown = format!("{fault} {fault:?} {session:?}");
        assert!(!shown.contains(CANARY) && !shown.contains(&stored));
    }
}

/// For the model: what the bytes say.
impl Model {
    fn take(&mut self, outcome: &Outcome) -> Expected {
        match outcome {
            Outcome::Message(message, _) => self.message(message),
            Outcome::Refused(_) => Expected::Refusal,
            Outcome::Incomplete => panic!("the server's messages are whole"),
        }
    }

    fn message(&mut self, message: &Message) -> Expected {
        let expected = self.expect(message);
        if let (Message::Authentication(request), true) = (message, expected != Expected::Refusal) {
            self.accepted.push(request.clone());
        }
        expected
    }
}
