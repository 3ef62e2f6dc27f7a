//! Connection strings: no panic; a string that is put together by the rules is read back to what
//! it was put together of; what is accepted shows no password in `Debug`; what is refused shows
//! none in the error's text, nor anything that a terminal would take for a command.
//!
//! Input: a byte for the form: a text as it is; pairs; a URL; pairs with a password that was not
//! quoted. In the last three a password with a canary in it stands where a password belongs.
//!
//! The environment must hold no variable of libpq's: `scripts/fuzz` sees to that.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use distlock::{Config, Error, conninfo};
use distlock_fuzz::{Input, check_text};
use libfuzzer_sys::fuzz_target;

/// A part of every password.
const CANARY: &str = "c4nary";

/// The names of the parameters.
static KNOWN: LazyLock<Vec<&str>> =
    LazyLock::new(|| conninfo::known().into_iter().map(|(name, _)| name).collect());

/// Parameters that name a file: what is in it would be read, whichever it is.
const FILES: [&str; 6] = ["service", "servicefile", "passfile", "sslrootcert", "sslcert", "sslkey"];

/// Values by their names; of several the last.
type Values = BTreeMap<String, String>;

fuzz_target!(|data: &[u8]| {
    // A canary that the fuzzer has put where no password belongs proves nothing.
    let plain: Vec<u8> = data.iter().copied().filter(|byte| *byte != b'\\').collect();
    if plain.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
        return;
    }
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => {
            check(&String::from_utf8_lossy(input.rest()), Password::None);
        }
        1 => {
            let (text, pairs) = pairs(&mut input, quoted);
            check_pairs(check(&text, Password::Right), &text, &pairs);
        }
        2 => {
            let (text, expected) = url(&mut input);
            check_url(check(&text, Password::Right), expected.as_ref());
        }
        _ => {
            check(&pairs(&mut input, str::to_owned).0, Password::Loose);
        }
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

/// What the string says by itself, if it is well-formed.
fn check(text: &str, password: Password) -> Option<Values> {
    let refused = |error: Error| {
        assert!(error.is_config(), "another error than one of the configuration: {error}");
        check_text(&error);
        let shown = format!("{error} {error:?}");
        assert!(password == Password::None || !shown.contains(CANARY), "{text:?}: {shown}");
    };
    let values: Values = match conninfo::parse(text) {
        Ok(values) => values.into_iter().collect(),
        Err(error) => {
            refused(error);
            return None;
        }
    };
    let names_a_file = |name: &&str| values.get(*name).is_some_and(|value| !value.is_empty());
    if !FILES.iter().any(names_a_file) {
        match text.parse::<Config>() {
            Ok(config) => {
                let shown = format!("{config:?} {config:#?}");
                assert!(password != Password::Right || !shown.contains(CANARY), "{shown}");
            }
            Err(error) => refused(error),
        }
        let environment = [("USER".to_owned(), "fuzz".to_owned())];
        if let Err(error) = conninfo::plan(text, &environment) {
            refused(error);
        }
    }
    Some(values)
}

/// Pairs are read if their names are known, and then to what they are.
fn check_pairs(values: Option<Values>, text: &str, pairs: &[(String, String)]) {
    // A name that is none may make something else of the text.
    let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if pairs.iter().any(|(name, _)| !is_plain(name)) {
        return;
    }
    let is_good =
        !text.contains('\0') && pairs.iter().all(|(name, _)| KNOWN.contains(&name.as_str()));
    let expected = is_good.then(|| pairs.iter().cloned().collect::<Values>());
    assert_eq!(values, expected, "{text:?}");
}

/// A URL is read to what it was made of; its hosts and ports may be anything.
fn check_url(values: Option<Values>, expected: Option<&Values>) {
    let Some(mut values) = values else { return };
    let expected = expected.expect("a URL with a name that is none, or a NUL");
    for name in ["host", "port"] {
        if !expected.contains_key(name) {
            values.remove(name);
        }
    }
    assert_eq!(values, *expected);
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
fn pairs(input: &mut Input<'_>, quote: impl Fn(&str) -> String) -> (String, Vec<(String, String)>) {
    let count = usize::from(input.u8() % 8);
    let mut pairs: Vec<_> = (0..count).map(|_| pair(input)).collect();
    let place = usize::from(input.u8()) % (count + 1);
    pairs.insert(place, ("password".to_owned(), password(input)));
    let words = pairs.iter().enumerate().map(|(at, (name, value))| {
        format!("{name}={}", if at == place { quote(value) } else { quoted(value) })
    });
    (words.collect::<Vec<_>>().join(" "), pairs)
}

/// As the manual asks for (libpq-connect, "Keyword/Value Connection Strings"), in one of three
/// ways: in quotes; without, which no empty value can be; in quotes, with more backslashes than
/// needed.
fn quoted(text: &str) -> String {
    let escaped = |needs: fn(char) -> bool| -> String {
        let escape = |c| if needs(c) { format!("\\{c}") } else { String::from(c) };
        text.chars().map(escape).collect()
    };
    match text.len() % 3 {
        0 => format!("'{}'", escaped(|c| matches!(c, '\\' | '\''))),
        1 => escaped(|c| c.is_ascii_whitespace() || matches!(c, '\\' | '\'' | '\x0b')),
        _ => format!("'{}'", escaped(|c| !c.is_alphanumeric())),
    }
}

/// A URL with the password in front of the host, or among the parameters; and what it says, but for
/// its hosts and ports, if it is well-formed.
fn url(input: &mut Input<'_>) -> (String, Option<Values>) {
    let flags = input.u8();
    let (password, user) = (password(input), input.text());
    let (host, dbname) = (input.text(), input.text());
    let mut parameters: Vec<_> = (0..flags >> 4).map(|_| pair(input)).collect();
    let mut authority = host.replace(['@', '/', '?', '%'], "-");
    let mut parts = vec![("dbname".to_owned(), dbname.clone())];
    let password = ("password".to_owned(), password);
    if flags & 1 == 0 {
        let login = format!("{}:{}@", percent_encoded(&user), percent_encoded(&password.1));
        authority.insert_str(0, &login);
        parts.extend([("user".to_owned(), user), password]);
    } else {
        parameters.push(password);
    }
    let words: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", percent_encoded(name), percent_encoded(value)))
        .collect();
    let query = if words.is_empty() { "" } else { "?" };
    let path = percent_encoded(&dbname);
    let text = format!("postgresql://{authority}/{path}{query}{}", words.join("&"));
    // A part that is empty is not there; a parameter that is empty is.
    parts.retain(|(_, value)| !value.is_empty());
    // What JDBC says is understood.
    parts.extend(parameters.into_iter().map(|pair| match (&pair.0[..], &pair.1[..]) {
        ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
        _ => pair,
    }));
    let is_good =
        parts.iter().all(|(name, value)| KNOWN.contains(&name.as_str()) && !value.contains('\0'));
    (text, is_good.then(|| parts.into_iter().collect()))
}

/// As RFC 3986, section 2.1, has it: all but letters and digits.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
