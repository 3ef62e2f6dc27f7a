//! A worker under tokio: of all the processes that run it, one at a time does the job.
//!
//! ```sh
//! cargo run --example tokio -- postgres://app@db.internal/prod 10
//! ```
//!
//! It ends after so many rounds, or with Ctrl-C: then the context that everything here hangs off is
//! cancelled, a wait for the lock ends, and so does the work under it.

use std::error::Error;
use std::time::Duration;

use distlock::{Context, Lock, Manager};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How long a process waits for its turn before it says so.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tokio URL ROUNDS".into());
    };
    run(&url, rounds.parse()?).await
}

/// Works for so many rounds, or until Ctrl-C.
pub(crate) async fn run(url: &str, rounds: u32) -> Result<()> {
    let (shutdown, canceler) = Context::background().with_cancel();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            canceler.cancel();
        }
    });
    // Connecting blocks, for up to `Config::connect_timeout`: not in a thread that runs tasks.
    let url = url.to_owned();
    let manager = tokio::task::spawn_blocking(move || Manager::connect(url)).await??;
    for round in 1..=rounds {
        let Some(lock) = turn(&manager, &shutdown).await? else { break };
        // Done when the lock is lost, or `shutdown` is cancelled: either way the work stops.
        tokio::select! {
            cause = lock.context().done() => println!("round {round} stopped: {cause}"),
            () = work() => println!("round {round} done"),
        }
        // Hands the release over and waits for nothing. Who wants to know whether the lock was
        // held until now calls `lock.unlock_async().await`.
        drop(lock);
    }
    Ok(())
}

/// The lock, or `None` when it is time to go.
async fn turn(manager: &Manager, shutdown: &Context) -> Result<Option<Lock>> {
    let asked = || manager.acquire("nightly report").context(shutdown);
    // That somebody else is at it is no error; one look costs one round trip.
    match asked().try_async().await {
        Ok(Some(lock)) => return Ok(Some(lock)),
        Ok(None) => println!("somebody else is at it"),
        Err(error) if error.is_canceled() => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    loop {
        match asked().timeout(PATIENCE).await {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.is_timeout() => println!("still at it"),
            Err(error) if error.is_canceled() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn work() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
