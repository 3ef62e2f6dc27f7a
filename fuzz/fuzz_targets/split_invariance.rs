//! The same bytes, whole and in pieces, give the same events, the same end and the same output.
//!
//! Input: a byte for the mode (its high bit: from a ready session on; else its low bits are the
//! mask of `startup`); for a ready session a count and a script of so many bytes (`src/script.rs`);
//! a count and so many lengths of pieces, used in turn; then what the server sends.
#![no_main]

use distlock::proto::session::{Session, SessionLimits};
use distlock_fuzz::script::{Step, session_asked, steps};
use distlock_fuzz::{Input, Trace, startup};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mode = input.u8();
    let count = if mode & 0x80 == 0 { 0 } else { usize::from(input.u8() % 64) };
    let script = input.bytes(count);
    let count = usize::from(input.u8() % 32);
    let pieces = input.bytes(count);
    let bytes = input.rest();

    let mut session = begin(mode, script);
    let mut whole = Trace::default();
    whole.feed(&mut session, bytes);
    let state = session.state();

    let mut session = begin(mode, script);
    let mut split = Trace::default();
    let mut rest = bytes;
    let mut lengths = pieces.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().map_or(1, |length| usize::from(*length) + 1);
        let (piece, later) = rest.split_at(length.min(rest.len()));
        split.feed(&mut session, piece);
        rest = later;
    }
    // Nothing to send and nothing to take is what the whole does with no bytes as well.
    split.feed(&mut session, b"");
    assert_eq!(whole, split);
    assert_eq!(state, session.state());
});

fn begin(mode: u8, script: &[u8]) -> Session {
    if mode & 0x80 == 0 {
        return Session::new(startup(mode), SessionLimits::DEFAULT).expect("a StartupMessage");
    }
    let mut steps = steps(script);
    // What was begun is ended, as the callers of a session do.
    if let Some(Step::Submit(_)) = steps.last() {
        steps.push(Step::Sync);
    }
    session_asked(&steps)
}
