//! The format of the attack vectors, read: from text to a [`Vector`]. `tests/vectors/README.md`
//! describes it. Standard library only, so that other programs can replay the same files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::items;

/// One attack.
#[derive(Debug, Clone)]
pub struct Vector {
    /// The file's name without its ending.
    pub name: String,
    /// `A1` to `A46`.
    pub class: String,
    /// The property that the client must have.
    pub title: String,
    /// Where the attack was seen.
    pub source: String,
    /// What the runner has to be able to do: `tls`.
    pub requires: Vec<String>,
    /// The client's configuration, as keys and values.
    pub config: Vec<(String, String)>,
    /// What the client does once it is connected.
    pub client: Vec<Action>,
    /// What the server does, connection by connection.
    pub connections: Vec<Arc<Connection>>,
    /// What has to come of it.
    pub outcomes: Vec<Outcome>,
    /// What must never be received from the client.
    pub never: Vec<Never>,
    /// Secrets that the policy lets the client send after all: `cleartext`, `md5`.
    pub may: Vec<String>,
}

/// A step of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Takes a lock, which has to be granted, and keeps it.
    Hold(i64),
    /// Asks once for a lock; the answer is an outcome.
    Try(i64),
    /// Unlocks what it holds; the answer is an outcome.
    Unlock,
}

/// The script of one connection, or of several.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Whether it is also played for every connection after it.
    pub always: bool,
    /// Whether it is the second connection, that a lock client may make to test the first.
    pub witness: bool,
    /// What the server does.
    pub steps: Vec<Step>,
}

/// A step of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reads messages up to the first of this kind.
    Expect(Expect),
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends a message again and again, so often or for as long as there is a client. `#######` in
    /// it becomes the number of the round.
    Flood(Option<u64>, Vec<u8>),
    /// Sends so many bytes of one value.
    Stream(u64, u8),
    /// Sends bytes one by one, with a pause before each.
    Trickle(Duration, Vec<u8>),
    /// Waits.
    Wait(Duration),
    /// Closes the connection in good order.
    Close,
    /// Closes it with a reset.
    Reset,
    /// Behaves like a good server up to a point.
    Good(Until),
    /// Makes the good server lie in one place.
    Alter(Alteration),
    /// Says that the script itself has done the authentication.
    Authenticated,
    /// Answers the client's first SCRAM message.
    ScramChallenge(Knobs),
    /// Answers the client's last SCRAM message.
    ScramVerdict(Knobs),
}

/// A message of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// StartupMessage.
    Startup,
    /// SSLRequest.
    SslRequest,
    /// A message with this type byte.
    Tag(u8),
}

/// Up to which point the good server goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// AuthenticationOk is sent, and nothing after it.
    Authenticated,
    /// The statement was asked for; neither it nor what follows it is answered.
    Statement(String),
    /// The session can be used.
    Session,
    /// The client goes, having seen what was altered.
    End,
}

/// A lie of the good server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// The statement or message.
    pub what: String,
    /// The column.
    pub column: usize,
    /// What stands there instead; nothing for NULL.
    pub value: Option<Vec<u8>>,
}

/// Deviations of the SCRAM server, as keys and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knobs(pub Vec<(String, String)>);

/// What has to come of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is judged: `connect`, `held`, `try`, `unlock`, `unavailable`, `config`.
    pub of: String,
    /// How it has to end: `ready`, `granted`, `refused`, `kept`, `lost`, or `fails`.
    pub verdict: String,
    /// Of `fails`, the kind of error; of `lost`, the cause; with what belongs to it.
    pub words: Vec<String>,
    /// What the text of the error has to hold.
    pub phrases: Vec<String>,
    /// What it must not hold.
    pub absent: Vec<String>,
}

/// What must never be received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Never {
    /// A message with this type byte.
    Tag(u8),
    /// More than so many messages with this type byte.
    MoreThan(usize, u8),
    /// Anything after the last message that the script expected, but a Terminate.
    More,
    /// These bytes, anywhere.
    Bytes(Vec<u8>),
}

/// A line that cannot be read.
#[derive(Debug)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Knobs {
    /// The value of a knob.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Vector {
    /// The value of a configuration key.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.config.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a configuration key is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.setting(name).is_some()
    }
}

/// Every vector of a folder, in the order of the names.
pub fn load(folder: &Path) -> Result<Vec<Vector>, Malformed> {
    let entries = std::fs::read_dir(folder).map_err(|error| Malformed(error.to_string()))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "vector"));
    paths.sort();
    let mut vectors = Vec::with_capacity(paths.len());
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Malformed(format!("{}: {error}", path.display())))?;
        vectors.push(parse(&name, &text)?);
    }
    Ok(vectors)
}

/// Reads one vector.
pub fn parse(name: &str, text: &str) -> Result<Vector, Malformed> {
    let mut vector = Vector {
        name: name.to_owned(),
        class: String::new(),
        title: String::new(),
        source: String::new(),
        requires: Vec::new(),
        config: Vec::new(),
        client: Vec::new(),
        connections: Vec::new(),
        outcomes: Vec::new(),
        never: Vec::new(),
        may: Vec::new(),
    };
    for (number, line) in joined(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with("--") {
            continue;
        }
        take_line(&mut vector, line)
            .map_err(|why| Malformed(format!("{name}.vector, line {number}: {why}")))?;
    }
    if vector.class.is_empty() || vector.title.is_empty() || vector.outcomes.is_empty() {
        return Err(Malformed(format!("{name}.vector: it needs class, title and outcome")));
    }
    Ok(vector)
}

/// The lines with their numbers; one that ends with `\` goes on in the next.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some((_, last)) if goes_on => last.push_str(part),
            _ => lines.push((index + 1, part.to_owned())),
        }
        goes_on = more;
    }
    lines
}

fn take_line(vector: &mut Vector, line: &str) -> Result<(), String> {
    let (word, rest) = split_word(line);
    match word {
        "class" => vector.class = rest.to_owned(),
        "title" => vector.title = rest.to_owned(),
        "source" => vector.source = rest.to_owned(),
        "requires" => vector.requires.push(rest.to_owned()),
        "config" => {
            let (key, value) = split_word(rest);
            vector.config.push((key.to_owned(), items::text_of(value)?));
        }
        "client" => vector.client.push(action(rest)?),
        "outcome" => vector.outcomes.push(outcome(rest)?),
        "never" => vector.never.push(never(rest)?),
        "may" => vector.may.push(rest.to_owned()),
        "connection" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            if let Some(odd) = words.iter().find(|word| !["always", "witness"].contains(word)) {
                return Err(format!("a connection is not `{odd}`"));
            }
            let (always, witness) = (words.contains(&"always"), words.contains(&"witness"));
            let steps = Vec::new();
            vector.connections.push(Arc::new(Connection { always, witness, steps }));
        }
        _ => {
            let step = step(word, rest)?;
            let connection = vector.connections.last_mut().and_then(Arc::get_mut);
            connection.ok_or("a step before the first connection")?.steps.push(step);
        }
    }
    Ok(())
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

fn step(word: &str, rest: &str) -> Result<Step, String> {
    Ok(match word {
        "expect" => Step::Expect(match rest {
            "startup" => Expect::Startup,
            "ssl-request" => Expect::SslRequest,
            other => Expect::Tag(tag(other)?),
        }),
        "send" => Step::Send(items::bytes_of(rest)?),
        "flood" => {
            let (count, items) = split_word(rest);
            let count = match count {
                "forever" => None,
                count => Some(count.parse().map_err(|_| format!("`{count}` is no count"))?),
            };
            Step::Flood(count, items::bytes_of(items)?)
        }
        "stream" => {
            let (count, value) = split_word(rest);
            let count = count.parse().map_err(|_| format!("`{count}` is no count"))?;
            let value = u8::from_str_radix(value, 16).map_err(|_| format!("`{value}`: no byte"))?;
            Step::Stream(count, value)
        }
        "trickle" => {
            let (pause, items) = split_word(rest);
            Step::Trickle(milliseconds(pause)?, items::bytes_of(items)?)
        }
        "wait" => Step::Wait(milliseconds(rest)?),
        "close" => Step::Close,
        "reset" => Step::Reset,
        "authenticated" => Step::Authenticated,
        "good" => Step::Good(match split_word(rest) {
            ("authenticated", "") => Until::Authenticated,
            ("session", "") => Until::Session,
            ("serve", "") => Until::End,
            ("until", name) if !name.is_empty() => Until::Statement(name.to_owned()),
            _ => return Err(format!("`good {rest}` is unknown")),
        }),
        "alter" => {
            let (what, rest) = split_word(rest);
            let (column, value) = split_word(rest);
            let column = column.parse().map_err(|_| format!("`{column}` is no column"))?;
            let value = if value == "null" { None } else { Some(items::bytes_of(value)?) };
            Step::Alter(Alteration { what: what.to_owned(), column, value })
        }
        "scram" => match split_word(rest) {
            ("challenge", knobs) => Step::ScramChallenge(self::knobs(knobs)?),
            ("verdict", knobs) => Step::ScramVerdict(self::knobs(knobs)?),
            _ => return Err(format!("`scram {rest}` is unknown")),
        },
        _ => return Err(format!("`{word}` is unknown")),
    })
}

fn tag(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [tag] => Ok(*tag),
        _ => Err(format!("`{text}` is no type byte")),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    number.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no time such as 20ms"))
}

fn knobs(text: &str) -> Result<Knobs, String> {
    let mut knobs = Vec::new();
    for word in items::split(text)? {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("`{word}` is no knob=value"))?;
        knobs.push((key.to_owned(), items::text_of(value)?));
    }
    Ok(Knobs(knobs))
}

fn action(text: &str) -> Result<Action, String> {
    let key = |text: &str| text.parse().map_err(|_| format!("`{text}` is no key"));
    match split_word(text) {
        ("hold", text) => Ok(Action::Hold(key(text)?)),
        ("try", text) => Ok(Action::Try(key(text)?)),
        ("unlock", "") => Ok(Action::Unlock),
        _ => Err(format!("the client cannot `{text}`")),
    }
}

fn never(text: &str) -> Result<Never, String> {
    match split_word(text) {
        ("more", "") => Ok(Never::More),
        ("more-than", text) => {
            let (count, text) = split_word(text);
            let count = count.parse().map_err(|_| format!("`{count}` is no count"))?;
            Ok(Never::MoreThan(count, tag(text)?))
        }
        ("bytes", items) => Ok(Never::Bytes(items::bytes_of(items)?)),
        (text, "") => Ok(Never::Tag(tag(text)?)),
        _ => Err(format!("`never {text}` is unknown")),
    }
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let mut outcome = Outcome {
        of: String::new(),
        verdict: String::new(),
        words: Vec::new(),
        phrases: Vec::new(),
        absent: Vec::new(),
    };
    let mut negated = false;
    for word in items::split(text)? {
        if word.starts_with('"') {
            let phrase = items::text_of(&word)?;
            if negated { &mut outcome.absent } else { &mut outcome.phrases }.push(phrase);
            negated = false;
        } else if word == "not" {
            negated = true;
        } else if outcome.of.is_empty() {
            outcome.of = word;
        } else if outcome.verdict.is_empty() {
            outcome.verdict = word;
        } else {
            outcome.words.push(word);
        }
    }
    let known = ["connect", "held", "try", "unlock", "unavailable", "config"];
    if !known.contains(&outcome.of.as_str()) || outcome.verdict.is_empty() {
        return Err(format!("`outcome {text}` is unknown"));
    }
    Ok(outcome)
}

#[test]
fn a_vector_that_cannot_be_read_is_refused_with_its_line() {
    let head = "class A1\ntitle t\nsource s\nconnection\n";
    let rows = [
        ("expect nothing\noutcome connect ready", "line 5: `nothing` is no type byte"),
        ("send @nothing\noutcome connect ready", "line 5: no macro is called `@nothing`"),
        ("send Nothing()\noutcome connect ready", "line 5: no message is called `Nothing`"),
        ("send \"\\q\"\noutcome connect ready", "has an unknown escape"),
        ("send Z(\"I\"\noutcome connect ready", "is not closed"),
        ("frobnicate\noutcome connect ready", "`frobnicate` is unknown"),
        ("outcome somehow", "line 5: `outcome somehow` is unknown"),
        ("", "it needs class, title and outcome"),
    ];
    for (body, expected) in rows {
        let refused = parse("a01-x", &format!("{head}{body}")).expect_err(body).to_string();
        assert!(refused.contains(expected), "{body}: {refused}");
    }
}

#[test]
fn items_become_the_bytes_that_they_stand_for() {
    let rows: [(&str, &[u8]); 6] = [
        ("Z(\"I\")", b"Z\0\0\0\x05I"),
        ("AuthenticationMD5Password(\"salt\")", b"R\0\0\0\x0c\0\0\0\x05salt"),
        ("D#3(i16:-1 i32:1 hex:0a_0b)", b"D\0\0\0\x03\xff\xff\0\0\0\x01\x0a\x0b"),
        ("ParameterStatus(\"a b\\0\" \"\\x1b\\0\")", b"S\0\0\0\x0aa b\0\x1b\0"),
        ("fill:3:41 \"(\"", b"AAA("),
        (
            "@granted",
            b"2\0\0\0\x04D\0\0\0\x0b\0\x01\0\0\0\x01\x01C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
        ),
    ];
    for (text, bytes) in rows {
        assert_eq!(items::bytes_of(text).as_deref(), Ok(bytes), "{text}");
    }
}
