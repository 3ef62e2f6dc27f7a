//! One client under one attack, in a process of its own: connects, asks for locks as the vector
//! says, and prints what happened, a line each. A panic, an abort, or a thread that hangs says
//! nothing about the next run. [`attack`](super::attack) reads the lines.
//!
//! Lines: `base KB`, `STAGE ok|granted|refused|late|failed TEXT`, `note TEXT`, `panic WHERE`,
//! `hung`, `grew`, `end KB`. STAGE is `connect`, `hold` or `try`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clients::{Client, Session};
use crate::replay::format::{self, Action, Vector};
use crate::replay::server::Address;

/// After this the caller gives a call up, as it may with any future.
const CALLERS_TIMEOUT: Duration = Duration::from_secs(2);

/// After this the process ends itself: its thread hangs.
const HANG: Duration = Duration::from_secs(8);

/// A process that has grown by so much has shown what there is to show.
const GROWTH_END: u64 = 768 * 1024;

/// How long a session is left idle while a vector attacks it there.
const IDLE: Duration = Duration::from_millis(250);

/// Runs one client under one attack.
pub(crate) fn main(client: &str, vector: &str, address: &str) -> Result<(), String> {
    let client = Client::named(client).ok_or("no such client")?;
    let path = crate::root().join("tests/vectors").join(format!("{vector}.vector"));
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let vector = format::parse(vector, &text).map_err(|error| error.to_string())?;
    let address = match address.split_once(':') {
        Some(("tcp", port)) => Address::Tcp(port.parse().map_err(|_| "no port")?),
        Some(("unix", folder)) => Address::Unix(PathBuf::from(folder)),
        _ => return Err("no address".into()),
    };
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        say(&format!("panic {place}: {}", text.unwrap_or_default().escape_debug()));
    }));
    // As `#[tokio::main]` makes it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let base = peak();
    say(&format!("base {base}"));
    std::thread::spawn(move || watch(base));
    runtime.block_on(attack(client, &vector, &address));
    say(&format!("end {}", peak()));
    // Not by the runtime's end, which would wait for a thread that hangs.
    std::process::exit(0)
}

async fn attack(client: Client, vector: &Vector, address: &Address) {
    let connect = Session::connect(client, vector, address);
    let mut session = match tokio::time::timeout(CALLERS_TIMEOUT, connect).await {
        Ok(Ok(session)) => {
            say("connect ok");
            session
        }
        Ok(Err(why)) => return say(&format!("connect failed {}", why.escape_debug())),
        Err(_) => return say("connect late"),
    };
    let mut actions = vector.client.clone();
    let is_idle = matches!(actions[..], [Action::Hold(_)]);
    let is_connect_good = vector.outcomes.iter().all(|outcome| outcome.verdict == "ready");
    if is_idle || (actions.is_empty() && is_connect_good) {
        // What came while the session was idle is seen by its next statement at the latest.
        actions.push(Action::Try(8));
    }
    for action in actions {
        let (stage, key) = match action {
            Action::Hold(key) => ("hold", key),
            Action::Try(key) => ("try", key),
            Action::Unlock => continue,
        };
        if stage == "try" && !vector.client.is_empty() && vector.client[0] != action {
            let is_lost = vector.outcomes.iter().any(|outcome| outcome.verdict == "lost");
            tokio::time::sleep(IDLE).await;
            if let Some(cause) = session.lost(if is_lost { IDLE } else { Duration::ZERO }) {
                say(&format!("try failed {}", cause.escape_debug()));
                break;
            }
        }
        match tokio::time::timeout(CALLERS_TIMEOUT, session.ask(key)).await {
            Ok(Ok(true)) => say(&format!("{stage} granted")),
            Ok(Ok(false)) => say(&format!("{stage} refused")),
            Ok(Err(why)) => say(&format!("{stage} failed {}", why.escape_debug())),
            Err(_) => say(&format!("{stage} late")),
        }
    }
    if !session.can_be_ended().await {
        say("hung");
    }
}

/// Ends the process when it hangs, and before it takes the machine's memory.
fn watch(base: u64) {
    let begin = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let grew = peak().saturating_sub(base) > GROWTH_END;
        if grew || begin.elapsed() > HANG {
            say(if grew { "grew" } else { "hung" });
            say(&format!("end {}", peak()));
            std::process::exit(0);
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is there to be told if the parent has gone.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The process's highest resident memory so far, in KiB (proc(5), VmHWM).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    number.unwrap_or(0)
}
