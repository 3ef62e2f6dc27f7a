//! distlock.

use distlock::{Context, Lock, Manager};
use tokio::runtime::Runtime;

use super::{Client, Flavor};

/// From a blocking caller.
pub(crate) struct Ours {
    manager: Manager,
    context: Context,
    key: i64,
    /// Whether each lock is dropped, or each release awaited.
    drops: bool,
}

impl Ours {
    pub(crate) fn new(manager: Manager, key: i64, drops: bool) -> Self {
        Self { manager, context: Context::background(), key, drops }
    }

    fn lock(&self) -> Lock {
        let lock = self.manager.try_lock(&self.context, self.key).expect("an answer");
        lock.expect("it is free")
    }
}

impl Client for Ours {
    fn cycles(&mut self, count: u32) {
        if self.drops {
            for _ in 1..count {
                drop(self.lock());
            }
            return self.lock().unlock().expect("it was held");
        }
        for _ in 0..count {
            self.lock().unlock().expect("it was held");
        }
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        let lock = self.lock();
        look();
        lock.unlock().expect("it was held");
    }
}

/// From a task; each lock is dropped.
pub(crate) struct OursAwaited {
    manager: Manager,
    runtime: Runtime,
    key: i64,
}

impl OursAwaited {
    pub(crate) fn new(manager: Manager, key: i64, flavor: Flavor) -> Self {
        Self { manager, runtime: flavor.runtime(), key }
    }

    async fn lock(&self) -> Lock {
        let lock = self.manager.acquire(self.key).try_async().await.expect("an answer");
        lock.expect("it is free")
    }
}

impl Client for OursAwaited {
    fn cycles(&mut self, count: u32) {
        self.runtime.block_on(async {
            for _ in 1..count {
                drop(self.lock().await);
            }
            self.lock().await.unlock_async().await.expect("it was held");
        });
    }

    fn hold(&mut self, look: &mut dyn FnMut()) {
        self.runtime.block_on(async {
            let lock = self.lock().await;
            look();
            lock.unlock_async().await.expect("it was held");
        });
    }
}
