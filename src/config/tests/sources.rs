//! Which of several sources of a value counts: the string, the service file, the environment.

use super::*;

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
            "host='' port='' user='' password='' dbname='' application_name='' require_auth=''",
            FULL,
            "user=login|timeout=7",
        ),
        ("postgres://db", &[("PGPORT", "1"), ("PGUSER", "u")], "host=db|port=1|user=u"),
        ("host=db", &[("PGHOST", ""), ("PGPORT", "")], "host=db"),
        ("", &[("USER", "login"), ("LOGNAME", "other")], "user=login"),
        ("", &[("USER", ""), ("LOGNAME", "other")], "user=other"),
        ("user=app", &[("USER", "login")], "user=app"),
        ("", &[("PGTARGETSESSIONATTRS", "any"), ("PGCLIENTENCODING", "LATIN1")], ""),
    ];
    for (text, environment, expected) in rows {
        assert_eq!(changed(&read(text, environment).unwrap()), expected, "{text}");
    }
}

#[test]
fn a_faulty_variable_is_refused_by_its_name() {
    let rows: &[(Environment, &str)] = &[
        (&[("PGPORT", CANARY)], "PGPORT is not a number from 1 to 65535"),
        (&[("PGCONNECT_TIMEOUT", CANARY)], "PGCONNECT_TIMEOUT is not a whole number"),
        (&[("PGSSLMODE", CANARY)], "PGSSLMODE must be one of: disable, require"),
        (&[("PGSSLMODE", "prefer")], "PGSSLMODE is prefer, which goes on in clear"),
        (&[("PGSSLMODE", "")], "PGSSLMODE must be one of"),
        (&[("PGREQUIREAUTH", CANARY)], "require_auth"),
        (&[("PGHOSTADDR", CANARY)], "hostaddr is not an IP address"),
        (&[("PGSERVICE", CANARY)], "no definition of the service"),
        (&[("PGTARGETSESSIONATTRS", "standby")], "PGTARGETSESSIONATTRS asks for a standby"),
        (&[("PGCHANNELBINDING", CANARY)], "PGCHANNELBINDING must be one of"),
        (&[("PGSSLNEGOTIATION", CANARY)], "PGSSLNEGOTIATION must be one of"),
        (&[("PGREQUIREPEER", CANARY)], "`requirepeer`, which PGREQUIREPEER sets,"),
        (&[("PGSSLCRL", CANARY)], "`sslcrl`, which PGSSLCRL sets,"),
        (&[("PGGSSENCMODE", "require")], "PGGSSENCMODE must be one of: disable, prefer"),
        (&[("PGREQUIRESSL", "1")], "PGREQUIRESSL is set"),
        (&[("PGREQUIRESSL", "1c4nary")], "PGREQUIRESSL is set"),
    ];
    for (environment, expected) in rows.iter().copied() {
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
