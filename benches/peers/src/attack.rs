//! One run: a fake server plays a vector, a child process with one client connects to it, and
//! what was printed, measured and received is collected. [`verdict`](super::verdict) judges it.

use std::io::Read as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::clients::Client;
use crate::replay::format::{Connection, Step, Vector};
use crate::replay::good::{Kind, Processes, Server as DistlockServer};
use crate::replay::judge::PASSWORD;
use crate::replay::plain::Plain;
use crate::replay::player::{Good, Tamper};
use crate::replay::server::{Address, Play, Record, Server};
use crate::rest::{self, Greeting};
use crate::verdict::{self, Verdict};

/// A child that has not ended itself by then is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often a run is repeated on a machine that stood still.
const TRIES: usize = 3;

/// One client under one attack.
pub(crate) struct Run {
    pub(crate) client: Client,
    pub(crate) vector: String,
    pub(crate) class: String,
    pub(crate) verdict: Verdict,
    /// Everything that was seen, in words.
    pub(crate) details: Vec<String>,
}

/// What was seen of a child.
pub(crate) struct Seen {
    /// Its lines.
    pub(crate) lines: Vec<String>,
    /// How it ended; nothing if it had to be killed.
    pub(crate) status: Option<ExitStatus>,
    /// What the server received.
    pub(crate) records: Vec<Record>,
    /// How many steps the vector's own script has.
    pub(crate) steps: usize,
}

/// Replays a vector to a client.
pub(crate) fn run(client: Client, vector: &Vector) -> Run {
    let mut last = None;
    for _ in 0..TRIES {
        let (verdict, details, stalled) = match replay(client, vector) {
            Ok((seen, stalled)) => {
                let (verdict, details) = verdict::judge(client, vector, &seen);
                (verdict, details, stalled)
            }
            Err(why) => (Verdict::Broken, vec![why], false),
        };
        // Only what depends on time may be the machine's fault.
        let is_timed = matches!(verdict, Verdict::Hung | Verdict::Waited | Verdict::Broken);
        last = Some((verdict, details));
        if !(stalled && is_timed) {
            break;
        }
    }
    let (verdict, details) = last.unwrap_or((Verdict::Broken, Vec::new()));
    let (vector, class) = (vector.name.clone(), vector.class.clone());
    Run { client, vector, class, verdict, details }
}

fn replay(client: Client, vector: &Vector) -> Result<(Seen, bool), String> {
    let whole = rest::whole(vector);
    let (script, greeting) = match whole {
        Some(whole) => (vec![whole.script], whole.greeting),
        None => (Vec::new(), None),
    };
    let kind = Kind { unix: vector.has("unix"), ..Kind::default() };
    let processes = Processes::default();
    let play = Play {
        connections: script,
        password: vector.setting("password").map(|_| PASSWORD.to_owned()),
        tamper: Tamper::Nothing,
        good: Box::new(move |_| {
            let inner: Box<dyn Good> = match client {
                Client::Distlock => Box::new(DistlockServer::new(kind, &processes)),
                Client::TokioPostgres | Client::Sqlx => {
                    let mut plain = Plain::new(true);
                    plain.prepares = true;
                    Box::new(plain)
                }
            };
            match greeting.clone() {
                Some(greeting) => Box::new(Greeting { inner, greeting }),
                None => inner,
            }
        }),
    };
    let server = Server::start(play, vector.has("unix")).map_err(|error| error.to_string())?;
    let result = child(client, vector, server.address());
    let stalled = server.has_stalled();
    let records = server.stop();
    let (lines, status) = result.map_err(|error| error.to_string())?;
    let steps = vector.connections.first().map_or(0, |script| script.steps.len());
    Ok((Seen { lines, status, records, steps }, stalled))
}

fn child(
    client: Client,
    vector: &Vector,
    address: &Address,
) -> std::io::Result<(Vec<String>, Option<ExitStatus>)> {
    let address = match address {
        Address::Tcp(port) => format!("tcp:{port}"),
        Address::Unix(folder) => format!("unix:{}", folder.display()),
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", client.name(), &vector.name, &address]);
    for (name, _) in std::env::vars_os() {
        // The clients complete their configuration from them.
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let begin = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if begin.elapsed() > PATIENCE => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut text = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_end(&mut text)?;
    }
    let text = String::from_utf8_lossy(&text);
    Ok((text.lines().map(str::to_owned).collect(), status))
}

/// The first step of a script that the attack is in: what comes before it is only the way there.
pub(crate) fn first_attack(script: &Connection) -> usize {
    let is_attack = |step: &Step| {
        !matches!(step, Step::Good(_) | Step::Expect(_) | Step::Authenticated | Step::Wait(_))
    };
    script.steps.iter().position(is_attack).unwrap_or(0)
}
