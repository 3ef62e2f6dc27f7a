//! Distributed locks on PostgreSQL.
//!
//! Mutual exclusion for a fleet of processes, on the database they already run. Locks are
//! session-level advisory locks: no transaction is left open and no table is needed. One
//! [`Manager`] in a process keeps one session for all its locks and waiters; a held [`Lock`] has a
//! [`Context`] that is done when the lock is released or lost. Callers block or `.await`, on any
//! executor.
//!
//! ```no_run
//! use distlock::{Context, Manager};
//!
//! # fn step() {}
//! # fn main() -> Result<(), distlock::Error> {
//! let manager = Manager::connect("postgres://app@db.internal/prod")?;
//! let ctx = Context::background();
//!
//! if let Some(lock) = manager.try_lock(&ctx, "invoice:42")? {
//!     while !lock.context().is_done() {
//!         step();
//! #       break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The shape
//!
//! ```text
//!  caller threads and tasks            the guard                      PostgreSQL
//!  Manager, Acquire, Lock ──> slots ──> turn ─── core (pure) ───────> one session
//!        ^                      │        │        ledger  who holds, who waits
//!        └── wakes, contexts <──┘        │        lease   what is still provably held
//!                                        │        session, codec (proto)
//!                                        └ stream: the only I/O
//! ```
//!
//! # Invariants
//!
//! Cited in the code and the tests by their numbers.
//!
//! * **I1 One hold per key per session.** Advisory locks are re-entrant within a session, so the
//!   ledger, keyed by the numeric key and never by the name, excludes the threads of a process.
//! * **I2 An error proves nothing.** After a failed statement with a lock call in it the lock may
//!   be held: it is unlocked, or the session dropped, before the caller is answered. (But for the
//!   caller of an unlock of a key that somebody asks for here meanwhile: see [`Lock::unlock`].)
//! * **I3 No orphan.** A grant whose requester has gone is released at once.
//! * **I4 Answers come in order**, one for each request; anything else ends the session.
//! * **I5 The session never waits inside a statement.** `pg_advisory_lock` is not used: it would
//!   block every other key, hold a snapshot, and hide a dead process from the server. Where others
//!   can make one wait all the same, `lock_timeout` ends that before the answer is overdue.
//! * **I6 Nothing grows beyond its limit.** Buffers and rings are sized when the manager connects;
//!   tables grow to the most that was ever needed and keep it; over a limit is a typed error.
//! * **I7 Session settings are ours**: set and read back after connecting; a value that the server
//!   did not take is an error.
//! * **I8 A dead handle stays dead.** No reconnect revives a lock, no late release reaches a newer
//!   one.
//! * **I9 The holder knows first.** The lease, with drift and slack, ends before the server's
//!   timeout; checked when the configuration is built.
//! * **I10 Server bytes are hostile.** They can end the session; they can never panic, hang, grow
//!   memory, or make a grant.
//!
//! # Awaiting
//!
//! All futures of this crate run on any executor; no runtime is needed. Their wakers are called by
//! whichever thread works for the manager at that moment: its own, or that of any caller who waits
//! for an answer, in a blocking call or in a poll. Until the waker returns, the session stands
//! still: no request goes on, and no heartbeat goes out. The wakers of executors mark a task,
//! unpark a thread, and return. A waker that is written by hand does no more than that, either:
//!
//! * It may drop a [`Lock`], or cancel a [`Context`]. A panic in it is caught.
//! * It must not wait for anybody who may be inside a blocking call of the same manager
//!   ([`Manager::lock`], [`Lock::unlock`], and so on), or polling one of its futures. With a mutex
//!   that is locked around such a call, and in the waker, both wait for each other until a time
//!   limit ends the call, or for good; and the server ends the session meanwhile.
//! * It must make no blocking call of the same manager itself, for the same reason.
//!
//! # Features
//!
//! * `tls` (off by default): TLS to the server, by rustls; see [`Config`], "TLS".
//!
//! # Words
//!
//! *Session*: one connection to the server, from its start to its end. *Holder*: who has a
//! [`Lock`]. *Waiter*: who waits for one. *Lost*: of a lock, that its session has ended. *Lease*:
//! for how long a lock is believed in without a word from the server. *Guard*: the event loop that
//! owns the session; not an RAII guard.

#![forbid(unsafe_code)]

mod acquire;
mod acquire_all;
mod batch;
mod clock;
mod config;
mod context;
mod election;
mod error;
mod foreign;
mod guard;
mod holders;
pub mod key;
mod lock;
mod lock_set;
mod manager;
#[cfg(not(any(fuzzing, feature = "__internals")))]
mod proto;
/// Below the public interface, for this crate's own tests and fuzz targets.
#[cfg(any(fuzzing, feature = "__internals"))]
#[doc(hidden)]
pub mod proto;
mod slab;
mod slots;
/// How threads share and sleep. `tests/model` compiles the same files with its own in its place.
mod sync {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, atomic};
    pub(crate) use std::thread;
}
mod timer;
mod token;
mod warning;
#[cfg(test)]
#[path = "tests/wiped.rs"]
mod wiped;

pub use acquire::{Acquire, Acquiring};
pub use acquire_all::{AcquireAll, AcquiringAll};
#[cfg(any(fuzzing, feature = "__internals"))]
#[doc(hidden)]
pub use config::conninfo;
pub use config::{
    AuthMethods, ChannelBinding, Config, Proxy, RootCert, SslMode, SslNegotiation, TlsVersion,
};
pub use context::{Canceler, Cause, Context, Done, DoneFuture};
pub use election::{Election, Term};
pub use error::{Error, Outcome, SqlState, Unsuitability};
pub use holders::{Holder, Holders, Inquiring, Inquiry, Place, SessionInfo, Waiter};
pub use key::Key;
pub use lock::Lock;
pub use lock_set::LockSet;
pub use manager::Manager;
pub use token::Token;
pub use warning::Warning;

/// Compiles the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
