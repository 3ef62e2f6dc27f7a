//! Who has got the key stays registered for a moment, so that its next turn takes two statements
//! less.

use super::*;

/// For how long one stays that has the key, and that has let go of it.
const STAYS_FOR: Duration = Duration::from_millis(20);
const BACK_WITHIN: Duration = Duration::from_millis(1);

fn pass(ledger: &mut Ledger, outcomes: &mut Outcomes, span: Duration) {
    ledger.tick(ledger.now.after(span));
    if ledger.next_retry() <= ledger.now {
        ledger.retry(outcomes);
    }
}

/// The registration is taken back once this is over, and not before.
fn ends_after(ledger: &mut Ledger, outcomes: &mut Outcomes, span: Duration) {
    pass(ledger, outcomes, span - Duration::from_nanos(1));
    assert_eq!(ledger.peek_op(), None);
    assert!(ledger.next_retry() <= ledger.now.after(Duration::from_nanos(1)));
    pass(ledger, outcomes, Duration::from_nanos(1));
    assert_eq!(answer(ledger, outcomes, true), OpKind::Delist);
}

/// Lets go, which others are told of, and waits for the key again after a pause.
fn come_back(
    ledger: &mut Ledger,
    outcomes: &mut Outcomes,
    hold: HoldId,
    (asker, pause): (Ticket, Duration),
) {
    ledger.release(hold, outcomes);
    assert_eq!(answer(ledger, outcomes, Value::Told), OpKind::Release);
    ledger.synced();
    pass(ledger, outcomes, pause);
    ledger.request(asker, key(7), Wish::PLAIN, Mode::Wait, outcomes);
}

/// Has let go of key 7 and come back after such a pause, and got the key once it was notified.
fn granted_after(pause: Duration) -> (Ledger, Outcomes, HoldId) {
    let (mut ledger, mut outcomes, hold) = held();
    come_back(&mut ledger, &mut outcomes, hold, (ticket(1), pause));
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Enlist);
    ledger.notified(key(7), OTHER, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Retry);
    let hold = outcomes.granted[1].1;
    (ledger, outcomes, hold)
}

fn granted() -> (Ledger, Outcomes, HoldId) {
    let (ledger, outcomes, hold) = granted_after(Duration::ZERO);
    assert_eq!(ledger.peek_op(), None);
    (ledger, outcomes, hold)
}

#[test]
fn who_comes_back_again_and_again_is_registered_already() {
    let (mut ledger, mut outcomes, mut hold) = granted();
    for turn in 2..10 {
        pass(&mut ledger, &mut outcomes, STAYS_FOR / 2);
        let asker = Ticket { slot: 1, generation: turn };
        come_back(&mut ledger, &mut outcomes, hold, (asker, BACK_WITHIN / 2));
        assert_eq!(ledger.peek_op(), None, "it lets the others come first");
        pass(&mut ledger, &mut outcomes, BACK_WITHIN);
        assert_eq!(ledger.peek_op(), None, "somebody waits now");
        ledger.notified(key(7), OTHER, &mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Retry);
        assert_eq!(ledger.peek_op(), None);
        hold = outcomes.granted.last().expect("its turn").1;
    }
}

#[test]
fn who_is_being_tried_has_come_back() {
    let (mut ledger, mut outcomes, hold) = granted();
    let asker = Ticket { slot: 1, generation: 2 };
    come_back(&mut ledger, &mut outcomes, hold, (asker, Duration::ZERO));
    ledger.notified(key(7), OTHER, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert_eq!(op.kind, OpKind::Retry);
    pass(&mut ledger, &mut outcomes, BACK_WITHIN);
    ledger.answered(op, Value::Granted, &mut outcomes).expect("it agrees");
    assert_eq!(ledger.peek_op(), None, "it stays, as the time before");
}

/// Others would be told that somebody waits, and let that one come first.
#[test]
fn who_does_not_come_back_at_once_is_registered_while_it_waits_only() {
    let (mut ledger, mut outcomes, _) = granted_after(BACK_WITHIN);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
}

#[test]
fn who_did_not_come_back_once_is_not_expected_to_the_next_time() {
    let (mut ledger, mut outcomes, hold) = granted();
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Told), OpKind::Release);
    ends_after(&mut ledger, &mut outcomes, BACK_WITHIN);
    let asker = Ticket { slot: 1, generation: 2 };
    ledger.request(asker, key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Enlist);
    ledger.notified(key(7), OTHER, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Retry);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
}

#[test]
fn it_ends_while_the_key_is_held_for_long() {
    let (mut ledger, mut outcomes, hold) = granted();
    ends_after(&mut ledger, &mut outcomes, STAYS_FOR);
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Quiet);
    assert!(ledger.is_empty());
}

#[test]
fn it_ends_where_nobody_else_waits() {
    let (mut ledger, mut outcomes, hold) = granted();
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
    assert!(ledger.is_empty());
}

#[test]
fn it_does_not_end_under_a_waiter() {
    let (mut ledger, mut outcomes, hold) = granted();
    let asker = Ticket { slot: 1, generation: 2 };
    come_back(&mut ledger, &mut outcomes, hold, (asker, Duration::ZERO));
    pass(&mut ledger, &mut outcomes, STAYS_FOR);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Retry);
    assert_eq!(ledger.peek_op(), None);
    assert!(ledger.abandon(asker, &mut outcomes));
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
    assert!(ledger.is_empty());
}

#[test]
fn a_waiter_that_gives_up_meanwhile_leaves_it_as_it_is() {
    let (mut ledger, mut outcomes, hold) = granted();
    let asker = Ticket { slot: 1, generation: 2 };
    come_back(&mut ledger, &mut outcomes, hold, (asker, Duration::ZERO));
    assert!(ledger.abandon(asker, &mut outcomes));
    ends_after(&mut ledger, &mut outcomes, BACK_WITHIN);
    assert!(ledger.is_empty());
}

/// It need not shut out sharers, for whom a gate would have to be opened.
#[test]
fn a_try_meanwhile_is_a_plain_one() {
    let (mut ledger, mut outcomes, hold) = granted();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.request(ticket(2), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Try);
    assert_eq!((&outcomes.refused[..], ledger.peek_op()), (&[ticket(2)][..], None));
}

/// Others would tell it for nothing.
#[test]
fn nobody_stays_where_there_is_no_listen() {
    let (mut ledger, mut outcomes, hold) = held();
    come_back(&mut ledger, &mut outcomes, hold, (ticket(1), Duration::ZERO));
    let (listen, enlist) = (sent(&mut ledger).0, sent(&mut ledger).0);
    let sqlstate = crate::error::SqlState::new(*b"0A000");
    let error = Error::Server { sqlstate, message: "not supported".into() };
    ledger.failed(listen, error, &mut outcomes).expect("it may fail");
    ledger.answered(enlist, Value::Yes, &mut outcomes).expect("it agrees");
    ledger.synced();
    let due = ledger.next_retry();
    ledger.tick(due);
    ledger.retry(&mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
}

#[test]
fn nobody_stays_for_more_than_so_many_keys() {
    let limits = LedgerLimits { locks: 100, requests: 100, waiters: 100 };
    let mut ledger = Ledger::new(limits, 1);
    let mut outcomes = Outcomes::default();
    ledger.online(&mut outcomes);
    let mut left = 0;
    for number in 0..20 {
        for mode in [Mode::Try, Mode::Wait] {
            let asker = Ticket { slot: number, generation: mode as u32 };
            ledger.request(asker, key(number.into()), Wish::PLAIN, mode, &mut outcomes);
            if mode == Mode::Wait {
                ledger.notified(key(number.into()), OTHER, &mut outcomes);
            }
            while let Some((op, _)) = ledger.peek_op() {
                left += usize::from(op.kind == OpKind::Delist);
                let value = if op.kind == OpKind::Listen { Value::Done } else { Value::Yes };
                ledger.pop_op();
                ledger.answered(op, value, &mut outcomes).expect("it agrees");
            }
            if mode == Mode::Try {
                ledger.release(outcomes.granted.last().expect("it is free").1, &mut outcomes);
                answer(&mut ledger, &mut outcomes, Value::Told);
            }
        }
    }
    assert_eq!((outcomes.granted.len(), left), (40, 20 - STAYS_MAX));
}
