//! The good server as this library's sessions need one. Everything that has to follow the library
//! is here: what it asks comes from `distlock::proto`, and so do the answers that do not depend on
//! a parameter.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use distlock::proto::handshake::STATEMENTS;
use distlock::proto::settings;
use distlock::proto::{probe, rehearsal};

use super::format::Alteration;
use super::items::{self, data_row};
use super::player::{Frontend, Good};

/// What a good server is made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// The connection is a Unix socket, whose TCP settings read zero.
    pub unix: bool,
    /// The session keeps its marked key.
    pub affine: bool,
    /// A witness is heard.
    pub witness: bool,
}

/// A good PostgreSQL server, for one connection.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    process_id: i32,
    major: u32,
    alterations: Vec<(Alteration, bool)>,
    /// The text and the parameters of the unnamed statement.
    query: String,
    parameters: Vec<String>,
    /// The named statement that was bound last.
    bound: String,
    token: String,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    /// What there was to ask is answered; a witness may come.
    Confirmed,
    Prepared,
    Released,
    /// A witness has had its answer.
    Testified,
}

/// Gives each connection a process of its own.
#[derive(Debug, Clone)]
pub struct Processes(Arc<AtomicI32>);

impl Default for Processes {
    fn default() -> Self {
        Self(Arc::new(AtomicI32::new(items::PROCESS_ID)))
    }
}

impl Server {
    /// A server that has not been spoken to.
    pub fn new(kind: Kind, processes: &Processes) -> Self {
        Self {
            kind,
            process_id: processes.0.fetch_add(1, Ordering::SeqCst),
            major: 15,
            alterations: Vec::new(),
            query: String::new(),
            parameters: Vec::new(),
            bound: String::new(),
            token: String::new(),
            stage: Stage::Starting,
        }
    }

    /// A value as it was altered, or the right one.
    fn value(&mut self, what: &str, column: usize, right: Vec<u8>) -> Option<Vec<u8>> {
        let found = self
            .alterations
            .iter_mut()
            .find(|(altered, _)| altered.what == what && altered.column == column);
        match found {
            Some((altered, told)) => {
                *told = true;
                altered.value.clone()
            }
            None => Some(right),
        }
    }

    fn row(&mut self, what: &str, values: &[String]) -> Vec<u8> {
        let values = values.iter().map(|value| value.clone().into_bytes());
        let values: Vec<_> =
            values.enumerate().map(|(column, value)| self.value(what, column, value)).collect();
        data_row(&values)
    }

    /// The row of the unnamed statement.
    fn answer(&mut self) -> Vec<u8> {
        let process_id = self.process_id.to_string();
        let parameter = |at: usize| self.parameters.get(at).cloned().unwrap_or_default();
        match name_of(&self.query) {
            Some("identity") => {
                self.token = parameter(0);
                let mut row = rehearsal::IDENTITY.map(str::to_owned);
                row[0] = process_id;
                row[4] = self.token.clone();
                self.row("identity", &row)
            }
            Some("settings") => {
                let fixed = &rehearsal::SETTINGS[..5];
                let mut row: Vec<String> = fixed.iter().map(|value| (*value).to_owned()).collect();
                row[2] = format!("{}ms", parameter(0));
                row.extend(self.parameters.iter().skip(1).cloned());
                row.truncate(usize::from(settings::columns(self.major)));
                if self.kind.unix {
                    let end = row.len().min(9);
                    row[5..end].fill("0".to_owned());
                }
                self.row("settings", &row)
            }
            Some("confirmation") => {
                let mut row = rehearsal::CONFIRMATION.map(str::to_owned);
                row[0] = process_id;
                row[1] = self.token.clone();
                self.stage = Stage::Confirmed;
                self.row("confirmation", &row)
            }
            Some("testimony") => {
                self.stage = Stage::Testified;
                self.row("testimony", &[process_id, "false".to_owned()])
            }
            _ => data_row(&[]),
        }
    }

    /// The row of a lock statement.
    fn lock_row(&mut self) -> Vec<u8> {
        if self.stage == Stage::Prepared && !self.kind.affine {
            self.stage = Stage::Released;
            let value = self.value("release", 0, vec![1]);
            return data_row(&[value]);
        }
        // A release says in a letter that nobody waits.
        let releases = self.bound.starts_with(['r', 'c']);
        data_row(&[Some(if releases { b"q".to_vec() } else { vec![1] })])
    }
}

impl Good for Server {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend(items::message(b'S', b"in_hot_standby\0off\0"));
        if let Some(version) = self.value("version", 0, b"15.18".to_vec()) {
            let digits = String::from_utf8_lossy(&version).into_owned();
            let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            self.major = digits.parse().unwrap_or(0);
            out.extend(items::message(b'S', &[b"server_version\0", &version[..], b"\0"].concat()));
        }
        let announced = self.value("key-data", 0, self.process_id.to_be_bytes().to_vec());
        if let Some(announced) = announced {
            let key = self.value("key-data", 1, b"key!".to_vec()).unwrap_or_default();
            out.extend(items::message(b'K', &[announced, key].concat()));
        }
        out.extend(items::message(b'Z', b"I"));
    }

    fn handle(&mut self, message: &Frontend, out: &mut Vec<u8>) {
        match message.tag {
            b'P' => {
                let mut strings = Strings(&message.body);
                let (name, query) = (strings.next(), strings.next());
                if name.is_empty() {
                    self.query = query;
                }
                out.extend(items::message(b'1', b""));
            }
            b'B' => {
                let mut strings = Strings(&message.body);
                let (_, name) = (strings.next(), strings.next());
                if name.is_empty() {
                    self.parameters = strings.parameters();
                }
                self.bound = name;
                out.extend(items::message(b'2', b""));
            }
            b'E' => {
                let row = match self.bound.is_empty() {
                    true => self.answer(),
                    false => self.lock_row(),
                };
                out.extend(row);
                out.extend(items::message(b'C', b"SELECT 1\0"));
            }
            b'S' => out.extend(items::message(b'Z', b"I")),
            _ => {}
        }
        if self.names(message) == Some("prepare") {
            self.stage = Stage::Prepared;
        }
    }

    fn names(&self, message: &Frontend) -> Option<&'static str> {
        let mut strings = Strings(&message.body);
        match (message.tag, strings.next(), strings.next()) {
            (b'P', name, query) if name.is_empty() => name_of(&query),
            // Only the first of them, whatever their order.
            (b'P', name, _) if name == STATEMENTS[0].0 => Some("prepare"),
            // The marked key is given back in this way.
            (b'B', _, name) if name.starts_with('u') => Some("release"),
            // What releases, and what clears up after a failure.
            (b'B', _, name) if name.starts_with(['r', 'c']) => Some("unlock"),
            (b'B', _, name) if name.starts_with('t') => Some("lock"),
            (b'S', ..) => Some("sync"),
            _ => None,
        }
    }

    fn is_ready(&self) -> bool {
        match self.stage {
            Stage::Prepared => self.kind.affine,
            Stage::Released | Stage::Testified => true,
            Stage::Starting | Stage::Confirmed => false,
        }
    }

    fn alter(&mut self, alteration: &Alteration) {
        self.alterations.push((alteration.clone(), false));
    }

    fn has_lied(&self) -> bool {
        self.alterations.iter().all(|(_, told)| *told)
    }

    fn awaits_witness(&self) -> bool {
        self.kind.witness && self.stage == Stage::Confirmed
    }
}

/// The statements that the library asks with, by the names that scripts use.
fn name_of(query: &str) -> Option<&'static str> {
    if query == probe::IDENTITY {
        return Some("identity");
    }
    if query == probe::CONFIRMATION {
        return Some("confirmation");
    }
    if query == probe::TESTIMONY {
        return Some("testimony");
    }
    let of_settings = [10, 12, 14].iter().any(|major| settings::statement(*major).0 == query);
    of_settings.then_some("settings")
}

/// The strings at the front of a body.
struct Strings<'a>(&'a [u8]);

impl Strings<'_> {
    fn next(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        text
    }

    /// The parameters of a Bind message with text formats only.
    fn parameters(&self) -> Vec<String> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n: usize, b| n << 8 | usize::from(*b));
        let count = number(self.0.get(2..4).unwrap_or_default());
        let mut rest = self.0.get(4..).unwrap_or_default();
        let mut found = Vec::with_capacity(count);
        for _ in 0..count {
            let length = number(rest.get(..4).unwrap_or_default());
            let value = rest.get(4..4 + length).unwrap_or_default();
            found.push(String::from_utf8_lossy(value).into_owned());
            rest = rest.get(4 + length..).unwrap_or_default();
        }
        found
    }
}
