//! Replays a vector over real sockets to a [`Manager`], and judges: the typed error, in time; no
//! panic of any thread; nothing said that must not be; and afterwards the same manager, or a new
//! one with the same configuration, works with a server that has become good.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use distlock::{Context, Error, Lock, Manager};

use super::format::{Action, Outcome, Vector};
use super::good::{Processes, Server as Good};
use super::judge::{self, PASSWORD};
use super::player::Tamper;
use super::pure;
use super::server::{Address, Play, Record, Server};

/// Why a replay failed.
#[derive(Debug)]
pub enum Trouble {
    /// It took too long, which may be the machine's fault: it is to be tried again.
    Slow(String),
    /// It is not as the vector says.
    Wrong(String),
}

/// How far beyond a deadline an answer may come.
const GRACE: Duration = Duration::from_millis(100);

/// Nothing that has no deadline of its own takes this long.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often a replay that was too slow is tried.
const TRIES: u32 = 4;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers every panic of the library's threads, and of its callers', from now on.
pub fn record_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            // Tests have names of their own; who replays for them has none.
            if name.is_empty() || name.starts_with("distlock") {
                let text = format!("thread {name:?}: {info}");
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            before(info);
        }));
    });
}

/// The panics that were remembered.
pub fn panics() -> Vec<String> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Replays a vector; one that was too slow up to three times more.
///
/// # Errors
///
/// What is not as the vector says.
pub fn check(vector: &Vector, tamper: &Tamper) -> Result<(), String> {
    let mut slow = String::new();
    for _ in 0..TRIES {
        let panicked = panics().len();
        let result = replay(vector, tamper.clone());
        if let Some(panic) = panics().get(panicked) {
            return Err(format!("a panic: {panic}"));
        }
        match result {
            Ok(()) => return Ok(()),
            Err(Trouble::Wrong(why)) => return Err(why),
            Err(Trouble::Slow(why)) => slow = why,
        }
    }
    Err(format!("{slow}, in each of {TRIES} tries"))
}

/// A manager under attack.
struct Client<'v> {
    vector: &'v Vector,
    manager: Manager,
    held: Option<Lock>,
    context: Context,
    tried: Option<Result<bool, Error>>,
    unlocked: Option<Result<(), Error>>,
}

fn replay(vector: &Vector, tamper: Tamper) -> Result<(), Trouble> {
    let kind = pure::kind(vector);
    let processes = Processes::default();
    let is_tampered = tamper != Tamper::Nothing;
    let play = Play {
        connections: vector.connections.clone(),
        password: vector.setting("password").map(|_| PASSWORD.to_owned()),
        tamper,
        good: Box::new(move |_| Box::new(Good::new(kind, &processes))),
    };
    let server = Server::start(play, vector.has("unix")).map_err(|error| wrong(&error))?;
    let result = attack(vector, &server);
    let stalled = server.has_stalled();
    let records = server.stop();
    result
        .and_then(|()| judge::received(vector, &records).map_err(Trouble::Wrong))
        .and_then(|()| if is_tampered { Ok(()) } else { all_played(vector, &records) })
        .map_err(|trouble| match trouble {
            Trouble::Wrong(why) if stalled => Trouble::Slow(format!("on a busy machine: {why}")),
            other => other,
        })
}

/// All of a vector but what the server has to say afterwards.
fn attack(vector: &Vector, server: &Server) -> Result<(), Trouble> {
    let connect = || {
        let begin = Instant::now();
        let config = judge::config(vector, server.address());
        (config.and_then(Manager::connect), begin.elapsed())
    };
    let (connected, took) = connect();
    in_time("connecting", took, setting(vector, "connect_timeout", 1_000))?;
    let client = match (connected, first(vector)) {
        // Either, but in time.
        (Err(_), Some(wanted)) if wanted.verdict == "ends" => None,
        (Err(error), Some(wanted)) if wanted.verdict == "fails" => {
            judge::error(wanted, &error).map_err(Trouble::Wrong)?;
            None
        }
        (Err(error), _) => return Err(wrong(&format_args!("it cannot connect: {error}"))),
        (Ok(_), Some(wanted)) if wanted.verdict == "fails" => {
            return Err(wrong(&"it connected"));
        }
        (Ok(manager), _) => {
            let mut client = Client::new(vector, manager);
            client.act()?;
            client.judge()?;
            Some(client)
        }
    };
    if vector.outcomes.iter().any(|outcome| outcome.of == "config") {
        return match server.accepted() {
            0 => Ok(()),
            _ => Err(wrong(&"it connected before it refused the configuration")),
        };
    }
    server.turn_good();
    match client {
        Some(client) => works(&client.manager),
        None if vector.requires.is_empty() => recovers(vector, server.address()),
        None => recovers_by_tls(vector, server.address()),
    }
}

/// Whether a new manager with the same configuration finds the server good.
fn recovers(vector: &Vector, address: &Address) -> Result<(), Trouble> {
    // The limit of the attack may be too short for a good server on a busy machine.
    let begin = Instant::now();
    loop {
        match judge::config(vector, address).and_then(Manager::connect) {
            Ok(manager) => return works(&manager),
            Err(error) if begin.elapsed() > PATIENCE => {
                return Err(wrong(&format_args!("no recovery: {error}")));
            }
            Err(_) => {}
        }
    }
}

/// The same where the client asks for TLS, which the good server does not speak itself.
#[cfg(feature = "tls")]
fn recovers_by_tls(vector: &Vector, address: &Address) -> Result<(), Trouble> {
    // One at a time: the memory of the server's end of TLS counts, too.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Address::Tcp(port) = address else { return Err(wrong(&"TLS on a Unix socket")) };
    let front = super::front::Front::start(*port).map_err(|error| wrong(&error))?;
    let address = Address::Tcp(front.port());
    if !vector.setting("string").is_some_and(|it| it.contains("channel_binding=require")) {
        return recovers(vector, &address);
    }
    // The good server does not know the certificate in front of it, to which it would be bound: the
    // client gets through to it, and no further.
    match judge::config(vector, &address).and_then(Manager::connect) {
        Err(error) if error.is_auth() => Ok(()),
        other => Err(wrong(&format_args!("the binding was not missed: {other:?}"))),
    }
}

#[cfg(not(feature = "tls"))]
fn recovers_by_tls(_: &Vector, _: &Address) -> Result<(), Trouble> {
    Err(wrong(&"no vector that requires TLS is replayed without it"))
}

/// Whether every script was played to its end at least once.
fn all_played(vector: &Vector, records: &[Record]) -> Result<(), Trouble> {
    for script in 0..vector.connections.len() {
        let mut why = format!("connection {} of the script never came", script + 1);
        let mut plays = records.iter().filter(|record| record.script == Some(script));
        let is_played = plays.any(|record| match &record.unplayed {
            None => true,
            Some(unplayed) => {
                why.clone_from(unplayed);
                false
            }
        });
        if !is_played {
            return Err(Trouble::Wrong(why));
        }
    }
    Ok(())
}

/// What the vector says of connecting.
fn first(vector: &Vector) -> Option<&Outcome> {
    vector.outcomes.iter().find(|outcome| ["connect", "config"].contains(&outcome.of.as_str()))
}

fn setting(vector: &Vector, name: &str, default: u64) -> Duration {
    let value = vector.setting(name).and_then(|value| value.parse().ok());
    Duration::from_millis(value.unwrap_or(default))
}

fn wrong(why: &dyn std::fmt::Display) -> Trouble {
    Trouble::Wrong(why.to_string())
}

fn in_time(what: &str, took: Duration, limit: Duration) -> Result<(), Trouble> {
    if took <= limit + GRACE {
        return Ok(());
    }
    Err(Trouble::Slow(format!("{what} took {took:?}, and {limit:?} is the limit")))
}

/// Whether locks can be taken; a session that has to come back first may take its time.
fn works(manager: &Manager) -> Result<(), Trouble> {
    let begin = Instant::now();
    loop {
        match manager.try_lock(&Context::background(), 99) {
            Ok(Some(lock)) => {
                return lock.unlock().map_err(|error| wrong(&format_args!("unlock: {error}")));
            }
            Ok(None) => return Err(wrong(&"a free key was refused after the attack")),
            Err(error) if begin.elapsed() > PATIENCE => {
                return Err(wrong(&format_args!("no recovery: {error}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(3)),
        }
    }
}

impl<'v> Client<'v> {
    fn new(vector: &'v Vector, manager: Manager) -> Self {
        let context = Context::background();
        Self { vector, manager, held: None, context, tried: None, unlocked: None }
    }

    fn act(&mut self) -> Result<(), Trouble> {
        let limit = setting(self.vector, "reply_timeout", 700);
        let background = Context::background();
        for action in &self.vector.client {
            let begin = Instant::now();
            match action {
                Action::Hold(key) => match self.manager.try_lock(&background, *key) {
                    Ok(Some(lock)) => {
                        self.context = lock.context().clone();
                        self.held = Some(lock);
                    }
                    other => return Err(wrong(&format_args!("nothing to hold: {other:?}"))),
                },
                Action::Try(key) => {
                    let answer = self.manager.try_lock(&background, *key);
                    self.tried = Some(answer.map(|lock| lock.is_some()));
                }
                Action::Unlock => {
                    let lock = self.held.take().ok_or_else(|| wrong(&"nothing is held"))?;
                    self.unlocked = Some(lock.unlock());
                }
            }
            in_time(&format!("{action:?}"), begin.elapsed(), limit)?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), Trouble> {
        let outcomes = self.vector.outcomes.iter();
        for wanted in outcomes.filter(|outcome| outcome.of != "connect") {
            self.judge_one(wanted)?;
        }
        Ok(())
    }

    fn judge_one(&self, wanted: &Outcome) -> Result<(), Trouble> {
        let verdict = wanted.verdict.as_str();
        match wanted.of.as_str() {
            "held" if verdict == "kept" => match &self.held {
                Some(lock) if lock.is_held() => Ok(()),
                _ => Err(wrong(&format_args!("not held: {:?}", self.context.err()))),
            },
            "held" => {
                let cause = self.context.done().wait_timeout(PATIENCE);
                let name = cause.map(judge::name_of_cause);
                if name == wanted.words.first().map(String::as_str) {
                    Ok(())
                } else {
                    Err(wrong(&format_args!("the lock's context is done by {name:?}")))
                }
            }
            "try" => match (&self.tried, verdict) {
                (Some(Ok(true)), "granted") | (Some(Ok(false)), "refused") => Ok(()),
                (Some(Ok(true)), "ends") => Ok(()),
                (Some(Err(error)), "ends") if error.is_session_lost() => Ok(()),
                (Some(Err(error)), "ends") if error.is_unavailable() => Ok(()),
                (Some(Err(error)), "fails") => judge::error(wanted, error).map_err(Trouble::Wrong),
                (tried, _) => Err(wrong(&format_args!("the try: {tried:?}"))),
            },
            "unlock" => match (&self.unlocked, verdict) {
                (Some(Ok(())), "done") => Ok(()),
                (Some(Err(error)), "fails") => judge::error(wanted, error).map_err(Trouble::Wrong),
                (unlocked, _) => Err(wrong(&format_args!("the unlock: {unlocked:?}"))),
            },
            "unavailable" => self.judge_absence(wanted),
            of => Err(wrong(&format_args!("`outcome {of}` cannot be judged"))),
        }
    }

    /// Waits until the reason of the absent session is the one that is wanted: before the attack
    /// on the reconnect it is the end of the session before.
    fn judge_absence(&self, wanted: &Outcome) -> Result<(), Trouble> {
        let begin = Instant::now();
        loop {
            let why = match self.manager.try_lock(&Context::background(), 98) {
                Ok(_) => "a lock was granted".to_owned(),
                Err(error) => match judge::unavailable(wanted, &error) {
                    Ok(()) => return Ok(()),
                    Err(why) => why,
                },
            };
            if begin.elapsed() > PATIENCE {
                return Err(Trouble::Wrong(why));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
