//! What is refused, at its very border, and the settings that follow from what is accepted.

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
        lock_timeout_ms: 750,
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
fn a_poll_lingers_for_a_millisecond_at_most() {
    config().linger(MS).check().unwrap();
    config().linger(Duration::ZERO).check().unwrap();
    let text = refusal(&config().linger(MS + Duration::from_nanos(1)));
    assert!(text.contains("linger") && text.contains("at most 1ms"), "{text}");
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
            assert!(with_drift(lease + reply) + SLACK < config.server_tcp_user_timeout());
            let probes = settings.keepalives_interval_s * settings.keepalives_count;
            let kept = Duration::from_secs((settings.keepalives_idle_s + probes).into());
            assert!(drifted < kept && settings.keepalives_count <= 127, "{settings:?}");
            assert!(settings.idle_session_timeout_ms >= 1 && settings.lock_timeout_ms >= 1);
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
