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

use std::path::PathBuf;
use std::time::Duration;

use super::{AuthMethods, Config, refuse};
use crate::error::Error;

/// The reading of the clock is never further from the act that follows it than this.
const SLACK: Duration = Duration::from_millis(50);

/// Two clocks that measure the same time differ by at most one part in this many (0.1 %).
const DRIFT_DIVISOR: u32 = 1000;

/// Every configured time is between these two.
const MIN_TIME: Duration = Duration::from_millis(10);
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// PostgreSQL cuts identifiers and `application_name` off here (NAMEDATALEN - 1).
const MAX_NAME_BYTES: usize = 63;
const MAX_PASSWORD_BYTES: usize = 1024;
const MAX_HOST_BYTES: usize = 255;
/// `sun_path` of unix(7), less the terminating NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;

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
        self.check_values()?;
        let methods = self.auth_methods();
        if self.password.is_none() && !methods.contains(AuthMethods::NONE) {
            return refuse(format_args!(
                "require_auth is {methods}, which needs a password, but none is configured; \
                 use Config::password or set PGPASSWORD"
            ));
        }
        Ok(())
    }

    /// All of [`check`](Self::check) that does not ask whether something is missing, for a
    /// configuration that was parsed and may still be completed by the builder.
    pub(super) fn check_values(&self) -> Result<(), Error> {
        self.check_host()?;
        self.check_texts()?;
        self.check_limits()?;
        self.check_times()
    }

    /// The file of the Unix-domain socket, where the host is a directory.
    pub(crate) fn socket_path(&self) -> Option<PathBuf> {
        let name = format!(".s.PGSQL.{}", self.port);
        self.host.starts_with('/').then(|| PathBuf::from(&self.host).join(name))
    }

    /// U, the server's `tcp_user_timeout`: S, or more where L + r asks for it. The extra second,
    /// and one part in a thousand of long times, cover the slack and the drift.
    pub(crate) fn tcp_user_timeout(&self) -> Duration {
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
            idle_session_timeout_ms: whole_millis(self.server_timeout),
            keepalives_idle_s: KEEPALIVES_IDLE_S,
            keepalives_interval_s: interval_s,
            keepalives_count: count.max(MIN_KEEPALIVES_COUNT),
            tcp_user_timeout_ms: whole_millis(self.tcp_user_timeout()),
            client_connection_check_interval_ms: CLIENT_CONNECTION_CHECK_INTERVAL_MS,
        }
    }

    /// When the holder has surely noticed the end of its lease, by the server's clock.
    fn lease_bound(&self) -> Duration {
        with_drift(self.lease).saturating_add(SLACK)
    }

    /// The texts of these errors do not repeat the host: a password with an unescaped `@` or `/`
    /// ends up in it.
    fn check_host(&self) -> Result<(), Error> {
        let host = self.host.as_str();
        if host.is_empty() {
            return refuse(format_args!(
                "host is empty; expected a name, an IP address, or the absolute path of the \
                 socket's directory"
            ));
        }
        if host.contains(',') {
            return refuse(format_args!(
                "several hosts separated by commas are not supported; name one host"
            ));
        }
        if host.contains(char::is_control) {
            return refuse(format_args!("host contains a control character; remove it"));
        }
        if let Some(path) = self.socket_path() {
            let length = path.as_os_str().len();
            if length > MAX_SOCKET_PATH_BYTES {
                return refuse(format_args!(
                    "the path of the socket has {length} bytes, and the system takes at most \
                     {MAX_SOCKET_PATH_BYTES}; use a directory with a shorter path"
                ));
            }
            return Ok(());
        }
        if host.len() > MAX_HOST_BYTES {
            return refuse(format_args!(
                "host has {} bytes; a host name has at most {MAX_HOST_BYTES}",
                host.len()
            ));
        }
        if host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '[' | ']')) {
            return refuse(format_args!(
                "host has a character that no host name has (one of `/ @ [ ]` or a space); \
                 expected a name, an IP address without brackets, or the absolute path of the \
                 socket's directory; in a URL, write `/` and `@` of a password as %2F and %40"
            ));
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), Error> {
        check_text("user", self.user.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
        check_text("dbname", self.dbname.as_deref().unwrap_or_default(), MAX_NAME_BYTES)?;
        check_text("application_name", &self.application_name, MAX_NAME_BYTES)?;
        let password = self.password.as_ref().map_or("", |password| password.expose());
        check_text("password", password, MAX_PASSWORD_BYTES)
    }

    fn check_limits(&self) -> Result<(), Error> {
        check_number("port", self.port.into(), 1, u16::MAX.into())?;
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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn config() -> Config {
        Config::new().user("app")
    }

    fn refusal(config: &Config) -> String {
        config.check().expect_err("the configuration should have been refused").to_string()
    }

    #[test]
    fn the_defaults_pass_and_give_the_designed_settings() {
        config().check().unwrap();
        let expected = ServerSettings {
            idle_session_timeout_ms: 10_000,
            keepalives_idle_s: 2,
            keepalives_interval_s: 2,
            keepalives_count: 5,
            tcp_user_timeout_ms: 10_000,
            client_connection_check_interval_ms: 2000,
        };
        assert_eq!(config().server_settings(), expected);
    }

    #[test]
    fn the_lease_with_drift_and_slack_ends_before_the_server_timeout() {
        // 6 s + 6 ms + 50 ms = 6.056 s.
        let at = config().server_timeout(Duration::from_millis(6056));
        let text = refusal(&at);
        assert!(text.contains("6.056s") && text.contains("raise Config::server_timeout"), "{text}");
        config().server_timeout(Duration::from_millis(6057)).check().unwrap();
        // The server takes whole milliseconds, so the part beyond them does not count.
        let fraction = Duration::from_millis(6056) + Duration::from_micros(999);
        assert!(refusal(&config().server_timeout(fraction)).contains("server_timeout (6.056s)"));
    }

    #[test]
    fn the_reply_deadline_is_below_the_lease() {
        let config = config().heartbeat(10 * MS);
        let text = refusal(&config.clone().reply_timeout(Duration::from_secs(6)));
        assert!(text.contains("reply_timeout (6s) must be less than lease (6s)"), "{text}");
        config.reply_timeout(Duration::from_millis(5990)).check().unwrap();
    }

    #[test]
    fn an_idle_session_renews_its_lease_in_time() {
        let text = refusal(&config().heartbeat(Duration::from_millis(3001)));
        assert!(text.contains("= 6.001s must not exceed lease (6s)"), "{text}");
        config().heartbeat(Duration::from_millis(3000)).check().unwrap();
    }

    #[test]
    fn an_idle_session_is_heard_before_the_server_loses_its_patience() {
        assert_eq!(config().idle_heartbeat(), Duration::from_secs(4));
        let tight = config()
            .heartbeat(Duration::from_millis(800))
            .reply_timeout(Duration::from_millis(200))
            .lease(Duration::from_secs(1))
            .server_timeout(Duration::from_millis(1100));
        tight.check().unwrap();
        assert_eq!(tight.idle_heartbeat(), Duration::from_millis(900));
    }

    #[test]
    fn the_derived_timeouts_outlast_the_lease_for_every_accepted_timing() {
        for lease_ms in [100, 999, 6000, 9943, 60_000, 3_600_000, 86_000_000] {
            for reply_ms in [10, 50, lease_ms / 2, lease_ms - 10] {
                let lease = Duration::from_millis(lease_ms);
                let reply = Duration::from_millis(reply_ms);
                let server_timeout = lease + lease / 1000 + SLACK + MS;
                let config = config()
                    .heartbeat(10 * MS)
                    .reply_timeout(reply)
                    .lease(lease)
                    .server_timeout(server_timeout);
                config.check().unwrap();
                let drifted = with_drift(lease) + SLACK;
                let settings = config.server_settings();
                assert!(with_drift(lease + reply) + SLACK < config.tcp_user_timeout());
                let probes = settings.keepalives_interval_s * settings.keepalives_count;
                let kept = Duration::from_secs((settings.keepalives_idle_s + probes).into());
                assert!(drifted < kept && settings.keepalives_count <= 127, "{settings:?}");
                assert!(settings.idle_session_timeout_ms >= 1);
            }
        }
    }

    #[test]
    fn every_time_has_a_least_and_a_greatest_value() {
        let (below, above) = (MIN_TIME - Duration::from_nanos(1), MAX_TIME + MS);
        for time in [Duration::ZERO, below, above, Duration::MAX] {
            let rows = [
                ("connect_timeout is", config().connect_timeout(time)),
                ("heartbeat is", config().heartbeat(time)),
                ("reply_timeout is", config().reply_timeout(time)),
                ("lease is", config().lease(time)),
                ("server_timeout is", config().server_timeout(time)),
            ];
            for (expected, config) in rows {
                assert!(refusal(&config).contains(expected));
                // What follows from a configuration that is not checked yet does not panic.
                let _ = config.server_settings();
            }
        }
        config().connect_timeout(MIN_TIME).check().unwrap();
        config().server_timeout(MAX_TIME).connect_timeout(MAX_TIME).check().unwrap();
    }

    #[test]
    fn every_number_has_its_range() {
        let refused = [
            ("port is 0", config().port(0)),
            ("max_locks is 0", config().max_locks(0)),
            ("max_locks is 1000001", config().max_locks(1_000_001)),
            ("max_requests is 0", config().max_requests(0)),
            ("max_requests is 1000001", config().max_requests(1_000_001)),
            ("max_waiters is 1000001", config().max_waiters(1_000_001)),
        ];
        for (expected, config) in refused {
            assert!(refusal(&config).contains(expected));
        }
        let most = config().max_locks(1_000_000).max_requests(1_000_000).max_waiters(1_000_000);
        most.check().unwrap();
        config().max_locks(1).max_requests(1).max_waiters(0).check().unwrap();
    }

    #[test]
    fn texts_that_the_server_would_cut_or_cannot_get_are_refused() {
        let long = "x".repeat(64);
        let refused = [
            ("no user", Config::new()),
            ("no user", Config::new().user("")),
            ("user has 64 bytes", config().user(&long)),
            ("dbname has 64 bytes", config().dbname(&long)),
            ("application_name has 64 bytes", config().application_name(&long)),
            ("password has 1025 bytes", config().password("x".repeat(1025))),
            ("user contains a NUL", config().user("a\0b")),
            ("dbname contains a NUL", config().dbname("a\0b")),
            ("application_name contains a NUL", config().application_name("a\0b")),
            ("password contains a NUL", config().password("a\0b")),
        ];
        for (expected, config) in refused {
            let text = refusal(&config);
            assert!(text.contains(expected), "{text}");
        }
        config().user("x".repeat(63)).password("x".repeat(1024)).check().unwrap();
    }

    #[test]
    fn a_host_is_a_name_an_address_or_an_absolute_path() {
        for host in ["db", "db.internal", "10.0.0.1", "::1", "fe80::1%eth0", "/run/pg sql"] {
            config().host(host).check().unwrap();
        }
        for host in ["", "a,b", "a b", "a\0b", "/a\0b", "a@b", "@abstract", "[::1]", "./run", "a/b"]
        {
            assert!(refusal(&config().host(host)).contains("host"), "{host}");
        }
        assert!(refusal(&config().host("x".repeat(256))).contains("256 bytes"));
        // 107 bytes with "/.s.PGSQL.5432", which has 14.
        config().host(format!("/{}", "x".repeat(92))).check().unwrap();
        let text = refusal(&config().host(format!("/{}", "x".repeat(93))));
        assert!(text.contains("108 bytes"), "{text}");
    }

    #[test]
    fn a_directory_as_host_gives_the_path_of_the_socket() {
        let config = Config::new().host("/run/postgresql").port(5433);
        assert_eq!(config.socket_path(), Some(PathBuf::from("/run/postgresql/.s.PGSQL.5433")));
        assert_eq!(Config::new().host("db").socket_path(), None);
    }

    #[test]
    fn a_method_that_needs_a_password_needs_a_password() {
        let scram = config().require_auth(AuthMethods::SCRAM_SHA_256);
        assert!(refusal(&scram).contains("scram-sha-256, which needs a password"));
        scram.password("x").check().unwrap();
        config().require_auth(AuthMethods::NONE | AuthMethods::MD5).check().unwrap();
    }
}
