//! A table of values that keep their place, with keys that never reach a later value.

/// For how many things a table has room at first (invariant I6). It grows to the most that it ever
/// held, up to its limit, and stays there: a manager that does little is small, and one that does
/// much allocates no more once it has done it.
pub(crate) const ROOM: usize = 256;

/// Puts a value behind the last one of a table that stays for long. Where there is no room for it,
/// an eighth more is made: `Vec` would make as much again, of which half would be empty on average.
#[inline]
pub(crate) fn append<T>(table: &mut Vec<T>, value: T) {
    if table.len() == table.capacity() {
        table.reserve_exact((table.len() / 8).max(ROOM / 8));
    }
    table.push(value);
}

/// Values in places that are used again; grows to the most it ever held and stays there.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u64, Option<T>)>,
    /// Empty places.
    free: Vec<usize>,
    /// The generation of the next value: every value ever inserted has its own.
    generation: u64,
}

/// Where a value is, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlabKey {
    place: usize,
    generation: u64,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), generation: 0 }
    }

    pub(crate) fn insert(&mut self, value: T) -> SlabKey {
        self.generation += 1;
        let generation = self.generation;
        // `pop` shortens the table: places beyond its end are free no more.
        while let Some(place) = self.free.pop() {
            if let Some(entry) = self.places.get_mut(place) {
                *entry = (generation, Some(value));
                return SlabKey { place, generation };
            }
        }
        self.places.push((generation, Some(value)));
        SlabKey { place: self.places.len() - 1, generation }
    }

    /// Takes a value out; `None` when it is gone already, whoever is in its place now.
    pub(crate) fn remove(&mut self, key: SlabKey) -> Option<T> {
        let (generation, value) = self.places.get_mut(key.place)?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        self.free.push(key.place);
        Some(value)
    }

    /// Takes any value out, the last place first; emptying the table takes linear time.
    pub(crate) fn pop(&mut self) -> Option<T> {
        while let Some((_, value)) = self.places.pop() {
            if value.is_some() {
                return value;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_never_reaches_a_newer_value() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.remove(second), Some('b'));
        assert_eq!(slab.remove(second), None);
    }

    #[test]
    fn a_table_that_grows_has_little_room_to_spare() {
        let mut table = Vec::new();
        for value in 0..100_000 {
            append(&mut table, value);
            let spare = table.capacity() - table.len();
            assert!(spare <= (table.len() / 8).max(ROOM), "{spare} of {}", table.len());
        }
        assert!(table.into_iter().eq(0..100_000));
    }

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::new();
        for round in 0..100 {
            let keys = [slab.insert(round), slab.insert(round + 1)];
            assert_ne!(keys[0], keys[1]);
            assert_eq!(slab.remove(keys[round % 2]), Some(round + round % 2));
            assert!(slab.pop().is_some());
        }
        assert!(slab.places.capacity() <= 4);
        assert_eq!(slab.pop(), None);
    }
}
