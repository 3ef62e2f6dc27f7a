//! A second reader of who holds a key, and a writer as a server is: slow and simple, from section
//! 4.13 of `proto_notes.md`, without a line of the library's. Only its types are used.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use distlock::proto::listing::{Entry, Listing, Place, Role};

/// The most entries.
pub const ENTRIES_MAX: usize = 32;

/// The most bytes of a name.
pub const NAME_MAX: usize = 63;

/// Reads the one column; none for what is not exactly as it has to be.
pub fn read(column: &[u8]) -> Option<Listing> {
    let mut rest = Rest(column.iter().copied().collect());
    let (holders, waiters) = (rest.number(4)?, rest.number(4)?);
    if holders < 0 || waiters < 0 {
        return None;
    }
    let now = rest.number(8)?;
    let mut entries = Vec::new();
    while (entries.len() as i128) < holders + waiters && entries.len() < ENTRIES_MAX {
        let entry = rest.entry(now)?;
        let is_holder = (entries.len() as i128) < holders;
        if is_holder != matches!(entry.role, Role::Holds { .. }) {
            return None;
        }
        entries.push(entry);
    }
    let listing = Listing { holders: holders as u32, waiters: waiters as u32, entries };
    rest.0.is_empty().then_some(listing)
}

struct Rest(VecDeque<u8>);

impl Rest {
    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        (count <= self.0.len()).then(|| self.0.drain(..count).collect())
    }

    /// A number of so many bytes, with its sign.
    fn number(&mut self, count: usize) -> Option<i128> {
        let bytes = self.bytes(count)?;
        let number = bytes.iter().fold(0, |number, byte| number * 256 + i128::from(*byte));
        let is_negative = bytes[0] >= 0x80;
        Some(if is_negative { number - (1 << (8 * count)) } else { number })
    }

    /// A length and so many bytes; the length -1 stands for none.
    fn text(&mut self) -> Option<Option<Vec<u8>>> {
        match self.number(2)? {
            -1 => Some(None),
            length => Some(Some(self.bytes(usize::try_from(length).ok()?)?)),
        }
    }

    fn age(&mut self, now: i128) -> Option<Option<Duration>> {
        let since = self.number(8)?;
        // Longer than there were years, it need not be exact.
        let age = (now - since).clamp(0, i128::from(i64::MAX)) as u64;
        Some((since != i128::from(i64::MIN)).then_some(Duration::from_micros(age)))
    }

    fn entry(&mut self, now: i128) -> Option<Entry> {
        let process_id = self.number(4)? as i32;
        let letters = self.bytes(2)?;
        let (role, place) = match (letters[0], self.number(2)?) {
            (b's', -3) => (Role::Registered, Place::Key),
            (b's', -2) => (Role::Registered, Place::AnySlot),
            (letter, slot) => {
                let role = match letter {
                    b'e' => Role::Holds { shared: false },
                    b's' => Role::Holds { shared: true },
                    b'w' => Role::Blocked { shared: false },
                    b'v' => Role::Blocked { shared: true },
                    _ => return None,
                };
                let place = match slot {
                    -1 => Place::Key,
                    0..1024 => Place::Slot(slot as u16),
                    _ => return None,
                };
                (role, place)
            }
        };
        if !b"ovx".contains(&letters[1]) {
            return None;
        }
        let (session, transaction) = (self.age(now)?, self.age(now)?);
        let statement = self.age(now)?;
        let port = match self.number(4)? {
            -2 | -1 => None,
            port @ 0..0x1_0000 => Some(port as u16),
            _ => return None,
        };
        let address = match self.text()? {
            None => None,
            Some(bytes) => Some(address(&bytes)?),
        };
        let name = self.text()?;
        if name.as_ref().is_some_and(|name| name.len() > NAME_MAX) {
            return None;
        }
        Some(Entry {
            process_id: (process_id != 0).then_some(process_id),
            role,
            place,
            is_own: letters[1] == b'o',
            is_restricted: letters[1] == b'x',
            session,
            transaction,
            statement,
            address,
            port,
            application_name: name.map(|name| String::from_utf8_lossy(&name).into()),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        16 => {
            let number = bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
            Some(Ipv6Addr::from_bits(number).into())
        }
        _ => None,
    }
}

/// The column that says this, at a time of the server's clock.
///
/// # Panics
///
/// When a time is longer ago than the clock can say, or a name is too long.
pub fn write(listing: &Listing, now: i64) -> Vec<u8> {
    let mut column = listing.holders.to_be_bytes().to_vec();
    column.extend(listing.waiters.to_be_bytes());
    column.extend(now.to_be_bytes());
    listing.entries.iter().for_each(|entry| write_entry(&mut column, entry, now));
    column
}

fn write_entry(column: &mut Vec<u8>, entry: &Entry, now: i64) {
    column.extend(entry.process_id.unwrap_or(0).to_be_bytes());
    column.push(match entry.role {
        Role::Holds { shared: false } => b'e',
        Role::Holds { shared: true } | Role::Registered => b's',
        Role::Blocked { shared: false } => b'w',
        Role::Blocked { shared: true } => b'v',
    });
    column.push(match (entry.is_own, entry.is_restricted) {
        (true, _) => b'o',
        (_, true) => b'x',
        _ => b'v',
    });
    let place = match (entry.place, entry.role) {
        (Place::Slot(slot), _) => i16::try_from(slot).expect("a slot"),
        (Place::AnySlot, _) => -2,
        (Place::Key, Role::Registered) => -3,
        (Place::Key, _) => -1,
    };
    column.extend(place.to_be_bytes());
    for age in [entry.session, entry.transaction, entry.statement] {
        let since = age.map_or(i64::MIN, |age| {
            let age = i64::try_from(age.as_micros()).expect("a time");
            now.checked_sub(age).expect("since the clock began")
        });
        column.extend(since.to_be_bytes());
    }
    let port = match (entry.port, entry.address) {
        (Some(port), _) => i32::from(port),
        (None, Some(_)) => -2,
        (None, None) => -1,
    };
    column.extend(port.to_be_bytes());
    match entry.address {
        None => column.extend((-1_i16).to_be_bytes()),
        Some(IpAddr::V4(four)) => column.extend([&[0, 4][..], &four.octets()].concat()),
        Some(IpAddr::V6(six)) => column.extend([&[0, 16][..], &six.octets()].concat()),
    }
    match &entry.application_name {
        None => column.extend((-1_i16).to_be_bytes()),
        Some(name) => {
            column.extend(i16::try_from(name.len()).expect("a short name").to_be_bytes());
            column.extend(name.bytes());
        }
    }
}

/// One of the answers of a server: to nobody, to few, to more than are listed.
pub fn sample(choice: u8) -> Vec<u8> {
    let (holders, waiters) = match choice % 4 {
        0 => (0, 0),
        1 => (1, 0),
        2 => (1, 2),
        _ => (20 + u32::from(choice), 3),
    };
    let count = ENTRIES_MAX.min((holders + waiters) as usize);
    let entries = (0_u16..).take(count).map(|number| {
        let is_holder = u32::from(number) < holders;
        let is_restricted = choice & 8 != 0;
        Entry {
            process_id: (choice & 0x10 == 0).then_some(4711),
            role: match (is_holder, choice & 0x20) {
                (true, _) => Role::Holds { shared: number > 0 },
                (false, 0) => Role::Registered,
                (false, _) => Role::Blocked { shared: number % 2 == 0 },
            },
            place: if is_holder && number > 0 { Place::Slot(number) } else { Place::Key },
            is_own: number == 1 && !is_restricted,
            is_restricted,
            session: (!is_restricted).then_some(Duration::from_secs(90)),
            transaction: None,
            statement: (!is_restricted).then_some(Duration::from_micros(number.into())),
            address: (!is_restricted).then(|| match choice & 0x40 {
                0 => Ipv4Addr::LOCALHOST.into(),
                _ => Ipv6Addr::LOCALHOST.into(),
            }),
            port: (!is_restricted).then_some(50_000 + number),
            application_name: (choice & 0x80 == 0).then(|| "an \u{fc}ber name".into()),
        }
    });
    write(&Listing { holders, waiters, entries: entries.collect() }, 800_000_000_000_000)
}
