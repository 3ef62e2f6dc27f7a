//! Whose turn it is among those who are notified together: who has waited for longer comes first,
//! and nobody waits for others where there are none.

use std::collections::VecDeque;

use super::server::{Asked, Message, Server};
use super::*;
use crate::proto::frontend::KeyParameters;

/// Notified by each of these sessions, and refused each time.
fn lose(ledger: &mut Ledger, outcomes: &mut Outcomes, notifiers: impl IntoIterator<Item = i32>) {
    for notifier in notifiers {
        ledger.notified(key(7), notifier, outcomes);
        lose_quietly(ledger, outcomes);
    }
}

/// Refused, after its pause.
fn lose_quietly(ledger: &mut Ledger, outcomes: &mut Outcomes) {
    if ledger.peek_op().is_none() {
        let due = ledger.entries[0].retry_at.expect("it cools");
        ledger.tick(due);
        ledger.retry(outcomes);
    }
    answer(ledger, outcomes, false);
}

fn after(ledger: &mut Ledger, span: Duration) {
    let now = ledger.now.after(span);
    ledger.tick(now);
}

/// Waits anew for key 7, which it has had meanwhile and which has been released by so many others.
fn newcomer(others: i32) -> (Ledger, Outcomes) {
    let (mut ledger, mut outcomes) = waiting();
    lose(&mut ledger, &mut outcomes, (0..others).chain(0..others - 1));
    ledger.notified(key(7), others - 1, &mut outcomes);
    answer(&mut ledger, &mut outcomes, true);
    let hold = outcomes.granted[0].1;
    ledger.release(hold, &mut outcomes);
    while ledger.peek_op().is_some_and(|(op, _)| op.kind != OpKind::Release) {
        answer(&mut ledger, &mut outcomes, true);
    }
    answer(&mut ledger, &mut outcomes, Value::Told);
    ledger.request(ticket(1), key(7), Wish::PLAIN, Mode::Wait, &mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Enlist);
    assert_eq!(ledger.peek_op(), None);
    (ledger, outcomes)
}

/// How long it waits for others, if at all.
fn pause(ledger: &Ledger) -> Duration {
    match ledger.peek_op() {
        Some(_) => Duration::ZERO,
        None => ledger.entries[0].retry_at.expect("it cools").since(ledger.now),
    }
}

#[test]
fn a_lone_waiter_never_pauses() {
    let (mut ledger, mut outcomes) = newcomer(1);
    for _ in 0..200 {
        ledger.notified(key(7), 0, &mut outcomes);
        assert_eq!(pause(&ledger), Duration::ZERO);
        answer(&mut ledger, &mut outcomes, false);
    }
}

/// All of them are in use by turns, and each release frees one.
#[test]
fn a_lone_waiter_for_one_of_many_slots_never_pauses() {
    let wish = Wish { want: Want::Slot(4), fenced: false };
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(1 << 10), wish, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, Value::No);
    answer(&mut ledger, &mut outcomes, Value::Done);
    answer(&mut ledger, &mut outcomes, Value::No);
    let first = ledger.entries[0].key();
    for notifier in (0..4).cycle().take(40) {
        ledger.entries[0].heard = 0;
        ledger.notified(first, notifier, &mut outcomes);
        assert_eq!(pause(&ledger), Duration::ZERO);
        answer(&mut ledger, &mut outcomes, Value::No);
    }
}

/// One-shot processes would seem to be a crowd, and make a lasting one wait for each of them.
#[test]
fn those_who_come_once_are_not_waited_for() {
    let (mut ledger, mut outcomes) = newcomer(1);
    for notifier in 100..300 {
        ledger.entries[0].heard = 0;
        ledger.notified(key(7), notifier, &mut outcomes);
        assert_eq!(pause(&ledger), Duration::ZERO);
        answer(&mut ledger, &mut outcomes, false);
    }
}

#[test]
fn who_is_passed_over_again_and_again_tries_once_more_between_two_releases() {
    let (mut ledger, mut outcomes) = newcomer(2);
    let mut more = 0;
    for heard in 1..=20 {
        after(&mut ledger, Duration::from_millis(2));
        ledger.notified(key(7), heard % 2, &mut outcomes);
        lose_quietly(&mut ledger, &mut outcomes);
        let pause = pause(&ledger);
        if pause > Duration::from_millis(2) && heard <= 6 {
            assert!(pause >= Duration::from_millis(500), "{heard}: {pause:?}");
            continue;
        }
        assert!(heard > 6, "{heard}");
        assert!(pause <= ledger.rivals.interval(key(7)), "before the next one, about");
        lose_quietly(&mut ledger, &mut outcomes);
        assert!(self::pause(&ledger) >= Duration::from_millis(500), "once");
        more += 1;
    }
    assert_eq!(more, 14);
}

/// When many begin to wait together, few are known to come back, and all would press.
#[test]
fn nobody_presses_before_all_others_have_had_their_first_turn() {
    let (mut ledger, mut outcomes) = newcomer(2);
    for notifier in 100..150 {
        after(&mut ledger, Duration::from_millis(2));
        ledger.notified(key(7), notifier, &mut outcomes);
        lose_quietly(&mut ledger, &mut outcomes);
        assert!(pause(&ledger) >= Duration::from_millis(500), "{notifier}: {:?}", pause(&ledger));
    }
}

#[test]
fn of_those_who_are_notified_the_ones_that_have_waited_for_longest_try_at_once() {
    let (mut ledger, mut outcomes) = newcomer(20);
    for heard in 1..16 {
        ledger.notified(key(7), heard, &mut outcomes);
        assert!(pause(&ledger) > Duration::ZERO, "{} are before it", 20 - heard);
    }
    for heard in 16..30 {
        ledger.notified(key(7), heard % 20, &mut outcomes);
        assert_eq!(pause(&ledger), Duration::ZERO, "it is among the first four, and stays there");
        answer(&mut ledger, &mut outcomes, false);
    }
}

#[test]
fn in_a_small_crowd_nobody_pauses() {
    let (mut ledger, mut outcomes) = newcomer(8);
    ledger.notified(key(7), 1, &mut outcomes);
    assert_eq!(pause(&ledger), Duration::ZERO);
}

#[test]
fn who_has_let_go_and_is_notified_waits_for_the_others_as_everybody_does() {
    let (mut ledger, mut outcomes) = newcomer(20);
    let yields = pause(&ledger);
    assert!(yields >= Duration::from_millis(2), "{yields:?}");
    ledger.notified(key(7), 1, &mut outcomes);
    assert!(pause(&ledger) > Duration::ZERO);
    let due = ledger.entries[0].retry_at.expect("it cools");
    ledger.tick(due);
    ledger.retry(&mut outcomes);
    assert_eq!(answer(&mut ledger, &mut outcomes, true), OpKind::Retry, "none of them came");
    assert_eq!(outcomes.granted.len(), 2);
}

#[test]
fn a_pause_is_short() {
    for notifier in 0..60 {
        let (mut ledger, mut outcomes) = newcomer(60);
        after(&mut ledger, Duration::from_secs(1));
        ledger.notified(key(7), notifier, &mut outcomes);
        let pause = pause(&ledger);
        assert!(pause <= Duration::from_millis(5), "{pause:?}");
    }
}

#[test]
fn sharers_do_not_wait_for_one_another() {
    let shared = Wish { want: Want::Shared, fenced: false };
    let (mut ledger, mut outcomes) = ledger();
    ledger.request(ticket(0), key(7), shared, Mode::Wait, &mut outcomes);
    answer(&mut ledger, &mut outcomes, false);
    answer(&mut ledger, &mut outcomes, Value::Done);
    answer(&mut ledger, &mut outcomes, Value::Waits);
    for notifier in (0..20).chain(0..20) {
        ledger.rivals.heard(key(7), notifier, ledger.now);
    }
    ledger.notified(key(7), 1, &mut outcomes);
    assert_eq!(pause(&ledger), Duration::ZERO);
}

#[test]
fn a_pause_never_puts_a_try_off_for_longer_than_the_poll() {
    let (mut ledger, mut outcomes) = newcomer(40);
    let poll_at = ledger.now.after(Duration::from_micros(5));
    ledger.cool(0, poll_at, poll_at);
    ledger.notified(key(7), 1, &mut outcomes);
    assert_eq!(ledger.entries[0].retry_at, Some(poll_at));
}

#[test]
fn those_who_take_turns_are_counted_and_those_who_have_gone_are_soon_forgotten() {
    let (mut ledger, ..) = ledger();
    let heard = |ledger: &mut Ledger, notifier| {
        ledger.rivals.heard(key(7), notifier, Time::ZERO);
        ledger.rivals.crowd(key(7))
    };
    assert_eq!(ledger.rivals.crowd(key(7)), 0);
    for notifier in 0..49 {
        assert_eq!(heard(&mut ledger, notifier), 0, "nobody has come back");
    }
    for notifier in 0..49 {
        assert_eq!(heard(&mut ledger, notifier), notifier as u32 + 1);
    }
    for notifier in 0..49 {
        assert_eq!(heard(&mut ledger, notifier), 49);
    }
    let counts: Vec<u32> = (0..30).map(|n| heard(&mut ledger, n % 2)).collect();
    assert_eq!(counts[29], 2, "{counts:?}");
    let counts: Vec<u32> = (0..120).map(|n| heard(&mut ledger, n % 20)).collect();
    assert_eq!(counts[119], 20, "{counts:?}");
}

#[test]
fn a_release_that_finds_nobody_forgets_who_took_turns() {
    let (mut ledger, ..) = ledger();
    for notifier in (0..5).chain(0..5) {
        ledger.rivals.heard(key(7), notifier, Time::ZERO);
    }
    assert_eq!(ledger.rivals.crowd(key(7)), 5);
    ledger.rivals.quiet(key(7));
    assert_eq!(ledger.rivals.crowd(key(7)), 0);
}

// ----- all together -----

/// Processes that all want one key, each as soon as it has let go of it. Those further behind hear
/// of each release later, always in the same order.
struct Race {
    server: Server,
    racers: Vec<Racer>,
    now: Time,
    /// Who has the key, and until when.
    holder: Option<(usize, HoldId, Time)>,
    /// Grants, in their order.
    order: Vec<usize>,
    tries: usize,
    /// Notifications that went out, to all of them.
    told: usize,
    /// So many of them ask again, as soon as they have let go.
    stay: usize,
}

struct Racer {
    ledger: Ledger,
    outcomes: Outcomes,
    heard: VecDeque<(Time, i32)>,
    generation: u32,
}

const HOLD: Duration = Duration::from_millis(1);
/// Until the first process hears of a release.
const FIRST: Duration = Duration::from_micros(200);
/// Between one process that hears of a release and the next one.
const BEHIND: Duration = Duration::from_micros(10);

impl Race {
    fn new(racers: usize, seed: u64) -> Self {
        let racer = |n| {
            let mut ledger = Ledger::new(LIMITS, seed.wrapping_add(n as u64));
            let mut outcomes = Outcomes::default();
            ledger.online(&mut outcomes);
            Racer { ledger, outcomes, heard: VecDeque::new(), generation: 0 }
        };
        Self {
            server: Server::new(racers),
            racers: (0..racers).map(racer).collect(),
            now: Time::ZERO.after(Duration::from_secs(1)),
            holder: None,
            order: Vec::new(),
            tries: 0,
            told: 0,
            stay: racers,
        }
    }

    fn ask(&mut self, racer: usize) {
        let Racer { ledger, outcomes, generation, .. } = &mut self.racers[racer];
        *generation += 1;
        let ticket = Ticket { slot: 0, generation: *generation };
        ledger.tick(self.now);
        ledger.request(ticket, key(7), Wish::PLAIN, Mode::Wait, outcomes);
        self.talk(racer);
    }

    /// All that one has to say to the server, and what that answers.
    fn talk(&mut self, racer: usize) {
        loop {
            let ledger = &mut self.racers[racer].ledger;
            while let Some((op, statement)) = ledger.peek_op() {
                ledger.pop_op();
                self.tries += usize::from(op.kind.is_try());
                let asked = &mut self.server.sessions[racer].asked;
                asked.extend([Asked::One(op.to_number(), statement), Asked::Sync]);
            }
            if self.server.sessions[racer].asked.is_empty() {
                break;
            }
            while self.server.step(racer, None) {}
            self.hear();
            let Racer { ledger, outcomes, .. } = &mut self.racers[racer];
            let said = std::mem::take(&mut self.server.sessions[racer].said);
            for message in said {
                match message {
                    Message::Answer(number, value) => {
                        let op = Op::from_number(number);
                        ledger.answered(op, value, outcomes).expect("they agree");
                    }
                    Message::Synced => ledger.synced(),
                    other => panic!("{other:?}"),
                }
            }
            if let Some((_, hold, _)) = outcomes.granted.pop() {
                assert!(self.holder.is_none(), "one at a time");
                self.holder = Some((racer, hold, self.now.after(HOLD)));
                self.order.push(racer);
            }
        }
    }

    /// Notifications are on their way.
    fn hear(&mut self) {
        for (n, racer) in self.racers.iter_mut().enumerate() {
            let at = self.now.after(FIRST + BEHIND * n as u32);
            self.server.sessions[n].said.retain(|message| match message {
                Message::Notified(by, KeyParameters::Bigint(7)) => {
                    racer.heard.push_back((at, *by));
                    self.told += 1;
                    false
                }
                _ => true,
            });
        }
    }

    fn step(&mut self) {
        let ends = self.holder.map(|(.., until)| until);
        let heard = self.racers.iter().filter_map(|racer| Some(racer.heard.front()?.0));
        let tries = self.racers.iter().map(|racer| racer.ledger.next_retry());
        self.now = heard.chain(tries).chain(ends).min().expect("there are racers").max(self.now);
        if let Some((racer, hold, _)) = self.holder.take_if(|(.., until)| *until <= self.now) {
            let Racer { ledger, outcomes, .. } = &mut self.racers[racer];
            ledger.tick(self.now);
            ledger.release(hold, outcomes);
            self.talk(racer);
            if racer < self.stay {
                self.ask(racer);
            }
        }
        for n in 0..self.racers.len() {
            let Racer { ledger, outcomes, heard, .. } = &mut self.racers[n];
            ledger.tick(self.now);
            while let Some((_, by)) = heard.pop_front_if(|(at, _)| *at <= self.now) {
                ledger.notified(key(7), by, outcomes);
            }
            if ledger.next_retry() <= self.now {
                ledger.retry(outcomes);
            }
            self.talk(n);
        }
    }

    fn run(&mut self, grants: usize) {
        for racer in 0..self.racers.len() {
            self.ask(racer);
        }
        while self.order.len() < grants {
            self.step();
        }
    }
}

/// In a small crowd nobody pauses, and who always hears last has to press.
#[test]
fn nobody_starves_where_all_hear_in_the_same_order_each_time() {
    for (racers, seed) in [(3, 1), (8, 2), (20, 3), (50, 4)] {
        let mut race = Race::new(racers, seed);
        // The first rounds show who there is.
        race.run(racers * 4);
        race.order.clear();
        (race.tries, race.told) = (0, 0);
        let grants = racers * 40;
        while race.order.len() < grants {
            race.step();
        }
        let count = |who| race.order.iter().filter(|grant| **grant == who).count();
        let counts: Vec<usize> = (0..racers).map(count).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        let ratio = if racers < 10 { 20 } else { 3 };
        assert!(*most <= ratio * least, "of {racers}: {counts:?}");
        // As many as there are processes would try if each notification led to a try.
        let each = race.tries / grants;
        assert!(racers < 50 || each <= racers / 3, "{each} tries for each grant, of {racers}");
        // And as many as there are others would be notified if all listened all the time.
        let each = race.told / grants;
        assert!(racers < 50 || each <= racers / 2, "{each} told for each grant, of {racers}");
    }
}

/// Those who rest do not hear that the others have gone. They would rest for too long, each time.
/// Until they have forgotten them, how fast two are is a matter of chance: the median of several.
#[test]
fn those_who_are_left_of_a_large_crowd_soon_have_the_key_as_fast_as_few() {
    for stay in [1, 2, 3, 10, 20] {
        let mut laters: Vec<Duration> = (0..15).map(|seed| left_of_fifty(stay, seed)).collect();
        laters.sort_unstable();
        assert!(laters[7] < Duration::from_millis(230), "{stay}: {laters:?}");
    }
}

/// How long a hundred turns take those who are left, after their first ones.
fn left_of_fifty(stay: usize, seed: u64) -> Duration {
    let mut race = Race::new(50, seed);
    race.run(50 * 8);
    race.stay = stay;
    let left = |race: &mut Race, grants| {
        race.order.clear();
        let begin = race.now;
        while race.order.len() < grants {
            race.step();
        }
        race.now.since(begin)
    };
    let first = left(&mut race, 50 + 10 * stay);
    assert!(first < Duration::from_millis(600), "{stay}: {first:?}");
    left(&mut race, 100)
}
