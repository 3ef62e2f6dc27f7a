//! Replays the attack vectors of `tests/vectors` to distlock, tokio-postgres and sqlx, each run in
//! a process of its own, and prints what came of them as Markdown. `README.md` beside this crate
//! says how each verdict is taken.
//!
//! Without arguments it replays everything and prints the tables; `--write` puts them into the
//! files as well; `--only PART` takes the vectors whose names hold that part, and shows each run.
//! `--child` is for itself.

mod attack;
mod child;
mod choice;
mod clients;
mod replay;
mod report;
mod rest;
mod verdict;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use attack::Run;
use clients::Client;
use replay::{format, judge, scram};

/// How many vectors are replayed at a time.
const AT_A_TIME: usize = 2;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--child", client, vector, address] => child::main(client, vector, address),
        [] => replay_all("", false),
        ["--write"] => replay_all("", true),
        ["--only", part] => replay_all(part, false),
        _ => Err("usage: vectors [--write | --only PART-OF-A-NAME]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn replay_all(part: &str, write: bool) -> Result<(), String> {
    let vectors = format::load(&root().join("tests/vectors")).map_err(|error| error.to_string())?;
    scram::warm_up(judge::PASSWORD);
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for vector in vectors.into_iter().filter(|vector| vector.name.contains(part)) {
        match choice::left_out(&vector) {
            Some(why) => left.push((vector.name, why)),
            None => taken.push(vector),
        }
    }
    let mut jobs = VecDeque::new();
    for client in Client::ALL {
        jobs.extend(taken.iter().map(|vector| (client, vector)));
    }
    let jobs = Mutex::new(jobs);
    let runs = Mutex::new(Vec::<Run>::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((client, vector)) = next() {
                    let run = attack::run(client, vector);
                    eprintln!("{}", report::line(&run));
                    runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    runs.sort_by(|a, b| (&a.vector, a.client).cmp(&(&b.vector, b.client)));
    for (vector, why) in &left {
        eprintln!("left out: {vector}: {why}");
    }
    if write {
        return report::write(&runs, &left);
    }
    println!("{}", report::short(&runs, &left));
    Ok(())
}
