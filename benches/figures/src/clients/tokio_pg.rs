//! tokio-postgres, with prepared statements.

use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, Statement};

use super::{Client, Flavor, Server};

/// A connection that runs as a task of its runtime, and the two statements.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    lock: Statement,
    unlock: Statement,
}

/// Connects, and prepares.
pub(crate) async fn connect(server: &Server) -> Session {
    let (client, connection) =
        tokio_postgres::connect(&server.url(), NoTls).await.expect("a session");
    tokio::spawn(async move {
        // It ends with the client, or the next answer is missing.
        let _ = connection.await;
    });
    let lock = client.prepare("SELECT pg_try_advisory_lock($1)").await.expect("a statement");
    let unlock = client.prepare("SELECT pg_advisory_unlock($1)").await.expect("a statement");
    Session { client, lock, unlock }
}

impl Session {
    pub(crate) async fn lock(&self, key: i64) {
        let row = self.client.query_one(&self.lock, &[&key]).await.expect("an answer");
        assert!(row.get::<_, bool>(0), "it is free");
    }

    pub(crate) async fn unlock(&self, key: i64) {
        let row = self.client.query_one(&self.unlock, &[&key]).await.expect("an answer");
        assert!(row.get::<_, bool>(0), "it was held");
    }
}

/// On one thread.
pub(crate) struct TokioPostgres {
    runtime: Runtime,
    session: Session,
    key: i64,
    /// Whether a release is awaited together with the next request, in a join of both, instead of
    /// before it.
    joins: bool,
}

impl TokioPostgres {
    pub(crate) fn new(server: &Server, key: i64, flavor: Flavor, joins: bool) -> Self {
        let runtime = flavor.runtime();
        let session = runtime.block_on(connect(server));
        Self { runtime, session, key, joins }
    }

    async fn joined(&self, count: u32) {
        self.session.lock(self.key).await;
        for _ in 1..count {
            let release = self.session.unlock(self.key);
            tokio::join!(release, self.session.lock(self.key));
        }
        self.session.unlock(self.key).await;
    }
}

impl Client for TokioPostgres {
    fn cycles(&mut self, count: u32) {
        self.runtime.block_on(async {
            if self.joins {
                return self.joined(count).await;
            }
            for _ in 0..count {
                self.session.lock(self.key).await;
                self.session.unlock(self.key).await;
            }
        });
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        self.runtime.block_on(async {
            self.session.lock(self.key).await;
            look();
            self.session.unlock(self.key).await;
        });
    }
}
