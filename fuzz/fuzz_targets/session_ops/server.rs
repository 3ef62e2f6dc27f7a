//! A server that keeps to the protocol, for `session_ops`; but for rows of other statements, and of
//! several as one too few, too many or divided, which it sends when it is told to.

use std::collections::VecDeque;

use distlock_fuzz::statements::{Description, Row};
use distlock_fuzz::{data_row, message};

/// What it has not answered yet.
#[derive(Debug, Default)]
pub struct Server {
    queue: VecDeque<Request>,
    /// Whether a statement has failed, so that it runs nothing before the Sync.
    is_skipping: bool,
    /// Whether it has run something since the last Sync.
    has_run: bool,
    /// Whether it has answered with a row that need not be of the statement's form, or not with
    /// as many of them as there have to be.
    has_strayed: bool,
}

#[derive(Debug)]
enum Request {
    Parse,
    Statement(Description),
    Sync,
}

/// The choice of [`Server::reply`] with which nothing fails, and nothing comes unasked.
pub const NO_FAULT: u8 = 0x0f;

/// The one with which a batch cannot be committed.
const COMMIT_FAILS: u8 = 0x08;

/// The one with which the row is that of some statement.
const OTHER_ROW: u8 = 0x09;

/// Those with which several as one have a row too few, one too many, or an end behind the first.
const MISSING_ROW: u8 = 0x0a;
const EXTRA_ROW: u8 = 0x0b;
const EARLY_END: u8 = 0x0c;

/// Set where the end of the reply comes later.
pub const LATE: u8 = 0x20;

impl Server {
    /// A statement was sent; whether a Parse with its name came before it.
    pub fn submitted(&mut self, description: &Description, is_parsed: bool) {
        if is_parsed {
            self.queue.push_back(Request::Parse);
        }
        self.queue.push_back(Request::Statement(description.clone()));
    }

    /// A Sync was sent.
    pub fn synced(&mut self) {
        self.queue.push_back(Request::Sync);
    }

    /// Whether nothing is asked after the last Sync.
    pub fn is_batch_closed(&self) -> bool {
        matches!(self.queue.back(), None | Some(Request::Sync))
    }

    /// Whether it has always kept to the protocol.
    pub fn is_honest(&self) -> bool {
        !self.has_strayed
    }

    /// Whether all is answered.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The reply to the oldest request that gets one. `answer` chooses among the rows; the low half
    /// of `how` what fails, its highest bits what comes before it unasked.
    pub fn reply(&mut self, answer: u8, how: u8) -> Vec<u8> {
        let reply = loop {
            match self.queue.pop_front() {
                None => break Vec::new(),
                Some(Request::Parse) => break message(b'1', b""),
                Some(Request::Sync) => break self.end_of_batch(how),
                Some(Request::Statement(_)) if self.is_skipping => {}
                Some(Request::Statement(description)) => {
                    self.has_run = true;
                    break self.run(&description, answer, how & 0x0f);
                }
            }
        };
        [unasked(answer, how), reply].concat()
    }

    fn end_of_batch(&mut self, how: u8) -> Vec<u8> {
        let is_refused = self.has_run && !self.is_skipping && how & 0x0f == COMMIT_FAILS;
        (self.has_run, self.is_skipping) = (false, false);
        let refused = if is_refused { error() } else { Vec::new() };
        [refused, message(b'Z', b"I")].concat()
    }

    fn run(&mut self, description: &Description, answer: u8, how: u8) -> Vec<u8> {
        let mut reply = description.reply();
        let is_several = description.rows > 1 || description.row == Row::Swapped;
        if is_several && (MISSING_ROW..=EARLY_END).contains(&how) {
            self.has_strayed = true;
            // Behind BindComplete, and behind the row there.
            match how {
                MISSING_ROW => drop(reply.remove(1)),
                EXTRA_ROW => reply.insert(1, b'D'),
                _ => reply.insert(2, b'C'),
            }
        }
        let fails_at = fails_at(how, reply.len(), is_several);
        self.is_skipping = fails_at.is_some();
        let mut bytes = Vec::new();
        let mut rows = 0_u8;
        for tag in &reply[..fails_at.unwrap_or(reply.len())] {
            bytes.extend(match tag {
                b'D' => {
                    let strays = how == OTHER_ROW
                        && usize::from(answer) % description.rows == usize::from(rows);
                    // Another for each row.
                    let answer = answer.rotate_left(u32::from(rows)) ^ rows >> 3;
                    rows += 1;
                    self.has_strayed |= strays;
                    if strays { other_row(answer) } else { description.row.sample(answer) }
                }
                b'C' => message(b'C', b"SELECT 1\0"),
                tag => message(*tag, b""),
            });
        }
        if fails_at.is_some() {
            bytes.extend(error());
        }
        bytes
    }
}

/// An error may stand in the place of any of the first messages of a reply; of several as one, of
/// the last ones, too.
fn fails_at(how: u8, length: usize, is_several: bool) -> Option<usize> {
    match usize::from(how) {
        place @ 0..=3 => Some(place).filter(|place| *place < length),
        place @ 4..=7 if is_several => Some(length.saturating_sub(8 - place)),
        _ => None,
    }
}

/// A row that answers some statement, or none.
fn other_row(answer: u8) -> Vec<u8> {
    match (answer & 3, answer >> 2) {
        (0, which) => data_row(&[&[b"awgrqknxQKa\0\x01GRN"[usize::from(which & 15)]]]),
        (1, which) => data_row(&[&(i32::from(which) - 4).to_be_bytes()]),
        (2, which) => data_row(&[&[which]]),
        (_, which) => Row::Token.sample(which),
    }
}

fn error() -> Vec<u8> {
    message(b'E', b"SFEHLER\0VERROR\0C53200\0Mout of shared memory\0\0")
}

/// Asynchronous messages.
fn unasked(answer: u8, how: u8) -> Vec<u8> {
    let is_ours = how & 0x10 != 0;
    match how >> 6 {
        1 if is_ours => message(b'N', b"SWARNUNG\0VWARNING\0C01000\0Mby the way\0\0"),
        1 => message(b'N', b"SHINWEIS\0VNOTICE\0C00000\0Mby the way\0\0"),
        2 => {
            let channel: &[u8] = if is_ours { b"distlock_5\0" } else { b"channel\0" };
            let payload = match answer % 3 {
                0 => "payload".to_owned(),
                1 => answer.to_string(),
                _ => format!("{answer},-7"),
            };
            message(b'A', &[b"\0\0\0\x07", channel, payload.as_bytes(), b"\0"].concat())
        }
        3 => message(b'S', b"TimeZone\0UTC\0"),
        _ => Vec::new(),
    }
}
