//! Records the seeds: a session of ours against a private PostgreSQL, with the fixed Startup of the
//! fuzz targets, so that what the server said can be replayed to them.
//!
//! Run it in `fuzz/` with `cargo run --bin record`; it writes `seeds/` anew. The server's process
//! ids, SCRAM nonces, clock, ports and places in the log differ from run to run, nothing else.
#![forbid(unsafe_code)]

#[path = "record/conversations.rs"]
mod conversations;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use distlock::proto::session::{Event, Session, SessionLimits};
use distlock_fuzz::scram::Keys;
use distlock_fuzz::script::{self, SYNC, Step, TRY_LOCK};
use distlock_fuzz::statements::Row;
use distlock_fuzz::{ANY_METHOD, PASSWORD, startup};
use support::{StopMode, TempCluster};

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
    conversations::all(&cluster, &mut seeds);
    shutdown(&mut cluster, StopMode::Immediate, "immediate", &mut seeds);
    cluster.start_again();
    shutdown(&mut cluster, StopMode::Fast, "fast", &mut seeds);
}

fn start() -> TempCluster {
    let cluster = TempCluster::builder()
        .setting("max_locks_per_transaction", "10")
        .setting("max_connections", "10")
        .setting("max_prepared_transactions", "1")
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

fn shutdown(cluster: &mut TempCluster, mode: StopMode, name: &str, seeds: &mut Seeds<'_>) {
    let (mut connection, _) = Connection::open(cluster, "trusted", "postgres");
    connection.submit(&[TRY_LOCK, SYNC]);
    let mut bytes = connection.run();
    cluster.stop(mode);
    bytes.extend(connection.until_end());
    seeds.ready(name, &[TRY_LOCK, SYNC], &bytes);
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
        let mut number = 0;
        for step in script::steps(script) {
            match &step {
                Step::Submit(call) => call.submit(&mut self.session, number).expect("room"),
                Step::Sync => self.session.sync(number).expect("room"),
            }
            number += step.numbers();
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
        self.listings(name, script, bytes);
        // The same calls, once with the server's bytes and once with those of the model server.
        let calls: Vec<u8> = script::steps(script)
            .iter()
            .scan(script.iter(), |ops, step| match step {
                Step::Submit(_) => ops.find(|op| script::call(**op, 0).is_some()),
                Step::Sync => Some(&SYNC),
            })
            .flat_map(|op| [0, *op, 0])
            .collect();
        self.write("session_ops", name, &[&[0x83], &calls, &[7, 255], &Self::fed(bytes)]);
        let replies: Vec<u8> = script::steps(script)
            .iter()
            .zip(1_u8..)
            .flat_map(|(_, n)| [3, n.wrapping_mul(67), n.wrapping_mul(29), 4])
            .collect();
        let name = format!("{name}_model");
        self.write("session_ops", &name, &[&[0x87], &calls, &[7, 20], &replies, &[7, 255]]);
    }

    /// The columns of its rows that say who holds a key.
    fn listings(&mut self, name: &str, script: &[u8], mut bytes: &[u8]) {
        let asks =
            |op: &u8| script::call(*op, 0).is_some_and(|of| of.describe().row == Row::Listing);
        if !script.iter().any(asks) {
            return;
        }
        while let [tag, a, b, c, d, ..] = bytes {
            let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
            let (message, later) = bytes.split_at(size.min(bytes.len()));
            // Behind the header, the number of columns and the length; others have a letter.
            if *tag == b'D' && size > 12 {
                self.write("listing", name, &[&[0, 9, 0], &message[11..]]);
            }
            bytes = later;
        }
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
            [&[2, length], piece, &[4, 6, 255, 4, 7, 255]].concat()
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
