//! What goes between a ledger and the model server, as the session has it.

use super::super::server::{Asked, Failure, Message};
use super::super::{sent, *};
use super::{Peer, World};

impl World {
    /// Sends some of the outbox as one batch; what shares its Sync with nothing goes alone.
    pub(super) fn send(&mut self, peer: usize) {
        let count = 1 + self.pick(4);
        let asked = &mut self.server.sessions[peer].asked;
        let ledger = &mut self.peers[peer].ledger;
        let before = asked.len();
        if ledger.is_recovering() {
            return;
        }
        while asked.len() < before + count {
            let is_alone = ledger.peek_op().is_some_and(|(_, statement)| statement.is_alone());
            if is_alone && asked.len() > before {
                break;
            }
            let Some(next) = ledger.next(ROWS_MAX) else { break };
            let mut taken = || {
                let (op, statement) = sent(ledger);
                (op.to_number(), statement)
            };
            match next {
                Next::Swap(..) => asked.push_back(Asked::Swap([taken(), taken()])),
                Next::One(..) => {
                    let (number, statement) = taken();
                    asked.push_back(Asked::One(number, statement));
                }
                // They have the outcome of so many, one by one.
                Next::Several(_, several) => {
                    let rows = (0..several).map(|_| taken());
                    asked.extend(rows.map(|(number, statement)| Asked::One(number, statement)));
                }
            }
            if is_alone {
                break;
            }
        }
        if asked.len() > before {
            asked.push_back(Asked::Sync);
        }
    }

    /// The server runs one lock call. Now and then the statement fails there.
    pub(super) fn serve(&mut self, peer: usize) -> bool {
        let own = &self.server.sessions[peer];
        let is_swap = matches!(own.asked.front(), Some(Asked::Swap(_)));
        let may_fail = own.running().is_some_and(|(number, _)| {
            let kind = Op::from_number(number).kind;
            kind.is_try() || kind == OpKind::Inquire
        });
        let mut fails = None;
        // There are not many swaps, and there is much to go wrong with one.
        if self.fails && may_fail && self.pick(if is_swap { 3 } else { 20 }) == 0 {
            fails = Some([Failure::Before, Failure::After][self.pick(2)]);
        }
        let may_fail =
            (self.runs_out || self.fails && is_swap) && self.server.is_before_its_look(peer);
        if may_fail && self.pick(8) == 0 {
            fails = Some([Failure::AtBind, Failure::Before][self.pick(2)]);
        }
        self.server.step(peer, fails)
    }

    pub(super) fn deliver(&mut self, peer: usize) -> bool {
        let Some(message) = self.server.sessions[peer].said.pop_front() else { return false };
        self.peers[peer].ledger.tick(self.now);
        match message {
            Message::Both(both) => {
                self.failed_swaps += u32::from(matches!(both[0], Message::Failed(_)));
                for message in *both {
                    self.peers[peer].take(message);
                }
            }
            message => self.peers[peer].take(message),
        }
        true
    }
}

impl Peer {
    fn take(&mut self, message: Message) {
        let Self { ledger, outcomes, .. } = self;
        match message {
            Message::Answer(number, value) => {
                let op = Op::from_number(number);
                let agreed = match op.kind {
                    OpKind::Inquire => {
                        let nobody = Listing { holders: 0, waiters: 0, entries: Vec::new() };
                        ledger.inquiry_answered(op, Box::new(nobody), outcomes)
                    }
                    _ => ledger.answered(op, value, outcomes),
                };
                agreed.expect("model and ledger agree");
            }
            Message::Failed(number) => self.fail(number, *b"57014"),
            Message::Denied(number) => self.fail(number, *b"42501"),
            Message::Skipped(number) => ledger.skipped(Op::from_number(number)),
            Message::Synced => ledger.synced(),
            Message::Notified(by, KeyParameters::Bigint(key)) => {
                ledger.notified(Key::Bigint(key), by, outcomes);
            }
            Message::Notified(by, KeyParameters::Pair(high, low)) => {
                ledger.notified(Key::Pair(high, low), by, outcomes);
            }
            Message::Both(_) => unreachable!("one by one"),
        }
    }

    fn fail(&mut self, number: u64, sqlstate: [u8; 5]) {
        let sqlstate = crate::error::SqlState::new(sqlstate);
        let error = Error::Server { sqlstate, message: "it failed".into() };
        let op = Op::from_number(number);
        self.ledger.failed(op, error, &mut self.outcomes).expect("it may fail");
    }
}
