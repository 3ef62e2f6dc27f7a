//! The attack vectors of `tests/vectors`, replayed: to a manager over real sockets, and into the
//! protocol's state machine with the bytes cut in different ways. What each has to withstand is in
//! its file; `tests/vectors/README.md` says how to read one, and where the classes are tested that
//! no server's bytes can show.
//!
//! A binary of its own, since it measures the memory of the whole process.
#![cfg(feature = "__internals")]
#![allow(unreachable_pub, reason = "other programs include the modules of the replay, too")]
#![allow(dead_code, reason = "they use other parts of them")]

#[path = "replay/anywhere.rs"]
mod anywhere;
#[path = "replay/elsewhere.rs"]
mod elsewhere;
#[path = "replay/format.rs"]
mod format;
#[cfg(feature = "tls")]
#[path = "replay/front.rs"]
mod front;
#[path = "replay/good.rs"]
mod good;
#[path = "replay/items.rs"]
mod items;
#[path = "replay/judge.rs"]
mod judge;
#[path = "replay/live.rs"]
mod live;
#[path = "replay/memory.rs"]
mod memory;
#[path = "replay/plain.rs"]
mod plain;
#[path = "replay/player.rs"]
mod player;
#[path = "replay/pure.rs"]
mod pure;
#[path = "replay/scram.rs"]
mod scram;
#[path = "replay/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write as _, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use format::Vector;
use player::Tamper;

/// How many classes of attacks there are: A1 to A46.
const CLASSES: usize = 46;

/// How many vectors are replayed at a time.
const AT_A_TIME: usize = 4;

/// The most by which all of them together may make the process grow at any moment.
const GROWTH_MAX: i64 = 1024 * 1024;

/// No vector takes this long: who waits longer has found one that hangs.
const HANG: Duration = Duration::from_secs(60);

/// Every vector that this build can replay.
pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors = all();
    vectors
        .retain(|vector| vector.requires.iter().all(|what| what == "tls" && cfg!(feature = "tls")));
    vectors
}

fn all() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    format::load(&folder).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs a check of each, four at a time, and fails with everything that is wrong.
pub(crate) fn check_all<T: Sync>(
    what: &[T],
    name: impl Fn(&T) -> String + Sync,
    check: impl Fn(&T) -> Result<(), String> + Sync,
) {
    let next = AtomicUsize::new(0);
    let running = Mutex::new(BTreeSet::new());
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..AT_A_TIME.min(what.len()) {
            let sender = sender.clone();
            let (next, running, name, check) = (&next, &running, &name, &check);
            scope.spawn(move || {
                while let Some(one) = what.get(next.fetch_add(1, Ordering::SeqCst)) {
                    running.lock().expect("no panic inside").insert(name(one));
                    let work = AssertUnwindSafe(|| check(one));
                    let result = catch_unwind(work).unwrap_or_else(|_| Err("a panic".into()));
                    running.lock().expect("no panic inside").remove(&name(one));
                    if sender.send((one, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..what.len() {
            let Ok((one, result)) = results.recv_timeout(HANG) else {
                // The scope would wait for who hangs; the report must not.
                let (names, panics) = (running.lock().expect("no panic inside"), live::panics());
                // Past the test harness, which would keep it to itself.
                let _ = writeln!(stderr(), "these hang: {names:?}; panics: {panics:?}");
                std::process::exit(1);
            };
            if let Err(why) = result {
                wrong.push(format!("{}: {why}", name(one)));
            }
        }
    });
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), what.len(), wrong.join("\n"));
}

#[test]
fn every_class_of_attack_has_vectors_or_a_test_of_its_own() {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for vector in all() {
        let number = vector.class.strip_prefix('A').and_then(|number| number.parse().ok());
        let number: usize = number.unwrap_or_else(|| panic!("{}: {}", vector.name, vector.class));
        assert!((1..=CLASSES).contains(&number), "{}: {}", vector.name, vector.class);
        let place = format!("a{number:02}-");
        assert!(vector.name.starts_with(&place), "{} is of class A{number}", vector.name);
        assert!(!vector.source.is_empty(), "{} has no source", vector.name);
        *counts.entry(number).or_default() += 1;
    }
    for class in 1..=CLASSES {
        let tests: Vec<_> =
            elsewhere::TESTS.iter().filter(|(number, ..)| *number == class).collect();
        let count = counts.get(&class).copied().unwrap_or(0);
        println!("A{class}: {count} vectors, {} tests of their own", tests.len());
        assert!(count + tests.len() > 0, "nothing tests A{class}");
    }
    let total: usize = counts.values().sum();
    let controls = all().iter().filter(|vector| is_control(vector)).count();
    println!("{total} vectors, {} of them replayed by this build", vectors().len());
    println!("{} classes, {controls} controls", counts.len());
    let numbers = format!("{total} files in {}", counts.len());
    for path in ["README.md", "SECURITY.md", "tests/vectors/README.md"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        assert!(text.contains(&numbers), "{path} does not have: {numbers}");
        let is_counted = [" controls", " of them controls", " of the files are controls"]
            .iter()
            .any(|words| text.contains(&format!("{controls}{words}")));
        assert!(is_counted, "{path} does not have the {controls} controls");
    }
}

/// Whether nothing fails, is refused or lost in a vector: it shows that no more is refused than has
/// to be.
fn is_control(vector: &Vector) -> bool {
    vector
        .outcomes
        .iter()
        .all(|outcome| ["ready", "granted", "kept", "done"].contains(&outcome.verdict.as_str()))
}

#[test]
fn every_vector_is_withstood_over_sockets_within_its_time_and_a_mebibyte() {
    let _alone = memory::alone();
    live::record_panics();
    scram::warm_up(judge::PASSWORD);
    let vectors = vectors();
    let (_, growth) = memory::growth_of_process(|| {
        check_all(
            &vectors,
            |vector| vector.name.clone(),
            |vector| live::check(vector, &Tamper::Nothing),
        );
    });
    println!("{} vectors, {AT_A_TIME} at a time: {growth} bytes at the most", vectors.len());
    assert!(growth < GROWTH_MAX, "the process grew by {growth} bytes");
}

#[test]
fn every_vector_is_withstood_by_the_state_machine_however_its_bytes_are_cut() {
    let _turn = memory::beside_others();
    scram::warm_up(judge::PASSWORD);
    let mut vectors = vectors();
    // Encryption is not the state machine's.
    vectors.retain(|vector| vector.requires.is_empty());
    let most = Mutex::new((0, String::new()));
    check_all(
        &vectors,
        |vector| vector.name.clone(),
        |vector| {
            let growth = pure::check(vector)?;
            let mut most = most.lock().expect("no check panics");
            if growth > most.0 {
                *most = (growth, vector.name.clone());
            }
            Ok(())
        },
    );
    let (growth, name) = most.into_inner().expect("no check panics");
    println!("{} vectors, {} cuts: {growth} bytes at the most ({name})", vectors.len(), 5);
}
