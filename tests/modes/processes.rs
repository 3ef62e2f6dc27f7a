//! Sharers and writers that are processes of their own: they write down who is in, in one file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use distlock::{Config, Manager};

use super::{LIMIT, alone};
use crate::support::{Scratch, shared_cluster, signal, unique_key};

const PROCESSES: u8 = 4;
const THREADS: u8 = 2;
const ROUNDS: u32 = 60;

/// Set for the processes: which one it is, the key, the file, and the server's URL.
const ROLE: &str = "DISTLOCK_TEST_SHARER";
const NAME: &str =
    "processes::readers_of_many_processes_are_in_together_and_a_writer_of_any_is_alone";

/// An event is one byte: a worker's number with these bits.
const WRITES: u8 = 0x40;
const ENDS: u8 = 0x80;

#[test]
fn readers_of_many_processes_are_in_together_and_a_writer_of_any_is_alone() {
    if let Ok(role) = std::env::var(ROLE) {
        return take_part(&role);
    }
    let (cluster, key, scratch) = (shared_cluster(), unique_key(), Scratch::new());
    let events = scratch.path().join("events");
    fs::write(&events, b"").expect("a directory of our own");
    let manager = Manager::connect(cluster.url()).expect("connects");
    let start = |who| Process::start(format!("{who} {key} {} {}", events.display(), cluster.url()));
    let mut processes: Vec<Process> = (0..PROCESSES).map(start).collect();
    // All of them are in at once, whatever the scheduler does.
    processes.iter_mut().for_each(|process| process.has_said("SHARES"));
    assert!(alone(&manager, key).is_none(), "they share it");
    let mut killed = processes.pop().expect("there are some");
    assert!(signal(killed.child.id(), "KILL"));
    killed.child.wait().expect("it has ended");
    assert!(alone(&manager, key).is_none(), "the others share it still");
    for process in &mut processes {
        process.stdin.write_all(b"go\n").expect("it reads");
    }
    processes.iter_mut().for_each(|process| process.has_said("DONE"));
    let most = check(&fs::read(&events).expect("it is there"));
    println!("at most {most} readers at once in the race");
    // The last releases may still be on their way.
    drop(manager.acquire(key).timeout(LIMIT).wait().expect("nobody is left"));
}

/// No writer is in with anybody else; gives how many readers were in together at the most.
fn check(events: &[u8]) -> usize {
    let (mut readers, mut writers, mut most) = (Vec::new(), Vec::new(), 0);
    for event in events {
        let who = event & !(WRITES | ENDS);
        let group = if event & WRITES == 0 { &mut readers } else { &mut writers };
        match event & ENDS {
            0 => group.push(who),
            _ => group.retain(|inside| *inside != who),
        }
        let is_right = writers.is_empty() || (readers.is_empty() && writers.len() == 1);
        assert!(is_right, "readers {readers:?} and writers {writers:?} are in");
        most = most.max(readers.len());
    }
    assert!(readers.is_empty() && writers.is_empty(), "each one that began has ended");
    let holds = u32::from(PROCESSES - 1) * u32::from(THREADS) * ROUNDS;
    let ends = events.iter().filter(|event| *event & ENDS != 0).count();
    assert!(ends >= holds as usize, "each round is written down");
    most
}

/// This test again, as a process of its own. It ends with its standard input.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: String) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--exact", NAME, "--nocapture"]).env(ROLE, role);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts itself");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, stdin, lines }
    }

    #[track_caller]
    fn has_said(&mut self, word: &str) {
        let mut lines = self.lines.by_ref().map(|line| line.expect("the process's output"));
        assert!(lines.any(|line| line.contains(word)), "it has ended without {word}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing that would have to end in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The side of a process.
fn take_part(role: &str) {
    let mut words = role.splitn(4, ' ');
    let mut word = || words.next().expect("four words");
    let who: u8 = word().parse().expect("a number");
    let key: i64 = word().parse().expect("a number");
    let events = OpenOptions::new().append(true).open(word()).expect("it is there");
    let config: Config = word().parse().expect("a URL");
    let manager = Manager::connect(config).expect("connects");
    let shared = manager.acquire(key).shared().timeout(LIMIT).wait().expect("it is shared");
    println!("SHARES");
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).expect("a line") == 0 {
        return;
    }
    shared.unlock().expect("it was held");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (manager, events) = (&manager, &events);
            scope.spawn(move || race(manager, key, events, who * THREADS + thread));
        }
    });
    println!("DONE");
}

fn race(manager: &Manager, key: i64, mut events: &File, who: u8) {
    // Appended by one call, so that the order in the file is that in which it happened.
    let mut note = |bytes: &[u8]| events.write_all(bytes).expect("room");
    for round in 0..ROUNDS {
        let writes = (round + u32::from(who)) % 3 == 0;
        let asked = manager.acquire(key).timeout(LIMIT);
        let asked = if writes { asked } else { asked.shared() };
        let mut lock = asked.wait().expect("its turn");
        match (writes, round % 2) {
            (true, 0) => {
                note(&[who | WRITES]);
                // From here on it says no more than that it reads; no writer may come in between.
                note(&[who | WRITES | ENDS, who]);
                lock.downgrade().expect("it is held");
                note(&[who | ENDS]);
            }
            (true, _) => {
                note(&[who | WRITES]);
                note(&[who | WRITES | ENDS]);
            }
            (false, _) => {
                note(&[who]);
                note(&[who | ENDS]);
            }
        }
        drop(lock);
    }
}
