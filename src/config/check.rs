//! The checks of a configuration, and the timing settings that follow from it.
//!
//! Invariant I9, "the holder knows first", rests on arithmetic alone, so it is checked here, once,
//! before anything is sent. `Manager::connect` calls [`Config::check`]; the guard reads
//! [`Config::server_settings`] for the settings statement. Nothing here reads a clock.
//!
//! The rules, with L the client's lease counted from the *send* of the last answered message, S
//! the server's `idle_session_timeout`, U its `tcp_user_timeout`, K the time its keepalives take to
//! give up, H the heartbeat and r the reply deadline:
//!
//! * The server cannot start S before it received that message, so the client's lease ends first
//!   if L, stretched by the drift between the two clocks and by the slack, is less than S.
//! * The same holds for K, which starts at the last packet that the server received.
//! * U starts at the oldest reply that was not acknowledged, which can be older than the last
//!   answered message by r: so L + r, stretched in the same way, is less than U.
//! * A request is given up after r; the lease must outlast it (r < L), or a late answer could
//!   restart a lease that had ended. An idle session is refreshed every H at the latest and the
//!   refresh takes up to r, so with H + r > L a healthy session could outlive its lease.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use super::ssl::{RootCert, SslMode};
use super::{Config, hosts, refuse};
use crate::error::Error;

/// The reading of the clock is never further from the act that follows it than this.
const SLACK: Duration = Duration::from_millis(50);

/// Two clocks that measure the same time differ by at most one part in this many (0.1 %).
const DRIFT_DIVISOR: u32 = 1000;

/// Every configured time is between these two.
const MIN_TIME: Duration = Duration::from_millis(10);
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer than that, and the executor's other tasks would feel it.
const LINGER_MAX: Duration = Duration::from_millis(1);

/// PostgreSQL cuts identifiers and `application_name` off here (NAMEDATALEN - 1).
const MAX_NAME_BYTES: usize = 63;
const MAX_PASSWORD_BYTES: usize = 1024;
/// Part of the first packet, of which the server takes 10,000 bytes.
const MAX_OPTIONS_BYTES: usize = 4096;

const MAX_LOCKS: u32 = 1_000_000;
const MAX_REQUESTS: u32 = 1_000_000;
const MAX_WAITERS: u32 = 1_000_000;

const KEEPALIVES_IDLE_S: u32 = 2;
const MIN_KEEPALIVES_INTERVAL_S: u32 = 2;
const MIN_KEEPALIVES_COUNT: u32 = 5;
/// Linux takes up to 127 probes; beyond this many the interval grows instead.
const KEEPALIVES_COUNT_TARGET: u32 = 100;
const CLIENT_CONNECTION_CHECK_INTERVAL_MS: u32 = 2000;

/// The settings that make the server give up on a lost session in time (manual:
/// runtime-config-client, "idle_session_timeout"; runtime-config-connection, "TCP Settings").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerSettings {
    /// A quarter of r: of the batches that are unanswered at a time each may wait for so long.
    pub(crate) lock_timeout_ms: u32,
    /// S. Rounded down: [`Config::check`] counts with the value that the server gets.
    pub(crate) idle_session_timeout_ms: u32,
    pub(crate) keepalives_idle_s: u32,
    pub(crate) keepalives_interval_s: u32,
    pub(crate) keepalives_count: u32,
    /// U. Rounded up.
    pub(crate) tcp_user_timeout_ms: u32,
    /// How often a busy server looks whether the client is still there.
    pub(crate) client_connection_check_interval_ms: u32,
}

impl Config {
    /// Refuses whatever could not be connected with, or would break invariant I9.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.user.is_none() {
            return refuse(format_args!(
                "no user is configured; use Config::user, put user in the connection string, \
                 or set PGUSER"
            ));
        }
        if self.refuse_3_0 && !self.ask_3_2 {
            return refuse(format_args!(
                "min_protocol_version is above max_protocol_version; lower the one or raise the \
                 other"
            ));
        }
        self.check_values()
    }

    /// All of [`check`](Self::check) that does not ask whether something is missing, for a
    /// configuration that was parsed and may still be completed by the builder.
    pub(super) fn check_values(&self) -> Result<(), Error> {
        hosts::servers(self)?;
        self.check_texts()?;
        self.socket.check()?;
        self.check_ssl()?;
        self.check_limits()?;
        self.check_times()
    }

    /// U, the server's `tcp_user_timeout`: S, or more where L + r asks for it. The extra second,
    /// and one part in a thousand of long times, cover the slack and the drift.
    fn server_tcp_user_timeout(&self) -> Duration {
        let span = self.lease.saturating_add(self.reply_timeout);
        // Twice the slack, since U has to be more than the sum, not just reach it.
        let margin = (span / DRIFT_DIVISOR).saturating_add(SLACK * 2).max(Duration::from_secs(1));
        let least = span.saturating_add(margin);
        Duration::from_millis(whole_millis_up(self.server_timeout.max(least)).into())
    }

    /// The heartbeat of a session that holds nothing and waits for nothing: twice H, or less where
    /// the server's patience, less the time that an answer may take, asks for it.
    pub(crate) fn idle_heartbeat(&self) -> Duration {
        let patience = self.server_timeout.saturating_sub(self.reply_timeout);
        self.heartbeat.saturating_mul(2).min(patience).max(self.heartbeat)
    }

    /// What the server is told at connect.
    pub(crate) fn server_settings(&self) -> ServerSettings {
        let bound_s = whole_millis_up(self.lease_bound()).div_ceil(1000);
        let interval_s = bound_s.div_ceil(KEEPALIVES_COUNT_TARGET).max(MIN_KEEPALIVES_INTERVAL_S);
        // The least count with idle + interval * count > bound.
        let count = bound_s.saturating_sub(KEEPALIVES_IDLE_S) / interval_s + 1;
        ServerSettings {
            lock_timeout_ms: whole_millis(self.reply_timeout / 4).max(1),
            idle_session_timeout_ms: whole_millis(self.server_timeout),
            keepalives_idle_s: KEEPALIVES_IDLE_S,
            keepalives_interval_s: interval_s,
            keepalives_count: count.max(MIN_KEEPALIVES_COUNT),
            tcp_user_timeout_ms: whole_millis(self.server_tcp_user_timeout()),
            client_connection_check_interval_ms: CLIENT_CONNECTION_CHECK_INTERVAL_MS,
        }
    }

    /// When the holder has surely noticed the end of its lease, by the server's clock.
    fn lease_bound(&self) -> Duration {
        with_drift(self.lease).saturating_add(SLACK)
    }

    fn check_texts(&self) -> Result<(), Error> {
        self.check_for_passwords()?;
        check_text("user", self.user.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
        check_text("dbname", self.dbname.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
        check_text("application_name", &self.application_name, MAX_NAME_BYTES)?;
        check_text("options", self.options.as_deref().unwrap_or_default(), MAX_OPTIONS_BYTES)?;
        let password = self.password.as_ref().map_or("", |password| password.expose());
        check_text("password", password, MAX_PASSWORD_BYTES)
    }

    /// Parameters that are not separated by spaces (`dbname=prod;password=..`) all become the value
    /// of the first one, and that would be shown.
    fn check_for_passwords(&self) -> Result<(), Error> {
        fn path(path: Option<&Path>) -> Cow<'_, str> {
            path.map_or(Cow::Borrowed(""), Path::to_string_lossy)
        }
        let root_cert = match &self.ssl.root_cert {
            Some(RootCert::File(path)) => Some(path.as_path()),
            Some(RootCert::System) | None => None,
        };
        let values = [
            ("user", self.user.as_deref().unwrap_or_default().into()),
            ("dbname", self.dbname.as_deref().unwrap_or_default().into()),
            ("application_name", self.application_name.as_str().into()),
            ("options", self.options.as_deref().unwrap_or_default().into()),
            ("passfile", path(self.passfile.as_deref())),
            ("sslrootcert", path(root_cert)),
            ("sslcert", path(self.ssl.cert.as_deref())),
            ("sslkey", path(self.ssl.key.as_deref())),
        ];
        for (name, value) in values {
            if value.to_ascii_lowercase().contains("password=") {
                return refuse(format_args!(
                    "{name} has `password=` in it, as when another parameter got into it; separate \
                     parameters with spaces, or in a URL with `&`"
                ));
            }
        }
        Ok(())
    }

    fn check_ssl(&self) -> Result<(), Error> {
        let mode = self.ssl_options().mode;
        if mode == SslMode::Disable || cfg!(feature = "tls") {
            return Ok(());
        }
        refuse(format_args!(
            "{} asks for TLS, which this build does not have; enable the feature `tls` of the \
             crate distlock, or use sslmode=disable on a network that is trusted",
            if self.ssl_mode.is_some() { "sslmode" } else { "sslrootcert" }
        ))
    }

    fn check_limits(&self) -> Result<(), Error> {
        let (least, most) = (*self.scram_iterations.start(), *self.scram_iterations.end());
        if least == 0 || least > most {
            return refuse(format_args!(
                "scram_iterations is {least} to {most}; expected a range of at least one number, \
                 from 1 on"
            ));
        }
        check_number("max_locks", self.max_locks, 1, MAX_LOCKS)?;
        check_number("max_requests", self.max_requests, 1, MAX_REQUESTS)?;
        check_number("max_waiters", self.max_waiters, 0, MAX_WAITERS)
    }

    fn check_times(&self) -> Result<(), Error> {
        check_time("connect_timeout", self.connect_timeout)?;
        check_time("heartbeat", self.heartbeat)?;
        check_time("reply_timeout", self.reply_timeout)?;
        check_time("lease", self.lease)?;
        check_time("server_timeout", self.server_timeout)?;

        if self.linger > LINGER_MAX {
            return refuse(format_args!(
                "linger is {:?}; it must be at most {LINGER_MAX:?}, since other tasks wait as long",
                self.linger
            ));
        }
        let Self { heartbeat, reply_timeout, lease, .. } = *self;
        if reply_timeout >= lease {
            return refuse(format_args!(
                "reply_timeout ({reply_timeout:?}) must be less than lease ({lease:?}), or an \
                 answer could come after the lease that it renews; lower Config::reply_timeout \
                 or raise Config::lease"
            ));
        }
        let renewed = heartbeat.saturating_add(reply_timeout);
        if renewed > lease {
            return refuse(format_args!(
                "heartbeat ({heartbeat:?}) + reply_timeout ({reply_timeout:?}) = {renewed:?} must \
                 not exceed lease ({lease:?}), or an idle session could outlive its lease; lower \
                 Config::heartbeat or Config::reply_timeout, or raise Config::lease"
            ));
        }
        let bound = self.lease_bound();
        let server_timeout = Duration::from_millis(whole_millis(self.server_timeout).into());
        if bound >= server_timeout {
            return refuse(format_args!(
                "lease ({lease:?}) + 0.1 % for clock drift + {SLACK:?} = {bound:?} must be less \
                 than server_timeout ({server_timeout:?}), or the server could free a lock before \
                 its holder knows; lower Config::lease or raise Config::server_timeout"
            ));
        }
        Ok(())
    }
}

fn with_drift(time: Duration) -> Duration {
    time.saturating_add(time / DRIFT_DIVISOR)
}

/// Rounded down. The server's settings are 32-bit signed integers; [`MAX_TIME`] is far below.
fn whole_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

fn whole_millis_up(time: Duration) -> u32 {
    whole_millis(time.saturating_add(Duration::from_nanos(999_999)))
}

fn check_text(name: &str, text: &str, max_bytes: usize) -> Result<(), Error> {
    if text.contains('\0') {
        return refuse(format_args!(
            "{name} contains a NUL character, which the protocol cannot carry; remove it"
        ));
    }
    if text.len() > max_bytes {
        return refuse(format_args!(
            "{name} has {} bytes; at most {max_bytes} are allowed{}",
            text.len(),
            if max_bytes == MAX_NAME_BYTES { ", the server would cut it off" } else { "" }
        ));
    }
    Ok(())
}

fn check_number(name: &str, number: u32, min: u32, max: u32) -> Result<(), Error> {
    if (min..=max).contains(&number) {
        return Ok(());
    }
    refuse(format_args!("{name} is {number}; it must be from {min} to {max}"))
}

fn check_time(name: &str, time: Duration) -> Result<(), Error> {
    if (MIN_TIME..=MAX_TIME).contains(&time) {
        return Ok(());
    }
    refuse(format_args!("{name} is {time:?}; it must be from {MIN_TIME:?} to {MAX_TIME:?}"))
}

#[cfg(test)]
mod tests;
