//! What holders and waiters are told when the session is lost, in every way that it can be: each
//! test has a server of its own, and ends the session, the server, or this process.

mod support;

use std::future::{Future, IntoFuture};
use std::io::{BufRead, BufReader, Read, Write};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{self, Waker};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Acquiring, Cause, Config, Context, Error, Lock, Manager, Outcome};
use support::{StopMode, TempCluster, block_on, lock_when_back, pg_locks_advisory, wait_until};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn config(cluster: &TempCluster) -> Config {
    cluster.url().parse().expect("a URL")
}

/// Notices a silent server soon; still long enough for a machine that is busy elsewhere.
fn quick(cluster: &TempCluster) -> Config {
    config(cluster)
        .heartbeat(Duration::from_millis(200))
        .reply_timeout(Duration::from_secs(2))
        .lease(Duration::from_secs(3))
        .server_timeout(Duration::from_secs(4))
}

fn connect(config: Config) -> Manager {
    Manager::connect(config).expect("connects")
}

fn lock(manager: &Manager, key: i64) -> Lock {
    manager.try_lock(&Context::background(), key).expect("answers").expect("free")
}

fn signal(pid: impl std::fmt::Display, name: &str) {
    assert!(support::signal(&pid, name), "no process {pid}");
}

/// The backend that holds the key.
fn backend_of(cluster: &TempCluster, key: i64) -> i32 {
    let held = pg_locks_advisory(&mut cluster.sql());
    held.iter().find(|(locked, _)| *locked == key).expect("locked").1
}

/// A request for a lock that was asked for, and is not answered yet.
fn asked(manager: &Manager, key: i64) -> Pin<Box<Acquiring>> {
    let mut future = Box::pin(manager.acquire(key).into_future());
    let polled = future.as_mut().poll(&mut task::Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    future
}

/// Ends the session of a manager with holders and waiters, and checks what they are told.
fn check_loss(cluster: &mut TempCluster, causes: &[Cause], end: impl Fn(&mut TempCluster, i32)) {
    let manager = connect(config(cluster));
    let ctx = Context::background().with_cancel().0;
    let holders: Vec<Lock> =
        (1..=3).map(|key| manager.try_lock(&ctx, key).expect("answers").expect("free")).collect();
    let waiters: Vec<_> = (1..=3).map(|key| asked(&manager, key)).collect();
    let child = holders[0].context().with_timeout(LIMIT * 100);
    let backend = backend_of(cluster, 1);
    end(cluster, backend);
    for lock in &holders {
        let cause = lock.context().done().wait_timeout(LIMIT).expect("told");
        assert!(causes.contains(&cause), "{cause:?}");
        assert!(!lock.is_held() && lock.remaining().is_zero());
    }
    assert!(child.err().is_some_and(|cause| causes.contains(&cause)) && !ctx.is_done());
    for waiter in waiters {
        let error = block_on(waiter).expect_err("its session ended");
        assert!(error.is_session_lost(), "{error}");
        assert_eq!(error.outcome(), Outcome::NotAcquired, "it only queued");
    }
    // The manager comes back, the old locks do not, and their release does not reach the new.
    let again = lock_when_back(&manager, 1);
    assert!(holders.iter().all(|lock| !lock.is_held() && lock.context().is_done()));
    for lock in holders {
        let error = lock.unlock().expect_err("lost long ago");
        assert!(error.is_session_lost(), "{error}");
    }
    assert!(again.is_held());
    assert_eq!(backend_of(cluster, 1), pg_locks_advisory(&mut cluster.sql())[0].1);
    again.unlock().expect("it was held");
    assert_eq!(pg_locks_advisory(&mut cluster.sql()), []);
}

#[test]
fn a_terminated_backend_is_told_as_such() {
    check_loss(&mut TempCluster::start(), &[Cause::ServerShutdown], |cluster, backend| {
        cluster.sql().query(&format!("SELECT pg_terminate_backend({backend})"));
    });
}

#[test]
fn a_killed_backend_and_the_crash_restart_it_causes_are_told() {
    let causes = [Cause::ConnectionLost, Cause::ServerShutdown];
    check_loss(&mut TempCluster::start(), &causes, |_, backend| signal(backend, "KILL"));
}

#[test]
fn a_crash_of_somebody_elses_backend_is_told() {
    let causes = [Cause::ConnectionLost, Cause::ServerShutdown];
    check_loss(&mut TempCluster::start(), &causes, |cluster, _| {
        signal(cluster.sql().pid(), "KILL");
    });
}

#[test]
fn a_fast_restart_is_told() {
    check_loss(&mut TempCluster::start(), &[Cause::ServerShutdown], |cluster, _| {
        cluster.restart_fast();
    });
}

#[test]
fn an_immediate_restart_is_told() {
    let causes = [Cause::ConnectionLost, Cause::ServerShutdown];
    check_loss(&mut TempCluster::start(), &causes, |cluster, _| {
        cluster.stop(StopMode::Immediate);
        cluster.start_again();
    });
}

#[test]
fn a_killed_postmaster_is_told() {
    let causes = [Cause::ConnectionLost, Cause::ServerShutdown];
    check_loss(&mut TempCluster::start(), &causes, |cluster, _| {
        cluster.kill9_postmaster();
        cluster.start_again();
    });
}

#[test]
fn a_backend_that_hangs_is_given_up_before_its_lock_is_free_and_puts_off_no_closing() {
    let cluster = TempCluster::start();
    let manager = connect(quick(&cluster));
    let held = lock(&manager, 1);
    let backend = backend_of(&cluster, 1);
    signal(backend, "STOP");
    let begin = Instant::now();
    let cause = held.context().done().wait_timeout(LIMIT).expect("told");
    println!("a hanging backend was given up after {:?}: {cause}", begin.elapsed());
    assert!([Cause::ReplyOverdue, Cause::LeaseExpired].contains(&cause), "{cause:?}");
    assert!(!held.is_held());
    // The new session sees the lock with the old one, and does not take it for its own.
    drop(lock_when_back(&manager, 2));
    assert!(manager.try_lock(&Context::background(), 1).expect("answers").is_none());
    assert!(!held.is_held() && held.context().err() == Some(cause));
    signal(backend, "CONT");
    let again = lock_when_back(&manager, 1);
    // Closing does not wait for a server that is silent.
    let backend = backend_of(&cluster, 1);
    signal(backend, "STOP");
    manager.close();
    assert_eq!(again.context().err(), Some(Cause::ManagerClosed));
    signal(backend, "CONT");
}

#[test]
fn requests_under_way_at_the_loss_say_whether_they_may_have_been_granted() {
    let cluster = TempCluster::start();
    // No heartbeat meanwhile: what is overdue is the request itself, so it was sent.
    let config = config(&cluster)
        .heartbeat(Duration::from_secs(20))
        .reply_timeout(Duration::from_secs(2))
        .lease(Duration::from_secs(25))
        .server_timeout(Duration::from_secs(40));
    let manager = connect(config);
    let held = lock(&manager, 1);
    let backend = backend_of(&cluster, 1);
    signal(backend, "STOP");
    let sent = asked(&manager, 2);
    let behind = [asked(&manager, 2), asked(&manager, 1)];
    let error = block_on(sent).expect_err("nobody answers");
    assert!(matches!(error, Error::Lost { cause: Cause::ReplyOverdue, .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    for waiter in behind {
        let error = block_on(waiter).expect_err("its session ended");
        assert!(error.is_session_lost(), "{error}");
        assert_eq!(error.outcome(), Outcome::NotAcquired);
    }
    assert!(held.context().is_done());
    // The request is still in the stopped backend's socket: it runs, and is freed by its end.
    signal(backend, "CONT");
    lock_when_back(&manager, 2).unlock().expect("it was held");
    wait_until("no lock is left", LIMIT, || pg_locks_advisory(&mut cluster.sql()).is_empty());
}

/// Set for the process that is stopped with SIGSTOP: the server's URL.
const HOLDER: &str = "DISTLOCK_TEST_HOLDER_URL";
/// Set for the process that closes its manager and looks what is left.
const CLOSER: &str = "DISTLOCK_TEST_CLOSER_URL";

/// This test program again, for one test, as a process of its own.
fn myself(test: &str, role: &str, url: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(["--exact", test, "--nocapture"]).env(role, url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn a_process_that_was_stopped_knows_at_its_first_look_and_others_had_the_key() {
    if let Ok(url) = std::env::var(HOLDER) {
        return hold_and_be_stopped(&url);
    }
    let cluster = TempCluster::start();
    let name = "a_process_that_was_stopped_knows_at_its_first_look_and_others_had_the_key";
    let mut holder = myself(name, HOLDER, &cluster.url()).spawn().expect("starts itself");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
    let mut said = |word: &str| {
        let lines = lines.by_ref().map(|line| line.expect("the holder's output"));
        let found = lines.into_iter().find(|line| line.contains(word));
        found.unwrap_or_else(|| panic!("the holder ends without {word}"))
    };
    said("HELD");
    let other = connect(config(&cluster));
    assert!(other.try_lock(&Context::background(), 1).expect("answers").is_none());
    signal(holder.id(), "STOP");
    let begin = Instant::now();
    let lock = other.acquire(1).timeout(LIMIT).wait().expect("the server frees it");
    println!("the key of a stopped process was free after {:?}", begin.elapsed());
    holder.stdin.take().expect("piped").write_all(b"x").expect("the holder lives");
    signal(holder.id(), "CONT");
    let line = said("FIRST");
    assert!(line.contains("held=false done=true"), "{line}");
    said("LATE false");
    assert!(holder.wait().expect("the holder ends").success());
    assert!(lock.is_held());
}

/// The holder's side of the test above. One thread looks all the time: its first look after the
/// stop is the first thing this process does.
fn hold_and_be_stopped(url: &str) {
    let server_timeout = Duration::from_secs(4);
    let config: Config = url.parse().expect("a URL");
    let config = config
        .heartbeat(Duration::from_millis(200))
        .reply_timeout(Duration::from_secs(2))
        .lease(Duration::from_secs(3))
        .server_timeout(server_timeout);
    let manager = connect(config);
    let lock = Arc::new(lock(&manager, 1));
    let looking = Arc::clone(&lock);
    let looker = thread::spawn(move || {
        let mut last = Instant::now();
        loop {
            let gap = last.elapsed();
            last = Instant::now();
            if !looking.is_held() {
                return false;
            } else if gap > server_timeout {
                return true;
            }
        }
    });
    println!("HELD");
    std::io::stdin().read_exact(&mut [0]).expect("the test's byte");
    let (held, done) = (lock.is_held(), lock.context().is_done());
    println!("FIRST held={held} done={done}");
    println!("LATE {}", looker.join().expect("no panic"));
}

#[test]
fn of_500_locks_every_context_is_told_when_the_server_is_killed() {
    for kill_all in [false, true] {
        let mut cluster = TempCluster::start();
        let manager = connect(config(&cluster));
        let locks: Vec<Lock> = (0..500).map(|key| lock(&manager, key)).collect();
        assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 500);
        let backend = backend_of(&cluster, 0);
        let contexts: Vec<Context> = locks.iter().map(|lock| lock.context().clone()).collect();
        let watcher = thread::spawn(move || {
            let mut first = None;
            for context in &contexts {
                let cause = context.done().wait_timeout(LIMIT).expect("told");
                assert!([Cause::ConnectionLost, Cause::ServerShutdown].contains(&cause));
                first.get_or_insert_with(Instant::now);
            }
            (first.expect("500 contexts"), Instant::now())
        });
        let begin = Instant::now();
        if kill_all {
            cluster.kill9_postmaster()
        } else {
            signal(backend, "KILL")
        }
        let (first, last) = watcher.join().expect("no panic");
        println!("500 contexts told: the last {:?} after the kill", last - begin);
        println!("500 contexts told: the last {:?} after the first", last - first);
        assert!(locks.iter().all(|lock| !lock.is_held()));
    }
}

#[test]
fn a_flapping_database_gets_its_manager_back_and_never_an_old_lock() {
    let mut cluster = TempCluster::start();
    let manager = connect(config(&cluster));
    let mut old: Vec<(Lock, Cause)> = Vec::new();
    for round in 0..10 {
        let held = lock_when_back(&manager, 1);
        assert_eq!(pg_locks_advisory(&mut cluster.sql()).len(), 1);
        cluster.stop([StopMode::Fast, StopMode::Immediate][round % 2]);
        cluster.start_again();
        let cause = held.context().done().wait_timeout(LIMIT).expect("told");
        old.push((held, cause));
        let unchanged = |(lock, cause): &(Lock, Cause)| lock.context().err() == Some(*cause);
        assert!(old.iter().all(unchanged) && old.iter().all(|(lock, _)| !lock.is_held()));
    }
    let held = lock_when_back(&manager, 1);
    // Ten late releases do not touch the one that counts.
    drop(old);
    lock(&manager, 2).unlock().expect("it was held");
    assert!(held.is_held());
    held.unlock().expect("it was held");
}

#[test]
fn while_the_server_is_down_tries_fail_waits_can_be_cancelled_and_closing_ends_all() {
    let mut cluster = TempCluster::start();
    let manager = connect(config(&cluster));
    let held = lock(&manager, 1);
    cluster.stop(StopMode::Fast);
    assert!(held.context().done().wait_timeout(LIMIT).is_some());
    let ctx = Context::background();
    let error = manager.try_lock(&ctx, 2).expect_err("no server");
    assert!(error.is_unavailable() && error.outcome() == Outcome::NotAcquired, "{error}");
    let error =
        manager.acquire(2).timeout(Duration::from_millis(50)).wait().expect_err("no server");
    assert!(error.is_timeout(), "{error}");

    let (sender, ended) = channel();
    let wait = |ctx: &Context| {
        let (manager, ctx, sender) = (manager.clone(), ctx.clone(), sender.clone());
        thread::spawn(move || sender.send(manager.lock(&ctx, 2)));
    };
    let (cancelled, canceler) = ctx.with_cancel();
    wait(&cancelled);
    assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "it waits for the server");
    canceler.cancel();
    let error = ended.recv_timeout(LIMIT).expect("it ends").expect_err("no server");
    assert!(error.is_canceled(), "{error}");

    wait(&ctx);
    let awaited = asked(&manager, 3);
    assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "it waits for the server");
    manager.close();
    assert!(ended.recv_timeout(LIMIT).expect("it ends").expect_err("closed").is_closed());
    assert!(block_on(awaited).expect_err("closed").is_closed());
    assert!(manager.try_lock(&ctx, 2).expect_err("closed").is_closed());
}

#[test]
fn closing_or_dropping_ends_holders_waiters_session_and_thread() {
    if let Ok(url) = std::env::var(CLOSER) {
        return close_and_look(&url);
    }
    let cluster = TempCluster::start();
    let name = "closing_or_dropping_ends_holders_waiters_session_and_thread";
    let mut closer = myself(name, CLOSER, &cluster.url()).spawn().expect("starts itself");
    let mut said = String::new();
    closer.stdout.take().expect("piped").read_to_string(&mut said).expect("its output");
    assert!(closer.wait().expect("it ends").success(), "{said}");
}

/// The other side of the test above: a process with no manager but its own.
fn close_and_look(url: &str) {
    for is_dropped in [false, true] {
        let manager = Manager::connect(url).expect("connects");
        let other = Manager::connect(url).expect("connects");
        let held = lock(&manager, 1);
        let foreign = lock(&other, 2);
        let waiters = [asked(&manager, 1), asked(&manager, 2)];
        let clone = manager.clone();
        drop(manager);
        assert!(held.is_held(), "a clone is left");
        if is_dropped {
            drop(clone)
        } else {
            clone.close()
        }
        assert_eq!(held.context().err(), Some(Cause::ManagerClosed));
        assert!(!held.is_held());
        for waiter in waiters {
            let error = block_on(waiter).expect_err("closed");
            assert!(error.is_closed(), "{error}");
        }
        drop(lock_when_back(&other, 1));
        drop((held, foreign, other));
        wait_until("no guard's thread and no socket are left", LIMIT, || {
            !threads().iter().any(|name| name.starts_with("distlock-guard")) && sockets() == 0
        });
    }
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    tasks.flat_map(|task| std::fs::read_to_string(task.path().join("comm"))).collect()
}

fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    let targets = files.flat_map(|file| std::fs::read_link(file.path()));
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn heartbeats_keep_an_idle_session_for_longer_than_the_servers_timeout() {
    let cluster = TempCluster::start();
    let manager = connect(quick(&cluster));
    let held = lock(&manager, 1);
    let backend = backend_of(&cluster, 1);
    // The server ends a session that is silent for 4 s.
    assert_eq!(held.context().done().wait_timeout(Duration::from_secs(6)), None);
    assert!(held.is_held() && backend_of(&cluster, 1) == backend);
    held.unlock().expect("it was held");
}

#[test]
fn settings_of_the_role_are_overridden() {
    let cluster = TempCluster::start();
    let mut sql = cluster.sql();
    sql.query("CREATE ROLE app LOGIN; ALTER ROLE app SET idle_session_timeout = '1s'");
    sql.query("ALTER ROLE app SET statement_timeout = '500ms'");
    sql.query("ALTER ROLE app SET lock_timeout = '500ms'");
    // A search path on which the functions are not the server's own.
    sql.query(
        "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO app; \
         CREATE FUNCTION trap.pg_try_advisory_lock(bigint) RETURNS boolean RETURN true; \
         ALTER ROLE app SET search_path = trap, pg_catalog",
    );
    let config = config(&cluster).user("app").dbname("postgres");
    let config = config.reply_timeout(Duration::from_secs(20)).lease(Duration::from_secs(25));
    let manager = connect(config.server_timeout(Duration::from_secs(30)));
    let mut unchanged = cluster.try_sql_as("app", "postgres").expect("trusted");
    assert_eq!(unchanged.value("SHOW lock_timeout").as_deref(), Some("500ms"));
    let held = lock(&manager, 1);
    backend_of(&cluster, 1);
    // The session is idle for up to 2 s between two heartbeats.
    assert_eq!(held.context().done().wait_timeout(Duration::from_secs(4)), None);
    // A statement that has to be planned anew, and waits for the catalog to do so.
    sql.query("ALTER FUNCTION pg_try_advisory_lock(bigint) COST 2");
    sql.query("BEGIN; LOCK TABLE pg_proc IN ACCESS EXCLUSIVE MODE");
    let slow = asked(&manager, 2);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'";
    wait_until("the statement waits in the server", LIMIT, || {
        sql.value(waits).as_deref() == Some("1")
    });
    assert_eq!(held.context().done().wait_timeout(Duration::from_secs(2)), None);
    assert_eq!(sql.value(waits).as_deref(), Some("1"), "no timeout has ended it");
    sql.query("COMMIT");
    drop(block_on(slow).expect("granted"));
    held.unlock().expect("it was held");
}

/// Asks for the key every now and then, as who waits by trying does. While it is held here, or
/// there is no session, that is answered without the server, so that these calls do not look into
/// the socket.
fn try_again_and_again(manager: &Manager, key: i64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let _ = manager.try_lock(&Context::background(), key);
        thread::sleep(Duration::from_micros(700));
    }
}

/// No deadline helps: they are all longer than this test takes.
#[test]
fn a_loss_is_noticed_while_somebody_asks_for_a_key_that_is_held_here() {
    let cluster = TempCluster::start();
    let patient = config(&cluster).heartbeat(LIMIT * 2).reply_timeout(LIMIT * 2);
    let manager = connect(patient.lease(LIMIT * 5).server_timeout(LIMIT * 10));
    for _ in 0..3 {
        let held = lock_when_back(&manager, 1);
        let backend = backend_of(&cluster, 1);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| try_again_and_again(&manager, 1, &stop));
            thread::sleep(Duration::from_millis(300));
            cluster.sql().query(&format!("SELECT pg_terminate_backend({backend})"));
            let cause = held.context().done().wait_timeout(LIMIT);
            stop.store(true, Ordering::Relaxed);
            assert_eq!(cause, Some(Cause::ServerShutdown));
        });
    }
}
