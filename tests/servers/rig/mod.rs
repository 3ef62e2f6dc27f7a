//! The servers that are not PostgreSQL itself: poolers in front of a private cluster, PGlite, and
//! servers that only pretend (`fake`, `relay`).
//!
//! Each has a private directory and a free loopback port, runs as the user of the servers, and
//! ends with its owner. A program that is missing fails the test with what to install.
#![allow(unreachable_pub, reason = "a module of one binary, public in none")]

mod fake;
mod pgbouncer;
mod pglite;
mod pgpool;
mod process;
mod relay;
mod wire;

pub use fake::{Fake, Manners};
pub use pgbouncer::{PgBouncer, PoolMode};
pub use pglite::Pglite;
pub use pgpool::Pgpool;
pub use relay::{Relay, Treatment};
