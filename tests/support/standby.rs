//! A hot standby of a private cluster: a base backup that streams from it (manual: hot-standby,
//! app-pgbasebackup), and its promotion.
//!
//! Both are a [`TempCluster`], with all that one can do. Called by tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::{TempCluster, append, is_program, run, server_programs};
use super::scratch::{Scratch, ServerUser};
use super::wait_until;

/// Catching up and promoting take a fraction of a second.
const LIMIT: Duration = Duration::from_secs(60);

impl TempCluster {
    /// A standby of this cluster, which streams from it and takes queries.
    pub fn standby(&self) -> Self {
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        let mut backup = ServerUser::get().command(&pg_basebackup());
        backup.args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "-U", "postgres"]);
        backup.arg("-h").arg(self.socket_dir()).arg("-p").arg(self.port().to_string());
        backup.arg("-D").arg(&data).stdin(scratch.hold());
        run(backup, "make a base backup");
        let (dir, port) = (self.socket_dir().display(), self.port());
        let name =
            scratch.path().file_name().expect("it has a name").to_string_lossy().into_owned();
        let conninfo = format!(
            "primary_conninfo = 'host={dir} port={port} user=postgres application_name={name}'\n"
        );
        append(&data.join("postgresql.conf"), &conninfo);
        // An empty file of this name makes a server a standby (manual: standby-settings).
        let signal = data.join("standby.signal");
        fs::write(&signal, "").expect("cannot write standby.signal");
        if let Some((uid, gid)) = ServerUser::get().ids() {
            std::os::unix::fs::chown(&signal, Some(uid), Some(gid)).expect("cannot chown a file");
        }
        let standby = Self::start_in(scratch);
        wait_until("the standby streams", LIMIT, || {
            let state =
                format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
            self.sql().value(&state).as_deref() == Some("streaming")
        });
        standby
    }

    /// Makes a standby a primary, and waits until it is one.
    pub fn promote(&self) {
        let promoted = self.sql().value("SELECT pg_promote(true, 60)");
        assert_eq!(promoted.as_deref(), Some("t"), "the standby was not promoted");
    }

    /// Waits until this standby has replayed all that `primary` has written.
    pub fn wait_for_replay_of(&self, primary: &Self) {
        let written = primary.sql().value("SELECT pg_current_wal_flush_lsn()");
        let written = written.expect("a primary has a place in its log");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        let mut sql = self.sql();
        wait_until("the standby has replayed", LIMIT, || {
            sql.value(&replayed).as_deref() == Some("t")
        });
    }
}

/// The program of the servers that are tested, or else any that is at least as new: those take
/// backups of older ones too.
fn pg_basebackup() -> PathBuf {
    let own = server_programs().join("pg_basebackup");
    if is_program(&own) {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = vec![];
    let debian = fs::read_dir(Path::new("/usr/lib/postgresql")).into_iter().flatten().flatten();
    dirs.extend(debian.map(|entry| entry.path().join("bin")));
    dirs.sort();
    dirs.reverse();
    dirs.extend(std::env::split_paths(&path));
    let found = dirs.into_iter().map(|dir| dir.join("pg_basebackup")).find(|it| is_program(it));
    found.expect(
        "pg_basebackup is missing: install the PostgreSQL client programs of the server's version \
         (Debian: apt-get install postgresql-client)",
    )
}
