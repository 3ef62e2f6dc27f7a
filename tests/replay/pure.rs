//! Replays a vector into [`Session`], without sockets, clocks or threads, with the bytes cut in
//! different ways: whatever the cut, the outcome is the same, and the one that the vector says.

use std::collections::VecDeque;
use std::sync::Arc;

use distlock::AuthMethods;
use distlock::proto::authentication::{Credentials, Methods};
use distlock::proto::fault::{Fault, Violation};
use distlock::proto::frontend::{KeyParameters, ProtocolVersion};
use distlock::proto::handshake::{LockSession, Purpose, Startup};
use distlock::proto::probe::Question;
use distlock::proto::rehearsal;
use distlock::proto::session::{Event, Session, SessionLimits};
use distlock::proto::settings::{SessionSettings, Transport};
use distlock::proto::statement::{Statement, Value};
use zeroize::Zeroizing;

use super::format::{Action, Outcome, Vector};
use super::good::{Kind, Processes, Server};
use super::items;
use super::judge::{self, PASSWORD, USER, Verdict};
use super::memory;
use super::player::{Do, Player, Tamper};

/// How the server's bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As they were sent.
    Whole,
    /// One by one.
    EveryByte,
    /// In pieces of random lengths, from this seed.
    Random(u64),
}

/// The cuts that each vector is replayed with.
pub const CUTS: [Cut; 5] =
    [Cut::Whole, Cut::EveryByte, Cut::Random(1), Cut::Random(2), Cut::Random(3)];

/// The end of a replay.
#[derive(Debug, PartialEq, Eq)]
pub struct Played {
    /// Why the session ended.
    pub fault: Option<Fault>,
    /// Whether it became ready.
    pub ready: bool,
    /// How many bytes had been sent then.
    pub ready_at: usize,
    /// The numbers of bytes after which a message that was sent had ended.
    pub boundaries: Vec<usize>,
    /// What came of the client's statements; nothing for one that failed.
    pub answers: Vec<Option<bool>>,
    /// Why the script was not played to its end.
    pub unplayed: Option<String>,
    /// What the server received.
    pub log: Vec<u8>,
    /// How much of it the script had expected.
    pub expected: usize,
    /// What must not be in it.
    pub secrets: Vec<Vec<u8>>,
}

/// No replay needs more; of floods without an end only so much is fed.
const FED_MAX: usize = 8 * 1024 * 1024;

/// The most iterations that a server may ask for, in thousands.
const SLICES_MAX: u32 = 100;

/// The most by which a replay may make the process grow.
pub const GROWTH_MAX: i64 = 1024 * 1024;

/// Replays all connections of a vector with all cuts, and judges. Gives the most by which the
/// thread's memory grew.
///
/// # Errors
///
/// What is not as the vector says.
pub fn check(vector: &Vector) -> Result<i64, String> {
    let mut growth_max = 0;
    for index in 0..vector.connections.len() {
        let mut first: Option<Played> = None;
        for cut in CUTS {
            let work = || play(vector, index, cut, Tamper::Nothing);
            let (played, growth) = memory::growth_of_thread(work);
            growth_max = growth_max.max(growth);
            let place = |why: String| format!("connection {}, {cut:?}: {why}", index + 1);
            if growth >= GROWTH_MAX {
                return Err(place(format!("it grew by {growth} bytes")));
            }
            judge(vector, index, &played).map_err(place)?;
            match &first {
                None => first = Some(played),
                Some(first) if is_same(first, &played) => {}
                Some(first) => return Err(place(format!("{played:?}, but whole {first:?}"))),
            }
        }
    }
    Ok(growth_max)
}

/// What the server received may differ by what it had already sent when the end came.
fn is_same(a: &Played, b: &Played) -> bool {
    (&a.fault, a.ready, &a.answers) == (&b.fault, b.ready, &b.answers)
}

fn judge(vector: &Vector, index: usize, played: &Played) -> Verdict {
    judge::secrets(vector, &played.log, &played.secrets)?;
    if index + 1 < vector.connections.len() {
        return Ok(());
    }
    judge::nevers(vector, &played.log, played.expected)?;
    if let Some(unplayed) = &played.unplayed {
        return Err(format!("{unplayed}; {:?}", played.fault));
    }
    // What the last connection is about comes last: before it, others have had their ends.
    let is_reconnect = vector.outcomes.iter().any(|outcome| outcome.of == "unavailable");
    for outcome in vector.outcomes.iter().filter(|it| !is_reconnect || it.of == "unavailable") {
        judge_outcome(outcome, played)?;
    }
    Ok(())
}

fn judge_outcome(outcome: &Outcome, played: &Played) -> Verdict {
    let word = |at: usize| outcome.words.get(at).map_or("", String::as_str);
    let is_dead = played.fault.is_some();
    let good = |is_good: bool| if is_good { Ok(()) } else { Err(format!("found {played:?}")) };
    match (outcome.of.as_str(), outcome.verdict.as_str()) {
        ("connect" | "unavailable", "fails") => match (&played.fault, word(0)) {
            (Some(fault), _) => judge::fault(outcome, fault),
            // A connection that ends or says nothing is not the state machine's to judge.
            (None, kind) => good(["connect", "disconnected", "any"].contains(&kind)),
        },
        ("connect", _) | ("held", "kept") => good(played.ready && !is_dead),
        ("held", "lost") => judge::cause_of_fault(word(0), played.fault.as_ref()),
        ("try" | "unlock", "fails") if word(0) == "lost" => {
            judge::cause_of_fault(word(2), played.fault.as_ref())
        }
        ("try" | "unlock", "fails") => good(!is_dead && played.answers.contains(&None)),
        ("try" | "unlock", "granted" | "done") => good(played.answers.last() == Some(&Some(true))),
        ("try", "refused") => good(played.answers.last() == Some(&Some(false))),
        _ => Err(format!("`{} {}` cannot be judged", outcome.of, outcome.verdict)),
    }
}

/// Replays one connection.
pub fn play(vector: &Vector, index: usize, cut: Cut, tamper: Tamper) -> Played {
    let script = Arc::clone(&vector.connections[index]);
    let kind = kind(vector);
    let processes = Processes::default();
    if script.witness {
        // The session that it is a witness of has the first process.
        Server::new(kind, &processes);
    }
    let good = Box::new(Server::new(kind, &processes));
    let password = vector.setting("password").map(|_| PASSWORD);
    let is_witness = script.witness;
    let player = Player::new(script, good, password).tampered(tamper);
    let mut startup = startup(vector, is_witness);
    if index > 0 && vector.client.is_empty() && !is_witness {
        // Who hangs up on the newer version is asked once more, for the older one.
        startup.version = ProtocolVersion::V3_0;
    }
    let session = Session::new(startup, SessionLimits::DEFAULT).expect("a short start");
    let mut replay = Replay {
        session,
        player,
        actions: vector.client.iter().cloned().collect(),
        held: None,
        asked: None,
        played: Played {
            fault: None,
            ready: false,
            ready_at: 0,
            boundaries: Vec::new(),
            answers: Vec::new(),
            unplayed: None,
            log: Vec::new(),
            expected: 0,
            secrets: Vec::new(),
        },
        random: match cut {
            Cut::Random(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            _ => 0,
        },
        cut,
        fed: 0,
        slices: 0,
    };
    replay.run();
    let Replay { player, mut played, .. } = replay;
    played.unplayed = player.unplayed();
    played.boundaries = player.boundaries().to_vec();
    played.log = player.log().to_vec();
    played.expected = player.log().len() - player.unexpected().len();
    played.secrets = player.secrets();
    played
}

/// What the vector's good servers are for.
pub fn kind(vector: &Vector) -> Kind {
    Kind { unix: vector.has("unix"), affine: vector.has("proxy"), witness: vector.has("witness") }
}

fn startup(vector: &Vector, is_witness: bool) -> Startup {
    let methods = match vector.setting("require_auth") {
        Some(list) => judge::methods(list).expect("known methods"),
        None if vector.has("password") => AuthMethods::SCRAM_SHA_256,
        None => AuthMethods::NONE,
    };
    let has = |method| methods.contains(method);
    let transport = match (vector.has("proxy"), vector.has("unix")) {
        (true, _) => Transport::Unknown,
        (_, true) => Transport::Unix,
        _ => Transport::Tcp,
    };
    let says = |text: &str| vector.setting("string").is_some_and(|string| string.contains(text));
    let session = LockSession {
        settings: SessionSettings { transport, ..rehearsal::SESSION_SETTINGS },
        session_affine: vector.has("proxy"),
        witness: vector.has("witness"),
        read_write: says("target_session_attrs=read-write"),
        ..rehearsal::lock_session()
    };
    let question = Question { process_id: items::PROCESS_ID, key: rehearsal::KEY };
    let start = rehearsal::startup(Methods {
        none: has(AuthMethods::NONE),
        password: has(AuthMethods::PASSWORD),
        md5: has(AuthMethods::MD5),
        scram_sha_256: has(AuthMethods::SCRAM_SHA_256),
    });
    let password = vector.setting("password").map(|_| Zeroizing::new(PASSWORD.to_owned()));
    let user = USER.to_owned();
    let purpose = match is_witness {
        true => Purpose::Testimony(question),
        false => Purpose::Locks(session),
    };
    let refuse_older = says("min_protocol_version=3.2");
    let credentials = Credentials { user, password, ..start.credentials };
    Startup { refuse_older, credentials, purpose, ..start }
}

struct Replay {
    session: Session,
    player: Player,
    actions: VecDeque<Action>,
    held: Option<i64>,
    /// The statement that is not answered.
    asked: Option<Statement>,
    played: Played,
    random: u64,
    cut: Cut,
    fed: usize,
    /// How often a thousand rounds of a key derivation were computed.
    slices: u32,
}

impl Replay {
    fn run(&mut self) {
        while self.played.fault.is_none() && self.fed < FED_MAX {
            let spoke = self.speak();
            match self.player.next() {
                Do::Send(bytes) => self.feed_all(&bytes),
                Do::Pause(_) => {}
                Do::Close | Do::Reset => break,
                Do::Read | Do::Rest => {
                    if !spoke && !self.act() {
                        break;
                    }
                }
            }
        }
        self.speak();
    }

    /// Gives the server what the session has to say.
    fn speak(&mut self) -> bool {
        let count = self.session.output().len();
        self.player.receive(self.session.output());
        self.session.sent(count);
        count > 0
    }

    /// The next thing that the client wants, once the last one is answered.
    fn act(&mut self) -> bool {
        if self.asked.is_some() || !self.session.is_ready() {
            return false;
        }
        let statement = match self.actions.pop_front() {
            Some(Action::Hold(key)) => {
                self.held = Some(key);
                Statement::TryLock(KeyParameters::Bigint(key))
            }
            Some(Action::Try(key)) => Statement::TryLock(KeyParameters::Bigint(key)),
            Some(Action::Unlock) => {
                Statement::Release(KeyParameters::Bigint(self.held.take().expect("a held lock")))
            }
            None => return false,
        };
        self.ask(statement);
        true
    }

    fn ask(&mut self, statement: Statement) {
        self.asked = Some(statement);
        self.session.submit(&statement, 1).expect("room for one");
        self.session.sync(1).expect("room for its Sync");
    }

    fn feed_all(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.played.fault.is_none() && self.fed < FED_MAX {
            let size = match self.cut {
                Cut::Whole => rest.len(),
                Cut::EveryByte => 1,
                Cut::Random(_) => 1 + (self.draw() % 64) as usize,
            };
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            self.feed(piece);
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.played.fault.is_none() {
            let space = self.session.space();
            let count = space.len().min(bytes.len());
            assert!(count > 0, "no space, though all events were taken");
            space[..count].copy_from_slice(&bytes[..count]);
            self.session.filled(count);
            self.fed += count;
            bytes = &bytes[count..];
            self.collect();
        }
    }

    /// Takes all that the session has to give until it waits for bytes.
    fn collect(&mut self) {
        loop {
            let event = match self.session.poll_event() {
                Ok(Some(Event::Witness(_))) => self.session.witnessed(),
                other => other,
            };
            match event {
                Ok(Some(event)) => self.take(event),
                Ok(None) if self.session.is_deriving() => {
                    self.slices += 1;
                    assert!(self.slices <= SLICES_MAX, "the server has us compute for ever");
                    self.session.derive(1_000).expect("a response that fits");
                    self.speak();
                }
                Ok(None) => return,
                Err(fault) => {
                    assert!(self.session.poll_event().is_err(), "a session came back");
                    self.played.fault.get_or_insert(fault);
                    return;
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match (event, self.asked) {
            (Event::Ready(_), _) => {
                self.played.ready = true;
                self.played.ready_at = self.player.sent_bytes();
            }
            (Event::Answer { value, .. }, Some(statement)) => {
                self.asked = None;
                // The answer of what clears up after a failed try says nothing; see below.
                if matches!(statement, Statement::Clear(_)) {
                    return;
                }
                let is_granted = matches!(value, Value::Yes | Value::Quiet | Value::Told);
                self.played.answers.push(Some(is_granted));
            }
            (Event::Failed { .. }, Some(statement)) => {
                self.asked = None;
                match statement {
                    // What failed may have been granted: it is unlocked, as the manager does.
                    Statement::TryLock(key) => {
                        self.played.answers.push(None);
                        self.ask(Statement::Clear(key));
                    }
                    // What is not sure to be released is unlocked, as the manager does.
                    Statement::Release(key) => self.ask(Statement::Unlock(key)),
                    _ => self.disagree(),
                }
            }
            _ => {}
        }
    }

    /// The server denies a lock: no fault of the session, but the manager ends it.
    fn disagree(&mut self) {
        let what = "the server denies a lock";
        let violation = Violation::Malformed { message: "DataRow", what };
        self.played.fault.get_or_insert(Fault::Violation(violation));
    }
}
