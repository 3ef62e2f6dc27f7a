//! That nobody starves: processes that all want the same key, each as soon as it has released it;
//! and a process whose threads hold it for long, one after the other. Grants are counted, and
//! nothing is timed.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use distlock::{Context, Lock, Manager};
use support::{Scratch, TempCluster, wait_exit, wait_until};

const KEY: i64 = 7;
const PROCESSES: usize = 8;
/// When one process has had so many grants, every other one has had a twentieth of them. At worst
/// it was a sixth, in 26 runs on two cores that were busy elsewhere.
const MANY: usize = 200;
const LEAST: usize = MANY / 20;
/// What a holder works, so that all others are back in the queue when it is done.
const WORK: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(120);

/// Set for the processes: the server's URL, the file of the grants, and which one it is.
const RACER: &str = "DISTLOCK_TEST_RACER";
const NAME: &str = "of_eight_processes_the_unluckiest_gets_a_twentieth_of_what_the_luckiest_gets";

#[test]
fn of_eight_processes_the_unluckiest_gets_a_twentieth_of_what_the_luckiest_gets() {
    if let Ok(role) = std::env::var(RACER) {
        return race(&role);
    }
    let cluster = TempCluster::start();
    let scratch = Scratch::new();
    let grants = scratch.path().join("grants");
    fs::write(&grants, b"").expect("a directory of our own");
    let manager = Manager::connect(cluster.url()).expect("connects");
    let lock = manager.lock(&Context::background(), KEY).expect("free");
    let start = |who| start(NAME, &cluster.url(), &grants, who);
    let racers = Racers((0..PROCESSES).map(start).collect()).asking();
    lock.unlock().expect("it was held");
    let count = |bytes: &[u8], who: usize| bytes.iter().filter(|&&b| usize::from(b) == who).count();
    let most = |bytes: &[u8]| (0..PROCESSES).map(|who| count(bytes, who)).max().unwrap_or(0);
    let read = || fs::read(&grants).expect("it is there");
    wait_until("one has many grants", LIMIT, || most(&read()) >= MANY);
    // As it is while all of them race; the end may cut a hold short.
    let all = read();
    drop(racers);
    let order: Vec<u8> = all.iter().copied().filter(|byte| usize::from(*byte) < ENDED).collect();
    let until = (0..=order.len()).find(|&n| most(&order[..n]) == MANY).expect("it has that many");
    let counts: Vec<usize> = (0..PROCESSES).map(|who| count(&order[..until], who)).collect();
    println!("grants of each process: {counts:?}");
    assert!(counts.iter().all(|count| *count >= LEAST), "somebody starved: {counts:?}");
    check_alternation(&all);
}

/// What is added to a process's number when its hold ends.
const ENDED: usize = 128;

/// Each hold ends before the next begins.
fn check_alternation(all: &[u8]) {
    for hold in all.chunks_exact(2) {
        let [begun, ended] = [hold[0], hold[1]].map(usize::from);
        assert_eq!(begun + ENDED, ended, "two processes had the key at once");
    }
}

/// They end when it is dropped, or when this process ends.
struct Racers(Vec<Child>);

impl Racers {
    /// Waits until all of them are about to ask.
    fn asking(mut self) -> Self {
        for racer in &mut self.0 {
            let lines = BufReader::new(racer.stdout.take().expect("piped")).lines();
            let mut lines = lines.map(|line| line.expect("the process's output"));
            assert!(lines.any(|line| line.contains("ASKING")), "a process has ended");
        }
        self
    }
}

impl Drop for Racers {
    fn drop(&mut self) {
        for racer in &mut self.0 {
            racer.stdin = None;
        }
        for racer in &mut self.0 {
            if !wait_exit(racer, LIMIT) {
                let _ = racer.kill();
                let _ = racer.wait();
            }
        }
    }
}

/// A test again, as a process of its own.
fn start(test: &str, url: &str, grants: &Path, who: usize) -> Child {
    Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", test, "--nocapture"])
        .env(RACER, format!("{who} {} {url}", grants.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts itself")
}

/// The side of a process: it writes down each of its holds while it has it.
fn race(role: &str) {
    let (who, grants, manager) = take_part(role);
    hold_again_and_again(&manager, &grants, who, WORK);
}

/// The process ends when its standard input does.
fn take_part(role: &str) -> (u8, File, Manager) {
    let mut words = role.splitn(3, ' ');
    let mut word = || words.next().expect("three words");
    let (who, path, url) = (word(), PathBuf::from(word()), word());
    let who: u8 = who.parse().expect("a number");
    let grants = OpenOptions::new().append(true).open(path).expect("it is there");
    let manager = Manager::connect(url).expect("connects");
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    println!("ASKING");
    (who, grants, manager)
}

fn hold_again_and_again(manager: &Manager, mut grants: &File, who: u8, work: Duration) -> ! {
    loop {
        let lock = manager.lock(&Context::background(), KEY).expect("a lock");
        grants.write_all(&[who]).expect("room");
        thread::sleep(work);
        grants.write_all(&[who + ENDED as u8]).expect("room");
        lock.unlock().expect("it was held");
    }
}

/// For longer than anybody remembers that somebody else waits.
const LONG_WORK: Duration = Duration::from_millis(1_200);
/// Who waits has the key after so many releases of the others at the latest.
const RELEASES: usize = 3;
const LONG_NAME: &str =
    "who_waits_for_a_key_that_two_threads_of_another_process_hold_for_long_gets_it";

#[test]
fn who_waits_for_a_key_that_two_threads_of_another_process_hold_for_long_gets_it() {
    if let Ok(role) = std::env::var(RACER) {
        let (who, grants, manager) = take_part(&role);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| hold_again_and_again(&manager, &grants, who, LONG_WORK));
            }
        });
    }
    let cluster = TempCluster::start();
    let scratch = Scratch::new();
    let grants = scratch.path().join("grants");
    fs::write(&grants, b"").expect("a directory of our own");
    let _holders = Racers(vec![start(LONG_NAME, &cluster.url(), &grants, 0)]).asking();
    let manager = Manager::connect(cluster.url()).expect("connects");
    let read = || fs::read(&grants).expect("it is there");
    let released = || read().iter().filter(|byte| usize::from(**byte) == ENDED).count();
    let ask = || -> (Lock, usize) {
        let lock = manager.lock(&Context::background(), KEY).expect("its turn");
        (lock, released())
    };
    for round in 0..3 {
        wait_until("the others have it", LIMIT, || read().last() == Some(&0));
        let before = released();
        thread::scope(|scope| {
            let waiter = scope.spawn(ask);
            wait_until("it has the key, or starves", LIMIT, || {
                waiter.is_finished() || released() > before + RELEASES
            });
            let is_starving = !waiter.is_finished();
            if is_starving {
                // Ends the waiting.
                manager.close();
            }
            assert!(!is_starving, "round {round}: it is passed over {RELEASES} times");
            let (lock, at) = waiter.join().expect("no panic");
            println!("round {round}: it has the key after {} releases", at - before);
            assert!(at - before <= RELEASES);
            lock.unlock().expect("it was held");
        });
    }
}
