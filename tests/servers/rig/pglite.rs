//! PGlite behind its socket server: PostgreSQL compiled for one process, in which all connections
//! share one session. Its packages are installed once, by npm, below the target directory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use distlock::Config;

use super::process::{Launch, Process, program};
use crate::support::{Scratch, Sql, free_port};

const MANIFEST: &str = include_str!("../pglite/package.json");
/// With the exact versions, and a digest of each package.
const LOCK: &str = include_str!("../pglite/package-lock.json");

/// Node.js 18, which Debian 12 has, lacks a class that the socket server needs.
const POLYFILL: &str = "globalThis.CustomEvent ??= class extends Event {
    constructor(type, options) {
        super(type, options);
        this.detail = options?.detail ?? null;
    }
};
";

/// A running PGlite.
#[derive(Debug)]
pub struct Pglite {
    _process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Pglite {
    pub fn start() -> Self {
        let node = program("node", "nodejs");
        let scratch = Scratch::new();
        // A copy, since the user of the servers may not be let into our directories.
        let modules = scratch.path().join("node_modules");
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(packages().join("node_modules")).arg(&modules);
        succeeds(copy, "copy the packages");
        let polyfill = scratch.path().join("polyfill.cjs");
        fs::write(&polyfill, POLYFILL).expect("cannot write a script");
        let server = modules.join("@electric-sql/pglite-socket/dist/scripts/server.js");
        loop {
            let port = free_port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let launch = Launch {
                program: &node,
                args: vec![
                    format!("--require={}", polyfill.display()),
                    server.display().to_string(),
                    "--host=127.0.0.1".to_owned(),
                    format!("--port={port}"),
                    "--max-connections=5".to_owned(),
                ],
                end: "TERM",
            };
            let answers = || Sql::connect_tcp(address, "postgres", "postgres").is_ok();
            match Process::start(&scratch, &launch, answers) {
                Ok(process) => return Self { _process: process, port, _scratch: scratch },
                // Somebody took the port since we looked.
                Err(log) if log.contains("EADDRINUSE") => {}
                Err(log) => panic!("PGlite does not start: {log}"),
            }
        }
    }

    pub fn config(&self) -> Config {
        Config::new().host("127.0.0.1").port(self.port).user("postgres").dbname("postgres")
    }
}

/// Where the packages are, installed by the first test that asks.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pglite");
        let installed = fs::read_to_string(cache.join("package-lock.json"));
        if installed.is_ok_and(|lock| lock == LOCK) {
            return cache;
        }
        // Next to it, and then in its place in one step: another process may be at it as well.
        let fresh = cache.with_extension(std::process::id().to_string());
        fs::create_dir_all(&fresh).expect("cannot make a directory below target");
        fs::write(fresh.join("package.json"), MANIFEST).expect("cannot write package.json");
        fs::write(fresh.join("package-lock.json"), LOCK).expect("cannot write package-lock.json");
        let mut npm = Command::new(program("npm", "npm"));
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&fresh);
        succeeds(npm, "install PGlite with npm");
        let _ = fs::remove_dir_all(&cache);
        if fs::rename(&fresh, &cache).is_err() {
            // The other one was faster.
            fs::remove_dir_all(&fresh).expect("cannot remove a directory of ours");
        }
        cache
    })
}

fn succeeds(mut command: Command, what: &str) {
    command.stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("cannot {what}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot {what}: {}\n{text}", output.status);
}
