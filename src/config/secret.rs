//! Text that must not be seen: a password, or a value that may turn out to hold one.
//!
//! The memory is wiped when the value is dropped, and `Debug` prints a placeholder. There is no
//! `Display`, so that no secret can slip into a message. The connection-string parsers keep every
//! value in here, since a misplaced quote can put a password where another value was meant.

use std::fmt;

use zeroize::Zeroizing;

/// A string that is wiped on drop and never printed.
#[derive(Clone, Default)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself; the caller must not keep it or print it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    /// Takes the string over as it is: a copy would leave the original behind in freed memory.
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_the_text_nor_its_length() {
        assert_eq!(format!("{:?} {:?}", Secret::from("canary"), Secret::from("")), "*** ***");
        assert_eq!(Secret::from("canary").expose(), "canary");
    }
}
