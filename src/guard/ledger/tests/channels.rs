//! Channels are listened to as long as somebody is registered, and a while longer.

use super::*;

/// Another key of the channel that key 7 is told on.
pub(super) fn neighbour() -> Key {
    let channel = companion::channel(op::parameters(key(7)));
    let mut numbers = (8..).map(key);
    let same = |key: &Key| companion::channel(op::parameters(*key)) == channel;
    numbers.find(same).expect("there are eight channels")
}

#[test]
fn a_channel_is_kept_for_who_registers_while_the_last_waiter_leaves() {
    let (mut ledger, mut outcomes) = waiting();
    ledger.request(ticket(1), neighbour(), Wish::PLAIN, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    // Its registration is under way when the other one goes.
    let (register, _) = sent(&mut ledger);
    assert_eq!(register.kind, OpKind::Register, "that channel is listened to");
    assert!(ledger.abandon(ticket(0), &mut outcomes));
    ledger.answered(register, Value::Waits, &mut outcomes).expect("it agrees");
    while ledger.peek_op().is_some() {
        assert_ne!(sent(&mut ledger).0.kind, OpKind::Unlisten);
    }
    ledger.tick(ledger.now.after(Duration::from_secs(6)));
    ledger.retry(&mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Retry);
    assert_eq!(ledger.peek_op(), None, "somebody waits to be notified");
    assert!(ledger.hears_of(key(7)));
}

#[test]
fn a_channel_is_closed_where_the_registration_came_to_nothing() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    for value in [Value::No, Value::Done, Value::Probed] {
        answer(&mut ledger, &mut outcomes, value);
    }
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Probed), OpKind::Register);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Probed), OpKind::Register);
    assert!(ledger.abandon(ticket(0), &mut outcomes));
    ledger.tick(ledger.now.after(Duration::from_secs(6)));
    ledger.retry(&mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Unlisten);
    assert!(!ledger.hears_of(key(7)));
}

#[test]
fn who_is_registered_where_there_is_no_listen_leaves_as_others_do() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.synced();
    // Lets others come first, and registers without a try.
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    let (listen, enlist) = (sent(&mut ledger).0, sent(&mut ledger).0);
    assert_eq!((listen.kind, enlist.kind), (OpKind::Listen, OpKind::Enlist));
    let sqlstate = crate::error::SqlState::new(*b"0A000");
    let error = Error::Server { sqlstate, message: "not supported".into() };
    ledger.failed(listen, error, &mut outcomes).expect("it may fail");
    ledger.answered(enlist, Value::Yes, &mut outcomes).expect("it agrees");
    assert!(ledger.abandon(ticket(1), &mut outcomes));
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
    ledger.tick(ledger.now.after(Duration::from_secs(6)));
    ledger.retry(&mut outcomes);
    assert_eq!(ledger.peek_op(), None, "there is nothing to take back");
    assert!(ledger.is_empty());
}

/// A waiter where there is no LISTEN, and its registration, which was on its way meanwhile.
pub(super) fn without_listen() -> (Ledger, Outcomes, Op) {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    let (listen, register) = (sent(&mut ledger).0, sent(&mut ledger).0);
    let sqlstate = crate::error::SqlState::new(*b"0A000");
    let error = Error::Server { sqlstate, message: "not supported".into() };
    ledger.failed(listen, error, &mut outcomes).expect("it may fail");
    (ledger, outcomes, register)
}

/// Nobody will notify it, registered or not: the registration may have been on its way together
/// with the LISTEN that failed.
#[test]
fn who_is_registered_and_does_not_hear_of_it_asks_as_often_as_one_that_is_not() {
    let (mut ledger, mut outcomes, register) = without_listen();
    ledger.synced();
    ledger.answered(register, Value::WaitsGated, &mut outcomes).expect("it agrees");
    assert!(ledger.next_retry().since(ledger.now) <= Duration::from_millis(10));
    for _ in 0..20 {
        let due = ledger.next_retry();
        assert!(due.since(ledger.now) <= Duration::from_secs(1));
        ledger.tick(due);
        ledger.retry(&mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Try);
    }
}
