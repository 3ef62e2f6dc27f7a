//! A worker: a process with one manager, which does what its standard input says and reports on
//! its standard output. This is the part of the demonstration that uses the library.
//!
//! It ends as soon as its standard input does, whatever it is doing: so no worker outlives the
//! director.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use std::{fs, thread};

use distlock::{Canceler, Cause, Config, Context, Error, Lock, Manager};

use crate::wire::{Command, IN_DOUBT, LOST, Moment, OTHER, Report, UNAVAILABLE, Word};

/// What everybody wants.
pub(crate) const KEY: &str = "the one key";

/// What a round does under the lock, and between two locks.
const WORK: Duration = Duration::from_millis(2);

/// The whole life of a worker.
pub(crate) fn run(name: &str, url: &str, counter: &Path) -> ExitCode {
    match serve(name, url, counter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(name, Word::Failed, &format!("error {why}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, url: &str, counter: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let orders = listen();
    let config = Config::from_str(url)?.application_name(format!("demo-{name}"));
    let manager = Manager::connect(config)?;
    say(name, Word::Ready, &format!("ok is connected, process {}", process::id()));
    for (order, context) in orders {
        match order {
            Command::Work(rounds) => {
                for _ in 0..rounds {
                    work(name, &manager, &context, counter)?;
                }
                say(name, Word::Finished, "");
            }
            Command::Hold => hold(name, &manager, &context)?,
            // Done already: the context of the hold was cancelled.
            Command::Release => {}
            Command::Close => break,
        }
    }
    let begin = Moment::now();
    manager.close();
    let took = Moment::now().since(begin).as_secs_f64() * 1e3;
    say(name, Word::Closed, &format!("ok closed its manager, in {took:.1} ms"));
    Ok(())
}

/// One round of work that goes wrong as soon as two do it at once.
fn work(
    name: &str,
    manager: &Manager,
    context: &Context,
    counter: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let lock = manager.lock(context, KEY)?;
    let enter = Moment::now();
    let count: u32 = fs::read_to_string(counter)?.parse()?;
    thread::sleep(WORK);
    fs::write(counter, (count + 1).to_string())?;
    let leave = Moment::now();
    lock.unlock()?;
    say_at(enter, name, Word::Round, &leave.to_string());
    // What a worker does without the lock, while the others have their turn.
    thread::sleep(WORK);
    Ok(())
}

/// Asks for the lock, waits for it, and holds it until `context` is cancelled or the lock is lost.
fn hold(name: &str, manager: &Manager, context: &Context) -> Result<(), Error> {
    let lock = match manager.try_lock(context, KEY) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            say(name, Word::Taken, "");
            wait(name, manager, context)?
        }
        Err(error) => {
            say(name, Word::Refused, &format!("{} try_lock: {error}", tag(&error)));
            wait(name, manager, context)?
        }
    };
    say(name, Word::Enter, "");
    let cause = lock.context().done().wait();
    let now = Moment::now();
    if cause == Cause::Canceled {
        say_at(now, name, Word::Leave, "");
        return lock.unlock();
    }
    let is_lost = !lock.is_held() && lock.unlock().is_err_and(|error| error.is_session_lost());
    let tag = if is_lost { format!("{cause:?}") } else { IN_DOUBT.to_owned() };
    say_at(now, name, Word::Lost, &format!("{tag} its context is done: {cause}"));
    Ok(())
}

/// Waits for the lock, over as many sessions as it takes.
fn wait(name: &str, manager: &Manager, context: &Context) -> Result<Lock, Error> {
    loop {
        match manager.lock(context, KEY) {
            Err(error) if error.is_session_lost() => {
                say(name, Word::Again, &format!("{} lock: {error}", tag(&error)));
            }
            answer => return answer,
        }
    }
}

fn tag(error: &Error) -> &'static str {
    if error.is_unavailable() {
        UNAVAILABLE
    } else if error.is_session_lost() {
        LOST
    } else {
        OTHER
    }
}

/// Reads the orders, in a thread of its own: `release` cancels the context of the hold under way,
/// and the end of the input ends the process.
fn listen() -> Receiver<(Command, Context)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut current: Option<Canceler> = None;
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Some(order) = Command::parse(&line) else { break };
            if order == Command::Release {
                if let Some(canceler) = current.take() {
                    canceler.cancel();
                }
            }
            let (context, canceler) = Context::background().with_cancel();
            if order == Command::Hold {
                current = Some(canceler);
            }
            if sender.send((order, context)).is_err() {
                // On the way out: the process ends by itself, with its own exit code.
                return;
            }
        }
        process::exit(1);
    });
    receiver
}

fn say(name: &str, word: Word, rest: &str) {
    say_at(Moment::now(), name, word, rest);
}

fn say_at(at: Moment, name: &str, word: Word, rest: &str) {
    let report = Report { at, name: name.to_owned(), word, rest: rest.to_owned() };
    let mut out = io::stdout().lock();
    if writeln!(out, "{report}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        process::exit(1);
    }
}
