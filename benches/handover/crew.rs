//! Processes that want the same key: this program again, each with a session of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use distlock::{Context, Manager};

use crate::holds::{Figures, Hold, now};
use crate::support::wait_exit;
use crate::worker::{KEY, Method};

/// Processes that are told one after another to ask for a key have all done so after this time,
/// and so much for each of them.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_EACH: Duration = Duration::from_millis(2);
/// No queue is so long that it takes longer.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Beyond what it is told to do, a process lives for so long.
const SPARE: Duration = Duration::from_secs(120);
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// They end when it is dropped, or when this process ends in whatever way.
pub(crate) struct Crew(Vec<Member>);

struct Member {
    child: Child,
    /// `None` only while it is being dropped.
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Crew {
    /// So many processes of each method, which are ready when this returns; for so much work.
    pub(crate) fn start(members: &[(Method, usize)], port: u16, work: Duration) -> Self {
        let methods = members.iter().flat_map(|(method, count)| vec![*method; *count]);
        let life = work + SPARE;
        let spawn = |(index, method)| Member::start(method, index, port, life);
        let mut crew = Self(methods.enumerate().map(spawn).collect());
        for member in &mut crew.0 {
            assert_eq!(member.line(), "ready");
        }
        crew
    }

    /// All lock, hold and release for so long.
    pub(crate) fn looped(&mut self, time: Duration, hold: Duration, figures: &mut Figures) {
        let end = now() + nanos(time);
        self.order("loop", end, hold);
        let window = (now(), end);
        let holds = self.reports();
        figures.add(holds, self.0.len(), window);
    }

    /// All wait for a key that is held, and each gets it once.
    pub(crate) fn drained(&mut self, first: &Manager, hold: Duration, figures: &mut Figures) {
        let request = now();
        // The last release of the round before may still be on its way.
        let held = first.lock(&Context::background(), KEY).expect("the key, after the last round");
        let grant = now();
        self.order("once", grant + nanos(DRAIN_LIMIT), hold);
        thread::sleep(SETTLE + SETTLE_EACH * self.0.len() as u32);
        let release = now();
        held.unlock().expect("it was held");
        let mut holds = vec![Hold { request, grant, release, who: usize::MAX }];
        holds.extend(self.reports());
        figures.add(holds, self.0.len(), (release, u64::MAX));
    }

    fn order(&mut self, what: &str, end: u64, hold: Duration) {
        let line = format!("{what} {end} {}\n", nanos(hold));
        for member in &mut self.0 {
            let orders = member.orders.as_mut().expect("not dropped yet");
            orders.write_all(line.as_bytes()).expect("it lives");
        }
    }

    fn reports(&mut self) -> Vec<Hold> {
        let mut holds = Vec::new();
        for (who, member) in self.0.iter_mut().enumerate() {
            loop {
                let line = member.line();
                if line == "end" {
                    break;
                }
                let mut numbers = line.split(' ').map(|word| word.parse().expect("a number"));
                let mut next = || numbers.next().expect("three numbers");
                holds.push(Hold { request: next(), grant: next(), release: next(), who });
            }
        }
        holds
    }
}

impl Member {
    fn start(method: Method, index: usize, port: u16, life: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--worker", method.word(), &port.to_string(), &index.to_string()])
            .arg(life.as_secs().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts itself");
        let orders = child.stdin.take();
        let reports = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, orders, reports }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("lines of text");
        assert!(line.ends_with('\n'), "a process has ended before its time");
        line.trim_end().to_owned()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // First all of them, so that they end together.
        for member in &mut self.0 {
            member.orders = None;
        }
        for member in &mut self.0 {
            if !wait_exit(&mut member.child, EXIT_LIMIT) {
                let _ = member.child.kill();
                let _ = member.child.wait();
            }
        }
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a short time")
}
