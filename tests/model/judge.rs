//! Whether everybody may sleep. Asked whenever everybody does, before the clock goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::seat::Shared;
use super::thread::STAND_ASIDE;
use crate::clock::Time;
use crate::context::Context;
use crate::slots::Ticket;
use crate::sync::atomic::Ordering;
use crate::world::{self, Sleeper, Spot};

/// The thread has looked once after so long, and found what was there already when it fell asleep.
const SOON: u64 = STAND_ASIDE.as_nanos() as u64 + 500 * world::MICROSECOND;

#[derive(Default)]
struct Judge {
    shared: Option<Arc<Shared>>,
    /// The number of the guard's thread.
    guard: usize,
    /// Who waits for an answer, and until when at the longest.
    asking: BTreeMap<usize, (u64, Context)>,
    /// The requests that the guard has taken up and neither answered nor given up.
    known: BTreeSet<(u32, u32)>,
    /// Since when something lies in the queue while everybody sleeps.
    queued_since: Option<u64>,
}

thread_local! {
    static JUDGE: RefCell<Judge> = RefCell::new(Judge::default());
}

fn with<T>(look: impl FnOnce(&mut Judge) -> T) -> T {
    JUDGE.with(|judge| look(&mut judge.borrow_mut()))
}

pub(crate) fn begin(shared: Arc<Shared>, guard: usize) {
    let judge = Judge { shared: Some(shared), guard, ..Judge::default() };
    drop(JUDGE.with(|old| old.replace(judge)));
}

pub(crate) fn end() {
    drop(JUDGE.take());
}

/// The calling thread waits for an answer, as long as the context is not done.
pub(crate) fn asks(until: u64, context: &Context) {
    with(|judge| judge.asking.insert(world::current(), (until, context.clone())));
}

/// It has it.
pub(crate) fn is_answered() {
    with(|judge| judge.asking.remove(&world::current()));
}

/// The guard has taken up a request.
pub(crate) fn accepted(ticket: Ticket) {
    with(|judge| judge.known.insert((ticket.slot, ticket.generation)));
}

/// The request is answered, or its slot is given back.
pub(crate) fn settled(ticket: Ticket) {
    with(|judge| judge.known.remove(&(ticket.slot, ticket.generation)));
}

pub(crate) fn judge() -> Result<(), String> {
    let Some((shared, guard)) = with(|judge| Some((judge.shared.clone()?, judge.guard))) else {
        return Ok(());
    };
    // Then everything ends, which the scenario waits for.
    if shared.closing.load(Ordering::SeqCst) {
        return Ok(());
    }
    let (now, sleepers) = world::look(|world| (world.now, world.sleepers.clone()));
    let Some(guard) = sleepers.get(&guard).copied() else {
        return Err("the guard's thread has gone".into());
    };
    let driver = sleepers.values().find(|other| matches!(other.spot, Spot::WithSeat | Spot::Deaf));
    let is_deaf = driver.is_some_and(|driver| driver.spot == Spot::Deaf);
    if !is_deaf {
        requests_are_known()?;
    }
    deadlines_are_kept(now, &sleepers)?;
    queue_is_looked_after(&shared, now, guard, is_deaf)?;
    polls_do_not_linger_on(&shared, now, guard)?;
    match driver {
        Some(_) => Ok(()),
        None => session_is_looked_after(&shared, now, guard),
    }
}

/// Whether the thread stands aside and looks before long.
fn looks_soon(guard: Sleeper, now: u64) -> bool {
    guard.spot == Spot::Parked && guard.until <= now + STAND_ASIDE.as_nanos() as u64
}

/// No request lies in the queue or is answered without its owner's being woken, and nobody's has
/// been given up without the guard's being told.
fn requests_are_known() -> Result<(), String> {
    let (asking, known) = with(|judge| (judge.asking.len(), judge.known.len()));
    match asking == known {
        true => Ok(()),
        false => Err(format!("{asking} wait for answers, the guard knows of {known}")),
    }
}

/// Who has a deadline sleeps no longer than until then.
fn deadlines_are_kept(now: u64, sleepers: &BTreeMap<usize, Sleeper>) -> Result<(), String> {
    let asking = with(|judge| judge.asking.clone());
    for (thread, (until, context)) in asking {
        let wakes_at = sleepers.get(&thread).map_or(now, |sleeper| sleeper.until);
        if until <= now || wakes_at > until {
            return Err("a caller sleeps longer than until its deadline".into());
        }
        let is_deaf = sleepers.get(&thread).is_some_and(|sleeper| sleeper.spot == Spot::Deaf);
        if context.err().is_some() && !is_deaf {
            return Err("a caller sleeps whose context is done".into());
        }
    }
    Ok(())
}

/// What lies in the queue is a release that rides (requests were looked at above), and only while
/// the thread looks before long; or what a sleeper who cannot be nudged will find.
fn queue_is_looked_after(
    shared: &Shared,
    now: u64,
    guard: Sleeper,
    is_deaf: bool,
) -> Result<(), String> {
    if !shared.slots.has_submissions() || is_deaf {
        with(|judge| judge.queued_since = None);
        return Ok(());
    }
    if !looks_soon(guard, now) {
        return Err("something lies in the queue, and nobody looks".into());
    }
    if shared.wanted.load(Ordering::SeqCst) {
        return Err("a release rides though somebody waits".into());
    }
    let since = with(|judge| *judge.queued_since.get_or_insert(now));
    match now - since > SOON + world::slowness() {
        true => Err("a release rides for too long".into()),
        false => Ok(()),
    }
}

/// A poll that waits relies on the thread.
fn polls_do_not_linger_on(shared: &Shared, now: u64, guard: Sleeper) -> Result<(), String> {
    let until = shared.lingers_until.load(Ordering::SeqCst);
    match until {
        0 => Ok(()),
        _ if !looks_soon(guard, now) => Err("a poll lingers, and the thread does not look".into()),
        _ if now > until + SOON + world::slowness() => Err("a poll lingers for too long".into()),
        _ => Ok(()),
    }
}

/// Nobody has the seat: somebody reads the answers that are to come, and is there when the next
/// thing is due.
fn session_is_looked_after(shared: &Shared, now: u64, guard: Sleeper) -> Result<(), String> {
    let Some(seat) = shared.try_seat() else {
        return Err("the seat is taken, and nobody sleeps with it".into());
    };
    if seat.next_driver(&shared.slots).is_some() && guard.spot != Spot::EventLoop {
        return Err(
            "a caller's answer is on its way, and nobody reads it: leadership is lost".into()
        );
    }
    if seat.guard.core.is_awaited() && guard.spot != Spot::EventLoop {
        return Err("answers are waited for, and the thread was not called".into());
    }
    if seat.guard.core.listens() && guard.spot != Spot::EventLoop {
        return Err("a notification would not be heard at once".into());
    }
    if world::look(|world| world.is_readable()) && !looks_soon(guard, now) {
        return Err("what is in the socket is not read".into());
    }
    if guard.spot == Spot::Parked && !looks_soon(guard, now) {
        return Err("the thread is away, and nobody has the seat".into());
    }
    // Any caller here is done in less: they look at their contexts once a minute, for nothing.
    if now > world::LATEST {
        return Err(format!("a request is never answered: {:?}", seat.guard));
    }
    let due = seat.guard.next_timeout();
    let is_bounded = guard.until <= due.as_nanos() || due == Time::NEVER;
    match is_bounded || looks_soon(guard, now) {
        true => Ok(()),
        false => {
            Err(format!("something is due at {} us while nobody looks", due.as_nanos() / 1000))
        }
    }
}
