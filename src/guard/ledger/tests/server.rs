//! A model of the server: its lock table, sessions that run one lock call at a time, and
//! notifications that go out with the commit.

use std::collections::{HashMap, VecDeque};

use crate::proto::companion;
use crate::proto::frontend::KeyParameters;
use crate::proto::statement::{self, Slots, Statement, Value};

/// Who holds a key: sessions, and how often each, exclusively and shared.
#[derive(Default)]
struct Holders {
    exclusive: HashMap<usize, u32>,
    shared: HashMap<usize, u32>,
}

/// What a session asks for. Statements have numbers.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    One(u64, Statement),
    /// A release and a try as one.
    Swap([(u64, Statement); 2]),
    Sync,
}

impl Asked {
    pub(super) fn halves(&self) -> impl Iterator<Item = (u64, Statement)> {
        let halves = match *self {
            Self::One(number, statement) => [Some((number, statement)), None],
            Self::Swap(halves) => halves.map(Some),
            Self::Sync => [None; 2],
        };
        halves.into_iter().flatten()
    }
}

/// Where a statement fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Failure {
    /// Before any of it is run, if it has not begun.
    AtBind,
    /// Before its next lock call.
    Before,
    /// Behind that.
    After,
}

/// What the server says to a session, in order.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Answer(u64, Value),
    Failed(u64),
    /// Failed, since the role may not do that: nothing of it was run.
    Denied(u64),
    Skipped(u64),
    /// Of both halves of a swap.
    Both(Box<[Self; 2]>),
    Synced,
    /// The session that has notified, and what.
    Notified(i32, KeyParameters),
}

#[derive(Default)]
pub(super) struct Server {
    table: HashMap<KeyParameters, Holders>,
    pub(super) sessions: Vec<Session>,
    /// Grows with every token.
    lsn: u64,
    /// The session of a role that may not notify.
    pub(super) denied: Option<usize>,
}

#[derive(Default)]
pub(super) struct Session {
    pub(super) asked: VecDeque<Asked>,
    pub(super) said: VecDeque<Message>,
    /// How far the first statement is.
    step: u16,
    /// What its first half has come to, where that is a swap.
    released: Option<Value>,
    failed: bool,
    channels: Vec<u8>,
    listens: Vec<(u8, bool)>,
    notifies: Vec<KeyParameters>,
}

impl Server {
    pub(super) fn new(sessions: usize) -> Self {
        Self { sessions: (0..sessions).map(|_| Session::default()).collect(), ..Self::default() }
    }

    /// Runs one lock call of a session; the statement fails there if `fails`. Says whether there
    /// was anything to do.
    pub(super) fn step(&mut self, session: usize, fails: Option<Failure>) -> bool {
        let own = &mut self.sessions[session];
        let Some(next) = own.asked.front().copied() else { return false };
        let Some((_, statement)) = own.running() else {
            own.asked.pop_front();
            self.commit(session);
            return true;
        };
        if own.failed {
            own.asked.pop_front();
            own.said.extend(next.halves().map(|(number, _)| Message::Skipped(number)));
            return true;
        }
        let is_begun = own.step > 0 || own.released.is_some();
        if self.denied == Some(session) && !is_begun && takes_permission(&statement) {
            own.fail(Message::Denied, false);
            return true;
        }
        if matches!(fails, Some(Failure::AtBind | Failure::Before)) {
            own.fail(Message::Failed, is_begun || fails == Some(Failure::Before));
            return true;
        }
        let value = self.call(session, &statement);
        if fails == Some(Failure::After) {
            self.sessions[session].fail(Message::Failed, true);
        } else if let Some(value) = value {
            self.sessions[session].end(value);
        }
        true
    }

    /// Whether a session's statement lets go of something, and has not looked for waiters yet.
    pub(super) fn is_before_its_look(&self, session: usize) -> bool {
        let own = &self.sessions[session];
        let running = own.running().filter(|_| own.step < 3);
        running.is_some_and(|(_, statement)| lets_go(&statement))
    }

    /// The session is gone, and with it all its locks.
    pub(super) fn kill(&mut self, session: usize) {
        for holders in self.table.values_mut() {
            holders.exclusive.remove(&session);
            holders.shared.remove(&session);
        }
        self.sessions[session] = Session::default();
    }

    pub(super) fn holds(&self, session: usize, key: KeyParameters) -> (u32, u32) {
        let count = |of: &HashMap<usize, u32>| of.get(&session).copied().unwrap_or(0);
        self.table.get(&key).map_or((0, 0), |of| (count(&of.exclusive), count(&of.shared)))
    }

    /// All that a session holds.
    pub(super) fn all_of(&self, session: usize) -> Vec<KeyParameters> {
        let keys = self.table.keys().copied();
        keys.filter(|key| self.holds(session, *key) != (0, 0)).collect()
    }

    /// Whether a session could have a key.
    pub(super) fn is_free(&self, session: usize, key: KeyParameters, shared: bool) -> bool {
        self.table.get(&key).is_none_or(|holders| {
            let others = |of: &HashMap<usize, u32>| of.keys().any(|other| *other != session);
            !others(&holders.exclusive) && (shared || !others(&holders.shared))
        })
    }

    /// Notifications and LISTEN take effect; after a failure they do not.
    fn commit(&mut self, session: usize) {
        let own = &mut self.sessions[session];
        let failed = std::mem::take(&mut own.failed);
        let (listens, notifies) =
            (std::mem::take(&mut own.listens), std::mem::take(&mut own.notifies));
        if !failed {
            for (channel, listen) in listens {
                own.channels.retain(|other| *other != channel);
                if listen {
                    own.channels.push(channel);
                }
            }
            for key in notifies {
                let channel = companion::channel(key_of_channel(key));
                for (index, other) in self.sessions.iter_mut().enumerate() {
                    // One's own are passed over by the core.
                    if index != session && other.channels.contains(&channel) {
                        other.said.push_back(Message::Notified(session as i32, key));
                    }
                }
            }
        }
        self.sessions[session].said.push_back(Message::Synced);
    }

    fn lock(&mut self, session: usize, key: KeyParameters) -> bool {
        let free = self.is_free(session, key, false);
        if free {
            *self.table.entry(key).or_default().exclusive.entry(session).or_default() += 1;
        }
        free
    }

    fn share(&mut self, session: usize, key: KeyParameters) -> bool {
        let free = self.is_free(session, key, true);
        if free {
            *self.table.entry(key).or_default().shared.entry(session).or_default() += 1;
        }
        free
    }

    fn unlock(&mut self, session: usize, key: KeyParameters) -> bool {
        self.table.get_mut(&key).is_some_and(|holders| less(&mut holders.exclusive, session))
    }

    fn unshare(&mut self, session: usize, key: KeyParameters) -> bool {
        self.table.get_mut(&key).is_some_and(|holders| less(&mut holders.shared, session))
    }

    /// One lock call of a statement; its value once it is through.
    fn call(&mut self, session: usize, statement: &Statement) -> Option<Value> {
        let step = self.sessions[session].step;
        let beside = |key| (companion::waiters(key), companion::gate(key));
        let (done, next) = match (*statement, step) {
            (Statement::TryLock(key), _) => (Some(self.lock(session, key).into()), 0),
            (Statement::Unlock(key), _) => (Some(self.unlock(session, key).into()), 0),
            (Statement::TryLockShared(key), _) => (Some(self.share(session, key).into()), 0),
            (Statement::UnlockShared(key), _) => (Some(self.unshare(session, key).into()), 0),
            (Statement::Share(key), 0) => match self.share(session, beside(key).1) {
                true => (None, 1),
                false => (Some(Value::No), 0),
            },
            (Statement::Share(key), 1) => {
                assert!(self.unshare(session, beside(key).1));
                (None, 2)
            }
            (Statement::Share(key), _) => (Some(self.share(session, key).into()), 0),
            (
                Statement::Register(key) | Statement::RegisterShared(key) | Statement::Retry(key),
                step,
            ) => self.register(session, statement, key, step),
            (Statement::Fence(key), _) => {
                let granted = self.lock(session, key);
                (Some(Value::Token(granted.then(|| self.token()))), 0)
            }
            (Statement::Token, _) => (Some(Value::Token(Some(self.token()))), 0),
            (Statement::Listen(channel), _) => {
                self.sessions[session].listens.push((channel, true));
                (Some(Value::Done), 0)
            }
            (Statement::Unlisten(channel), _) => {
                self.sessions[session].listens.push((channel, false));
                (Some(Value::Done), 0)
            }
            (Statement::Holders(_), _) => (Some(Value::Done), 0),
            (Statement::Wake(key), _) => {
                self.sessions[session].notifies.push(key);
                (Some(Value::Yes), 0)
            }
            (Statement::TakeSlot(slots), step) => self.take(session, &slots, step),
            (Statement::RegisterSlots(slots), 0) => {
                let waiters = beside(KeyParameters::Bigint(slots.first)).0;
                match self.share(session, waiters) {
                    true => (None, 1),
                    false => (Some(Value::Probed), 0),
                }
            }
            (Statement::RegisterSlots(slots), step) => {
                let (done, next) = self.take(session, &slots, step - 1);
                (done, next + 1)
            }
            (Statement::Clear(_) | Statement::ClearShared(_) | Statement::ClearSlots(_), _) => {
                (Some(self.clear(session, statement)), 0)
            }
            (_, step) => self.tell(session, statement, step),
        };
        self.sessions[session].step = next;
        done
    }

    /// The statements of waiters.
    fn register(
        &mut self,
        session: usize,
        statement: &Statement,
        key: KeyParameters,
        step: u16,
    ) -> (Option<Value>, u16) {
        let (waiters, gate) = (companion::waiters(key), companion::gate(key));
        match (statement, step) {
            (Statement::Register(_) | Statement::RegisterShared(_), 0) => {
                match self.share(session, waiters) {
                    true => (None, 1),
                    false => (Some(Value::Probed), 0),
                }
            }
            (Statement::Register(_), 1) | (Statement::Retry(_), 0) => {
                match self.lock(session, key) {
                    true => (Some(Value::Granted), 0),
                    false => (None, 2),
                }
            }
            (Statement::Register(_) | Statement::Retry(_), _) => match self.lock(session, gate) {
                true => (Some(Value::WaitsGated), 0),
                false => (Some(Value::Waits), 0),
            },
            (Statement::RegisterShared(_), 1) => match self.share(session, gate) {
                true => (None, 2),
                false => (Some(Value::Waits), 0),
            },
            (Statement::RegisterShared(_), 2) => {
                assert!(self.unshare(session, gate));
                (None, 3)
            }
            (Statement::RegisterShared(_), _) => match self.share(session, key) {
                true => (Some(Value::Granted), 0),
                false => (Some(Value::Waits), 0),
            },
            (other, _) => panic!("no model of {other:?}"),
        }
    }

    /// The statements that let go and tell who waits.
    fn tell(&mut self, session: usize, statement: &Statement, step: u16) -> (Option<Value>, u16) {
        let (key, owner) = match *statement {
            Statement::ReleaseSlot(first, slot) => {
                let key = KeyParameters::Bigint(first | i64::from(slot));
                (key, KeyParameters::Bigint(first))
            }
            Statement::Release(key)
            | Statement::ReleaseShared(key)
            | Statement::Downgrade(key)
            | Statement::OpenGate(key) => (key, key),
            other => panic!("no model of {other:?}"),
        };
        let waiters = companion::waiters(owner);
        match step {
            0 => {
                assert!(match statement {
                    Statement::ReleaseShared(_) => self.unshare(session, key),
                    Statement::Downgrade(_) => self.share(session, key),
                    Statement::OpenGate(_) => self.unlock(session, companion::gate(key)),
                    _ => self.unlock(session, key),
                });
                (None, 1)
            }
            1 if matches!(statement, Statement::Downgrade(_)) => {
                assert!(self.unlock(session, key));
                (None, 2)
            }
            1 | 2 if self.lock(session, waiters) => (None, 3),
            1 | 2 => {
                self.sessions[session].notifies.push(key);
                (Some(Value::Told), 0)
            }
            _ => {
                assert!(self.unlock(session, waiters));
                (Some(Value::Quiet), 0)
            }
        }
    }

    /// One slot a step.
    fn take(&mut self, session: usize, slots: &Slots, step: u16) -> (Option<Value>, u16) {
        if step >= slots.count {
            return (Some(Value::No), 0);
        }
        let is_held = slots.held[usize::from(step / 8)] >> (step % 8) & 1 == 1;
        let key = KeyParameters::Bigint(slots.first | i64::from(step));
        match !is_held && self.lock(session, key) {
            true => (Some(Value::Slot(step)), 0),
            false => (None, step + 1),
        }
    }

    fn clear(&mut self, session: usize, statement: &Statement) -> Value {
        let mut released = false;
        let owner = match *statement {
            Statement::ClearSlots(slots) => {
                for slot in 0..slots.count {
                    if slots.held[usize::from(slot / 8)] >> (slot % 8) & 1 == 0 {
                        let slot = KeyParameters::Bigint(slots.first | i64::from(slot));
                        released |= self.unlock(session, slot);
                    }
                }
                KeyParameters::Bigint(slots.first)
            }
            Statement::ClearShared(key) => {
                released |= self.unshare(session, key);
                released |= self.unshare(session, companion::gate(key));
                released |= self.unlock(session, companion::gate(key));
                key
            }
            Statement::Clear(key) => {
                released |= self.unlock(session, key);
                released |= self.unlock(session, companion::gate(key));
                key
            }
            other => panic!("no model of {other:?}"),
        };
        released |= self.unshare(session, companion::waiters(owner));
        if released { Value::Told } else { Value::Quiet }
    }

    fn token(&mut self) -> statement::Token {
        self.lsn += 1;
        statement::Token { timeline: 1, lsn: self.lsn }
    }
}

impl Session {
    /// The statement that is first, or the half of it that is.
    pub(super) fn running(&self) -> Option<(u64, Statement)> {
        self.asked.front()?.halves().nth(self.released.is_some().into())
    }

    /// What is running has come to this.
    fn end(&mut self, value: Value) {
        self.step = 0;
        let answer = match (self.asked.front().copied(), self.released.take()) {
            (Some(Asked::One(number, _)), _) => Message::Answer(number, value),
            (Some(Asked::Swap(_)), None) => return self.released = Some(value),
            (Some(Asked::Swap([(released, _), (tried, _)])), Some(former)) => {
                let both = [Message::Answer(released, former), Message::Answer(tried, value)];
                Message::Both(Box::new(both))
            }
            (None | Some(Asked::Sync), _) => panic!("nothing is running"),
        };
        self.asked.pop_front();
        self.said.push_back(answer);
    }

    /// The first statement fails. Of a swap that has begun both may have taken effect, or one.
    fn fail(&mut self, why: fn(u64) -> Message, has_begun: bool) {
        (self.step, self.released, self.failed) = (0, None, true);
        match self.asked.pop_front() {
            Some(Asked::One(number, _)) => self.said.push_back(why(number)),
            Some(Asked::Swap([(released, _), (tried, _)])) if has_begun => {
                self.said.push_back(Message::Both(Box::new([why(released), why(tried)])));
            }
            Some(Asked::Swap([(released, _), (tried, _)])) => {
                self.said.extend([why(released), Message::Skipped(tried)]);
            }
            None | Some(Asked::Sync) => panic!("nothing is running"),
        }
    }
}

/// Whether it lets go of something, and then looks whether somebody waits.
fn lets_go(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Release(_)
            | Statement::ReleaseShared(_)
            | Statement::ReleaseSlot(..)
            | Statement::Downgrade(_)
            | Statement::OpenGate(_)
    )
}

/// Whether only a role may run it that may notify.
fn takes_permission(statement: &Statement) -> bool {
    lets_go(statement) || matches!(statement, Statement::Wake(_))
}

/// A slot is told of on the channel of its first slot.
fn key_of_channel(key: KeyParameters) -> KeyParameters {
    match key {
        KeyParameters::Bigint(number) if number.abs() > 1_000 => {
            KeyParameters::Bigint(number & !companion::SLOT_MASK)
        }
        key => key,
    }
}

fn less(of: &mut HashMap<usize, u32>, session: usize) -> bool {
    let Some(count) = of.get_mut(&session) else { return false };
    *count -= 1;
    if *count == 0 {
        of.remove(&session);
    }
    true
}
