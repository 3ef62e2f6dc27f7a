//! Authentication against a real server, by real lines of pg_hba.conf: every method over TCP and
//! over the Unix socket, what is refused and how, and that no secret shows anywhere.

mod support;

use std::time::Duration;

use distlock::{AuthMethods, Config, Context, Error, Manager};
use support::{Builder, TempCluster, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// A password that is easy to find in a text.
const SECRET: &str = "correct-horse-battery";

/// A server that asks the role of each method's name for it, over TCP and over the socket.
fn cluster() -> TempCluster {
    let mut builder = builder();
    for (role, method) in [
        ("scram", "scram-sha-256"),
        ("md5role", "md5"),
        ("clear", "password"),
        ("truster", "trust"),
    ] {
        for connection in ["local all", "host all"] {
            let address = if connection == "host all" { "127.0.0.1/32" } else { "" };
            builder = builder.hba(&format!("{connection} {role} {address} {method}"));
        }
    }
    let cluster = builder.start();
    let mut sql = cluster.sql();
    for (role, encryption) in [
        ("scram", "scram-sha-256"),
        ("md5role", "md5"),
        ("clear", "scram-sha-256"),
        ("truster", "scram-sha-256"),
    ] {
        sql.query(&format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'"
        ));
    }
    cluster
}

/// Passwords as the servers since PostgreSQL 14 keep them, whatever this one's default is.
fn builder() -> Builder {
    TempCluster::builder().setting("password_encryption", "scram-sha-256")
}

/// The two ways to a server.
fn ways(cluster: &TempCluster) -> [Config; 2] {
    let base = Config::new().port(cluster.port()).dbname("postgres");
    let socket = cluster.socket_dir().to_str().expect("UTF-8").to_owned();
    [base.clone().host(cluster.host()), base.host(socket)]
}

/// That a session with this configuration locks for real.
#[track_caller]
fn works(config: Config) -> Manager {
    let shown = format!("{config:?}");
    let manager = Manager::connect(config).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    let lock = manager.try_lock(&Context::background(), 1).expect("answers").expect("free");
    lock.unlock().expect("it was held");
    manager
}

/// That it does not, and that no secret shows in what is said.
#[track_caller]
fn fails(config: Config) -> Error {
    let shown = format!("{config:?}");
    let error = Manager::connect(config).expect_err("refused");
    let mut texts = vec![shown, error.to_string(), format!("{error:?} {error:#?}")];
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        texts.push(format!("{error} {error:?}"));
        source = error.source();
    }
    for text in texts {
        assert!(!text.contains(SECRET) && !text.contains("battery"), "{text}");
    }
    error
}

fn sqlstate(error: &Error) -> Option<String> {
    error.sqlstate().map(|state| state.to_string())
}

#[test]
fn every_method_works_over_tcp_and_over_the_socket_when_it_is_allowed() {
    let cluster = cluster();
    for config in ways(&cluster) {
        works(config.clone().user("truster"));
        works(config.clone().user("scram").password(SECRET));
        let config = config.password(SECRET);
        works(config.clone().user("md5role").require_auth(AuthMethods::MD5));
        works(config.clone().user("truster").require_auth(AuthMethods::NONE));
        works(config.user("scram").require_auth(AuthMethods::MD5 | AuthMethods::SCRAM_SHA_256));
    }
}

#[test]
fn a_password_in_clear_is_not_even_configured_without_a_verified_server() {
    let cluster = cluster();
    let [tcp, _] = ways(&cluster);
    let refused =
        Manager::connect(tcp.password(SECRET).user("clear").require_auth(AuthMethods::PASSWORD));
    let error = refused.expect_err("a configuration that cannot be used");
    assert!(error.is_config() && error.to_string().contains("verify-full"), "{error}");
    assert!(!cluster.log().contains("clear"), "nothing was sent: {}", cluster.log());
}

#[test]
fn a_url_and_a_list_of_keywords_carry_the_password_too() {
    let cluster = cluster();
    let (port, dir) = (cluster.port(), cluster.socket_dir().display());
    let url = format!("postgres://scram:{SECRET}@127.0.0.1:{port}/postgres");
    let list = format!("host={dir} port={port} user=scram password={SECRET} dbname=postgres");
    for text in [url, list] {
        works(text.parse().expect("a connection string"));
        Manager::connect(text.as_str()).expect("connects");
    }
}

#[test]
fn the_md5_line_of_pg_hba_takes_scram_where_the_server_has_it() {
    let cluster = builder().hba("host all app 127.0.0.1/32 md5").start();
    let mut sql = cluster.sql();
    sql.query(&format!("CREATE ROLE app LOGIN PASSWORD '{SECRET}'"));
    let [tcp, _] = ways(&cluster);
    works(tcp.user("app").password(SECRET));
}

#[test]
fn weak_methods_and_no_authentication_are_refused_unless_allowed() {
    let cluster = cluster();
    for config in ways(&cluster) {
        let config = config.password(SECRET);
        for (role, asked) in [("md5role", "md5"), ("clear", "password"), ("truster", "none")] {
            let error = fails(config.clone().user(role));
            assert!(error.is_auth() && error.sqlstate().is_none(), "{error}");
            let text = error.to_string();
            assert!(text.contains(asked) && text.contains("require_auth"), "{text}");
        }
        let only_md5 = config.user("scram").require_auth(AuthMethods::MD5);
        assert!(fails(only_md5).to_string().contains("scram-sha-256"));
    }
    // Refused before the password was used: the server has seen no attempt with it.
    assert!(!cluster.log().contains("password authentication failed"), "{}", cluster.log());
}

#[test]
fn a_wrong_password_and_an_unknown_role_are_told_as_the_server_told_them() {
    let cluster = cluster();
    for config in ways(&cluster) {
        let wrong = config.clone().password(format!("{SECRET}!"));
        for (role, methods) in
            [("scram", AuthMethods::SCRAM_SHA_256), ("md5role", AuthMethods::MD5)]
        {
            let error = fails(wrong.clone().user(role).require_auth(methods));
            assert!(error.is_auth() && !error.is_unavailable(), "{error}");
            assert_eq!(sqlstate(&error).as_deref(), Some("28P01"), "{error}");
        }
        let error = fails(config.user("nobody_here"));
        assert!(error.is_auth(), "{error}");
        assert_eq!(sqlstate(&error).as_deref(), Some("28000"), "{error}");
    }
}

#[test]
fn a_server_that_wants_a_password_where_none_is_configured_says_what_to_do() {
    let cluster = cluster();
    for config in ways(&cluster) {
        for role in ["scram", "md5role", "clear"] {
            let error = fails(config.clone().user(role));
            assert!(error.is_auth(), "{error}");
            assert!(error.to_string().contains("PGPASSWORD"), "{error}");
        }
    }
}

#[test]
fn passwords_of_any_script_are_prepared_as_the_server_prepares_them() {
    let cluster = cluster();
    let mut sql = cluster.sql();
    let long = "x".repeat(900);
    let long_script = "\u{fd}".repeat(450);
    // Each with a password that SASLprep (RFC 4013) makes the same, where there is one.
    let passwords: &[(&str, &str)] = &[
        ("I\u{ad}X", "IX"),
        ("\u{2168}", "IX"),
        ("pass\u{a0}word", "pass word"),
        ("\u{1d2c}", "\u{1d2c}"),
        ("\u{aa}", "a"),
        ("e\u{301}", "\u{e9}"),
        ("\u{645}\u{635}\u{631}", "\u{645}\u{635}\u{631}"),
        ("\u{1f511}\u{1f40e}", "\u{1f511}\u{1f40e}"),
        ("it's \\ \"quoted\" %24", "it's \\ \"quoted\" %24"),
        (" leading and trailing ", " leading and trailing "),
        (&long, &long),
        (&long_script, &long_script),
    ];
    for (password, same) in passwords {
        let literal = password.replace('\'', "''");
        sql.query(&format!("ALTER ROLE scram PASSWORD '{literal}'"));
        for config in ways(&cluster) {
            println!("{password:?}, the same as {same:?}");
            let config = config.user("scram");
            works(config.clone().password(*password));
            works(config.clone().password(*same));
            let error = fails(config.password(format!("{password}x")));
            assert_eq!(sqlstate(&error).as_deref(), Some("28P01"), "{error}");
        }
    }
}

#[test]
fn passwords_that_saslprep_refuses_are_used_as_they_are() {
    let cluster = cluster();
    let mut sql = cluster.sql();
    // A control character, a mix of directions, and a code point that is not assigned in Unicode
    // 3.2: RFC 4013 prohibits them, and the server then takes the bytes as they are.
    for password in ["bell\u{7}", "\u{627}1", "\u{1f980}\u{a0}"] {
        sql.query(&format!("ALTER ROLE scram PASSWORD '{password}'"));
        for config in ways(&cluster) {
            works(config.user("scram").password(password));
        }
    }
}

#[test]
fn a_password_changed_while_running_is_the_reason_given_and_its_return_is_noticed() {
    let cluster = cluster();
    let mut sql = cluster.sql();
    let [tcp, _] = ways(&cluster);
    let manager = Manager::connect(tcp.user("scram").password(SECRET)).expect("connects");
    let ctx = Context::background();
    let lock = manager.try_lock(&ctx, 1).expect("answers").expect("free");
    sql.query("ALTER ROLE scram PASSWORD 'another'");
    sql.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'distlock'",
    );
    assert!(lock.context().done().wait_timeout(LIMIT).is_some());
    let mut last = None;
    wait_until("the reason is told", LIMIT, || {
        last = manager.try_lock(&ctx, 1).err();
        last.as_ref().and_then(sqlstate).as_deref() == Some("28P01")
    });
    let error = last.expect("just seen");
    assert!(error.is_unavailable() && error.is_auth(), "{error}");
    let cause = std::error::Error::source(&error).expect("the latest attempt").to_string();
    assert!(cause.contains("28P01"), "{cause}");
    let texts = format!("{error} {error:?} {cause} {manager:?} {lock:?}");
    assert!(!texts.contains(SECRET), "{texts}");

    // The server counts the attempts: far from a tight loop. That there are several shows that it
    // goes on; how many there can be follows from the pause, which is at least a second.
    let attempts = || cluster.log().matches("password authentication failed").count();
    let begin = std::time::Instant::now();
    let before = attempts();
    wait_until("it goes on trying", LIMIT, || attempts() >= before + 2);
    let most = before + 2 + usize::try_from(begin.elapsed().as_secs()).expect("a minute");
    assert!(attempts() <= most, "{} attempts, at most {most}", attempts());
    sql.query(&format!("ALTER ROLE scram PASSWORD '{SECRET}'"));
    let again = manager.acquire(1).timeout(LIMIT).wait().expect("back");
    assert!(again.is_held() && !lock.is_held());
}
