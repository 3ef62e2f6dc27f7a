//! A private throw-away PostgreSQL cluster: started in well under a second, on a free loopback
//! port and a Unix socket of its own, gone with its directory when it is dropped or when its
//! owner ends in whatever way (`scratch`).
//!
//! It installs nothing (`scripts/lib.sh` does), and it is tuned for tests: fsync is off, so
//! that a cluster does not survive a crash of the machine. Called by tests, benches and the
//! demonstration.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::scratch::{Scratch, ServerUser, State};
use super::signal;
use super::sql::{Sql, SqlFailure};

/// A start takes a fraction of a second; this is for a machine that is busy elsewhere.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What every cluster has, after the settings of initdb and before those of the builder.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = 16MB
# In the data directory, so that nothing stays in /dev/shm when the server is killed.
dynamic_shared_memory_type = mmap
log_line_prefix = '%m [%p] '
logging_collector = off
";

/// How a server is told to stop (manual: server-shutdown).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until all clients have left: SIGTERM.
    Smart,
    /// Ends every session, and shuts down in order: SIGINT.
    Fast,
    /// Ends at once, and recovers at the next start: SIGQUIT.
    Immediate,
}

impl StopMode {
    fn signal(self) -> &'static str {
        match self {
            Self::Smart => "TERM",
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
        }
    }
}

/// What a cluster is to have beyond the defaults.
#[derive(Debug, Default)]
pub struct Builder {
    settings: String,
    hba: String,
}

impl Builder {
    /// A setting for `postgresql.conf`; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        let value = value.replace('\'', "''");
        self.settings.push_str(&format!("{name} = '{value}'\n"));
        self
    }

    /// A line for `pg_hba.conf`, in front of those that trust everybody; earlier calls come
    /// first. `postgres` is always trusted on the Unix socket, for the observer.
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push_str(line);
        self.hba.push('\n');
        self
    }

    /// Makes the cluster and starts it; panics with the tail of the server's log if it does not
    /// come up.
    pub fn start(self) -> TempCluster {
        let template = template();
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(template).arg(&data).stdin(scratch.hold()).process_group(0);
        run(copy, "copy the template cluster");
        append(&data.join("postgresql.conf"), &format!("{SETTINGS}{}", self.settings));
        let hba = data.join("pg_hba.conf");
        let trusting = fs::read_to_string(&hba).expect("initdb writes pg_hba.conf");
        fs::write(&hba, format!("local all postgres trust\n{}{trusting}", self.hba))
            .expect("cannot write pg_hba.conf");
        TempCluster::start_in(scratch)
    }
}

/// A running cluster; dropping it stops the server and removes the directory.
#[derive(Debug)]
pub struct TempCluster {
    scratch: Scratch,
    port: u16,
    /// The process that we started, and have not waited for yet.
    server: Option<Child>,
    pid: u32,
}

impl TempCluster {
    /// A cluster with the default settings, where everybody is trusted.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A cluster with settings or authentication rules of its own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the server of the data directory that is there already, on a port of its own.
    pub(super) fn start_in(scratch: Scratch) -> Self {
        let mut cluster = Self { scratch, port: 0, server: None, pid: 0 };
        let begin = Instant::now();
        loop {
            cluster.port = free_port();
            match cluster.launch() {
                Ok(()) => return cluster,
                // Somebody took the port since we looked.
                Err(log) if log.contains("could not bind") && begin.elapsed() < START_LIMIT => {}
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
    }

    /// The TCP port, on [`host`](Self::host); the same for the life of the cluster.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The only address that the server listens on.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Where the Unix socket is.
    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The pid of the postmaster of the last start.
    pub fn postmaster_pid(&self) -> u32 {
        self.pid
    }

    /// The connection URL of the superuser, over TCP.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}:{}/postgres", self.host(), self.port)
    }

    /// The same user and database over the Unix socket, as keywords and values.
    pub fn socket_config_string(&self) -> String {
        let dir = self.socket_dir().display();
        format!("host={dir} port={} user=postgres dbname=postgres", self.port)
    }

    /// All that the server has written to its log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A new connection of the observer, as the superuser, over the Unix socket.
    pub fn sql(&self) -> Sql {
        match self.try_sql() {
            Ok(sql) => sql,
            Err((sqlstate, message)) => panic!("the observer cannot connect: {sqlstate} {message}"),
        }
    }

    /// The same, for a server that may be down.
    pub fn try_sql(&self) -> Result<Sql, SqlFailure> {
        let socket = self.socket_dir().join(format!(".s.PGSQL.{}", self.port));
        Sql::connect_unix(&socket, "postgres", "postgres")
    }

    /// A connection of the observer over TCP, as any user that is trusted there.
    pub fn try_sql_as(&self, user: &str, database: &str) -> Result<Sql, SqlFailure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        Sql::connect_tcp(address, user, database)
    }

    /// Ends every session and comes back, on the same port and with the same data.
    pub fn restart_fast(&mut self) {
        self.stop(StopMode::Fast);
        self.start_again();
    }

    /// Stops the server and waits until it is gone. Port and data stay for
    /// [`start_again`](Self::start_again).
    pub fn stop(&mut self, mode: StopMode) {
        let child = self.server.as_mut().expect("stop: the server does not run");
        // A process that has ended meanwhile is what is waited for anyway.
        let _ = signal(self.pid, mode.signal());
        if wait_exit(child, STOP_LIMIT) {
            self.server = None;
            self.scratch.tell(State::Quiet);
        } else {
            panic!("PostgreSQL does not stop ({mode:?}): {}", tail(&self.log()));
        }
    }

    /// Kills the postmaster with SIGKILL. Its backends find out and end by themselves, a moment
    /// later.
    pub fn kill9_postmaster(&mut self) {
        let child = self.server.as_mut().expect("kill9_postmaster: the server does not run");
        // A process that has ended meanwhile is what is waited for anyway.
        let _ = signal(self.pid, "KILL");
        assert!(wait_exit(child, STOP_LIMIT), "a process survived SIGKILL");
        self.server = None;
        self.scratch.tell(State::Quiet);
    }

    /// Starts a server that was stopped or killed, on the same port and with the same data.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "start_again: the server runs");
        let begin = Instant::now();
        loop {
            match self.launch() {
                Ok(()) => return,
                // The backends of a postmaster that was killed have not all ended yet.
                Err(log)
                    if log.contains("pre-existing shared memory block")
                        && begin.elapsed() < START_LIMIT =>
                {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(log) => panic!("PostgreSQL does not start again: {log}"),
            }
        }
    }

    /// Starts the server and waits until it answers; the log of this start if it ends instead.
    fn launch(&mut self) -> Result<(), String> {
        let data = self.data_dir();
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.expect("cannot open the server's log");
        let errors = log.try_clone().expect("cannot duplicate a file descriptor");
        let old_log = self.log().len();
        self.scratch.tell(State::Server);
        let mut child = ServerUser::get()
            .command(&server_programs().join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(self.socket_dir())
            .arg("-p")
            .arg(self.port.to_string())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("cannot start postgres");
        let begin = Instant::now();
        // Over the Unix socket, since another server may own the TCP port, until ours says so.
        while let Err((_, why)) = self.try_sql() {
            if let Some(status) = child.try_wait().expect("cannot wait for postgres") {
                self.scratch.tell(State::Quiet);
                let log = self.log();
                return Err(format!("{status}\n{}", tail(log.get(old_log..).unwrap_or(&log))));
            }
            if begin.elapsed() > START_LIMIT {
                // The watchdog ends the server, when the panic drops the directory.
                panic!("PostgreSQL does not answer ({why}): {}", tail(&self.log()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        // Not the child's: that is a shell or runuser on a system without setpriv.
        let pidfile = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let pid = pidfile.lines().next().and_then(|line| line.trim().parse().ok());
        self.pid = pid.expect("a server that runs has its pid in postmaster.pid");
        self.server = Some(child);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }
}

impl Drop for TempCluster {
    fn drop(&mut self) {
        // No panic in here: a drop may be part of one. What fails is left to the watchdog.
        if let Some(child) = &mut self.server {
            // A process that has ended meanwhile is what is waited for anyway.
            let _ = signal(self.pid, StopMode::Immediate.signal());
            if wait_exit(child, STOP_LIMIT) {
                self.scratch.tell(State::Quiet);
            }
        }
    }
}

/// A data directory as initdb makes it, to copy: initdb takes longer than all the rest of a
/// start, so it runs once for each process.
fn template() -> PathBuf {
    static TEMPLATE: OnceLock<Scratch> = OnceLock::new();
    let scratch = TEMPLATE.get_or_init(|| {
        let scratch = Scratch::new();
        let mut initdb = ServerUser::get().command(&server_programs().join("initdb"));
        initdb.arg("-D").arg(scratch.path().join("data"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"]);
        initdb.stdin(scratch.hold());
        run(initdb, "make a database cluster (TMPDIR has to be open to the server's user)");
        scratch
    });
    scratch.path().join("data")
}

/// The directory of initdb, pg_ctl and postgres. The order is the one of `find_pg_bin` in
/// `scripts/lib.sh`; change both or neither.
pub(super) fn server_programs() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(chosen) = std::env::var_os("DISTLOCK_PG_BIN").filter(|dir| !dir.is_empty()) {
            // A directory that the user chose is used or refused, never replaced.
            let chosen = PathBuf::from(chosen);
            let shown = chosen.display();
            assert!(
                has_programs(&chosen),
                "DISTLOCK_PG_BIN is {shown}, which has no initdb, pg_ctl and postgres; set it to \
                 the bin directory of a PostgreSQL server, or unset it"
            );
            return chosen;
        }
        let found = candidates().into_iter().find(|dir| has_programs(dir));
        found.expect(
            "no PostgreSQL server programs found: install the PostgreSQL server (Debian: \
             apt-get install postgresql), or set DISTLOCK_PG_BIN to its bin directory",
        )
    })
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let debian = Path::new("/usr/lib/postgresql");
    let entries = fs::read_dir(debian).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut versions: Vec<String> = names.collect();
    // The highest first, as numbers: 9.6 comes before 10.
    versions.sort_by_key(|name| {
        std::cmp::Reverse(name.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>())
    });
    dirs.extend(versions.iter().map(|version| debian.join(version).join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    dirs.extend(std::env::split_paths(&path).find(|dir| is_program(&dir.join("postgres"))));
    dirs
}

fn has_programs(dir: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| is_program(&dir.join(program)))
}

pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A loopback port that is free now. It is below the ranges that systems take the ports of
/// outgoing connections from, so that nobody gets it while the server is stopped.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 21_000;
    for _ in 0..COUNT {
        // Processes that run side by side start at different places.
        let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id() * 37);
        let port = u16::try_from(FIRST + n % COUNT).expect("below 65,536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT - 1);
}

/// Waits for the end of a child, up to a limit; false when it still runs.
pub fn wait_exit(child: &mut Child, limit: Duration) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        match child.try_wait() {
            Ok(None) => thread::sleep(Duration::from_millis(2)),
            Ok(Some(_)) | Err(_) => return true,
        }
    }
    false
}

/// Takes the command, since the handle of [`Scratch::hold`] in it has to be closed when we
/// return or panic: the drop of the directory waits for that.
pub(super) fn run(mut command: Command, what: &str) {
    let output = command.output().unwrap_or_else(|e| panic!("cannot {what}: {command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot {what}: {command:?}: {}\n{text}", output.status);
}

pub(super) fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let begin = lines.len().saturating_sub(20);
    lines.get(begin..).unwrap_or_default().join("\n")
}
