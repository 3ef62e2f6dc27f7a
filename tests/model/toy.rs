//! What the seat's holder works with, in the place of `guard/turn.rs` and all that is below it: a
//! table of keys, and statements that go out in batches and are answered in order. A turn goes
//! through the same steps in the same order as the real one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::judge;
use super::seat::Shared;
use crate::clock::Time;
use crate::context::{Cause, Context, HoldContext};
use crate::error::Error;
use crate::key::Key;
use crate::shell::socket;
use crate::slots::{Answer, Grant, HoldId, Mode, Reply, Submission, Ticket, Work};
use crate::sync::atomic::Ordering;
use crate::world::{self, MILLISECOND, Message, Spot};

/// How much a turn reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Nothing,
    Once,
    Drain,
}

/// The connection; what it brings is the world's.
#[derive(Debug)]
pub(crate) struct Stream;

#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) core: Core,
    pub(crate) stream: Option<Stream>,
    pub(crate) first: Option<()>,
    lot: VecDeque<Submission>,
    /// Whether a turn stopped before all its work was done.
    unfinished: bool,
}

/// The state, without the world.
#[derive(Debug, Default)]
pub(crate) struct Core {
    keys: BTreeMap<i64, Place>,
    /// What is to be sent.
    outbox: VecDeque<Statement>,
    /// What was sent, in batches, and when.
    batches: VecDeque<(Time, Vec<Statement>)>,
    /// Who asks again, and when: another process has the key.
    retries: Vec<(Time, i64, Ticket)>,
    holds: Vec<Option<(HoldId, i64, HoldContext)>>,
    generation: u32,
    is_closed: bool,
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Place {
    /// Whether it is held, or a statement is about to tell.
    is_busy: bool,
    waiting: VecDeque<Ticket>,
}

#[derive(Debug, Clone, Copy)]
enum Statement {
    Lock(i64, Option<Ticket>, Mode),
    Unlock(i64, Option<Ticket>),
}

/// The server may owe answers to so many batches.
const BATCHES_MAX: usize = 2;

const REPLY_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);

/// After what time a key is asked for again that another process has.
const RETRIES: [u64; 3] = [MILLISECOND, 5 * MILLISECOND, 20 * MILLISECOND];

impl Guard {
    pub(crate) fn new() -> Self {
        Self {
            core: Core::default(),
            stream: Some(Stream),
            first: None,
            lot: VecDeque::new(),
            unfinished: false,
        }
    }

    pub(crate) fn turn(&mut self, shared: &Shared, now: Time, reading: Reading) {
        self.unfinished = false;
        self.take_submissions(shared);
        let reading = if self.core.is_overdue(now) { Reading::Drain } else { reading };
        if reading != Reading::Nothing {
            self.read(shared, now);
        }
        if self.core.is_overdue(now) {
            self.core.lose(shared);
            world::reconnect();
        }
        self.core.retry(now);
        self.core.send(now);
        shared.home.believe(Time::NEVER);
        shared.wanted.store(self.core.is_wanted(), Ordering::SeqCst);
    }

    /// Waits where the bell is not heard.
    pub(crate) fn receive(&mut self) -> Option<Reading> {
        self.stream.as_ref()?;
        let span = (socket::RECEIVE_MAX + socket::TICKS / 5).as_nanos() as u64;
        let woken = world::sleep(Spot::Deaf, world::now() + span);
        Some(if woken.socket { Reading::Once } else { Reading::Nothing })
    }

    pub(crate) fn next_timeout(&self) -> Time {
        if self.unfinished { Time::ZERO } else { self.core.next_timeout() }
    }

    pub(crate) fn close(&mut self, shared: &Shared) {
        shared.slots.close();
        self.take_submissions(shared);
        self.core.is_closed = true;
        self.core.lose(shared);
        self.stream = None;
        self.take_submissions(shared);
    }

    fn take_submissions(&mut self, shared: &Shared) {
        if !shared.slots.has_submissions() {
            return;
        }
        shared.slots.drain(&mut self.lot);
        for submission in self.lot.drain(..) {
            match submission {
                Submission::Request(ticket) => {
                    if let Some(work) = shared.slots.accept(ticket) {
                        judge::accepted(ticket);
                        self.core.ask(shared, ticket, work);
                    }
                }
                Submission::Abandon(ticket) => {
                    self.core.forget(ticket);
                    judge::settled(ticket);
                    shared.slots.free(ticket);
                }
                Submission::Release(hold) => {
                    self.core.release(hold, None);
                }
            }
        }
    }

    fn read(&mut self, shared: &Shared, now: Time) {
        while let Some(message) = world::receive() {
            match message {
                Message::Answer => self.core.answered(shared, now),
                Message::Notification => self.core.notified(),
            }
            // As after a flood: the rest is for the next turn.
            if world::choose(8) == 0 {
                self.unfinished = true;
                return;
            }
        }
    }
}

impl Core {
    // ----- what the seat asks -----

    pub(crate) fn is_active(&self, ticket: Ticket) -> bool {
        self.under_way().any(|of| of == ticket)
    }

    pub(crate) fn active(&self) -> u32 {
        self.under_way().count() as u32
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.active() > 0
            || !self.batches.is_empty() && (self.is_wanted() || !self.outbox.is_empty())
            || self.listens()
    }

    pub(crate) fn slots_in_flight(&self) -> impl Iterator<Item = u32> + '_ {
        let sent = self.batches.iter().flat_map(|(_, batch)| batch);
        sent.filter_map(|statement| statement.ticket().map(|ticket| ticket.slot))
    }

    fn under_way(&self) -> impl Iterator<Item = Ticket> + '_ {
        let sent = self.batches.iter().flat_map(|(_, batch)| batch);
        sent.chain(&self.outbox).filter_map(|statement| statement.ticket())
    }

    /// Whether a notification would lead to a try.
    pub(crate) fn listens(&self) -> bool {
        !self.retries.is_empty()
    }

    pub(crate) fn listens_for(&self, ticket: Ticket) -> bool {
        self.retries.iter().any(|(_, _, other)| *other == ticket)
    }

    fn is_wanted(&self) -> bool {
        !self.retries.is_empty() || self.keys.values().any(|place| !place.waiting.is_empty())
    }

    fn is_overdue(&self, now: Time) -> bool {
        self.batches.front().is_some_and(|(sent, _)| now >= sent.after(REPLY_TIMEOUT))
    }

    fn next_timeout(&self) -> Time {
        let overdue = self.batches.front().map(|(sent, _)| sent.after(REPLY_TIMEOUT));
        let retries = self.retries.iter().map(|(at, _, _)| *at);
        overdue.into_iter().chain(retries).min().unwrap_or(Time::NEVER)
    }

    // ----- what a turn does -----

    fn ask(&mut self, shared: &Shared, ticket: Ticket, work: Work) {
        if self.is_closed {
            return answer(shared, ticket, Err(Error::Closed));
        }
        match work {
            Work::Lock { key: Key::Bigint(key), mode, .. } => {
                let place = self.keys.entry(key).or_default();
                match (place.is_busy, mode) {
                    (false, _) => {
                        place.is_busy = true;
                        self.outbox.push_back(Statement::Lock(key, Some(ticket), mode));
                    }
                    (true, Mode::Wait) => place.waiting.push_back(ticket),
                    (true, _) => answer(shared, ticket, Ok(Reply::Nothing)),
                }
            }
            Work::Unlock(hold) => {
                if !self.release(hold, Some(ticket)) {
                    answer(shared, ticket, Ok(Reply::Nothing));
                }
            }
            _ => world::fail("the model does not ask for that"),
        }
    }

    /// Withdraws a request. What was sent for it is answered all the same.
    fn forget(&mut self, ticket: Ticket) {
        self.keys.values_mut().for_each(|place| place.waiting.retain(|other| *other != ticket));
        let is_retried = self.retries.iter().position(|(_, _, other)| *other == ticket);
        if let Some(index) = is_retried {
            let (_, key, _) = self.retries.remove(index);
            self.pass_on(key);
        }
        let sent = self.batches.iter_mut().flat_map(|(_, batch)| batch);
        for statement in sent.chain(&mut self.outbox) {
            let (Statement::Lock(_, of, _) | Statement::Unlock(_, of)) = statement;
            *of = of.filter(|other| *other != ticket);
        }
    }

    /// Whether it was held still.
    fn release(&mut self, hold: HoldId, ticket: Option<Ticket>) -> bool {
        let Some(place) = self.holds.get_mut(hold.index as usize) else { return false };
        // A late release reaches no newer lock (I8).
        let Some((_, key, context)) = place.take_if(|(held, _, _)| *held == hold) else {
            return false;
        };
        context.finish(Cause::Released);
        self.outbox.push_back(Statement::Unlock(key, ticket));
        self.pass_on(key);
        true
    }

    /// The key is free for the next one here.
    fn pass_on(&mut self, key: i64) {
        let place = self.keys.entry(key).or_default();
        match place.waiting.pop_front() {
            Some(ticket) => {
                self.outbox.push_back(Statement::Lock(key, Some(ticket), Mode::Wait));
            }
            None => place.is_busy = false,
        }
    }

    fn retry(&mut self, now: Time) {
        while let Some(index) = self.retries.iter().position(|(at, _, _)| *at <= now) {
            let (_, key, ticket) = self.retries.remove(index);
            self.outbox.push_back(Statement::Lock(key, Some(ticket), Mode::Wait));
        }
    }

    /// Some key was let go of elsewhere: whoever waits for it asks at once.
    fn notified(&mut self) {
        self.retry(Time::NEVER);
    }

    fn send(&mut self, now: Time) {
        if self.outbox.is_empty() || self.batches.len() >= BATCHES_MAX || self.is_closed {
            return;
        }
        self.batches.push_back((now, self.outbox.drain(..).collect()));
        world::send();
    }

    /// The oldest batch was answered.
    fn answered(&mut self, shared: &Shared, now: Time) {
        let Some((_, batch)) = self.batches.pop_front() else {
            world::fail("an answer to nothing");
        };
        for statement in batch {
            match statement {
                Statement::Unlock(_, None) => {}
                Statement::Unlock(_, Some(ticket)) => answer(shared, ticket, Ok(Reply::Nothing)),
                Statement::Lock(key, ticket, mode) => {
                    let is_contended = world::look(|world| world.manners.is_contended);
                    let is_free = world::choose(8) >= if is_contended { 5 } else { 1 };
                    match (ticket, is_free, mode) {
                        (Some(ticket), true, _) => self.grant(shared, key, ticket),
                        // Whoever asked has gone (I3).
                        (None, true, _) => {
                            self.outbox.push_back(Statement::Unlock(key, None));
                            self.pass_on(key);
                        }
                        (Some(ticket), false, Mode::Wait) => {
                            let at = now.after(std::time::Duration::from_nanos(
                                RETRIES[world::choose(RETRIES.len())],
                            ));
                            self.retries.push((at, key, ticket));
                            if world::choose(2) == 0 {
                                world::notify();
                            }
                        }
                        (ticket, false, _) => {
                            if let Some(ticket) = ticket {
                                answer(shared, ticket, Ok(Reply::Nothing));
                            }
                            self.pass_on(key);
                        }
                    }
                }
            }
        }
    }

    fn grant(&mut self, shared: &Shared, key: i64, ticket: Ticket) {
        let index = self.holds.iter().position(Option::is_none).unwrap_or(self.holds.len());
        self.holds.resize_with(self.holds.len().max(index + 1), || None);
        let parent = shared.slots.context(ticket).unwrap_or_else(Context::background);
        let mut held = HoldContext::new();
        held.renew(&parent, &shared.home, None);
        self.generation += 1;
        let hold = HoldId { index: index as u32, generation: self.generation };
        let grant = Grant { hold, context: held.context(), since: Time::ZERO };
        self.holds[index] = Some((hold, key, held));
        if shared.slots.answer(ticket, Ok(Reply::Granted(grant))).is_ok() {
            judge::settled(ticket);
        } else {
            self.release(hold, None);
        }
    }

    /// The session has ended: what was asked for and held is lost.
    fn lose(&mut self, shared: &Shared) {
        let mut failed: Vec<Ticket> = self.under_way().collect();
        failed.extend(self.retries.drain(..).map(|(_, _, ticket)| ticket));
        failed.extend(self.keys.values().flat_map(|place| place.waiting.iter().copied()));
        self.keys.clear();
        self.outbox.clear();
        self.batches.clear();
        for (_, _, context) in self.holds.drain(..).flatten() {
            context.finish(Cause::ConnectionLost);
        }
        for ticket in failed {
            answer(shared, ticket, Err(Error::Unavailable { last: None }));
        }
    }
}

impl Statement {
    fn ticket(&self) -> Option<Ticket> {
        let (Self::Lock(_, ticket, _) | Self::Unlock(_, ticket)) = self;
        *ticket
    }
}

fn answer(shared: &Shared, ticket: Ticket, answer: Answer) {
    // Of who has gone, the Abandon is in the queue.
    if shared.slots.answer(ticket, answer).is_ok() {
        judge::settled(ticket);
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

/// The shared state is made by the seat's own code.
pub(super) fn shared(requests: u32, linger: super::linger::Linger) -> Arc<Shared> {
    use crate::shell::{Bell, Ear, LoopWaker};
    let slots = crate::slots::Slots::new(requests, requests, false);
    Shared::new(slots, Guard::new(), linger, (Bell, Ear), LoopWaker)
}
