//! Channel binding: what is chosen, and that nothing but a bound exchange counts where one is
//! demanded (the table of libpq's `channel_binding`).

use distlock::proto::authentication::{Channel, ChannelBinding};
use distlock::proto::fault::{AuthFault, Fault};
use distlock::proto::scram::ScramError;

use super::backend::{
    self, ScramServer, authentication, authentication_ok, greeting, message, sasl,
};
use super::script::{ALL, Outcome, PASSWORD, STRICT, Script};

const HASH: [u8; 32] = [7; 32];
const PLUS_HEADER: &str = "p=tls-server-end-point,,";

/// AuthenticationSASL as a server with TLS sends it.
fn sasl_plus() -> Vec<u8> {
    authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
}

fn tls(binding: ChannelBinding) -> Channel {
    Channel { is_tls: true, end_point: Some(HASH.to_vec()), binding }
}

fn tls_without_hash(binding: ChannelBinding) -> Channel {
    Channel { end_point: None, ..tls(binding) }
}

fn clear(binding: ChannelBinding) -> Channel {
    Channel { is_tls: false, ..tls(binding) }
}

fn exchange(channel: Channel, offer: Vec<u8>, server: &ScramServer) -> Outcome {
    let script = Script::new(STRICT).through(channel).says(offer).says(server.challenge());
    let script = script.says([server.verdict(), greeting().concat()].concat());
    script.says_all(backend::preparation()).play_long()
}

fn fault(channel: Channel, requests: &[Vec<u8>]) -> AuthFault {
    let script = Script::new(ALL).through(channel);
    let script = requests.iter().cloned().fold(script, Script::says);
    match script.fails() {
        Fault::Auth(fault) => fault,
        other => panic!("another fault: {other:?}"),
    }
}

fn contains(sent: &[u8], part: &[u8]) -> bool {
    sent.windows(part.len()).any(|window| window == part)
}

/// That the exchange succeeds with this mechanism, header and binding.
#[track_caller]
fn runs(channel: Channel, offer: Vec<u8>, mechanism: &str, header: &str) {
    let is_plus = mechanism.ends_with("PLUS");
    let data = if is_plus { &HASH[..] } else { &[] };
    let server = ScramServer::new(PASSWORD, 3).bound_to(header, data);
    let outcome = exchange(channel, offer, &server);
    assert_eq!(outcome.fault, None);
    let first = format!("{header}n=,r=AAAAAAAAAAAAAAAAAAAAAAAA");
    let length = u8::try_from(first.len()).expect("short");
    let initial = [mechanism.as_bytes(), &[0, 0, 0, 0, length], first.as_bytes()].concat();
    assert!(contains(&outcome.sent, &message(b'p', &initial)), "{}", outcome.sent.escape_ascii());
    assert!(contains(&outcome.sent, &message(b'p', server.proof().as_bytes())));
}

#[test]
fn what_is_bound_follows_from_the_offer_the_channel_and_the_policy() {
    use ChannelBinding::{Disable, Prefer, Require};
    let (plain, plus) = ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS");
    runs(tls(Prefer), sasl_plus(), plus, PLUS_HEADER);
    runs(tls(Require), sasl_plus(), plus, PLUS_HEADER);
    runs(tls(Disable), sasl_plus(), plain, "n,,");
    // We could, and the server does not offer it; somebody who took it off the list is found out
    // by the server.
    runs(tls(Prefer), sasl(), plain, "y,,");
    runs(tls(Disable), sasl(), plain, "n,,");
    runs(tls_without_hash(Prefer), sasl_plus(), plain, "n,,");
    runs(tls_without_hash(Prefer), sasl(), plain, "n,,");
    runs(clear(Prefer), sasl(), plain, "n,,");
    runs(clear(Disable), sasl(), plain, "n,,");
    let only_plus = authentication(10, b"SCRAM-SHA-256-PLUS\0\0");
    runs(tls(Prefer), only_plus, plus, PLUS_HEADER);
}

#[test]
fn a_demanded_binding_is_not_to_be_had_for_any_other_method() {
    let requests = [authentication_ok(), authentication(3, b""), authentication(5, b"salt")];
    for request in requests {
        for channel in [tls, tls_without_hash, clear] {
            let channel = channel(ChannelBinding::Require);
            let script = Script::new(ALL).through(channel).says(request.clone());
            let outcome = script.says_all(greeting()).play();
            let fault = outcome.fault.expect("it is not bound");
            assert!(matches!(fault, Fault::Auth(AuthFault::Unbound(_))), "{fault:?}");
            assert!(fault.to_string().contains("channel_binding=require"), "{fault}");
            assert!(!contains(&outcome.sent, PASSWORD.as_bytes()));
            assert!(!contains(&outcome.sent, b"md5"));
        }
    }
}

#[test]
fn a_demanded_binding_needs_tls_a_hash_and_the_offer() {
    let require = ChannelBinding::Require;
    assert_eq!(fault(clear(require), &[sasl()]), AuthFault::BindingWithoutTls);
    assert_eq!(fault(clear(require), &[sasl_plus()]), AuthFault::BindingWithoutTls);
    assert_eq!(fault(tls_without_hash(require), &[sasl_plus()]), AuthFault::NoEndPoint);
    assert!(matches!(fault(tls(require), &[sasl()]), AuthFault::Unbound(_)));
    let nothing = authentication(10, b"\0");
    assert!(matches!(fault(tls(require), &[nothing]), AuthFault::Unbound(_)));
}

#[test]
fn an_offer_of_binding_without_tls_is_an_alarm() {
    for binding in [ChannelBinding::Disable, ChannelBinding::Prefer] {
        for offer in [sasl_plus(), authentication(10, b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0")] {
            assert_eq!(fault(clear(binding), &[offer]), AuthFault::PlusWithoutTls);
        }
    }
}

#[test]
fn a_server_that_is_bound_to_another_certificate_is_not_believed() {
    let theirs = ScramServer::new(PASSWORD, 3).bound_to(PLUS_HEADER, &[8; 32]);
    for binding in [ChannelBinding::Prefer, ChannelBinding::Require] {
        let outcome = exchange(tls(binding), sasl_plus(), &theirs);
        let expected = Fault::Auth(AuthFault::Scram(ScramError::ServerSignature));
        assert_eq!(outcome.fault, Some(expected));
    }
}

#[test]
fn a_bound_exchange_cannot_be_cut_short() {
    let script = Script::new(ALL).through(tls(ChannelBinding::Require)).says(sasl_plus());
    let server = ScramServer::new(PASSWORD, 3).bound_to(PLUS_HEADER, &HASH);
    let challenged = script.clone().says(server.challenge());
    for script in [script, challenged] {
        let fault = script.says_all(greeting()).fails();
        assert!(matches!(fault, Fault::Violation(_)), "{fault:?}");
    }
}
