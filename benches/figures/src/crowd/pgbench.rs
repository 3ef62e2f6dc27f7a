//! pgbench, PostgreSQL's own bench: libpq in a tight loop of C, with pipelines.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Crowd, FIRST_KEY};
use crate::clients::Server;
use crate::support::Scratch;

pub(super) struct Pgbench {
    port: u16,
    /// Where its script is.
    scratch: Scratch,
    pairs: usize,
}

/// The name of the script.
const SCRIPT: &str = "pairs.sql";

impl Pgbench {
    /// With so many pairs in a pipeline, each of a key of its own.
    pub(super) fn new(server: &Server, pairs: usize) -> Self {
        let mut script = String::from("\\startpipeline\n");
        for n in 0..pairs {
            let key = FIRST_KEY + n as i64;
            let _ = writeln!(script, "SELECT pg_try_advisory_lock({key});");
            let _ = writeln!(script, "SELECT pg_advisory_unlock({key});");
        }
        script.push_str("\\endpipeline\n");
        let scratch = Scratch::new();
        std::fs::write(scratch.path().join(SCRIPT), script).expect("the directory is ours");
        Self { port: server.port, scratch, pairs }
    }
}

impl Crowd for Pgbench {
    /// It counts in whole seconds, and connects each time, which it leaves out of its figure.
    fn run(&mut self, span: Duration) -> f64 {
        let seconds = span.as_secs_f64().ceil().max(1.0);
        let mut command = Command::new(program());
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_libpq(name)) {
            command.env_remove(name);
        }
        command.args(["-n", "-M", "prepared", "-c", "1", "-j", "1", "-h", "127.0.0.1"]);
        command.args(["-U", "postgres", "-p", &self.port.to_string()]);
        command.args(["-T", &format!("{seconds:.0}"), "-f"]);
        command.arg(self.scratch.path().join(SCRIPT)).arg("postgres");
        let output = command.output().expect("pgbench runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pgbench: {errors}");
        let rest = text.split_once("\ntps = ").map(|(_, rest)| rest);
        let pipelines = rest.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        pipelines.unwrap_or_else(|| panic!("pgbench says no tps: {text}")) * self.pairs as f64
    }
}

fn is_of_libpq(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("PG")
}

/// Where the script found the server's programs, or else wherever it is.
fn program() -> std::path::PathBuf {
    let beside = std::env::var_os("DISTLOCK_PG_BIN").map(|dir| Path::new(&dir).join("pgbench"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "pgbench".into())
}
