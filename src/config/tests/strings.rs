//! What is read from a connection string, and what is refused with which words.

use super::*;

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
        ("host=a,b port=1,2", "host=a,b|port=1,2"),
        ("host=a,b port=1", "host=a,b|port=1"),
        ("host=, port=,1", "host=,|port=5432,1"),
        ("host=a hostaddr=::1", "host=a|hostaddr=::1"),
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
        ("client_encoding=''", ""),
        ("fallback_application_name=x", "app=x"),
        ("fallback_application_name=x application_name=y", "app=y"),
        ("fallback_application_name=x application_name=''", ""),
        ("options='-c a=b'", "options=-c a=b"),
        ("dbname=a=b", "dbname=a=b"),
        ("passfile=/x", "passfile=/x"),
        ("passfile=''", ""),
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
        ("postgres://a,b/x", "host=a,b|port=5432,5432|dbname=x"),
        ("postgres://a:1,b:2/x", "host=a,b|port=1,2|dbname=x"),
        ("postgres://a,b:2", "host=a,b|port=5432,2"),
        ("postgres://a:1,b", "host=a,b|port=1,5432"),
        ("postgres://u@a:1,[::1]:2,?port=3", "host=a,::1,|port=3|user=u"),
        ("postgres://,", "host=,|port=5432,5432"),
        ("postgres://a%2Cb", "host=a,b"),
        ("postgres://db?ssl=%74rue&sslmode=disable", "host=db"),
        ("postgres://db?fallback_application_name=x", "host=db|app=x"),
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
        ("password='it' c4nary=1'", "the parameter at byte 15 is not"),
        ("password=a user=b c4nary=1", "the parameter at byte 19 is not"),
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
        ("port=1,2 password=c4nary", "port has 2 entries and there are 1 hosts"),
        ("host=a,b,c port=1,2", "port has 2 entries and there are 3 hosts"),
        ("host=a,b hostaddr=::1", "host has 2 entries and hostaddr has 1"),
        ("hostaddr=c4nary", "hostaddr is not an IP address"),
        ("host=a,b port=1,c4nary", "entry 2 of port is not a number"),
        ("host='a b'", "no host name has"),
        ("host='a,b c4nary'", "entry 2 of host has a character"),
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
        ("client_encoding=LATIN1", "client_encoding must be UTF8"),
        ("conect_timeout=3", "`conect_timeout` is not a known parameter; did you mean"),
        ("hots=db", "did you mean `host`?"),
        ("HOST=db", "did you mean `host`?"),
        ("pasword=c4nary", "did you mean `password`?"),
        ("passwort=c4nary", "did you mean `password`?"),
        ("password=c4nary usr=x", "did you mean `user`?"),
        ("database=x", "`database` is not a known parameter; did you mean `dbname`?"),
        ("zzzz=c4nary", "`zzzz` is not a known parameter; expected one of those of libpq"),
        ("requiressl=1", "`requiressl` is not supported; use sslmode=require"),
    ]);
    for text in ["user", "dbname", "application_name"] {
        refuses(&[(&format!("{text}={}", "x".repeat(64)), "has 64 bytes")]);
    }
    refuses(&[(&format!("password={}", CANARY.repeat(200)), "password has 1200 bytes")]);
    refuses(&[(&format!("user={}", "c4nary".repeat(11_000)), "the connection string has 66005")]);
}

/// As ADO.NET, JDBC and others have it: all of it is the value of the first parameter.
#[test]
fn parameters_that_are_not_separated_by_spaces_are_refused_without_showing_a_value() {
    refuses(&[
        ("host=db;user=app;password=c4nary", "no host name has"),
        ("host=db,password=c4nary", "entry 2 of host has a character that no host name has"),
        ("host=db&password=c4nary", "no host name has"),
        ("host=db?password=c4nary", "no host name has"),
        ("host=\"db\"c4nary", "no host name has"),
        (r"host=db\'c4nary", "no host name has"),
        ("host=/run/x;password=c4nary", "host is a directory with an `=`"),
        ("host=/run/x,password=c4nary", "entry 2 of host has a character that no host name has"),
        ("hostaddr=::1 host=db;password=c4nary", "no host name has"),
        ("hostaddr=10.0.0.1;password=c4nary", "hostaddr is not an IP address"),
        ("hostaddr=fe80::1%lo;password=c4nary", "hostaddr is not an IP address"),
        ("user=app;Password=c4nary;host=db", "user has `password=` in it"),
        ("dbname=prod;password=c4nary", "dbname has `password=` in it"),
        ("application_name=a&password=c4nary", "application_name has `password=` in it"),
        ("options=x;PASSWORD=c4nary", "options has `password=` in it"),
        ("passfile=/etc/pass;password=c4nary", "passfile has `password=` in it"),
        ("sslcert=/etc/c.pem;password=c4nary", "sslcert has `password=` in it"),
        ("sslkey=/etc/k.pem;password=c4nary", "sslkey has `password=` in it"),
        ("postgres://db;user=app;password=c4nary", "no host name has"),
        ("postgres://db/prod;password=c4nary", "dbname has `password=` in it"),
        ("postgres://%2Frun%2Fx%3Bpassword%3Dc4nary", "host is a directory with an `=`"),
    ]);
}

#[test]
fn faulty_urls_are_refused_without_showing_a_value() {
    refuses(&[
        ("postgres://app:c4nary@a:1,b:x/x", "entry 2 of port is not a number"),
        ("postgres://app:c4nary@a,b,c?port=1,2", "port has 2 entries and there are 3 hosts"),
        ("postgres://app:c4nary@a,[::1", "`[` without the `]`"),
        ("postgres://app:c4nary@[a/c4]", "no host name has"),
        ("postgres://app:c4nary@db?dbname=postgres://c4nary", "dbname is a connection string"),
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
        ("postgres://app:c4nary@db/prod\n", "white space in dbname; write a space"),
        (" postgres://app:c4nary@db", "no `=` after the word"),
        ("postgres://app:c4 nary@db", "white space in password"),
        ("postgres://db?user =c4nary", "white space in a parameter's name"),
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
        ("postgres://db?password=a&c4nary=1", "parameter 2 of the URL is not"),
        ("postgres://db?=c4nary", "parameter 1 of the URL is not"),
        (
            "postgres://app:c4nary@db?ssl=false",
            "`ssl` is not a known parameter; did you mean `sslmode`?",
        ),
        ("postgres://app:c4nary@db?aplication_name=x", "did you mean `application_name`?"),
        ("postgres://app:c4nary@db?port=1&prot=2", "did you mean `port`?"),
    ]);
}
