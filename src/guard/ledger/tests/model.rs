//! Random lives of a ledger, next to a model of the server's lock table.

use std::collections::HashMap;

use super::*;

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
        let (hold, key) = self.holds.swap_remove(at);
        let told = self.pick(2) == 0;
        if let Some(slot) = told.then(|| self.free.pop()).flatten() {
            self.generation += 1;
            let ticket = Ticket { slot, generation: self.generation };
            self.open.push((ticket, key));
            assert!(self.ledger.release_and_tell(ticket, hold, &mut self.outcomes));
            assert!(self.ledger.is_active(ticket), "its caller may drive");
            return;
        }
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
        for ticket in std::mem::take(&mut self.outcomes.unlocked) {
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
        self.check_counts();
    }

    /// Every request is under way or queued; each statement in flight for one names its slot.
    fn check_counts(&self) {
        let slots: Vec<u32> =
            self.flying.iter().filter_map(|(op, _)| self.ledger.slot_of(*op)).collect();
        let (mut active, mut queued) = (0, 0);
        let known = self.open.iter().map(|(ticket, _)| *ticket).chain(self.outcomes.gone.clone());
        for ticket in known {
            match self.ledger.is_active(ticket) {
                true => active += 1,
                false => queued += 1,
            }
        }
        assert_eq!(self.ledger.active(), active);
        assert!(self.ledger.waiting() >= queued, "who is queued waits");
        assert!(slots.len() <= active as usize);
        for (place, slot) in slots.iter().enumerate() {
            assert!(!slots[..place].contains(slot), "two statements for slot {slot}");
            assert!(!self.free.contains(slot), "slot {slot} is in use");
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
