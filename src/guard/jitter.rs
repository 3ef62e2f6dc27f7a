//! Spread without a random source: a small generator that is seeded once, from outside.
//!
//! It spreads retries and hash buckets. Nothing secret depends on it.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// SplitMix64, after Steele, Lea and Flood (2014).
#[derive(Debug, Clone)]
pub(crate) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// Puts a list in any order.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let any = self.next() % (last as u64 + 1);
            list.swap(last, any as usize);
        }
    }

    /// A span between half of `span` and all of it.
    pub(crate) fn upper_half_of(&mut self, span: Duration) -> Duration {
        let half = span / 2;
        half + self.up_to(half)
    }

    /// A span between nothing and `span`: "full jitter".
    pub(crate) fn up_to(&mut self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.next() % nanos.saturating_add(1).max(1))
    }
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Hashes keys with a seed, so that nobody outside can choose keys that collide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl KeyHasher {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl BuildHasher for KeyHasher {
    type Hasher = KeyState;

    fn build_hasher(&self) -> KeyState {
        KeyState(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct KeyState(u64);

impl Hasher for KeyState {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word.wrapping_mul(GOLDEN_GAMMA));
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word as u64);
    }

    fn write_i32(&mut self, word: i32) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds() {
        let mut jitter = Jitter::new(7);
        let span = Duration::from_millis(10);
        for _ in 0..10_000 {
            assert!(jitter.up_to(span) <= span);
            let upper = jitter.upper_half_of(span);
            assert!(upper >= span / 2 && upper <= span, "{upper:?}");
        }
        assert_eq!(jitter.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn keys_of_both_spaces_spread() {
        use crate::key::Key;
        let hasher = KeyHasher::new(1);
        let mut seen = std::collections::HashSet::new();
        for number in 0..1_000 {
            assert!(seen.insert(hasher.hash_one(Key::Bigint(i64::from(number)))));
            assert!(seen.insert(hasher.hash_one(Key::Pair(number, 0))));
            assert!(seen.insert(hasher.hash_one(Key::Pair(-1, number))));
        }
    }
}
