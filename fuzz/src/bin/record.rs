//! Records the seeds: a session of ours against a private PostgreSQL, with the fixed Startup of the
//! fuzz targets, so that what the server said can be replayed to them.
//!
//! Run it in `fuzz/` with `cargo run --bin record`; it writes `seeds/` anew. The server's process
//! ids and SCRAM nonces differ from run to run, nothing else.
#![forbid(unsafe_code)]

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use distlock::proto::session::{Event, Session, SessionLimits};
use distlock_fuzz::scram::Keys;
use distlock_fuzz::{ANY_METHOD, PASSWORD, startup, statement};
use support::{StopMode, TempCluster, wait_until};

/// The roles, each with its authentication method.
const ROLES: [&str; 5] = ["trusted", "cleartext", "hashed", "salted", "impostor"];

/// The salt and the iteration count of the SCRAM role. A small count, so that replaying is fast.
const SALT: &[u8] = b"sixteen bytes ok";
const ITERATIONS: u32 = 3;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut cluster = start();
    let mut seeds = Seeds { root: &root };
    for role in ROLES {
        let (_, bytes) = Connection::open(&cluster, role, "postgres");
        seeds.startup(role, &bytes);
        if role == "salted" {
            seeds.scram(&bytes);
        }
    }
    let (_, bytes) = Connection::open(&cluster, "trusted", "nowhere");
    seeds.startup("no_database", &bytes);
    conversations(&cluster, &mut seeds);
    shutdown(&mut cluster, StopMode::Immediate, "immediate", &mut seeds);
    cluster.start_again();
    shutdown(&mut cluster, StopMode::Fast, "fast", &mut seeds);
}

fn start() -> TempCluster {
    let cluster = TempCluster::builder()
        .setting("max_locks_per_transaction", "10")
        .setting("max_connections", "10")
        .hba("host all cleartext all password")
        .hba("host all hashed all md5")
        .hba("host all salted,impostor all scram-sha-256")
        .start();
    let mut sql = cluster.sql();
    let verifier = Keys::new(PASSWORD.as_bytes(), SALT, ITERATIONS).verifier(SALT, ITERATIONS);
    sql.query(&format!(
        "CREATE ROLE trusted LOGIN;
         CREATE ROLE salted LOGIN PASSWORD '{verifier}';
         CREATE ROLE cleartext LOGIN PASSWORD '{verifier}';
         CREATE ROLE impostor LOGIN PASSWORD 'of somebody else';
         SET password_encryption = md5;
         CREATE ROLE hashed LOGIN PASSWORD '{PASSWORD}'"
    ));
    cluster
}

/// What is said in a ready session: operations as `split_invariance` numbers them, all in one
/// write.
fn conversations(cluster: &TempCluster, seeds: &mut Seeds<'_>) {
    let mut observer = cluster.sql();
    // A heartbeat; granted and released, bigint and pair; re-entrant; a release of nothing.
    for (name, script) in [
        ("heartbeat", &[4][..]),
        ("granted", &[0, 1, 4]),
        ("granted_pair", &[2, 3, 4]),
        ("twice", &[0, 0, 4, 1, 1, 4]),
        ("not_held", &[1, 3, 4]),
        ("many", &[0, 5, 10, 15, 4, 1, 6, 11, 16, 4, 4]),
    ] {
        seeds.ready(name, script, &converse(cluster, script, || ()));
    }
    // The observer holds the key 0.
    observer.query("SELECT pg_advisory_lock(0)");
    seeds.ready("refused", &[0, 2, 4], &converse(cluster, &[0, 2, 4], || ()));
    observer.query("SELECT pg_advisory_unlock_all()");
    // The lock table gets full: the first fails, the others of its batch are skipped.
    let script = [0, 5, 2, 4, 1, 4];
    let failed = converse(cluster, &script, || {
        let full = "SELECT pg_advisory_lock_shared(n) FROM generate_series(1000, 1000000) n";
        observer.try_query(full).expect_err("more locks than there is room for");
    });
    seeds.ready("table_full", &script, &failed);
    observer.query("SELECT pg_advisory_unlock_all()");
    let script = [0, 4];
    let killed = converse(cluster, &script, || {
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'trusted'";
        let mut sql = cluster.sql();
        sql.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'trusted'",
        );
        wait_until("the backend is gone", std::time::Duration::from_secs(10), || {
            sql.value(gone).as_deref() == Some("0")
        });
    });
    seeds.ready("terminated", &script, &killed);
    let reloaded = converse(cluster, &script, || {
        let mut sql = cluster.sql();
        sql.query("ALTER SYSTEM SET timezone = 'Europe/Vienna'");
        sql.query("SELECT pg_reload_conf()");
        let shown = "SELECT setting FROM pg_settings WHERE name = 'TimeZone'";
        wait_until("the server has read it", std::time::Duration::from_secs(10), || {
            sql.value(shown).as_deref() == Some("Europe/Vienna")
        });
    });
    seeds.ready("parameter", &script, &reloaded);
}

fn shutdown(cluster: &mut TempCluster, mode: StopMode, name: &str, seeds: &mut Seeds<'_>) {
    let (mut connection, _) = Connection::open(cluster, "trusted", "postgres");
    connection.submit(&[0, 4]);
    let mut bytes = connection.run();
    cluster.stop(mode);
    bytes.extend(connection.until_end());
    seeds.ready(name, &[0, 4], &bytes);
}

/// The bytes of a conversation; `before` happens when the session is ready.
fn converse(cluster: &TempCluster, script: &[u8], before: impl FnOnce()) -> Vec<u8> {
    let (mut connection, _) = Connection::open(cluster, "trusted", "postgres");
    before();
    connection.submit(script);
    connection.run()
}

struct Connection {
    session: Session,
    stream: TcpStream,
}

impl Connection {
    /// Connects; also gives all that the server said until the session was ready, or over.
    fn open(cluster: &TempCluster, user: &str, database: &str) -> (Self, Vec<u8>) {
        let mut startup = startup(ANY_METHOD);
        (startup.credentials.user, startup.database) = (user.into(), database.into());
        let session = Session::new(startup, SessionLimits::DEFAULT).expect("a StartupMessage");
        let stream = TcpStream::connect((cluster.host(), cluster.port())).expect("it listens");
        let mut connection = Self { session, stream };
        let bytes = connection.run();
        (connection, bytes)
    }

    fn submit(&mut self, script: &[u8]) {
        for (number, op) in (0_u64..).zip(script) {
            match op % 5 {
                4 => self.session.sync(number).expect("room"),
                kind => {
                    let statement = statement(kind, i64::from(*op));
                    self.session.submit(&statement, number).expect("room");
                }
            }
        }
    }

    /// Until the session is ready and everything is answered, or until it has ended.
    fn run(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            loop {
                match self.session.poll_event() {
                    Ok(Some(Event::Ready(_))) => return all,
                    Ok(Some(_)) => {}
                    Ok(None) if self.session.is_deriving() => {
                        self.session.derive(u32::MAX).expect("a response that fits");
                    }
                    Ok(None) => break,
                    Err(_) => return all,
                }
            }
            if self.session.is_ready() && self.session.oldest_mark().is_none() {
                return all;
            }
            let sent = self.session.output().len();
            // A server that has hung up may still have said why.
            let _ = self.stream.write_all(self.session.output());
            self.session.sent(sent);
            let bytes = self.read();
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }

    /// What comes until the server closes the connection.
    fn until_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = self.read();
            if bytes.is_empty() {
                return all;
            }
            all.extend(bytes);
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let space = self.session.space();
        let count = self.stream.read(space).unwrap_or(0);
        let bytes = space[..count].to_vec();
        self.session.filled(count);
        bytes
    }
}

struct Seeds<'a> {
    root: &'a Path,
}

impl Seeds<'_> {
    fn startup(&mut self, name: &str, bytes: &[u8]) {
        self.write("backend_decode", name, &[&[9, 0], bytes]);
        self.write("reference", name, &[&[0], bytes]);
        self.reports(name, bytes);
        // In one piece and in three lengths of pieces.
        self.write("split_invariance", name, &[&[ANY_METHOD, 3, 0, 6, 40], bytes]);
        self.write("session_ops", name, &[&[3], &Self::fed(bytes)]);
    }

    fn ready(&mut self, name: &str, script: &[u8], bytes: &[u8]) {
        let count = u8::try_from(script.len()).expect("a short script");
        self.write("backend_decode", name, &[&[1, 0], bytes]);
        self.write("reference", name, &[&[0x80, count], script, bytes]);
        self.reports(name, bytes);
        self.write("split_invariance", name, &[&[0x80, count], script, &[2, 0, 9], bytes]);
        // The same calls, once with the server's bytes and once with those of the model server.
        let calls: Vec<u8> = script
            .iter()
            .flat_map(|op| if op % 5 == 4 { vec![4] } else { vec![op % 5, *op] })
            .collect();
        self.write("session_ops", name, &[&[0x83], &calls, &[9, 255], &Self::fed(bytes)]);
        let replies: Vec<u8> = script.iter().flat_map(|op| [6, op.wrapping_mul(67), 7]).collect();
        let name = format!("{name}_model");
        self.write("session_ops", &name, &[&[0x87], &calls, &[9, 20], &replies, &[9, 255]]);
    }

    /// The bodies of its ErrorResponse and NoticeResponse messages.
    fn reports(&mut self, name: &str, mut bytes: &[u8]) {
        let mut number = 0;
        while let [tag, a, b, c, d, ..] = bytes {
            let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
            let (message, later) = bytes.split_at(size.min(bytes.len()));
            if let b'E' | b'N' = tag {
                number += 1;
                let flags = u8::from(*tag == b'N') << 1;
                self.write(
                    "error_fields",
                    &format!("{name}_{number}"),
                    &[&[flags, 9, 0], &message[5..]],
                );
            }
            bytes = later;
        }
    }

    /// As operations of `session_ops`: fed in pieces, with events, derivation and output after
    /// each.
    fn fed(bytes: &[u8]) -> Vec<u8> {
        let feed = |piece: &[u8]| {
            let length = u8::try_from(piece.len() - 1).expect("256 at most");
            [&[5, length], piece, &[7, 8, 255, 7, 9, 255]].concat()
        };
        // Message by message, so that the derivation is in time.
        let mut all = Vec::new();
        let mut rest = bytes;
        while let [_, a, b, c, d, ..] = rest {
            let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
            let (message, later) = rest.split_at(size.min(rest.len()));
            message.chunks(256).for_each(|piece| all.extend(feed(piece)));
            rest = later;
        }
        all
    }

    /// The two messages of the server in a SCRAM login.
    fn scram(&mut self, bytes: &[u8]) {
        let body = |code: u8| {
            let at = bytes.windows(5).position(|b| b == [b'R', 0, 0, 0, b[4]] && b[4] > 0);
            let mut rest = &bytes[at.expect("an authentication request")..];
            loop {
                let size = usize::from(rest[4]) + 1;
                if rest[8] == code {
                    return &rest[9..size];
                }
                rest = &rest[size..];
            }
        };
        let (first, last) = (body(11), body(12));
        let length = u16::try_from(first.len()).expect("short").to_le_bytes();
        self.write("scram_server", "login", &[&[0, 3], &length, first, last]);
        self.write("scram_server", "right_final", &[&[4, 3], &length, first]);
        self.write("scram_server", "refused", &[&[0, 3], &length, first, b"e=other-error"]);
        let password = "pässword\u{ad}\u{2168}\u{3000}".as_bytes();
        self.write("scram_server", "password", &[&[2, 3], &length, first, password]);
        self.write("scram_server", "order", &[&[8, 3], &length, first, last]);
        let tail = b"srv,s=AA==,i=4";
        let length = u16::try_from(tail.len()).expect("short").to_le_bytes();
        self.write("scram_server", "own_nonce", &[&[1 | 4, 1], &length, tail]);
    }

    fn write(&mut self, target: &str, name: &str, parts: &[&[u8]]) {
        let directory = self.root.join(target);
        fs::create_dir_all(&directory).expect("a directory for the seeds");
        fs::write(directory.join(name), parts.concat()).expect("a seed");
    }
}
