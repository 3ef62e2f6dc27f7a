//! The ledger against a model of the server and of callers that do anything at any time.

use std::time::Duration;

use super::*;

mod model;

/// What became of requests and holds.
#[derive(Default)]
struct Outcomes {
    granted: Vec<(Ticket, HoldId)>,
    refused: Vec<Ticket>,
    failed: Vec<(Ticket, Error)>,
    forgotten: Vec<Ticket>,
    unlocked: Vec<Ticket>,
    lost: Vec<(HoldId, Cause)>,
    /// Tickets whose owners have gone without the ledger knowing yet.
    gone: Vec<Ticket>,
}

impl Sink for Outcomes {
    fn granted(&mut self, ticket: Ticket, hold: HoldId) -> bool {
        if self.gone.contains(&ticket) {
            return false;
        }
        self.granted.push((ticket, hold));
        true
    }
    fn refused(&mut self, ticket: Ticket) {
        self.refused.push(ticket);
    }
    fn failed(&mut self, ticket: Ticket, error: Error) {
        self.failed.push((ticket, error));
    }
    fn forgotten(&mut self, ticket: Ticket) {
        self.forgotten.push(ticket);
    }
    fn unlocked(&mut self, ticket: Ticket) {
        self.unlocked.push(ticket);
    }
    fn lost(&mut self, hold: HoldId, cause: Cause) {
        self.lost.push((hold, cause));
    }
}

const LIMITS: LedgerLimits = LedgerLimits { locks: 3, requests: 8, waiters: 5 };

fn ledger() -> (Ledger, Outcomes) {
    let mut ledger = Ledger::new(LIMITS, 1);
    let mut outcomes = Outcomes::default();
    ledger.online(&mut outcomes);
    (ledger, outcomes)
}

fn ticket(slot: u32) -> Ticket {
    Ticket { slot, generation: 1 }
}

fn key(number: i64) -> Key {
    Key::Bigint(number)
}

/// Takes the next statement off the outbox, as the session does.
fn sent(ledger: &mut Ledger) -> (Op, Key) {
    let next = ledger.peek_op().expect("a statement is queued");
    ledger.pop_op();
    next
}

fn answer(ledger: &mut Ledger, outcomes: &mut Outcomes, value: bool) {
    let (op, _) = sent(ledger);
    ledger.answered(op, value, Time::ZERO, outcomes).expect("it agrees");
}

/// Asks for key 7 and is granted it.
fn held() -> (Ledger, Outcomes, HoldId) {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let hold = outcomes.granted[0].1;
    (ledger, outcomes, hold)
}

/// I1: the server would say true to the same session again.
#[test]
fn a_held_key_is_refused_without_asking_the_server() {
    let (mut ledger, mut outcomes, _) = held();
    ledger.request(ticket(1), key(7), Mode::Try, &mut outcomes);
    assert_eq!(outcomes.refused, [ticket(1)]);
    assert_eq!(ledger.peek_op(), None);
}

/// I8.
#[test]
fn a_late_second_release_does_not_touch_a_newer_hold() {
    let (mut ledger, mut outcomes, old) = held();
    assert!(ledger.release(old, &mut outcomes));
    ledger.request(ticket(1), key(7), Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    answer(&mut ledger, &mut outcomes, true);
    let new = outcomes.granted[1].1;
    assert!(!ledger.release(old, &mut outcomes));
    assert_eq!(ledger.held().collect::<Vec<_>>(), [key(7)]);
    assert!(ledger.release(new, &mut outcomes));
}

#[test]
fn a_try_behind_a_release_goes_out_with_it() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    ledger.request(ticket(1), key(7), Mode::Try, &mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Unlock);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Try);
}

#[test]
fn an_awaited_release_is_told_when_it_is_answered_and_not_before() {
    let (mut ledger, mut outcomes, hold) = held();
    assert!(ledger.release_and_tell(ticket(1), hold, &mut outcomes));
    let (op, _) = sent(&mut ledger);
    assert_eq!((op.kind, ledger.slot_of(op)), (OpKind::UnlockAndTell, Some(1)));
    assert!(outcomes.unlocked.is_empty() && ledger.is_active(ticket(1)));
    ledger.answered(op, true, Time::ZERO, &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.unlocked, [ticket(1)]);
    assert!(!ledger.is_active(ticket(1)));
    assert!(!ledger.release_and_tell(ticket(2), hold, &mut outcomes), "only once (I8)");
    assert!(matches!(outcomes.failed[..], [(t, Error::Lost { .. })] if t == ticket(2)));
}

#[test]
fn statements_name_the_slots_that_wait_for_them() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(5), key(7), Mode::Try, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert_eq!(ledger.slot_of(op), Some(5));
    let sqlstate = crate::error::SqlState::new(*b"57014");
    let error = Error::Server { sqlstate, message: "canceled".into() };
    ledger.failed(op, error).expect("a try may fail");
    let (verify, _) = sent(&mut ledger);
    assert_eq!(ledger.slot_of(verify), Some(5));
    assert_eq!(ledger.slot_of(op), None, "the try is over");
    ledger.offline(Cause::ConnectionLost, &mut outcomes);
    assert_eq!(outcomes.failed[0].1.outcome(), Outcome::Unknown, "an error proves nothing (I2)");
}

#[test]
fn waiters_get_the_key_in_the_order_they_came() {
    let (mut ledger, mut outcomes, mut hold) = held();
    for slot in 1..5 {
        ledger.request(ticket(slot), key(7), Mode::Wait, &mut outcomes);
    }
    assert!(ledger.abandon(ticket(2)), "a queued waiter leaves at once");
    for slot in [1, 3, 4] {
        ledger.release(hold, &mut outcomes);
        answer(&mut ledger, &mut outcomes, true);
        answer(&mut ledger, &mut outcomes, true);
        let (granted, new) = *outcomes.granted.last().expect("a grant");
        assert_eq!(granted, ticket(slot));
        hold = new;
    }
}

/// I3.
#[test]
fn a_grant_that_nobody_waits_for_is_released() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Mode::Try, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert!(!ledger.abandon(ticket(0)), "its statement is under way");
    ledger.answered(op, true, Time::ZERO, &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.forgotten, [ticket(0)]);
    assert!(outcomes.granted.is_empty());
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Unlock);
}

/// I2: measured, 16 of 400 cancelled tries were granted all the same.
#[test]
fn a_failed_try_is_unlocked_before_it_is_reported() {
    for was_locked in [true, false] {
        let (mut ledger, mut outcomes) = ledger();
        ledger.request(ticket(0), key(7), Mode::Try, &mut outcomes);
        let (op, _) = sent(&mut ledger);
        let sqlstate = crate::error::SqlState::OUT_OF_MEMORY;
        let error = Error::Server { sqlstate, message: "out of shared memory".into() };
        ledger.failed(op, error).expect("a try may fail");
        assert!(outcomes.failed.is_empty(), "not yet");
        let (op, _) = sent(&mut ledger);
        assert_eq!(op.kind, OpKind::Verify);
        ledger.answered(op, was_locked, Time::ZERO, &mut outcomes).expect("either is right");
        assert!(outcomes.failed[0].1.is_lock_table_full());
        assert_eq!(ledger.active(), 0);
    }
}

#[test]
fn a_denied_unlock_ends_the_session() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert_eq!(ledger.answered(op, false, Time::ZERO, &mut outcomes), Err(Disagreement));
}

#[test]
fn skipped_statements_go_out_again_in_order_and_before_newer_ones() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..3 {
        ledger.request(ticket(slot), key(slot.into()), Mode::Try, &mut outcomes);
    }
    let (first, second) = (sent(&mut ledger).0, sent(&mut ledger).0);
    ledger.skipped(first);
    ledger.skipped(second);
    let order: Vec<Key> = (0..3).map(|_| sent(&mut ledger).1).collect();
    assert_eq!(order, [key(0), key(1), key(2)]);
}

#[test]
fn every_limit_is_a_typed_error_and_leaves_room_again() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..4 {
        ledger.request(ticket(slot), key(slot.into()), Mode::Try, &mut outcomes);
    }
    assert!(
        matches!(outcomes.failed[..], [(t, Error::TooManyLocks { limit: 3 })] if t == ticket(3))
    );
    for _ in 0..3 {
        answer(&mut ledger, &mut outcomes, true);
    }
    // A lock that is being released does not count any more.
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    ledger.request(ticket(4), key(9), Mode::Try, &mut outcomes);
    assert_eq!(outcomes.failed.len(), 1);
}

#[test]
fn the_limit_on_waiters_is_a_typed_error() {
    let (mut ledger, mut outcomes, _) = held();
    for slot in 1..7 {
        ledger.request(ticket(slot), key(7), Mode::Wait, &mut outcomes);
    }
    let last = outcomes.failed.pop().expect("one too many");
    assert!(matches!(last, (t, Error::TooManyWaiters { limit: 5 }) if t == ticket(6)));
    assert!(outcomes.failed.is_empty());
}

#[test]
fn a_loss_says_whether_the_lock_may_have_been_granted() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.request(ticket(1), key(7), Mode::Wait, &mut outcomes);
    ledger.request(ticket(2), key(8), Mode::Try, &mut outcomes);
    sent(&mut ledger);
    ledger.request(ticket(3), key(9), Mode::Try, &mut outcomes);
    ledger.offline(Cause::ConnectionLost, &mut outcomes);
    assert_eq!(outcomes.lost, [(hold, Cause::ConnectionLost)]);
    let outcome = |slot| {
        let failed = outcomes.failed.iter().find(|(of, _)| *of == ticket(slot));
        failed.expect("every request ends").1.outcome()
    };
    assert_eq!(outcome(1), Outcome::NotAcquired, "it was queued here");
    assert_eq!(outcome(2), Outcome::Unknown, "it was sent");
    assert_eq!(outcome(3), Outcome::NotAcquired, "it was not sent yet");
    assert!(!ledger.release(hold, &mut outcomes), "a lost lock stays lost");
}

#[test]
fn a_refused_waiter_is_tried_again_after_a_pause_that_grows_to_a_limit() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Mode::Wait, &mut outcomes);
    let mut now = Time::ZERO;
    for _ in 0..20 {
        let (op, _) = sent(&mut ledger);
        ledger.answered(op, false, now, &mut outcomes).expect("it agrees");
        let due = ledger.next_retry();
        let pause = due.since(now);
        assert!(pause >= Duration::from_millis(2) && pause <= Duration::from_millis(128));
        ledger.retry(now, &mut outcomes);
        assert_eq!(ledger.peek_op(), None, "not before its time");
        now = due;
        ledger.retry(now, &mut outcomes);
    }
    assert!(outcomes.refused.is_empty() && outcomes.failed.is_empty());
}
