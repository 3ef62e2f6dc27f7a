//! Who believes to be alone with a key, and whether he is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::forms::{Ask, Form, KEYS};

/// From when on a lock may be gone under its holder: with `Config::release_on_cancel`, from just
/// before its requester's context is cancelled, or has its deadline.
#[derive(Debug, Clone, Default)]
pub(crate) struct Term {
    /// Set before the context is cancelled.
    pub(crate) canceled: Option<Arc<AtomicBool>>,
    /// Not after the context's own deadline.
    pub(crate) deadline: Option<Instant>,
}

impl Term {
    pub(crate) fn is_over(&self) -> bool {
        self.canceled.as_ref().is_some_and(|canceled| canceled.load(Ordering::SeqCst))
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A holder in one room.
#[derive(Debug)]
struct Mark {
    number: u64,
    form: Form,
    term: Term,
}

/// One room for each key.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: [Mutex<Vec<Mark>>; KEYS.len()],
    last: AtomicU64,
}

impl Rooms {
    /// After a grant. Panics if somebody is in who must not be; gives the number to leave by.
    pub(crate) fn enter(&self, ask: Ask, term: &Term) -> u64 {
        let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        for key in ask.keys() {
            let mut room = self.room(key);
            // Looked at with the room locked: if the next holder is in already, then our term was
            // over before he came.
            if !term.is_over() {
                let others = room.iter().filter(|mark| !mark.term.is_over());
                let others: Vec<Form> = others.map(|mark| mark.form).collect();
                assert!(ask.form.admits(&others), "{ask:?} is granted while {room:?} are in");
            }
            room.push(Mark { number, form: ask.form, term: term.clone() });
        }
        number
    }

    /// Before the release.
    pub(crate) fn leave(&self, ask: Ask, number: u64) {
        for key in ask.keys() {
            self.room(key).retain(|mark| mark.number != number);
        }
    }

    pub(crate) fn are_empty(&self) -> bool {
        (0..KEYS.len()).all(|key| self.room(key).is_empty())
    }

    fn room(&self, key: usize) -> MutexGuard<'_, Vec<Mark>> {
        // A holder that should not have been let in has said so.
        self.rooms[key].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
