//! Who believes to have a key, and whether those who are with him may be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use distlock::Token;

use crate::forms::{Ask, Form, KEYS, Place};

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

/// One room for each key, and one for its slots.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    keys: [Mutex<Room>; KEYS.len()],
    slots: [Mutex<Room>; KEYS.len()],
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    marks: Vec<Mark>,
    /// The largest fencing token so far.
    token: Option<Token>,
}

impl Rooms {
    /// After a grant. Panics if somebody is in who must not be; gives the number to leave by.
    pub(crate) fn enter(&self, ask: Ask, term: &Term, token: Option<Token>) -> u64 {
        let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(token.is_some(), ask.form == Form::Fenced, "{ask:?} has {token:?}");
        for place in ask.places() {
            let mut room = self.room(place);
            // Looked at with the room locked: if the next holder is in already, then our term was
            // over before he came.
            if !term.is_over() {
                let others = room.marks.iter().filter(|mark| !mark.term.is_over());
                let others: Vec<Form> = others.map(|mark| mark.form).collect();
                let is_admitted = ask.form.admits(place, &others);
                assert!(is_admitted, "{ask:?} is granted while {room:?} are in");
                let is_newer = token.is_none_or(|token| room.token.is_none_or(|it| it < token));
                assert!(is_newer, "{ask:?} has {token:?} after {:?}", room.token);
                room.token = token.or(room.token);
            }
            room.marks.push(Mark { number, form: ask.form, term: term.clone() });
        }
        number
    }

    /// Before a lock is made a shared one: others may share it from now on.
    pub(crate) fn share(&self, ask: Ask, number: u64) {
        for place in ask.places() {
            for mark in self.room(place).marks.iter_mut().filter(|mark| mark.number == number) {
                mark.form = Form::Shared;
            }
        }
    }

    /// Before the release.
    pub(crate) fn leave(&self, ask: Ask, number: u64) {
        for place in ask.places() {
            self.room(place).marks.retain(|mark| mark.number != number);
        }
    }

    pub(crate) fn are_empty(&self) -> bool {
        let mut places = (0..KEYS.len()).flat_map(|key| [Place::Key(key), Place::Slot(key)]);
        places.all(|place| self.room(place).marks.is_empty())
    }

    fn room(&self, place: Place) -> MutexGuard<'_, Room> {
        let room = match place {
            Place::Key(key) => &self.keys[key],
            Place::Slot(key) => &self.slots[key],
        };
        // A holder that should not have been let in has said so.
        room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
