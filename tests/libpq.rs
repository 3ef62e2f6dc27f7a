//! Connection strings, service files and password files, as we read them and as the real libpq
//! does (`libpq/conninfo.c`, in a process of its own; nothing is connected to).
//!
//! Thousands of generated texts must give the same: accepted by both with the same values, or by
//! none. Where we differ on purpose, the difference is in a table with its reason and with texts
//! that show it, so that one that goes away is noticed, too. A parameter that the installed libpq
//! does not have yet is told from one that nobody has by the table `SINCE`.
#![cfg(feature = "__internals")]

#[path = "libpq/files.rs"]
mod files;
#[path = "libpq/generate.rs"]
mod generate;
#[path = "libpq/library.rs"]
mod library;
#[path = "libpq/values.rs"]
mod values;

use std::collections::BTreeSet;

use distlock::conninfo;

use self::generate::Dice;
use self::library::{Values, libpq};

/// The version of libpq that a parameter came with, where that is after 15.
const SINCE: [(&str, u32); 15] = [
    ("require_auth", 16),
    ("sslcertmode", 16),
    ("load_balance_hosts", 16),
    ("gssdelegation", 16),
    ("sslnegotiation", 17),
    ("min_protocol_version", 18),
    ("max_protocol_version", 18),
    ("scram_client_key", 18),
    ("scram_server_key", 18),
    ("sslkeylogfile", 18),
    ("oauth_issuer", 18),
    ("oauth_client_id", 18),
    ("oauth_client_secret", 18),
    ("oauth_scope", 18),
    ("servicefile", 19),
];

/// What we refuse and libpq takes.
struct Difference {
    reason: &'static str,
    /// What our error says.
    says: &'static str,
    /// Texts that show it.
    shown_by: &'static [&'static str],
}

/// All the differences in the grammar of strings.
const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "a backslash at the end escapes nothing, so the string was cut off",
        says: "ends in a backslash with nothing to escape",
        shown_by: &["password=x\\", "host=a user=b\\", "password=\\"],
    },
    Difference {
        reason: "an `@` in the path is nearly always the end of a password that has a `/`",
        says: "the URL has an `@` after the host",
        shown_by: &["postgres://app:a/b@db/prod", "postgres:///a@b"],
    },
    Difference {
        reason: "values are texts; bytes that are none cannot be told in an error or a log",
        says: "of the URL is not UTF-8",
        shown_by: &["postgres://u:%ff@db", "postgres://db?options=%c3"],
    },
    Difference {
        reason: "libpq 18 drops white space at the ends of a part and refuses it elsewhere, and \
                 older ones take it as a piece of the value",
        says: "the URL has white space in",
        shown_by: &["postgres://db/prod ", "postgres:// db", "postgres://db?user= u"],
    },
    Difference {
        reason: "requiressl=0 means the sslmode `prefer`, which is none, and 1 is long out of use",
        says: "the parameter `requiressl` is not supported",
        shown_by: &["requiressl=1", "requiressl=0", "postgres://db?requiressl=1"],
    },
];

fn since(name: &str) -> u32 {
    SINCE.iter().find(|(known, _)| *known == name).map_or(15, |(_, major)| *major)
}

/// Our parameters, or why there are none.
fn ours(result: Result<conninfo::Parameters, distlock::Error>) -> Result<Values, String> {
    match result {
        Ok(parameters) => {
            Ok(parameters.into_iter().map(|(name, text)| (name, text.into_bytes())).collect())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn shown(result: &Result<Values, String>) -> String {
    match result {
        Err(error) => error.trim_end().to_owned(),
        Ok(values) => values
            .iter()
            .map(|(name, value)| format!("{name}={:?} ", String::from_utf8_lossy(value)))
            .collect(),
    }
}

/// Whether the installed libpq is too old for a string that we take.
fn is_ahead(values: &Values) -> bool {
    values.keys().any(|name| since(name) > libpq().major)
}

/// What is wrong with our reading of a string, if anything.
fn disagreement(text: &str, theirs: &Result<Values, String>) -> Option<String> {
    let ours = ours(conninfo::parse(text));
    match (&ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => None,
        (Err(_), Err(_)) => None,
        (Ok(ours), Err(_)) if is_ahead(ours) => None,
        (Err(error), Ok(_)) if DIFFERENCES.iter().any(|it| error.contains(it.says)) => None,
        _ => Some(format!("{text:?}\n  ours:   {}\n  theirs: {}", shown(&ours), shown(theirs))),
    }
}

#[test]
fn the_parameters_and_their_variables_are_those_of_libpq() {
    let library = libpq();
    let known = conninfo::known();
    let expected: BTreeSet<_> = known
        .iter()
        .filter(|(name, _)| since(name) <= library.major)
        .map(|(name, variable)| ((*name).to_owned(), variable.map(str::to_owned)))
        .collect();
    let theirs: BTreeSet<_> = library
        .parameters
        .iter()
        .map(|(name, parameter)| (name.clone(), parameter.variable.clone()))
        .collect();
    let missing: Vec<_> = expected.difference(&theirs).collect();
    assert!(missing.is_empty(), "libpq {} does not have {missing:?}", library.major);
    let unknown: Vec<_> = theirs.difference(&expected).collect();
    // A later version may have more than we know.
    assert!(unknown.is_empty() || library.major > 18, "we do not have {unknown:?}");
}

#[test]
fn generated_strings_are_read_as_libpq_reads_them() {
    let mut dice = Dice::new(0x5eed_0001);
    let texts: Vec<String> = (0..8000).map(|_| dice.string()).collect();
    let answers = libpq().parse(&texts);
    let mut wrong = Vec::new();
    let mut accepted = 0;
    for (text, theirs) in texts.iter().zip(&answers) {
        accepted += usize::from(theirs.as_ref().is_ok_and(|values| !values.is_empty()));
        wrong.extend(disagreement(text, theirs));
    }
    println!("{} strings, {accepted} accepted", texts.len());
    let count = wrong.len();
    wrong.truncate(20);
    assert!(count == 0, "{count} of them, such as\n{}", wrong.join("\n"));
    // So that it cannot come to compare nothing but refusals, or nothing but what is right.
    assert!((2000..6500).contains(&accepted), "{accepted} of {} accepted", texts.len());
}

#[test]
fn strings_of_note_are_read_as_libpq_reads_them() {
    const TEXTS: &[&str] = &[
        "",
        " ",
        "host",
        "=",
        "host=",
        "host = a",
        "host=a=b",
        "host='a",
        "host='a'port=1",
        "host=a host=b",
        "user= dbname=x",
        r"password=a\ b",
        r"password='a\'b\\'",
        r"password=\",
        "port=\u{a0}1",
        "postgres://",
        "postgresql:///",
        "postgres://?",
        "postgres://a?&",
        "postgres://a?port=1&&",
        "postgres://a?port",
        "postgres://a?port=1=2",
        "postgres://a?=x",
        "postgres://a?ssl=true",
        "postgres://a?ssl=%74rue",
        "postgres://a?ssl=false",
        "postgres://a?s%73l=true",
        "postgres://u:p@h:1/d?host=x&port=",
        "postgres://a,b,c:1,2",
        "postgres://[::1]:5,[::2],:6/x",
        "postgres://[a/b?c],d",
        "postgres://[::1",
        "postgres://[]",
        "postgres://[::1]x",
        "postgres://u@",
        "postgres://:p@",
        "postgres://@",
        "postgres://:@h",
        "postgres://u:p:q@h",
        "postgres://u:p@q@h",
        "postgres://h:p:q",
        "postgres://%41%zz",
        "postgres://%00",
        "postgres://h/%2525",
        "postgres://h/a?b",
        "postgres://a%2Cb:1",
        "postgres:/x=y",
        "Postgres://x=y",
        "mysql://x?a=b",
        "postgres",
        "postgres://h#x",
    ];
    let texts: Vec<String> = TEXTS.iter().map(ToString::to_string).collect();
    let wrong: Vec<_> = texts
        .iter()
        .zip(libpq().parse(&texts))
        .filter_map(|(text, theirs)| disagreement(text, &theirs))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_intended_difference_of_the_grammar_is_still_one() {
    for difference in DIFFERENCES {
        let texts: Vec<String> = difference.shown_by.iter().map(ToString::to_string).collect();
        for (text, theirs) in texts.iter().zip(libpq().parse(&texts)) {
            let error = conninfo::parse(text).expect_err(difference.reason).to_string();
            assert!(error.contains(difference.says), "{text}: {error}");
            assert!(theirs.is_ok(), "{text}: libpq refuses it, too: {theirs:?}");
        }
    }
    let long = format!("password={}", "x".repeat(70_000));
    assert!(conninfo::parse(&long).is_err() && libpq().parse(&[long])[0].is_ok());
}
