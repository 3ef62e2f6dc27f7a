//! Who is woken while a caller waits to be notified, counted exactly: that caller by the server
//! itself, and nobody by another thread.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use distlock::{Config, Context, Manager};
use support::{TempCluster, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

const HEARTBEAT: Duration = Duration::from_millis(200);

/// How often each thread of a name was put to sleep. The kernel counts a voluntary context switch
/// each time a thread waits for something.
fn sleeps_of(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = format!("Name:\t{name}\n");
    let count = |status: String| -> u64 {
        let mut lines = status.lines();
        let line = lines.find(|line| line.starts_with("voluntary_ctxt_switches:"));
        let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        count.expect("the kernel counts")
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .filter(|status| status.starts_with(&name))
        .map(count)
        .sum()
}

/// One test: the guard's threads of another would be counted too.
#[test]
fn a_notification_wakes_the_caller_that_waits_and_others_are_not_in_its_way() {
    let cluster = TempCluster::start();
    let config: Config = cluster.url().parse().expect("a URL");
    let manager = Manager::connect(config.heartbeat(HEARTBEAT)).expect("a session");
    let (key, mut sql) = (1, cluster.sql());
    sql.query(&format!("SELECT pg_advisory_lock({key})"));
    let notify: String =
        (0..8).map(|channel| format!("NOTIFY distlock_{channel}, '{key}';")).collect();
    thread::scope(|scope| {
        let waiter = || manager.acquire(key).timeout(LIMIT).wait().map(drop);
        let waiter = thread::Builder::new().name("waiter".into()).spawn_scoped(scope, waiter);
        let waiter = waiter.expect("a thread");
        let registered = "SELECT count(*) FROM pg_locks \
             WHERE locktype = 'advisory' AND mode = 'ShareLock'";
        wait_until("it is registered", LIMIT, || sql.value(registered).as_deref() == Some("1"));

        // While nothing happens but heartbeats, which the waiter sends and reads, the thread looks
        // less and less often. A pause, not a race.
        let (began, before) = (Instant::now(), sleeps_of("distlock-guard"));
        thread::sleep(10 * HEARTBEAT);
        let wakes = sleeps_of("distlock-guard") - before;
        let looks = (began.elapsed().as_nanos() / HEARTBEAT.as_nanos()) as u64;
        println!("{wakes} wake-ups of the guard's thread in {looks} heartbeats");
        assert!(wakes <= 2 * looks + 10, "{wakes} wake-ups in {looks} heartbeats");

        // Each notification leads to a try, after which the waiter sleeps again. The thread looks
        // every other millisecond, meanwhile.
        let began = Instant::now();
        let before = (sleeps_of("waiter"), sleeps_of("distlock-guard"));
        for tries in 1..=100 {
            sql.query(&notify);
            while sleeps_of("waiter") < before.0 + tries {
                assert!(began.elapsed() < LIMIT, "it is notified for the {tries}. time");
                thread::yield_now();
            }
        }
        let wakes = sleeps_of("distlock-guard") - before.1;
        let looks = began.elapsed().as_millis() as u64 / 2;
        println!("{wakes} wake-ups of the guard's thread, which may look {looks} times");
        assert!(wakes <= looks + 10, "{wakes} wake-ups, and {looks} looks");

        // Others do their own work, once the last of that is over: the first of them gets the seat.
        let mut before = 0;
        wait_until("it sleeps", LIMIT, || {
            std::mem::replace(&mut before, sleeps_of("waiter")) == before
        });
        for _ in 0..300 {
            let lock = manager.try_lock(&Context::background(), key + 1);
            drop(lock.expect("an answer").expect("it is free"));
        }
        let wakes = sleeps_of("waiter") - before;
        println!("{wakes} wake-ups of the waiter by 300 calls of another thread");
        assert!(wakes <= 30, "{wakes} wake-ups");

        sql.query(&format!("SELECT pg_advisory_unlock({key}); {notify}"));
        waiter.join().expect("no panic").expect("it is free");
    });
}
