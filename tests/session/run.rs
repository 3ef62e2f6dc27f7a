//! Several keys in one statement: each row answers a ticket, as if that had been asked alone.

use distlock::proto::fault::{Fault, Violation};
use distlock::proto::session::{Event, Refused, Session, SessionLimits};
use distlock::proto::statement::{ROWS_MAX, Run, Value};

use super::backend::{self, bind_complete, boolean, command_complete, error, ready};
use super::script::{Script, events};

/// Three tries, with the tickets 1 to 3 and the mark 9; prepared, as the first of their kind.
fn tries() -> Script {
    Script::ready()
        .submits_run(Run::TryLock, &[7, -1, 42], 1)
        .syncs(9)
        .says(backend::message(b'1', b""))
}

fn answered(ticket: u64, value: Value) -> Event {
    Event::Answer { ticket, value }
}

fn letter(letter: u8) -> Vec<u8> {
    backend::message(b'D', &[0, 1, 0, 0, 0, 1, letter])
}

#[test]
fn each_row_answers_its_ticket() {
    let rows = [boolean(true), boolean(false), boolean(true)].concat();
    let script = tries().says_all(vec![bind_complete(), rows, command_complete(), ready(b'I')]);
    let expected = [
        answered(1, Value::Yes),
        answered(2, Value::No),
        answered(3, Value::Yes),
        Event::Synced { mark: 9 },
    ];
    assert_eq!(events(&script), expected);
}

#[test]
fn releases_say_for_each_key_whether_others_were_told() {
    let script = Script::ready().submits_run(Run::Release, &[7, 8], 1).syncs(9).says_all(vec![
        backend::message(b'1', b""),
        bind_complete(),
        letter(b'q'),
        letter(b'k'),
        command_complete(),
        ready(b'I'),
    ]);
    let expected = [answered(1, Value::Quiet), answered(2, Value::Told), Event::Synced { mark: 9 }];
    assert_eq!(events(&script), expected);
    let denied = Script::ready().submits_run(Run::Release, &[7, 8], 1).syncs(9).says_all(vec![
        backend::message(b'1', b""),
        bind_complete(),
        letter(b'n'),
    ]);
    assert!(matches!(denied.fails(), Fault::Violation(Violation::Malformed { .. })));
}

/// As with statements of their own: the rows before the error stand, it is for the next one, and
/// what is behind that was not run.
#[test]
fn an_error_after_any_row_is_of_the_next_ticket_and_the_others_are_skipped() {
    for rows in 0..=2 {
        let said = [bind_complete(), boolean(true).repeat(rows), error("53200"), ready(b'I')];
        let events = events(&tries().says(said.concat()));
        for (ticket, event) in (1..).zip(&events[..3]) {
            match event {
                Event::Answer { ticket: of, value: Value::Yes } if ticket <= rows as u64 => {
                    assert_eq!(*of, ticket);
                }
                Event::Failed { ticket: of, .. } if ticket == rows as u64 + 1 => {
                    assert_eq!(*of, ticket);
                }
                Event::Skipped { ticket: of } if ticket > rows as u64 + 1 => {
                    assert_eq!(*of, ticket);
                }
                other => panic!("{rows} rows, ticket {ticket}: {other:?}"),
            }
        }
        assert_eq!(events[3..], [Event::Synced { mark: 9 }]);
    }
}

#[test]
fn an_error_behind_all_rows_is_of_the_last_ticket() {
    let said = [bind_complete(), boolean(true).repeat(3), error("57014"), ready(b'I')];
    let events = events(&tries().says(said.concat()));
    assert_eq!(events[..2], [answered(1, Value::Yes), answered(2, Value::Yes)]);
    assert!(matches!(events[2], Event::Failed { ticket: 3, .. }), "it may be held all the same");
}

#[test]
fn too_few_rows_and_too_many_end_the_session() {
    for rows in [0, 1, 2, 4] {
        let said = [bind_complete(), boolean(true).repeat(rows), command_complete()];
        let fault = tries().says(said.concat()).fails();
        assert!(matches!(fault, Fault::Violation(Violation::Unexpected { .. })), "{rows} rows");
    }
}

#[test]
fn it_is_prepared_once_and_bound_with_all_its_keys() {
    let again = tries()
        .says_all(vec![bind_complete(), boolean(true).repeat(3), command_complete(), ready(b'I')])
        .submits_run(Run::TryLock, &[1], 4)
        .submits_run(Run::TryLock, &[2], 5)
        .syncs(10);
    let sent = again.play().sent;
    let count = |text: &[u8]| sent.windows(text.len()).filter(|window| *window == text).count();
    assert_eq!(count(b"FROM unnest"), 1);
    let array = |keys: &[i64]| {
        let head = [1, 0, 20, keys.len() as i32, 1].map(i32::to_be_bytes).concat();
        let keys = keys.iter().map(|key| [&8_i32.to_be_bytes()[..], &key.to_be_bytes()].concat());
        [head, keys.collect::<Vec<_>>().concat()].concat()
    };
    assert_eq!((count(&array(&[7, -1, 42])), count(&array(&[1])), count(&array(&[2]))), (1, 1, 1));
}

#[test]
fn so_many_rows_and_no_more_and_only_where_there_is_room() {
    let rows = |count: usize| (0..count as i64).zip(0..);
    let fresh = || Script::ready().session();
    for run in [Run::TryLock, Run::Release] {
        assert_eq!(fresh().submit_run(run, rows(ROWS_MAX)), Ok(()));
        assert_eq!(fresh().submit_run(run, rows(ROWS_MAX + 1)), Err(Refused::Busy));
        assert_eq!(fresh().submit_run(run, rows(0)), Err(Refused::Busy));
        let mut session = fresh();
        let taken = |session: &mut Session| {
            let mut taken = 0;
            while session.submit_run(run, rows(ROWS_MAX)).is_ok() {
                assert_eq!(session.sync(1), Ok(()), "there is always room for that");
                taken += 1;
            }
            taken
        };
        assert_eq!(taken(&mut session), SessionLimits::DEFAULT.in_flight / (ROWS_MAX + 1));
    }
}
