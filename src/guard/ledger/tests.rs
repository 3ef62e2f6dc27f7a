//! The ledger against a model of the server and of callers that do anything at any time.

use std::collections::HashMap;
use std::time::Duration;

use super::*;

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

/// The server's side: how often our session holds a key, and which keys others hold.
#[derive(Default)]
struct Server {
    ours: HashMap<Key, u32>,
    others: Vec<Key>,
}

impl Server {
    fn run(&mut self, kind: OpKind, key: Key) -> bool {
        let count = self.ours.entry(key).or_default();
        match kind {
            OpKind::Try if self.others.contains(&key) => false,
            OpKind::Try => {
                *count += 1;
                true
            }
            _ if *count == 0 => false,
            _ => {
                *count -= 1;
                true
            }
        }
    }
}

/// One random life of a ledger; checks the invariants at every step.
struct World {
    ledger: Ledger,
    outcomes: Outcomes,
    server: Server,
    jitter: Jitter,
    flying: VecDeque<(Op, Key)>,
    /// Requests whose outcome is not there yet, and their keys.
    open: Vec<(Ticket, Key)>,
    holds: Vec<(HoldId, Key)>,
    free: Vec<u32>,
    generation: u32,
    now: Time,
}

impl World {
    fn new(seed: u64) -> Self {
        let (ledger, outcomes) = ledger();
        Self {
            ledger,
            outcomes,
            server: Server::default(),
            jitter: Jitter::new(seed),
            flying: VecDeque::new(),
            open: Vec::new(),
            holds: Vec::new(),
            free: (0..LIMITS.requests).collect(),
            generation: 0,
            now: Time::ZERO,
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.jitter.next() % count as u64).expect("small")
    }

    fn step(&mut self) {
        match self.pick(12) {
            0..=2 => self.ask(),
            3..=4 => self.let_go(),
            5 => self.leave(),
            6..=8 => self.reply(),
            9 => self.foreign(),
            10 => {
                self.now = self.now.after(Duration::from_millis(50));
                self.ledger.retry(self.now, &mut self.outcomes);
            }
            _ if self.pick(20) == 0 => self.lose(),
            _ => {}
        }
        while let Some(op) = self.ledger.peek_op().filter(|_| self.flying.len() < 4) {
            self.ledger.pop_op();
            self.flying.push_back(op);
        }
        self.settle();
    }

    fn ask(&mut self) {
        let Some(slot) = self.free.pop() else { return };
        self.generation += 1;
        let ticket = Ticket { slot, generation: self.generation };
        let key = key(self.pick(4) as i64);
        let mode = if self.pick(2) == 0 { Mode::Try } else { Mode::Wait };
        self.open.push((ticket, key));
        self.ledger.request(ticket, key, mode, &mut self.outcomes);
    }

    fn let_go(&mut self) {
        if self.holds.is_empty() {
            return;
        }
        let at = self.pick(self.holds.len());
        let (hold, _) = self.holds.swap_remove(at);
        assert!(self.ledger.release(hold, &mut self.outcomes), "it was held");
        assert!(!self.ledger.release(hold, &mut self.outcomes), "only once");
    }

    fn leave(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.pick(self.open.len());
        let (ticket, _) = self.open.swap_remove(at);
        if self.ledger.abandon(ticket) {
            self.free.push(ticket.slot);
        } else {
            self.outcomes.gone.push(ticket);
        }
    }

    /// The server runs the oldest statement; now and then it fails it, before or after its effect,
    /// and skips the one behind.
    fn reply(&mut self) {
        let Some((op, key)) = self.flying.pop_front() else { return };
        let (ledger, outcomes) = (&mut self.ledger, &mut self.outcomes);
        if op.kind == OpKind::Try && self.jitter.next() % 8 == 0 {
            if self.jitter.next() % 2 == 0 {
                self.server.run(op.kind, key);
            }
            let sqlstate = crate::error::SqlState::new(*b"57014");
            let error = Error::Server { sqlstate, message: "canceled".into() };
            ledger.failed(op, error).expect("a try may fail");
            // The batch ends here or takes everything in flight with it.
            if self.jitter.next() % 2 == 0 {
                for (skipped, _) in self.flying.drain(..) {
                    ledger.skipped(skipped);
                }
            }
        } else {
            let value = self.server.run(op.kind, key);
            ledger.answered(op, value, self.now, outcomes).expect("model and ledger agree");
        }
    }

    fn foreign(&mut self) {
        let key = key(self.pick(4) as i64);
        if let Some(at) = self.server.others.iter().position(|other| *other == key) {
            self.server.others.swap_remove(at);
        } else if self.server.ours.get(&key).copied().unwrap_or(0) == 0 {
            self.server.others.push(key);
        }
    }

    fn lose(&mut self) {
        self.ledger.offline(Cause::ConnectionLost, &mut self.outcomes);
        self.flying.clear();
        self.server.ours.clear();
        assert_eq!(self.outcomes.lost.len(), self.holds.len(), "each hold is lost once");
        self.outcomes.lost.clear();
        self.holds.clear();
        self.settle();
        assert!(self.open.is_empty(), "every request ends");
        self.ledger.online(&mut self.outcomes);
    }

    /// Takes in what the ledger has decided, and checks the invariants.
    fn settle(&mut self) {
        for (ticket, hold) in std::mem::take(&mut self.outcomes.granted) {
            let key = self.conclude(ticket);
            assert!(self.holds.iter().all(|(_, held)| *held != key), "I1: two holds of {key}");
            assert!(!self.server.others.contains(&key), "{key} is held elsewhere");
            self.holds.push((hold, key));
        }
        for ticket in std::mem::take(&mut self.outcomes.refused) {
            self.conclude(ticket);
        }
        for (ticket, _) in std::mem::take(&mut self.outcomes.failed) {
            self.conclude(ticket);
        }
        for ticket in std::mem::take(&mut self.outcomes.forgotten) {
            let at = self.outcomes.gone.iter().position(|gone| *gone == ticket);
            self.outcomes.gone.swap_remove(at.expect("it had gone"));
            self.free.push(ticket.slot);
        }
        for (_, key) in &self.holds {
            assert!(self.server.ours[key] >= 1, "believed but not held: {key}");
        }
    }

    fn conclude(&mut self, ticket: Ticket) -> Key {
        let at = self.open.iter().position(|(open, _)| *open == ticket);
        self.free.push(ticket.slot);
        self.open.swap_remove(at.expect("each request ends once")).1
    }

    /// Lets everything come to rest: then the server holds what the ledger says, no more.
    fn rest(&mut self) {
        self.server.others.clear();
        while let Some((ticket, _)) = self.open.pop() {
            if self.ledger.abandon(ticket) {
                self.free.push(ticket.slot);
            } else {
                self.outcomes.gone.push(ticket);
            }
        }
        loop {
            if let Some(next) = self.ledger.peek_op() {
                self.ledger.pop_op();
                self.flying.push_back(next);
            }
            let Some(op) = self.flying.pop_front() else { break };
            let value = self.server.run(op.0.kind, op.1);
            self.ledger.answered(op.0, value, self.now, &mut self.outcomes).expect("they agree");
            self.settle();
        }
        for (key, count) in &self.server.ours {
            let held = self.holds.iter().filter(|(_, held)| held == key).count();
            assert_eq!(*count as usize, held, "{key}");
        }
        assert_eq!(self.ledger.held().count(), self.holds.len());
        assert_eq!(self.free.len(), LIMITS.requests as usize, "no slot is lost");
        assert_eq!((self.ledger.active(), self.ledger.waiting), (0, 0));
    }
}

#[test]
fn whatever_callers_and_server_do_ledger_and_server_agree() {
    for seed in 0..2_000 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            world.step();
        }
        world.rest();
    }
}
