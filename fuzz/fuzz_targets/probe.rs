//! Is this a server whose locks hold? Any rows in answer to the identity, the confirmation, the
//! settings, the release and the witness's statement: a session becomes ready exactly when the
//! conditions hold, which are written down here a second time, and tells what the rows said.
//!
//! Input: two bytes of flags, see `Case::new`; then the rows in their order, see `row`. Zeros, and
//! so the end of the input, are the answers of a good server.
#![no_main]

#[path = "probe/conditions.rs"]
mod conditions;

use conditions::{Case, Value};
use distlock::proto::handshake::{Greeting, Purpose};
use distlock::proto::probe::{MARK_ENTROPY, Mark, Question};
use distlock::proto::rehearsal::{self, CONFIRMATION, IDENTITY, KEY, PID, SETTINGS, TOKEN};
use distlock::proto::session::{Event, Session, SessionLimits};
use distlock_fuzz::{ANY_METHOD, Input, Trace, message, settings_columns, startup};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let case = Case::new(u16::from_be_bytes([input.u8(), input.u8()]));
    let mut run = Run::new(&case);
    run.is_good = data.iter().all(|byte| *byte == 0);
    if case.is_testimony {
        let good = ["4712", "false"].map(Value::from);
        let row = row(&mut input, &good);
        run.reply(&row, 1);
        return run.testimony(conditions::testimony(&row, PID));
    }
    let identity = row(&mut input, &IDENTITY.map(Value::from));
    run.reply(&identity, 1);
    let Some(process_id) = run.stage(conditions::identity(&case, &identity)) else { return };
    run.messages(b"Z");
    // The process of the identity, whichever it was.
    let mut good = CONFIRMATION.map(Value::from);
    good[0] = Value::from(process_id.to_string().as_str());
    let confirmation = row(&mut input, &good);
    run.reply(&confirmation, 1);
    let is_listed = conditions::is_listed(&identity);
    let holds = conditions::confirmation(&confirmation, process_id, is_listed);
    if run.stage(holds.then_some(())).is_none() {
        return;
    }
    assert!(!run.has_set(), "a setting before the server is known to be good");
    run.messages(b"Z");
    if case.witness {
        run.witness(Question { process_id, key: KEY });
    }
    let good = SETTINGS.map(Value::from);
    let settings = row(&mut input, &good[..settings_columns(case.major)]);
    run.reply(&settings, 1);
    if run.stage(conditions::settings(&case, &settings).then_some(())).is_none() {
        return;
    }
    run.messages(b"1111Z");
    if !case.session_affine {
        let release = row(&mut input, &[Value(Some(vec![1]))]);
        run.reply(&release, 0);
        if run.stage((release == [Value(Some(vec![1]))]).then_some(())).is_none() {
            return;
        }
        run.messages(b"Z");
    }
    let lock_table = conditions::lock_table(&identity);
    let server_major = case.major;
    run.ready(Greeting { server_major, process_id, lock_table });
});

/// A row: a byte for the number of columns, zero for as many as there have to be; then a byte for
/// each: zero for what a good server says, 1 for NULL, 2 for bytes of the input, else a word.
fn row(input: &mut Input<'_>, good: &[Value]) -> Vec<Value> {
    let columns = match input.u8() {
        0 => good.len(),
        count => usize::from(count % 13),
    };
    let mut value = |place: usize| match input.u8() {
        0 => good.get(place).cloned().unwrap_or(Value(None)),
        1 => Value(None),
        2 => Value(Some(input.counted().to_vec())),
        word => Value::from(WORDS[usize::from(word - 3) % WORDS.len()]),
    };
    (0..columns).map(&mut value).collect()
}

const WORDS: [&str; 50] = [
    "true",
    "false",
    "t",
    "f",
    "on",
    "off",
    "",
    "0",
    "1",
    "2",
    "5",
    "-1",
    "+1",
    "4711",
    "+4711",
    "4712",
    "-4711",
    "2147483648",
    "18446744073709551615",
    "18446744073709551616",
    "04711",
    TOKEN,
    "10",
    "10s",
    "10000",
    "10000ms",
    "10001ms",
    "1min",
    "2s",
    "2000",
    "2000ms",
    "0d",
    "1h",
    "ms",
    "pg_catalog",
    "pg_catalog, public",
    "PostgreSQL",
    "PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64",
    "CockroachDB CCL v26.2 (PostgreSQL compatible)",
    "PostgreSQL 17.4 (PGlite 0.5)",
    "PostgreSQL 8.0.2 on i686, Redshift 1.0",
    "PostgreSQL 9.5.0 on x86_64 (Materialize 0.1)",
    "PostgreSQL 13.14.0-RisingWave-2.0",
    "PostgreSQL 12.3, QuestDB",
    "PostgreSQL 14.1 (Spanner)",
    "read committed",
    "serializable",
    "MySQL 8",
    "\u{1b}[2J",
    "00000000000000000000000000000001",
];

/// A session, and what it has said so far.
struct Run {
    session: Session,
    trace: Trace,
    /// Events that were looked at.
    seen: usize,
    /// Whether all answers are those of a good server: something has to become ready.
    is_good: bool,
}

impl Run {
    fn new(case: &Case) -> Self {
        let mut startup = startup(ANY_METHOD);
        let mut entropy = [0; MARK_ENTROPY];
        entropy[MARK_ENTROPY - 8..].copy_from_slice(&KEY.to_be_bytes());
        startup.purpose = match startup.purpose {
            _ if case.is_testimony => Purpose::Testimony(Question { process_id: PID, key: KEY }),
            Purpose::Locks(mut session) => {
                session.mark = Mark::new(entropy);
                session.session_affine = case.session_affine;
                session.read_write = case.read_write;
                session.witness = case.witness;
                session.settings.transport = case.transport;
                Purpose::Locks(session)
            }
            other => other,
        };
        let session = Session::new(startup, SessionLimits::DEFAULT).expect("a StartupMessage");
        let mut run = Self { session, trace: Trace::default(), seen: 0, is_good: false };
        run.feed(&message(b'R', &[0; 4]));
        run.feed(&message(b'S', format!("server_version\0{}.1\0", case.major).as_bytes()));
        if let Some(process_id) = case.announced {
            run.feed(&message(b'K', &[process_id.to_be_bytes(), *b"key!"].concat()));
        }
        run.messages(b"Z");
        assert_eq!(run.trace.fault, None);
        run
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.trace.feed(&mut self.session, bytes);
    }

    /// Messages by their type bytes.
    fn messages(&mut self, tags: &[u8]) {
        for tag in tags {
            self.feed(&message(*tag, if *tag == b'Z' { b"I" } else { b"" }));
        }
    }

    /// A whole reply, with so many ParseComplete in front.
    fn reply(&mut self, row: &[Value], parsed: usize) {
        self.messages(&b"1"[..parsed]);
        self.messages(b"2");
        let values: Vec<_> = row.iter().map(|value| value.0.as_deref()).collect();
        self.feed(&rehearsal::row(&values));
        self.feed(&message(b'C', b"SELECT 1\0"));
    }

    /// The session is over exactly when the conditions of the row do not hold.
    fn stage<T>(&self, holds: Option<T>) -> Option<T> {
        match &self.trace.fault {
            None => assert!(holds.is_some(), "accepted, though the conditions do not hold"),
            Some(fault) => assert!(holds.is_none(), "a good row was refused: {fault}"),
        }
        assert_eq!(self.trace.events.len(), self.seen, "an event too early");
        assert!(holds.is_some() || !self.is_good, "the target knows no good server");
        holds
    }

    /// The session of a witness, which ends with its one row.
    fn testimony(mut self, holds: bool) {
        if self.stage(holds.then_some(())).is_some() {
            self.messages(b"Z");
            assert!(matches!(self.trace.events[..], [Event::Ready(_)]));
        }
    }

    /// Whether the settings were asked for.
    fn has_set(&self) -> bool {
        self.trace.output.windows(13).any(|window| window == b"'search_path'")
    }

    fn witness(&mut self, question: Question) {
        assert_eq!(self.trace.events[..], [Event::Witness(question)]);
        assert!(!self.session.is_ready() && !self.has_set());
        let event = self.session.witnessed().expect("a testimony that was asked for");
        self.trace.events.extend(event);
        self.seen = 1;
        self.trace.feed(&mut self.session, b"");
    }

    fn ready(self, greeting: Greeting) {
        assert_eq!(self.trace.fault, None);
        assert_eq!(self.trace.events.get(self.seen..), Some(&[Event::Ready(greeting)][..]));
        assert!(self.session.is_ready());
    }
}
