//! Contexts and `CancellationToken`s, of which many tokio programs are full: a lock's context
//! cancels a token, and a token cancels the context that a lock is asked for with.
//!
//! ```sh
//! cargo run --example cancellation_token -- postgres://app@db.internal/prod
//! ```

use std::error::Error;

use distlock::{Context, Manager};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).ok_or("usage: cancellation_token URL")?;
    run(&url).await
}

/// A token that is cancelled when the context is done, for whatever cause.
///
/// The task in between ends then, or when the token is cancelled by somebody else.
pub(crate) fn token_of(context: &Context) -> CancellationToken {
    let token = CancellationToken::new();
    let (done, end) = (context.done(), token.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = done => end.cancel(),
            () = end.cancelled() => {}
        }
    });
    token
}

/// A child of `parent` that is cancelled when the token is, by the token's task at its next turn.
///
/// The task in between ends then, or when the parent is done.
pub(crate) fn context_of(token: &CancellationToken, parent: &Context) -> Context {
    let (context, canceler) = parent.with_cancel();
    let (token, done) = (token.clone(), context.done());
    tokio::spawn(async move {
        tokio::select! {
            () = token.cancelled() => canceler.cancel(),
            _ = done => {}
        }
    });
    context
}

/// Both ways, once.
pub(crate) async fn run(url: &str) -> Result<()> {
    let url = url.to_owned();
    let manager = tokio::task::spawn_blocking(move || Manager::connect(url)).await??;

    // The lock is released: its holder's tasks are told by a token.
    let lock = manager.acquire("nightly report").await?;
    let token = token_of(lock.context());
    println!("cancelled while the lock is held: {}", token.is_cancelled());
    drop(lock);
    token.cancelled().await;
    println!("cancelled once it was released: {}", token.is_cancelled());

    // The program shuts down: whoever works under the lock, or waits for it, is told by a context.
    let shutdown = CancellationToken::new();
    let context = context_of(&shutdown, &Context::background());
    let lock = manager.acquire("nightly report").context(&context).await?;
    let waiting = manager.acquire("nightly report").context(&context);
    let waiting = tokio::spawn(waiting.into_future());
    shutdown.cancel();
    println!("the work under the lock stops: {}", lock.context().done().await);
    match waiting.await? {
        Err(error) if error.is_canceled() => println!("and the wait ends: {error}"),
        answer => println!("not expected: {answer:?}"),
    }
    Ok(())
}
