//! A temporary directory that goes away with its owner, whatever way the owner ends, and with
//! it the server that runs in it.
//!
//! Each directory has a watchdog: a small shell that reads from a pipe of ours. When the pipe
//! closes (dropped, exited, panicked, killed by SIGKILL), it ends the server named in
//! `data/postmaster.pid` and removes the directory. It starts nothing, and it is in a process
//! group of its own, so that Ctrl-C in a terminal does not reach it. Called by `cluster` only.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The watchdog's program; `$1` is the directory, and each line of the input a [`State`]. A pid
/// out of a file may be somebody else's by now, so where there is a /proc the process must name
/// the directory in its arguments.
const WATCHDOG: &str = r#"
trap '' INT HUP TERM
cd / || exit 1
dir=$1
pidfile=$dir/data/postmaster.pid
state=quiet
while read -r line; do state=$line; done
ours() { [ ! -d /proc/self ] || grep -qF "$dir" "/proc/$1/cmdline" 2>/dev/null; }
if [ "$state" = server ]; then
    # The server may have been started only this moment, and have no file yet.
    n=0
    while [ ! -s "$pidfile" ] && [ $n -lt 20 ]; do sleep 0.05; n=$((n + 1)); done
    pid=$(head -n 1 "$pidfile" 2>/dev/null)
    if [ -n "$pid" ] && ours "$pid"; then
        kill -s QUIT "$pid" 2>/dev/null
        # The server removes its file as the last thing; a dead one could stay as a zombie.
        n=0
        while [ -e "$pidfile" ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
        [ ! -e "$pidfile" ] || kill -s KILL "$pid" 2>/dev/null
    fi
fi
# What a server that was killed leaves behind outside of the directory.
if [ -s "$pidfile" ]; then
    shm=$(sed -n 7p "$pidfile" | tr -s ' ' | cut -d ' ' -f 3)
    [ -z "$shm" ] || ipcrm -m "$shm" 2>/dev/null
fi
n=0
until rm -rf "$dir" || [ $n -ge 50 ]; do sleep 0.1; n=$((n + 1)); done
"#;

/// What the owner is about to do in the directory, and the watchdog has to reckon with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is no server, or none any more.
    Quiet,
    /// A server was started and has not ended yet.
    Server,
}

/// The directory, and the write end of the watchdog's pipe.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    watchdog: Child,
    /// `None` only while it is being dropped.
    pipe: Option<ChildStdin>,
}

impl Scratch {
    /// A new directory below the system's temporary one. It belongs to the user of the servers,
    /// and everybody may pass, since that user is not always ours.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("distlock-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => break path,
                // Left by a process that had our pid before us, and could not clean up.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot create {}: {error}", path.display()),
            }
        };
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "distlock-watchdog"])
            .arg(&path)
            .stdin(Stdio::piped())
            // It outlives us: our own standard streams must not be kept open by it.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("cannot start /bin/sh");
        let pipe = watchdog.stdin.take();
        let scratch = Self { path, watchdog, pipe };
        if let Some((uid, gid)) = ServerUser::get().ids() {
            std::os::unix::fs::chown(&scratch.path, Some(uid), Some(gid))
                .unwrap_or_else(|e| panic!("cannot chown {}: {e}", scratch.path.display()));
        }
        scratch
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle that puts the clean-up off for as long as a process has it, as its standard
    /// input say: for commands that fill the directory, which go on without us for a moment.
    /// They would make the directory anew; and initdb, when it finds it gone, leaves shared
    /// memory behind.
    pub fn hold(&self) -> Stdio {
        let pipe = self.pipe.as_ref().expect("not dropped yet");
        let held = pipe.as_fd().try_clone_to_owned();
        held.expect("cannot duplicate a file descriptor").into()
    }

    /// Tells the watchdog; before a thing begins, and after it has ended.
    pub fn tell(&mut self, state: State) {
        let line: &[u8] = match state {
            State::Quiet => b"quiet\n",
            State::Server => b"server\n",
        };
        if let Some(pipe) = &mut self.pipe {
            // A watchdog that somebody killed is no reason to fail a test, nor to panic in a
            // drop; the owner still cleans up what it can.
            let _ = pipe.write_all(line);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The end of its input is the watchdog's order to clean up; its own waits are bounded.
        self.pipe = None;
        let _ = self.watchdog.wait();
        // For the case that the watchdog was killed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Who runs the servers: PostgreSQL refuses root, so root runs them as `nobody`.
#[derive(Debug)]
pub struct ServerUser {
    /// What to put before a command, and the ids, when it is not our own user.
    switch: Option<(Vec<String>, (u32, u32))>,
}

impl ServerUser {
    /// Found out once for the process.
    pub fn get() -> &'static Self {
        static USER: OnceLock<ServerUser> = OnceLock::new();
        USER.get_or_init(Self::find)
    }

    /// The user and the group, when they are not our own.
    pub fn ids(&self) -> Option<(u32, u32)> {
        self.switch.as_ref().map(|(_, ids)| *ids)
    }

    /// `program`, to be run as this user, in a process group of its own and with nothing of
    /// our environment that would change what a server does.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match &self.switch {
            None => Command::new(program),
            Some((prefix, _)) => {
                let mut command = Command::new(&prefix[0]);
                command.args(&prefix[1..]).arg(program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }

    fn find() -> Self {
        if effective_uid() != 0 {
            return Self { switch: None };
        }
        let uid = id_of_nobody("-u");
        let gid = id_of_nobody("-g");
        let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
        let as_shell = "exec \"$0\" \"$@\"";
        let choices: [&[&str]; 3] = [
            &["setpriv", &reuid, &regid, "--clear-groups"],
            &["runuser", "-u", "nobody", "--"],
            &["su", "nobody", "-s", "/bin/sh", "-c", as_shell, "--"],
        ];
        let prefix = choices.iter().find(|prefix| {
            let mut probe = Command::new(prefix[0]);
            probe.args(&prefix[1..]).arg("true").stdin(Stdio::null());
            probe.output().is_ok_and(|output| output.status.success())
        });
        let Some(prefix) = prefix else {
            panic!("PostgreSQL does not run as root: install util-linux (setpriv), or use a user");
        };
        let prefix = prefix.iter().map(|&word| word.to_owned()).collect();
        Self { switch: Some((prefix, (uid, gid))) }
    }
}

/// Our effective user: the one that files we make belong to.
fn effective_uid() -> u32 {
    // Asked of a command, since std has no call for it and this crate has no unsafe code.
    id(&["-u"]).expect("the command `id -u` prints no number")
}

fn id_of_nobody(what: &str) -> u32 {
    id(&[what, "nobody"]).expect("PostgreSQL does not run as root, and there is no user nobody")
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().expect("cannot run the command `id`");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
