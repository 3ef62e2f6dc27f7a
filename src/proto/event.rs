//! What a [session](super::session) tells.

use super::fields::ServerError;
use super::frontend::KeyParameters;
use super::handshake::Greeting;
use super::listing::Listing;
use super::probe::Question;
use super::statement::Value;

/// What happened. The tickets are those given to
/// [`Session::submit`](super::session::Session::submit) and its like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A witness is to answer this;
    /// [`Session::witnessed`](super::session::Session::witnessed) goes on.
    Witness(Question),
    /// The session is authenticated, set up and prepared.
    Ready(Greeting),
    /// A statement's answer: its row is in, and its CommandComplete, or the row of the next one of
    /// a run is to follow.
    Answer {
        /// The statement.
        ticket: u64,
        /// What it said.
        value: Value,
    },
    /// The answer of a statement that asks who holds a key.
    Listed {
        /// The statement.
        ticket: u64,
        /// Who holds it.
        listing: Box<Listing>,
    },
    /// A statement failed; whether it took effect is not known (invariant I2).
    Failed {
        /// The statement.
        ticket: u64,
        /// The server's report.
        error: Box<ServerError>,
    },
    /// A statement was not run, because one before it failed.
    Skipped {
        /// The statement.
        ticket: u64,
    },
    /// Somebody notifies those who wait for a key.
    Notified {
        /// The server process of who does; it may be our own.
        process_id: i32,
        /// The key.
        key: KeyParameters,
    },
    /// A batch could not be committed. What it did to locks stands; what it was to notify is lost.
    CommitFailed {
        /// The server's report.
        error: Box<ServerError>,
    },
    /// A Sync was answered.
    Synced {
        /// What was given to [`Session::sync`](super::session::Session::sync).
        mark: u64,
    },
}
