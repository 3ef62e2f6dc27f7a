//! A release and a try in one statement: its letter answers both tickets, as if each had been asked
//! alone.

use distlock::proto::fault::{Fault, Violation};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::session::{Event, Refused};
use distlock::proto::statement::{Statement, Swap, Value};

use super::backend::{self, bind_complete, boolean, command_complete, error, ready};
use super::script::{Script, events};

const SWAP: Swap = Swap { release: 7, try_lock: -42 };

/// A swap with the tickets 1 and 2 and the mark 9; prepared, as the first of its kind.
fn swap() -> Script {
    Script::ready().submits_swap(SWAP, [1, 2]).syncs(9).says(backend::message(b'1', b""))
}

fn letter(letter: u8) -> Vec<u8> {
    backend::message(b'D', &[0, 1, 0, 0, 0, 1, letter])
}

fn answered(ticket: u64, value: Value) -> Event {
    Event::Answer { ticket, value }
}

#[test]
fn a_letter_answers_the_release_and_then_the_try() {
    for (byte, released, tried) in [
        (b'q', Value::Quiet, Value::No),
        (b'Q', Value::Quiet, Value::Yes),
        (b'k', Value::Told, Value::No),
        (b'K', Value::Told, Value::Yes),
    ] {
        let said = vec![bind_complete(), letter(byte), command_complete(), ready(b'I')];
        let expected = [answered(1, released), answered(2, tried), Event::Synced { mark: 9 }];
        assert_eq!(events(&swap().says_all(said)), expected);
    }
}

#[test]
fn any_other_row_ends_the_session() {
    let rows = b"nxaA\0\x01".map(letter).into_iter();
    let two = backend::message(b'D', &[0, 2, 0, 0, 0, 1, b'q', 0, 0, 0, 1, 1]);
    let null = backend::message(b'D', &[0, 1, 0xff, 0xff, 0xff, 0xff]);
    for row in rows.chain([two, null, backend::message(b'D', &[0, 1, 0, 0, 0, 2, b'q', b'q'])]) {
        let fault = swap().says(bind_complete()).says(row.clone()).fails();
        assert!(matches!(fault, Fault::Violation(Violation::Malformed { .. })), "{row:?}");
    }
}

#[test]
fn it_has_one_row() {
    for said in [
        vec![bind_complete(), command_complete()],
        vec![bind_complete(), letter(b'q'), letter(b'q')],
        vec![bind_complete(), letter(b'q'), ready(b'I')],
        vec![letter(b'q')],
    ] {
        let fault = swap().says_all(said).fails();
        assert!(matches!(fault, Fault::Violation(Violation::Unexpected { .. })));
    }
}

/// Permissions are looked at before: the release can go out in another way, and the try once more.
#[test]
fn before_it_is_begun_an_error_is_of_the_release_and_the_try_was_not_run() {
    let events = events(&swap().says_all(vec![error("42501"), ready(b'I')]));
    assert!(matches!(events[0], Event::Failed { ticket: 1, .. }));
    assert_eq!(events[1..], [Event::Skipped { ticket: 2 }, Event::Synced { mark: 9 }]);
}

#[test]
fn once_it_is_begun_an_error_is_of_both() {
    for before in [vec![], letter(b'Q')] {
        let said = [bind_complete(), before, error("53200"), ready(b'I')];
        let events = events(&swap().says_all(said.to_vec()));
        for (at, of) in [1, 2].into_iter().enumerate() {
            match &events[at] {
                Event::Failed { ticket, error } => {
                    assert_eq!((*ticket, &error.sqlstate), (of, b"53200"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(events[2..], [Event::Synced { mark: 9 }]);
    }
}

#[test]
fn what_stands_before_and_behind_it_in_its_batch_is_answered_in_its_place() {
    let key = KeyParameters::Bigint(1);
    let script = Script::ready()
        .submits_swap(SWAP, [1, 2])
        .submits(Statement::TryLock(key), 3)
        .syncs(8)
        .submits(Statement::TryLock(key), 4)
        .submits_swap(SWAP, [5, 6])
        .submits_swap(SWAP, [7, 8])
        .syncs(9);
    let usual = |row: Vec<u8>| [bind_complete(), row, command_complete()].concat();
    let first = [backend::message(b'1', b""), usual(letter(b'K')), usual(boolean(false))].concat();
    let script = script.says([first, ready(b'I')].concat());
    let expected = [
        answered(1, Value::Told),
        answered(2, Value::Yes),
        answered(3, Value::No),
        Event::Synced { mark: 8 },
    ];
    let answers = script.clone().says_all(vec![
        usual(boolean(true)),
        usual(letter(b'q')),
        usual(letter(b'Q')),
        ready(b'I'),
    ]);
    let rest = [
        answered(4, Value::Yes),
        answered(5, Value::Quiet),
        answered(6, Value::No),
        answered(7, Value::Quiet),
        answered(8, Value::Yes),
        Event::Synced { mark: 9 },
    ];
    assert_eq!(events(&answers), [&expected[..], &rest].concat());
    // Both of a swap are skipped with what is before them.
    let events = events(&script.says_all(vec![error("57014"), ready(b'I')]));
    assert!(matches!(events[4], Event::Failed { ticket: 4, .. }));
    let skipped = (5..=8).map(|ticket| Event::Skipped { ticket });
    assert!(events[5..9].iter().cloned().eq(skipped), "{events:?}");
}

#[test]
fn it_is_prepared_once_and_bound_with_its_keys() {
    let again = swap()
        .says_all(vec![bind_complete(), letter(b'q'), command_complete(), ready(b'I')])
        .submits_swap(Swap { release: 3, try_lock: 3 }, [3, 4])
        .syncs(10);
    let sent = again.play().sent;
    let count = |text: &[u8]| sent.windows(text.len()).filter(|window| *window == text).count();
    assert_eq!(count(b"SELECT CASE WHEN NOT pg_advisory_unlock($1)"), 1);
    let value = |key: i64| [&8_i32.to_be_bytes()[..], &key.to_be_bytes()].concat();
    assert_eq!((count(&value(7)), count(&value(-42)), count(&value(3))), (1, 1, 2));
}

#[test]
fn there_has_to_be_room_for_both_tickets_and_a_sync() {
    let mut session = Script::ready().session();
    let mut taken = 0;
    while session.submit_swap(SWAP, [1, 2]).is_ok() {
        taken += 1;
    }
    assert_eq!(session.submit_swap(SWAP, [1, 2]), Err(Refused::Busy));
    assert_eq!(session.sync(1), Ok(()), "there is always room for that");
    assert!(taken > 50, "{taken}");
}
