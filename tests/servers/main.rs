//! Which servers are taken for real lock servers, and which are refused at connect: against
//! PostgreSQL with roles and standbys of all kinds, poolers, PGlite, and pretenders.
//!
//! The programs that are needed beside PostgreSQL's are installed by `scripts/test`; a test whose
//! program is missing fails and says what to install.

#[path = "../support/mod.rs"]
mod support;

mod hosts;
mod poolers;
mod pretenders;
mod rig;
mod roles;
mod standbys;

use std::time::Duration;

use distlock::{Config, Context, Error, Lock, Manager};
use support::TempCluster;

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

/// The cluster itself, with nothing between.
fn direct(cluster: &TempCluster) -> Config {
    cluster.url().parse().expect("a URL")
}

#[track_caller]
fn connect(config: Config) -> Manager {
    Manager::connect(config).unwrap_or_else(|error| panic!("it does not connect: {error}"))
}

#[track_caller]
fn refused(config: Config) -> Error {
    Manager::connect(config).expect_err("it should have been refused")
}

fn try_lock(manager: &Manager, key: i64) -> Option<Lock> {
    manager.try_lock(&Context::background(), key).expect("answers")
}

#[track_caller]
fn lock(manager: &Manager, key: i64) -> Lock {
    try_lock(manager, key).expect("free")
}

fn sqlstate(error: &Error) -> Option<String> {
    error.sqlstate().map(|state| state.to_string())
}

/// That the text has all of these words.
#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
}
