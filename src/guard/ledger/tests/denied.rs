//! A role that may not look for waiters, or not notify them: it lets go in the plain way.

use super::*;

fn deny(ledger: &mut Ledger, outcomes: &mut Outcomes, kind: OpKind) {
    let (op, _) = sent(ledger);
    assert_eq!(op.kind, kind);
    let sqlstate = crate::error::SqlState::new(*b"42501");
    let error = Error::Server { sqlstate, message: "permission denied".into() };
    ledger.failed(op, error, outcomes).expect("the session goes on");
    ledger.synced();
}

/// What the role may not do, and what it does in its place.
#[test]
fn each_release_that_is_denied_is_made_in_the_plain_way() {
    let slot = Want::Slot(4);
    let cases = [
        (Want::Exclusive, Value::Yes, OpKind::Release, OpKind::Unlock),
        (Want::Shared, Value::Yes, OpKind::ReleaseShared, OpKind::UnlockShared),
        (slot, Value::Slot(2), OpKind::ReleaseSlot(2), OpKind::UnlockSlot(2)),
    ];
    for (want, granted, denied, plain) in cases {
        let (mut ledger, mut outcomes) = ledger();
        let wish = Wish { want, fenced: false };
        ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, granted);
        let hold = outcomes.granted[0].1;
        assert!(ledger.release_and_tell(ticket(1), hold, &mut outcomes));
        deny(&mut ledger, &mut outcomes, denied);
        assert!(outcomes.done.is_empty(), "not yet");
        assert_eq!(ledger.peek_op().and_then(|(op, _)| ledger.slot_of(op)), Some(1));
        assert_eq!(answer(&mut ledger, &mut outcomes, true), plain);
        assert_eq!(outcomes.done, [ticket(1)]);
        assert!(ledger.is_empty());
    }
}

/// Asks for a key in this way, is granted it, and releases it.
fn take_and_release(ledger: &mut Ledger, outcomes: &mut Outcomes, key: Key, want: Want) {
    let wish = Wish { want, fenced: false };
    ledger.request(ticket(7), key, wish, Mode::Try, outcomes);
    let granted = if matches!(want, Want::Slot(_)) { Value::Slot(2) } else { Value::Yes };
    assert_eq!(answer(ledger, outcomes, granted), OpKind::Try);
    assert!(ledger.release(outcomes.granted.pop().expect("a grant").1, outcomes));
}

/// Of each one that is denied, a whole batch is lost.
#[test]
fn what_was_denied_once_is_not_asked_for_again_in_this_session() {
    let (mut ledger, mut outcomes) = ledger();
    take_and_release(&mut ledger, &mut outcomes, key(7), Want::Exclusive);
    deny(&mut ledger, &mut outcomes, OpKind::Release);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Unlock);
    for (want, plain) in [
        (Want::Exclusive, OpKind::Unlock),
        (Want::Shared, OpKind::UnlockShared),
        (Want::Slot(4), OpKind::UnlockSlot(2)),
    ] {
        take_and_release(&mut ledger, &mut outcomes, key(1024), want);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), plain);
    }
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    ledger.downgrade(ticket(1), outcomes.granted[0].1, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareToo);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareOnly);
    // Other functions are called for the keys of the other space: those may be allowed.
    take_and_release(&mut ledger, &mut outcomes, Key::Pair(1, 2), Want::Exclusive);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    // The next session may have what this one lacks.
    ledger.offline(Cause::ConnectionLost, &mut outcomes);
    ledger.online(&mut outcomes);
    take_and_release(&mut ledger, &mut outcomes, key(7), Want::Exclusive);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
}

#[test]
fn what_is_queued_or_skipped_when_a_release_is_denied_goes_the_plain_way_too() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..3 {
        ledger.request(ticket(slot), key(slot.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, true);
    }
    for (_, hold, _) in std::mem::take(&mut outcomes.granted) {
        assert!(ledger.release(hold, &mut outcomes));
    }
    let (denied, skipped) = (sent(&mut ledger).0, sent(&mut ledger).0);
    let sqlstate = crate::error::SqlState::new(*b"42501");
    let error = Error::Server { sqlstate, message: "permission denied".into() };
    ledger.failed(denied, error, &mut outcomes).expect("the session goes on");
    ledger.skipped(skipped);
    ledger.synced();
    for number in 0..3 {
        let (op, statement) = sent(&mut ledger);
        assert_eq!(statement, Statement::Unlock(KeyParameters::Bigint(number)));
        ledger.answered(op, Value::Yes, &mut outcomes).expect("it agrees");
    }
    assert!(ledger.is_empty());
}

#[test]
fn a_gate_is_opened_without_a_word_once_telling_was_denied() {
    let (mut ledger, mut outcomes) = waiting();
    take_and_release(&mut ledger, &mut outcomes, key(8), Want::Shared);
    deny(&mut ledger, &mut outcomes, OpKind::ReleaseShared);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::UnlockShared);
    assert!(ledger.abandon(ticket(0), &mut outcomes));
    let (drop_gate, delist) = (sent(&mut ledger).0, sent(&mut ledger).0);
    assert_eq!((drop_gate.kind, delist.kind), (OpKind::DropGate, OpKind::Delist));
    ledger.skipped(drop_gate);
    ledger.skipped(delist);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::DropGate);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
    assert!(ledger.is_empty());
}

/// A try that fails may have taken what it asked for. It is given back without a word, and who may
/// have found it taken is told by a statement of its own, which may be denied.
#[test]
fn what_a_failed_try_has_taken_goes_back_whether_the_role_may_tell_or_not() {
    for want in [Want::Exclusive, Want::Shared, Want::Slot(4)] {
        let (mut ledger, mut outcomes) = ledger();
        let clear = |ledger: &mut Ledger, outcomes: &mut Outcomes| {
            let wish = Wish { want, fenced: false };
            ledger.request(ticket(0), key(7), wish, Mode::Try, outcomes);
            let (op, _) = sent(ledger);
            let error = Error::LockTableFull { key: key(7) };
            ledger.failed(op, error, outcomes).expect("the session goes on");
            ledger.synced();
            let (op, statement) = sent(ledger);
            assert_eq!(op.kind, OpKind::Clear(want));
            assert!(!statement.definition().query.contains("pg_notify"), "{statement:?}");
            ledger.answered(op, Value::Told, outcomes).expect("it agrees");
            assert!(matches!(outcomes.failed.pop(), Some((_, Error::LockTableFull { .. }))));
        };
        clear(&mut ledger, &mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        ledger.synced();
        assert!(ledger.is_empty());
        clear(&mut ledger, &mut outcomes);
        deny(&mut ledger, &mut outcomes, OpKind::Wake);
        assert!(ledger.is_empty());
        clear(&mut ledger, &mut outcomes);
        assert!(ledger.is_empty() && ledger.peek_op().is_none(), "it is not asked for again");
    }
}

#[test]
fn nobody_is_told_who_was_to_be_told_behind_what_was_denied() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..2 {
        ledger.request(ticket(slot), key(slot.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    for (op, _) in [sent(&mut ledger), sent(&mut ledger)] {
        let error = Error::LockTableFull { key: key(7) };
        ledger.failed(op, error, &mut outcomes).expect("the session goes on");
        ledger.synced();
    }
    for (op, _) in [sent(&mut ledger), sent(&mut ledger)] {
        ledger.answered(op, Value::Told, &mut outcomes).expect("it agrees");
    }
    let (denied, skipped) = (sent(&mut ledger).0, sent(&mut ledger).0);
    assert_eq!([denied.kind, skipped.kind], [OpKind::Wake; 2]);
    let sqlstate = crate::error::SqlState::new(*b"42501");
    let error = Error::Server { sqlstate, message: "permission denied".into() };
    ledger.failed(denied, error, &mut outcomes).expect("the session goes on");
    ledger.skipped(skipped);
    ledger.synced();
    assert!(ledger.is_empty() && ledger.peek_op().is_none());
    take_and_release(&mut ledger, &mut outcomes, Key::Pair(1, 2), Want::Exclusive);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Unlock, "nor in the other space");
}

/// The session holds it in both modes for a moment, and never in none.
#[test]
fn a_downgrade_that_is_denied_shares_the_key_and_then_gives_the_rest_back() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    deny(&mut ledger, &mut outcomes, OpKind::Downgrade);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareToo);
    assert!(outcomes.done.is_empty(), "not yet");
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareOnly);
    assert_eq!(outcomes.done, [ticket(1)]);
    ledger.release(hold, &mut outcomes);
    deny(&mut ledger, &mut outcomes, OpKind::ReleaseShared);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::UnlockShared);
    assert!(ledger.is_empty());
}

#[test]
fn a_hold_that_is_let_go_during_a_denied_downgrade_is_released_after_it() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    ledger.release(hold, &mut outcomes);
    let sqlstate = crate::error::SqlState::new(*b"42501");
    let error = Error::Server { sqlstate, message: "permission denied".into() };
    ledger.failed(op, error, &mut outcomes).expect("the session goes on");
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareToo);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareOnly);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseShared);
    assert!(ledger.is_empty());
}

/// The client in the server's own queue would have the key, if the rest were given back.
#[test]
fn a_plain_downgrade_that_is_refused_leaves_the_key_held_alone() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    deny(&mut ledger, &mut outcomes, OpKind::Downgrade);
    let (op, _) = sent(&mut ledger);
    assert_eq!((op.kind, ledger.peek_op()), (OpKind::ShareToo, None), "one by one");
    ledger.answered(op, Value::No, &mut outcomes).expect("it may be refused");
    assert!(matches!(outcomes.failed[..], [(t, Error::QueuedFor { .. })] if t == ticket(1)));
    assert_eq!(ledger.peek_op(), None);
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert!(ledger.is_empty());
}

#[test]
fn a_role_that_may_not_even_share_keeps_its_lock() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    deny(&mut ledger, &mut outcomes, OpKind::Downgrade);
    deny(&mut ledger, &mut outcomes, OpKind::ShareToo);
    assert!(matches!(outcomes.failed[..], [(t, Error::Server { .. })] if t == ticket(1)));
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert!(ledger.is_empty());
}

#[test]
fn what_a_plain_downgrade_gives_back_it_has_to_have() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    deny(&mut ledger, &mut outcomes, OpKind::Downgrade);
    answer(&mut ledger, &mut outcomes, true);
    let (op, _) = sent(&mut ledger);
    assert_eq!(op.kind, OpKind::ShareOnly);
    assert_eq!(ledger.answered(op, Value::No, &mut outcomes), Err(Disagreement));
}

#[test]
fn a_gate_whose_opening_is_denied_is_opened_without_a_word() {
    let (mut ledger, mut outcomes) = waiting();
    assert!(ledger.abandon(ticket(0), &mut outcomes));
    deny(&mut ledger, &mut outcomes, OpKind::OpenGate);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::DropGate);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
    assert!(ledger.is_empty());
}

/// Where the opening is denied, nothing of it was run.
#[test]
fn a_gate_that_is_dropped_has_to_be_there() {
    let (mut ledger, mut outcomes) = waiting();
    assert!(ledger.abandon(ticket(0), &mut outcomes));
    deny(&mut ledger, &mut outcomes, OpKind::OpenGate);
    let (op, _) = sent(&mut ledger);
    assert_eq!(op.kind, OpKind::DropGate);
    assert_eq!(ledger.answered(op, Value::No, &mut outcomes), Err(Disagreement));

    let (mut ledger, mut outcomes) = waiting();
    ledger.notified(key(7), OTHER, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let (op, _) = sent(&mut ledger);
    assert_eq!(op.kind, OpKind::DropGate, "the key is held alone now");
    assert_eq!(ledger.answered(op, Value::No, &mut outcomes), Err(Disagreement));
}

/// A client in the server's own queue is in the way.
#[test]
fn a_downgrade_that_is_refused_leaves_the_key_held_alone() {
    let (mut ledger, mut outcomes, hold) = held();
    let refused = |outcomes: &Outcomes, with: Ticket| {
        let last = outcomes.failed.last();
        matches!(last, Some((ticket, Error::QueuedFor { .. })) if *ticket == with)
    };
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Downgrade);
    assert!(refused(&outcomes, ticket(1)) && outcomes.done.is_empty());
    // Let go of meanwhile, it goes back as what it is.
    ledger.downgrade(ticket(2), hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    ledger.release(hold, &mut outcomes);
    ledger.answered(op, Value::Waits, &mut outcomes).expect("an answer that it may have");
    assert!(refused(&outcomes, ticket(2)));
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert!(ledger.is_empty());
}
