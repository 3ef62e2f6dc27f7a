//! What follows the attack: the rest of a good conversation. The vectors' own scripts fall silent
//! once a strict client has to have gone. A client that did not mind the attack would then wait
//! for a server that says nothing more, and nobody could tell what it made of it; so the server
//! goes on as a good one. Attacks whose point is the silence, the flood or the end stay as they
//! are.

use std::sync::Arc;

use crate::replay::format::{Action, Connection, Expect, Knobs, Outcome, Step, Until, Vector};
use crate::replay::items;
use crate::replay::player::{Frontend, Good, split};

/// A script with what follows it.
pub(crate) struct Whole {
    /// The script.
    pub(crate) script: Arc<Connection>,
    /// What of the good server's greeting the script has not sent itself.
    pub(crate) greeting: Option<Vec<u8>>,
}

/// What the messages of a script were.
#[derive(Default)]
struct Sent {
    tags: Vec<u8>,
    is_authenticated: bool,
    /// The number of the last authentication request, if nothing followed it.
    asked: Option<i32>,
}

/// The only script of a vector, and what follows it.
pub(crate) fn whole(vector: &Vector) -> Option<Whole> {
    let script = vector.connections.first()?;
    if has_its_own_end(vector, script) {
        return Some(Whole { script: Arc::clone(script), greeting: None });
    }
    let mut steps = script.steps.clone();
    let start = steps.iter().position(|step| *step == Step::Good(Until::Session));
    let greeting = match start {
        Some(start) => {
            if !matches!(vector.client[..], [Action::Hold(_), ..]) {
                finish_answer(&mut steps, start);
            }
            None
        }
        None => Some(finish_start(&mut steps)),
    };
    steps.push(Step::Good(Until::End));
    let script = Connection { always: script.always, witness: script.witness, steps };
    Some(Whole { script: Arc::new(script), greeting })
}

/// Whether a vector is about a deadline: the strict client ends by its own.
pub(crate) fn is_about_time(vector: &Vector) -> bool {
    let is_time = |outcome: &Outcome| {
        outcome.words.iter().any(|word| word == "reply-overdue")
            || outcome.phrases.iter().any(|phrase| phrase.contains("within"))
    };
    vector.outcomes.iter().any(is_time)
}

fn has_its_own_end(vector: &Vector, script: &Connection) -> bool {
    let ends = match script.steps.last() {
        Some(Step::Close | Step::Reset | Step::Stream(..) | Step::Flood(None, _)) => true,
        Some(Step::Trickle(..) | Step::Good(Until::End)) | None => true,
        Some(_) => false,
    };
    // Bytes of another protocol, or half a message: a client waits for the rest.
    ends || vector.class == "A44" || is_about_time(vector) || ends_with_an_error(script)
}

/// After a fatal error a server says nothing more.
fn ends_with_an_error(script: &Connection) -> bool {
    matches!(script.steps.last(), Some(Step::Send(_))) && sent(&script.steps).tags.ends_with(b"E")
}

fn sent(steps: &[Step]) -> Sent {
    let mut sent = Sent::default();
    for step in steps {
        match step {
            Step::Send(bytes) => {
                let mut rest = &bytes[..];
                while let Some((Frontend { tag, body }, size)) = split(rest) {
                    rest = &rest[size..];
                    let code = body.first_chunk().map(|code| i32::from_be_bytes(*code));
                    sent.is_authenticated |= tag == b'R' && code == Some(0);
                    sent.asked = code.filter(|_| tag == b'R');
                    sent.tags.push(tag);
                }
            }
            Step::ScramChallenge(_) => sent.asked = Some(11),
            Step::ScramVerdict(_) => sent.asked = Some(12),
            // It is answered already.
            Step::Expect(_) => sent.asked = None,
            _ => {}
        }
    }
    sent
}

/// Adds the rest of an authentication, and tells the rest of the greeting.
fn finish_start(steps: &mut Vec<Step>) -> Vec<u8> {
    let sent = sent(steps);
    match sent.asked {
        Some(10) => {
            steps.push(Step::ScramChallenge(Knobs::default()));
            steps.push(Step::ScramVerdict(Knobs::default()));
        }
        Some(11) if matches!(steps.last(), Some(Step::ScramChallenge(_))) => {
            steps.push(Step::ScramVerdict(Knobs::default()));
        }
        Some(3 | 5) => steps.push(Step::Expect(Expect::Tag(b'p'))),
        _ => {}
    }
    if !sent.is_authenticated {
        steps.push(Step::Send(items::bytes_of("@auth-ok").unwrap_or_default()));
    }
    steps.push(Step::Authenticated);
    let rest = match (sent.tags.contains(&b'Z'), sent.tags.contains(&b'K')) {
        (true, _) => "",
        (false, true) => "@version @parameter @ready",
        (false, false) => "@version @parameter @key-data @ready",
    };
    items::bytes_of(rest).unwrap_or_default()
}

/// Adds what an answer lacks.
fn finish_answer(steps: &mut Vec<Step>, start: usize) {
    let tags = sent(&steps[start..]).tags;
    if tags.contains(&b'Z') {
        return;
    }
    let row = if tags.contains(&b'D') { "" } else { "@true " };
    let complete = if tags.contains(&b'C') { "" } else { "@command-complete " };
    let rest = items::bytes_of(&format!("{row}{complete}@ready")).unwrap_or_default();
    steps.push(Step::Send(rest));
}

/// A good server with another greeting.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// The server.
    pub(crate) inner: Box<dyn Good>,
    /// Its greeting.
    pub(crate) greeting: Vec<u8>,
}

impl Good for Greeting {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.greeting);
    }

    fn handle(&mut self, message: &Frontend, out: &mut Vec<u8>) {
        self.inner.handle(message, out);
    }

    fn names(&self, message: &Frontend) -> Option<&'static str> {
        self.inner.names(message)
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn alter(&mut self, alteration: &crate::replay::format::Alteration) {
        self.inner.alter(alteration);
    }

    fn has_lied(&self) -> bool {
        self.inner.has_lied()
    }
}
