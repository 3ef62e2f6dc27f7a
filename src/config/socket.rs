//! The options of our own end of a TCP connection (manual: libpq-connect). Values only: the guard
//! sets them on the socket. Those of the server's end are in `check`.

use std::time::Duration;

use super::refuse;
use crate::error::Error;

/// What Linux takes at most (tcp(7)); a greater value would be an error when connecting.
const MAX_KEEPALIVES_TIME: Duration = Duration::from_secs(32_767);
const MAX_KEEPALIVES_COUNT: u32 = 127;
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Options of a TCP socket. What is `None` is left to the system. A Unix-domain socket has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// SO_KEEPALIVE. When it is off, the next three do not count.
    pub(crate) keepalives: bool,
    /// TCP_KEEPIDLE, in whole seconds.
    pub(crate) keepalives_idle: Option<Duration>,
    /// TCP_KEEPINTVL, in whole seconds.
    pub(crate) keepalives_interval: Option<Duration>,
    /// TCP_KEEPCNT.
    pub(crate) keepalives_count: Option<u32>,
    /// TCP_USER_TIMEOUT, in whole milliseconds.
    pub(crate) tcp_user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            keepalives: true,
            keepalives_idle: None,
            keepalives_interval: None,
            keepalives_count: None,
            tcp_user_timeout: None,
        }
    }
}

impl SocketOptions {
    pub(super) fn check(&self) -> Result<(), Error> {
        let second = Duration::from_secs(1);
        check_time("keepalives_idle", self.keepalives_idle, second, MAX_KEEPALIVES_TIME)?;
        check_time("keepalives_interval", self.keepalives_interval, second, MAX_KEEPALIVES_TIME)?;
        let millisecond = Duration::from_millis(1);
        check_time("tcp_user_timeout", self.tcp_user_timeout, millisecond, MAX_USER_TIMEOUT)?;
        match self.keepalives_count {
            Some(count) if !(1..=MAX_KEEPALIVES_COUNT).contains(&count) => refuse(format_args!(
                "keepalives_count is {count}; it must be from 1 to {MAX_KEEPALIVES_COUNT}"
            )),
            _ => Ok(()),
        }
    }
}

/// From one unit of what the system takes, so that rounding down never gives nothing.
fn check_time(
    name: &str,
    time: Option<Duration>,
    unit: Duration,
    max: Duration,
) -> Result<(), Error> {
    match time {
        Some(time) if !(unit..=max).contains(&time) => {
            refuse(format_args!("{name} is {time:?}; it must be from {unit:?} to {max:?}"))
        }
        _ => Ok(()),
    }
}
