//! The executors, and what a scenario asks of one.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use distlock::Context;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::executor::{LocalPool, LocalSpawner, ThreadPool};
use futures::future::{Either, select};
use futures::task::{LocalSpawnExt, SpawnExt};

use crate::support::block_on;

/// What a task that was spawned gives back; it ends with a panic if the task did.
pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T>>>;

pub(crate) trait Executor: Clone + 'static {
    fn new() -> Self;

    /// Runs the scenario, in this thread.
    fn run(self, scenario: impl Future<Output = ()>);

    /// Starts a task, which makes its way without being awaited.
    fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static)
    -> Task<T>;

    /// The same in another thread than that of any task that blocks meanwhile.
    fn spawn_beside<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        self.spawn(future)
    }

    /// Awaits a future for a while with the executor's own timer, where it has one; drops it then.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let end = Context::background().with_timeout(limit).done();
        match select(pin!(future), end.into_future()).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

/// Where an executor has no tasks, each is a thread.
fn thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        // Nobody may want to know.
        let _ = sender.send(run());
    });
    Box::pin(receiver.map(|output| output.expect("no panic in the task")))
}

/// The one of `tests/support`.
#[derive(Clone)]
pub(crate) struct Hand;

impl Executor for Hand {
    fn new() -> Self {
        Self
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        thread(|| block_on(future))
    }
}

#[derive(Clone)]
pub(crate) struct Pollster;

impl Executor for Pollster {
    fn new() -> Self {
        Self
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        pollster::block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        thread(|| pollster::block_on(future))
    }
}

/// `LocalPool`: all tasks in one thread.
#[derive(Clone)]
pub(crate) struct Local {
    /// Made and run by [`Executor::run`]; a spawner is of its pool only.
    pool: std::rc::Rc<std::cell::RefCell<Option<LocalPool>>>,
    spawner: LocalSpawner,
}

impl Executor for Local {
    fn new() -> Self {
        let pool = LocalPool::new();
        let spawner = pool.spawner();
        Self { pool: std::rc::Rc::new(std::cell::RefCell::new(Some(pool))), spawner }
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        let pool = self.pool.take();
        pool.expect("it runs once").run_until(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Box::pin(self.spawner.spawn_local_with_handle(future).expect("the pool runs"))
    }

    fn spawn_beside<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        thread(|| futures::executor::block_on(future))
    }
}

/// `ThreadPool`: tasks in any of its threads.
#[derive(Clone)]
pub(crate) struct Pool(ThreadPool);

impl Executor for Pool {
    fn new() -> Self {
        Self(ThreadPool::builder().pool_size(THREADS).create().expect("threads"))
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        futures::executor::block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Box::pin(self.0.spawn_with_handle(future).expect("the pool runs"))
    }
}

/// tokio with its `current_thread` scheduler.
#[derive(Clone)]
pub(crate) struct TokioOne(Arc<tokio::runtime::Runtime>);

/// tokio with its `multi_thread` scheduler.
#[derive(Clone)]
pub(crate) struct TokioMany(Arc<tokio::runtime::Runtime>);

impl Executor for TokioOne {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self(Arc::new(runtime.expect("a runtime")))
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        self.0.block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Box::pin(self.0.spawn(future).map(|output| output.expect("no panic in the task")))
    }

    fn spawn_beside<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let handle = self.0.handle().clone();
        let task = self.0.spawn_blocking(move || handle.block_on(future));
        Box::pin(task.map(|output| output.expect("no panic in the task")))
    }

    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, future).await.ok()
    }
}

impl Executor for TokioMany {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).enable_time().build();
        Self(Arc::new(runtime.expect("a runtime")))
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        self.0.block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        Box::pin(self.0.spawn(future).map(|output| output.expect("no panic in the task")))
    }

    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, future).await.ok()
    }
}

/// smol's executor, run by several threads.
#[derive(Clone)]
pub(crate) struct Smol(Arc<Workers>);

pub(crate) struct Workers {
    executor: Arc<smol::Executor<'static>>,
    /// The threads run until it is dropped.
    _stop: smol::channel::Sender<()>,
}

impl Executor for Smol {
    fn new() -> Self {
        let executor = Arc::new(smol::Executor::new());
        let (stop, stopped) = smol::channel::unbounded::<()>();
        for _ in 0..THREADS {
            let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
            // Ends with an error: that the sender is gone is the sign.
            thread::spawn(move || smol::block_on(executor.run(stopped.recv())));
        }
        Self(Arc::new(Workers { executor, _stop: stop }))
    }

    fn run(self, scenario: impl Future<Output = ()>) {
        smol::block_on(scenario);
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        // The task goes on without its handle elsewhere, too.
        let (sender, receiver) = oneshot::channel();
        let task = self.0.executor.spawn(async move {
            let _ = sender.send(future.await);
        });
        task.detach();
        Box::pin(receiver.map(|output| output.expect("no panic in the task")))
    }

    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let end = async {
            smol::Timer::after(limit).await;
            None
        };
        smol::future::or(async { Some(future.await) }, end).await
    }
}

/// More than one task may block.
const THREADS: usize = 3;
