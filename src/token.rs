//! Fencing tokens.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A number that is larger for every later fenced grant, so that a resource can refuse who comes
/// late.
///
/// It is the timeline and the place in the write-ahead log at which the grant was written down, in
/// that order of weight, and it grows across crashes and failovers of one cluster (manual:
/// continuous-archiving, "Timelines"; functions-admin, `pg_logical_emit_message`). Tokens of
/// different clusters, or of one before and after it was restored from a backup or upgraded with
/// `pg_upgrade`, say nothing about each other.
///
/// ```
/// use distlock::Token;
///
/// let earlier: Token = "00000001/0/300D8E0".parse()?;
/// let later = Token { timeline: 2, lsn: 0x28 };
/// assert!(later > earlier, "the timeline counts first");
/// assert_eq!(earlier.to_string(), "00000001/0/300D8E0");
/// # Ok::<(), distlock::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Raised by every promotion of a standby.
    pub timeline: u32,
    /// The log sequence number: where in the write-ahead log, in bytes.
    pub lsn: u64,
}

/// The bits of the log sequence number in [`Token::to_i64`].
const LSN_BITS: u32 = 48;

impl Token {
    /// As one number, for a resource that stores no more: 15 bits of timeline above 48 bits of
    /// log, never negative, in the same order.
    ///
    /// # Errors
    ///
    /// [`Error::TokenTooLarge`] from timeline 32,768 or 256 TiB of log.
    ///
    /// ```
    /// # use distlock::Token;
    /// let token = Token { timeline: 1, lsn: 0x300_D8E0 };
    /// assert_eq!(token.to_i64()?, 1 << 48 | 0x300_D8E0);
    /// assert_eq!(Token::from_i64(token.to_i64()?), Some(token));
    /// # Ok::<(), distlock::Error>(())
    /// ```
    pub fn to_i64(self) -> Result<i64, Error> {
        if self.timeline >= 1 << (63 - LSN_BITS) || self.lsn >= 1 << LSN_BITS {
            return Err(Error::TokenTooLarge { token: self });
        }
        Ok(i64::from(self.timeline) << LSN_BITS | self.lsn as i64)
    }

    /// The inverse of [`Token::to_i64`]; `None` for a negative number.
    ///
    /// ```
    /// assert_eq!(distlock::Token::from_i64(-1), None);
    /// ```
    pub fn from_i64(number: i64) -> Option<Self> {
        let number = u64::try_from(number).ok()?;
        let lsn = number & ((1 << LSN_BITS) - 1);
        Some(Self { timeline: (number >> LSN_BITS) as u32, lsn })
    }
}

/// The timeline in eight hexadecimal digits, and the log sequence number as PostgreSQL writes it.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}/{:X}/{:X}", self.timeline, self.lsn >> 32, self.lsn as u32)
    }
}

impl FromStr for Token {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) prints.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for anything else.
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let mut parts = text.split('/').map(|part| {
                let is_hex = part.len() <= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
                u32::from_str_radix(part, 16).ok().filter(|_| is_hex)
            });
            let (timeline, high, low) = (parts.next()??, parts.next()??, parts.next()??);
            let token = Self { timeline, lsn: u64::from(high) << 32 | u64::from(low) };
            parts.next().is_none().then_some(token)
        };
        read().ok_or_else(|| {
            let expected = "a fencing token has the form 00000001/0/300D8E0: timeline and log \
                            sequence number, hexadecimal";
            Error::Config(expected.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_keeps_the_order_and_refuses_what_it_cannot_hold() {
        let tokens = [(0, 0), (0, 1), (1, 0), (1, (1 << 48) - 1), (2, 5), (32_767, 9)];
        let tokens = tokens.map(|(timeline, lsn)| Token { timeline, lsn });
        for pair in tokens.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_i64().expect("it fits") < pair[1].to_i64().expect("it fits"));
        }
        for token in tokens {
            assert_eq!(Token::from_i64(token.to_i64().expect("it fits")), Some(token));
        }
        for (timeline, lsn) in [(32_768, 0), (1, 1 << 48), (u32::MAX, u64::MAX)] {
            let error = Token { timeline, lsn }.to_i64().expect_err("too large");
            assert!(matches!(error, Error::TokenTooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back_and_nothing_else() {
        for (timeline, lsn) in [(1, 0x300_D8E0), (u32::MAX, u64::MAX), (0, 0)] {
            let token = Token { timeline, lsn };
            assert_eq!(token.to_string().parse::<Token>().ok(), Some(token));
        }
        for text in ["", "1", "1/2", "1/2/3/4", "+1/2/3", "1/ 2/3", "123456789/0/0", "x/0/0"] {
            assert!(text.parse::<Token>().is_err_and(|error| error.is_config()), "{text}");
        }
    }
}
