//! Tests of the SCRAM client: vectors of the RFC and of an independent implementation, a small
//! server that knows a password, and tables of everything that a hostile server may send.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::keys::xor;
use super::*;
use crate::proto::rehearsal::ITERATIONS;

mod plus;
mod wiped;

/// Takes every count, so that the tests need not run thousands of rounds.
const ANY: IterationLimits = IterationLimits { min: 1, max: u32::MAX };

/// The nonce that the entropy of [`client`] gives.
const NONCE: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

/// The example of RFC 7677 section 3.
const RFC_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const RFC_SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const RFC_CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const RFC_SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn client(password: &str, limits: IterationLimits) -> ScramClient {
    ScramClient::new(password, [0; NONCE_ENTROPY], limits, Binding::None)
}

fn rfc_client_with(limits: IterationLimits) -> ScramClient {
    ScramClient::with_nonce("user", RFC_NONCE.into(), "pencil", limits, Binding::None)
}

fn rfc_client() -> ScramClient {
    rfc_client_with(ITERATIONS)
}

/// A client that waits for the server's signature; it made its proof with one round.
fn signed_client() -> ScramClient {
    let mut client = client("pencil", ANY);
    client.server_first(format!("r={NONCE}x,s=AA==,i=1").as_bytes()).unwrap();
    client.client_final().unwrap();
    client
}

/// What the server checks and answers, straight from RFC 5802 section 3.
struct Server {
    password: &'static [u8],
    server_first: String,
}

impl Server {
    fn new(password: &'static str, iterations: u32) -> Self {
        let server_first = format!("r={NONCE}srv,s=c2FsdA==,i={iterations}");
        Self { password: password.as_bytes(), server_first }
    }

    /// Whether the proof is right, and the server-final-message.
    fn answer(&self, client_first: &[u8], client_final: &[u8]) -> (bool, String) {
        let hmac = |key: &[u8], text: &[u8]| -> [u8; 32] {
            let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text);
            mac.finalize().into_bytes().into()
        };
        let mut round = hmac(self.password, b"salt\0\0\0\x01");
        let mut salted = round;
        let (_, count) = self.server_first.rsplit_once("i=").unwrap();
        for _ in 1..count.parse::<u32>().unwrap() {
            round = hmac(self.password, &round);
            xor(&mut salted, &round);
        }
        let bare = std::str::from_utf8(client_first).unwrap().splitn(3, ',').nth(2).unwrap();
        let client_final = std::str::from_utf8(client_final).unwrap();
        let (without_proof, proof) = client_final.rsplit_once(",p=").unwrap();
        let auth_message = format!("{bare},{},{without_proof}", self.server_first);
        let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
        let mut client_key = hmac(&stored_key, auth_message.as_bytes());
        xor(&mut client_key, &STANDARD.decode(proof).unwrap().try_into().unwrap());
        let signature = hmac(&hmac(&salted, b"Server Key"), auth_message.as_bytes());
        let known = Sha256::digest(client_key) == stored_key;
        (known, format!("v={}", STANDARD.encode(signature)))
    }

    /// Runs a whole exchange: whether the server took the client, and what the client says.
    fn meet(&self, mut client: ScramClient) -> (bool, Result<ServerVerified, ScramError>) {
        client.server_first(self.server_first.as_bytes()).unwrap();
        assert!(client.derive(u32::MAX));
        let client_final = client.client_final().unwrap().to_vec();
        let (known, server_final) = self.answer(client.client_first(), &client_final);
        (known, client.server_final(server_final.as_bytes()))
    }
}

#[test]
fn the_example_of_rfc_7677_is_met() {
    let mut client = rfc_client();
    assert_eq!(client.client_first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    client.server_first(RFC_SERVER_FIRST.as_bytes()).unwrap();
    while !client.derive(1000) {}
    let client_final = client.client_final().unwrap();
    assert_eq!(std::str::from_utf8(client_final).unwrap(), RFC_CLIENT_FINAL);
    assert!(client.server_final(RFC_SERVER_FINAL.as_bytes()).is_ok());
}

/// Computed with another implementation (Python's hashlib and hmac).
#[test]
fn the_proof_is_that_of_an_independent_implementation() {
    let vectors: [(String, u32, u32, &str); 6] = [
        ("x".into(), 1, 1, "wbHeIrB0F+aZ16ml6Fl1/M+nca0xXL2BmeUqnbpJ6h8="),
        ("pencil".into(), 16, 2, "WTR7mTSzNClz2K9wKJcBVuaU4o0kuUEB1AyOYhmR2JI="),
        ("k".repeat(64), 16, 3, "HAsV7BEX5tmyXfnKq7l/aT+oOSCWGlExTE0+pXyOSzM="),
        ("k".repeat(65), 16, 3, "e8fJTwk590qBnIguUzRJ00MVT1goeSUOps/f+muufDs="),
        ("k".repeat(300), 1024, 5, "vEfpoQ0mbPzMbn6KXFDdIlN7KEPFf5YzLOBVBob6hWw="),
        ("p\u{e4}ssw\u{f6}rd".into(), 20, 7, "IeaKmfbe4dO6H07EuKmDEZOnb7iLtswQED0MLq7qq/8="),
    ];
    for (password, salt, iterations, proof) in vectors {
        let salt: Vec<u8> = (0..salt).map(|byte| (byte % 251) as u8).collect();
        let salt = STANDARD.encode(salt);
        let mut client = client(&password, ANY);
        let server_first = format!("r={NONCE}srv,s={salt},i={iterations}");
        client.server_first(server_first.as_bytes()).unwrap();
        assert!(client.derive(iterations));
        let client_final = std::str::from_utf8(client.client_final().unwrap()).unwrap();
        assert_eq!(client_final, format!("c=biws,r={NONCE}srv,p={proof}"), "{password}");
    }
}

#[test]
fn the_first_message_is_the_header_no_user_name_and_the_entropy() {
    assert_eq!(client("pencil", ANY).client_first(), format!("n,,n=,r={NONCE}").as_bytes());
    let other = ScramClient::new("pencil", [0xff; NONCE_ENTROPY], ANY, Binding::None);
    assert_eq!(other.client_first(), b"n,,n=,r=////////////////////////");
}

#[test]
fn both_sides_are_convinced_by_the_right_password_only() {
    let long = "a password that has more bytes than the sixty-four of one block of the hash";
    for password in ["pencil", "", "x", long] {
        let (known, verified) = Server::new(password, 3).meet(client(password, ANY));
        assert!(known && verified.is_ok(), "{password}");
    }
    let (known, verified) = Server::new("pencil", 3).meet(client("Pencil", ANY));
    assert!(!known, "the server took a wrong proof");
    assert_eq!(verified.unwrap_err(), ScramError::ServerSignature);
}

#[test]
fn slices_of_any_size_derive_the_same_key() {
    for slice in [1, 7, 4096, u32::MAX] {
        let mut client = rfc_client();
        client.server_first(RFC_SERVER_FIRST.as_bytes()).unwrap();
        assert!(!client.derive(0), "no round was run");
        while !client.derive(slice) {}
        assert!(client.derive(0) && client.derive(slice), "it stays ready");
        assert_eq!(client.client_final().unwrap(), RFC_CLIENT_FINAL.as_bytes(), "{slice}");
        assert!(client.derive(slice), "it stays ready");
    }
}

#[test]
fn a_slice_runs_no_more_rounds_than_asked_for() {
    let mut client = client("pencil", ANY);
    client.server_first(format!("r={NONCE}x,s=AA==,i=10").as_bytes()).unwrap();
    // The first round is run where the salt is read.
    let ready: Vec<bool> = (0..9).map(|_| client.derive(1)).collect();
    assert_eq!(ready, [false, false, false, false, false, false, false, false, true]);
}

/// N, S and I stand for a good nonce, salt and iteration count.
#[test]
fn a_server_first_message_of_another_shape_is_rejected() {
    // Attributes that are missing, empty, doubled, out of order, or not known.
    let rows = ", ,, ,,, = r r= e=other-error v=AAAA N N, N,S N,S, N,I S,I N,S,i N,s,I n,S,I \
        S,N,I N,I,S I,S,N I,N,S S,I,N N,N,S,I N,S,S,I N,S,I,I N,S,I,S N,S,I,N N,S,I,N,S,I \
        N,,S,I N,S,,I ,N,S,I N,S,I, N,S,I,, m=x,N,S,I m=,N,S,I N,m=x,S,I N,S,m=x,I N,S,I,m=x \
        x=1,N,S,I N,x=1,S,I N,S,x=1,I N,S,I,x=1 N,S,I,e=x N,S,I,v=AAAA N;S;I NSI";
    let spaced = ["", " ", " N,S,I", "N, S,I", "N,S, I", "N,S,I ", "N,S,I\n", "\nN,S,I", "N,S,I\0"];
    let rows: Vec<&str> = rows.split_whitespace().chain(spaced).collect();
    assert!(rows.len() >= 50);
    let (nonce, salt, count) = (format!("r={NONCE}x"), "s=AA==", "i=4096");
    let good = format!("{nonce},{salt},{count}");
    assert_eq!(client("pencil", ANY).server_first(good.as_bytes()), Ok(()));
    for row in rows {
        let row = row.replace('S', salt).replace('I', count).replace('N', &nonce);
        assert_first_rejected(row.as_bytes());
    }
    for name in [("r=", "R="), ("s=", "S="), ("i=", "I="), ("r=", ""), ("s=", ""), ("i=", "")] {
        assert_first_rejected(good.replace(name.0, name.1).as_bytes());
    }
    assert_first_rejected(b"\xff");
    assert_first_rejected(&[good.as_bytes(), b"\xff"].concat());
}

#[test]
fn a_nonce_that_is_not_printable_or_does_not_prolong_ours_is_rejected() {
    let of = |nonce: &str| format!("r={nonce},s=AA==,i=4096");
    let lower = format!("{}x", NONCE.to_lowercase());
    for nonce in ["", "EVIL", NONCE, &NONCE[1..], &lower, &format!("x{NONCE}"), &"x".repeat(256)] {
        assert_first_rejected(of(nonce).as_bytes());
    }
    for added in [" ", "a b", "a ", "\t", "\n", "\0", "\x1b", "\u{7f}", "\u{80}", "\u{e9}"] {
        assert_first_rejected(of(&format!("{NONCE}{added}")).as_bytes());
    }
    for length in [257 - NONCE.len(), 65_536] {
        assert_first_rejected(of(&format!("{NONCE}{}", "x".repeat(length))).as_bytes());
    }
    assert_first_rejected(&[b"r=", NONCE.as_bytes(), b"\xff,s=AA==,i=4096"].concat());
}

/// A salt is not empty, at most 1 KiB long, and in the one base64 form of its bytes.
#[test]
fn a_salt_of_another_form_is_rejected() {
    let of = |salt: &str| format!("r={NONCE}x,s={salt},i=4096");
    for salt in [
        "", "=", "==", "====", "A", "AA", "AAA", "AA=", "AA===", "AA====", "AAAA=", "AB==", "AAB=",
        "AA==AA==", "AA== ", " AA==", "A A==", "AA==\n", "AA\n==", "AA==\0", "-_-_", "A*==",
        "\u{e9}", "'AA=='",
    ] {
        assert_first_rejected(of(salt).as_bytes());
    }
    for length in [1025, 1026, 1027, 2048, 65_536] {
        assert_first_rejected(of(&STANDARD.encode(vec![0; length])).as_bytes());
    }
}

fn assert_first_rejected(message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    let mut client = client("pencil", ANY);
    let error = client.server_first(message).expect_err(&text);
    let named = matches!(error, ScramError::Malformed { .. } | ScramError::Nonce { .. });
    assert!(named, "{text}: {error}");
    assert!(error.to_string().len() < 250, "{text}: {error}");
    assert!(matches!(client.client_final(), Err(ScramError::OutOfOrder { .. })), "{text}");
    assert!(!client.derive(u32::MAX), "{text}");
}

#[test]
fn the_longest_nonce_and_salt_are_taken() {
    let nonce = format!("{NONCE}{}", "~".repeat(256 - NONCE.len()));
    let salt = STANDARD.encode(vec![7; 1024]);
    let message = format!("r={nonce},s={salt},i=1");
    client("pencil", ANY).server_first(message.as_bytes()).unwrap();
}

#[test]
fn an_iteration_count_is_a_plain_number_within_the_limits() {
    let limits = ITERATIONS;
    let answer = |count: &str| {
        let message = format!("r={NONCE}x,s=AA==,i={count}");
        client("pencil", limits).server_first(message.as_bytes())
    };
    for count in ["4096", "4097", "99999", "100000"] {
        assert_eq!(answer(count), Ok(()), "{count}");
    }
    let nines = "99999999999999999999";
    for count in ["1", "4095", "100001", "4294967295", "4294967296", "4294971392", nines] {
        let error = answer(count).expect_err(count);
        let expected = ScramError::Iterations { count: count.into(), min: 4096, max: 100_000 };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(text.contains(&format!("for {count} ")), "{text}");
        assert!(text.contains("4096 to 100000"), "{text}");
    }
    for count in [
        "", "0", "00", "+4096", "-4096", "0x1000", " 4096", "4096 ", "04096", "4096.0", "4e3",
        "4_096", "4'096", "\u{664}", "x", "1\0",
    ] {
        let error = answer(count).expect_err(count);
        assert!(matches!(error, ScramError::Malformed { .. }), "{count}: {error}");
    }
}

#[test]
fn zero_iterations_are_refused_whatever_the_limits() {
    let limits = IterationLimits { min: 0, max: u32::MAX };
    let message = format!("r={NONCE}x,s=AA==,i=0");
    assert!(client("pencil", limits).server_first(message.as_bytes()).is_err());
}

#[test]
fn an_endless_iteration_count_makes_a_short_error() {
    let message = format!("r={NONCE}x,s=AA==,i={}", "9".repeat(100_000));
    let error = client("pencil", ANY).server_first(message.as_bytes()).unwrap_err();
    assert!(matches!(error, ScramError::Iterations { .. }), "{error}");
    assert!(error.to_string().len() < 350, "{error}");
}

#[test]
fn a_malformed_server_final_message_is_rejected() {
    let good = "dM7DJNpLF4yUYLZd4PNRRHPCvLNDvEFWiIG6LKAIVuQ=";
    let reject = |row: String| {
        let error = signed_client().server_final(row.as_bytes()).expect_err(&row);
        assert!(matches!(error, ScramError::Malformed { .. }), "{row}: {error}");
    };
    for row in [
        "", "v", "v=", "v==", "v====", "v=bad", ",", ",,", "e", "E=x", "r=x", "m=x", "@", "=@",
        "V=@", "v@", "v==@", " v=@", "v= @", "v=@ ", "v=@\n", "v=@\0", "v=@,", "v=@,x=1",
        "v=@,m=1", "v=@,v=@", "v=@,e=x", "v=@@", "v=@=", "m=x,v=@", "x=1,v=@", "r=x,v=@",
        "v=\u{e9}", "v=*@",
    ] {
        reject(row.replace('@', good));
    }
    for length in [0, 1, 31, 33, 34, 48, 64, 65_536] {
        reject(format!("v={}", STANDARD.encode(vec![0; length])));
    }
    // No padding, the alphabet of URLs, and bits behind the last byte.
    reject(format!("v={}", good.trim_end_matches('=')));
    reject(format!("v={}", good.replace('L', "-")));
    reject(format!("v={}", good.replace("Q=", "R=")));
    assert!(signed_client().server_final(b"v=\xff\xfe").is_err());
    let error = signed_client().server_final(format!("v={good}").as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::ServerSignature, "well-formed, and of another password");
}

#[test]
fn an_error_of_the_server_is_shown_short_and_without_control_characters() {
    let refused = |text: &[u8]| {
        let error = signed_client().server_final(&[b"e=", text].concat()).unwrap_err();
        let ScramError::Refused(reason) = error else { panic!("{error}") };
        reason.into_string()
    };
    assert_eq!(refused(b"other-error"), "other-error");
    assert_eq!(refused(b""), "");
    assert_eq!(refused(b"a\nb\x1b[31m\x00\xff"), "a?b?[31m??");
    let long = refused(&vec![b'x'; 65_536]);
    assert_eq!(long, format!("{}...", "x".repeat(64)));
}

#[test]
fn every_truncation_of_the_servers_messages_is_rejected_or_changes_the_exchange() {
    for end in 0..RFC_SERVER_FIRST.len() {
        let mut client = rfc_client();
        // A shorter count is still a number, and then out of the limits.
        assert!(client.server_first(&RFC_SERVER_FIRST.as_bytes()[..end]).is_err(), "{end}");
    }
    let mut client = rfc_client_with(ANY);
    let shorter = RFC_SERVER_FIRST.strip_suffix('6').unwrap();
    client.server_first(shorter.as_bytes()).unwrap();
    assert!(client.derive(409));
    client.client_final().unwrap();
    let error = client.server_final(RFC_SERVER_FINAL.as_bytes()).unwrap_err();
    assert_eq!(error, ScramError::ServerSignature);
    for end in 0..RFC_SERVER_FINAL.len() {
        let error = signed_client().server_final(&RFC_SERVER_FINAL.as_bytes()[..end]).unwrap_err();
        assert!(matches!(error, ScramError::Malformed { .. }), "{end}: {error}");
    }
}

#[test]
fn every_changed_byte_of_the_servers_messages_ends_the_exchange() {
    let server = Server::new("pencil", 3);
    let good = server.server_first.as_bytes();
    for (at, bit) in (0..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = good.to_vec();
        changed[at] ^= 1 << bit;
        let mut client = client("pencil", ANY);
        if client.server_first(&changed).is_err() {
            continue;
        }
        assert!(client.derive(u32::MAX));
        let client_final = client.client_final().unwrap().to_vec();
        let (known, server_final) = server.answer(client.client_first(), &client_final);
        assert!(!known, "byte {at}, bit {bit}");
        assert!(client.server_final(server_final.as_bytes()).is_err(), "byte {at}, bit {bit}");
    }
    for (at, bit) in (0..RFC_SERVER_FINAL.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let client = signed_client();
        let signature = STANDARD.encode(*client.secrets.server_signature);
        let mut changed = format!("v={signature}").into_bytes();
        changed[at] ^= 1 << bit;
        assert!(client.server_final(&changed).is_err(), "byte {at}, bit {bit}");
    }
}

#[test]
fn no_step_can_be_taken_twice_or_out_of_order() {
    let server_first = format!("r={NONCE}x,s=AA==,i=3");
    let server_first = server_first.as_bytes();
    let out_of_order =
        |error: &ScramError| assert!(matches!(error, ScramError::OutOfOrder { .. }), "{error}");

    let mut early = client("pencil", ANY);
    assert!(!early.derive(10));
    out_of_order(&early.client_final().unwrap_err());
    out_of_order(&early.server_first(server_first).unwrap_err());
    out_of_order(&client("pencil", ANY).server_final(b"v=AAAA").unwrap_err());

    let mut twice = client("pencil", ANY);
    twice.server_first(server_first).unwrap();
    out_of_order(&twice.server_first(server_first).unwrap_err());
    assert!(!twice.derive(10));
    out_of_order(&twice.client_final().unwrap_err());

    let mut skipped = client("pencil", ANY);
    skipped.server_first(server_first).unwrap();
    out_of_order(&skipped.client_final().unwrap_err());
    out_of_order(&skipped.server_final(b"v=AAAA").unwrap_err());

    let mut unsent = client("pencil", ANY);
    unsent.server_first(server_first).unwrap();
    assert!(unsent.derive(10));
    out_of_order(&unsent.server_final(b"v=AAAA").unwrap_err());

    let mut replayed = signed_client();
    out_of_order(&replayed.client_final().unwrap_err());
    out_of_order(&replayed.server_final(b"v=AAAA").unwrap_err());
    let mut restarted = signed_client();
    out_of_order(&restarted.server_first(server_first).unwrap_err());
    out_of_order(&restarted.server_final(b"e=other-error").unwrap_err());
}

/// A PostgreSQL 15 server took each of these but the empty one, which it takes for no password.
#[test]
fn a_password_is_prepared_as_the_server_prepares_it() {
    let rows = [
        ("pencil", "pencil"),
        ("", ""),
        (" two  spaces ", " two  spaces "),
        // RFC 4013 section 3.
        ("I\u{ad}X", "IX"),
        ("USER", "USER"),
        ("\u{aa}", "a"),
        ("\u{2168}", "IX"),
        ("\u{7}", "\u{7}"),
        ("\u{627}1", "\u{627}1"),
        // Spaces outside ASCII become a space; compatibility forms and accents are composed.
        ("a\u{a0}b\u{3000}c\u{2003}d", "a b c d"),
        ("\u{212b}", "\u{c5}"),
        ("e\u{301}", "\u{e9}"),
        ("\u{fb01}sh", "fish"),
        ("\u{ff21}\u{ff22}", "AB"),
        ("\u{627}\u{628}", "\u{627}\u{628}"),
        // Prohibited, or not in Unicode 3.2: the raw password.
        ("\u{aa}\u{7}", "\u{aa}\u{7}"),
        ("\u{aa}\u{7f}", "\u{aa}\u{7f}"),
        ("\u{aa}\u{e000}", "\u{aa}\u{e000}"),
        ("\u{aa}\u{fffd}", "\u{aa}\u{fffd}"),
        ("\u{aa}\u{202e}", "\u{aa}\u{202e}"),
        ("\u{aa}\u{e0001}", "\u{aa}\u{e0001}"),
        ("\u{aa}\u{1f600}", "\u{aa}\u{1f600}"),
        ("a\u{627}", "a\u{627}"),
        // Prohibited before they are normalized to something that is not.
        ("a\u{340}", "a\u{340}"),
        ("\u{32ff}", "\u{32ff}"),
        // Nothing would be left.
        ("\u{ad}", "\u{ad}"),
        ("\u{feff}\u{200d}", "\u{feff}\u{200d}"),
    ];
    for (password, prepared) in rows {
        let found = prepare(password);
        assert_eq!(std::str::from_utf8(&found).unwrap(), prepared, "{password:?}");
    }
}

#[test]
fn passwords_that_the_server_takes_for_one_make_one_proof() {
    let (known, verified) = Server::new("IX", 2).meet(client("I\u{ad}X", ANY));
    assert!(known && verified.is_ok());
    let (known, verified) = Server::new("IX", 2).meet(client("\u{2168}", ANY));
    assert!(known && verified.is_ok());
}

#[test]
fn debug_shows_no_secrets_at_any_step() {
    let check = |client: &ScramClient| {
        let text = format!("{client:?} {client:#?}");
        for secret in ["hunter2", "104, 117, 110", "68756e", "p=", NONCE] {
            assert!(!text.contains(secret), "{text}");
        }
    };
    let mut client = client("hunter2", ANY);
    check(&client);
    client.server_first(format!("r={NONCE}x,s=AA==,i=2").as_bytes()).unwrap();
    check(&client);
    assert!(client.derive(2));
    check(&client);
    client.client_final().unwrap();
    check(&client);
    let error = client.server_final(&[b"v=", [b'A'; 43].as_slice(), b"="].concat()).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}
