//! Who holds a key, as a session hears it.

use distlock::proto::fault::{Fault, Violation};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::listing::{Listing, Place, Role};
use distlock::proto::session::{Event, Refused};
use distlock::proto::statement::Statement;

use super::backend::{
    answer, bind_complete, command_complete, error, message, parse_complete, ready, row,
};
use super::script::{Script, events};

const HOLDERS: Statement = Statement::Holders(KeyParameters::Bigint(42));
const TRY_LOCK: Statement = Statement::TryLock(KeyParameters::Bigint(42));

/// A session that has asked, with ticket 1 and mark 9.
fn asked() -> Script {
    Script::ready().submits(HOLDERS, 1).syncs(9)
}

/// What a script gives after [`Event::Ready`].
#[track_caller]
/// The bytes of an answer with one holder of this name, which began when the clock says.
fn one_holder(name: &[u8]) -> Vec<u8> {
    let length = i16::try_from(name.len()).expect("a short name");
    [
        &1_i32.to_be_bytes()[..],
        &0_i32.to_be_bytes(),
        &9_i64.to_be_bytes(),
        &4711_i32.to_be_bytes(),
        b"ev",
        &(-1_i16).to_be_bytes(),
        &[0; 24],
        &(-2_i32).to_be_bytes(),
        &(-1_i16).to_be_bytes(),
        &length.to_be_bytes(),
        name,
    ]
    .concat()
}

#[test]
fn the_answer_says_who_holds_the_key() {
    let bytes = one_holder(b"an\0application\n");
    let script = asked()
        .says(parse_complete())
        .says(bind_complete())
        .says(row(&[Some(&bytes)]))
        .says(command_complete())
        .says(ready(b'I'));
    let events = events(&script);
    let [Event::Listed { ticket: 1, listing }, Event::Synced { mark: 9 }] = &events[..] else {
        panic!("{events:?}");
    };
    let Listing { holders: 1, waiters: 0, entries } = &**listing else { panic!("{listing:?}") };
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].role, entries[0].place), (Role::Holds { shared: false }, Place::Key));
    assert_eq!(entries[0].application_name.as_deref(), Some("an\0application\n"));
}

#[test]
fn a_question_shares_its_sync_with_nothing() {
    let mut session = Script::ready().session();
    session.submit(&TRY_LOCK, 1).expect("room");
    assert_eq!(session.submit(&HOLDERS, 2), Err(Refused::SyncFirst));
    session.sync(1).expect("room");
    session.submit(&HOLDERS, 2).expect("room");
    assert_eq!(session.submit(&TRY_LOCK, 3), Err(Refused::SyncFirst));
    session.sync(2).expect("room");
    session.submit(&TRY_LOCK, 3).expect("room");
}

/// A server that does not even know what it is asked for.
#[test]
fn a_question_that_cannot_be_parsed_fails_alone() {
    for before in 0..4 {
        let good = [parse_complete(), bind_complete(), row(&[Some(&one_holder(b"app"))])];
        let script = good.into_iter().take(before).fold(asked(), Script::says);
        let script = script
            .says(error("42883"))
            .says(ready(b'I'))
            .submits(TRY_LOCK, 2)
            .syncs(10)
            .says(answer(true))
            .says(ready(b'I'));
        let events = events(&script);
        assert!(matches!(&events[0], Event::Failed { ticket: 1, .. }), "{events:?}");
        assert_eq!(events[1], Event::Synced { mark: 9 });
        // What was told of the holders before the error is not the answer of another statement.
        assert_eq!(events[2], Event::Answer { ticket: 2, value: true.into() });
    }
}

#[test]
fn an_answer_with_anything_off_ends_the_session() {
    let good = one_holder(b"app");
    let mut too_many = good.clone();
    too_many[..4].copy_from_slice(&2_i32.to_be_bytes());
    let beyond = one_holder(&[b'n'; 64]);
    let columns: [&[Option<&[u8]>]; 8] = [
        &[],
        &[None],
        &[Some(b"")],
        &[Some(&good), Some(&good)],
        &[Some(&good[..good.len() - 1])],
        &[Some(&too_many)],
        &[Some(&beyond)],
        &[Some(b"\x01")],
    ];
    for columns in columns {
        let script = asked().says(parse_complete()).says(bind_complete()).says(row(columns));
        let outcome = script.play();
        let fault = outcome.fault.expect("the session ends");
        assert!(matches!(fault, Fault::Violation(Violation::Malformed { .. })), "{fault}");
        assert_eq!(outcome.events.len(), 1, "nothing but Ready");
    }
}

#[test]
fn a_second_row_or_none_ends_the_session() {
    let one = row(&[Some(&one_holder(b"app"))]);
    let begun = || asked().says(parse_complete()).says(bind_complete());
    let unexpected =
        |fault: &Fault| matches!(fault, Fault::Violation(Violation::Unexpected { .. }));
    assert!(unexpected(&begun().says(one.clone()).says(one).fails()));
    assert!(unexpected(&begun().says(command_complete()).fails()));
}

#[test]
fn a_row_that_is_longer_than_any_answer_is_refused_from_its_header() {
    let script = asked().says(parse_complete()).says(bind_complete());
    let row = message(b'D', &vec![0; 4093]);
    let fault = script.says(row[..5].to_vec()).fails();
    assert!(matches!(fault, Fault::Violation(Violation::Length { .. })), "{fault}");
}

#[test]
fn counts_without_their_entries_end_the_session() {
    let head = [i32::MAX.to_be_bytes(), i32::MAX.to_be_bytes(), [0; 4], [0; 4]].concat();
    let script = asked().says(parse_complete()).says(bind_complete()).says(row(&[Some(&head)]));
    assert!(matches!(script.fails(), Fault::Violation(Violation::Malformed { .. })));
}
