//! The clients that are compared, each as its users call it: one lock and its release, over and
//! over, on one connection.

mod dlp;
mod ours;
mod pooled;
mod raw;
mod tokio_pg;

use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};

pub(crate) use dlp::Dlp;
pub(crate) use ours::{Ours, OursAwaited};
pub(crate) use pooled::Sqlx;
pub(crate) use raw::Raw;
pub(crate) use tokio_pg::{
    Session as TokioPostgresSession, TokioPostgres, connect as connect_tokio_postgres,
};

/// Who locks and releases, in its own thread.
pub(crate) trait Client {
    /// Locks and releases so many times. All releases have been answered when it returns, so that
    /// none is left for whoever comes next to pay.
    fn cycles(&mut self, count: u32);

    /// Locks, lets the caller look, and releases.
    fn hold(&mut self, look: &mut dyn FnMut());
}

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) socket_directory: PathBuf,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The same over its Unix socket.
    pub(crate) fn socket_string(&self) -> String {
        let directory = self.socket_directory.display();
        format!("host={directory} port={} user=postgres dbname=postgres", self.port)
    }
}

/// The two ways of tokio to run tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// All in the calling thread.
    Current,
    /// In threads of its own, as many as there are cores.
    Multi,
}

impl Flavor {
    pub(crate) const ALL: [Self; 2] = [Self::Current, Self::Multi];

    pub(crate) fn runtime(self) -> Runtime {
        let mut builder = match self {
            Self::Current => Builder::new_current_thread(),
            Self::Multi => Builder::new_multi_thread(),
        };
        builder.enable_all().build().expect("a runtime")
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Current => "current-thread",
            Self::Multi => "multi-thread",
        }
    }
}
