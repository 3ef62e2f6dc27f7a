//! Where the slots are: in lots, of which each is made when a slot of it is first used, and kept
//! (invariant I6). Who gets a slot gets the one that was given back last, so that a manager that
//! never has many requests under way needs one lot.

use std::sync::PoisonError;

use super::{Answer, Request, Waiter};
use crate::context::Context;
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// So many slots come at once: more than most managers ever use.
const LOT: usize = 128;

type Lot = Box<[Mutex<Slot>; LOT]>;

#[derive(Debug)]
pub(super) struct Places {
    lots: Box<[OnceLock<Lot>]>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) poked: bool,
    pub(super) waiter: Option<Waiter>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Free,
    /// The guard has yet to look at it.
    Asked(Request),
    /// The guard is at work; the owner waits.
    Pending(Context),
    /// The owner has gone; the guard gives the slot back.
    Abandoned,
    /// The result is there, for the owner to take.
    Answered(Answer),
}

impl Places {
    /// Room for so many slots.
    pub(super) fn new(count: u32) -> Self {
        let lots = (count as usize).div_ceil(LOT);
        Self { lots: (0..lots).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    pub(super) fn slot(&self, slot: u32) -> MutexGuard<'_, Slot> {
        let lot = self.lots[slot as usize / LOT].get_or_init(lot);
        // Nothing that can panic runs under these locks.
        lot[slot as usize % LOT].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cold]
fn lot() -> Lot {
    let free = || Slot { generation: 0, phase: Phase::Free, poked: false, waiter: None };
    Box::new(std::array::from_fn(|_| Mutex::new(free())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_made_when_they_are_used_and_not_before() {
        let places = Places::new(1_000);
        let made = || places.lots.iter().filter(|lot| lot.get().is_some()).count();
        assert_eq!((places.lots.len(), made()), (8, 0));
        for slot in [0, 1, 127, 999] {
            places.slot(slot).generation = slot + 1;
        }
        assert_eq!(made(), 2);
        for slot in [0, 1, 127, 999] {
            assert_eq!(places.slot(slot).generation, slot + 1);
        }
    }
}
