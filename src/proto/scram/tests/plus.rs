//! SCRAM-SHA-256-PLUS: what is bound, and that it shows when somebody in between meddles with it.

use super::*;

/// Computed with another implementation (Python's hashlib and hmac).
const SERVER_FIRST: &str = "r=AAAAAAAAAAAAAAAAAAAAAAAAsrv,s=c2FsdC1vZi1zaXh0ZWVuIQ==,i=5";

fn bound_client(binding: Binding) -> ScramClient {
    ScramClient::new("pencil", [0; NONCE_ENTROPY], ANY, binding)
}

fn end_point(length: u8) -> Binding {
    Binding::EndPoint((0..length).collect())
}

#[test]
fn the_proof_of_a_bound_exchange_is_that_of_an_independent_implementation() {
    let rows = [
        (
            end_point(32),
            "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "qRuQ30pxqH6jDIG/q+K/iGQQU6xH4dAMla2MImX2fmw=",
            "ThbCIxZetQNBHESvByULngidjas4IX47pQaKozMM3o4=",
        ),
        (
            end_point(64),
            "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUm\
             JygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
            "bIGY/5xmTifVCSUroGiowczAheG/LgFkH1AIu58/jFg=",
            "BE6tRPNBo5U93Jns17L8qMl3Wo4cJ1UKWuxRubFXgKw=",
        ),
        (
            Binding::NotOffered,
            "eSws",
            "9mRY6VcM/Nifz3kpbX8wBZka5xzyNTZG5WZ0/Jxxx+k=",
            "1yp5tQdGzdLFOCVtjZ6486KyalgjYDE82kDRKvfPgSg=",
        ),
    ];
    for (binding, encoded, proof, signature) in rows {
        let is_bound = binding != Binding::NotOffered;
        let mut client = bound_client(binding);
        client.server_first(SERVER_FIRST.as_bytes()).unwrap();
        assert!(client.derive(5));
        let client_final = std::str::from_utf8(client.client_final().unwrap()).unwrap();
        assert_eq!(client_final, format!("c={encoded},r={NONCE}srv,p={proof}"));
        let verified = client.server_final(format!("v={signature}").as_bytes()).unwrap();
        assert_eq!(verified.is_bound(), is_bound);
    }
}

#[test]
fn the_first_message_tells_what_the_exchange_is_bound_to() {
    let rows = [
        (Binding::None, "n,,", "SCRAM-SHA-256"),
        (Binding::NotOffered, "y,,", "SCRAM-SHA-256"),
        (end_point(48), "p=tls-server-end-point,,", "SCRAM-SHA-256-PLUS"),
    ];
    for (binding, header, mechanism) in rows {
        let client = bound_client(binding);
        assert_eq!(client.client_first(), format!("{header}n=,r={NONCE}").as_bytes());
        assert_eq!(client.mechanism(), mechanism);
    }
}

#[test]
fn both_sides_are_convinced_when_they_are_bound_to_the_same() {
    for binding in [Binding::None, Binding::NotOffered, end_point(32), end_point(64)] {
        let is_bound = matches!(binding, Binding::EndPoint(_));
        let (known, verified) = Server::new("pencil", 3).meet(bound_client(binding));
        assert!(known);
        assert_eq!(verified.unwrap().is_bound(), is_bound);
    }
}

/// The server signs what the client sent; one in between that changes the header or the hash on
/// the way changes what is signed.
#[test]
fn a_header_or_hash_changed_on_the_way_breaks_the_signatures() {
    let server = Server::new("pencil", 3);
    let encoded = |header: &str| format!("c={},", STANDARD.encode(header));
    for stripped in ["n,,", "y,,", "p=tls-server-end-point,,", "p=tls-unique,,"] {
        let mut client = bound_client(end_point(32));
        client.server_first(server.server_first.as_bytes()).unwrap();
        assert!(client.derive(u32::MAX));
        let client_final = String::from_utf8(client.client_final().unwrap().to_vec()).unwrap();
        let (_, rest) = client_final.split_once(',').unwrap();
        let changed = format!("{}{rest}", encoded(stripped));
        let (known, server_final) = server.answer(client.client_first(), changed.as_bytes());
        assert!(!known, "{stripped}");
        let error = client.server_final(server_final.as_bytes()).unwrap_err();
        assert_eq!(error, ScramError::ServerSignature, "{stripped}");
    }
}
