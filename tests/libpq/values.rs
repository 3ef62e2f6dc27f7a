//! Where values come from, and which are accepted.

use std::collections::BTreeMap;

use distlock::conninfo;

use self::Verdict::{Same, Stricter};
use super::library::{Start, Started, libpq};
use super::{ours, since};

/// What libpq looks at nearly last: a word that it refuses keeps it from connecting, when all else
/// was accepted.
const STOP: &str = " target_session_attrs=-";

pub(crate) fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Whether libpq took the sources for good, up to [`STOP`].
pub(crate) fn is_accepted(started: &Started) -> bool {
    started.error.contains("invalid target_session_attrs value")
}

/// What is wrong with our reading of the sources, if anything. Where we refuse, `refusal` must say
/// why, if it is a difference.
pub(crate) fn disagreement(start: &Start<'_>, started: &Started) -> Option<String> {
    let (environment, text) = start;
    let ours = ours(conninfo::resolve(text, environment));
    let values = match (&ours, is_accepted(started)) {
        (Ok(values), true) => values,
        (Err(_), false) => return None,
        _ => {
            let theirs = &started.error;
            return Some(format!(
                "{text:?} {environment:?}\n  ours:   {ours:?}\n  theirs: {theirs}"
            ));
        }
    };
    let mut wrong = Vec::new();
    for (name, parameter) in &libpq().parameters {
        let theirs = started.values.get(name).map(|text| String::from_utf8_lossy(text));
        let given = values.get(name).map(|text| String::from_utf8_lossy(text));
        let is_system = values.get("sslrootcert").is_some_and(|text| text == b"system");
        let expected = match (name.as_str(), given) {
            // Not told, or our own, or looked up by libpq in the system.
            ("service" | "servicefile" | "target_session_attrs", _) => continue,
            ("user" | "passfile", None) => continue,
            ("user" | "passfile" | "dbname", Some(text)) if text.is_empty() => continue,
            ("dbname", None) => started.values.get("user").map(|it| String::from_utf8_lossy(it)),
            ("sslmode", None) if is_system && libpq().major >= 16 => Some("verify-full".into()),
            ("sslcertmode", None) => Some("allow".into()),
            (_, Some(given)) => Some(given),
            // An empty default is told as empty, and one that is missing is not told.
            (_, None) => match (&parameter.default, &theirs) {
                (None, Some(text)) if text.is_empty() => Some("".into()),
                (default, _) => default.as_deref().map(Into::into),
            },
        };
        if expected != theirs {
            wrong.push(format!("{name}: ours {expected:?}, theirs {theirs:?}"));
        }
    }
    let wrong = wrong.join("; ");
    (!wrong.is_empty()).then(|| format!("{text:?} {environment:?}: {wrong}"))
}

#[test]
fn the_string_comes_before_the_environment_as_in_libpq() {
    let all: Vec<(String, String)> = libpq()
        .parameters
        .iter()
        .filter_map(|(name, parameter)| Some((name, parameter.variable.clone()?)))
        .filter(|(name, _)| {
            !["service", "servicefile", "target_session_attrs"].contains(&name.as_str())
        })
        .map(|(name, variable)| {
            let value = match name.as_str() {
                "sslmode" => "verify-ca",
                "channel_binding" => "disable",
                "gssencmode" => "disable",
                "sslcertmode" => "disable",
                "require_auth" => "md5",
                "load_balance_hosts" => "random",
                "sslnegotiation" => "postgres",
                "port" => "7",
                "hostaddr" => "10.0.0.1",
                "ssl_min_protocol_version" | "ssl_max_protocol_version" => "TLSv1.3",
                "min_protocol_version" | "max_protocol_version" => "3.0",
                _ => "env",
            };
            (variable, value.to_owned())
        })
        .collect();
    let full = |text| (all.clone(), text);
    let some = |pairs: &[(&str, &str)], text| (environment(pairs), text);
    let starts = [
        full("target_session_attrs=-"),
        full("host=h port=1 user=u password=p dbname=d application_name=a target_session_attrs=-"),
        full("postgres://u:p@h:1/d?target_session_attrs=-&sslmode=disable&options=x"),
        full("host='' user='' password='' dbname='' options='' target_session_attrs=-"),
        some(&[], "target_session_attrs=-"),
        some(&[("HOME", "/nonexistent")], "target_session_attrs=-"),
        some(&[("PGHOST", ""), ("PGPORT", ""), ("PGUSER", "u")], "target_session_attrs=-"),
        some(&[("PGHOST", "a,b"), ("PGPORT", "1,2")], "target_session_attrs=-"),
        some(&[("PGREQUIRESSL", "0")], "target_session_attrs=-"),
        some(&[("PGREQUIRESSL", "1"), ("PGSSLMODE", "disable")], "target_session_attrs=-"),
        some(&[("PGREQUIRESSL", "1")], "sslmode=disable target_session_attrs=-"),
        some(&[("PGSSLROOTCERT", "system")], "sslmode=verify-full target_session_attrs=-"),
        some(&[("PGSSLROOTCERT", "system")], "target_session_attrs=-"),
        some(&[("PGSERVICE", "x"), ("HOME", "/nonexistent")], "target_session_attrs=-"),
        some(&[("PGSERVICE", ""), ("HOME", "/nonexistent")], "target_session_attrs=-"),
        some(&[("PGSERVICE", "x"), ("PGSERVICEFILE", "/nonexistent")], "target_session_attrs=-"),
        some(&[], "service='' target_session_attrs=-"),
    ];
    let (answers, _) = libpq().start(&starts);
    let wrong: Vec<_> = starts
        .iter()
        .zip(&answers)
        .filter_map(|(start, started)| disagreement(start, started))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answers.iter().filter(|started| is_accepted(started)).count() >= 12);
}

/// What we think of a value that libpq takes.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// The same.
    Same,
    /// We refuse it, and libpq does not: the reason, and what our error says.
    Stricter(Reason),
}

type Reason = (&'static str, &'static str);

const PREFER: Reason = ("it protects from nobody who is active", "goes on in clear without a word");
const PORT: Reason = ("libpq looks at it only when it uses it", "is not a number from 1 to 65535");
const NUMBER: Reason = ("libpq looks at it only when it uses it", "is not a whole number");
const RANGE: Reason = ("the system refuses it when it is set", "must be from 1 to 127");
const NUMERIC: Reason = ("libpq looks at it only when it uses it", "is not an IP address");
const HOST: Reason = ("nobody can have that name", "has a character that no host name has");
const DBNAME: Reason = ("nobody means such a name", "is a connection string");
const ENCODING: Reason = ("this crate speaks nothing else", "must be UTF8 or auto");
const BINDING: Reason = ("without TLS it can never be met", "connected to without TLS");
const WORD: Reason = ("libpq takes anything but a 1 for no", "must be one of: 1, 0");
const COMPRESSION: Reason = ("compressed TLS leaks what it carries", "must be one of: 0");
const UNSUPPORTED: Reason = ("it is not built", "is known to libpq but not supported");
const OLD_TLS: Reason = ("it is not safe any more", "is older than TLSv1.2");
const NO_PASSWORD: Reason = ("it can never be met", "needs a password, but none is configured");
const NEGATION: Reason = ("it would loosen our default", "which leaves no method for");
const MIXED: Reason = ("the value would show the password", "has `password=` in it");
const FOLDER: Reason = ("the value would show the password", "is a directory with an `=`");
const GSS: Reason = ("it is not built", "which is known to libpq but not supported");
const CLEAR: Reason = ("anyone could answer", "the password in clear text");

/// Values, and whether libpq takes them before it connects. TLS is left out but for what is
/// refused in any case, as it depends on the features of this build.
const ROWS: &[(&str, Verdict)] = &[
    ("host=a,b port=1", Same),
    ("host=a,b port=1,2", Same),
    ("host=a,b port=1,2,3", Same),
    ("host=a,b,c port=1,2", Same),
    ("host=a port=1,2", Same),
    ("port=1,2", Same),
    ("host=a,b port=,", Same),
    ("hostaddr=::1,::2 port=,7", Same),
    ("host=a,b hostaddr=::1", Same),
    ("host=a hostaddr=::1,::2", Same),
    ("host=a,b hostaddr=::1,", Same),
    ("host=, hostaddr=,", Same),
    ("port=0", Stricter(PORT)),
    ("port=x", Stricter(PORT)),
    ("hostaddr=a", Stricter(NUMERIC)),
    ("hostaddr=127.1", Stricter(NUMERIC)),
    ("host=@abstract", Stricter(HOST)),
    ("host='a b'", Stricter(HOST)),
    ("host=a;password=x", Stricter(HOST)),
    ("host=/x;password=x", Stricter(FOLDER)),
    ("host=/x;y", Same),
    ("dbname=x;password=x", Stricter(MIXED)),
    ("dbname=postgres://x", Stricter(DBNAME)),
    (
        "application_name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        Stricter(("the server would cut it off", "has 64 bytes")),
    ),
    ("connect_timeout=x", Stricter(NUMBER)),
    ("connect_timeout=''", Stricter(NUMBER)),
    ("keepalives=x", Stricter(NUMBER)),
    ("keepalives_count=1000", Stricter(RANGE)),
    ("client_encoding=LATIN1", Stricter(ENCODING)),
    ("sslmode=disable", Same),
    ("sslmode=x", Same),
    ("sslmode=''", Same),
    ("sslmode=Disable", Same),
    ("sslmode=prefer", Stricter(PREFER)),
    ("sslmode=allow", Stricter(PREFER)),
    ("channel_binding=x", Same),
    ("channel_binding=''", Same),
    ("channel_binding=disable", Same),
    ("password=x channel_binding=require", Stricter(BINDING)),
    ("sslcertmode=x", Same),
    ("sslcertmode=''", Same),
    ("sslsni=x", Stricter(WORD)),
    ("sslcompression=1", Stricter(COMPRESSION)),
    ("gssencmode=x", Same),
    ("gssencmode=''", Same),
    ("gssencmode=disable", Same),
    ("krbsrvname=x", Stricter(UNSUPPORTED)),
    ("gsslib=gssapi", Stricter(UNSUPPORTED)),
    ("gssdelegation=1", Stricter(UNSUPPORTED)),
    ("requirepeer=x", Stricter(UNSUPPORTED)),
    ("sslcrl=x", Stricter(UNSUPPORTED)),
    ("replication=database", Stricter(UNSUPPORTED)),
    ("replication=off", Same),
    ("sslrootcert=system sslmode=disable", Same),
    ("sslnegotiation=x", Same),
    ("sslnegotiation=''", Same),
    ("sslnegotiation=direct sslmode=disable", Same),
    ("ssl_min_protocol_version=x", Same),
    ("ssl_min_protocol_version=''", Same),
    ("ssl_min_protocol_version=tlsv1.2", Same),
    ("ssl_min_protocol_version=TLSv1", Stricter(OLD_TLS)),
    ("ssl_max_protocol_version=TLSv1.3", Same),
    ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", Same),
    ("require_auth=''", Same),
    ("require_auth=none", Same),
    ("require_auth=none,none", Same),
    ("require_auth=!none", Stricter(NEGATION)),
    ("password=x require_auth=!none", Same),
    ("password=x require_auth=!scram-sha-256", Stricter(NEGATION)),
    ("require_auth=!password,!md5", Same),
    ("require_auth=!md5,!md5", Same),
    ("require_auth=!md5,none", Same),
    ("require_auth=md5,!none", Same),
    ("require_auth=none,gss", Stricter(GSS)),
    ("require_auth=!gss,!sspi", Same),
    ("require_auth=!gss,!sspi,!gss", Same),
    ("require_auth='none, md5'", Same),
    ("require_auth=NONE", Same),
    ("require_auth=!", Same),
    ("require_auth=none,", Same),
    ("password=x require_auth=scram-sha-256", Same),
    ("password=x require_auth=password", Stricter(CLEAR)),
    ("require_auth=scram-sha-256", Stricter(NO_PASSWORD)),
];

#[test]
fn values_are_accepted_as_in_libpq_but_for_the_reasons_in_the_table() {
    let texts: Vec<String> = ROWS.iter().map(|(text, _)| format!("user=u {text}{STOP}")).collect();
    let home = environment(&[("HOME", "/nonexistent")]);
    let starts: Vec<_> = texts.iter().map(|text| (home.clone(), text.as_str())).collect();
    let (answers, _) = libpq().start(&starts);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for ((text, verdict), started) in ROWS.iter().zip(&answers) {
        let names = text.split(' ').filter_map(|word| word.split('=').next());
        let major = libpq().major;
        if names.map(since).any(|since| since > major) || (major < 16 && text.contains("=system")) {
            *counts.entry("not in this libpq yet").or_default() += 1;
            continue;
        }
        let ours = conninfo::plan(&format!("user=u {text}"), &home);
        let theirs = is_accepted(started);
        let error = &started.error;
        match verdict {
            Same => assert_eq!(ours.is_ok(), theirs, "{text}: {ours:?}, {error}"),
            Stricter((reason, says)) => {
                assert!(theirs, "{text}: libpq refuses it, too: {error}");
                let ours = ours.expect_err(reason).to_string();
                assert!(ours.contains(says), "{text}: {ours}");
            }
        }
        *counts.entry("compared").or_default() += 1;
    }
    println!("{counts:?}");
    assert!(counts["compared"] >= 50);
}

#[test]
fn a_list_of_what_to_leave_out_takes_away_from_our_own_default_and_not_from_all() {
    for list in ["!password", "!none", "!gss,!sspi", "!md5"] {
        let text = format!("user=u password=x require_auth={list}");
        let servers = conninfo::plan(&text, &[]).expect("SCRAM is left");
        // libpq would take MD5 as well, or no authentication at all.
        assert_eq!(servers[0].methods, "scram-sha-256", "{list}");
    }
}
