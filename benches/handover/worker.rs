//! One process of a crew: does as its standard input says, and writes its holds to its standard
//! output. It ends with its input, and at the latest when its time is over.
//!
//! | line | what it does |
//! |---|---|
//! | `loop END HOLD` | locks, holds and releases until the clock says END |
//! | `once END HOLD` | locks, holds and releases once; gives up at END |
//!
//! After each it writes a line for each hold, and `end`. All numbers are nanoseconds.

use std::io::{BufWriter, Write};
use std::process::exit;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Context, Lock, Manager};

use crate::bare::Bare;
use crate::holds::{Hold, now};
use crate::raw::RawSession;

/// The key that everybody wants.
pub(crate) const KEY: i64 = 7;
/// How often the original library tries.
const POLL_EACH: Duration = Duration::from_millis(250);
/// Who waits when a loop is over still gets the key, unless it takes longer than this.
const GRACE: u64 = 10_000_000_000;

/// How a process takes the key and gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `Manager::lock` and `Lock::unlock`.
    Unlock,
    /// `Manager::lock`, and the lock is dropped.
    Drop,
    /// `Manager::try_lock` every 250 ms, as the original library waits.
    Poll,
    /// `pg_advisory_lock` on a connection of its own: the queue of the server.
    Queue,
    /// What the library does, on a bare socket.
    Bare,
}

impl Method {
    pub(crate) const ALL: [Self; 5] =
        [Self::Unlock, Self::Bare, Self::Drop, Self::Poll, Self::Queue];

    /// As it is told to the process.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unlock => "unlock",
            Self::Drop => "drop",
            Self::Poll => "poll",
            Self::Queue => "queue",
            Self::Bare => "bare",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Unlock => "lock, unlock",
            Self::Drop => "lock, drop",
            Self::Poll => "try_lock every 250 ms",
            Self::Queue => "pg_advisory_lock",
            Self::Bare => "the same statements, bare",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.word() == word)
    }
}

/// Takes the key and gives it back.
pub(crate) trait Contestant {
    /// Waits for the key; false if it was not to be had until `give_up`.
    fn take(&mut self, give_up: u64) -> bool;
    fn give(&mut self);
}

struct Waits {
    manager: Manager,
    held: Option<Lock>,
    drops: bool,
}

impl Contestant for Waits {
    fn take(&mut self, give_up: u64) -> bool {
        let left = Duration::from_nanos(give_up.saturating_sub(now()));
        let context = Context::background().with_deadline(Instant::now() + left);
        match self.manager.lock(&context, KEY) {
            Ok(lock) => self.held = Some(lock),
            Err(error) if error.is_canceled() || error.is_timeout() => {}
            Err(error) => panic!("{error}"),
        }
        self.held.is_some()
    }

    fn give(&mut self) {
        let lock = self.held.take().expect("it was taken");
        if self.drops {
            drop(lock);
        } else {
            lock.unlock().expect("it was held");
        }
    }
}

struct Polls {
    manager: Manager,
    held: Option<Lock>,
    index: u64,
}

impl Contestant for Polls {
    fn take(&mut self, give_up: u64) -> bool {
        // The first pause is any: processes that were told to begin at once do not try in step.
        let share = scrambled(now() ^ (self.index << 48)) >> 11;
        let mut pause = POLL_EACH.mul_f64(share as f64 / (1_u64 << 53) as f64);
        while now() < give_up {
            self.held = self.manager.try_lock(&Context::background(), KEY).expect("an answer");
            if self.held.is_some() {
                return true;
            }
            thread::sleep(pause);
            pause = POLL_EACH;
        }
        false
    }

    fn give(&mut self) {
        self.held.take().expect("it was taken").unlock().expect("it was held");
    }
}

impl Contestant for RawSession {
    fn take(&mut self, _: u64) -> bool {
        self.wait(KEY);
        true
    }

    fn give(&mut self) {
        self.unlock(KEY);
    }
}

/// What this process is, if it is one: `--worker METHOD PORT INDEX LIFE`.
pub(crate) fn run(arguments: &[String]) {
    let [method, port, index, life] = arguments else { panic!("{arguments:?}") };
    let method = Method::of(method).expect("a method");
    let index: usize = index.parse().expect("a number");
    let life = Duration::from_secs(life.parse().expect("a number of seconds"));
    thread::spawn(move || {
        thread::sleep(life);
        eprintln!("process {index} has outlived its {life:?}");
        exit(3);
    });
    let mut contestant = contestant(method, port.parse().expect("a port"), index);
    say("ready", &[]);
    for line in orders() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, end, hold] = words[..] else { panic!("{line}") };
        let (end, hold) = (end.parse().expect("a time"), hold.parse().expect("a time"));
        let holds = match what {
            "once" => cycle(&mut *contestant, index, end, hold).into_iter().collect(),
            _ => looped(&mut *contestant, index, end, hold),
        };
        say("end", &holds);
    }
}

/// The lines of the standard input. Its end is that of this process, whatever it does just then:
/// there is nobody left to tell.
fn orders() -> Receiver<String> {
    let (sender, orders) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        exit(0);
    });
    orders
}

fn contestant(method: Method, port: u16, index: usize) -> Box<dyn Contestant> {
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let manager = || Manager::connect(url.as_str()).expect("a session");
    match method {
        Method::Unlock => Box::new(Waits { manager: manager(), held: None, drops: false }),
        Method::Drop => Box::new(Waits { manager: manager(), held: None, drops: true }),
        Method::Poll => Box::new(Polls { manager: manager(), held: None, index: index as u64 }),
        Method::Queue => Box::new(RawSession::connect(port)),
        Method::Bare => Box::new(Bare::connect(port)),
    }
}

/// The last step of SplitMix64.
fn scrambled(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn looped(contestant: &mut dyn Contestant, who: usize, end: u64, hold: u64) -> Vec<Hold> {
    let mut holds = Vec::new();
    while now() < end {
        holds.extend(cycle(contestant, who, end + GRACE, hold));
    }
    holds
}

fn cycle(contestant: &mut dyn Contestant, who: usize, give_up: u64, hold: u64) -> Option<Hold> {
    let request = now();
    if !contestant.take(give_up) {
        return None;
    }
    let grant = now();
    if hold > 0 {
        thread::sleep(Duration::from_nanos(hold));
    }
    let release = now();
    contestant.give();
    Some(Hold { request, grant, release, who })
}

fn say(word: &str, holds: &[Hold]) {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut write = || -> std::io::Result<()> {
        for Hold { request, grant, release, .. } in holds {
            writeln!(out, "{request} {grant} {release}")?;
        }
        writeln!(out, "{word}")?;
        out.flush()
    };
    if write().is_err() {
        // Nobody listens any more.
        exit(2);
    }
}
