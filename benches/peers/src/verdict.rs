//! What came of a run, as one word: the worst that was seen. `README.md` beside this crate explains
//! the words.

use std::os::unix::process::ExitStatusExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use md5::Digest as _;

use crate::attack::{Seen, first_attack};
use crate::choice;
use crate::clients::Client;
use crate::replay::format::{Never, Vector};
use crate::replay::judge::{PASSWORD, USER};
use crate::replay::player::{Frontend, messages};
use crate::replay::scram;
use crate::rest;

/// A process that has grown by more KiB than this while it was attacked has grown.
const GROWTH_MAX: u64 = 16 * 1024;

/// From the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// An error in time where that is right, and success where that is.
    Fine,
    /// It does not mind the attack, by a choice that a client may make.
    Weak,
    /// It waited until its caller gave it up.
    Waited,
    /// Success, or a next step, where a strict client has an error.
    Accepted,
    /// Its process grew.
    Grew,
    /// It sent a secret.
    Leaked,
    /// Its caller could not give it up.
    Hung,
    /// It panicked, or its process was aborted.
    Panicked,
    /// The run itself failed: no word about the client.
    Broken,
}

impl Verdict {
    /// All of them that say something about a client, in the order of the tables.
    pub(crate) const ALL: [Self; 8] = [
        Self::Fine,
        Self::Weak,
        Self::Waited,
        Self::Accepted,
        Self::Grew,
        Self::Leaked,
        Self::Hung,
        Self::Panicked,
    ];

    /// The word of the tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Weak => "weak by default",
            Self::Waited => "waited",
            Self::Accepted => "accepted",
            Self::Grew => "grew",
            Self::Leaked => "leaked",
            Self::Hung => "hung",
            Self::Panicked => "panicked",
            Self::Broken => "the run failed",
        }
    }
}

/// Judges a run.
pub(crate) fn judge(client: Client, vector: &Vector, seen: &Seen) -> (Verdict, Vec<String>) {
    let mut found = Vec::new();
    let mut add = |verdict, why: String| found.push((verdict, why));
    process(seen, &mut add);
    received(vector, seen, &mut add);
    answers(client, vector, seen, &mut add);
    if let Some(why) = not_made(vector, seen) {
        add(Verdict::Broken, why);
    }
    found.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let verdict = found.first().map_or(Verdict::Fine, |(verdict, _)| *verdict);
    let mut details: Vec<String> =
        found.into_iter().map(|(verdict, why)| format!("{}: {why}", verdict.word())).collect();
    let is_told =
        |line: &&String| ["base ", "end ", "panic "].iter().any(|it| line.starts_with(it));
    let said = seen.lines.iter().filter(|line| !is_told(line));
    details.extend(said.map(|line| line.chars().take(200).collect()));
    (verdict, details)
}

/// What the process itself shows.
fn process(seen: &Seen, add: &mut impl FnMut(Verdict, String)) {
    for line in &seen.lines {
        if let Some(place) = line.strip_prefix("panic ") {
            add(Verdict::Panicked, place.to_owned());
        }
    }
    match seen.status {
        None => add(Verdict::Hung, "the process had to be killed".into()),
        Some(status) => {
            if let Some(signal) = status.signal() {
                add(Verdict::Panicked, format!("the process was ended by signal {signal}"));
            } else if !status.success() && number(seen, "base ").is_none() {
                add(Verdict::Broken, format!("the process could not begin: {status}"));
            }
        }
    }
    if seen.lines.iter().any(|line| line == "hung") {
        add(Verdict::Hung, "a thread of it could not be called back".into());
    }
    if let (Some(base), Some(end)) = (number(seen, "base "), number(seen, "end ")) {
        let growth = end.saturating_sub(base);
        if growth > GROWTH_MAX {
            add(Verdict::Grew, format!("by {} MiB", growth / 1024));
        }
    }
}

fn number(seen: &Seen, head: &str) -> Option<u64> {
    seen.lines.iter().find_map(|line| line.strip_prefix(head)?.parse().ok())
}

/// What the server has received.
fn received(vector: &Vector, seen: &Seen, add: &mut impl FnMut(Verdict, String)) {
    let may = |what: &str| vector.may.iter().any(|may| may == what);
    let has = |log: &[u8], bytes: &[u8]| log.windows(bytes.len()).any(|window| window == bytes);
    let md5 = |text: &str| scram::hex(&md5::Md5::digest(text));
    for record in &seen.records {
        let log = &record.log[..];
        if !may("cleartext") && has(log, PASSWORD.as_bytes()) {
            add(Verdict::Leaked, "the password in clear".into());
        }
        let mut secrets = record.secrets.clone();
        secrets.push(STANDARD_NO_PAD.encode(PASSWORD).into_bytes());
        secrets.push(md5(PASSWORD));
        secrets.push(md5(&[PASSWORD, USER].concat()));
        if secrets.iter().any(|secret| has(log, secret)) {
            add(Verdict::Leaked, "what stands for the password".into());
        }
        let messages = messages(log);
        let is_md5 = |message: &&Frontend| message.tag == b'p' && message.body.starts_with(b"md5");
        if !may("md5") && messages.iter().filter(is_md5).count() > 0 {
            add(Verdict::Weak, "the password's salted MD5 went out".into());
        }
        if record.script.is_none() {
            injected(vector, &messages, add);
            continue;
        }
        for never in &vector.never {
            let count = |tag: u8| messages.iter().filter(|message| message.tag == tag).count();
            let broken = match never {
                Never::Tag(tag) => count(*tag) > 0,
                Never::MoreThan(most, tag) => count(*tag) > *most,
                Never::Bytes(bytes) => has(log, bytes),
                Never::More => !matches!(&log[record.expected..], b"" | b"X\0\0\0\x04"),
            };
            if broken {
                add(accepted(vector), format!("it went on, against `{}`", line(never)));
            }
        }
    }
}

/// The vector's line again.
fn line(never: &Never) -> String {
    match never {
        Never::Tag(tag) => format!("never {}", char::from(*tag)),
        Never::MoreThan(most, tag) => format!("never more-than {most} {}", char::from(*tag)),
        Never::Bytes(bytes) => format!("never bytes \"{}\"", bytes.escape_ascii()),
        Never::More => "never more".into(),
    }
}

/// A NUL in the startup message that makes a parameter more (class A9).
fn injected(vector: &Vector, messages: &[Frontend], add: &mut impl FnMut(Verdict, String)) {
    let texts = ["user", "dbname", "application_name"].map(|key| vector.setting(key));
    let startup = messages.iter().filter(|message| message.tag == 0);
    for message in startup {
        for text in texts.iter().flatten().filter(|text| text.contains('\0')) {
            if message.body.windows(text.len()).any(|window| window == text.as_bytes()) {
                add(Verdict::Accepted, format!("it sent the parameters of {text:?}"));
            }
        }
    }
}

/// The word for a client that does not mind the attack.
fn accepted(vector: &Vector) -> Verdict {
    choice::choice(vector).map_or(Verdict::Accepted, |_| Verdict::Weak)
}

/// What the client's calls came to.
fn answers(client: Client, vector: &Vector, seen: &Seen, add: &mut impl FnMut(Verdict, String)) {
    let answer = |stage: &str| {
        let mut lines = seen.lines.iter().filter_map(|line| line.strip_prefix(stage));
        lines.next_back().map(|line| line.trim_start())
    };
    let is_late = |line: &&str| *line == "late";
    for stage in ["connect", "hold", "try"] {
        if answer(stage).as_ref().is_some_and(is_late) {
            add(Verdict::Waited, format!("{stage} did not end before its caller gave it up"));
        }
    }
    let expects = |verdict: &str| vector.outcomes.iter().any(|it| it.verdict == verdict);
    let is_connect = vector.client.is_empty();
    let last = if is_connect && !expects("ready") { "connect" } else { "try" };
    let found = answer(last);
    let has_worked = found.is_some_and(|it| ["ok", "granted", "refused"].contains(&it));
    if expects("fails") || expects("lost") {
        match (has_worked, rest::is_about_time(vector)) {
            (false, _) => {}
            (true, true) => add(Verdict::Waited, format!("{last} worked, but late")),
            (true, false) => {
                let why = choice::choice(vector).unwrap_or("a strict client has an error");
                add(accepted(vector), format!("{last} {}, {why}", found.unwrap_or_default()));
            }
        }
    } else {
        let wanted = if expects("refused") { "refused" } else { "granted" };
        if found != Some(wanted) {
            let is_error = found.is_some_and(|found| found.starts_with("failed"));
            let (verdict, why) = match choice::choice(vector) {
                Some(why) if is_error => (Verdict::Weak, why),
                _ => (Verdict::Broken, "the harness has to be looked at"),
            };
            let name = client.name();
            add(verdict, format!("{name} wanted {wanted}, found {found:?}: {why}"));
        }
    }
    if !is_connect && answer("connect") != Some("ok") {
        add(Verdict::Broken, format!("no session: {:?}", answer("connect")));
    }
    if answer("hold").is_some_and(|hold| hold != "granted") {
        add(Verdict::Broken, format!("nothing to hold: {:?}", answer("hold")));
    }
}

/// Why the attack was not made at all, if it was not.
fn not_made(vector: &Vector, seen: &Seen) -> Option<String> {
    let script = vector.connections.first()?;
    let mut why = "nobody connected".to_owned();
    for record in seen.records.iter().filter(|record| record.script == Some(0)) {
        let unplayed = record.unplayed.as_ref()?;
        let Some(step) = unplayed.strip_prefix("the client went away before step ") else {
            // The fake server did not understand the client. A proof that is wrong was made from
            // what the attack had altered.
            why.clone_from(unplayed);
            if unplayed == "the client's proof is wrong" {
                return None;
            }
            continue;
        };
        let step = step.split(':').next().and_then(|step| step.parse().ok()).unwrap_or(0);
        if step > seen.steps || step > first_attack(script) + 1 {
            return None;
        }
        why.clone_from(unplayed);
    }
    Some(why)
}
