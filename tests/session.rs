//! The session against a scripted backend, without sockets.
//!
//! Every script is played whole, one byte at a time, and split at every single position, and must
//! give the same each time (`script`). The backend's messages are made here by hand (`backend`),
//! sharing no code with the codec. `handshake`, `authentication`, `ready` and `listing` are the
//! stories;
//! `states` tries every message in every state against the table in `proto_notes.md`.
#![cfg(feature = "__internals")]

#[path = "session/authentication.rs"]
mod authentication;
#[path = "session/backend.rs"]
mod backend;
#[path = "session/binding.rs"]
mod binding;
#[path = "session/handshake.rs"]
mod handshake;
#[path = "session/listing.rs"]
mod listing;
#[path = "support/notes.rs"]
mod notes;
#[path = "session/ready.rs"]
mod ready;
#[path = "session/run.rs"]
mod run;
#[path = "session/script.rs"]
mod script;
#[path = "session/states.rs"]
mod states;
#[path = "session/swap.rs"]
mod swap;
#[path = "session/usual.rs"]
mod usual;
