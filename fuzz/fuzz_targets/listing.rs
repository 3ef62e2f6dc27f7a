//! Who holds a key, as its one row tells it, against a second, simple reader of the same bytes:
//! both take and refuse the same, and read the same. What a server writes is read as it was meant.
//!
//! Input: a byte for the mode and two that choose a cut. Then, by the mode's lowest bit, the column
//! itself, or what a listing is made of and what is done to its bytes.
#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use distlock::proto::backend::{BackendMessage, DATA_ROW_MAX, Status, decode};
use distlock::proto::fault::Violation;
use distlock::proto::listing::{Entry, LISTED_MAX, LISTING_MAX, Listing, Place, Role};
use distlock::proto::rehearsal;
use distlock_fuzz::listing::{ENTRIES_MAX, NAME_MAX, read, write};
use distlock_fuzz::{Input, check_text};
use libfuzzer_sys::fuzz_target;

/// A server's clock that leaves room for any time.
const NOW: i64 = 0;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (mode, cut) = (input.u8(), usize::from(input.u16()));
    if mode & 1 == 0 {
        return compare(input.rest(), mode >> 1, cut);
    }
    let meant = listing(&mut input);
    let mut column = write(&meant, NOW);
    assert!(column.len() <= LISTING_MAX, "more than was reckoned with");
    assert_eq!(ours(&[Some(&column)]), Ok(meant), "not what was meant");
    damage(&mut input, &mut column);
    compare(&column, mode >> 1, cut);
});

fn compare(column: &[u8], columns: u8, cut: usize) {
    // The length counts itself, the number of columns, and the column's length.
    if column.len() + 10 > DATA_ROW_MAX as usize {
        assert_eq!(read(column), None, "a listing that does not fit into its row");
        return;
    }
    let taken = ours(&[Some(column)]);
    assert_eq!(taken.as_ref().ok(), read(column).as_ref());
    match taken {
        Ok(listing) => check(&listing, column, cut),
        Err(violation) => {
            assert!(matches!(violation, Violation::Malformed { .. }), "{violation:?}");
            check_text(&violation);
        }
    }
    // Nor is anything else than this one column.
    match columns % 4 {
        0 => assert!(ours(&[]).is_err()),
        1 => assert!(ours(&[None]).is_err()),
        2 => assert!(ours(&[None, Some(column)]).is_err()),
        _ if column.len() + 14 > DATA_ROW_MAX as usize => {}
        _ => assert!(ours(&[Some(column), None]).is_err()),
    }
}

/// What the library reads in a row.
fn ours(columns: &[Option<&[u8]>]) -> Result<Listing, Violation> {
    match decode(&rehearsal::row(columns)) {
        Ok(Status::Complete { message: BackendMessage::DataRow(row), .. }) => Listing::read(&row),
        other => panic!("no row: {other:?}"),
    }
}

fn check(listing: &Listing, column: &[u8], cut: usize) {
    assert_eq!(LISTED_MAX, ENTRIES_MAX);
    let all = u64::from(listing.holders) + u64::from(listing.waiters);
    assert_eq!(listing.entries.len() as u64, all.min(ENTRIES_MAX as u64));
    let is_holder = |entry: &Entry| matches!(entry.role, Role::Holds { .. });
    assert!(listing.entries.is_sorted_by_key(|entry| !is_holder(entry)), "a waiter comes first");
    for entry in &listing.entries {
        assert!(!(entry.is_own && entry.is_restricted));
        assert!(is_holder(entry) <= (entry.place != Place::AnySlot));
        let name = entry.application_name.as_deref().unwrap_or_default();
        // Three bytes stand for what is not UTF-8.
        assert!(name.len() <= 3 * NAME_MAX);
    }
    assert!(ours(&[Some(&column[..cut % column.len()])]).is_err(), "it did without a byte");
    // What is told is all there is to it, but for names that were not UTF-8 and grew by that.
    let is_short =
        |entry: &Entry| entry.application_name.as_ref().is_none_or(|name| name.len() <= NAME_MAX);
    if listing.entries.iter().all(is_short) {
        assert_eq!(ours(&[Some(&write(listing, NOW))]).as_ref(), Ok(listing));
    }
}

/// What a server could have to say.
fn listing(input: &mut Input<'_>) -> Listing {
    let (mut holders, mut waiters) = (u32::from(input.u8() % 40), u32::from(input.u8() % 40));
    if holders + waiters >= ENTRIES_MAX as u32 {
        // Beyond those that are listed there may be any number.
        holders += u32::from(input.u16()) * u32::from(holders >= ENTRIES_MAX as u32);
        waiters += u32::from(input.u16());
    }
    let count = ENTRIES_MAX.min((holders + waiters) as usize);
    let entries = (0_u32..).take(count).map(|number| entry(input, number < holders)).collect();
    Listing { holders, waiters, entries }
}

fn entry(input: &mut Input<'_>, is_holder: bool) -> Entry {
    let (how, sight) = (input.u8(), input.u8() % 3);
    let shared = how & 1 != 0;
    let slot = match how >> 3 & 3 {
        0 => Place::Slot(input.u16() % 1024),
        _ => Place::Key,
    };
    let (role, place) = match (is_holder, how >> 1 & 3) {
        (true, _) => (Role::Holds { shared }, slot),
        (false, 0) => (Role::Blocked { shared }, slot),
        (false, 1) => (Role::Registered, Place::AnySlot),
        (false, _) => (Role::Registered, Place::Key),
    };
    let [has_port, has_name] = [how & 0x40 != 0, how & 0x80 != 0];
    let mut age = || match input.u8() {
        0 => None,
        short @ 1..0x80 => Some(Duration::from_micros(short.into())),
        long => Some(Duration::from_micros((i64::MAX as u64) >> (long & 0x3f))),
    };
    let (session, transaction, statement) = (age(), age(), age());
    let name = input.text();
    let end = (0..=name.len().min(NAME_MAX)).rev().find(|end| name.is_char_boundary(*end));
    Entry {
        process_id: Some(input.i32()).filter(|process_id| *process_id != 0),
        role,
        place,
        is_own: sight == 1,
        is_restricted: sight == 2,
        session,
        transaction,
        statement,
        address: match input.u8() % 3 {
            0 => None,
            1 => Some(Ipv4Addr::from_bits(input.i32() as u32).into()),
            _ => Some(Ipv6Addr::from_bits((input.i32() as u128) << (input.u8() % 100)).into()),
        },
        port: has_port.then(|| input.u16()),
        application_name: has_name.then(|| name[..end.unwrap_or(0)].into()),
    }
}

/// Makes it something else, or leaves it.
fn damage(input: &mut Input<'_>, column: &mut Vec<u8>) {
    let (how, place) = (input.u8(), usize::from(input.u16()) % column.len());
    match how % 5 {
        0 => {}
        1 => column[place] = input.u8(),
        2 => column.truncate(place),
        3 => column.extend(input.rest()),
        _ => column.splice(place..place, input.counted().iter().copied()).for_each(drop),
    }
}
