//! The SCRAM client against every server: no panic, what is accepted is exactly what the grammar
//! and the password give, and steps out of order are refused.
//!
//! Input: a byte of flags, a byte of rounds for each slice of the derivation, two bytes for the
//! length of the server-first-message, that message, then the server-final-message (with flag 1
//! the password instead, and the final message is the right one).
//!
//! Flags: 0 the server-first-message begins with the client's nonce for free; 1 a password of the
//! input; 2 the right server-final-message instead of the input's; 3 a step out of order.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use distlock::proto::scram::{Binding, IterationLimits, ScramClient, ScramError};
use distlock_fuzz::scram::Keys;
use distlock_fuzz::{ENTROPY, Input, NONCE, PASSWORD, check_text};
use libfuzzer_sys::fuzz_target;

const LIMITS: IterationLimits = IterationLimits { min: 2, max: 40 };

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let flag = |n: u8| flags & (1 << n) != 0;
    let slice = u32::from(input.u8() % 8) + 1;
    let length = usize::from(input.u16());
    let mut server_first = input.bytes(length).to_vec();
    if flag(0) {
        server_first.splice(..0, format!("r={NONCE}").into_bytes());
    }
    let rest = input.rest();
    let own = flag(1).then(|| String::from_utf8_lossy(rest));

    let password = own.as_deref().unwrap_or(PASSWORD);
    let mut client = ScramClient::new(password, ENTROPY, LIMITS, Binding::None);
    assert_eq!(client.client_first(), format!("n,,n=,r={NONCE}").as_bytes());
    assert!(!client.derive(slice), "nothing to derive yet");
    if flag(3) {
        refused(client.client_final().map(|_| ()));
        return refused(client.server_first(&server_first));
    }
    let accepted = client.server_first(&server_first);
    if let Err(error) = accepted {
        check_text(&error);
        assert!(!client.derive(slice));
        refused(client.client_final().map(|_| ()));
        return refused(client.server_final(rest).map(|_| ()));
    }
    let first = First::reference(&server_first);
    let slices = (first.iterations - 1).div_ceil(slice);
    for n in 1..=slices {
        assert_eq!(client.derive(slice), n == slices, "slice {n} of {slices}");
    }
    assert!(client.derive(0));
    let client_final = client.client_final().expect("it is derived").to_vec();
    let (auth_message, proof) = first.client_final(&client_final);
    if own.is_some() {
        // SASLprep has no second implementation here: only that it does not panic.
        return;
    }
    let keys = Keys::new(PASSWORD.as_bytes(), &first.salt, first.iterations);
    assert!(keys.accepts(auth_message.as_bytes(), &proof), "a proof that no server takes");
    let right = keys.server_final(auth_message.as_bytes());
    let server_final = if flag(2) { right.as_bytes() } else { rest };
    match client.server_final(server_final) {
        Ok(_) => assert_eq!(server_final, right.as_bytes(), "an impostor was believed"),
        Err(error) => {
            check_text(&error);
            assert_ne!(server_final, right.as_bytes(), "the server was not believed");
        }
    }
});

fn refused(result: Result<(), ScramError>) {
    let error = result.expect_err("a step out of order");
    assert!(matches!(error, ScramError::OutOfOrder { .. }), "{error}");
}

/// A server-first-message that was accepted, read a second time and with less care.
struct First<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> First<'a> {
    fn reference(message: &'a [u8]) -> Self {
        let text = std::str::from_utf8(message).expect("ASCII");
        let [nonce, salt, count] = text.split(',').collect::<Vec<_>>()[..] else {
            panic!("three attributes, not {text:?}");
        };
        let nonce = &nonce[2..];
        let salt = STANDARD.decode(&salt[2..]).expect("base64");
        let iterations: u32 = count[2..].parse().expect("a number");
        let again = format!("r={nonce},s={},i={iterations}", STANDARD.encode(&salt));
        assert_eq!(text, again, "accepted, but not what the grammar makes of it");
        assert!(nonce.len() > NONCE.len() && nonce.starts_with(NONCE) && nonce.len() <= 256);
        assert!(nonce.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!((LIMITS.min..=LIMITS.max).contains(&iterations) && !salt.is_empty());
        Self { text, nonce, salt, iterations }
    }

    /// Checks the form of our client-final-message; gives the AuthMessage and the proof.
    fn client_final(&self, message: &[u8]) -> (String, [u8; 32]) {
        let text = std::str::from_utf8(message).expect("ASCII");
        let without_proof = format!("c=biws,r={}", self.nonce);
        let proof = text.strip_prefix(&without_proof).and_then(|rest| rest.strip_prefix(",p="));
        let proof = STANDARD.decode(proof.expect("the form of RFC 5802")).expect("base64");
        let auth_message = format!("n=,r={NONCE},{},{without_proof}", self.text);
        (auth_message, proof.try_into().expect("32 bytes"))
    }
}
