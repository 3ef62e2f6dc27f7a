//! Every message in every state: what is taken is what the table of `proto_notes.md` has, and
//! everything else ends the session with the one error that the notes give for it.

use std::collections::BTreeSet;

use distlock::proto::fault::{AuthFault, Fault, Violation};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::handshake::UNKEYED;
use distlock::proto::session::{Refused, Session};
use distlock::proto::statement::Statement;

use super::backend::{self, ScramServer, bind_complete, boolean, greeting, preparation, text_row};
use super::notes::{self, Side};
use super::script::{self, ALL, PASSWORD, Script};

const STATES: [&str; 44] = [
    "Authenticating",
    "Authenticating, negotiated",
    "SaslContinue",
    "Deriving",
    "SaslFinal",
    "AwaitOk",
    "Settling",
    "Settling, keyed",
    "Identity: ParseComplete",
    "Identity: BindComplete",
    "Identity: DataRow",
    "Identity: CommandComplete",
    "Identity: ReadyForQuery",
    "Confirmation: ParseComplete",
    "Confirmation: BindComplete",
    "Confirmation: DataRow",
    "Confirmation: CommandComplete",
    "Confirmation: ReadyForQuery",
    "Settings: ParseComplete",
    "Settings: BindComplete",
    "Settings: DataRow",
    "Settings: CommandComplete",
    "Preparing: 0 of 4",
    "Preparing: 1 of 4",
    "Preparing: 2 of 4",
    "Preparing: 3 of 4",
    "Preparing: 4 of 4",
    "Release: BindComplete",
    "Release: DataRow",
    "Release: CommandComplete",
    "Release: ReadyForQuery",
    "Witnessing",
    "Testimony: ParseComplete",
    "Testimony: BindComplete",
    "Testimony: DataRow",
    "Testimony: CommandComplete",
    "Testimony: ReadyForQuery",
    "Idle",
    "Statement: BindComplete",
    "Statement: DataRow",
    "Statement: CommandComplete",
    "Skipping",
    "Sync",
    "Commit",
];

const LOCK: Statement = Statement::TryLock(KeyParameters::Bigint(42));

fn server() -> ScramServer {
    ScramServer::new(PASSWORD, 1)
}

/// A session in a state of the notes.
fn session_in(state: &str) -> Session {
    let begun = || Script::new(ALL).says(backend::sasl());
    let settled = |count: usize| Script::new(ALL).says_all(greeting()[..count].to_vec());
    let prepared = |count: usize| settled(5).says_all(preparation()[..count].to_vec());
    let testimony = backend::reply(&text_row(&["4712", "false"]));
    let testifying = |count: usize| settled(5).says_all(testimony[..count].to_vec()).witness();
    // Another statement follows the one that is looked at, as in the notes.
    let batch = || Script::ready().submits(LOCK, 1).submits(LOCK, 2).syncs(1);
    let index = STATES.iter().position(|known| *known == state).expect("a state of the notes");
    let script = match index {
        0 => Script::new(ALL),
        1 => Script::new(ALL).says(backend::negotiate(0x0003_0000, 0, b"")),
        2 => begun(),
        3 => return deriving(),
        4 => begun().says(server().challenge()),
        5 => Script::new(ALL).says(backend::authentication(3, b"")),
        6 => settled(3),
        7 => settled(4),
        8..=30 => prepared(index - 8),
        31 => prepared(10).witnessed(),
        32..=36 => testifying(index - 32),
        37 => Script::ready(),
        38 => batch(),
        39 => batch().says(bind_complete()),
        40 => batch().says(bind_complete()).says(boolean(true)),
        41 => batch().says(backend::error("57014")),
        42 => Script::ready().syncs(1),
        _ => Script::ready().submits(LOCK, 1).syncs(1).says(backend::answer(true)),
    };
    script.session()
}

/// A session that would compute next: a script never stops there.
fn deriving() -> Session {
    let mut session = session_in("SaslContinue");
    script::feed(&mut session, &server().challenge());
    assert_eq!(session.poll_event(), Ok(None));
    assert!(session.is_deriving());
    session
}

/// A well-formed example of every message that a codec of ours knows, right for the state where
/// that makes a difference.
fn examples(state: &str) -> Vec<(String, Vec<u8>)> {
    let backend = notes::blocks().into_iter().filter(|block| block.side == Side::Backend);
    let example = |title: &str, bytes: Vec<u8>| match title {
        "AuthenticationSASLContinue" => server().challenge(),
        "AuthenticationSASLFinal" => server().verdict(),
        "DataRow" => match state.split(':').next() {
            Some("Identity") => text_row(&backend::IDENTITY),
            Some("Settings") => text_row(&backend::SETTINGS),
            Some("Confirmation") => text_row(&backend::CONFIRMATION),
            Some("Testimony") => text_row(&["4712", "false"]),
            _ => bytes,
        },
        _ => bytes,
    };
    backend.map(|block| (block.title.clone(), example(&block.title, block.bytes()))).collect()
}

/// What the table of the notes has for a message in a state.
fn next_state(table: &[Vec<String>], state: &str, message: &str) -> Option<String> {
    let asynchronous = ["NoticeResponse", "NotificationResponse", "ParameterStatus"];
    let message = if asynchronous.contains(&message) { "asynchronous" } else { message };
    let row = table.iter().find(|row| row[0] == state && row[1] == message)?;
    Some(row[2].clone())
}

/// Whether a fault is the one that the notes give for a message that the table does not have.
fn is_right_fault(fault: &Fault, state: &str, place: &'static str, name: &str) -> bool {
    let authenticating = state.starts_with("Authenticating");
    match fault {
        Fault::Server(_) => name == "ErrorResponse",
        Fault::Auth(AuthFault::Unsupported(method)) => authenticating && *method == name,
        Fault::Violation(Violation::Malformed { message, .. }) => {
            state == "Authenticating, negotiated"
                && [name, *message] == ["NegotiateProtocolVersion"; 2]
        }
        Fault::Violation(Violation::Unexpected { message, state }) => {
            *message == name && *state == place && name != "ErrorResponse"
        }
        _ => false,
    }
}

/// Gives one message to a session and takes all that comes of it.
fn give(session: &mut Session, bytes: &[u8]) -> Result<(), Fault> {
    script::feed(session, bytes);
    if session.is_deriving() {
        assert_eq!(session.poll_event(), Ok(None), "it waits until our response is out");
        session.derive(u32::MAX)?;
    }
    while session.poll_event()?.is_some() {}
    Ok(())
}

/// The state in which a message is judged: what comes while we compute waits for our response.
fn judged_in(state: &str) -> &str {
    if state == "Deriving" { "SaslFinal" } else { state }
}

/// Where a session is, but for the version that it speaks, which the table does not tell apart.
fn place_of(session: &Session) -> &'static str {
    if session.state() == UNKEYED { "before the first ReadyForQuery" } else { session.state() }
}

/// A failed session stays failed, whatever comes.
fn assert_stays_failed(session: &mut Session, what: &str) {
    for (_, bytes) in examples("Idle") {
        script::feed(session, &bytes);
        assert!(session.poll_event().is_err(), "{what}: {}", bytes[0].escape_ascii());
    }
    assert!(!session.is_ready() && !session.is_deriving(), "{what}");
    assert_eq!(
        (session.submit(&LOCK, 3), session.sync(2)),
        (Err(Refused::Busy), Err(Refused::Busy)),
        "{what}"
    );
}

#[test]
fn the_table_has_every_state_and_no_other() {
    let table = notes::table("## 5.", "state", 3);
    let named: BTreeSet<&str> = table.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(named, BTreeSet::from(STATES));
    assert!(table.iter().all(|row| STATES.contains(&row[2].as_str())), "every next state is one");
    let titles: Vec<String> = examples("Idle").into_iter().map(|(title, _)| title).collect();
    for row in &table {
        let ours = row[1].starts_with('(');
        assert!(ours || row[1] == "asynchronous" || titles.contains(&row[1]), "{row:?}");
    }
}

#[test]
fn every_known_message_is_taken_or_refused_in_every_state_as_the_table_says() {
    let table = notes::table("## 5.", "state", 3);
    for state in STATES {
        for (name, bytes) in examples(state) {
            let what = format!("{name} in {state}");
            let mut session = session_in(state);
            let state = judged_in(state);
            let place = session_in(state).state();
            let given = give(&mut session, &bytes);
            match (given, next_state(&table, state, &name)) {
                (Ok(()), Some(next)) => {
                    assert_eq!(place_of(&session), place_of(&session_in(&next)), "{what}");
                }
                (Err(fault), None) => {
                    assert!(is_right_fault(&fault, state, place, &name), "{what}: {fault:?}");
                    assert_stays_failed(&mut session, &what);
                }
                (given, next) => panic!("{what}: {given:?}, the table has {next:?}"),
            }
        }
    }
}

#[test]
fn every_other_type_byte_is_refused_in_every_state() {
    let known: BTreeSet<u8> = examples("Idle").iter().map(|(_, bytes)| bytes[0]).collect();
    let unsupported = notes::table("## 6.", "type", 2);
    for state in STATES {
        for tag in (0..=u8::MAX).filter(|tag| !known.contains(tag)) {
            let named = unsupported.iter().find(|row| row[0].as_bytes() == [tag]);
            let mut session = session_in(state);
            match (give(&mut session, &backend::message(tag, b"")), named) {
                (Err(Fault::Violation(Violation::Unsupported(name))), Some(row)) => {
                    assert_eq!(name, row[1]);
                }
                (Err(Fault::Violation(Violation::UnknownMessage(byte))), None) => {
                    assert_eq!(byte, tag);
                }
                (given, _) => panic!("{} in {state}: {given:?}", tag.escape_ascii()),
            }
            assert_stays_failed(&mut session, state);
        }
    }
}

#[test]
fn the_turns_that_are_ours_lead_where_the_table_says() {
    let mut session = deriving();
    session.derive(u32::MAX).expect("it derives");
    assert_eq!(session.state(), session_in("SaslFinal").state());
    let mut session = session_in("Idle");
    session.submit(&LOCK, 1).expect("room in the ring");
    assert_eq!(session.state(), session_in("Statement: BindComplete").state());
    let mut session = session_in("Idle");
    session.sync(1).expect("room in the ring");
    assert_eq!(session.state(), session_in("Sync").state());
}
