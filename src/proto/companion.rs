//! The keys beside a key, by which processes that know nothing of each other wait for one lock.
//!
//! A waiter holds the *waiters* key of its key in shared mode: that is how the session that
//! releases sees, in the statement that releases, that there is somebody to notify. A waiter that
//! wants the key exclusively also holds its *gate*, which keeps new sharers out. Both lie in the
//! key space that the key itself is not in, so that plain keys stay what other programs use; and
//! both are permutations of the key, so that two keys never share one. Should somebody hold such a
//! number for other reasons, waiters poll: nothing here decides who holds a lock.
//!
//! These numbers, the channels and the payloads are a contract between all versions of this crate
//! that share a database (`proto_notes.md`, "Waiting").

use super::frontend::KeyParameters;

/// How many channels there are: few, since each is a statement of its own to listen to.
pub const CHANNELS: u8 = 8;

/// The name of a channel is this and its number.
pub const CHANNEL_PREFIX: &str = "distlock_";

/// A counted lock has slots of consecutive keys: its own key has zeros in these bits.
pub const SLOT_MASK: i64 = 0x3ff;

/// The most slots of a counted lock.
pub const SLOTS_MAX: u16 = 1024;

/// The key that waiters hold in shared mode.
pub fn waiters(key: KeyParameters) -> KeyParameters {
    beside(key, 0x7761_6974_6572_7300)
}

/// The key that one exclusive waiter holds exclusively.
pub fn gate(key: KeyParameters) -> KeyParameters {
    beside(key, 0x6761_7465_0000_0000)
}

/// The channel that a release of the key is told on: the low bits of the waiters key, as the
/// statements have it.
pub fn channel(key: KeyParameters) -> u8 {
    let [.., low] = waiters(key).to_bytes();
    low % CHANNELS
}

/// The key of the first slot of a counted lock; the others follow it.
pub fn first_slot(key: KeyParameters) -> i64 {
    let salt = match key {
        KeyParameters::Bigint(_) => 0x736c_6f74_0000_0001,
        KeyParameters::Pair(..) => 0x736c_6f74_0000_0002,
    };
    (mixed(key, salt) as i64) & !SLOT_MASK
}

/// What a notification's payload says, if it is one of ours: the key as text.
pub fn parse_payload(payload: &[u8]) -> Option<KeyParameters> {
    let text = std::str::from_utf8(payload).ok()?;
    match text.split_once(',') {
        None => text.parse().ok().map(KeyParameters::Bigint),
        Some((high, low)) => Some(KeyParameters::Pair(high.parse().ok()?, low.parse().ok()?)),
    }
}

fn beside(key: KeyParameters, salt: u64) -> KeyParameters {
    let mixed = mixed(key, salt);
    match key {
        KeyParameters::Bigint(_) => {
            let [a, b, c, d, e, f, g, h] = mixed.to_be_bytes();
            KeyParameters::Pair(i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes([e, f, g, h]))
        }
        KeyParameters::Pair(..) => KeyParameters::Bigint(mixed as i64),
    }
}

/// A permutation of the 64 bits of a key: the finalizer of MurmurHash3 (Appleby, 2011).
fn mixed(key: KeyParameters, salt: u64) -> u64 {
    let bits = match key {
        KeyParameters::Bigint(number) => number as u64,
        KeyParameters::Pair(high, low) => u64::from(high as u32) << 32 | u64::from(low as u32),
    };
    let bits = bits ^ salt;
    let bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [KeyParameters; 6] = [
        KeyParameters::Bigint(0),
        KeyParameters::Bigint(1),
        KeyParameters::Bigint(i64::MIN),
        KeyParameters::Pair(0, 0),
        KeyParameters::Pair(0, 1),
        KeyParameters::Pair(-1, i32::MIN),
    ];

    /// Both sides of a mixed fleet have to agree on these for as long as there is a version 0.
    #[test]
    fn the_numbers_are_what_they_always_were() {
        let job = KeyParameters::Bigint(4_999_694_984_129_765_468);
        assert_eq!(waiters(job), KeyParameters::Pair(-341_966_506, 1_193_948_508));
        assert_eq!(gate(job), KeyParameters::Pair(-2_136_646_257, 799_031_104));
        assert_eq!(channel(job), 4);
        assert_eq!(first_slot(job), -2_741_307_744_326_922_240);
        let pair = KeyParameters::Pair(7, -1);
        assert_eq!(waiters(pair), KeyParameters::Bigint(-612_356_678_448_558_020));
        assert_eq!(gate(pair), KeyParameters::Bigint(3_798_843_264_091_836_761));
        assert_eq!(first_slot(pair), 5_131_209_681_688_317_952);
    }

    #[test]
    fn no_two_keys_share_a_key_beside_them_and_none_is_in_their_own_space() {
        let mut seen = Vec::new();
        for key in KEYS {
            for beside in [waiters(key), gate(key)] {
                let is_pair = |key| matches!(key, KeyParameters::Pair(..));
                assert_ne!(is_pair(key), is_pair(beside), "{key:?}");
                assert!(!seen.contains(&beside), "{key:?}");
                seen.push(beside);
            }
            assert!(channel(key) < CHANNELS);
            assert_eq!(first_slot(key) & SLOT_MASK, 0);
        }
        assert_eq!(i64::from(SLOTS_MAX), SLOT_MASK + 1, "every slot has a key of its own");
    }

    #[test]
    fn a_payload_is_read_back_and_nothing_else_is_taken() {
        for (payload, key) in [
            (&b"42"[..], Some(KeyParameters::Bigint(42))),
            (b"-9223372036854775808", Some(KeyParameters::Bigint(i64::MIN))),
            (b"7,-1", Some(KeyParameters::Pair(7, -1))),
            (b"", None),
            (b"x", None),
            (b"9223372036854775808", None),
            (b"1,2,3", None),
            (b"1,", None),
            (b"\xff", None),
        ] {
            assert_eq!(parse_payload(payload), key, "{payload:?}");
        }
    }
}
