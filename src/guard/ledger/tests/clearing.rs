//! What clears up after a try for a slot that failed, while releases of other slots are under way.

use super::server::{Asked, Failure, Message, Server};
use super::*;

fn error(sqlstate: [u8; 5]) -> Error {
    let sqlstate = crate::error::SqlState::new(sqlstate);
    Error::Server { sqlstate, message: "it failed".into() }
}

/// Hands what is queued to the server as one batch, and has it fail at these statements.
fn batch(ledger: &mut Ledger, server: &mut Server, fails: impl Fn(OpKind) -> bool) {
    while ledger.peek_op().is_some() {
        let (op, statement) = sent(ledger);
        server.sessions[0].asked.push_back(Asked::One(op.to_number(), statement));
    }
    server.sessions[0].asked.push_back(Asked::Sync);
    while !server.sessions[0].asked.is_empty() {
        let kind = server.sessions[0].running().map(|(number, _)| Op::from_number(number).kind);
        server.step(0, kind.is_some_and(&fails).then_some(Failure::Before));
    }
}

/// Takes in what the server has said, up to the end of a batch.
fn take_in(ledger: &mut Ledger, server: &mut Server, outcomes: &mut Outcomes, why: [u8; 5]) {
    while let Some(message) = server.sessions[0].said.pop_front() {
        match message {
            Message::Answer(number, value) => {
                ledger.answered(Op::from_number(number), value, outcomes).expect("it agrees");
            }
            Message::Failed(number) => {
                ledger.failed(Op::from_number(number), error(why), outcomes).expect("it may");
            }
            Message::Skipped(number) => ledger.skipped(Op::from_number(number)),
            Message::Synced => return ledger.synced(),
            Message::Notified(..) => {}
            Message::Denied(_) | Message::Both(_) => unreachable!("each goes by itself here"),
        }
    }
}

/// One of two slots is held, and a batch with a try for the other one, which fails, is not answered
/// yet.
fn a_slot_held_and_a_try_that_fails() -> (Ledger, Server, Outcomes, HoldId) {
    let slot = Wish { want: Want::Slot(2), fenced: false };
    let (mut ledger, mut outcomes) = ledger();
    let mut server = Server::new(1);
    ledger.request(ticket(0), key(7), slot, Mode::Try, &mut outcomes);
    batch(&mut ledger, &mut server, |_| false);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    let hold = outcomes.granted[0].1;
    ledger.request(ticket(1), key(7), slot, Mode::Try, &mut outcomes);
    batch(&mut ledger, &mut server, OpKind::is_try);
    (ledger, server, outcomes, hold)
}

/// Two batches are in flight. The first has a try for a slot, which fails; the second a release of
/// another slot, which is skipped. What clears up after the try is sent once the first is answered
/// and the second is not: it takes the slot for one that the failed try has taken, and lets go of
/// it. The release, sent again, is then answered 'n', which ends the session.
#[test]
fn what_clears_up_after_a_try_leaves_a_slot_alone_whose_release_is_still_to_come() {
    let (mut ledger, mut server, mut outcomes, hold) = a_slot_held_and_a_try_that_fails();
    // The second: a try for something else, and a release, which is skipped.
    ledger.request(ticket(2), key(8), Wish::PLAIN, Mode::Try, &mut outcomes);
    ledger.release(hold, &mut outcomes);
    batch(&mut ledger, &mut server, OpKind::is_try);
    // The answer to the first is in.
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    assert!(!ledger.is_recovering());
    batch(&mut ledger, &mut server, |_| false);
    // And to the others. The model of the server panics when a lock is denied that is held.
    for _ in 0..2 {
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    }
    batch(&mut ledger, &mut server, |_| false);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
}

/// The same with one failure only, for a role that may not notify.
#[test]
fn what_clears_up_after_a_try_leaves_a_slot_alone_whose_release_was_denied() {
    let (mut ledger, mut server, mut outcomes, hold) = a_slot_held_and_a_try_that_fails();
    ledger.release(hold, &mut outcomes);
    batch(&mut ledger, &mut server, OpKind::releases);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    batch(&mut ledger, &mut server, |_| false);
    for _ in 0..2 {
        take_in(&mut ledger, &mut server, &mut outcomes, *b"42501");
    }
    batch(&mut ledger, &mut server, |_| false);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"42501");
}

/// A ledger that may have more locks than others here, and its server.
fn roomy() -> (Ledger, Server, Outcomes) {
    let mut ledger = Ledger::new(LedgerLimits { locks: 8, ..LIMITS }, 1);
    let mut outcomes = Outcomes::default();
    ledger.online(&mut outcomes);
    (ledger, Server::new(1), outcomes)
}

/// A release is skipped twice, and the try behind it fails in a batch in between.
#[test]
fn what_clears_up_after_a_try_leaves_a_release_of_the_same_key_what_it_is_to_let_go_of() {
    for want in [Want::Exclusive, Want::Shared] {
        let (mut ledger, mut server, mut outcomes) = roomy();
        let wish = Wish { want, fenced: false };
        ledger.request(ticket(0), key(7), wish, Mode::Try, &mut outcomes);
        batch(&mut ledger, &mut server, |_| false);
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
        for other in 1..3 {
            let wish = Wish::PLAIN;
            ledger.request(ticket(other), key(other.into()), wish, Mode::Try, &mut outcomes);
        }
        ledger.release(outcomes.granted[0].1, &mut outcomes);
        batch(&mut ledger, &mut server, OpKind::is_try);
        ledger.request(ticket(3), key(7), wish, Mode::Try, &mut outcomes);
        batch(&mut ledger, &mut server, OpKind::is_try);
        // The second of the tries fails now, and the release is skipped once more.
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
        batch(&mut ledger, &mut server, OpKind::is_try);
        // The try behind the release has failed.
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
        come_to_an_end(ledger, server, outcomes);
    }
}

/// It goes out again when a slot is being let go of that was held when it went out first.
#[test]
fn what_clears_up_and_was_skipped_leaves_a_slot_alone_whose_release_is_still_to_come() {
    let (mut ledger, mut server, mut outcomes) = roomy();
    let slot = Wish { want: Want::Slot(2), fenced: false };
    ledger.request(ticket(0), key(7), slot, Mode::Try, &mut outcomes);
    batch(&mut ledger, &mut server, |_| false);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    for other in 1..3 {
        let wish = Wish::PLAIN;
        ledger.request(ticket(other), key(other.into()), wish, Mode::Try, &mut outcomes);
    }
    batch(&mut ledger, &mut server, OpKind::is_try);
    ledger.request(ticket(3), key(7), slot, Mode::Try, &mut outcomes);
    batch(&mut ledger, &mut server, OpKind::is_try);
    for _ in 0..2 {
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    }
    // The second of the tries fails now, and what clears up behind it is skipped.
    batch(&mut ledger, &mut server, OpKind::is_try);
    ledger.request(ticket(4), key(4), Wish::PLAIN, Mode::Try, &mut outcomes);
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    batch(&mut ledger, &mut server, OpKind::is_try);
    take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    come_to_an_end(ledger, server, outcomes);
}

/// Nothing fails any more; in the end nothing is left on either side. The model of the server
/// panics when a lock is let go of that is not held.
fn come_to_an_end(mut ledger: Ledger, mut server: Server, mut outcomes: Outcomes) {
    while !ledger.is_empty() || !server.sessions[0].said.is_empty() {
        if ledger.peek_op().is_some() {
            batch(&mut ledger, &mut server, |_| false);
        }
        take_in(&mut ledger, &mut server, &mut outcomes, *b"57014");
    }
    assert_eq!(server.all_of(0), []);
}
