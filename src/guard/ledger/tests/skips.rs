//! Statements that were skipped with their batch go out again behind newer ones that were not.

use super::*;

const ONE_OF_TWO: Wish = Wish { want: Want::Slot(2), fenced: false };

#[test]
fn the_release_of_a_slot_is_told_to_who_asked_for_it_whatever_the_order() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..2 {
        ledger.request(ticket(slot), key(7), ONE_OF_TWO, Mode::Wait, &mut outcomes);
        answer(&mut ledger, &mut outcomes, Value::Slot(slot as u16));
    }
    let mut releases = Vec::new();
    for (n, asker) in [(0, ticket(2)), (1, ticket(3))] {
        assert!(ledger.release_and_tell(asker, outcomes.granted[n].1, &mut outcomes));
        releases.push(sent(&mut ledger).0);
    }
    // Another statement of the first one's batch has failed; the second is in a batch of its own.
    ledger.skipped(releases[0]);
    assert_eq!(ledger.slot_of(releases[1]), Some(3));
    ledger.answered(releases[1], Value::Quiet, &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.done, [ticket(3)]);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseSlot(0));
    assert_eq!(outcomes.done, [ticket(3), ticket(2)]);
}

/// Nobody would tell the sharers, who have just found it shut.
#[test]
fn a_gate_is_opened_aloud_where_the_release_is_on_its_way_already() {
    let (mut ledger, mut outcomes) = waiting();
    ledger.notified(key(7), OTHER, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let (drop_gate, delist) = (sent(&mut ledger).0, sent(&mut ledger).0);
    assert_eq!((drop_gate.kind, delist.kind), (OpKind::DropGate, OpKind::Delist));
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Release);
    ledger.skipped(drop_gate);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::OpenGate);
}

#[test]
fn a_gate_is_dropped_without_a_word_while_the_key_is_held() {
    let (mut ledger, mut outcomes) = waiting();
    ledger.notified(key(7), OTHER, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let drop_gate = sent(&mut ledger).0;
    ledger.skipped(drop_gate);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::DropGate, "the release will tell");
}

/// The session has what it shares for itself alone as well, and downgrades that, before the release
/// goes out that was skipped twice.
#[test]
fn a_downgrade_is_told_to_who_asked_for_it_and_not_to_who_waits_for_a_release() {
    let (mut ledger, mut outcomes) = ledger();
    let shared = Wish { want: Want::Shared, fenced: false };
    ledger.request(ticket(0), key(7), shared, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    assert!(ledger.release_and_tell(ticket(1), outcomes.granted[0].1, &mut outcomes));
    let release = sent(&mut ledger).0;
    ledger.request(ticket(2), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    ledger.skipped(release);
    let release = sent(&mut ledger).0;
    ledger.downgrade(ticket(3), outcomes.granted[1].1, &mut outcomes);
    let downgrade = sent(&mut ledger).0;
    ledger.skipped(release);
    assert_eq!(ledger.slot_of(downgrade), Some(3));
    ledger.answered(downgrade, Value::Quiet, &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.done, [ticket(3)]);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseShared);
    assert_eq!(outcomes.done, [ticket(3), ticket(1)]);
}

/// It would be taken for registered, and nobody would notify it.
#[test]
fn the_end_of_a_registration_that_was_not_made_does_not_end_the_next_one() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.synced();
    let mut waits = |ledger: &mut Ledger, slot| {
        ledger.request(ticket(slot), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    };
    waits(&mut ledger, 1);
    assert!(ledger.abandon(ticket(1), &mut Outcomes::default()));
    let first = [OpKind::Listen, OpKind::Enlist, OpKind::Delist];
    assert_eq!(first, [(); 3].map(|()| answer(&mut ledger, &mut Outcomes::default(), true)));
    ledger.synced();
    // One batch; and the next one is on its way before the first has failed.
    ledger.request(ticket(2), key(8), Wish::PLAIN, Mode::Try, &mut Outcomes::default());
    waits(&mut ledger, 3);
    assert!(ledger.abandon(ticket(3), &mut Outcomes::default()));
    let batch = [(); 3].map(|()| sent(&mut ledger).0);
    assert_eq!(batch.map(|op| op.kind), [OpKind::Try, OpKind::Enlist, OpKind::Delist]);
    waits(&mut ledger, 4);
    let again = sent(&mut ledger).0;
    assert_eq!((again.kind, ledger.peek_op()), (OpKind::Enlist, None));

    fail(&mut ledger, &mut outcomes, batch[0]);
    ledger.skipped(batch[1]);
    ledger.skipped(batch[2]);
    ledger.synced();
    ledger.answered(again, Value::Yes, &mut outcomes).expect("it agrees");
    ledger.synced();
    while let Some((op, _)) = ledger.peek_op() {
        assert_ne!(op.kind, OpKind::Delist);
        ledger.pop_op();
    }
}

fn fail(ledger: &mut Ledger, outcomes: &mut Outcomes, op: Op) {
    let sqlstate = crate::error::SqlState::new(*b"57014");
    let error = Error::Server { sqlstate, message: "canceled".into() };
    ledger.failed(op, error, outcomes).expect("it may fail");
}

/// What is let go of before it is registered after all notifies nobody.
#[test]
fn who_was_tried_before_it_is_registered_tries_once_more() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.synced();
    ledger.request(ticket(1), key(8), Wish::PLAIN, Mode::Try, &mut outcomes);
    ledger.request(ticket(2), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    let batch = [(); 3].map(|()| sent(&mut ledger).0);
    assert_eq!(batch.map(|op| op.kind), [OpKind::Try, OpKind::Listen, OpKind::Enlist]);
    ledger.notified(key(7), OTHER, &mut outcomes);
    let retry = sent(&mut ledger).0;
    fail(&mut ledger, &mut outcomes, batch[0]);
    ledger.skipped(batch[1]);
    ledger.skipped(batch[2]);
    ledger.synced();
    ledger.answered(retry, Value::Waits, &mut outcomes).expect("it agrees");
    assert_eq!(left(&mut ledger, &[OpKind::Enlist, OpKind::Retry]), 2);
}

/// The same, where the session is registered and does not listen yet.
#[test]
fn who_was_tried_before_the_session_listens_tries_once_more() {
    let (mut ledger, mut outcomes) = ledger();
    let other = channels::neighbour();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.request(ticket(1), key(1), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    let batch = [(); 3].map(|()| sent(&mut ledger).0);
    assert_eq!(batch.map(|op| op.kind), [OpKind::Try, OpKind::Listen, OpKind::Register]);
    // In the next batch, a neighbour.
    ledger.request(ticket(2), other, Wish::PLAIN, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    let register = sent(&mut ledger).0;
    assert_eq!((register.kind, ledger.peek_op()), (OpKind::Register, None));
    fail(&mut ledger, &mut outcomes, batch[0]);
    ledger.skipped(batch[1]);
    ledger.skipped(batch[2]);
    ledger.synced();
    ledger.answered(register, Value::Waits, &mut outcomes).expect("it agrees");
    assert_eq!(left(&mut ledger, &[OpKind::Listen, OpKind::Register, OpKind::Retry]), 3);
}

/// How many of these are to be sent, in this order.
fn left(ledger: &mut Ledger, kinds: &[OpKind]) -> usize {
    let mut count = 0;
    while ledger.peek_op().is_some() {
        count += usize::from(kinds.get(count) == Some(&sent(ledger).0.kind));
    }
    count
}
