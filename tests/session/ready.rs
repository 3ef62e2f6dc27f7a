//! A prepared session: answers, errors, and the end.

use distlock::proto::budget::UNASKED_MESSAGES_MAX;
use distlock::proto::fault::{Fault, Unsuitable, Violation};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::rehearsal::ITERATIONS;
use distlock::proto::session::{Event, Refused, Session, SessionLimits};
use distlock::proto::statement::{Statement, Token, Value};

use super::backend::{self, answer, bind_complete, boolean, command_complete, error, ready};
use super::script::{self, ALL, Script, events};

const TRY_LOCK: Statement = Statement::TryLock(KeyParameters::Bigint(42));
const UNLOCK: Statement = Statement::Unlock(KeyParameters::Bigint(42));
const TRY_PAIR: Statement = Statement::TryLock(KeyParameters::Pair(7, -1));
const UNLOCK_PAIR: Statement = Statement::Unlock(KeyParameters::Pair(7, -1));

/// A prepared session with a batch of statements; their tickets are 1, 2, ... and the mark is 9.
fn batch(statements: &[Statement]) -> Script {
    let tickets = 1..;
    let script = statements
        .iter()
        .zip(tickets)
        .fold(Script::ready(), |script, (statement, ticket)| script.submits(*statement, ticket));
    script.syncs(9)
}

/// What a script gives after [`Event::Ready`].
#[track_caller]
fn answered(ticket: u64, value: bool) -> Event {
    Event::Answer { ticket, value: value.into() }
}

fn failed_ticket(event: &Event) -> Option<u64> {
    match event {
        Event::Failed { ticket, .. } => Some(*ticket),
        _ => None,
    }
}

fn unexpected(name: &str, fault: &Fault) -> bool {
    matches!(fault, Fault::Violation(Violation::Unexpected { message, .. }) if *message == name)
}

fn malformed(fault: &Fault) -> bool {
    matches!(fault, Fault::Violation(Violation::Malformed { .. }))
}

#[test]
fn every_statement_is_granted_or_refused_by_its_row() {
    for statement in [TRY_LOCK, UNLOCK, TRY_PAIR, UNLOCK_PAIR] {
        for value in [true, false] {
            let script = batch(&[statement]).says(answer(value)).says(ready(b'I'));
            assert_eq!(events(&script), [answered(1, value), Event::Synced { mark: 9 }]);
        }
    }
}

#[test]
fn a_statement_is_sent_as_bind_and_execute_of_the_right_name() {
    let expected: [(Statement, &[u8]); 4] = [
        (TRY_LOCK, b"\0t\0\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x2a\0\x01\0\x01"),
        (UNLOCK, b"\0u\0\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x2a\0\x01\0\x01"),
        (
            TRY_PAIR,
            b"\0tp\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x04\xff\xff\xff\xff\0\x01\0\x01",
        ),
        (
            UNLOCK_PAIR,
            b"\0up\0\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x04\xff\xff\xff\xff\0\x01\0\x01",
        ),
    ];
    for (statement, body) in expected {
        let sent = batch(&[statement]).play().sent;
        let bind = backend::message(b'B', body);
        let execute = backend::message(b'E', &[0; 5]);
        let sync = backend::message(b'S', b"");
        assert!(sent.ends_with(&[bind, execute, sync].concat()), "{statement:?}");
    }
}

#[test]
fn the_answers_of_a_batch_come_in_order() {
    let script = batch(&[TRY_LOCK, TRY_PAIR, UNLOCK]).says_all(vec![
        answer(true),
        answer(false),
        answer(true),
        ready(b'I'),
    ]);
    let expected =
        [answered(1, true), answered(2, false), answered(3, true), Event::Synced { mark: 9 }];
    assert_eq!(events(&script), expected);
}

#[test]
fn batches_may_follow_one_another_without_waiting() {
    let script = batch(&[TRY_LOCK]).submits(UNLOCK, 2).syncs(10).syncs(11).says_all(vec![
        answer(true),
        ready(b'I'),
        answer(true),
        ready(b'I'),
        ready(b'I'),
    ]);
    let expected = [
        answered(1, true),
        Event::Synced { mark: 9 },
        answered(2, true),
        Event::Synced { mark: 10 },
        Event::Synced { mark: 11 },
    ];
    assert_eq!(events(&script), expected);
}

#[test]
fn a_heartbeat_is_a_sync_alone() {
    let script = batch(&[]).says(ready(b'I'));
    assert_eq!(events(&script), [Event::Synced { mark: 9 }]);
    assert!(script.play().sent.ends_with(b"S\0\0\0\x04S\0\0\0\x04"), "after that of the start");
}

#[test]
fn an_error_fails_its_statement_and_skips_the_rest_of_the_batch() {
    let partial = [vec![], bind_complete(), [bind_complete(), boolean(true)].concat()];
    for before in partial {
        let script = batch(&[TRY_LOCK, TRY_PAIR, UNLOCK]).says_all(vec![
            answer(true),
            before,
            error("53200"),
            ready(b'I'),
        ]);
        let events = events(&script);
        assert_eq!(events[0], answered(1, true), "what was answered before stands");
        assert_eq!(failed_ticket(&events[1]), Some(2));
        assert_eq!(events[2..], [Event::Skipped { ticket: 3 }, Event::Synced { mark: 9 }]);
    }
}

#[test]
fn an_error_of_one_batch_leaves_the_others_alone() {
    let second = batch(&[TRY_LOCK]).submits(TRY_PAIR, 2).submits(UNLOCK, 3).syncs(10);
    let answers = vec![answer(true), ready(b'I'), error("57014"), ready(b'I')];
    let script = second.submits(UNLOCK, 4).syncs(11).says_all(answers);
    let events = events(&script.says_all(vec![answer(true), ready(b'I')]));
    assert_eq!(events[..2], [answered(1, true), Event::Synced { mark: 9 }]);
    assert_eq!(failed_ticket(&events[2]), Some(2));
    let rest = [
        Event::Skipped { ticket: 3 },
        Event::Synced { mark: 10 },
        answered(4, true),
        Event::Synced { mark: 11 },
    ];
    assert_eq!(events[3..], rest);
}

#[test]
fn asynchronous_messages_may_come_between_any_two() {
    let answers = [bind_complete(), boolean(true), command_complete(), error("57014"), ready(b'I')];
    let others = [
        backend::notice(),
        backend::parameter("in_hot_standby", "off"),
        backend::parameter("TimeZone", "UTC"),
        backend::notification(),
    ];
    for other in others {
        for at in 0..=answers.len() {
            let mut messages = answers.to_vec();
            messages.insert(at, other.clone());
            let script = batch(&[TRY_LOCK, TRY_PAIR, UNLOCK]).says_all(messages);
            let events = events(&script);
            assert_eq!(events[0], answered(1, true));
            assert_eq!(failed_ticket(&events[1]), Some(2));
            assert_eq!(events[2..], [Event::Skipped { ticket: 3 }, Event::Synced { mark: 9 }]);
        }
    }
}

#[test]
fn what_nobody_asked_for_has_a_limit_that_each_answered_sync_renews() {
    let most = usize::try_from(UNASKED_MESSAGES_MAX).expect("small");
    let flood = |count: usize| backend::notice().repeat(count);
    let calm = Script::ready().says(flood(most)).syncs(1).says(ready(b'I')).says(flood(most));
    assert_eq!(calm.play_long().fault, None);
    let fault = Script::ready().says(flood(most + 1)).play_long().fault;
    let limit = UNASKED_MESSAGES_MAX;
    assert!(
        matches!(fault, Some(Fault::Violation(Violation::Budget { limit: l, .. })) if l == limit),
        "{fault:?}"
    );
}

#[test]
fn what_says_that_the_session_is_over_ends_it_at_any_point() {
    let over = [
        backend::fatal("57P01"),
        backend::fatal("57P05"),
        backend::report(b'E', "PANIC", "XX000"),
        backend::report(b'E', "WARNING", "01000"),
        backend::message(b'E', b"\0"),
        backend::report(b'N', "WARNING", "57P01"),
        backend::report(b'N', "WARNING", "57P02"),
    ];
    let answers = [bind_complete(), boolean(true), command_complete(), error("1"), ready(b'I')];
    for message in over {
        for at in 0..=answers.len() {
            let mut messages = answers[..at].to_vec();
            messages.push(message.clone());
            let fault = batch(&[TRY_LOCK, TRY_PAIR, UNLOCK]).says_all(messages).fails();
            assert!(matches!(fault, Fault::Server(_)), "after {at}: {fault:?}");
        }
    }
}

#[test]
fn a_server_that_becomes_a_standby_is_left_at_any_point() {
    let answers = [bind_complete(), boolean(true), command_complete(), error("1"), ready(b'I')];
    for at in 0..=answers.len() {
        let mut messages = answers[..at].to_vec();
        messages.push(backend::parameter("in_hot_standby", "on"));
        let fault = batch(&[TRY_LOCK, TRY_PAIR, UNLOCK]).says_all(messages).fails();
        assert_eq!(fault, Fault::Unsuitable(Unsuitable::Standby));
    }
}

#[test]
fn an_error_that_no_statement_explains_ends_the_session() {
    let heartbeat = batch(&[]);
    let idle = heartbeat.clone().says(ready(b'I'));
    // A commit may fail, but once.
    let last = batch(&[TRY_LOCK]).says(answer(true)).says(error("40001"));
    let skipping = batch(&[TRY_LOCK, UNLOCK]).says(error("57014"));
    for script in [Script::ready(), heartbeat, idle, last, skipping] {
        assert!(matches!(script.says(error("40001")).fails(), Fault::Server(_)));
    }
}

/// What a batch did to locks stands, whatever becomes of its commit.
#[test]
fn a_commit_that_fails_is_told_and_the_session_goes_on() {
    let script = batch(&[TRY_LOCK]).says(answer(true)).says(error("54000")).says(ready(b'I'));
    let events = events(&script);
    assert!(
        matches!(&events[..], [
        Event::Answer { ticket: 1, .. },
        Event::CommitFailed { error },
        Event::Synced { mark: 9 },
    ] if error.sqlstate == *b"54000"),
        "{events:?}"
    );
}

fn letter(letter: u8) -> Vec<u8> {
    [bind_complete(), backend::row(&[Some(&[letter])]), command_complete()].concat()
}

fn parsed() -> Vec<u8> {
    backend::message(b'1', b"")
}

#[test]
fn a_release_says_in_a_letter_whether_others_were_told_and_any_other_ends_the_session() {
    const RELEASE: Statement = Statement::Release(KeyParameters::Bigint(42));
    for (byte, value) in [(b'q', Value::Quiet), (b'k', Value::Told)] {
        let script = batch(&[RELEASE]).says(parsed()).says(letter(byte)).says(ready(b'I'));
        let answer = Event::Answer { ticket: 1, value };
        assert_eq!(events(&script), [answer, Event::Synced { mark: 9 }]);
    }
    for byte in *b"nxaw\0\x01t" {
        assert!(malformed(&batch(&[RELEASE]).says(parsed()).says(letter(byte)).fails()));
    }
    assert!(malformed(&batch(&[RELEASE]).says(parsed()).says(answer(true)).fails()));
    assert!(unexpected("BindComplete", &batch(&[RELEASE]).says(letter(b'q')).fails()));
}

/// Prepared at the first use, at the beginning of a batch: what fails before it must not take it
/// along.
#[test]
fn a_statement_is_prepared_once_and_begins_a_batch_when_it_is() {
    const RELEASE: Statement = Statement::Release(KeyParameters::Bigint(42));
    let mut session = Script::ready().session();
    session.submit(&TRY_LOCK, 1).expect("prepared at the start");
    assert_eq!(session.submit(&RELEASE, 2), Err(Refused::SyncFirst));
    session.sync(1).expect("room");
    session.submit(&RELEASE, 2).expect("at the beginning");
    session.submit(&RELEASE, 3).expect("prepared now");
    session.submit(&TRY_LOCK, 4).expect("any other");
    session.sync(2).expect("room");
    let parses = session.output().windows(9).filter(|bytes| bytes == b"pg_notify").count();
    assert_eq!(parses, 1);
}

/// Its commit is what makes it durable.
#[test]
fn a_fenced_grant_counts_with_its_sync_and_not_if_that_warns_or_fails() {
    const FENCE: Statement = Statement::Fence(KeyParameters::Bigint(42));
    let row = backend::row(&[Some(&9_u64.to_be_bytes()), Some(b"0000000A")]);
    let granted = || {
        let reply = [bind_complete(), row.clone(), command_complete()].concat();
        batch(&[FENCE]).says(parsed()).says(reply)
    };
    assert_eq!(events(&granted()), [], "not yet");
    let value = Value::Token(Some(Token { timeline: 10, lsn: 9 }));
    let all = events(&granted().says(ready(b'I')));
    assert_eq!(all, [Event::Answer { ticket: 1, value }, Event::Synced { mark: 9 }]);
    let fields = b"SWARNING\0VWARNING\0C01000\0Mcanceling wait\0\0";
    for doubt in [backend::message(b'N', fields), error("57014")] {
        let all = events(&granted().says(doubt).says(ready(b'I')));
        assert_eq!(all.iter().find_map(failed_ticket), Some(1), "{all:?}");
    }
    for row in [
        backend::row(&[Some(&[1]), Some(b"0000000A")]),
        backend::row(&[Some(&[0; 8]), Some(b"A")]),
        backend::row(&[Some(&[0; 8]), Some(b"+000000A")]),
        backend::row(&[Some(&[0; 8])]),
    ] {
        let script = batch(&[FENCE]).says(parsed()).says(bind_complete()).says(row);
        assert!(malformed(&script.fails()));
    }
    let mut session = Script::ready().session();
    session.submit(&FENCE, 1).expect("alone");
    assert_eq!(session.submit(&TRY_LOCK, 2), Err(Refused::SyncFirst), "a Sync of its own");
}

#[test]
fn a_notification_of_ours_is_told_with_its_key_and_others_are_passed_over() {
    let notification = |channel: &str, payload: &str| {
        let body = [&7_i32.to_be_bytes()[..], channel.as_bytes(), b"\0", payload.as_bytes(), b"\0"];
        backend::message(b'A', &body.concat())
    };
    for (channel, payload, key) in [
        ("distlock_3", "-5", Some(KeyParameters::Bigint(-5))),
        ("distlock_0", "1,-2", Some(KeyParameters::Pair(1, -2))),
        ("distlock_0", "x", None),
        ("other", "5", None),
    ] {
        let told = events(&Script::ready().says(notification(channel, payload)));
        let wanted = key.map(|key| Event::Notified { process_id: 7, key });
        assert_eq!(told, Vec::from_iter(wanted), "{channel} {payload}");
    }
}

#[test]
fn an_open_transaction_ends_the_session() {
    for status in *b"TE" {
        for script in [
            batch(&[]),
            batch(&[TRY_LOCK]).says(answer(true)),
            batch(&[TRY_LOCK]).says(error("57014")),
            batch(&[TRY_LOCK, UNLOCK]).says(error("57014")),
        ] {
            assert!(unexpected("ReadyForQuery", &script.says(ready(status)).fails()));
        }
    }
}

#[test]
fn an_answer_too_many_ends_the_session() {
    let done = batch(&[TRY_LOCK]).says(answer(true)).says(ready(b'I'));
    let extra = [
        ("ReadyForQuery", ready(b'I')),
        ("BindComplete", answer(true)),
        ("DataRow", boolean(true)),
        ("CommandComplete", command_complete()),
        ("ParseComplete", backend::parse_complete()),
    ];
    for (name, message) in extra {
        assert!(unexpected(name, &done.clone().says(message).fails()), "{name}");
    }
    let doubled = batch(&[TRY_LOCK]).says(answer(true)).says(answer(true)).fails();
    assert!(unexpected("BindComplete", &doubled));
}

#[test]
fn an_answer_with_a_message_left_out_ends_the_session() {
    let messages = [bind_complete(), boolean(true), command_complete(), ready(b'I')];
    let next = ["DataRow", "CommandComplete", "ReadyForQuery"];
    for (left_out, name) in next.into_iter().enumerate() {
        let mut messages = messages.to_vec();
        messages.remove(left_out);
        assert!(unexpected(name, &batch(&[TRY_LOCK]).says_all(messages).fails()), "{name}");
    }
    assert!(unexpected("ReadyForQuery", &batch(&[TRY_LOCK]).says(ready(b'I')).fails()));
}

#[test]
fn two_rows_end_the_session() {
    let script = batch(&[TRY_LOCK]).says_all(vec![bind_complete(), boolean(true), boolean(true)]);
    assert!(unexpected("DataRow", &script.fails()));
}

#[test]
fn a_row_that_is_not_one_binary_boolean_is_never_a_grant() {
    let rows: [&[Option<&[u8]>]; 10] = [
        &[],
        &[None],
        &[Some(b"")],
        &[Some(b"t")],
        &[Some(b"\x02")],
        &[Some(b"\xff")],
        &[Some(b"\x01\x00")],
        &[Some(b"true")],
        &[Some(b"\x01"), Some(b"\x01")],
        &[Some(b"\x01"), None],
    ];
    for row in rows {
        let script = batch(&[TRY_LOCK]).says_all(vec![bind_complete(), backend::row(row)]);
        let outcome = script.play();
        assert!(outcome.fault.is_some_and(|fault| malformed(&fault)), "{row:?}");
        assert_eq!(outcome.events.len(), 1, "nothing but Ready: {row:?}");
    }
    for body in
        [&b"\0\x01\xff\xff\xff\xfe\x01"[..], b"\xff\xff\0\0\0\x01\x01", b"\0\x01\0\0\0\x09\x01"]
    {
        let row = backend::message(b'D', body);
        assert!(malformed(&batch(&[TRY_LOCK]).says_all(vec![bind_complete(), row]).fails()));
    }
}

#[test]
fn a_full_ring_is_busy_and_recovers() {
    let mut session = Script::ready().session();
    let most = SessionLimits::DEFAULT.in_flight as u64;
    for _ in 0..3 {
        for ticket in 1..most {
            session.submit(&TRY_LOCK, ticket).expect("room in the ring");
        }
        assert_eq!(
            session.submit(&TRY_LOCK, 0),
            Err(Refused::Busy),
            "a place is kept for the Sync"
        );
        session.sync(1).expect("the place that was kept");
        assert_eq!(session.sync(2), Err(Refused::Busy));
        assert_eq!(session.tickets().collect::<Vec<_>>(), (1..most).collect::<Vec<_>>());
        assert_eq!(session.oldest_mark(), Some(1));
        session.sent(session.output().len());
        for ticket in 1..most {
            script::feed(&mut session, &answer(true));
            assert_eq!(session.poll_event(), Ok(Some(answered(ticket, true))));
        }
        assert_eq!(session.submit(&TRY_LOCK, 0), Ok(()), "answers make room");
        script::feed(&mut session, &ready(b'I'));
        assert_eq!(session.poll_event(), Ok(Some(Event::Synced { mark: 1 })));
        session.sync(3).expect("room in the ring");
        session.sent(session.output().len());
        script::feed(&mut session, &[answer(false), ready(b'I')].concat());
        assert_eq!(session.poll_event(), Ok(Some(answered(0, false))));
        assert_eq!(session.poll_event(), Ok(Some(Event::Synced { mark: 3 })));
    }
}

#[test]
fn unsent_bytes_are_busy_and_leave_room_for_the_sync() {
    let limits = SessionLimits { write_buffer: 1536, ..SessionLimits::DEFAULT };
    let iterations = ITERATIONS;
    let mut session = Session::new(script::startup(ALL, iterations), limits).expect("it fits");
    session.sent(session.output().len());
    script::feed(&mut session, &backend::greeting().concat());
    assert_eq!(session.poll_event(), Ok(None));
    assert_eq!(session.submit(&TRY_LOCK, 0), Err(Refused::Busy), "before it is ready");
    assert_eq!(session.sync(0), Err(Refused::Busy), "before it is ready");
    let mut last = Ok(None);
    for message in backend::preparation() {
        session.sent(session.output().len());
        script::feed(&mut session, &message);
        last = session.poll_event();
    }
    assert!(matches!(last, Ok(Some(Event::Ready(_)))), "{last:?}");
    let accepted = (0..100).take_while(|ticket| session.submit(&TRY_PAIR, *ticket).is_ok()).count();
    assert!((10..100).contains(&accepted), "{accepted}");
    session.sync(0).expect("room is kept for it");
    session.sent(session.output().len());
    session.submit(&TRY_PAIR, 100).expect("what was sent makes room");
}

#[test]
fn after_goodbye_there_is_nothing_more() {
    let mut session = Script::ready().session();
    session.terminate();
    assert_eq!(session.output(), b"X\0\0\0\x04");
    assert_eq!(
        (session.submit(&TRY_LOCK, 1), session.sync(1)),
        (Err(Refused::Busy), Err(Refused::Busy))
    );
    assert!(session.poll_event().is_err());
}

/// NOTIFY needs no privilege: whoever may connect could end every session that listens.
#[test]
fn no_number_of_notifications_ends_a_session() {
    let many = usize::try_from(UNASKED_MESSAGES_MAX).expect("small") + 1;
    let flood = backend::notification().repeat(many);
    let script = Script::ready().says(flood).syncs(1).says(ready(b'I'));
    assert_eq!(script.play_long().fault, None);
}
