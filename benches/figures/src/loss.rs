//! How soon the holders of 10,000 locks know that the session has been ended.

use std::time::{Duration, Instant};

use distlock::{Cause, Config, Manager};

use crate::clients::Server;
use crate::figure::Goal::AtMost;
use crate::holding::lock_all;
use crate::report::{Report, Row};
use crate::spread::Spread;
use crate::support::Sql;

const LOCKS: u32 = 10_000;

/// Their keys, others each time: a session that was ended frees its own a moment later.
const FIRST_KEY: i64 = 1_000_000;

/// Nothing here takes so long.
const HANG: Duration = Duration::from_secs(60);

/// Measures so often, and says the figure.
pub(crate) fn run(server: &Server, observer: &mut Sql, repeats: usize, report: &mut Report) {
    let times: Vec<f64> = (0..repeats as i64)
        .map(|repeat| once(server, observer, FIRST_KEY + repeat * i64::from(LOCKS)) * 1e3)
        .collect();
    let row =
        Row { name: "the last of 10,000 contexts is done".into(), spread: Spread::of(&times) };
    let median = row.spread.p50;
    report.group("from pg_terminate_backend", "ms", vec![row]);
    report.figure(
        "loss_10k_ms",
        median,
        "ms",
        (AtMost, 20.0),
        "session ended with 10,000 locks held: until the last context is done",
    );
}

/// The seconds from right before the statement that ends the session.
fn once(server: &Server, observer: &mut Sql, first: i64) -> f64 {
    let config: Config = server.url().parse().expect("a URL");
    let manager = Manager::connect(config.max_locks(LOCKS)).expect("a session");
    let sets = lock_all(&manager, first, LOCKS);
    let key = first + i64::from(LOCKS) - 1;
    let pid = observer.value(&format!(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
         AND (classid::bigint << 32) | objid::bigint = {key}"
    ));
    let pid = pid.expect("the last key is held");
    let end = format!("SELECT pg_terminate_backend({pid})");
    let time = std::thread::scope(|scope| {
        let ender = scope.spawn(|| {
            let start = Instant::now();
            assert_eq!(observer.value(&end).as_deref(), Some("t"), "there is such a session");
            start
        });
        for lock in sets.iter().flat_map(|set| set.iter()) {
            let cause = lock.context().done().wait_timeout(HANG);
            assert_eq!(cause, Some(Cause::ServerShutdown), "{}", lock.key());
        }
        // Before the other thread is waited for: it may be slower.
        let end = Instant::now();
        end - ender.join().expect("no panic")
    });
    time.as_secs_f64()
}
