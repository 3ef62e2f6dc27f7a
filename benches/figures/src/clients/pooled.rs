//! sqlx's own advisory lock, on a connection that is kept.

use sqlx::postgres::{PgAdvisoryLock, PgAdvisoryLockKey, PgConnection};
use sqlx::{Connection, Either};
use tokio::runtime::Runtime;

use super::{Client, Flavor, Server};

/// On one thread.
pub(crate) struct Sqlx {
    runtime: Runtime,
    connection: PgConnection,
    lock: PgAdvisoryLock,
    /// Whether the guard is dropped, which sends the release before the next statement, or
    /// `release_now` awaited.
    drops: bool,
}

impl Sqlx {
    pub(crate) fn new(server: &Server, key: i64, flavor: Flavor, drops: bool) -> Self {
        let runtime = flavor.runtime();
        let connection = runtime.block_on(PgConnection::connect(&server.url()));
        let lock = PgAdvisoryLock::with_key(PgAdvisoryLockKey::BigInt(key));
        Self { runtime, connection: connection.expect("a session"), lock, drops }
    }
}

/// Locks, does something, and releases, at once or with the next statement.
async fn cycle(
    lock: &PgAdvisoryLock,
    connection: &mut PgConnection,
    drops: bool,
    meanwhile: impl FnOnce(),
) {
    match lock.try_acquire(connection).await.expect("an answer") {
        Either::Left(guard) => {
            meanwhile();
            match drops {
                true => drop(guard),
                false => {
                    guard.release_now().await.expect("an answer");
                }
            }
        }
        Either::Right(_) => panic!("it is free"),
    }
}

impl Client for Sqlx {
    fn cycles(&mut self, count: u32) {
        let Self { runtime, connection, lock, drops } = self;
        runtime.block_on(async {
            for n in 1..=count {
                cycle(lock, connection, *drops && n < count, || {}).await;
            }
        });
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        let Self { runtime, connection, lock, .. } = self;
        runtime.block_on(cycle(lock, connection, false, look));
    }
}
