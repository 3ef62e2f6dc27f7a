//! Asking who holds a key: it is answered once, and changes nothing of the key.

use super::*;

const NOBODY: Listing = Listing { holders: 0, waiters: 0, entries: Vec::new() };

fn inquire(ledger: &mut Ledger, outcomes: &mut Outcomes, slot: u32) {
    ledger.inquire(ticket(slot), key(7), outcomes);
}

fn hear(ledger: &mut Ledger, outcomes: &mut Outcomes, op: Op) {
    assert_eq!(op, Op::from_number(op.to_number()));
    ledger.inquiry_answered(op, Box::new(NOBODY), outcomes).expect("it was asked");
}

#[test]
fn each_question_is_answered_to_who_asked_it() {
    let (mut ledger, mut outcomes, hold) = held();
    for slot in [5, 3] {
        inquire(&mut ledger, &mut outcomes, slot);
        assert!(ledger.is_active(ticket(slot)), "driving the session helps it");
    }
    for slot in [5, 3] {
        let (op, statement) = sent(&mut ledger);
        assert_eq!(statement, Statement::Holders(KeyParameters::Bigint(7)));
        assert_eq!(ledger.slot_of(op), Some(slot));
        hear(&mut ledger, &mut outcomes, op);
    }
    assert_eq!(outcomes.listed, [(ticket(5), NOBODY), (ticket(3), NOBODY)]);
    assert_eq!(ledger.active(), 0);
    assert_eq!(ledger.held().collect::<Vec<_>>(), [key(7)], "it is held as before");
    assert!(ledger.release(hold, &mut outcomes));
}

#[test]
fn a_question_about_a_key_that_nobody_uses_here_leaves_nothing_behind() {
    let (mut ledger, mut outcomes) = ledger();
    inquire(&mut ledger, &mut outcomes, 0);
    let (op, _) = sent(&mut ledger);
    hear(&mut ledger, &mut outcomes, op);
    assert!(ledger.is_empty());
    let again = ledger.inquiry_answered(op, Box::new(NOBODY), &mut outcomes);
    assert_eq!(again, Err(Disagreement), "a second answer is one too many");
}

#[test]
fn a_question_that_fails_is_told_and_touches_no_lock() {
    let (mut ledger, mut outcomes, _) = held();
    inquire(&mut ledger, &mut outcomes, 1);
    let (op, _) = sent(&mut ledger);
    let sqlstate = crate::error::SqlState::new(*b"42501");
    let error = Error::Server { sqlstate, message: "denied".into() };
    ledger.failed(op, error, &mut outcomes).expect("it may fail");
    ledger.synced();
    assert_eq!(outcomes.failed[0].0, ticket(1));
    assert_eq!((ledger.active(), ledger.peek_op()), (0, None), "nothing is to be cleared");
    assert_eq!(ledger.held().collect::<Vec<_>>(), [key(7)]);
}

#[test]
fn who_asked_and_left_gives_its_slot_back_with_the_answer() {
    let (mut ledger, mut outcomes) = ledger();
    inquire(&mut ledger, &mut outcomes, 0);
    let (op, _) = sent(&mut ledger);
    assert!(!ledger.abandon(ticket(0), &mut outcomes), "the answer is still to come");
    hear(&mut ledger, &mut outcomes, op);
    assert_eq!((&outcomes.forgotten[..], outcomes.listed.len()), (&[ticket(0)][..], 0));
    assert!(ledger.is_empty());
}

#[test]
fn a_question_that_was_skipped_is_asked_again() {
    let (mut ledger, mut outcomes) = ledger();
    inquire(&mut ledger, &mut outcomes, 0);
    let (op, _) = sent(&mut ledger);
    ledger.skipped(op);
    assert_eq!(sent(&mut ledger).0, op);
    hear(&mut ledger, &mut outcomes, op);
    assert_eq!(outcomes.listed.len(), 1);
}

#[test]
fn a_question_ends_with_the_session() {
    let (mut ledger, mut outcomes) = ledger();
    inquire(&mut ledger, &mut outcomes, 0);
    sent(&mut ledger);
    ledger.offline(Cause::ConnectionLost, &mut outcomes);
    assert!(matches!(outcomes.failed[..], [(_, Error::Lost { .. })]));
    assert!(ledger.is_empty() && ledger.active() == 0);
}
