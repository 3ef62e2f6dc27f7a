//! Releases that fail: they may have let go before that, or not.

use super::*;

fn fail(ledger: &mut Ledger, outcomes: &mut Outcomes, op: Op) {
    let sqlstate = crate::error::SqlState::OUT_OF_MEMORY;
    let error = Error::Server { sqlstate, message: "out of memory".into() };
    ledger.failed(op, error, outcomes).expect("the session goes on");
}

const CASES: [(Want, Value, OpKind); 3] = [
    (Want::Exclusive, Value::Yes, OpKind::Unlock),
    (Want::Shared, Value::Yes, OpKind::UnlockShared),
    (Want::Slot(4), Value::Slot(2), OpKind::UnlockSlot(2)),
];

/// Whoever waits for its answer is told once it is sure, and those elsewhere then, too.
#[test]
fn a_release_that_fails_is_made_sure_of_and_either_answer_is_right() {
    for (want, granted, plain) in CASES {
        for was_held in [true, false] {
            let (mut ledger, mut outcomes) = ledger();
            let wish = Wish { want, fenced: false };
            ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
            answer(&mut ledger, &mut outcomes, granted);
            let hold = outcomes.granted[0].1;
            assert!(ledger.release_and_tell(ticket(1), hold, &mut outcomes));
            let (op, _) = sent(&mut ledger);
            fail(&mut ledger, &mut outcomes, op);
            ledger.synced();
            let (op, _) = sent(&mut ledger);
            assert_eq!((op.kind, ledger.slot_of(op)), (plain, Some(1)));
            assert_eq!(ledger.peek_op(), None, "those elsewhere are told once it is sure");
            assert_eq!(outcomes.done, [], "not yet");
            ledger.answered(op, was_held.into(), &mut outcomes).expect("either is right");
            assert_eq!(outcomes.done, [ticket(1)]);
            assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
            ledger.synced();
            assert!(ledger.is_empty());
        }
    }
}

/// One that were granted meanwhile would be let go of.
#[test]
fn nobody_here_is_tried_before_it_is_sure() {
    for (want, granted, plain) in CASES {
        let (mut ledger, mut outcomes) = ledger();
        let wish = Wish { want, fenced: false };
        ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, granted);
        ledger.release(outcomes.granted[0].1, &mut outcomes);
        let (op, _) = sent(&mut ledger);
        fail(&mut ledger, &mut outcomes, op);
        ledger.synced();
        ledger.request(ticket(1), key(7), wish, Mode::Wait, &mut outcomes);
        ledger.request(ticket(2), key(7), wish, Mode::Try, &mut outcomes);
        assert_eq!(outcomes.refused, [ticket(2)], "for all that is known it is held");
        let (op, _) = sent(&mut ledger);
        assert_eq!((op.kind, ledger.peek_op()), (plain, None));
        ledger.answered(op, Value::Yes, &mut outcomes).expect("either is right");
        // Who waits elsewhere comes first, as after any release that tells.
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        answer(&mut ledger, &mut outcomes, Value::Done);
        ledger.tick(ledger.next_retry());
        ledger.retry(&mut outcomes);
        while outcomes.granted.len() == 1 {
            answer(&mut ledger, &mut outcomes, granted);
        }
    }
}

/// The server grants it in either case: once more, or for the first time.
#[test]
fn a_try_that_was_on_its_way_keeps_what_it_is_granted() {
    for (want, granted, plain) in CASES {
        let (mut ledger, mut outcomes) = ledger();
        let wish = Wish { want, fenced: false };
        ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, granted);
        assert!(ledger.release_and_tell(ticket(1), outcomes.granted[0].1, &mut outcomes));
        let (release, _) = sent(&mut ledger);
        ledger.request(ticket(2), key(7), wish, Mode::Try, &mut outcomes);
        let (other, _) = sent(&mut ledger);
        assert_eq!(other.kind, OpKind::Try);
        fail(&mut ledger, &mut outcomes, release);
        ledger.synced();
        assert_eq!(outcomes.done, [ticket(1)], "it need not wait for that one to let go");
        assert_eq!(sent(&mut ledger).0.kind, OpKind::Wake);
        ledger.answered(other, granted, &mut outcomes).expect("it agrees");
        let hold = outcomes.granted[1].1;
        assert_eq!(ledger.peek_op(), None, "the unlock would be of that hold");
        ledger.release(hold, &mut outcomes);
        assert!(answer(&mut ledger, &mut outcomes, Value::Quiet).releases());
        assert_eq!(ledger.peek_op(), None, "the batch with the notification is not through");
        // That batch is.
        ledger
            .answered(Op::new(OpKind::Wake, other.entry), Value::Yes, &mut outcomes)
            .expect("it agrees");
        ledger.synced();
        assert_eq!(answer(&mut ledger, &mut outcomes, true), plain);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        ledger.synced();
        assert!(ledger.is_empty());
    }
}

/// As one statement they have failed together: the release, the try, or neither was made.
#[test]
fn a_release_and_a_try_of_one_key_that_fail_both_leave_nothing() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    let (release, other) = (sent(&mut ledger).0, sent(&mut ledger).0);
    fail(&mut ledger, &mut outcomes, release);
    fail(&mut ledger, &mut outcomes, other);
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
    assert_eq!(ledger.peek_op(), None, "not before that is through");
    ledger.synced();
    let clear = answer(&mut ledger, &mut outcomes, Value::Told);
    assert_eq!(clear, OpKind::Clear(Want::Exclusive));
    assert!(matches!(outcomes.failed[..], [(t, _)] if t == ticket(1)));
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Unlock);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
    ledger.synced();
    assert!(ledger.is_empty());
}

/// It may be held alone, in both modes, or shared.
#[test]
fn a_downgrade_that_fails_ends_with_the_key_shared_and_nothing_is_left_of_it() {
    for [was_alone, is_shared_twice] in [[true, false], [true, true], [false, true]] {
        let (mut ledger, mut outcomes, hold) = held();
        ledger.downgrade(ticket(1), hold, &mut outcomes);
        let (op, _) = sent(&mut ledger);
        fail(&mut ledger, &mut outcomes, op);
        ledger.synced();
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::ShareToo);
        assert_eq!(outcomes.done, [], "not yet");
        assert_eq!(answer(&mut ledger, &mut outcomes, was_alone), OpKind::ShareOnly);
        assert_eq!(outcomes.done, [ticket(1)]);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        ledger.synced();
        assert_eq!(ledger.peek_op(), None, "it is shared");
        ledger.release(hold, &mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseShared);
        assert_eq!(answer(&mut ledger, &mut outcomes, is_shared_twice), OpKind::UnlockShared);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        ledger.synced();
        assert!(ledger.is_empty());
    }
}

/// What it has not shared cannot have been shared before.
#[test]
fn a_downgrade_that_fails_and_is_refused_then_leaves_the_key_held_alone() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(1), hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    fail(&mut ledger, &mut outcomes, op);
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::ShareToo);
    assert!(matches!(outcomes.failed[..], [(t, Error::QueuedFor { .. })] if t == ticket(1)));
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert!(ledger.is_empty());
}

#[test]
fn a_gate_whose_opening_fails_is_dropped_once_more_and_either_answer_is_right() {
    for was_there in [true, false] {
        let (mut ledger, mut outcomes) = waiting();
        assert!(ledger.abandon(ticket(0), &mut outcomes));
        let (gate, delist) = (sent(&mut ledger).0, sent(&mut ledger).0);
        assert_eq!((gate.kind, delist.kind), (OpKind::OpenGate, OpKind::Delist));
        fail(&mut ledger, &mut outcomes, gate);
        ledger.skipped(delist);
        ledger.synced();
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Delist);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        assert_eq!(ledger.peek_op(), None, "not before that is through");
        ledger.synced();
        // Skipped with its batch it stays what it is.
        let (op, _) = sent(&mut ledger);
        ledger.skipped(op);
        assert_eq!(answer(&mut ledger, &mut outcomes, was_there), OpKind::DropGate);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
        ledger.synced();
        assert!(ledger.is_empty());
    }
}

/// It needs no room in the lock table: nothing would be sure then, but for the end of the session.
#[test]
fn where_even_that_fails_the_session_ends() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    fail(&mut ledger, &mut outcomes, op);
    ledger.synced();
    let (op, _) = sent(&mut ledger);
    let sqlstate = crate::error::SqlState::OUT_OF_MEMORY;
    let error = Error::Server { sqlstate, message: "out of memory".into() };
    assert_eq!(ledger.failed(op, error, &mut outcomes), Err(Disagreement));
}

/// What else is under way of the key has nothing to do with that slot.
#[test]
fn who_waits_for_the_release_of_a_slot_is_told_once_it_is_sure_whatever_becomes_of_others() {
    let (mut ledger, mut outcomes) = ledger();
    let wish = Wish { want: Want::Slot(4), fenced: false };
    for slot in 0..2 {
        ledger.request(ticket(slot), key(7), wish, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, Value::Slot(slot as u16));
    }
    for slot in 0..2 {
        let hold = outcomes.granted[slot].1;
        assert!(ledger.release_and_tell(ticket(2 + slot as u32), hold, &mut outcomes));
    }
    let (first, second) = (sent(&mut ledger).0, sent(&mut ledger).0);
    fail(&mut ledger, &mut outcomes, first);
    ledger.skipped(second);
    ledger.synced();
    assert_eq!(outcomes.done, [], "the server may have both still");
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseSlot(1));
    assert_eq!(outcomes.done, [ticket(3)]);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Wake);
    ledger.synced();
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::UnlockSlot(0));
    assert_eq!(outcomes.done, [ticket(3), ticket(2)]);
}

/// That one may keep what it has been granted for as long as it likes.
#[test]
fn who_waits_for_the_answer_to_a_release_is_not_left_to_who_has_the_slot_again() {
    for mode in [Mode::Try, Mode::Wait] {
        let (mut ledger, mut outcomes) = ledger();
        let wish = Wish { want: Want::Slot(2), fenced: false };
        ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, Value::Slot(0));
        // So long that others may wait for it.
        ledger.tick(Time::ZERO.after(Duration::from_millis(10)));
        ledger.release(outcomes.granted[0].1, &mut outcomes);
        let (release, _) = sent(&mut ledger);
        ledger.request(ticket(1), key(7), wish, Mode::Try, &mut outcomes);
        let (other, _) = sent(&mut ledger);
        ledger.request(ticket(2), key(7), wish, mode, &mut outcomes);
        // The session has that slot still.
        ledger.skipped(release);
        ledger.synced();
        ledger.answered(other, Value::Slot(0), &mut outcomes).expect("it agrees");
        let (release, _) = sent(&mut ledger);
        assert_eq!(release.kind, OpKind::ReleaseSlot(0));
        fail(&mut ledger, &mut outcomes, release);
        ledger.synced();
        ledger.tick(ledger.next_retry().min(Time::ZERO.after(Duration::from_secs(60))));
        ledger.retry(&mut outcomes);
        while outcomes.granted.len() == 2 && ledger.has_to_send() {
            let (op, _) = sent(&mut ledger);
            let value = if op.kind == OpKind::Try { Value::Slot(1) } else { Value::Yes };
            ledger.answered(op, value, &mut outcomes).expect("it agrees");
        }
        assert_eq!(outcomes.granted.len(), 3, "{mode:?}");
    }
}
