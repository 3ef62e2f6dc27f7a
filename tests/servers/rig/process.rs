//! A program that runs in a private directory and ends with its owner, whatever way that ends.
//!
//! A small shell that reads from a pipe of ours watches the program: when the pipe closes
//! (dropped, panicked, killed by SIGKILL), it sends the signal that the program ends at, and
//! SIGKILL to what is left after a while. It goes by the pid of the program, and looks first
//! whether that still has the directory in its arguments.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Scratch, ServerUser, is_program, signal, tail, wait_exit};

/// Becomes the program, after it has left a watcher that is no child of the program's: some
/// programs wait for all their children. `$1` is the directory, `$2` the signal.
const LEASH: &str = r#"
dir=$1 end=$2
shift 2
echo $$ >"$dir/pid"
exec 3<&0 </dev/null
ours() { [ ! -d /proc/self ] || grep -qF "$dir" "/proc/$$/cmdline" 2>/dev/null; }
watch() {
    trap '' INT HUP TERM
    while read -r _; do :; done <&3
    ours || exit 0
    kill -s "$end" $$
    n=0
    while ours && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
    ! ours || kill -s KILL -- -$$
}
(watch >/dev/null 2>&1 &)
exec "$@" 3<&-
"#;

/// A start takes a fraction of a second; this is for a machine that is busy elsewhere.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The watcher's patience, and some.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How a program is run.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a Path,
    /// One of them names the directory.
    pub args: Vec<String>,
    /// The signal that it ends at.
    pub end: &'a str,
}

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    leash: Option<ChildStdin>,
    dir: PathBuf,
}

impl Process {
    /// Starts it, and waits until `answers` is true; the program's output, if it ends instead.
    pub fn start(
        scratch: &Scratch,
        launch: &Launch<'_>,
        mut answers: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        let dir = scratch.path().to_owned();
        let log = File::create(dir.join("log")).expect("cannot make a log");
        let errors = log.try_clone().expect("cannot duplicate a file descriptor");
        let mut child = ServerUser::get()
            .command(Path::new("/bin/sh"))
            .args(["-c", LEASH, "distlock-leash"])
            .arg(&dir)
            .arg(launch.end)
            .arg(launch.program)
            .args(&launch.args)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("cannot start /bin/sh");
        let leash = child.stdin.take();
        let mut process = Self { child, leash, dir };
        let begin = Instant::now();
        while !answers() {
            if process.child.try_wait().expect("cannot wait for a child").is_some() {
                return Err(tail(&process.log()));
            }
            assert!(
                begin.elapsed() < START_LIMIT,
                "{} does not answer: {}",
                launch.program.display(),
                tail(&process.log())
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills it with SIGKILL.
    pub fn kill9(mut self) {
        let pid = fs::read_to_string(self.dir.join("pid")).expect("it has written its pid");
        assert!(signal(pid.trim(), "KILL"), "it does not run any more");
        assert!(wait_exit(&mut self.child, STOP_LIMIT), "a process survived SIGKILL");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input is the watcher's order. No panic in here.
        self.leash = None;
        wait_exit(&mut self.child, STOP_LIMIT);
    }
}

/// The program of a name, or a panic that says what to install.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts poolers where only root's path leads.
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = dirs.map(|dir| dir.join(name)).find(|path| is_program(path));
    found.unwrap_or_else(|| {
        panic!("the program {name} is missing: install it (Debian: apt-get install {package})")
    })
}
