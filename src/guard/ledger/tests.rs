//! The ledger against a model of the server and of callers that do anything at any time.

use std::time::Duration;

use super::*;
use crate::proto::frontend::KeyParameters;
use crate::proto::statement::{ROWS_MAX, Run, Statement, Swap, Value};

mod along;
mod channels;
mod clearing;
mod denied;
mod doubt;
mod inquiry;
mod model;
mod outbox;
mod ranks;
mod rests;
mod server;
mod skips;
mod stays;
mod turns;

/// What became of requests and holds.
#[derive(Default)]
struct Outcomes {
    granted: Vec<(Ticket, HoldId, Terms)>,
    refused: Vec<Ticket>,
    failed: Vec<(Ticket, Error)>,
    forgotten: Vec<Ticket>,
    done: Vec<Ticket>,
    lost: Vec<(HoldId, Cause)>,
    listed: Vec<(Ticket, Listing)>,
    /// Tickets whose owners have gone without the ledger knowing yet.
    gone: Vec<Ticket>,
}

impl Sink for Outcomes {
    fn granted(&mut self, ticket: Ticket, hold: HoldId, terms: Terms) -> bool {
        if self.gone.contains(&ticket) {
            return false;
        }
        self.granted.push((ticket, hold, terms));
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
    fn done(&mut self, ticket: Ticket) {
        self.done.push(ticket);
    }
    fn released(&mut self, _: HoldId) {}
    fn listed(&mut self, ticket: Ticket, listing: Box<Listing>) {
        self.listed.push((ticket, *listing));
    }
    fn lost(&mut self, hold: HoldId, cause: Cause) {
        self.lost.push((hold, cause));
    }
}

/// A session of somebody else.
const OTHER: i32 = 1_234;

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
fn sent(ledger: &mut Ledger) -> (Op, Statement) {
    let next = ledger.peek_op().expect("a statement is queued");
    ledger.pop_op();
    next
}

fn answer(ledger: &mut Ledger, outcomes: &mut Outcomes, value: impl Into<Value>) -> OpKind {
    let (op, _) = sent(ledger);
    ledger.answered(op, value.into(), outcomes).expect("it agrees");
    op.kind
}

/// Asks for key 7 and is granted it.
fn held() -> (Ledger, Outcomes, HoldId) {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let hold = outcomes.granted[0].1;
    (ledger, outcomes, hold)
}

/// I1: the server would say true to the same session again.
#[test]
fn a_held_key_is_refused_without_asking_the_server() {
    let (mut ledger, mut outcomes, _) = held();
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    assert_eq!(outcomes.refused, [ticket(1)]);
    assert_eq!(ledger.peek_op(), None);
}

/// I8.
#[test]
fn a_late_second_release_does_not_touch_a_newer_hold() {
    let (mut ledger, mut outcomes, old) = held();
    assert!(ledger.release(old, &mut outcomes));
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Quiet);
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
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Release);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Try);
}

#[test]
fn an_awaited_release_is_told_when_it_is_answered_and_not_before() {
    let (mut ledger, mut outcomes, hold) = held();
    assert!(ledger.release_and_tell(ticket(1), hold, &mut outcomes));
    let (op, _) = sent(&mut ledger);
    assert_eq!((op.kind, ledger.slot_of(op)), (OpKind::Release, Some(1)));
    assert!(outcomes.done.is_empty() && ledger.is_active(ticket(1)));
    ledger.answered(op, Value::Quiet, &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.done, [ticket(1)]);
    assert!(!ledger.is_active(ticket(1)));
    assert!(!ledger.release_and_tell(ticket(2), hold, &mut outcomes), "only once (I8)");
    assert!(matches!(outcomes.failed[..], [(t, Error::Lost { .. })] if t == ticket(2)));
}

#[test]
fn statements_name_the_slots_that_wait_for_them() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(5), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert_eq!(ledger.slot_of(op), Some(5));
    let sqlstate = crate::error::SqlState::new(*b"57014");
    let error = Error::Server { sqlstate, message: "canceled".into() };
    ledger.failed(op, error, &mut outcomes).expect("a try may fail");
    let (verify, _) = sent(&mut ledger);
    assert_eq!(ledger.slot_of(verify), Some(5));
    assert_eq!(ledger.slot_of(op), None, "the try is over");
    ledger.offline(Cause::ConnectionLost, &mut outcomes);
    assert_eq!(outcomes.failed[0].1.outcome(), Outcome::Unknown, "an error proves nothing (I2)");
}

#[test]
fn a_key_is_handed_on_in_the_order_they_came_and_the_server_does_not_hear_of_it() {
    let (mut ledger, mut outcomes, mut hold) = held();
    for slot in 1..5 {
        ledger.request(ticket(slot), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    }
    assert!(ledger.abandon(ticket(2), &mut outcomes), "a queued waiter leaves at once");
    for slot in [1, 3, 4] {
        ledger.release(hold, &mut outcomes);
        assert_eq!(ledger.peek_op(), None);
        let (granted, new, _) = *outcomes.granted.last().expect("a grant");
        assert_eq!(granted, ticket(slot));
        assert!(!ledger.release(hold, &mut outcomes), "the former hold is dead (I8)");
        hold = new;
    }
    ledger.release(hold, &mut outcomes);
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Release);
}

/// Else other processes would never have it.
#[test]
fn a_key_goes_back_to_the_server_after_so_many_hand_overs_or_so_long() {
    for (limit, pause) in [(256, Duration::ZERO), (5, Duration::from_millis(1))] {
        let (mut ledger, mut outcomes, mut hold) = held();
        let mut now = Time::ZERO;
        for _ in 0..limit {
            ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
            ledger.tick(now);
            ledger.release(hold, &mut outcomes);
            assert_eq!(ledger.peek_op(), None);
            hold = outcomes.granted.last().expect("a grant").1;
            now = now.after(pause);
        }
        ledger.tick(now);
        ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
        ledger.release(hold, &mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Release);
        assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try);
    }
}

/// I3.
#[test]
fn a_grant_that_nobody_waits_for_is_released() {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert!(!ledger.abandon(ticket(0), &mut outcomes), "its statement is under way");
    ledger.answered(op, Value::from(true), &mut outcomes).expect("it agrees");
    assert_eq!(outcomes.forgotten, [ticket(0)]);
    assert!(outcomes.granted.is_empty());
    assert_eq!(sent(&mut ledger).0.kind, OpKind::Release);
}

/// I2: measured, 16 of 400 cancelled tries were granted all the same.
#[test]
fn a_failed_try_is_unlocked_before_it_is_reported() {
    for told in [true, false] {
        let (mut ledger, mut outcomes) = ledger();
        ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Try, &mut outcomes);
        let (op, _) = sent(&mut ledger);
        let sqlstate = crate::error::SqlState::OUT_OF_MEMORY;
        let error = Error::Server { sqlstate, message: "out of shared memory".into() };
        ledger.failed(op, error, &mut outcomes).expect("a try may fail");
        assert!(outcomes.failed.is_empty(), "not yet");
        let (op, _) = sent(&mut ledger);
        assert_eq!(op.kind, OpKind::Clear(Want::Exclusive));
        let value = if told { Value::Told } else { Value::Quiet };
        ledger.answered(op, value, &mut outcomes).expect("either is right");
        assert!(outcomes.failed[0].1.is_lock_table_full());
        assert_eq!(ledger.active(), 0);
    }
}

#[test]
fn a_denied_unlock_ends_the_session() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    assert_eq!(ledger.answered(op, Value::from(false), &mut outcomes), Err(Disagreement));
}

#[test]
fn skipped_statements_go_out_again_in_order_and_before_newer_ones() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..3 {
        ledger.request(ticket(slot), key(slot.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    let (first, second) = (sent(&mut ledger).0, sent(&mut ledger).0);
    ledger.skipped(first);
    ledger.skipped(second);
    let order: Vec<Statement> = (0..3).map(|_| sent(&mut ledger).1).collect();
    let tries = [0, 1, 2].map(|key| Statement::TryLock(KeyParameters::Bigint(key)));
    assert_eq!(order, tries);
}

#[test]
fn every_limit_is_a_typed_error_and_leaves_room_again() {
    let (mut ledger, mut outcomes) = ledger();
    for slot in 0..4 {
        ledger.request(ticket(slot), key(slot.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    assert!(
        matches!(outcomes.failed[..], [(t, Error::TooManyLocks { limit: 3 })] if t == ticket(3))
    );
    for _ in 0..3 {
        answer(&mut ledger, &mut outcomes, true);
    }
    // A lock that is being released does not count any more.
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    ledger.request(ticket(4), key(9), Wish::PLAIN, Mode::Try, &mut outcomes);
    assert_eq!(outcomes.failed.len(), 1);
}

/// It may be granted. Between its tries it needs none, nor where it is handed what is held here.
#[test]
fn a_request_needs_a_place_while_the_server_is_asked_even_to_wait() {
    let (mut ledger, mut outcomes) = waiting();
    for slot in 1..4 {
        ledger.request(ticket(slot), key(slot.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, true);
    }
    assert_eq!(outcomes.granted.len(), 3, "as many as there may be");
    ledger.request(ticket(4), key(8), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.request(ticket(5), key(1), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.notified(key(7), OTHER, &mut outcomes);
    let refused: Vec<Ticket> = outcomes.failed.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(refused, [ticket(4), ticket(0)]);
    let is_limit = |error: &Error| matches!(error, Error::TooManyLocks { limit: 3 });
    assert!(outcomes.failed.iter().all(|(_, error)| is_limit(error)));
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    assert_eq!(outcomes.granted[3].0, ticket(5));
}

#[test]
fn the_limit_on_waiters_is_a_typed_error() {
    let (mut ledger, mut outcomes, _) = held();
    for slot in 1..7 {
        ledger.request(ticket(slot), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    }
    let last = outcomes.failed.pop().expect("one too many");
    assert!(matches!(last, (t, Error::TooManyWaiters { limit: 5 }) if t == ticket(6)));
    assert!(outcomes.failed.is_empty());
}

#[test]
fn a_loss_says_whether_the_lock_may_have_been_granted() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.request(ticket(2), key(8), Wish::PLAIN, Mode::Try, &mut outcomes);
    sent(&mut ledger);
    ledger.request(ticket(3), key(9), Wish::PLAIN, Mode::Try, &mut outcomes);
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

/// A waiter for key 7, which another process holds; registered, with the gate.
fn waiting() -> (Ledger, Outcomes) {
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Try);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::WaitsGated), OpKind::Register);
    assert_eq!(ledger.peek_op(), None);
    (ledger, outcomes)
}

/// What lets the end of a holder be found, which notifies nobody.
#[test]
fn a_registered_waiter_asks_again_after_a_pause_that_grows_to_a_limit() {
    let (mut ledger, mut outcomes) = waiting();
    let mut pauses = Vec::new();
    for _ in 0..20 {
        let due = ledger.next_retry();
        pauses.push(due.since(ledger.now));
        ledger.retry(&mut outcomes);
        assert_eq!(ledger.peek_op(), None, "not before its time");
        ledger.tick(due);
        ledger.retry(&mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Try);
    }
    assert!(pauses[0] >= Duration::from_millis(500) && pauses[0] <= Duration::from_secs(1));
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(5)), "{pauses:?}");
    assert!(pauses[19] >= Duration::from_millis(2_500), "{pauses:?}");
    assert!(outcomes.refused.is_empty() && outcomes.failed.is_empty());
}

#[test]
fn a_notification_leads_to_a_try_at_once_and_one_during_a_try_to_another() {
    let (mut ledger, mut outcomes) = waiting();
    ledger.notified(key(8), OTHER, &mut outcomes);
    assert_eq!(ledger.peek_op(), None, "of another key");
    ledger.notified(key(7), OTHER, &mut outcomes);
    let (op, _) = sent(&mut ledger);
    ledger.notified(key(7), OTHER, &mut outcomes);
    assert_eq!(ledger.peek_op(), None, "one try at a time");
    ledger.answered(op, Value::No, &mut outcomes).expect("it agrees");
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try);
    assert_eq!(outcomes.granted.len(), 1);
    let left = [sent(&mut ledger).0.kind, sent(&mut ledger).0.kind];
    assert_eq!(left, [OpKind::DropGate, OpKind::Delist], "nothing is left beside the key");
    assert_eq!(ledger.peek_op(), None);
}

#[test]
fn where_there_is_no_listen_waiters_ask_more_often() {
    let (mut ledger, mut outcomes, register) = channels::without_listen();
    ledger.answered(register, Value::Probed, &mut outcomes).expect("it agrees");
    for _ in 0..20 {
        let due = ledger.next_retry();
        assert!(due.since(ledger.now) <= Duration::from_secs(1));
        ledger.tick(due);
        ledger.retry(&mut outcomes);
        assert_eq!(answer(&mut ledger, &mut outcomes, false), OpKind::Try, "no registration");
    }
}

/// A process that wants a key again would have it every time, being the first to know.
#[test]
fn who_lets_go_of_a_key_that_others_wait_for_lets_them_come_first() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Told), OpKind::Release);
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Enlist);
    assert_eq!(ledger.peek_op(), None);
    let due = ledger.next_retry();
    assert!(due.since(ledger.now) <= Duration::from_millis(4), "but not for long");
    ledger.tick(due);
    ledger.retry(&mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Granted), OpKind::Retry);
    assert_eq!(outcomes.granted.len(), 2);
}

/// The server discards the notifications of a batch in which a statement fails.
#[test]
fn a_notification_that_was_lost_with_its_batch_is_sent_again() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.release(hold, &mut outcomes);
    ledger.request(ticket(1), key(8), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::Told);
    let (op, _) = sent(&mut ledger);
    let sqlstate = crate::error::SqlState::OUT_OF_MEMORY;
    let error = Error::Server { sqlstate, message: "out of shared memory".into() };
    ledger.failed(op, error, &mut outcomes).expect("a try may fail");
    ledger.synced();
    let next = [sent(&mut ledger).0.kind, sent(&mut ledger).0.kind];
    assert_eq!(next, [OpKind::Clear(Want::Exclusive), OpKind::Wake]);
    ledger.synced();
    assert_eq!(ledger.peek_op(), None, "once");
}

#[test]
fn sharers_of_one_manager_share_one_lock_and_an_exclusive_waits_behind_them() {
    let (mut ledger, mut outcomes) = ledger();
    let shared = Wish { want: Want::Shared, fenced: false };
    ledger.request(ticket(0), key(7), shared, Mode::Wait, &mut outcomes);
    ledger.request(ticket(1), key(7), shared, Mode::Try, &mut outcomes);
    assert!(outcomes.refused.is_empty(), "it sees what becomes of the first");
    answer(&mut ledger, &mut outcomes, true);
    assert_eq!(outcomes.granted.len(), 2);
    ledger.request(ticket(2), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    ledger.request(ticket(3), key(7), shared, Mode::Try, &mut outcomes);
    assert_eq!(outcomes.refused, [ticket(3)], "it would overtake");
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    assert_eq!(ledger.peek_op(), None, "one of two");
    ledger.release(outcomes.granted[1].1, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::ReleaseShared);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Try);
    assert_eq!(outcomes.granted.len(), 3);
}

#[test]
fn a_downgrade_lets_sharers_in_once_it_is_answered() {
    let (mut ledger, mut outcomes, hold) = held();
    let shared = Wish { want: Want::Shared, fenced: false };
    ledger.request(ticket(1), key(7), shared, Mode::Wait, &mut outcomes);
    ledger.downgrade(ticket(2), hold, &mut outcomes);
    assert_eq!(outcomes.granted.len(), 1, "not yet");
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Downgrade);
    assert_eq!((outcomes.granted.len(), &outcomes.done[..]), (2, &[ticket(2)][..]));
}

#[test]
fn a_downgrade_that_is_asked_again_is_told_once_it_is_answered() {
    let (mut ledger, mut outcomes, hold) = held();
    ledger.downgrade(ticket(2), hold, &mut outcomes);
    assert!(!ledger.abandon(ticket(2), &mut outcomes), "its slot is of use until the answer");
    ledger.downgrade(ticket(3), hold, &mut outcomes);
    assert_eq!(outcomes.done, [], "not yet");
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Quiet), OpKind::Downgrade);
    assert_eq!((&outcomes.forgotten[..], &outcomes.done[..]), (&[ticket(2)][..], &[ticket(3)][..]));
    assert_eq!(ledger.peek_op(), None, "one statement for both");
}

#[test]
fn a_fenced_waiter_gets_a_token_of_its_own_while_the_key_stays_here() {
    let (mut ledger, mut outcomes, hold) = held();
    let fenced = Wish { want: Want::Exclusive, fenced: true };
    ledger.request(ticket(1), key(7), fenced, Mode::Wait, &mut outcomes);
    ledger.release(hold, &mut outcomes);
    assert_eq!(outcomes.granted.len(), 1);
    let token = crate::proto::statement::Token { timeline: 1, lsn: 9 };
    let kind = answer(&mut ledger, &mut outcomes, Value::Token(Some(token)));
    assert_eq!(kind, OpKind::Token);
    let (granted, _, terms) = outcomes.granted[1];
    assert_eq!((granted, terms.token), (ticket(1), Some(Token { timeline: 1, lsn: 9 })));
}
