//! Connection strings: no panic; what is accepted shows no password in `Debug`; what is refused
//! shows none in the error's text, nor anything that a terminal would take for a command.
//!
//! Input: a byte for the form: a text as it is; pairs; or a URL. In the two others a password with
//! a canary in it stands where a password belongs, see `pairs` and `url`.
//!
//! The environment must hold no variable of libpq's: `scripts/fuzz` sees to that.
#![no_main]

use distlock::Config;
use distlock_fuzz::{Input, check_text};
use libfuzzer_sys::fuzz_target;

/// A part of every password.
const CANARY: &str = "c4nary";

fuzz_target!(|data: &[u8]| {
    // A canary that the fuzzer has put where no password belongs proves nothing.
    let plain: Vec<u8> = data.iter().copied().filter(|byte| *byte != b'\\').collect();
    if plain.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
        return;
    }
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => check(&String::from_utf8_lossy(input.rest()), Password::None),
        1 => check(&pairs(&mut input, quoted), Password::Right),
        2 => check(&url(&mut input), Password::Right),
        _ => check(&pairs(&mut input, not_quoted), Password::Loose),
    }
});

/// How the password was written.
#[derive(PartialEq)]
enum Password {
    /// There is none.
    None,
    /// As the manual asks for.
    Right,
    /// Without quotes. What such a text means is anybody's guess, but no error must repeat a piece
    /// of it.
    Loose,
}

fn check(text: &str, password: Password) {
    let (shown, may_show) = match text.parse::<Config>() {
        Ok(config) => (format!("{config:?} {config:#?}"), password != Password::Right),
        Err(error) => {
            assert!(error.is_config(), "another error than one of the configuration: {error}");
            check_text(&error);
            (format!("{error} {error:?}"), password == Password::None)
        }
    };
    assert!(may_show || !shown.contains(CANARY), "{text:?}: {shown}");
}

const KEYWORDS: [&str; 16] = [
    "host",
    "port",
    "user",
    "dbname",
    "application_name",
    "connect_timeout",
    "require_auth",
    "sslmode",
    "client_encoding",
    "options",
    "hostaddr",
    "target_session_attrs",
    "passwort",
    "Password",
    "pasword",
    "",
];

const VALUES: [&str; 16] = [
    "",
    "localhost",
    "/var/run/postgresql",
    "::1",
    "5432",
    "0",
    "app",
    "prod",
    "10",
    "disable",
    "require",
    "scram-sha-256",
    "none,md5",
    "UTF8",
    "any",
    "a b",
];

/// A keyword and a value, each by a number or of the input.
fn pair(input: &mut Input<'_>) -> (String, String) {
    let (keyword, value) = (input.u8(), input.u8());
    let pick = |words: [&str; 16], number: u8, input: &mut Input<'_>| match number {
        0..=0xdf => words[usize::from(number % 16)].to_owned(),
        _ => input.text(),
    };
    (pick(KEYWORDS, keyword, input), pick(VALUES, value, input))
}

/// The password: the canary between two texts of the input.
fn password(input: &mut Input<'_>) -> String {
    [&input.text(), CANARY, &input.text()].concat()
}

/// `name=value` pairs, with the password somewhere among them, as `quote` writes it.
fn pairs(input: &mut Input<'_>, quote: impl Fn(&str) -> String) -> String {
    let count = usize::from(input.u8() % 8);
    let mut words: Vec<String> = (0..count)
        .map(|_| pair(input))
        .map(|(keyword, value)| format!("{keyword}={}", quoted(&value)))
        .collect();
    let place = usize::from(input.u8()) % (count + 1);
    words.insert(place, format!("password={}", quote(&password(input))));
    words.join(" ")
}

/// In quotes, as the manual asks for (libpq-connect, "Keyword/Value Connection Strings").
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Without quotes. In front of the canary neither a quote, which could end in the middle of the
/// password, nor a `=`, which would make pairs of it: behind whole pairs names are shown again.
fn not_quoted(text: &str) -> String {
    let (before, after) = text.split_once(CANARY).unwrap_or_default();
    format!("{}{CANARY}{after}", before.replace(['\'', '='], "-"))
}

/// A URL with the password in front of the host, or among the parameters.
fn url(input: &mut Input<'_>) -> String {
    let flags = input.u8();
    let password = percent_encoded(&password(input));
    let user = percent_encoded(&input.text());
    let (host, path) = (input.text(), percent_encoded(&input.text()));
    let mut parameters: Vec<String> = (0..flags >> 4)
        .map(|_| pair(input))
        .map(|(name, value)| format!("{}={}", percent_encoded(&name), percent_encoded(&value)))
        .collect();
    let mut authority = host.replace(['@', '/', '?', '%'], "-");
    if flags & 1 == 0 {
        authority.insert_str(0, &format!("{user}:{password}@"));
    } else {
        parameters.push(format!("password={password}"));
    }
    let query = if parameters.is_empty() { "" } else { "?" };
    format!("postgresql://{authority}/{path}{query}{}", parameters.join("&"))
}

/// As RFC 3986, section 2.1, has it: all but letters and digits.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
