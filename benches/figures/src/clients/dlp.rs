//! distributed-lock-postgres, on a pool of one connection that is not tested each time.

use distributed_lock_core::traits::{DistributedLock, LockHandle, LockProvider};
use distributed_lock_postgres::PostgresLockProvider;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;

use super::{Client, Flavor, Server};

/// On one thread.
pub(crate) struct Dlp {
    runtime: Runtime,
    lock: <PostgresLockProvider as LockProvider>::Lock,
}

impl Dlp {
    pub(crate) fn new(server: &Server, key: i64, flavor: Flavor) -> Self {
        let runtime = flavor.runtime();
        let lock = runtime.block_on(async {
            let options = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
            let pool = options.connect(&server.url()).await.expect("a session");
            let provider = PostgresLockProvider::builder().pool(pool).build().await;
            // Sixteen hexadecimal digits are taken as the number that they are.
            provider.expect("a provider").create_lock(&format!("{key:016x}"))
        });
        Self { runtime, lock }
    }
}

impl Client for Dlp {
    fn cycles(&mut self, count: u32) {
        self.runtime.block_on(async {
            for _ in 0..count {
                let handle = self.lock.try_acquire().await.expect("an answer");
                handle.expect("it is free").release().await.expect("it was held");
            }
        });
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        self.runtime.block_on(async {
            let handle = self.lock.try_acquire().await.expect("an answer").expect("it is free");
            look();
            handle.release().await.expect("it was held");
        });
    }
}
