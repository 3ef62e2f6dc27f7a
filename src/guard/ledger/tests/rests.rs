//! Who waits behind many others does not listen until its turn is near.

use super::server::{Asked, Message, Server};
use super::*;

/// Has the ledger believe that 40 others take turns, one each so many microseconds.
pub(super) fn meet_many(ledger: &mut Ledger, key: Key, pace: u64) {
    for turn in 0..80 {
        let at = Time::ZERO.after(Duration::from_micros(turn * pace));
        ledger.rivals.heard(key, turn as i32 % 40, at);
    }
    ledger.rivals.had_turn(key, false, 9);
}

fn after(ledger: &mut Ledger, span: Duration) {
    let now = ledger.now.after(span);
    ledger.tick(now);
}

/// Is refused, registers, and is refused once more.
fn come(ledger: &mut Ledger, outcomes: &mut Outcomes) {
    ledger.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, outcomes);
    answer(ledger, outcomes, false);
    assert_eq!(answer(ledger, outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(ledger, outcomes, Value::Waits), OpKind::Register);
}

/// Has met many, comes, and rests.
fn resting() -> (Ledger, Outcomes) {
    let (mut ledger, mut outcomes) = ledger();
    meet_many(&mut ledger, key(7), 1_000);
    after(&mut ledger, Duration::from_secs(1));
    come(&mut ledger, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Unlisten);
    assert!(ledger.rests());
    (ledger, outcomes)
}

fn wake(ledger: &mut Ledger, outcomes: &mut Outcomes) {
    let due = ledger.next_retry();
    ledger.tick(due);
    ledger.retry(outcomes);
}

/// Of a release before it listens nobody tells it, and of one behind its try somebody does.
#[test]
fn who_has_rested_listens_first_and_tries_behind_that() {
    let (mut ledger, mut outcomes) = resting();
    assert_eq!(ledger.peek_op(), None, "it stays registered");
    let rest = ledger.next_retry().since(ledger.now);
    assert_eq!(rest, Duration::from_millis(32), "the turns of all but the last eight");
    wake(&mut ledger, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Retry);
    assert_eq!(ledger.peek_op(), None, "it rests once for each turn");
    assert!(ledger.hears_of(key(7)));
}

/// Sent just before it does not listen any more, they would wake it again and again.
#[test]
fn who_rests_is_not_woken_by_what_it_still_hears() {
    let (mut ledger, mut outcomes) = resting();
    let due = ledger.next_retry();
    ledger.notified(key(7), 1, &mut outcomes);
    assert_eq!((ledger.next_retry(), ledger.peek_op()), (due, None));
}

#[test]
fn who_has_rested_is_as_far_in_front_as_if_it_had_heard_all() {
    let (mut ledger, mut outcomes) = resting();
    wake(&mut ledger, &mut outcomes);
    assert_eq!(ledger.entries[0].heard, 32);
}

#[test]
fn a_rest_is_short() {
    let (mut ledger, mut outcomes) = ledger();
    meet_many(&mut ledger, key(7), 1_000_000);
    after(&mut ledger, Duration::from_secs(100));
    come(&mut ledger, &mut outcomes);
    assert!(ledger.rests());
    assert_eq!(ledger.next_retry().since(ledger.now), Duration::from_millis(50));
}

#[test]
fn nobody_rests_whose_channel_tells_of_another_key_too() {
    let (mut ledger, mut outcomes) = waiting();
    let other = channels::neighbour();
    meet_many(&mut ledger, other, 1_000);
    ledger.request(ticket(1), other, Wish::PLAIN, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Register);
    assert_eq!(ledger.peek_op(), None);
    assert!(!ledger.rests());
}

#[test]
fn who_comes_to_the_channel_of_one_that_rests_listens_to_it() {
    let (mut ledger, mut outcomes) = resting();
    let other = channels::neighbour();
    ledger.request(ticket(1), other, Wish::PLAIN, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Done), OpKind::Listen);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Register);
    assert!(ledger.hears_of(other));
}

/// Now and then all are counted, and while some are new, who might be many.
#[test]
fn nobody_rests_before_it_has_counted_the_others() {
    let (mut ledger, mut outcomes) = ledger();
    meet_many(&mut ledger, key(7), 1_000);
    assert!(ledger.rivals.may_rest(key(7)));
    for _ in 0..9 {
        ledger.rivals.had_turn(key(7), false, 5);
    }
    assert!(!ledger.rivals.may_rest(key(7)), "the last of so many turns");
    ledger.rivals.had_turn(key(7), false, 5);
    ledger.rivals.heard(key(7), 99, Time::ZERO);
    assert!(!ledger.rivals.may_rest(key(7)), "there is a new one");
    come(&mut ledger, &mut outcomes);
    assert_eq!(ledger.peek_op(), None);
}

/// Hands the server all that a ledger has to say.
fn send(ledger: &mut Ledger, server: &mut Server, session: usize) {
    while let Some((op, statement)) = ledger.peek_op() {
        ledger.pop_op();
        let asked = [Asked::One(op.to_number(), statement), Asked::Sync];
        server.sessions[session].asked.extend(asked);
    }
}

/// Tells a ledger all that the server has said.
fn hear(ledger: &mut Ledger, outcomes: &mut Outcomes, server: &mut Server, session: usize) {
    for message in std::mem::take(&mut server.sessions[session].said) {
        match message {
            Message::Answer(number, value) => {
                ledger.answered(Op::from_number(number), value, outcomes).expect("they agree");
            }
            Message::Notified(by, KeyParameters::Bigint(number)) => {
                ledger.notified(key(number), by, outcomes);
            }
            Message::Synced => ledger.synced(),
            other => panic!("{other:?}"),
        }
    }
}

/// All that they have to say to each other, while no time passes.
fn talk(sides: &mut [(Ledger, Outcomes); 2], server: &mut Server) {
    for _ in 0..4 {
        for (session, (ledger, outcomes)) in sides.iter_mut().enumerate() {
            send(ledger, server, session);
            while server.step(session, None) {}
            hear(ledger, outcomes, server, session);
        }
    }
}

/// One call of the one and the other session at a time, in every order. Whoever listens behind its
/// try is not told of what is let go of in between.
#[test]
fn what_is_let_go_of_while_a_rest_ends_is_found_in_whatever_order_that_happens() {
    for order in 0_u32..1 << 12 {
        let mut server = Server::new(2);
        let mut sides = [ledger(), ledger()];
        let [(waiter, _), (holder, theirs)] = &mut sides;
        meet_many(waiter, key(7), 1_000);
        holder.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, theirs);
        talk(&mut sides, &mut server);
        let [(waiter, ours), (holder, theirs)] = &mut sides;
        waiter.request(ticket(0), key(7), Wish::PLAIN, Mode::Wait, ours);
        let hold = theirs.granted[0].1;
        holder.tick(Time::ZERO.after(Duration::from_millis(1)));
        talk(&mut sides, &mut server);
        let [(waiter, ours), (holder, theirs)] = &mut sides;
        assert!(waiter.rests() && ours.granted.is_empty());
        wake(waiter, ours);
        send(waiter, &mut server, 0);
        holder.release(hold, theirs);
        send(holder, &mut server, 1);
        for step in 0..12 {
            server.step((order >> step) as usize & 1, None);
        }
        talk(&mut sides, &mut server);
        let (waiter, ours) = &mut sides[0];
        // Notified, it may leave the key to those before it for a while; a poll would be later.
        if waiter.next_retry().since(waiter.now) <= Duration::from_millis(5) {
            wake(waiter, ours);
            talk(&mut sides, &mut server);
        }
        assert_eq!(sides[0].1.granted.len(), 1, "{order:b}");
    }
}

/// The server has not taken a LISTEN meanwhile, of another channel: there is none any more.
#[test]
fn who_has_rested_and_cannot_listen_again_asks_often() {
    let (mut ledger, mut outcomes) = resting();
    ledger.hear_no_more(0);
    wake(&mut ledger, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, Value::Waits), OpKind::Retry);
    assert!(ledger.next_retry().since(ledger.now) <= Duration::from_millis(10));
}
