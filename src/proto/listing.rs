//! Who holds a key and who waits for it, as the one row of
//! [`Statement::Holders`](super::statement::Statement) tells it.
//!
//! The server puts all of it into one `bytea`, so that a session has statements of one row only,
//! and its answer a bound: numbers in network byte order, in front of each text its length. No byte
//! of a text ends anything, so an application name may hold what it likes. First how many holders
//! and waiters there are (Int32 each) and the server's clock (Int64: microseconds since 2000, as
//! all times here); then, of the first [`LISTED_MAX`] of them, holders before waiters:
//!
//! | type | meaning |
//! |---|---|
//! | Int32 | the server process; 0 for a prepared transaction, which has none |
//! | Byte1 | `e` holds alone, `s` holds shared, `w` waits to have it alone, `v` to share it |
//! | Byte1 | `o` our own session, `v` another one, `x` another one that we may not look at |
//! | Int16 | the slot; -1 the key itself; registered as a waiter for -2 any slot, -3 the key |
//! | Int64, three times | start of the session, its transaction, its statement; least: not known |
//! | Int32 | the client's port; -1 a Unix-domain socket, -2 not known |
//! | Int16, Byte4 or Byte16 | the client's address; the length -1: none |
//! | Int16, Byte*n* | the application name; the length -1: none |

// Of `core`, which has neither sockets nor clocks: these are values.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::backend::DataRow;
use super::companion::SLOTS_MAX;
use super::fault::Violation;

/// The most that are told of by name. The others are counted.
pub const LISTED_MAX: usize = 32;

/// The most bytes of an application name; PostgreSQL cuts it to as many (`NAMEDATALEN`).
pub const NAME_MAX: usize = 63;

/// The most bytes of the answer: it has to fit into a DataRow, with the row's 10 bytes in front.
pub const LISTING_MAX: usize = 16 + LISTED_MAX * (4 + 2 + 2 + 24 + 4 + 2 + 16 + 2 + NAME_MAX);

const _: () = assert!(LISTING_MAX + 10 <= super::backend::DATA_ROW_MAX as usize);

/// Who holds a key and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// How many hold it.
    pub holders: u32,
    /// How many wait for it.
    pub waiters: u32,
    /// The first of them, holders before waiters.
    pub entries: Vec<Entry>,
}

/// One holder or waiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its server process.
    pub process_id: Option<i32>,
    /// What it has to do with the key.
    pub role: Role,
    /// Of the key, or of which slot.
    pub place: Place,
    /// Whether it is our own session.
    pub is_own: bool,
    /// Whether we may not look at it.
    pub is_restricted: bool,
    /// For how long its session has been there.
    pub session: Option<Duration>,
    /// The same of its transaction.
    pub transaction: Option<Duration>,
    /// The same of its latest statement.
    pub statement: Option<Duration>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The client's port.
    pub port: Option<u16>,
    /// What it calls itself.
    pub application_name: Option<Box<str>>,
}

/// What somebody has to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Holds it.
    Holds {
        /// Or alone.
        shared: bool,
    },
    /// Waits inside a statement.
    Blocked {
        /// Or to have it alone.
        shared: bool,
    },
    /// Has registered to be notified.
    Registered,
}

/// What is held or waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The key itself.
    Key,
    /// This slot of its counted lock.
    Slot(u16),
    /// Any slot of it.
    AnySlot,
}

impl Listing {
    /// Reads the row.
    ///
    /// # Errors
    ///
    /// When it is not exactly as above (invariant I10).
    pub fn read(row: &DataRow<'_>) -> Result<Self, Violation> {
        match (row.columns(), row.values().next()) {
            (1, Some(Some(bytes))) => {
                parse(bytes).ok_or_else(|| malformed("not a list of holders and waiters"))
            }
            _ => Err(malformed("a list of holders has one column")),
        }
    }
}

fn malformed(what: &'static str) -> Violation {
    Violation::Malformed { message: "DataRow", what }
}

fn parse(bytes: &[u8]) -> Option<Listing> {
    let mut reader = Reader(bytes);
    let holders = u32::try_from(reader.i32()?).ok()?;
    let waiters = u32::try_from(reader.i32()?).ok()?;
    let now = reader.i64()?;
    let total = u64::from(holders).saturating_add(u64::from(waiters));
    let listed = usize::try_from(total).unwrap_or(LISTED_MAX).min(LISTED_MAX);
    let mut entries = Vec::with_capacity(listed);
    for number in 0..listed {
        let entry = reader.entry(now)?;
        let has_to_hold = u32::try_from(number).is_ok_and(|number| number < holders);
        if matches!(entry.role, Role::Holds { .. }) != has_to_hold {
            return None;
        }
        entries.push(entry);
    }
    reader.0.is_empty().then_some(Listing { holders, waiters, entries })
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn entry(&mut self, now: i64) -> Option<Entry> {
        let process_id = match self.i32()? {
            0 => None,
            process_id => Some(process_id),
        };
        let [how, sight] = self.array()?;
        let (role, place) = what(how, self.i16()?)?;
        if !matches!(sight, b'o' | b'v' | b'x') {
            return None;
        }
        Some(Entry {
            process_id,
            role,
            place,
            is_own: sight == b'o',
            is_restricted: sight == b'x',
            session: self.age(now)?,
            transaction: self.age(now)?,
            statement: self.age(now)?,
            port: match self.i32()? {
                -2 | -1 => None,
                port => Some(u16::try_from(port).ok()?),
            },
            address: match self.bytes()? {
                None => None,
                Some(bytes) => Some(address(bytes)?),
            },
            application_name: match self.bytes()? {
                Some(name) if name.len() > NAME_MAX => return None,
                // Cut, or of a database without an encoding, it may not be UTF-8 throughout.
                name => name.map(|name| String::from_utf8_lossy(name).into()),
            },
        })
    }

    /// How long ago that was; none if it is not known. A clock that was set back gives zero.
    fn age(&mut self, now: i64) -> Option<Option<Duration>> {
        Some(match self.i64()? {
            i64::MIN => None,
            since => {
                let age = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
                Some(Duration::from_micros(age))
            }
        })
    }

    /// A length and as many bytes; -1 alone stands for none.
    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = match self.i16()? {
            -1 => return Some(None),
            length => usize::try_from(length).ok()?,
        };
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(bytes))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*value)
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

fn what(how: u8, slot: i16) -> Option<(Role, Place)> {
    let place = match slot {
        -3 | -1 => Place::Key,
        -2 => Place::AnySlot,
        slot => Place::Slot(u16::try_from(slot).ok().filter(|slot| *slot < SLOTS_MAX)?),
    };
    let role = match (how, slot) {
        // The waiters key is held in shared mode.
        (b's', -3 | -2) => Role::Registered,
        (_, -3 | -2) => return None,
        (b'e', _) => Role::Holds { shared: false },
        (b's', _) => Role::Holds { shared: true },
        (b'w', _) => Role::Blocked { shared: false },
        (b'v', _) => Role::Blocked { shared: true },
        _ => return None,
    };
    Some((role, place))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

#[cfg(test)]
mod tests {
    use super::super::backend::{BackendMessage, Status, decode};
    use super::super::frontend::{KeyParameters, LONG_PARSE_MAX};
    use super::super::rehearsal;
    use super::super::statement::Statement;
    use super::*;

    const NOW: i64 = 800_000_000_000_000;

    /// Bytes of one entry.
    fn entry(
        how: u8,
        sight: u8,
        slot: i16,
        address: Option<&[u8]>,
        name: Option<&[u8]>,
    ) -> Vec<u8> {
        let text = |text: Option<&[u8]>| {
            let length = text.map_or(-1, |text| text.len() as i16);
            [&length.to_be_bytes(), text.unwrap_or_default()].concat()
        };
        [
            4711_i32.to_be_bytes().to_vec(),
            vec![how, sight],
            slot.to_be_bytes().to_vec(),
            (NOW - 3_000_000).to_be_bytes().to_vec(),
            i64::MIN.to_be_bytes().to_vec(),
            (NOW + 1).to_be_bytes().to_vec(),
            5432_i32.to_be_bytes().to_vec(),
            text(address),
            text(name),
        ]
        .concat()
    }

    fn plain(how: u8, slot: i16) -> Vec<u8> {
        entry(how, b'v', slot, Some(&[10, 0, 0, 1]), Some(b"app"))
    }

    fn bytes(holders: i32, waiters: i32, entries: &[Vec<u8>]) -> Vec<u8> {
        let head = [holders.to_be_bytes(), waiters.to_be_bytes()].concat();
        [head, NOW.to_be_bytes().to_vec(), entries.concat()].concat()
    }

    fn read(values: &[Option<&[u8]>]) -> Result<Listing, Violation> {
        match decode(&rehearsal::row(values)) {
            Ok(Status::Complete { message: BackendMessage::DataRow(row), .. }) => {
                Listing::read(&row)
            }
            other => panic!("no row: {other:?}"),
        }
    }

    #[test]
    fn an_entry_says_what_the_server_said() {
        let name = Some(&b"a\n\"'\xc3\xbc\0"[..]);
        let listed = parse(&bytes(1, 0, &[entry(b'e', b'o', 7, Some(&[1; 16]), name)])).unwrap();
        assert_eq!((listed.holders, listed.waiters), (1, 0));
        let expected = Entry {
            process_id: Some(4711),
            role: Role::Holds { shared: false },
            place: Place::Slot(7),
            is_own: true,
            is_restricted: false,
            session: Some(Duration::from_secs(3)),
            transaction: None,
            // The clock was set back.
            statement: Some(Duration::ZERO),
            address: Some(Ipv6Addr::from([1; 16]).into()),
            port: Some(5432),
            application_name: Some("a\n\"'ü\0".into()),
        };
        assert_eq!(listed.entries, [expected]);
    }

    #[test]
    fn roles_and_places_are_told_apart() {
        for (how, slot, role, place) in [
            (b'e', -1, Role::Holds { shared: false }, Place::Key),
            (b's', -1, Role::Holds { shared: true }, Place::Key),
            (b'e', 1023, Role::Holds { shared: false }, Place::Slot(1023)),
            (b'w', -1, Role::Blocked { shared: false }, Place::Key),
            (b'v', 0, Role::Blocked { shared: true }, Place::Slot(0)),
            (b's', -2, Role::Registered, Place::AnySlot),
            (b's', -3, Role::Registered, Place::Key),
        ] {
            let is_holder = matches!(role, Role::Holds { .. });
            let counts = if is_holder { (1, 0) } else { (0, 1) };
            let listed =
                parse(&bytes(counts.0, counts.1, &[plain(how, slot)])).expect("well-formed");
            assert_eq!((listed.entries[0].role, listed.entries[0].place), (role, place));
            let wrong = bytes(counts.1, counts.0, &[plain(how, slot)]);
            assert_eq!(parse(&wrong), None, "a holder is counted as one, a waiter as one");
        }
    }

    #[test]
    fn what_is_not_known_is_none() {
        let restricted = entry(b'e', b'x', -1, None, None);
        let listed = parse(&bytes(1, 0, &[restricted])).expect("well-formed");
        let entry = &listed.entries[0];
        assert!(entry.is_restricted && entry.address.is_none());
        assert!(entry.application_name.is_none());
    }

    #[test]
    fn nobody_and_too_many_are_well_formed() {
        let nobody = parse(&bytes(0, 0, &[])).expect("well-formed");
        assert!(nobody.entries.is_empty());
        let many = vec![plain(b's', -1); LISTED_MAX];
        for (holders, waiters) in [(32, 0), (33, 0), (32, 1), (i32::MAX, i32::MAX)] {
            let listed = parse(&bytes(holders, waiters, &many)).expect("well-formed");
            assert_eq!(listed.entries.len(), LISTED_MAX);
            assert_eq!(listed.holders, holders as u32);
        }
    }

    #[test]
    fn every_truncation_and_every_byte_more_is_refused() {
        let entries = [plain(b'e', 1), plain(b'w', -1), entry(b's', b'x', -3, None, None)];
        let good = bytes(1, 2, &entries);
        assert!(parse(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length}");
        }
        assert_eq!(parse(&[&good[..], b"x"].concat()), None);
    }

    #[test]
    fn anything_off_is_refused() {
        let name = |length: usize| Some(vec![b'n'; length]);
        let named = |name: Option<Vec<u8>>| entry(b'e', b'v', -1, None, name.as_deref());
        assert!(parse(&bytes(1, 0, &[named(name(NAME_MAX))])).is_some());
        let mut port = plain(b'e', -1);
        port[32..36].copy_from_slice(&65_536_i32.to_be_bytes());
        let mut length = plain(b'e', -1);
        length[36..38].copy_from_slice(&(-2_i16).to_be_bytes());
        for wrong in [
            named(name(NAME_MAX + 1)),
            plain(b'x', -1),
            plain(b'e', -3),
            plain(b'w', -2),
            plain(b'e', 1024),
            plain(b'e', -4),
            entry(b'e', b'y', -1, None, None),
            entry(b'e', b'v', -1, Some(&[1; 5]), None),
            entry(b'e', b'v', -1, Some(&[]), None),
            port,
            length,
        ] {
            assert_eq!(parse(&bytes(1, 0, std::slice::from_ref(&wrong))), None, "{wrong:?}");
        }
        for (holders, waiters) in [(-1, 0), (0, -1), (2, 0), (0, 0), (i32::MIN, i32::MAX)] {
            assert_eq!(parse(&bytes(holders, waiters, &[plain(b'e', -1)])), None);
        }
        assert_eq!(parse(&bytes(33, 0, &vec![plain(b'e', -1); 33])), None, "one too many");
        let waiter_first = [plain(b'w', -1), plain(b'e', -1)];
        assert_eq!(parse(&bytes(1, 1, &waiter_first)), None);
    }

    #[test]
    fn the_row_has_one_column_that_is_not_null() {
        let good = bytes(0, 0, &[]);
        assert!(read(&[Some(&good)]).is_ok());
        for values in [&[][..], &[None], &[Some(&good[..]), Some(&good[..])], &[Some(b"")]] {
            assert!(matches!(read(values), Err(Violation::Malformed { .. })), "{values:?}");
        }
    }

    #[test]
    fn the_statement_keeps_to_the_limits() {
        let query = Statement::Holders(KeyParameters::Bigint(1)).definition().query;
        assert!(query.contains(&format!("n <= {LISTED_MAX})")));
        assert!(query.contains(&format!("substr(textsend(application_name), 1, {NAME_MAX})")));
        assert!(query.contains(&format!("key & -{SLOTS_MAX} = $4")));
        // Its other fields have less than 64 bytes.
        assert!(query.len() + 64 <= LONG_PARSE_MAX, "{} bytes", query.len());
    }

    /// The longest that a server can have to say fits the longest row that is taken.
    #[test]
    fn the_longest_answer_fits_a_row() {
        let longest = entry(b'e', b'v', -1, Some(&[1; 16]), Some(&[b'n'; NAME_MAX]));
        let longest = bytes(32, 0, &vec![longest; LISTED_MAX]);
        assert_eq!(longest.len(), LISTING_MAX);
        assert_eq!(read(&[Some(&longest)]).expect("it fits").entries.len(), LISTED_MAX);
    }
}
