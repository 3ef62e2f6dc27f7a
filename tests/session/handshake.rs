//! From AuthenticationOk to a prepared session, and the servers that do not get that far.

use distlock::proto::authentication::Credentials;
use distlock::proto::budget::{STARTUP_BYTES_MAX, STARTUP_MESSAGES_MAX};
use distlock::proto::fault::{AuthFault, Fault, Unsuitable, Violation};
use distlock::proto::handshake::{Greeting, Startup};
use distlock::proto::probe::Question;
use distlock::proto::rehearsal::ITERATIONS;
use distlock::proto::scram::IterationLimits;
use distlock::proto::session::{Event, Session, SessionLimits};

use super::backend::{
    self, CONFIRMATION, IDENTITY, KEY, PID, SETTINGS, ScramServer, asked, authentication_ok,
    examination, greeting, key_data, negotiate, parameter, preparation, ready, release, settled,
    text_row,
};
use super::script::{self, ALL, STRICT, Script};

const READY: Event =
    Event::Ready(Greeting { server_major: 15, process_id: PID, lock_table: Some(6_400) });

/// A start by trust, message by message.
fn start() -> Vec<Vec<u8>> {
    [greeting(), preparation()].concat()
}

/// A start with one more message in front of the one at `at`.
fn start_with(at: usize, message: &[u8]) -> Script {
    let mut messages = start();
    messages.insert(at, message.to_vec());
    Script::new(ALL).says_all(messages)
}

/// A start whose statements about the server have these rows.
fn start_with_rows(identity: &[u8], settings: &[u8], confirmation: &[u8]) -> Script {
    Script::new(ALL)
        .says_all(greeting())
        .says_all(asked(identity))
        .says_all(asked(confirmation))
        .says_all([settled(settings), release()].concat())
}

/// A start whose settings are read back as `row`.
fn start_with_settings(row: &[u8]) -> Script {
    start_with_rows(&text_row(&IDENTITY), row, &text_row(&CONFIRMATION))
}

/// A start with a server that says this about itself.
fn start_with_identity(row: &[u8]) -> Script {
    start_with_rows(row, &text_row(&SETTINGS), &text_row(&CONFIRMATION))
}

/// A start with a server of this version, which has read back `row`.
fn start_of_version(version: &str, row: &[&str]) -> Script {
    let greeting =
        vec![authentication_ok(), parameter("server_version", version), key_data(PID), ready(b'I')];
    Script::new(ALL)
        .says_all(greeting)
        .says_all(examination())
        .says_all([settled(&text_row(row)), release()].concat())
}

fn malformed(fault: &Fault) -> bool {
    matches!(fault, Fault::Violation(Violation::Malformed { .. }))
}

fn unexpected(name: &str, fault: &Fault) -> bool {
    matches!(fault, Fault::Violation(Violation::Unexpected { message, .. }) if *message == name)
}

/// The type bytes of everything behind the StartupMessage.
fn tags(sent: &[u8]) -> String {
    let (length, _) = sent.split_first_chunk::<4>().expect("a StartupMessage");
    let mut rest = &sent[usize::try_from(u32::from_be_bytes(*length)).expect("short")..];
    let mut tags = String::new();
    while let Some((tag, after)) = rest.split_first() {
        let length = after.first_chunk::<4>().map(|length| u32::from_be_bytes(*length));
        tags.push(char::from(*tag));
        rest = &after[usize::try_from(length.expect("a length")).expect("short")..];
    }
    tags
}

#[test]
fn each_batch_goes_out_in_one_write_when_the_one_before_is_answered() {
    let waiting = Script::new(ALL).session();
    assert_eq!(waiting.output(), b"", "the StartupMessage was sent");
    let greeted = Script::new(ALL).says_all(greeting());
    assert_eq!(tags(&greeted.play().sent), "PBES");
    let identified = greeted.says_all(asked(&text_row(&IDENTITY)));
    assert_eq!(tags(&identified.play().sent), "PBESPBES");
    let confirmed = identified.says_all(asked(&text_row(&CONFIRMATION)));
    assert_eq!(tags(&confirmed.play().sent), "PBESPBESPBEPPPPSBES");
    let settled = confirmed.says_all(settled(&text_row(&SETTINGS)));
    assert_eq!(settled.says_all(release()).play().events, [READY]);
}

#[test]
fn a_witness_is_asked_for_before_anything_is_set_and_gives_its_testimony() {
    let all = [greeting(), examination()].concat();
    let question = Question { process_id: PID, key: KEY };
    let outcome = Script::new(ALL).witnessed().says_all(all).play();
    assert_eq!(outcome.events, [Event::Witness(question)]);
    assert_eq!(tags(&outcome.sent), "PBESPBES");

    let testimony = |row: &[&str]| {
        let reply = [backend::reply(&text_row(row)), vec![ready(b'I')]].concat();
        Script::new(ALL).witness().says_all(greeting()).says_all(reply).play()
    };
    let heard = testimony(&["4712", "false"]);
    assert_eq!(tags(&heard.sent), "PBES");
    assert!(matches!(heard.events[..], [Event::Ready(_)]) && heard.fault.is_none(), "{heard:?}");
    for row in [["4711", "false"], ["4712", "true"]] {
        let fault = testimony(&row).fault.expect("a fault");
        assert!(matches!(fault, Fault::Unsuitable(_)), "{fault:?}");
    }
    for row in [&["4712"][..], &["4712", "false", ""], &["", "false"], &["4712", "f"]] {
        assert!(testimony(row).fault.is_some_and(|fault| malformed(&fault)), "{row:?}");
    }
}

#[test]
fn a_server_that_lacks_what_every_postgresql_has_is_refused_as_another_engine() {
    for sqlstate in ["42883", "42P01", "42704", "0A000"] {
        let fault = Script::new(ALL).says_all(greeting()).says(backend::error(sqlstate)).fails();
        let Fault::Unsuitable(Unsuitable::Foreign(shown, _)) = &fault else { panic!("{fault:?}") };
        assert_eq!(&**shown, sqlstate);
    }
}

#[test]
fn an_error_before_the_key_of_protocol_3_2_is_told_apart() {
    let at = |script: Script, sqlstate| script.says(backend::error(sqlstate)).fails();
    let until_key = || Script::new(ALL).says_all(greeting()[..3].to_vec());
    for sqlstate in ["08P01", "0A000", "XX000"] {
        let fault = at(until_key(), sqlstate);
        let Fault::Unsuitable(Unsuitable::Unkeyed(shown, _)) = &fault else { panic!("{fault:?}") };
        assert_eq!(&**shown, sqlstate);
        // Before we are let in, behind the key, and in protocol 3.0.
        let negotiated = Script::new(ALL).says(negotiate(0x0003_0000, 0, b""));
        let keyed = until_key().says(greeting()[3].clone());
        for script in [Script::new(ALL), keyed, negotiated.says_all(greeting()[..3].to_vec())] {
            assert!(matches!(at(script, sqlstate), Fault::Server(_)));
        }
    }
    for sqlstate in ["28P01", "28000", "3D000", "53300", "57P03", "42704"] {
        assert!(matches!(at(until_key(), sqlstate), Fault::Server(_)), "{sqlstate}");
    }
}

#[test]
fn cockroach_is_known_by_its_parameter() {
    let fault = start_with(2, &parameter("crdb_version", "CockroachDB CCL v26.2")).fails();
    assert!(matches!(fault, Fault::Unsuitable(Unsuitable::Engine(_))), "{fault:?}");
}

#[test]
fn every_column_about_the_server_must_have_a_value_and_no_other_column_may_come() {
    for (rows, count) in [(0, IDENTITY.len()), (1, CONFIRMATION.len())] {
        let texts: &[&str] = if rows == 0 { &IDENTITY } else { &CONFIRMATION };
        let play = |row: &[u8]| match rows {
            0 => start_with_identity(row).play(),
            _ => start_with_rows(&text_row(&IDENTITY), &text_row(&SETTINGS), row).play(),
        };
        for column in 0..count {
            for value in [None, Some(&b"\xff"[..])] {
                let mut row: Vec<_> = texts.iter().map(|value| Some(value.as_bytes())).collect();
                row[column] = value;
                let outcome = play(&backend::row(&row));
                assert!(outcome.fault.is_some_and(|fault| malformed(&fault)), "{value:?} {column}");
            }
        }
        for columns in (0..=count + 2).filter(|columns| *columns != count) {
            let row: Vec<&str> = texts.iter().copied().cycle().take(columns).collect();
            let outcome = play(&text_row(&row));
            assert!(outcome.fault.is_some_and(|fault| malformed(&fault)), "{columns}");
        }
    }
}

#[test]
fn a_granted_lock_that_cannot_be_released_is_no_lock() {
    let mut messages = start();
    let last = messages.len() - 3;
    messages[last] = backend::boolean(false);
    let fault = Script::new(ALL).says_all(messages).fails();
    assert!(matches!(fault, Fault::Unsuitable(Unsuitable::Fake(_))), "{fault:?}");
}

#[test]
fn an_older_minor_version_is_accepted_once_and_first() {
    for version in [0x0003_0000, 0x0003_0001, 0x0003_0002] {
        let script = Script::new(ALL).says(negotiate(version, 0, b"")).says_all(start());
        assert_eq!(script.play().events, [READY]);
    }
    let twice = Script::new(ALL).says(negotiate(0x0003_0000, 0, b"").repeat(2)).fails();
    assert!(malformed(&twice), "{twice:?}");
    let name = "NegotiateProtocolVersion";
    assert!(unexpected(name, &start_with(1, &negotiate(0x0003_0000, 0, b"")).fails()));
    let late = Script::new(STRICT).says(backend::sasl()).says(negotiate(0x0003_0000, 0, b""));
    assert!(unexpected(name, &late.fails()));
}

#[test]
fn a_negotiation_of_what_was_not_asked_for_is_refused() {
    let offers: [(i32, i32, &[u8]); 11] = [
        (0x0003_0003, 0, b""),
        (0x0003_270f, 0, b""),
        (0x0002_0000, 0, b""),
        (0x0004_0000, 0, b""),
        (0, 0, b""),
        (-1, 0, b""),
        (0x0003_0000, 1, b"_pq_.option\0"),
        (0x0003_0000, 1, b""),
        (0x0003_0000, 0, b"_pq_.option\0"),
        (0x0003_0000, -1, b""),
        (0x0003_0000, i32::MAX, b"\0"),
    ];
    for (version, options, names) in offers {
        let fault = Script::new(ALL).says(negotiate(version, options, names)).fails();
        assert!(malformed(&fault), "{version:x} {options}: {fault:?}");
    }
}

#[test]
fn asynchronous_messages_may_come_between_any_two_after_authentication() {
    let messages = [
        backend::notice(),
        parameter("TimeZone", "Etc/UTC"),
        parameter("", ""),
        backend::notification(),
    ];
    for message in messages {
        assert!(Script::new(ALL).says(message.clone()).fails().to_string().contains("before an"));
        for at in 1..start().len() {
            let outcome = start_with(at, &message).play();
            assert_eq!(outcome.events, [READY], "in front of message {at}: {message:?}");
        }
    }
}

#[test]
fn an_error_ends_the_start_wherever_it_comes() {
    for at in 0..start().len() {
        for report in [backend::fatal("57P03"), backend::error("42501")] {
            let fault = start_with(at, &report).fails();
            assert!(matches!(fault, Fault::Server(_)), "in front of message {at}: {fault:?}");
        }
    }
    let server = ScramServer::new(script::PASSWORD, 2);
    let challenged = Script::new(STRICT).says(backend::sasl()).says(server.challenge());
    let fault = challenged.says(backend::fatal("28P01")).fails();
    assert!(fault.to_string().ends_with("(SQLSTATE 28P01)"), "{fault}");
}

#[test]
fn a_notice_of_a_shutdown_ends_the_start_wherever_it_comes() {
    for at in 1..start().len() {
        for sqlstate in ["57P01", "57P02"] {
            let fault = start_with(at, &backend::report(b'N', "WARNING", sqlstate)).fails();
            assert!(matches!(fault, Fault::Server(_)), "in front of message {at}: {fault:?}");
        }
    }
}

#[test]
fn a_start_may_have_so_many_messages_and_no_more() {
    let spare = usize::try_from(STARTUP_MESSAGES_MAX).expect("small") - start().len();
    for message in [parameter("a", "b"), backend::notice(), backend::notification()] {
        let outcome = start_with(2, &message.repeat(spare)).play_long();
        assert_eq!(outcome.events, [READY]);
        let outcome = start_with(2, &message.repeat(spare + 1)).play_long();
        let violation = Violation::Budget {
            what: "messages before the session was ready",
            limit: STARTUP_MESSAGES_MAX,
        };
        assert_eq!(outcome.fault, Some(Fault::Violation(violation)));
    }
}

#[test]
fn a_start_may_have_so_many_bytes_and_no_more() {
    let message = parameter("name", &"x".repeat(8192 - 4 - 6));
    let most = usize::try_from(STARTUP_BYTES_MAX).expect("small") / message.len();
    assert_eq!(start_with(2, &message.repeat(most)).play_long().events, [READY]);
    let outcome = start_with(2, &message.repeat(most + 1)).play_long();
    let violation =
        Violation::Budget { what: "bytes before the session was ready", limit: STARTUP_BYTES_MAX };
    assert_eq!(outcome.fault, Some(Fault::Violation(violation)));
}

#[test]
fn a_standby_is_refused() {
    let mut row = IDENTITY;
    row[2] = "true";
    let fault = start_with_identity(&text_row(&row)).fails();
    assert_eq!(fault, Fault::Unsuitable(Unsuitable::Standby));
}

#[test]
fn a_server_that_says_it_is_a_standby_is_refused_wherever_it_says_so() {
    for at in 1..start().len() {
        let outcome = start_with(at, &parameter("in_hot_standby", "on")).play();
        let refused = Some(Fault::Unsuitable(Unsuitable::Standby));
        assert_eq!(outcome.fault, refused, "in front of message {at}");
    }
}

#[test]
fn a_pooler_is_refused() {
    let mut row = IDENTITY;
    row[0] = "4712";
    let fault = start_with_identity(&text_row(&row)).fails();
    let pooler = Unsuitable::Pooler { announced: PID, actual: 4712 };
    assert_eq!(fault, Fault::Unsuitable(pooler));
}

#[test]
fn a_session_without_a_process_id_is_refused() {
    let mut messages = start();
    messages.remove(3);
    let fault = Script::new(ALL).says_all(messages).fails();
    assert_eq!(fault, Fault::Unsuitable(Unsuitable::Unannounced));
}

#[test]
fn a_process_id_comes_once_and_in_its_place() {
    for at in 0..start().len() {
        // In front of the right one it is the right one that is refused, as the second.
        assert!(unexpected("BackendKeyData", &start_with(at, &key_data(PID)).fails()), "{at}");
    }
    for length in [0, 3, 4, 7, 261] {
        let fault = start_with(2, &backend::message(b'K', &vec![0; length])).fails();
        assert!(matches!(fault, Fault::Violation(Violation::Length { .. })), "{fault:?}");
    }
    let mut messages = start();
    messages[3] = backend::message(b'K', &[&PID.to_be_bytes(), &[0; 256][..]].concat());
    let long = || Script::new(ALL).says_all(messages.clone());
    assert_eq!(long().play().events, [READY]);
    let old = Script::new(ALL).says(negotiate(0x0003_0000, 0, b"")).says_all(messages.clone());
    assert!(malformed(&old.fails()), "in protocol 3.0 a key has four bytes");
}

#[test]
fn every_setting_that_was_not_taken_is_refused() {
    for column in 0..SETTINGS.len() {
        let mut row = SETTINGS;
        row[column] = "1";
        let fault = start_with_settings(&text_row(&row)).fails();
        assert!(matches!(fault, Fault::Unsuitable(Unsuitable::Setting { .. })), "{fault:?}");
    }
}

#[test]
fn every_column_of_the_settings_must_have_a_value() {
    for column in 0..SETTINGS.len() {
        for value in [None, Some(&b"\xff"[..])] {
            let mut row: Vec<_> = SETTINGS.iter().map(|value| Some(value.as_bytes())).collect();
            row[column] = value;
            let outcome = start_with_settings(&backend::row(&row)).play();
            let refused = outcome.fault.is_some_and(|fault| malformed(&fault));
            assert!(refused, "{value:?} in column {column} was taken for the setting");
        }
    }
}

#[test]
fn the_settings_row_has_as_many_columns_as_were_asked_for() {
    for columns in (0..=12).filter(|columns| *columns != SETTINGS.len()) {
        let row: Vec<&str> = SETTINGS.iter().copied().cycle().take(columns).collect();
        assert!(malformed(&start_with_settings(&text_row(&row)).fails()), "{columns}");
    }
}

#[test]
fn every_version_since_10_is_asked_for_the_settings_that_it_has() {
    let versions = [
        ("10.23", 8),
        ("11.0", 8),
        ("12.1 (Debian)", 9),
        ("13beta1", 9),
        ("14.2", 11),
        ("18rc1", 11),
    ];
    for (version, columns) in versions {
        let outcome = start_of_version(version, &SETTINGS[..columns]).play();
        let major = version[..2].parse().expect("two digits");
        let Event::Ready(greeting) = &outcome.events[0] else { panic!("{outcome:?}") };
        assert_eq!(greeting.server_major, major, "{version}");
    }
}

#[test]
fn a_server_without_a_version_that_is_served_is_refused() {
    for version in ["9.6.24", "", "x", "9", "99999999999999"] {
        let fault = start_of_version(version, &SETTINGS).fails();
        let Fault::Unsuitable(Unsuitable::Version(shown)) = &fault else {
            panic!("{version}: {fault:?}");
        };
        assert_eq!(&**shown, version);
    }
    let mut messages = start();
    messages.remove(2);
    let fault = Script::new(ALL).says_all(messages).fails();
    assert!(matches!(fault, Fault::Unsuitable(Unsuitable::Version(_))), "{fault:?}");
}

#[test]
fn a_transaction_is_never_open() {
    for (at, message) in start().iter().enumerate().filter(|(_, message)| message[0] == b'Z') {
        assert_eq!(*message, ready(b'I'));
        for status in *b"TE" {
            let fault = start_with(at, &ready(status)).fails();
            assert!(unexpected("ReadyForQuery", &fault), "{fault:?}");
        }
    }
}

#[test]
fn a_response_that_does_not_fit_its_buffer_ends_the_session() {
    let server = ScramServer::new(script::PASSWORD, 1);
    let iterations = IterationLimits { min: 1, max: 1 };
    let limits = SessionLimits { write_buffer: 90, ..SessionLimits::DEFAULT };
    let mut session = Session::new(script::startup(STRICT, iterations), limits).expect("it fits");
    session.sent(session.output().len());
    script::feed(&mut session, &backend::sasl());
    assert_eq!(session.poll_event(), Ok(None));
    session.sent(session.output().len());
    script::feed(&mut session, &server.challenge());
    assert_eq!(session.poll_event(), Ok(None));
    assert!(matches!(session.derive(1), Err(Fault::Internal(_))));
    assert!(session.poll_event().is_err(), "derive has failed, and the session goes on");
}

#[test]
fn without_a_password_there_is_no_answer() {
    let iterations = ITERATIONS;
    let requests =
        [backend::authentication(3, b""), backend::authentication(5, b"salt"), backend::sasl()];
    for request in requests {
        let startup = script::startup(ALL, iterations);
        let credentials = Credentials { password: None, ..startup.credentials };
        let startup = Startup { credentials, ..startup };
        let mut session = Session::new(startup, SessionLimits::DEFAULT).expect("a short start");
        session.sent(session.output().len());
        script::feed(&mut session, &request);
        assert_eq!(session.poll_event(), Err(Fault::Auth(AuthFault::NoPassword)));
        assert!(session.output().is_empty());
    }
}
