//! A second description of the statements of a ready session: how each is sent, and what it may
//! answer. Written from sections 4.4, 4.6, 4.12 and 4.13 of `proto_notes.md` and from what the
//! texts select, without the library's; the texts themselves are not repeated.

use distlock::proto::frontend::KeyParameters;
use distlock::proto::listing::Listing;
use distlock::proto::statement::{Run, Slots, Statement, Swap, Token, Value};

use crate::{data_row, listing};

/// What is to be known of a statement.
#[derive(Debug, Clone)]
pub struct Description {
    /// How it is prepared.
    pub preparation: Preparation,
    /// Its parameters: each one's type and its value in binary.
    pub parameters: Vec<(i32, Vec<u8>)>,
    /// Its row, or each of its rows.
    pub row: Row,
    /// How many rows it has.
    pub rows: usize,
    /// Whether it shares its Sync with no other.
    pub is_alone: bool,
    /// Whether it counts only with the ReadyForQuery, and a warning before that makes it fail.
    pub commits: bool,
}

/// How a statement is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// Under this name: at the start, or when the first of the name begins a batch.
    Named(&'static str),
    /// It is parsed each time.
    Never,
}

/// The names that are prepared at the start.
pub const PREPARED_AT_START: [&str; 4] = ["t", "tp", "u", "up"];

/// What a row may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// There is none.
    None,
    /// One byte of 0 or 1.
    Boolean,
    /// One of these letters.
    Letter(&'static str),
    /// A letter for a release and a try: `q` or `k`, in upper case where the try was granted.
    Swapped,
    /// An `integer`: a slot of so many, or -1 for none.
    Slot(u16),
    /// The same, or -2 for the letter `r`.
    RegisteredSlot(u16),
    /// A `pg_lsn` or NULL, and a timeline.
    Token,
    /// Who holds a key.
    Listing,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What is passed on with the answer.
    Value(Value),
    /// The same of two tickets.
    Both([Value; 2]),
    /// Who holds a key.
    Listing(Listing),
}

/// Why a row is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is not of its form.
    Malformed,
    /// No server but a standby says so.
    Standby,
}

/// The description of a statement.
pub fn describe(statement: &Statement) -> Description {
    match *statement {
        Statement::TryLock(key) => of_key(["t", "tp"], key, 0, Row::Boolean),
        Statement::Unlock(key) => of_key(["u", "up"], key, 0, Row::Boolean),
        Statement::TryLockShared(key) => of_key(["ts", "tsp"], key, 0, Row::Boolean),
        Statement::UnlockShared(key) => of_key(["us", "usp"], key, 0, Row::Boolean),
        Statement::Share(key) => of_key(["s", "sp"], key, 2, Row::Boolean),
        Statement::Register(key) => of_key(["w", "wp"], key, 2, Row::Letter("awgr")),
        Statement::RegisterShared(key) => of_key(["ws", "wsp"], key, 2, Row::Letter("awr")),
        Statement::Retry(key) => of_key(["y", "yp"], key, 2, Row::Letter("awg")),
        Statement::Release(key) => of_key(["r", "rp"], key, 1, Row::Letter("qk")),
        Statement::ReleaseShared(key) => of_key(["rs", "rsp"], key, 1, Row::Letter("qk")),
        Statement::Downgrade(key) => of_key(["d", "dp"], key, 1, Row::Letter("qkw")),
        Statement::OpenGate(key) => of_key(["g", "gp"], key, 2, Row::Letter("qk")),
        Statement::Wake(key) => of_key(["n", "np"], key, 1, Row::Boolean),
        Statement::Clear(key) => of_key(["c", "cp"], key, 2, Row::Letter("qk")),
        Statement::ClearShared(key) => of_key(["cs", "csp"], key, 2, Row::Letter("qk")),
        Statement::TakeSlot(slots) => of_slots("st", &slots, Row::Slot(slots.count)),
        Statement::RegisterSlots(slots) => of_slots("sw", &slots, Row::RegisteredSlot(slots.count)),
        Statement::ClearSlots(slots) => of_slots("sc", &slots, Row::Letter("qk")),
        Statement::ReleaseSlot(first, slot) => {
            let released = KeyParameters::Bigint(first + i64::from(slot));
            let waiters = waiters(KeyParameters::Bigint(first));
            let parameters = [of(released), of(waiters)].concat();
            named("r", parameters, Row::Letter("qk"))
        }
        Statement::Fence(key) => {
            Description { is_alone: true, commits: true, ..of_key(["f", "fp"], key, 0, Row::Token) }
        }
        Statement::Token => {
            Description { is_alone: true, commits: true, ..named("k", vec![], Row::Token) }
        }
        Statement::Listen(_) | Statement::Unlisten(_) => unnamed(vec![], Row::None),
        Statement::Holders(key) => {
            let first = first_slot(key);
            let beside = [waiters(key), first, waiters(first)];
            let space = i32::from(matches!(key, KeyParameters::Pair(..))) + 1;
            let mut parameters = vec![int8(bits(key) as i64), int4(space)];
            parameters.extend(beside.map(|key| int8(bits(key) as i64)));
            unnamed(parameters, Row::Listing)
        }
    }
}

/// The description of several of a kind that are one statement: arrays of what each has.
pub fn describe_run(run: Run, keys: &[i64]) -> Description {
    let one = |key: &i64| match run {
        Run::TryLock => describe(&Statement::TryLock(KeyParameters::Bigint(*key))),
        Run::Release => describe(&Statement::Release(KeyParameters::Bigint(*key))),
    };
    let (name, columns) = match run {
        Run::TryLock => ("tm", 1),
        Run::Release => ("rm", 3),
    };
    let rows: Vec<Description> = keys.iter().map(one).collect();
    let parameters = (0..columns)
        .map(|column| {
            let values = rows.iter().map(|row| row.parameters[column].clone()).collect();
            array(values, if column == 0 { 20 } else { 23 })
        })
        .collect();
    let row = if run == Run::TryLock { Row::Boolean } else { Row::Letter("qk") };
    Description { rows: keys.len(), ..named(name, parameters, row) }
}

/// The description of a release and a try that are one statement.
pub fn describe_swap(swap: Swap) -> Description {
    let [release, tried] = [swap.release, swap.try_lock].map(KeyParameters::Bigint);
    let parameters = [of(release), of(waiters(release)), of(tried)].concat();
    named("x", parameters, Row::Swapped)
}

/// An array in one dimension of values of one type, none of them NULL.
fn array(values: Vec<(i32, Vec<u8>)>, oid: i32) -> (i32, Vec<u8>) {
    let of_arrays = if oid == 20 { 1_016 } else { 1_007 };
    let head = [1, 0, oid, values.len() as i32, 1];
    let mut bytes: Vec<u8> = head.iter().flat_map(|number| number.to_be_bytes()).collect();
    for (_, value) in values {
        bytes.extend((value.len() as i32).to_be_bytes());
        bytes.extend(value);
    }
    (of_arrays, bytes)
}

/// Of a key, and of so many of the keys beside it.
fn of_key(names: [&'static str; 2], key: KeyParameters, beside: usize, row: Row) -> Description {
    let keys = [key, waiters(key), gate(key)];
    let parameters = keys[..=beside].iter().flat_map(|key| of(*key)).collect();
    let name = match key {
        KeyParameters::Bigint(_) => names[0],
        KeyParameters::Pair(..) => names[1],
    };
    named(name, parameters, row)
}

fn of_slots(name: &'static str, slots: &Slots, row: Row) -> Description {
    let first = KeyParameters::Bigint(slots.first);
    let mut parameters = [of(first), of(waiters(first))].concat();
    parameters.push(int4(i32::from(slots.count)));
    // A bit for each slot.
    let bytes = usize::from(slots.count / 8 + u16::from(slots.count % 8 > 0));
    parameters.push((17, slots.held[..bytes].to_vec()));
    named(name, parameters, row)
}

fn named(name: &'static str, parameters: Vec<(i32, Vec<u8>)>, row: Row) -> Description {
    let preparation = Preparation::Named(name);
    Description { preparation, parameters, row, rows: 1, is_alone: false, commits: false }
}

fn unnamed(parameters: Vec<(i32, Vec<u8>)>, row: Row) -> Description {
    let preparation = Preparation::Never;
    let rows = usize::from(row != Row::None);
    Description { preparation, parameters, row, rows, is_alone: true, commits: false }
}

fn of(key: KeyParameters) -> Vec<(i32, Vec<u8>)> {
    match key {
        KeyParameters::Bigint(number) => vec![int8(number)],
        KeyParameters::Pair(high, low) => vec![int4(high), int4(low)],
    }
}

fn int8(number: i64) -> (i32, Vec<u8>) {
    (20, number.to_be_bytes().to_vec())
}

fn int4(number: i32) -> (i32, Vec<u8>) {
    (23, number.to_be_bytes().to_vec())
}

/// The key that waiters hold in shared mode.
pub fn waiters(key: KeyParameters) -> KeyParameters {
    in_other_space(key, *b"waiters\0")
}

/// The key that one exclusive waiter holds.
pub fn gate(key: KeyParameters) -> KeyParameters {
    in_other_space(key, *b"gate\0\0\0\0")
}

/// The channel on which a release is told.
pub fn channel(key: KeyParameters) -> u8 {
    (bits(waiters(key)) % 8) as u8
}

/// The key of the first slot of a key's counted lock.
pub fn first_slot(key: KeyParameters) -> KeyParameters {
    let space = if let KeyParameters::Bigint(_) = key { 1 } else { 2 };
    let number = permuted(bits(key), *b"slot\0\0\0\0", space);
    KeyParameters::Bigint((number - number % 1024) as i64)
}

fn in_other_space(key: KeyParameters, salt: [u8; 8]) -> KeyParameters {
    let number = permuted(bits(key), salt, 0);
    match key {
        KeyParameters::Bigint(_) => {
            KeyParameters::Pair((number >> 32) as i32, (number % (1 << 32)) as i32)
        }
        KeyParameters::Pair(..) => KeyParameters::Bigint(number as i64),
    }
}

fn bits(key: KeyParameters) -> u64 {
    match key {
        KeyParameters::Bigint(number) => number as u64,
        KeyParameters::Pair(high, low) => {
            u64::from(high as u32) * (1 << 32) + u64::from(low as u32)
        }
    }
}

fn permuted(mut x: u64, salt: [u8; 8], more: u64) -> u64 {
    x ^= u64::from_be_bytes(salt) + more;
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        x ^= x >> 33;
        x = x.wrapping_mul(factor);
    }
    x ^ x >> 33
}

impl Description {
    /// The messages of its reply up to CommandComplete.
    pub fn reply(&self) -> Vec<u8> {
        let parsed = matches!(self.preparation, Preparation::Never).then_some(b'1');
        let rows = std::iter::repeat_n(b'D', self.rows);
        parsed.into_iter().chain([b'2']).chain(rows).chain([b'C']).collect()
    }

    /// The reply in parts, each of which ends with what tells the outcome of a ticket, or of both:
    /// a row, and the CommandComplete with the last of them.
    pub fn parts(&self) -> Vec<Vec<u8>> {
        let mut parts = vec![Vec::new()];
        let mut left = self.rows;
        for tag in self.reply() {
            parts.last_mut().expect("one").push(tag);
            if tag == b'D' {
                left -= 1;
                if left > 0 {
                    parts.push(Vec::new());
                }
            }
        }
        parts
    }
}

impl Row {
    /// Reads the columns.
    ///
    /// # Errors
    ///
    /// When they are nothing that it may hold.
    pub fn read(self, columns: &[Option<Vec<u8>>]) -> Result<Told, Wrong> {
        if self == Self::Token {
            return token(columns);
        }
        let [Some(column)] = columns else { return Err(Wrong::Malformed) };
        let value = match self {
            Self::None | Self::Token => None,
            Self::Boolean => match column[..] {
                [0] => Some(Value::No),
                [1] => Some(Value::Yes),
                _ => None,
            },
            Self::Letter(letters) => match column[..] {
                [letter] if letters.contains(char::from(letter)) => Some(meaning(letter)),
                _ => None,
            },
            Self::Swapped => return swapped(column).map(Told::Both).ok_or(Wrong::Malformed),
            Self::Slot(count) => slot(column, count, false),
            Self::RegisteredSlot(count) => slot(column, count, true),
            Self::Listing => {
                return listing::read(column).map(Told::Listing).ok_or(Wrong::Malformed);
            }
        };
        value.map(Told::Value).ok_or(Wrong::Malformed)
    }

    /// One of the rows that a server of ours sends, as a message; empty if there is none.
    pub fn sample(self, choice: u8) -> Vec<u8> {
        let several = |count: i32| i32::from(choice) % count;
        match self {
            Self::None => Vec::new(),
            Self::Boolean => data_row(&[&[choice & 1]]),
            Self::Letter(letters) => {
                let letter = letters.as_bytes()[usize::from(choice) % letters.len()];
                data_row(&[&[letter]])
            }
            Self::Swapped => data_row(&[&[b"qQkK"[usize::from(choice % 4)]]]),
            Self::Slot(count) => data_row(&[&(several(i32::from(count) + 1) - 1).to_be_bytes()]),
            Self::RegisteredSlot(count) => {
                data_row(&[&(several(i32::from(count) + 2) - 2).to_be_bytes()])
            }
            Self::Token => {
                let lsn = (u64::from(choice) << 40 | 0x0155_4a28).to_be_bytes();
                let lsn = (choice & 1 == 0).then_some(&lsn[..]);
                distlock::proto::rehearsal::row(&[lsn, Some(b"0000000B")])
            }
            Self::Listing => data_row(&[&listing::sample(choice)]),
        }
    }
}

/// What a letter means.
fn meaning(letter: u8) -> Value {
    match letter {
        b'a' => Value::Granted,
        b'w' => Value::Waits,
        b'g' => Value::WaitsGated,
        b'r' => Value::Probed,
        b'q' => Value::Quiet,
        _ => Value::Told,
    }
}

/// The letter's meaning in lower case, and whether it is in upper case.
fn swapped(column: &[u8]) -> Option<[Value; 2]> {
    let [letter] = column else { return None };
    if !"qk".contains(char::from(letter.to_ascii_lowercase())) {
        return None;
    }
    let tried = if letter.is_ascii_uppercase() { Value::Yes } else { Value::No };
    Some([meaning(letter.to_ascii_lowercase()), tried])
}

fn slot(column: &[u8], count: u16, is_registered: bool) -> Option<Value> {
    let [a, b, c, d] = column else { return None };
    match i32::from_be_bytes([*a, *b, *c, *d]) {
        -1 => Some(Value::No),
        -2 if is_registered => Some(Value::Probed),
        slot if (0..i32::from(count)).contains(&slot) => Some(Value::Slot(slot as u16)),
        _ => None,
    }
}

/// A place in the log, or NULL where the key was refused; the timeline in hexadecimal, which a
/// standby has none of.
fn token(columns: &[Option<Vec<u8>>]) -> Result<Told, Wrong> {
    let [lsn, timeline] = columns else { return Err(Wrong::Malformed) };
    let Some(timeline) = timeline else { return Err(Wrong::Standby) };
    let mut number = 0;
    for digit in timeline {
        let digit = char::from(*digit).to_digit(16).ok_or(Wrong::Malformed)?;
        number = number << 4 | u64::from(digit);
    }
    if timeline.len() != 8 {
        return Err(Wrong::Malformed);
    }
    let token = match lsn {
        None => None,
        Some(lsn) => {
            let lsn = <[u8; 8]>::try_from(&lsn[..]).map_err(|_| Wrong::Malformed)?;
            Some(Token { timeline: number as u32, lsn: u64::from_be_bytes(lsn) })
        }
    };
    Ok(Told::Value(Value::Token(token)))
}
