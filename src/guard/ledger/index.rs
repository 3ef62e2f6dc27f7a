//! The entries by their keys. Only the numbers of entries are in the table; the keys are those of
//! the entries, so that a place takes four bytes.
//!
//! Open addressing with linear probing (Knuth, The Art of Computer Programming, volume 3, section
//! 6.4). What is removed leaves no mark: those behind it move up.

use std::hash::BuildHasher;

use super::super::jitter::KeyHasher;
use super::tables::{Entry, NONE};
use crate::key::Key;
use crate::slab::ROOM;

#[derive(Debug)]
pub(super) struct Index {
    hasher: KeyHasher,
    /// [`NONE`] where there is nothing, which is in one of four at the least.
    places: Vec<u32>,
    used: usize,
}

impl Index {
    pub(super) fn new(seed: u64) -> Self {
        Self { hasher: KeyHasher::new(seed), places: vec![NONE; 2 * ROOM], used: 0 }
    }

    pub(super) fn find(&self, entries: &[Entry], key: Key, counted: bool) -> Option<u32> {
        let mut place = self.home(key);
        loop {
            let number = self.places[place];
            let entry = entries.get(number as usize)?;
            if entry.is_of(key, counted) {
                return Some(number);
            }
            place = self.after(place);
        }
    }

    /// Puts an entry in, whose key is not there yet.
    pub(super) fn insert(&mut self, entries: &[Entry], number: u32) {
        if (self.used + 1) * 4 > self.places.len() * 3 {
            self.grow(entries);
        }
        self.used += 1;
        self.put(entries, number);
    }

    /// Takes an entry out, and says whether it was there.
    pub(super) fn remove(&mut self, entries: &[Entry], number: u32) -> bool {
        let mut hole = self.home(entries[number as usize].key());
        while self.places[hole] != number {
            if self.places[hole] == NONE {
                return false;
            }
            hole = self.after(hole);
        }
        // Whoever is behind the hole, up to the next one, is found only from its own home on.
        let mut place = self.after(hole);
        while let Some(entry) = entries.get(self.places[place] as usize) {
            let home = self.home(entry.key());
            let stays = match hole < place {
                true => hole < home && home <= place,
                false => hole < home || home <= place,
            };
            if !stays {
                self.places[hole] = self.places[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.places[hole] = NONE;
        self.used -= 1;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(super) fn clear(&mut self) {
        self.places.fill(NONE);
        self.used = 0;
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.places.iter().copied().filter(|number| *number != NONE)
    }

    /// Half as many places again: with twice as many, more would be empty than used.
    fn grow(&mut self, entries: &[Entry]) {
        let places = vec![NONE; self.places.len() + self.places.len() / 2];
        for number in std::mem::replace(&mut self.places, places) {
            if number != NONE {
                self.put(entries, number);
            }
        }
    }

    fn put(&mut self, entries: &[Entry], number: u32) {
        let mut place = self.home(entries[number as usize].key());
        while self.places[place] != NONE {
            place = self.after(place);
        }
        self.places[place] = number;
    }

    /// Where a key belongs, if nothing is there.
    fn home(&self, key: Key) -> usize {
        // The upper half of the hash as a fraction of the table: no division.
        let part = self.hasher.hash_one(key) >> 32;
        ((part * self.places.len() as u64) >> 32) as usize
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::jitter::Jitter;

    /// Puts in and takes out at random, and compares with a map of the standard library.
    #[test]
    fn it_finds_what_is_in_it_and_nothing_else() {
        for seed in 0..20 {
            let mut jitter = Jitter::new(seed);
            let mut entries: Vec<Entry> = Vec::new();
            let mut index = Index::new(seed);
            let mut known = std::collections::HashMap::new();
            // More than the first room, from a narrow range, so that there are equal hashes: a
            // counted lock has that of the number itself.
            for step in 0..4_000 {
                let random = jitter.next();
                let counted = random & 1 == 1;
                let key = match random >> 1 & 1 {
                    0 => Key::Pair(0, (random >> 8 & 0xff) as i32),
                    _ => Key::Bigint((random >> 8 & 0x3ff) as i64),
                };
                let counted = counted && matches!(key, Key::Bigint(_));
                let found = index.find(&entries, key, counted);
                assert_eq!(found, known.get(&(key, counted)).copied(), "step {step}");
                match found {
                    Some(number) => {
                        assert!(index.remove(&entries, number));
                        assert!(!index.remove(&entries, number));
                        known.remove(&(key, counted));
                    }
                    None => {
                        entries.push(Entry::new(key, counted));
                        let number = entries.len() as u32 - 1;
                        index.insert(&entries, number);
                        known.insert((key, counted), number);
                    }
                }
            }
            assert!(known.len() > ROOM && index.numbers().count() == known.len());
            for ((key, counted), number) in &known {
                assert_eq!(index.find(&entries, *key, *counted), Some(*number));
                assert!(index.remove(&entries, *number));
            }
            assert!(index.is_empty() && index.numbers().next().is_none());
        }
    }
}
