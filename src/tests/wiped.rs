//! For tests: whether a secret is gone from memory once what holds it was dropped.
//!
//! Freed memory cannot be read in safe Rust; but the system shows it, by `/proc/self/mem`. Somebody
//! else may have it by then: that can make a copy go unnoticed, and never shows one that is none.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Freed memory begins with the allocator's own notes.
const NOTES: usize = 16;
/// So many bytes in a row are no chance.
const PIECE: usize = 8;

/// Drops a value, and says whether nothing is left of the bytes at a place in it.
pub(crate) fn is_wiped_when_dropped<T>(value: T, place: impl Fn(&T) -> &[u8]) -> bool {
    let memory = File::open("/proc/self/mem").expect("Linux shows a process its memory");
    let secret = place(&value).to_vec();
    let address = place(&value).as_ptr() as u64;
    assert!(secret.len() >= NOTES + PIECE, "too short to be found again");
    let mut seen = vec![0; secret.len()];
    memory.read_exact_at(&mut seen, address).expect("memory of ours");
    assert!(seen == secret && secret.iter().any(|byte| *byte != 0), "it is there before");
    drop(value);
    match memory.read_exact_at(&mut seen, address) {
        Ok(()) => {
            let (seen, secret) = (&seen[NOTES..], &secret[NOTES..]);
            let mut left = seen.windows(PIECE).zip(secret.windows(PIECE));
            !left.any(|(seen, secret)| seen == secret && seen != [0; PIECE])
        }
        // The system has it back.
        Err(_) => true,
    }
}

/// A password that is long enough to be found again, and no literal of the program.
pub(crate) fn password() -> String {
    (0..64_u32).filter_map(|n| char::from_u32(33 + n * 29 % 90)).collect()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::config::{Config, Secret};
    use crate::proto::authentication::Methods;
    use crate::proto::buffer::WriteBuf;
    use crate::proto::{frontend, rehearsal};

    #[test]
    fn a_copy_that_nobody_wipes_is_noticed() {
        let is_noticed = |_| !is_wiped_when_dropped(password(), |text| text.as_bytes());
        assert!((0..100).any(is_noticed));
    }

    #[test]
    fn a_secret_and_a_configuration_are_wiped_when_they_are_dropped() {
        let secret = Secret::from(password());
        assert!(is_wiped_when_dropped(secret, |secret| secret.expose().as_bytes()));
        let config = Config::new().password(password());
        // Not only the last copy: each has its own.
        for config in [config.clone(), config] {
            assert!(is_wiped_when_dropped(config, |config| {
                config.password.as_ref().expect("given").expose().as_bytes()
            }));
        }
    }

    #[test]
    fn credentials_are_wiped_when_they_are_dropped() {
        let methods = Methods { none: false, password: true, md5: false, scram_sha_256: false };
        let mut credentials = rehearsal::startup(methods).credentials;
        credentials.password = Some(Zeroizing::new(password()));
        assert!(is_wiped_when_dropped(credentials, |credentials| {
            credentials.password.as_ref().expect("given").as_bytes()
        }));
    }

    #[test]
    fn an_unsent_message_is_wiped_when_its_buffer_is_dropped() {
        let mut buf = WriteBuf::new(1_000);
        frontend::password_message(&mut buf, &password()).expect("it has room");
        assert!(is_wiped_when_dropped(buf, WriteBuf::pending));
    }
}
