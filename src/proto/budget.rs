//! How much a server may say that nobody waits for. A deadline bounds the time that it can cost;
//! this bounds the work.

use super::fault::Violation;

/// What a stretch of a session may still take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    limits: &'static Limits,
    messages: u32,
    bytes: u32,
}

#[derive(Debug)]
struct Limits {
    messages: u32,
    bytes: u32,
    too_many_messages: &'static str,
    too_many_bytes: &'static str,
}

/// No server needs more messages than this to start a session.
pub const STARTUP_MESSAGES_MAX: u32 = 256;
/// Nor more bytes.
pub const STARTUP_BYTES_MAX: u32 = 256 * 1024;
/// No server has more notices and reports of parameters than this between two answers, of which
/// there is one for each heartbeat at least. Notifications, which others send, do not count.
pub const UNASKED_MESSAGES_MAX: u32 = 16_384;
/// Nor more bytes.
pub const UNASKED_BYTES_MAX: u32 = 4 * 1024 * 1024;

static STARTUP: Limits = Limits {
    messages: STARTUP_MESSAGES_MAX,
    bytes: STARTUP_BYTES_MAX,
    too_many_messages: "messages before the session was ready",
    too_many_bytes: "bytes before the session was ready",
};

static UNASKED: Limits = Limits {
    messages: UNASKED_MESSAGES_MAX,
    bytes: UNASKED_BYTES_MAX,
    too_many_messages: "messages that nobody asked for between two answers",
    too_many_bytes: "bytes that nobody asked for between two answers",
};

impl Budget {
    /// For all messages of a session's start.
    pub fn of_startup() -> Self {
        Self { limits: &STARTUP, messages: 0, bytes: 0 }
    }

    /// For the asynchronous messages between two answers of a prepared session.
    pub fn of_unasked() -> Self {
        Self { limits: &UNASKED, messages: 0, bytes: 0 }
    }

    /// Takes one message of so many bytes.
    ///
    /// # Errors
    ///
    /// When that is too much.
    pub fn take(&mut self, size: usize) -> Result<(), Violation> {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u32::try_from(size).unwrap_or(u32::MAX));
        let Limits { messages, bytes, too_many_messages, too_many_bytes } = *self.limits;
        if self.messages > messages {
            return Err(Violation::Budget { what: too_many_messages, limit: messages });
        }
        if self.bytes > bytes {
            return Err(Violation::Budget { what: too_many_bytes, limit: bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_messages_and_bytes_and_no_more() {
        for (new, messages, bytes) in [
            (Budget::of_startup as fn() -> Budget, STARTUP_MESSAGES_MAX, STARTUP_BYTES_MAX),
            (Budget::of_unasked, UNASKED_MESSAGES_MAX, UNASKED_BYTES_MAX),
        ] {
            let mut budget = new();
            assert!((0..messages).all(|_| budget.take(1).is_ok()));
            assert!(budget.take(1).is_err());
            let mut budget = new();
            assert!(budget.take(bytes as usize).is_ok());
            assert!(budget.take(1).is_err());
            assert!(new().take(usize::MAX).is_err());
        }
    }
}
