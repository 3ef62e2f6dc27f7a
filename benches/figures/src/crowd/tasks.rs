//! Tasks on one connection, ours and theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use distlock::{Lock, Manager};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Crowd, FIRST_KEY};
use crate::clients::{Flavor, Server, TokioPostgresSession, connect_tokio_postgres};

/// Tasks of one manager; each lock is dropped.
pub(super) struct OurTasks {
    manager: Manager,
    runtime: Runtime,
    count: i64,
}

impl OurTasks {
    pub(super) fn new(manager: Manager, flavor: Flavor, count: i64) -> Self {
        Self { manager, runtime: flavor.runtime(), count }
    }
}

async fn our_lock(manager: &Manager, key: i64) -> Lock {
    manager.acquire(key).try_async().await.expect("an answer").expect("it is free")
}

impl Crowd for OurTasks {
    fn run(&mut self, span: Duration) -> f64 {
        let manager = &self.manager;
        tasks(&self.runtime, self.count, |key| {
            let manager = manager.clone();
            async move {
                let end = Instant::now() + span;
                let mut pairs = 1;
                while Instant::now() < end {
                    drop(our_lock(&manager, key).await);
                    pairs += 1;
                }
                our_lock(&manager, key).await.unlock_async().await.expect("it was held");
                pairs
            }
        })
    }
}

/// Tasks on one connection of tokio-postgres.
pub(super) struct TheirTasks {
    session: Arc<TokioPostgresSession>,
    runtime: Runtime,
    count: i64,
}

impl TheirTasks {
    pub(super) fn new(server: &Server, flavor: Flavor, count: i64) -> Self {
        let runtime = flavor.runtime();
        let session = Arc::new(runtime.block_on(connect_tokio_postgres(server)));
        Self { session, runtime, count }
    }
}

impl Crowd for TheirTasks {
    fn run(&mut self, span: Duration) -> f64 {
        let session = &self.session;
        tasks(&self.runtime, self.count, |key| {
            let session = Arc::clone(session);
            async move {
                let end = Instant::now() + span;
                let mut pairs = 0;
                while Instant::now() < end {
                    session.lock(key).await;
                    session.unlock(key).await;
                    pairs += 1;
                }
                pairs
            }
        })
    }
}

/// Runs a task for each key, all at once; returns the pairs a second.
fn tasks<F>(runtime: &Runtime, count: i64, task: impl Fn(i64) -> F) -> f64
where
    F: Future<Output = u64> + Send + 'static,
{
    runtime.block_on(async {
        let start = Instant::now();
        let mut tasks: JoinSet<u64> = (0..count).map(|n| task(FIRST_KEY + n)).collect();
        let mut pairs = 0;
        while let Some(done) = tasks.join_next().await {
            pairs += done.expect("no panic");
        }
        pairs as f64 / start.elapsed().as_secs_f64()
    })
}
