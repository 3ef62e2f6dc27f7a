//! Who is let in, and by whom: the authentication exchanges, and those that must not be believed.

use distlock::proto::authentication::Methods;
use distlock::proto::fault::{AuthFault, Fault, Violation};
use distlock::proto::handshake::Greeting;
use distlock::proto::scram::ScramError;
use distlock::proto::session::Event;

use super::backend::{
    self, ScramServer, authentication, authentication_ok, greeting, message, sasl,
};
use super::script::{ALL, Outcome, PASSWORD, STRICT, Script};

const GREETING: Event =
    Event::Ready(Greeting { server_major: 15, process_id: backend::PID, lock_table: Some(6_400) });

/// The salt of every md5 request here.
const SALT: &[u8] = b"salt";

fn exchange(methods: Methods, requests: Vec<Vec<u8>>) -> Outcome {
    let script = requests.into_iter().fold(Script::new(methods), Script::says);
    script.says_all(greeting()).says_all(backend::preparation()).play()
}

fn assert_ready(outcome: &Outcome) {
    assert_eq!(outcome.fault, None);
    assert_eq!(outcome.events, [GREETING]);
}

fn contains(sent: &[u8], part: &[u8]) -> bool {
    sent.windows(part.len()).any(|window| window == part)
}

/// Of everything that was sent, what follows the StartupMessage.
fn answers(outcome: &Outcome) -> &[u8] {
    let (length, _) = outcome.sent.split_first_chunk::<4>().expect("a StartupMessage");
    &outcome.sent[usize::try_from(u32::from_be_bytes(*length)).expect("short")..]
}

fn unexpected(message: &'static str, fault: &Fault) -> bool {
    matches!(fault, Fault::Violation(Violation::Unexpected { message: m, .. }) if *m == message)
}

#[test]
fn trust_lets_in_where_it_is_allowed() {
    let outcome = exchange(ALL, vec![]);
    assert_ready(&outcome);
    assert!(!contains(&outcome.sent, PASSWORD.as_bytes()));
}

#[test]
fn a_password_goes_in_clear_where_that_is_allowed() {
    let outcome = exchange(ALL, vec![authentication(3, b"")]);
    assert_ready(&outcome);
    assert!(answers(&outcome).starts_with(&message(b'p', b"canary-pencil\0")));
}

#[test]
fn md5_lets_in_without_the_password_in_clear() {
    let outcome = exchange(ALL, vec![authentication(5, SALT)]);
    assert_ready(&outcome);
    assert!(answers(&outcome).starts_with(b"p\0\0\0\x28md5"));
    assert!(!contains(&outcome.sent, PASSWORD.as_bytes()));
}

#[test]
fn scram_proves_both_sides() {
    let server = ScramServer::new(PASSWORD, 7);
    let outcome = exchange(STRICT, vec![sasl(), server.challenge(), server.verdict()]);
    assert_ready(&outcome);
    let initial = b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=AAAAAAAAAAAAAAAAAAAAAAAA";
    let said = [message(b'p', initial), message(b'p', server.proof().as_bytes())].concat();
    assert!(answers(&outcome).starts_with(&said), "{:?}", answers(&outcome).escape_ascii());
}

#[test]
fn scram_with_the_iterations_of_a_server_lets_in() {
    let server = ScramServer::new(PASSWORD, 4_096);
    let mut session = Script::new(STRICT).says(sasl()).says(server.challenge()).session();
    assert_eq!(session.state(), "where AuthenticationSASLFinal has to follow");
    super::script::feed(&mut session, &server.verdict());
    assert_eq!(session.poll_event(), Ok(None));
    assert_eq!(session.state(), "where AuthenticationOk has to follow");
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let (server, impostor) = (ScramServer::new(PASSWORD, 2), ScramServer::new("guess", 2));
    let script = Script::new(STRICT).says(sasl()).says(server.challenge());
    let fault = script.clone().says(impostor.verdict()).says_all(greeting()).fails();
    assert_eq!(fault, Fault::Auth(AuthFault::Scram(ScramError::ServerSignature)));
    for verdict in [&b"v="[..], b"v=AAAA", b"", b"v", b"x=AAAA"] {
        let fault = script.clone().says(authentication(12, verdict)).fails();
        assert!(matches!(fault, Fault::Auth(AuthFault::Scram(_))), "{fault:?}");
    }
}

#[test]
fn a_refusal_of_the_server_is_told() {
    let server = ScramServer::new(PASSWORD, 2);
    let script = Script::new(STRICT).says(sasl()).says(server.challenge());
    let fault = script.says(authentication(12, b"e=invalid-proof")).fails();
    assert_eq!(fault, Fault::Auth(AuthFault::Scram(ScramError::Refused("invalid-proof".into()))));
}

#[test]
fn a_bad_challenge_is_refused() {
    let challenges: [&[u8]; 6] = [
        b"",
        b"r=EVIL,s=AAAA,i=1",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAA,s=AAAA,i=1",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=AAAA,i=0",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=AAAA,i=4294967295",
        b"r=AAAAAAAAAAAAAAAAAAAAAAAAx,s=AAAA,i=1,x=1",
    ];
    for challenge in challenges {
        let fault = Script::new(STRICT).says(sasl()).says(authentication(11, challenge)).fails();
        assert!(matches!(fault, Fault::Auth(AuthFault::Scram(_))), "{fault:?}");
    }
}

#[test]
fn a_skipped_step_of_scram_is_refused() {
    let server = ScramServer::new(PASSWORD, 2);
    let begun = Script::new(ALL).says(sasl());
    let ok = "AuthenticationOk";
    assert!(unexpected(ok, &begun.clone().says(authentication_ok()).fails()));
    assert!(unexpected("AuthenticationSASLFinal", &begun.clone().says(server.verdict()).fails()));
    assert!(unexpected("AuthenticationSASL", &begun.clone().says(sasl()).fails()));
    let challenged = begun.says(server.challenge());
    assert!(unexpected(ok, &challenged.clone().says_all(greeting()).fails()));
    let again = challenged.clone().says(server.challenge()).fails();
    assert!(unexpected("AuthenticationSASLContinue", &again));
    let verified = challenged.says(server.verdict());
    assert!(unexpected("ReadyForQuery", &verified.clone().says(backend::ready(b'I')).fails()));
    assert!(unexpected("BackendKeyData", &verified.clone().says(backend::key_data(1)).fails()));
    let twice = verified.says(authentication_ok()).says(authentication_ok()).fails();
    assert!(unexpected(ok, &twice));
}

#[test]
fn a_final_without_a_beginning_is_refused() {
    let server = ScramServer::new(PASSWORD, 2);
    let script = Script::new(ALL);
    let fault = script.clone().says(server.challenge()).fails();
    assert!(unexpected("AuthenticationSASLContinue", &fault));
    assert!(unexpected("AuthenticationSASLFinal", &script.says(server.verdict()).fails()));
}

#[test]
fn what_the_configuration_does_not_allow_is_refused_with_nothing_said() {
    let requests = [
        ("none", authentication_ok()),
        ("password", authentication(3, b"")),
        ("md5", authentication(5, SALT)),
    ];
    for (method, request) in requests {
        let outcome = Script::new(STRICT).says(request).says_all(greeting()).play();
        let allowed = "scram-sha-256".into();
        let refused = match method {
            "none" => AuthFault::Unasked { allowed },
            asked => AuthFault::Refused { asked, allowed },
        };
        assert_eq!(outcome.fault, Some(Fault::Auth(refused)));
        assert!(answers(&outcome).is_empty(), "not a byte after the StartupMessage");
        assert!(!contains(&outcome.sent, PASSWORD.as_bytes()));
    }
    let outcome = Script::new(Methods { scram_sha_256: false, ..ALL }).says(sasl()).play();
    let fault = outcome.fault.as_ref().expect("SCRAM is not allowed");
    assert!(fault.to_string().contains("only none,password,md5 is allowed"), "{fault}");
    assert!(answers(&outcome).is_empty());
}

#[test]
fn a_request_of_a_method_that_is_not_spoken_is_refused_by_its_name() {
    let requests = [
        (authentication(2, b""), "AuthenticationKerberosV5"),
        (authentication(7, b""), "AuthenticationGSS"),
        (authentication(8, b"token"), "AuthenticationGSSContinue"),
        (authentication(9, b""), "AuthenticationSSPI"),
        (authentication(10, b"SCRAM-SHA-1\0\0"), "SASL other than SCRAM-SHA-256"),
        (authentication(10, b"\0"), "SASL other than SCRAM-SHA-256"),
    ];
    for (request, name) in requests {
        let outcome = Script::new(ALL).says(request).play();
        assert_eq!(outcome.fault, Some(Fault::Auth(AuthFault::Unsupported(name))));
        assert!(answers(&outcome).is_empty());
    }
}

#[test]
fn a_malformed_list_of_mechanisms_is_refused() {
    for list in [&b""[..], b"SCRAM-SHA-256", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256\0\0x"] {
        let fault = Script::new(ALL).says(authentication(10, list)).fails();
        assert!(
            matches!(fault, Fault::Violation(Violation::Malformed { .. })),
            "{}: {fault:?}",
            list.escape_ascii()
        );
    }
}

#[test]
fn no_secret_is_in_what_is_shown_of_a_session() {
    let server = ScramServer::new(PASSWORD, 2);
    let begun = Script::new(ALL).says(sasl());
    for script in [Script::new(ALL), begun.clone(), begun.says(server.challenge())] {
        let shown = format!("{:?}", script.session());
        assert!(!shown.contains(PASSWORD) && !shown.contains("AAAAAAAA"), "{shown}");
    }
}
