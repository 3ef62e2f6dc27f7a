//! What an idle manager costs, counted exactly: wake-ups of its thread, and threads left behind.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use distlock::{Config, Context, Manager};
use support::{TempCluster, shared_cluster, wait_until};

/// The guard's threads of this process, and how often each was put to sleep. The kernel counts a
/// voluntary context switch each time a thread waits for something.
fn guard_threads() -> Vec<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tdistlock-guard\n") {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
            let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            found.push(count.expect("the kernel counts"));
        }
    }
    found
}

/// Stands between a manager and the server, and counts the bare Syncs.
struct Proxy {
    port: u16,
    heartbeats: Arc<AtomicU64>,
    /// Once set, nothing passes any more, and nobody is told.
    silent: Arc<AtomicBool>,
}

impl Proxy {
    fn start(cluster: &TempCluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (heartbeats, silent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, mute, server) = (Arc::clone(&heartbeats), Arc::clone(&silent), cluster.port());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let server = TcpStream::connect(("127.0.0.1", server)).expect("the server");
                for socket in [&client, &server] {
                    socket.set_nodelay(true).expect("a TCP socket");
                }
                let ends = [&client, &server].map(|end| end.try_clone().expect("a descriptor"));
                let ([to_client, to_server], count) = (ends, Arc::clone(&count));
                let (mute, mute_too) = (Arc::clone(&mute), Arc::clone(&mute));
                std::thread::spawn(move || pass(client, to_server, &mute, &count));
                std::thread::spawn(move || pass(server, to_client, &mute_too, &AtomicU64::new(0)));
            }
        });
        Self { port, heartbeats, silent }
    }
}

/// Passes on what comes, until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool, syncs: &AtomicU64) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if silent.load(Ordering::SeqCst) {
            continue;
        }
        if buffer[..count] == *b"S\0\0\0\x04" {
            syncs.fetch_add(1, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

const HEARTBEAT: Duration = Duration::from_millis(50);

fn config(port: u16) -> Config {
    let config = Config::new().host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config.heartbeat(HEARTBEAT)
}

/// One test: the threads of another would be counted too.
#[test]
fn an_idle_manager_wakes_for_its_heartbeats_only_and_leaves_no_thread_behind() {
    let proxy = Proxy::start(shared_cluster());
    let manager = Manager::connect(config(proxy.port)).expect("a session");
    let beats = || proxy.heartbeats.load(Ordering::SeqCst);
    wait_until("the first heartbeats", Duration::from_secs(20), || beats() >= 3);

    // Nothing held: at most one wake-up in each H. Timers are never early, so that a slow machine
    // only makes the bound wider; one wake-up may belong to a time before the count began.
    let (began, before) = (Instant::now(), (beats(), guard_threads()));
    wait_until("twenty more", Duration::from_secs(60), || beats() >= before.0 + 20);
    let wakes = guard_threads()[0] - before.1[0];
    let periods = began.elapsed().as_nanos() / HEARTBEAT.as_nanos();
    println!("{wakes} wake-ups of an idle manager in {periods} times H");
    assert!(u128::from(wakes) <= periods + 2, "{wakes} wake-ups in {periods} times H");

    let lock = manager.try_lock(&Context::background(), support::unique_key());
    let lock = lock.expect("an answer").expect("it is free");
    let before = (beats(), guard_threads());
    wait_until("forty more", Duration::from_secs(60), || beats() >= before.0 + 40);
    let after = (guard_threads(), beats());
    let heartbeats = after.1 - before.0;
    let wakes = after.0[0] - before.1[0];
    println!("{wakes} wake-ups of the guard's thread in {heartbeats} heartbeats");
    // One to send it and one for its answer; the heartbeats at both ends are counted or not.
    assert!(wakes <= 2 * (heartbeats + 1), "{wakes} wake-ups in {heartbeats} heartbeats");
    assert!(lock.is_held());

    // The peer falls silent in the midst of it all: closing does not wait for it.
    proxy.silent.store(true, Ordering::SeqCst);
    manager.close();
    assert!(!lock.is_held());
    wait_until("the thread's end", Duration::from_secs(1), || guard_threads().is_empty());
}
