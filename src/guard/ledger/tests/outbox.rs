//! What goes as one statement.

use super::*;

const MANY: LedgerLimits = LedgerLimits { locks: 300, requests: 300, waiters: 5 };

/// So many keys held, and as many others asked for after each release: as many threads do it.
fn alternating(count: i64) -> (Ledger, Outcomes) {
    let (mut ledger, mut outcomes) = (Ledger::new(MANY, 1), Outcomes::default());
    ledger.online(&mut outcomes);
    for number in 0..count {
        let ticket = ticket(number as u32);
        ledger.request(ticket, key(number), Wish::PLAIN, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, true);
    }
    for number in 0..count {
        ledger.release(outcomes.granted[number as usize].1, &mut outcomes);
        let ticket = Ticket { slot: number as u32, generation: 2 };
        ledger.request(ticket, key(count + number), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    (ledger, outcomes)
}

/// The keys of the statements that are sent.
fn runs(ledger: &mut Ledger) -> Vec<(Run, Vec<i64>)> {
    let mut runs = Vec::new();
    while let Some(next) = ledger.next(ROWS_MAX) {
        let (run, count) = match next {
            Next::One(op) => (Run::of(&ledger.statement(op)).expect("a try or a release").0, 1),
            Next::Several(run, count) => (run, count),
            // As if it were sent alone, and then the try.
            Next::Swap(..) => (Run::Release, 1),
        };
        runs.push((run, ledger.rows(count).map(|(key, _)| key).collect()));
        (0..count).for_each(|_| ledger.pop_op());
    }
    runs
}

#[test]
fn releases_and_tries_that_alternate_are_sent_as_two_statements_in_their_order() {
    let (mut ledger, _) = alternating(5);
    let expected = [(Run::Release, (0..5).collect()), (Run::TryLock, (5..10).collect())];
    assert_eq!(runs(&mut ledger), expected);
}

#[test]
fn a_statement_has_so_many_rows_and_no_more() {
    let (mut ledger, _) = alternating(130);
    let lengths: Vec<_> = runs(&mut ledger).iter().map(|(run, keys)| (*run, keys.len())).collect();
    // It is looked so far for what goes together, and for the rest once that is sent.
    assert!(lengths.iter().all(|(_, length)| *length <= 64), "{lengths:?}");
    assert_eq!(lengths.iter().map(|(_, length)| length).sum::<usize>(), 260);
    assert!(lengths.len() <= 10, "{lengths:?}");
}

/// Else a queue of many would go out in pairs: behind each, one more release comes into view.
#[test]
fn a_release_before_many_tries_takes_none_of_them_along() {
    let (mut ledger, mut outcomes) = (Ledger::new(MANY, 1), Outcomes::default());
    ledger.online(&mut outcomes);
    ledger.request(ticket(0), key(0), Wish::PLAIN, Mode::Try, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    for number in 1..9 {
        ledger.request(ticket(number), key(number.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    ledger.release(outcomes.granted[0].1, &mut outcomes);
    assert!(matches!(ledger.next(ROWS_MAX), Some(Next::One(op)) if op.kind == OpKind::Release));
    ledger.pop_op();
    assert!(matches!(ledger.next(ROWS_MAX), Some(Next::Several(Run::TryLock, 8))));
}

/// Else each turn would put it in order, to send one or two.
#[test]
fn a_long_queue_waits_for_room_for_several() {
    let (mut ledger, _) = alternating(5);
    assert!((0..4).all(|room| ledger.next(room).is_none()));
    assert!(matches!(ledger.next(4), Some(Next::Several(Run::Release, 4))));
}

#[test]
fn of_a_few_each_release_goes_with_the_try_behind_it() {
    let (mut ledger, _) = alternating(3);
    for number in 0..3 {
        match ledger.next(ROWS_MAX) {
            Some(Next::Swap(swap, ops)) => {
                assert_eq!(swap, Swap { release: number, try_lock: 3 + number });
                assert_eq!(ops.map(|op| op.kind), [OpKind::Release, OpKind::Try]);
                (0..2).for_each(|_| ledger.pop_op());
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ledger.next(ROWS_MAX).is_none());
}

/// Each has a text of its own, or is not for a `bigint`.
#[test]
fn a_try_of_another_kind_is_sent_alone_and_so_is_the_release_before_it() {
    let (slot, shared) = (Want::Slot(2), Want::Shared);
    let plain = Wish::PLAIN;
    for (key, wish) in [
        (key(1), Wish { want: slot, ..plain }),
        (key(1), Wish { want: shared, ..plain }),
        (key(1), Wish { fenced: true, ..plain }),
        (Key::Pair(1, 1), plain),
    ] {
        let (mut ledger, mut outcomes) = (Ledger::new(MANY, 1), Outcomes::default());
        ledger.online(&mut outcomes);
        ledger.request(ticket(0), Key::Bigint(0), plain, Mode::Try, &mut outcomes);
        answer(&mut ledger, &mut outcomes, true);
        ledger.release(outcomes.granted[0].1, &mut outcomes);
        ledger.request(ticket(1), key, wish, Mode::Try, &mut outcomes);
        for _ in 0..2 {
            assert!(matches!(ledger.next(ROWS_MAX), Some(Next::One(_))), "{key} {wish:?}");
            ledger.pop_op();
        }
        assert!(ledger.next(ROWS_MAX).is_none());
    }
}

#[test]
fn tries_are_sent_one_by_one_as_long_as_something_stands_between() {
    let (mut ledger, mut outcomes) = (Ledger::new(MANY, 1), Outcomes::default());
    ledger.online(&mut outcomes);
    // A try for a slot keeps those behind it from getting before it.
    let slot = Wish { want: Want::Slot(2), fenced: false };
    for (number, wish) in [(10, Wish::PLAIN), (11, slot), (12, Wish::PLAIN), (13, Wish::PLAIN)] {
        ledger.request(ticket(number), key(number.into()), wish, Mode::Try, &mut outcomes);
    }
    let mut keys = Vec::new();
    while let Some(next) = ledger.next(ROWS_MAX) {
        assert!(matches!(next, Next::One(..)), "{next:?}");
        keys.push(sent(&mut ledger).1);
    }
    assert!(matches!(keys[1], Statement::TakeSlot(_)), "{keys:?}");
}

#[test]
fn a_key_that_is_let_go_and_asked_for_again_is_released_first() {
    let (mut ledger, mut outcomes) = (Ledger::new(MANY, 1), Outcomes::default());
    ledger.online(&mut outcomes);
    for number in 0..8 {
        let (ticket, wish) = (ticket(number), Wish::PLAIN);
        ledger.request(ticket, key(number.into()), wish, Mode::Try, &mut outcomes);
    }
    let tries = runs(&mut ledger);
    assert_eq!(tries, [(Run::TryLock, (0..8).collect())]);
    for op in 0..8 {
        let entry = ledger.index.find(&ledger.entries, key(op), false).expect("it is held");
        let op = Op::new(OpKind::Try, entry);
        ledger.answered(op, Value::Yes, &mut outcomes).expect("it agrees");
    }
    for number in 0..8 {
        ledger.release(outcomes.granted[number as usize].1, &mut outcomes);
        let ticket = Ticket { slot: number, generation: 2 };
        ledger.request(ticket, key(number.into()), Wish::PLAIN, Mode::Try, &mut outcomes);
    }
    let keys: Vec<i64> = (0..8).collect();
    assert_eq!(runs(&mut ledger), [(Run::Release, keys.clone()), (Run::TryLock, keys)]);
}
