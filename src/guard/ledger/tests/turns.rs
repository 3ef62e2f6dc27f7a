//! Whose turn it is: processes that hold a key for long, sets, and fenced waiters let others come
//! first, too.

use super::*;

/// So long that the key is not handed on here any more.
const LONG: Duration = Duration::from_secs(2);

fn after(ledger: &mut Ledger, span: Duration) {
    let now = ledger.now.after(span);
    ledger.tick(now);
}

/// What the release of so long ago has said is forgotten by now.
#[test]
fn after_a_long_hold_a_local_waiter_lets_those_come_first_that_the_release_notifies() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    after(&mut ledger, LONG);
    ledger.release(hold, &mut outcomes);
    let (release, _) = sent(&mut ledger);
    assert_eq!(release.kind, OpKind::Release);
    assert_eq!(ledger.peek_op(), None, "in one batch with the release it would be the first");
    ledger.answered(release, Value::Told, &mut outcomes).expect("it agrees");
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Enlist);
    assert_eq!(ledger.peek_op(), None);
}

#[test]
fn after_a_long_hold_nobody_waits_where_the_release_finds_no_other() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    after(&mut ledger, LONG);
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try);
    assert_eq!(outcomes.granted.len(), 2);
}

#[test]
fn after_a_long_hold_who_asks_again_at_once_waits_for_the_answer_to_the_release() {
    let (mut ledger, mut outcomes, hold) = held();
    after(&mut ledger, LONG);
    ledger.release(hold, &mut outcomes);
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    let (release, _) = sent(&mut ledger);
    assert_eq!(ledger.peek_op(), None);
    ledger.answered(release, Value::Quiet, &mut outcomes).expect("it agrees");
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try);
    assert_eq!(outcomes.granted.len(), 2);
}

/// The first round of a set does not wait for each key, but it is not a try of its caller's.
#[test]
fn a_set_that_waits_does_not_overtake_those_who_were_notified() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::InTurn, &mut outcomes);
    assert_eq!((&outcomes.refused[..], ledger.peek_op()), (&[ticket(1)][..], None));
    after(&mut ledger, Duration::from_millis(4));
    ledger.request(ticket(2), key(7), Wish::PLAIN, Mode::InTurn, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try, "they had their time");
}

/// Without the gate, sharers that come and go would keep it out for ever.
#[test]
fn a_fenced_waiter_takes_the_gate_when_it_can_have_it() {
    let fenced = Wish { want: Want::Exclusive, fenced: true };
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), fenced, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Token(None));
    answer(&mut ledger, &mut outcomes, Value::Done);
    // Somebody else has the gate for now.
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Register);
    ledger.notified(key(7), OTHER, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::WaitsGated), OpKind::Retry);
    ledger.notified(key(7), OTHER, &mut outcomes);
    let token = crate::proto::statement::Token { timeline: 1, lsn: 9 };
    let token = Value::Token(Some(token));
    assert_eq!(answer(&mut ledger, &mut outcomes, token), OpKind::Try, "with the token at once");
    assert!(outcomes.granted[0].2.token.is_some());
}

/// A race that is lost says that there are holders who notify.
#[test]
fn a_waiter_that_is_notified_asks_as_often_as_one_that_has_just_begun() {
    let (mut ledger, mut outcomes) = waiting();
    for _ in 0..20 {
        ledger.notified(key(7), OTHER, &mut outcomes);
        answer(&mut ledger, &mut outcomes, false);
    }
    assert!(ledger.next_retry().since(ledger.now) <= Duration::from_secs(1));
}

#[test]
fn a_try_that_is_not_sent_yet_need_not_be_made_twice() {
    let (mut ledger, mut outcomes) = waiting();
    ledger.notified(key(7), OTHER, &mut outcomes);
    ledger.notified(key(7), OTHER, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    assert_eq!(ledger.peek_op(), None);
    ledger.notified(key(7), OTHER, &mut outcomes);
    let (retry, _) = sent(&mut ledger);
    ledger.notified(key(7), OTHER, &mut outcomes);
    ledger.answered(retry, Value::Waits, &mut outcomes).expect("it agrees");
    assert!(sent(&mut ledger).0.kind.is_try(), "what was let go of behind that one");
}

#[test]
fn many_keys_that_others_wait_for_are_remembered() {
    let (mut ledger, ..) = ledger();
    for number in 0..64 {
        ledger.rivals.told(key(number), Time::ZERO);
    }
    let known = (0..64).filter(|number| ledger.rivals.told_at(key(*number), Time::ZERO).is_some());
    assert!(known.count() > 56, "no two of them share one place");
}

const ONE_OF_THREE: Wish = Wish { want: Want::Slot(3), fenced: false };

fn take_slot(ledger: &mut Ledger, outcomes: &mut Outcomes, slot: u16) -> HoldId {
    let ticket = ticket(slot.into());
    ledger.request(ticket, key(7), ONE_OF_THREE, Mode::Wait, outcomes);
    answer(ledger, outcomes, Value::Slot(slot));
    outcomes.granted.last().expect("a grant").1
}

/// Another slot that was granted just now says nothing of how long this one was held.
#[test]
fn a_slot_that_was_held_for_long_is_offered_to_others_though_another_was_granted_just_now() {
    let (mut ledger, mut outcomes) = ledger();
    let long = take_slot(&mut ledger, &mut outcomes, 0);
    after(&mut ledger, LONG);
    take_slot(&mut ledger, &mut outcomes, 1);
    ledger.release(long, &mut outcomes);
    ledger.request(ticket(0), key(7), ONE_OF_THREE, Mode::Wait, &mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::ReleaseSlot(0));
    assert_eq!(ledger.peek_op(), None, "in one batch with the release it would be the first");
}

/// A grant offers nothing to others; a release does.
#[test]
fn slots_that_are_handed_on_are_counted_until_one_of_them_is_offered_to_others() {
    let (mut ledger, mut outcomes) = ledger();
    let first = take_slot(&mut ledger, &mut outcomes, 0);
    ledger.entries[0].handed = 200;
    take_slot(&mut ledger, &mut outcomes, 1);
    assert_eq!(ledger.entries[0].handed, 200);
    ledger.release(first, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseSlot(0));
    assert_eq!(ledger.entries[0].handed, 0);
}
