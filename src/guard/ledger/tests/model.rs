//! Random lives of several ledgers, each with its own session at one model server, whose statements
//! interleave lock call by lock call.

use std::collections::HashMap;

use super::server::{Asked, Server};
use super::*;
use crate::proto::companion;
use crate::proto::frontend::KeyParameters;

mod session;

const PEERS: usize = 3;
const KEYS: u64 = 3;

/// How a holder believes to hold.
#[derive(Debug, Clone, Copy)]
struct Belief {
    peer: usize,
    hold: HoldId,
    key: Key,
    want: Want,
}

struct Peer {
    ledger: Ledger,
    outcomes: Outcomes,
    /// Requests whose outcome is not there yet.
    open: Vec<(Ticket, Key, Wish)>,
    free: Vec<u32>,
    generation: u32,
}

struct World {
    server: Server,
    peers: Vec<Peer>,
    beliefs: Vec<Belief>,
    tokens: HashMap<Key, Token>,
    jitter: Jitter,
    now: Time,
    /// Whether statements fail.
    fails: bool,
    /// Whether the server runs out of memory, so that nobody knows what a release has done.
    runs_out: bool,
    /// Whether callers also ask who holds a key.
    inquires: bool,
    /// Whether waiters rest, for many others that they believe in. And the steps while one did.
    crowded: bool,
    rests: u32,
    /// Whether those who let go of a key are taken to come back to it. And the steps while one
    /// stayed registered for that.
    comes_back: bool,
    stays: u32,
    grants: u32,
    /// How many swaps have failed when they had begun.
    failed_swaps: u32,
}

impl World {
    fn new(seed: u64, fails: bool) -> Self {
        let peers = (0..PEERS).map(|_| {
            let (ledger, outcomes) = ledger();
            let free = (0..LIMITS.requests).collect();
            Peer { ledger, outcomes, open: Vec::new(), free, generation: 0 }
        });
        Self {
            server: Server::new(PEERS),
            peers: peers.collect(),
            beliefs: Vec::new(),
            tokens: HashMap::new(),
            jitter: Jitter::new(seed),
            now: Time::ZERO.after(Duration::from_secs(1)),
            fails,
            runs_out: false,
            inquires: false,
            crowded: seed % 3 == 0,
            rests: 0,
            comes_back: seed % 4 == 1,
            stays: 0,
            grants: 0,
            failed_swaps: 0,
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        (self.jitter.next() % count as u64) as usize
    }

    fn step(&mut self, kills: bool) {
        let peer = self.pick(PEERS);
        if self.comes_back && self.pick(3) == 0 {
            self.come_back(peer);
        }
        match self.pick(40) {
            0..=5 => self.ask(peer),
            6..=9 => self.let_go(peer),
            10 => self.leave(peer),
            11..=22 => {
                self.serve(peer);
            }
            23..=35 => {
                self.deliver(peer);
            }
            36 => self.pass(Duration::from_millis(1)),
            38 if self.inquires => self.inquire(peer),
            39 if self.crowded => rests::meet_many(&mut self.peers[peer].ledger, key(1), 20),
            37 if kills && self.pick(20) == 0 => self.lose(peer),
            _ => self.send(peer),
        }
        self.rests += u32::from(self.peers[peer].ledger.rests());
        self.stays += u32::from((0..8).any(|entry| self.peers[peer].ledger.stays(entry)));
        self.settle(peer);
    }

    fn come_back(&mut self, peer: usize) {
        for number in 0..KEYS {
            let rivals = &mut self.peers[peer].ledger.rivals;
            rivals.told(key(number as i64), self.now);
            rivals.comes_back(key(number as i64), true);
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
        for peer in 0..PEERS {
            let Peer { ledger, outcomes, .. } = &mut self.peers[peer];
            ledger.tick(self.now);
            if self.now >= ledger.next_retry() {
                ledger.retry(outcomes);
            }
            self.settle(peer);
        }
    }

    fn ask(&mut self, peer: usize) {
        let key = key((self.jitter.next() % KEYS) as i64);
        let want = match self.pick(6) {
            0 | 1 => Want::Shared,
            2 => Want::Slot(2),
            _ => Want::Exclusive,
        };
        let wish = Wish { want, fenced: want == Want::Exclusive && self.pick(4) == 0 };
        let mode = if self.pick(3) == 0 { Mode::Try } else { Mode::Wait };
        let now = self.now;
        let Some(ticket) = self.ticket(peer) else { return };
        let Peer { ledger, outcomes, open, .. } = &mut self.peers[peer];
        open.push((ticket, key, wish));
        ledger.tick(now);
        ledger.request(ticket, key, wish, mode, outcomes);
    }

    fn inquire(&mut self, peer: usize) {
        let key = key((self.jitter.next() % KEYS) as i64);
        let Some(ticket) = self.ticket(peer) else { return };
        let Peer { ledger, outcomes, open, .. } = &mut self.peers[peer];
        open.push((ticket, key, Wish::PLAIN));
        ledger.tick(self.now);
        ledger.inquire(ticket, key, outcomes);
    }

    fn ticket(&mut self, peer: usize) -> Option<Ticket> {
        let peer = &mut self.peers[peer];
        let slot = peer.free.pop()?;
        peer.generation += 1;
        Some(Ticket { slot, generation: peer.generation })
    }

    fn let_go(&mut self, peer: usize) {
        let own: Vec<usize> =
            (0..self.beliefs.len()).filter(|index| self.beliefs[*index].peer == peer).collect();
        if own.is_empty() {
            return;
        }
        let at = own[self.pick(own.len())];
        let how = self.pick(8);
        let ticket = if how < 4 { self.ticket(peer) } else { None };
        let belief = self.beliefs[at];
        let Peer { ledger, outcomes, open, .. } = &mut self.peers[peer];
        ledger.tick(self.now);
        if let Some(ticket) = ticket {
            open.push((ticket, belief.key, Wish::PLAIN));
            if how == 0 && belief.want == Want::Exclusive {
                self.beliefs[at].want = Want::Shared;
                return ledger.downgrade(ticket, belief.hold, outcomes);
            }
            self.beliefs.swap_remove(at);
            assert!(ledger.release_and_tell(ticket, belief.hold, outcomes), "it was held");
        } else {
            self.beliefs.swap_remove(at);
            assert!(ledger.release(belief.hold, outcomes), "it was held");
        }
        assert!(!ledger.release(belief.hold, outcomes), "only once (I8)");
    }

    fn leave(&mut self, peer: usize) {
        let count = self.peers[peer].open.len();
        if count == 0 {
            return;
        }
        let at = self.pick(count);
        let Peer { ledger, outcomes, open, free, .. } = &mut self.peers[peer];
        let (ticket, ..) = open.swap_remove(at);
        ledger.tick(self.now);
        if ledger.abandon(ticket, outcomes) {
            free.push(ticket.slot);
        } else {
            outcomes.gone.push(ticket);
        }
    }

    fn lose(&mut self, peer: usize) {
        self.server.kill(peer);
        self.beliefs.retain(|belief| belief.peer != peer);
        let Peer { ledger, outcomes, .. } = &mut self.peers[peer];
        ledger.tick(self.now);
        ledger.offline(Cause::ConnectionLost, outcomes);
        outcomes.lost.clear();
        self.settle(peer);
        assert!(self.peers[peer].open.is_empty(), "every request ends");
        let Peer { ledger, outcomes, .. } = &mut self.peers[peer];
        ledger.online(outcomes);
    }

    /// Takes in what a ledger has decided, and checks the invariants.
    fn settle(&mut self, peer: usize) {
        let outcomes = std::mem::take(&mut self.peers[peer].outcomes);
        for (ticket, hold, terms) in outcomes.granted {
            let (key, wish) = self.conclude(peer, ticket);
            let belief = Belief { peer, hold, key, want: wish.want };
            self.check_exclusion(belief);
            self.beliefs.push(belief);
            self.grants += 1;
            assert_eq!(terms.token.is_some(), wish.fenced, "a token for who asked for one");
            if let Some(token) = terms.token {
                let former = self.tokens.insert(key, token);
                assert!(former.is_none_or(|former| former < token), "tokens grow");
            }
        }
        for ticket in outcomes.refused.into_iter().chain(outcomes.done) {
            self.conclude(peer, ticket);
        }
        for (ticket, _) in outcomes.listed {
            self.conclude(peer, ticket);
        }
        for (ticket, _) in outcomes.failed {
            self.conclude(peer, ticket);
        }
        let state = &mut self.peers[peer];
        state.outcomes.gone = outcomes.gone;
        for ticket in outcomes.forgotten {
            let at = state.outcomes.gone.iter().position(|gone| *gone == ticket);
            state.outcomes.gone.swap_remove(at.expect("it had gone"));
            state.free.push(ticket.slot);
        }
        self.check_counts(peer);
    }

    fn check_exclusion(&self, new: Belief) {
        let same = self.beliefs.iter().filter(|old| {
            let is_counted = |want| matches!(want, Want::Slot(_));
            old.key == new.key && is_counted(old.want) == is_counted(new.want)
        });
        let others = same.clone().count();
        match new.want {
            Want::Exclusive => assert_eq!(others, 0, "alone, it has been told"),
            Want::Shared => {
                let alone = same.filter(|old| old.want == Want::Exclusive).count();
                assert_eq!(alone, 0, "nobody has it alone");
            }
            Want::Slot(count) => assert!(others < usize::from(count), "so many and no more"),
        }
    }

    fn check_counts(&self, peer: usize) {
        let Peer { ledger, open, free, outcomes, .. } = &self.peers[peer];
        let known = open.iter().map(|(ticket, ..)| *ticket).chain(outcomes.gone.clone());
        let active = known.filter(|ticket| ledger.is_active(*ticket)).count();
        assert_eq!(ledger.active() as usize, active);
        for (number, _) in self.server.sessions[peer].asked.iter().flat_map(Asked::halves) {
            if let Some(slot) = ledger.slot_of(Op::from_number(number)) {
                assert!(!free.contains(&slot), "slot {slot} is in use");
            }
        }
    }

    fn conclude(&mut self, peer: usize, ticket: Ticket) -> (Key, Wish) {
        let peer = &mut self.peers[peer];
        let at = peer.open.iter().position(|(open, ..)| *open == ticket);
        peer.free.push(ticket.slot);
        let (_, key, wish) = peer.open.swap_remove(at.expect("each request ends once"));
        (key, wish)
    }

    /// Lets everything run that does not take a poll.
    fn come_to_rest(&mut self) {
        loop {
            let mut moved = false;
            for peer in 0..PEERS {
                self.send(peer);
                while self.serve(peer) || self.deliver(peer) {
                    self.settle(peer);
                    moved = true;
                }
                moved |= self.peers[peer].ledger.peek_op().is_some();
            }
            if moved {
                continue;
            }
            let due = self.peers.iter().map(|peer| peer.ledger.next_retry()).min();
            let pause = due.expect("there are peers").since(self.now);
            if pause > Duration::from_millis(60) {
                return;
            }
            self.pass(pause);
        }
    }

    /// Who does not want to wait has an answer.
    fn check_no_try_waits(&self) {
        for Peer { ledger, .. } in &self.peers {
            let waits = |request: &&Request| request.entry != NONE && request.mode == Mode::Try;
            assert_eq!(ledger.requests.iter().find(waits).map(|request| request.want), None);
        }
    }

    /// Who is registered waits for what others have, and for nothing else.
    fn check_no_lost_wake_up(&self) {
        for (peer, state) in self.peers.iter().enumerate() {
            for (key, want) in state.ledger.registered() {
                assert!(state.ledger.hears_of(key), "peer {peer} is told of {key:?}");
                let free = |key, shared| self.server.is_free(peer, key, shared);
                let first = match key {
                    Key::Bigint(first) => first,
                    Key::Pair(..) => unreachable!("keys of this test"),
                };
                let key = op::parameters(key);
                let could_have = match want {
                    Want::Exclusive => free(key, false),
                    Want::Shared => free(key, true) && free(companion::gate(key), true),
                    // Its own would be granted to it again, and are left out of what it asks.
                    Want::Slot(count) => (0..i64::from(count)).any(|slot| {
                        let slot = KeyParameters::Bigint(first | slot);
                        free(slot, false) && self.server.holds(peer, slot) == (0, 0)
                    }),
                };
                assert!(!could_have, "peer {peer} waits for {key:?} ({want:?}), which is free");
            }
        }
    }

    /// Everybody leaves and lets go: then nothing is left on either side.
    fn end(&mut self) {
        (self.fails, self.runs_out) = (false, false);
        for _ in 0..100 {
            self.come_to_rest();
            for peer in 0..PEERS {
                while !self.peers[peer].open.is_empty() {
                    self.leave(peer);
                    self.settle(peer);
                }
                while let Some(belief) = self.beliefs.iter().find(|own| own.peer == peer).copied() {
                    self.beliefs.retain(|other| other.hold != belief.hold || other.peer != peer);
                    let Peer { ledger, outcomes, .. } = &mut self.peers[peer];
                    assert!(ledger.release(belief.hold, outcomes), "it was held");
                    self.settle(peer);
                }
            }
        }
        self.come_to_rest();
        for peer in 0..PEERS {
            assert_eq!(self.server.all_of(peer), [], "nothing is left on the server");
            let Peer { ledger, free, .. } = &self.peers[peer];
            assert!(ledger.is_empty() && ledger.held().count() == 0);
            assert_eq!(free.len(), LIMITS.requests as usize, "no slot is lost");
            assert_eq!((ledger.active(), ledger.waiting(), ledger.locks_used), (0, 0, 0));
        }
    }
}

#[test]
fn whatever_callers_and_servers_do_ledgers_and_server_agree() {
    let [mut grants, mut failed_swaps, mut stays] = [0; 3];
    for seed in 0..1_500 {
        let mut world = World::new(seed, seed % 2 == 0);
        world.inquires = seed % 4 < 2;
        world.runs_out = seed % 5 < 2;
        world.server.denied = (seed % 7 == 0).then_some(0);
        for _ in 0..600 {
            world.step(seed % 3 == 0);
        }
        world.end();
        grants += world.grants;
        failed_swaps += world.failed_swaps;
        stays += world.stays;
    }
    let (counts, least) = ([grants, failed_swaps, stays], [20_000, 50, 500]);
    assert!((0..3).all(|n| counts[n] > least[n]), "it was about something: {counts:?}");
}

/// The end of a holder notifies nobody, so this is about worlds in which none ends.
#[test]
fn no_wake_up_is_lost_however_releases_registrations_and_rests_interleave() {
    let [mut rests, mut stays] = [0; 2];
    for seed in 10_000..11_500 {
        let mut world = World::new(seed, seed % 2 == 0);
        world.inquires = seed % 4 < 2;
        world.runs_out = seed % 5 < 2;
        for _ in 0..12 {
            for _ in 0..50 {
                world.step(false);
            }
            world.come_to_rest();
            world.check_no_try_waits();
            world.check_no_lost_wake_up();
            if world.pick(4) == 0 {
                world.pass(Duration::from_secs(6));
            }
        }
        world.end();
        rests += world.rests;
        stays += world.stays;
    }
    assert!(rests > 500 && stays > 20, "it was about something: {rests}, {stays}");
}

/// The locks of a session that ends are gone, and nobody is notified: not of them, nor of what it
/// let go of in a batch that is not through. What others wait for they find by their polls.
#[test]
fn where_sessions_end_at_any_step_the_waiters_of_others_find_the_key_by_their_polls() {
    let mut ends = 0;
    for seed in 20_000..20_800 {
        let mut world = World::new(seed, seed % 2 == 0);
        world.runs_out = seed % 5 < 2;
        for _ in 0..12 {
            let ends_at = world.pick(60);
            for step in 0..50 {
                if step == ends_at {
                    let peer = world.pick(PEERS);
                    world.lose(peer);
                    ends += 1;
                }
                world.step(false);
            }
            world.come_to_rest();
            world.check_no_try_waits();
            if ends_at < 50 {
                // Longer than from one poll to the next.
                world.pass(Duration::from_secs(6));
                world.come_to_rest();
            }
            world.check_no_lost_wake_up();
        }
        world.end();
    }
    assert!(ends > 5_000, "it was about something: {ends}");
}
