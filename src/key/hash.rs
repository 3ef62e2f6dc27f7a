//! The small hash functions behind the keys: those that need no crate.
//!
//! None of them withstands somebody who looks for collisions; a name that meets another one waits
//! for it, nothing worse. Called by `key` and its schemes only.

/// Where a 64-bit FNV hash begins.
pub(super) const FNV_64: u64 = 0xcbf2_9ce4_8422_2325;

const FNV_64_PRIME: u64 = 0x0000_0100_0000_01b3;
const FNV_32: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;

/// FNV-1a with the 64-bit parameters of its authors, from `hash` on.
pub(super) const fn fnv1a_64(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(FNV_64_PRIME);
        index += 1;
    }
    hash
}

/// FNV-1, which multiplies before it takes the byte in, with the 64-bit parameters.
pub(super) fn fnv1_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(FNV_64, |hash, &byte| hash.wrapping_mul(FNV_64_PRIME) ^ u64::from(byte))
}

/// FNV-1 with the 32-bit parameters.
pub(super) fn fnv1_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(FNV_32, |hash, &byte| hash.wrapping_mul(FNV_32_PRIME) ^ u32::from(byte))
}

/// CRC-32 as zlib has it (RFC 1952 section 8), of the parts one after the other.
pub(super) fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// `String.hashCode` of Java: of the UTF-16 units, not of the bytes.
pub(super) fn java(text: &str) -> i32 {
    text.encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// What a PostgreSQL server makes of bytes on a little-endian machine: Bob Jenkins' lookup3 with an
/// initial value of the server's own. The lower half is `hashtext`, all of it `hashtextextended`.
///
/// A seed of zero is none. Any other is taken in like twelve bytes before the first ones: its upper
/// half, its lower half, and zeros.
pub(super) fn postgres(bytes: &[u8], seed: u64) -> u64 {
    // The server counts in 32 bits, too; what does not fit there is no text (its limit is 1 GiB).
    let start = 0x9e37_79b9_u32.wrapping_add(bytes.len() as u32).wrapping_add(3_923_095);
    let mut state = [start; 3];
    if seed != 0 {
        absorb(&mut state, [(seed >> 32) as u32, seed as u32, 0]);
        mix(&mut state);
    }
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        absorb(&mut state, words(block));
        mix(&mut state);
    }
    // The lowest byte of the third word belongs to the length, so its bytes begin one later.
    let mut last = [0; 12];
    for (index, &byte) in blocks.remainder().iter().enumerate() {
        last[if index < 8 { index } else { index + 1 }] = byte;
    }
    absorb(&mut state, words(&last));
    finish(&mut state);
    let [_, upper, lower] = state;
    (u64::from(upper) << 32) | u64::from(lower)
}

/// Three little-endian words out of twelve bytes.
fn words(bytes: &[u8]) -> [u32; 3] {
    let word = |first: usize| {
        bytes[first..first + 4].iter().rev().fold(0, |word, &byte| (word << 8) | u32::from(byte))
    };
    [word(0), word(4), word(8)]
}

fn absorb(state: &mut [u32; 3], words: [u32; 3]) {
    for (state, word) in state.iter_mut().zip(words) {
        *state = state.wrapping_add(word);
    }
}

/// The reversible mixing between blocks: six like steps, each on the next word of the three.
fn mix(state: &mut [u32; 3]) {
    for (step, rotation) in [4, 6, 8, 16, 19, 4].into_iter().enumerate() {
        let (this, next, previous) = (step % 3, (step + 1) % 3, (step + 2) % 3);
        state[this] =
            state[this].wrapping_sub(state[previous]) ^ state[previous].rotate_left(rotation);
        state[previous] = state[previous].wrapping_add(state[next]);
    }
}

/// The mixing at the end, which begins with the third word.
fn finish(state: &mut [u32; 3]) {
    for (step, rotation) in [14, 11, 25, 16, 4, 14, 24].into_iter().enumerate() {
        let (this, previous) = ((step + 2) % 3, (step + 1) % 3);
        state[this] =
            (state[this] ^ state[previous]).wrapping_sub(state[previous].rotate_left(rotation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values that the authors, the catalogue of CRCs and the manual of Java give.
    #[test]
    fn the_functions_give_their_known_values() {
        assert_eq!(crc32(&[b"123456789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[]), 0);
        assert_eq!(fnv1a_64(FNV_64, b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1_64(b"foobar"), 0x340d_8765_a4dd_a9c2);
        assert_eq!(fnv1_32(b"foobar"), 0x31f0_b262);
        assert_eq!(java("hello"), 99_162_322);
        // Two units of UTF-16.
        assert_eq!(java("\u{1f600}"), 0xd83d * 31 + 0xde00);
    }

    #[test]
    fn a_hash_goes_on_where_the_last_one_ended() {
        assert_eq!(fnv1a_64(fnv1a_64(FNV_64, b"foo"), b"bar"), fnv1a_64(FNV_64, b"foobar"));
    }

    /// Values of a server of PostgreSQL 15; `tests/keys.rs` compares thousands.
    #[test]
    fn text_hashes_as_on_the_server() {
        assert_eq!(postgres(b"job", 0) as i32, -168_112_706);
        assert_eq!(postgres(b"job", 0) as i64, 2_037_922_322_055_876_030);
        assert_eq!(postgres(b"my-resource-name", 0) as i64, 1_287_059_409_122_239_722);
    }
}
