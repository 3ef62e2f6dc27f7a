//! `settle` where it is for: who had the key before has not released it, its session was lost.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Cause, Config, Lock, Manager};

use super::LIMIT;
use super::relay::Relay;
use crate::support::{TempCluster, block_on, pg_locks_advisory, signal, wait_until};

const LEASE: Duration = Duration::from_secs(3);
/// The lease with its drift and its slack.
const PAUSE: Duration = Duration::from_millis(3_053);
const KEYS: [i64; 2] = [1, 2];

/// Long enough for a machine that is busy elsewhere, and short enough to be waited for.
fn connect(config: Config) -> Manager {
    let config = config.heartbeat(Duration::from_millis(200)).reply_timeout(LEASE * 2 / 3);
    Manager::connect(config.lease(LEASE).server_timeout(LEASE * 2)).expect("connects")
}

fn backend_of(cluster: &TempCluster, key: i64) -> Option<i32> {
    let held = pg_locks_advisory(&mut cluster.sql());
    held.iter().find(|(locked, _)| *locked == key).map(|(_, backend)| *backend)
}

/// Of each key the last moment at which another session than `former` did not have it yet.
fn not_yet_granted(cluster: &TempCluster, former: i32, ended: Instant) -> [Instant; 2] {
    let mut before = [ended; 2];
    let mut sql = cluster.sql();
    wait_until("the next one has both keys", LIMIT, || {
        let now = Instant::now();
        let held = pg_locks_advisory(&mut sql);
        let is_granted = |key| held.iter().any(|(locked, by)| *locked == key && *by != former);
        let missing = KEYS.map(|key| !is_granted(key));
        for (before, _) in before.iter_mut().zip(missing).filter(|(_, missing)| *missing) {
            *before = now;
        }
        missing == [false; 2]
    });
    before
}

/// What the next holder sees at the moment at which it is told.
struct Told {
    at: Instant,
    is_former_held: bool,
    former: Option<Cause>,
    lock: Lock,
}

impl Told {
    fn new(lock: Lock, former: &Lock) -> Self {
        // In this order: nothing here waits for the former one to find out.
        let (is_former_held, cause) = (former.is_held(), former.context().err());
        Self { at: Instant::now(), is_former_held, former: cause, lock }
    }
}

/// Ends the session of a holder that two others wait for, one by blocking and one by a future.
fn check_the_next_of_a_lost_holder(is_cut: bool, causes: &[Cause]) {
    let cluster = TempCluster::start();
    let relay = Relay::start(&cluster);
    let former = connect(relay.config());
    let next = connect(cluster.url().parse().expect("a URL"));
    let held = KEYS.map(|key| former.acquire(key).try_now().expect("an answer").expect("free"));
    let backend = backend_of(&cluster, KEYS[0]).expect("it is held");
    thread::scope(|scope| {
        let waiters = [false, true].map(|is_async| {
            let place = usize::from(is_async);
            let (asked, former) = (next.acquire(KEYS[place]).settle(PAUSE), &held[place]);
            scope.spawn(move || {
                let lock = if is_async { block_on(asked) } else { asked.timeout(LIMIT).wait() };
                Told::new(lock.expect("its turn"), former)
            })
        });
        wait_until("both are registered", LIMIT, || super::all_locks(&cluster).len() > 3);
        assert!(
            waiters.iter().all(|waiter| !waiter.is_finished()) && held.iter().all(Lock::is_held)
        );
        if is_cut {
            relay.cut();
        }
        let ended = Instant::now();
        cluster.sql().query(&format!("SELECT pg_terminate_backend({backend})"));
        let granted = not_yet_granted(&cluster, backend, ended);
        println!("granted; the former one believes in it: {}", held[0].is_held());
        for (waiter, granted) in waiters.into_iter().zip(granted) {
            let told = waiter.join().expect("no panic");
            assert!(told.at - granted >= PAUSE, "told {:?} after the grant", told.at - granted);
            assert!(!told.is_former_held, "two believe in one lock");
            assert!(told.former.is_some_and(|cause| causes.contains(&cause)), "{:?}", told.former);
            assert!(told.lock.is_held());
            told.lock.unlock().expect("it was held");
        }
    });
    assert!(held.into_iter().all(|lock| lock.unlock().expect_err("lost").is_session_lost()));
}

#[test]
fn who_follows_a_holder_that_the_server_told_of_its_loss_is_told_after_the_pause() {
    check_the_next_of_a_lost_holder(false, &[Cause::ServerShutdown]);
}

/// The server has freed the key, and its word does not reach the holder.
#[test]
fn who_follows_a_holder_that_hears_nothing_of_its_loss_is_told_once_that_has_stopped_believing() {
    check_the_next_of_a_lost_holder(true, &[Cause::ReplyOverdue, Cause::LeaseExpired]);
}

/// Set for the process that is killed: the server's URL.
const HOLDER: &str = "DISTLOCK_TEST_SETTLE_HOLDER";

#[test]
fn who_follows_a_process_that_was_killed_is_told_after_the_pause() {
    if let Ok(url) = std::env::var(HOLDER) {
        let manager = connect(url.parse().expect("a URL"));
        let _held = manager.acquire(KEYS[0]).try_now().expect("an answer").expect("it is free");
        println!("HELD");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let cluster = TempCluster::start();
    let next = connect(cluster.url().parse().expect("a URL"));
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    let name = "settle::who_follows_a_process_that_was_killed_is_told_after_the_pause";
    command.args(["--exact", name, "--nocapture"]).env(HOLDER, cluster.url());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    for is_async in [false, true] {
        let mut holder = command.spawn().expect("starts itself");
        let lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
        let mut lines = lines.map(|line| line.expect("the process's output"));
        assert!(lines.any(|line| line.contains("HELD")), "the process has ended");
        let taken = next.acquire(KEYS[0]).settle(PAUSE).try_now().expect("an answer");
        assert!(taken.is_none(), "who is refused is told at once");
        assert!(signal(holder.id(), "KILL"));
        holder.wait().expect("it has ended");
        wait_until("the server has freed the key", LIMIT, || {
            backend_of(&cluster, KEYS[0]).is_none()
        });
        let (pause, begin) = (PAUSE / 10, Instant::now());
        let asked = next.acquire(KEYS[0]).settle(pause);
        let lock = if is_async { block_on(asked) } else { asked.wait() }.expect("it is free");
        assert!(begin.elapsed() >= pause, "told after {:?}", begin.elapsed());
        lock.unlock().expect("it was held");
    }
}
