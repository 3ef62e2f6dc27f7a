//! Tables of connection strings and environments: what is accepted with which result, and what is
//! refused with which words. [`CANARY`] is a password that no error and no `Debug` may show.

use std::ffi::OsString;
use std::time::Duration;

use super::settings::{Keyword, Settings};
use super::{AuthMethods, Config, parse};
use crate::error::Error;

const CANARY: &str = "c4nary";

type Environment = &'static [(&'static str, &'static str)];

fn read(text: &str, environment: Environment) -> Result<Config, Error> {
    parse::parse(text)?.into_config(|name| lookup(environment, name))
}

fn lookup(environment: Environment, name: &str) -> Option<OsString> {
    let (_, value) = environment.iter().find(|(variable, _)| *variable == name)?;
    Some(OsString::from(value))
}

/// The fields that differ from the defaults, `name=value` separated by `|`.
fn changed(config: &Config) -> String {
    let default = Config::new();
    let mut fields = Vec::new();
    let mut field = |name: &str, value: Option<&str>, default: Option<&str>| {
        if value != default {
            fields.push(format!("{name}={}", value.unwrap_or("unset")));
        }
    };
    let seconds = config.connect_timeout.as_secs().to_string();
    let methods = config.require_auth.map(|methods| methods.to_string());
    field("host", Some(&config.host), Some(&default.host));
    field("port", Some(&config.port.to_string()), Some("5432"));
    field("user", config.user.as_deref(), None);
    field("password", config.password.as_ref().map(|it| it.expose()), None);
    field("dbname", config.dbname.as_deref(), None);
    field("app", Some(&config.application_name), Some("distlock"));
    field("timeout", Some(&seconds), Some("10"));
    field("auth", methods.as_deref(), None);
    fields.join("|")
}

#[track_caller]
fn accepts(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        match read(text, &[]) {
            Ok(config) => assert_eq!(changed(&config), *expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[track_caller]
fn refuses(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        let error = read(text, &[]).expect_err(text);
        assert!(error.is_config());
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(shown.contains(expected), "{text}: {shown}");
            for piece in [CANARY, "c4", "nary"] {
                assert!(!shown.contains(piece), "{text}: {shown}");
            }
        }
    }
}

#[test]
fn pairs_are_read_as_libpq_reads_them() {
    accepts(&[
        ("", ""),
        (" \t\r\n\x0b\x0c ", ""),
        ("host=db", "host=db"),
        ("host=db port=5433 user=app", "host=db|port=5433|user=app"),
        ("  host = db   port\t=\n1 ", "host=db|port=1"),
        ("host='db'", "host=db"),
        ("host='db'port=1", "host=db|port=1"),
        ("host = 'db' port = '1'", "host=db|port=1"),
        ("password='a b'", "password=a b"),
        (r"password='a\'b\\c'", r"password=a'b\c"),
        (r"password=a\ b", "password=a b"),
        (r"password=a\'b\\c", r"password=a'b\c"),
        (r"password=\n\x", "password=nx"),
        ("password=a'b'", "password=a'b'"),
        ("password=a=b", "password=a=b"),
        ("password==", "password=="),
        ("password= =", "password=="),
        ("password=grün user=öl", "user=öl|password=grün"),
        ("password=\u{a0}", "password=\u{a0}"),
        ("password=''", ""),
        // The spaces behind a `=` do not count, so this is one parameter.
        ("user= dbname=x", "user=dbname=x"),
        ("user='' dbname=x", "dbname=x"),
        ("user=", ""),
        ("host=a host=b", "host=b"),
        ("host=a host=''", ""),
        ("host=/run/postgresql dbname='my db'", "host=/run/postgresql|dbname=my db"),
        ("host=::1", "host=::1"),
        ("port=+1", "port=1"),
        ("port=' 65535 '", "port=65535"),
        ("port=''", ""),
        ("application_name=x", "app=x"),
        ("connect_timeout=3", "timeout=3"),
        ("connect_timeout=0", ""),
        ("connect_timeout=-1", ""),
        ("require_auth=none", "auth=none"),
        ("password=x require_auth=md5,scram-sha-256", "password=x|auth=md5,scram-sha-256"),
        ("sslmode=disable client_encoding=UTF8", ""),
        ("client_encoding=utf-8", ""),
        ("client_encoding=auto", ""),
    ]);
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    accepts(&[
        ("postgres://", ""),
        ("postgresql://", ""),
        ("postgres:///", ""),
        ("postgres:///?", ""),
        ("postgres://?", ""),
        ("postgres://db", "host=db"),
        ("postgresql://db/prod", "host=db|dbname=prod"),
        ("postgres://db:5433", "host=db|port=5433"),
        ("postgres://db:/prod", "host=db|dbname=prod"),
        ("postgres://:5433/prod", "port=5433|dbname=prod"),
        ("postgres://app@db", "host=db|user=app"),
        ("postgres://app@", "user=app"),
        ("postgres://app:pw@db:1/prod", "host=db|port=1|user=app|password=pw|dbname=prod"),
        ("postgres://app:@db", "host=db|user=app"),
        ("postgres://:pw@db", "host=db|password=pw"),
        ("postgres://@db", "host=db"),
        ("postgres://app:p:w@db", "host=db|user=app|password=p:w"),
        ("postgres://a%40b:p%2Fw%3a%25@db", "host=db|user=a@b|password=p/w:%"),
        ("postgres://app:pw?x@db", "host=db|user=app|password=pw?x"),
        ("postgres://app:p+w@db", "host=db|user=app|password=p+w"),
        ("postgres://app:gr%C3%BCn@db", "host=db|user=app|password=grün"),
        ("postgres://[::1]", "host=::1"),
        ("postgres://[2001:db8::5]:1/prod", "host=2001:db8::5|port=1|dbname=prod"),
        ("postgres://[fe80::1%25eth0]?port=1", "host=fe80::1%eth0|port=1"),
        ("postgres://%2Frun%2Fpostgresql/prod", "host=/run/postgresql|dbname=prod"),
        ("postgres:///prod?host=/run/postgresql", "host=/run/postgresql|dbname=prod"),
        ("postgres:///a%2Fb", "dbname=a/b"),
        ("postgres:///a/b", "dbname=a/b"),
        ("postgres:///a%40b", "dbname=a@b"),
        ("postgres://db?user=app&password=p%26w&", "host=db|user=app|password=p&w"),
        ("postgres://db/prod?dbname=other", "host=db|dbname=other"),
        ("postgres://db?%70ort=1", "host=db|port=1"),
        ("postgres://db?port=", "host=db"),
        ("postgres://db?connect_timeout=3&application_name=x", "host=db|app=x|timeout=3"),
        ("postgres://db?sslmode=disable", "host=db"),
        // The `@` ends the user before the `?` begins the parameters.
        ("postgres://db?user=a@b", "host=b|user=db?user=a"),
        ("postgres://db/?user=a@b", "host=db|user=a@b"),
    ]);
}

#[test]
fn faulty_pairs_are_refused_without_showing_a_value() {
    refuses(&[
        ("host", "no `=` after the word at byte 1"),
        ("host db", "no `=` after the word at byte 1"),
        ("password=c4 nary host=db", "no `=` after the word at byte 13"),
        ("password=c4 nary=1", "the parameter at byte 13 is not"),
        ("password='c4'nary=1", "the parameter at byte 14 is not"),
        ("password=c4'n ary", "no `=` after the word at byte 15"),
        ("=c4nary", "the parameter at byte 1 is not"),
        ("ho:st=c4nary", "the parameter at byte 1 is not"),
        ("password='c4nary", "quote at byte 10 that never ends"),
        (r"password='c4nary\'", "quote at byte 10 that never ends"),
        (r"password=c4nary\", "ends in a backslash"),
        (r"password='c4nary\", "ends in a backslash"),
        ("mysql://app:c4nary@db", "postgres://, postgresql://, or name=value"),
        ("mysql://app:c4nary@db/x?y=z", "postgres://, postgresql://, or name=value"),
        ("Postgres://app:c4nary@db", "postgres://, postgresql://, or name=value"),
        ("password=c4\0nary", "NUL"),
        ("host=a,b password=c4nary", "several hosts"),
        ("port=1,2 password=c4nary", "several ports"),
        ("host='a b'", "no host name has"),
        ("host=[::1]", "without brackets"),
        ("port=0", "port is not a number from 1 to 65535"),
        ("port=65536", "port is not a number from 1 to 65535"),
        ("port=-1", "port is not a number from 1 to 65535"),
        ("port=1x", "port is not a number from 1 to 65535"),
        ("port=c4nary", "from 1 to 65535"),
        ("connect_timeout=c4nary", "connect_timeout is not a whole number"),
        ("connect_timeout=1.5", "connect_timeout is not a whole number"),
        ("connect_timeout=2147483648", "connect_timeout is not a whole number"),
        ("connect_timeout=86401", "connect_timeout is 86401s"),
        ("require_auth=c4nary", "entry 1 of require_auth"),
        ("require_auth=!none", "list the methods to accept"),
        ("sslmode=prefer", "sslmode is prefer, but this build has no TLS"),
        ("sslmode=verify-full", "sslmode is verify-full, but this build has no TLS"),
        ("sslmode=c4nary", "sslmode is not an SSL mode"),
        ("client_encoding=LATIN1", "client_encoding must be UTF8"),
        ("hostaddr=10.0.0.1", "`hostaddr` is known to libpq but not supported"),
        ("password=c4nary options=-c", "`options` is known to libpq but not supported"),
        ("passfile=/x", "`passfile` is known to libpq but not supported"),
        ("conect_timeout=3", "`conect_timeout` is not a known parameter; did you mean"),
        ("hots=db", "did you mean `host`?"),
        ("HOST=db", "did you mean `host`?"),
        ("pasword=c4nary", "did you mean `password`?"),
        ("passwort=c4nary", "did you mean `password`?"),
        ("password=c4nary usr=x", "did you mean `user`?"),
        ("database=x", "`database` is not a known parameter; expected one of host, port"),
    ]);
    for text in ["user", "dbname", "application_name"] {
        refuses(&[(&format!("{text}={}", "x".repeat(64)), "has 64 bytes")]);
    }
    refuses(&[(&format!("password={}", CANARY.repeat(200)), "password has 1200 bytes")]);
    refuses(&[(&format!("user={}", "c4nary".repeat(11_000)), "the connection string has 66005")]);
}

#[test]
fn faulty_urls_are_refused_without_showing_a_value() {
    refuses(&[
        ("postgres://app:c4nary@a,b/x", "several hosts or ports"),
        ("postgres://app:c4nary@a:1,b:2/x", "several hosts or ports"),
        ("postgres://app:c4nary@[::1],[::2]/x", "several hosts or ports"),
        ("postgres://app:c4nary@a%2Cb/x", "several hosts"),
        ("postgres://app:c4nary@db?host=a,b", "several hosts"),
        ("postgres://app:c4nary@[::1", "`[` without the `]`"),
        ("postgres://app:c4nary@[]", "no IPv6 address between"),
        ("postgres://app:c4nary@[::1]x", "goes on after the `]`"),
        ("postgres://app:c4nary@db:x", "port is not a number from 1 to 65535"),
        ("postgres://app:c4nary@db:0", "port is not a number from 1 to 65535"),
        ("postgres://app:c4nary@db:65536", "port is not a number from 1 to 65535"),
        // Passwords with a character that has to be encoded.
        ("postgres://app:c4/nary@db", "`@` after the host"),
        ("postgres://app:12/c4nary@db", "`@` after the host"),
        ("postgres://app:c4/nary", "write `/`"),
        ("postgres://app:c4@nary@db", "no host name has"),
        ("postgres://app:c4%nary@db", "`%` without two hexadecimal digits in password"),
        ("postgres://app:12/x?c4nary=y@db", "parameter 1 of the URL is not"),
        ("postgres://app:c4nary%@db", "`%` without two hexadecimal digits in password"),
        ("postgres://app:c4nary%2@db", "`%` without two hexadecimal digits in password"),
        ("postgres://app:c4nary%+1@db", "`%` without two hexadecimal digits in password"),
        ("postgres://app:c4nary%00@db", "%00 in password"),
        ("postgres://app:c4nary%ff@db", "password of the URL is not UTF-8"),
        ("postgres://db%zz", "`%` without two hexadecimal digits in host"),
        ("postgres://db?%00=x", "%00 in a parameter's name"),
        ("postgres://db?c4nary", "parameter 1 of the URL has no `=`"),
        ("postgres://db?&", "parameter 1 of the URL has no `=`"),
        ("postgres://db?port=1&&user=x", "parameter 2 of the URL has no `=`"),
        ("postgres://db?port=1&&", "parameter 2 of the URL has no `=`"),
        ("postgres://db?password=c4=nary", "parameter 1 of the URL has a second `=`"),
        ("postgres://db?=c4nary", "parameter 1 of the URL is not"),
        ("postgres://app:c4nary@db?ssl=true", "sslmode is require, but this build has no TLS"),
        ("postgres://app:c4nary@db?ssl=false", "`ssl` is not a known parameter"),
        ("postgres://app:c4nary@db?sslmode=require", "no TLS"),
        ("postgres://app:c4nary@db?hostaddr=::1", "`hostaddr` is known to libpq"),
        ("postgres://app:c4nary@db?aplication_name=x", "did you mean `application_name`?"),
        ("postgres://app:c4nary@db?port=1&prot=2", "did you mean `port`?"),
    ]);
}

#[test]
fn the_string_comes_before_the_environment_and_that_before_the_defaults() {
    const FULL: Environment = &[
        ("PGHOST", "env-host"),
        ("PGPORT", "1"),
        ("PGUSER", "env-user"),
        ("PGPASSWORD", CANARY),
        ("PGDATABASE", "env-db"),
        ("PGAPPNAME", "env-app"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGREQUIREAUTH", "md5"),
        ("PGSSLMODE", "disable"),
        ("USER", "login"),
    ];
    let rows: [(&str, Environment, &str); 9] = [
        (
            "",
            FULL,
            "host=env-host|port=1|user=env-user|password=c4nary|dbname=env-db|app=env-app|\
             timeout=7|auth=md5",
        ),
        (
            "postgres://app:pw@db:2/prod?application_name=x&connect_timeout=3&require_auth=none",
            FULL,
            "host=db|port=2|user=app|password=pw|dbname=prod|app=x|timeout=3|auth=none",
        ),
        (
            "host='' port='' user='' password='' dbname='' application_name='' \
             connect_timeout='' require_auth='' sslmode=''",
            FULL,
            "user=login",
        ),
        ("postgres://db", &[("PGPORT", "1"), ("PGUSER", "u")], "host=db|port=1|user=u"),
        ("host=db", &[("PGHOST", ""), ("PGPORT", "")], "host=db"),
        ("", &[("USER", "login"), ("LOGNAME", "other")], "user=login"),
        ("", &[("USER", ""), ("LOGNAME", "other")], "user=other"),
        ("user=app", &[("USER", "login")], "user=app"),
        ("", &[("PGTARGETSESSIONATTRS", "any"), ("PGSERVICE", "")], ""),
    ];
    for (text, environment, expected) in rows {
        assert_eq!(changed(&read(text, environment).unwrap()), expected, "{text}");
    }
}

#[test]
fn a_faulty_variable_is_refused_by_its_name() {
    let rows: [(Environment, &str); 12] = [
        (&[("PGPORT", CANARY)], "PGPORT is not a number from 1 to 65535"),
        (&[("PGCONNECT_TIMEOUT", CANARY)], "PGCONNECT_TIMEOUT is not a whole number"),
        (&[("PGSSLMODE", "require")], "PGSSLMODE is require, but this build has no TLS"),
        (&[("PGSSLMODE", CANARY)], "PGSSLMODE is not an SSL mode"),
        (&[("PGREQUIREAUTH", CANARY)], "require_auth"),
        (&[("PGHOST", "a,b")], "several hosts"),
        (&[("PGHOSTADDR", "10.0.0.1")], "PGHOSTADDR is set"),
        (&[("PGSERVICE", CANARY)], "PGSERVICE is set"),
        (&[("PGTARGETSESSIONATTRS", "standby")], "PGTARGETSESSIONATTRS is set"),
        (&[("PGCHANNELBINDING", "require")], "PGCHANNELBINDING is set"),
        (&[("PGSSLNEGOTIATION", "direct")], "PGSSLNEGOTIATION is set"),
        (&[("PGREQUIREPEER", "postgres")], "PGREQUIREPEER is set"),
    ];
    for (environment, expected) in rows {
        let text = read("password=c4nary", environment).unwrap_err().to_string();
        assert!(text.contains(expected) && !text.contains(CANARY), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused_by_its_name() {
    use std::os::unix::ffi::OsStringExt;

    let broken = |name: &str| (name == "PGPASSWORD").then(|| OsString::from_vec(vec![b'x', 0xff]));
    let text = Settings::default().into_config(broken).unwrap_err().to_string();
    assert!(text.contains("PGPASSWORD is not valid UTF-8"), "{text}");
    // The name of the login is a guess at best, so it is passed over.
    let broken = |name: &str| (name == "USER").then(|| OsString::from_vec(vec![0xff]));
    assert_eq!(Settings::default().into_config(broken).unwrap().user, None);
}

#[test]
fn the_table_of_keywords_is_in_the_order_of_the_keywords() {
    for (index, keyword) in Keyword::ALL.into_iter().enumerate() {
        assert_eq!(keyword as usize, index);
    }
}

#[test]
fn debug_never_shows_the_password() {
    let configs = [
        Config::new().password(CANARY),
        read("password=c4nary", &[]).unwrap(),
        read("postgres://app:c4nary@db", &[]).unwrap(),
        read("", &[("PGPASSWORD", CANARY)]).unwrap(),
    ];
    for config in configs {
        assert_eq!(config.password.as_ref().map(|it| it.expose()), Some(CANARY));
        for shown in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", Some(config))]
        {
            assert!(shown.contains("***") && !shown.contains(CANARY), "{shown}");
        }
    }
}

#[test]
fn the_password_decides_which_methods_are_accepted_by_default() {
    let config = Config::new();
    assert_eq!(config.auth_methods(), AuthMethods::NONE);
    assert_eq!(config.clone().password("").auth_methods(), AuthMethods::NONE);
    assert_eq!(config.clone().password("x").auth_methods(), AuthMethods::SCRAM_SHA_256);
    let config = config.require_auth(AuthMethods::MD5);
    assert_eq!(config.auth_methods(), AuthMethods::MD5);
    assert_eq!(config.password("x").auth_methods(), AuthMethods::MD5);
}

#[test]
fn the_database_is_the_user_unless_it_is_named() {
    let config = Config::new().dbname("").user("app");
    assert_eq!((config.user_name(), config.database()), ("app", "app"));
    let config = config.dbname("prod").user("other");
    assert_eq!((config.user_name(), config.database()), ("other", "prod"));
}

#[test]
fn setters_replace_what_a_string_gave() {
    let config = read("postgres://app:c4nary@db:1/prod?connect_timeout=3", &[]).unwrap();
    let config = config.host("h").port(2).user("u").password("p").dbname("d");
    let config = config.application_name("a").connect_timeout(Duration::from_secs(4));
    assert_eq!(changed(&config), "host=h|port=2|user=u|password=p|dbname=d|app=a|timeout=4");
    config.check().unwrap();
}

#[test]
fn every_kind_of_string_converts() {
    let text = String::from("host=db user=app sslmode=disable");
    let configs = [
        text.parse::<Config>(),
        Config::try_from(text.as_str()),
        Config::try_from(&text),
        Config::try_from(text.clone()),
    ];
    for config in configs {
        let config = config.unwrap();
        assert_eq!((config.host.as_str(), config.user_name()), ("db", "app"));
    }
}
