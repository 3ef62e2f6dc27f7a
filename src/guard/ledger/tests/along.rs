//! Requests that came along with a try of another, which may have gone by the time it is granted;
//! and the gate.

use super::*;

const SHARED: Wish = Wish { want: Want::Shared, fenced: false };
const ONE_OF_TWO: Wish = Wish { want: Want::Slot(2), fenced: false };

#[test]
fn who_came_along_with_a_sharer_that_has_gone_is_granted_all_the_same() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), SHARED, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    // Others may wait by now: a sharer asks first whether it may come in.
    ledger.tick(Time::ZERO.after(Duration::from_secs(1)));
    ledger.request(ticket(1), key(7), SHARED, Mode::Wait, &mut outcomes);
    ledger.request(ticket(2), key(7), SHARED, Mode::Try, &mut outcomes);
    ledger.abandon(ticket(1), &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Knock);
    assert_eq!(outcomes.forgotten, [ticket(1)]);
    while let Some((op, _)) = ledger.peek_op() {
        ledger.pop_op();
        ledger.answered(op, Value::Yes, &mut outcomes).expect("it agrees");
    }
    assert_eq!(outcomes.granted.last().map(|granted| granted.0), Some(ticket(2)));
}

#[test]
fn who_came_along_for_a_slot_is_tried_when_the_first_goes_from_hand_to_hand() {
    let (mut ledger, mut outcomes) = ledger();
    for (slot, mode) in [(0, Mode::Wait), (1, Mode::Try), (2, Mode::Try)] {
        ledger.request(ticket(slot), key(7), ONE_OF_TWO, mode, &mut outcomes);
    }
    ledger.abandon(ticket(0), &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Slot(0));
    assert_eq!(outcomes.granted.len(), 1, "handed over");
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Slot(1)), OpKind::Try);
    assert_eq!((outcomes.granted[0].0, outcomes.granted[1].0), (ticket(1), ticket(2)));
}

#[test]
fn a_try_that_came_along_is_refused_when_the_last_slot_goes_to_another() {
    let (mut ledger, mut outcomes) = ledger();
    let one_of = |count| Wish { want: Want::Slot(count), fenced: false };
    ledger.request(ticket(0), key(7), one_of(2), Mode::Wait, &mut outcomes);
    ledger.request(ticket(1), key(7), one_of(1), Mode::Try, &mut outcomes);
    assert!(outcomes.refused.is_empty(), "it sees what becomes of the first");
    answer(&mut ledger, &mut outcomes, Value::Slot(0));
    assert_eq!((outcomes.granted.len(), &outcomes.refused[..]), (1, &[ticket(1)][..]));
}

/// The server counts, and it would be given back once: sharers would be kept out for good.
#[test]
fn a_gate_that_is_ours_is_not_taken_once_more() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    // Others come first, so this one registers without a try, and tries in a while.
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.tick(Time::ZERO.after(Duration::from_secs(1)));
    ledger.retry(&mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    // Somebody looked whether anybody waits just then: it is not registered.
    let kinds = [false.into(), Value::WaitsGated].map(|v| answer(&mut ledger, &mut outcomes, v));
    assert_eq!(kinds, [OpKind::Enlist, OpKind::Retry]);
    let statements = [(); 2].map(|()| sent(&mut ledger));
    assert_eq!(statements.map(|(op, _)| op.kind), [OpKind::Enlist, OpKind::Try]);
    assert_eq!(statements[1].1, Statement::TryLock(KeyParameters::Bigint(7)));
    assert_eq!(ledger.peek_op(), None);
}
