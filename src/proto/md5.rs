//! The answer to an AuthenticationMD5Password message, which old servers still send.
//!
//! One function, without state. It does not decide whether md5 is acceptable: it is not, unless
//! the configuration says so, because whoever sees the answer can guess the password offline. The
//! authentication state machine of the session asks that first, then calls this.

use ::md5::{Digest, Md5};
use zeroize::Zeroizing;

/// The length of what [`md5_password`] makes: "md5" and 32 hexadecimal digits.
const ANSWER: usize = 35;

/// The password string of a PasswordMessage, without its final zero byte.
///
/// It is `"md5" || hex(md5(hex(md5(password || user)) || salt))` (manual: protocol-flow,
/// AuthenticationMD5Password). The salt is the four bytes that the server sent with its request.
pub fn md5_password(user: &str, password: &str, salt: [u8; 4]) -> [u8; ANSWER] {
    // What the server stores, "md5" and these digits, is as good as the password: it is wiped.
    let stored = Zeroizing::new(hex(&[password.as_bytes(), user.as_bytes()]));
    let digits = hex(&[stored.as_slice(), &salt]);
    let mut answer = [0; ANSWER];
    for (to, from) in answer.iter_mut().zip(b"md5".iter().chain(&digits)) {
        *to = *from;
    }
    answer
}

/// The MD5 hash of the parts, one after the other, as lower-case hexadecimal digits.
fn hex(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let sum = Zeroizing::new(<[u8; 16]>::from(hash.finalize()));
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(sum.iter()) {
        if let [high, low] = pair {
            *high = digit(byte >> 4);
            *low = digit(byte & 0x0f);
        }
    }
    digits
}

/// The digit of a number below 16.
fn digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.saturating_add(nibble),
        _ => b'a'.saturating_add(nibble.saturating_sub(10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation of MD5 (Python's hashlib).
    #[test]
    fn the_answer_is_that_of_an_independent_implementation() {
        let vectors: [(&str, &str, [u8; 4], &[u8; ANSWER]); 5] = [
            ("postgres", "secret", [1, 2, 3, 4], b"md5bb41a296aab6baccb36ff243a562abff"),
            ("app", "", [0, 0, 0, 0], b"md5aa1a92f5183c6f52188e4d6e78b1704f"),
            ("", "", [255, 255, 255, 255], b"md56c015adddfd3e0f4ffb71ca341ac82eb"),
            ("börje", "päss wörd", [0, 10, 13, 44], b"md50322ba4012655d10c73c7bf54ac88ba7"),
            (
                "uuu",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                [222, 173, 190, 239],
                b"md5ee421a9104591633e8e66f49a7753264",
            ),
        ];
        for (user, password, salt, answer) in vectors {
            assert_eq!(&md5_password(user, password, salt), answer, "user {user}");
        }
    }

    #[test]
    fn every_input_changes_the_answer() {
        let answer = md5_password("app", "secret", [1, 2, 3, 4]);
        assert_ne!(answer, md5_password("apq", "secret", [1, 2, 3, 4]));
        assert_ne!(answer, md5_password("app", "secreu", [1, 2, 3, 4]));
        for byte in 0..4_u32 {
            let salt = (0x0102_0304_u32 ^ (1 << (8 * byte))).to_be_bytes();
            assert_ne!(answer, md5_password("app", "secret", salt), "byte {byte} of the salt");
        }
    }
}
