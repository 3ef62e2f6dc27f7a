//! The wire protocol: a minimal PostgreSQL frontend as plain values.
//!
//! Nothing here knows a socket, a thread, a clock or a random source, and nothing allocates once a
//! [`Session`](session::Session) is ready, but a [`listing`] and what reports an error. Bytes go
//! in, bytes and events come out, in whatever pieces the network likes: any split of the same bytes
//! gives the same events. Bytes from the server are hostile (invariant I10): every length is
//! checked against a cap before a body is waited for, every body must be used up exactly, and a
//! message that the state does not expect ends the session. `proto_notes.md` has the byte tables.
//!
//! | module | what |
//! |---|---|
//! | [`buffer`], [`budget`] | the fixed read and write buffers; how much a server may say |
//! | [`frontend`] | the messages we send |
//! | [`backend`], [`fields`] | the messages we accept, and those we refuse by name |
//! | [`authentication`], [`scram`], [`md5`] | who we are, and whether the server proves who it is |
//! | [`handshake`] | from the StartupMessage to the first ReadyForQuery of a prepared session |
//! | [`startup`] | what a session starts with |
//! | [`probe`] | what is asked to find out whether the server's locks hold |
//! | [`settings`] | the session settings, and what must be read back |
//! | [`statement`], [`companion`] | the lock statements, and the keys by which waiters are found |
//! | [`listing`] | who holds a key and who waits for it, as the server tells it |
//! | [`session`] | the prepared session and its statements in flight |
#![cfg_attr(
    not(any(fuzzing, feature = "__internals")),
    allow(unreachable_pub, reason = "public for the tests and the fuzz targets only")
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

pub mod authentication;
pub mod backend;
pub mod budget;
pub mod buffer;
pub mod companion;
#[cfg(any(feature = "tls", fuzzing, feature = "__internals"))]
pub mod end_point;
pub mod event;
pub mod fault;
pub mod fields;
pub mod frontend;
pub mod handshake;
pub mod listing;
pub mod md5;
pub mod probe;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub mod rehearsal;
mod ring;
pub mod scram;
pub mod session;
pub mod settings;
pub mod startup;
pub mod statement;
