//! The core with a scripted server and a clock in its hand: no socket, no thread.

use super::connecting::{BACKOFF_MAX, BACKOFF_MIN, BACKOFF_REFUSED};
use super::*;
use crate::error::Unsuitability;
use crate::guard::ledger::Terms;
use crate::proto::authentication::Methods;
use crate::proto::handshake::Startup;
use crate::proto::listing::Listing;
use crate::proto::rehearsal::{self, message};

mod connecting;

#[derive(Default)]
struct Outcomes {
    granted: Vec<(Ticket, HoldId)>,
    refused: Vec<Ticket>,
    failed: Vec<(Ticket, Error)>,
    released: Vec<HoldId>,
    lost: Vec<Cause>,
    believed: Vec<Time>,
    listed: Vec<(Ticket, Listing)>,
}

impl Sink for Outcomes {
    fn granted(&mut self, ticket: Ticket, hold: HoldId, _: Terms) -> bool {
        self.granted.push((ticket, hold));
        true
    }
    fn refused(&mut self, ticket: Ticket) {
        self.refused.push(ticket);
    }
    fn failed(&mut self, ticket: Ticket, error: Error) {
        self.failed.push((ticket, error));
    }
    fn forgotten(&mut self, _: Ticket) {}
    fn done(&mut self, _: Ticket) {}
    fn released(&mut self, hold: HoldId) {
        self.released.push(hold);
    }
    fn believed(&mut self, until: Time) {
        self.believed.push(until);
    }
    fn listed(&mut self, ticket: Ticket, listing: Box<Listing>) {
        self.listed.push((ticket, *listing));
    }
    fn lost(&mut self, _: HoldId, cause: Cause) {
        self.lost.push(cause);
    }
}

const CONFIG: CoreConfig = CoreConfig {
    limits: LedgerLimits { locks: 100, requests: 100, waiters: 100 },
    session: SessionLimits::DEFAULT,
    times: LeaseTimes {
        heartbeat: Duration::from_secs(2),
        idle_heartbeat: Duration::from_secs(4),
        reply_timeout: Duration::from_secs(3),
        lease: Duration::from_secs(6),
    },
    connect_timeout: Duration::from_secs(10),
};

fn at(milliseconds: u64) -> Time {
    Time::ZERO.after(Duration::from_secs(1000) + Duration::from_millis(milliseconds))
}

fn ticket(slot: u32) -> Ticket {
    Ticket { slot, generation: 1 }
}

/// What PostgreSQL 15 sends to a session with trust authentication, up to the ready session.
fn greeting() -> Vec<u8> {
    [rehearsal::greeting(), rehearsal::preparation()].concat().concat()
}

fn reply(value: u8) -> Vec<u8> {
    [message(b'2', b""), message(b'D', &[0, 1, 0, 0, 0, 1, value]), message(b'C', b"SELECT 1\0")]
        .concat()
}

fn parsed() -> Vec<u8> {
    message(b'1', b"")
}

fn synced() -> Vec<u8> {
    message(b'Z', b"I")
}

fn startup() -> Startup {
    rehearsal::startup(Methods { none: true, password: false, md5: false, scram_sha_256: false })
}

/// Nothing else is left to try.
const LAST: Attempt = Attempt { others: false, give_up_at: Time::NEVER, silent_until: Time::NEVER };

struct World {
    core: Core,
    outcomes: Outcomes,
}

impl World {
    fn new() -> Self {
        Self { core: Core::new(CONFIG, 1), outcomes: Outcomes::default() }
    }

    /// A session that is ready; connecting began at 0.
    fn ready() -> Self {
        let mut world = Self::new();
        world.dial(at(0));
        assert!(matches!(world.input(at(5), &greeting()), Some(Change::Ready(_))));
        world.sent(at(5));
        world
    }

    fn dial(&mut self, now: Time) {
        assert!(self.core.wants_connection(now));
        self.core.begin_connecting(now);
        self.start(now, startup(), LAST);
    }

    /// A connection stands.
    fn start(&mut self, now: Time, startup: Startup, attempt: Attempt) {
        let change = self.core.connected(now, startup, attempt, &mut self.outcomes);
        assert!(change.is_none(), "{change:?}");
    }

    /// An attempt that has begun at 0, and of which this is left.
    fn attempting(startup: Startup, attempt: Attempt) -> Self {
        let mut world = Self::new();
        world.core.begin_connecting(at(0));
        world.start(at(0), startup, attempt);
        world
    }

    fn hang_up(&mut self, now: Time) -> Change {
        let (address, reason) = ("here".into(), "it hung up".into());
        let error = Error::Connect { address, reason, source: None };
        self.core.fail(now, Cause::ConnectionLost, error, &mut self.outcomes)
    }

    fn input(&mut self, now: Time, bytes: &[u8]) -> Option<Change> {
        let session = self.core.session().expect("a session");
        session.space()[..bytes.len()].copy_from_slice(bytes);
        session.filled(bytes.len());
        self.core.handle_input(now, &mut self.outcomes)
    }

    fn timeout(&mut self, now: Time) -> Option<Change> {
        self.core.handle_timeout(now, &mut self.outcomes)
    }

    fn ask(&mut self, slot: u32, mode: Mode) {
        let key = Key::Bigint(slot.into());
        self.core.request(ticket(slot), key, Wish::PLAIN, mode, &mut self.outcomes);
    }

    /// What goes out in a turn at `now`: the type bytes of the messages.
    fn sent(&mut self, now: Time) -> String {
        self.core.encode(now);
        let session = self.core.session().expect("a session");
        let (mut tags, mut rest) = (String::new(), session.output());
        while let [tag, a, b, c, d, ..] = *rest {
            // The StartupMessage has no type byte; it begins with its length.
            if tag == 0 {
                break;
            }
            tags.push(char::from(tag));
            rest = &rest[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
        }
        let length = session.output().len();
        session.sent(length);
        tags
    }
}

#[test]
fn a_quiet_session_sends_one_heartbeat_a_period_and_no_second_before_the_answer() {
    let mut world = World::ready();
    let due = world.core.next_timeout();
    assert_eq!(due, at(2_000), "counted from the beginning of the connection");
    assert_eq!(world.sent(at(1_999)), "");
    assert_eq!(world.sent(due), "S");
    assert_eq!(world.sent(at(2_500)), "", "one outstanding at a time");
    assert_eq!(world.core.next_timeout(), at(5_000), "now the reply deadline");
    world.input(at(2_600), &synced());
    assert_eq!(world.core.next_timeout(), at(6_000), "nothing held: the longer period");
    assert_eq!(world.sent(at(5_999)), "");
    assert_eq!(world.sent(at(6_000)), "S");
}

#[test]
fn a_held_lock_and_a_waiter_keep_the_short_period() {
    for mode in [Mode::Try, Mode::Wait] {
        let mut world = World::ready();
        world.ask(0, mode);
        assert_eq!(world.sent(at(10)), "BES");
        world.input(at(11), &[reply(u8::from(mode == Mode::Try)), synced()].concat());
        if mode == Mode::Try {
            assert_eq!(world.sent(at(2_010)), "S");
            world.input(at(2_011), &synced());
            assert_eq!(world.core.next_timeout(), at(4_010));
        } else {
            // It asks again long before a heartbeat would be due.
            assert!(world.core.next_timeout() <= at(2_010));
        }
    }
}

#[test]
fn the_lease_runs_from_the_send_of_what_was_answered() {
    let mut world = World::ready();
    assert_eq!(world.core.lease_until(), at(6_000));
    assert_eq!(world.sent(at(2_000)), "S");
    assert_eq!(world.core.lease_until(), at(6_000), "a send alone proves nothing");
    world.input(at(4_900), &synced());
    assert_eq!(world.core.lease_until(), at(8_000));
}

#[test]
fn requests_of_one_turn_share_a_sync() {
    let mut world = World::ready();
    for slot in 0..3 {
        world.ask(slot, Mode::Try);
    }
    assert_eq!(world.sent(at(10)), "BEBEBES");
    world.input(at(11), &[reply(1), reply(0), reply(1), synced()].concat());
    assert_eq!(world.outcomes.granted.len(), 2);
    assert_eq!(world.outcomes.refused, [ticket(1)]);
    assert_eq!(world.core.lease_until(), at(6_010));
}

#[test]
fn two_unanswered_batches_are_enough_and_what_is_asked_meanwhile_goes_out_together() {
    let mut world = World::ready();
    for (slot, sent) in [(0, "BES"), (1, "BES"), (2, ""), (3, "")] {
        world.ask(slot, Mode::Try);
        assert_eq!(world.sent(at(10)), sent, "the request in slot {slot}");
    }
    world.input(at(11), &[reply(1), synced()].concat());
    assert_eq!(world.sent(at(11)), "BEBES");
}

/// Nobody asked for an answer, and yet somebody has to read it.
#[test]
fn the_answer_that_lets_what_was_held_back_go_out_is_awaited() {
    let mut world = World::ready();
    (0..3).for_each(|slot| world.ask(slot, Mode::Try));
    world.sent(at(10));
    world.input(at(11), &[reply(1), reply(1), reply(1), synced()].concat());
    let holds: Vec<HoldId> = world.outcomes.granted.iter().map(|(_, hold)| *hold).collect();
    let sent = holds.into_iter().map(|hold| {
        world.core.release(hold, &mut world.outcomes);
        (world.sent(at(12)), world.core.is_awaited())
    });
    let sent: Vec<(String, bool)> = sent.collect();
    let sent: Vec<(&str, bool)> = sent.iter().map(|(sent, awaited)| (&**sent, *awaited)).collect();
    assert_eq!(sent, [("PBES", false), ("BES", false), ("", true)]);
    world.input(at(13), &[parsed(), reply(b'q'), synced()].concat());
    assert_eq!((world.sent(at(13)).as_str(), world.core.is_awaited()), ("BES", false));
}

#[test]
fn what_an_error_skipped_is_sent_again() {
    let mut world = World::ready();
    for slot in 0..3 {
        world.ask(slot, Mode::Try);
    }
    world.sent(at(10));
    let error = message(b'E', b"SERROR\0VERROR\0C53200\0Mout of shared memory\0\0");
    world.input(at(11), &[reply(1), error, synced()].concat());
    assert_eq!(world.outcomes.granted.len(), 1, "the answer before the error stands");
    assert!(world.outcomes.failed.is_empty(), "unlocked first, then told (I2)");
    assert_eq!(world.sent(at(12)), "BESPBES", "what is skipped, and what clears the failed one");
    world.input(at(13), &[reply(1), synced(), parsed(), reply(b'q'), synced()].concat());
    assert_eq!(world.outcomes.granted[1].0, ticket(2));
    assert!(world.outcomes.failed[0].1.is_lock_table_full());
}

#[test]
fn a_silent_server_is_given_up_at_the_reply_deadline_whatever_else_it_sends() {
    let mut world = World::ready();
    world.ask(0, Mode::Try);
    world.sent(at(10));
    world.input(at(11), &[reply(1), synced()].concat());
    world.ask(1, Mode::Try);
    world.sent(at(20));
    let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mstill here\0\0");
    world.input(at(3_000), &notice);
    assert!(world.timeout(at(3_019)).is_none());
    assert!(matches!(world.timeout(at(3_020)), Some(Change::Ended(_))));
    assert_eq!(world.outcomes.lost, [Cause::ReplyOverdue]);
    assert_eq!(world.outcomes.failed[0].1.outcome(), crate::error::Outcome::Unknown);
    assert_eq!(world.core.lease_until(), Time::ZERO);
}

#[test]
fn a_handshake_that_drags_on_ends_at_the_connect_deadline() {
    let mut world = World::new();
    world.dial(at(0));
    let greeting = greeting();
    for (step, byte) in greeting.iter().take(99).enumerate() {
        let now = at(100 * step as u64);
        assert!(world.input(now, &[*byte]).is_none());
        assert!(world.timeout(now).is_none(), "progress neither shortens nor prolongs it");
    }
    assert!(matches!(world.timeout(at(10_000)), Some(Change::Ended(_))));
}

#[test]
fn a_loss_ends_holds_and_requests_and_a_new_session_revives_nothing() {
    let mut world = World::ready();
    world.ask(0, Mode::Try);
    world.sent(at(10));
    world.input(at(11), &[reply(1), synced()].concat());
    let hold = world.outcomes.granted[0].1;
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    assert!(matches!(world.input(at(20), &fatal), Some(Change::Ended(_))));
    assert_eq!(world.outcomes.lost, [Cause::ServerShutdown]);
    let retry = world.core.next_timeout();
    world.dial(retry);
    world.input(retry, &greeting());
    world.sent(retry);
    world.core.release(hold, &mut world.outcomes);
    assert!(world.outcomes.released.is_empty(), "I8");
    assert_eq!(world.sent(retry), "", "nothing is acquired again on its own");
}

#[test]
fn without_a_session_a_try_fails_at_once_and_a_wait_waits_for_the_next() {
    let mut world = World::new();
    world.ask(0, Mode::Try);
    assert!(world.outcomes.failed[0].1.is_unavailable());
    world.ask(1, Mode::Wait);
    world.dial(at(0));
    world.sent(at(0));
    world.input(at(5), &greeting());
    assert_eq!(world.sent(at(5)), "PBESPBESPBEPPPPSBESBES", "the start, then the request");
    world.input(at(6), &[reply(1), synced()].concat());
    assert_eq!(world.outcomes.granted[0].0, ticket(1));
}

#[test]
fn reconnecting_backs_off_with_jitter_and_never_spins() {
    let mut world = World::new();
    let mut now = at(0);
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        assert!(world.core.wants_connection(now));
        world.core.begin_connecting(now);
        let error = Error::Unsuitable { kind: Unsuitability::Standby, reason: "a test".into() };
        let refused = matches!(now.as_nanos() % 2, 0);
        let error = if refused { error } else { Error::Protocol("a test".into()) };
        world.core.fail(now, Cause::ConnectionLost, error, &mut world.outcomes);
        let pause = world.core.next_timeout().since(now);
        let least = if refused { BACKOFF_REFUSED / 2 } else { BACKOFF_MIN };
        assert!(pause >= least && pause <= BACKOFF_MAX, "{pause:?}");
        longest = longest.max(pause);
        now = world.core.next_timeout();
    }
    assert!(longest > Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_lock_that_is_granted_after_a_long_start_is_believed_before_its_ready_for_query_is_in() {
    let mut world = World::new();
    world.dial(at(0));
    world.sent(at(0));
    world.ask(0, Mode::Wait);
    // Longer than the lease, and within the connect timeout.
    assert!(matches!(world.input(at(9_000), &greeting()), Some(Change::Ready(_))));
    assert_eq!(world.core.lease_until(), at(6_000));
    assert!(world.sent(at(9_000)).ends_with("BES"));
    world.input(at(9_001), &reply(1));
    assert_eq!(world.outcomes.granted.len(), 1);
    assert_eq!(world.outcomes.believed, [at(15_000)], "from the send, and told with the grant");
    assert_eq!(world.core.lease_until(), at(15_000));
}

#[test]
fn a_server_that_ends_each_session_at_once_is_asked_less_and_less_often() {
    let mut world = World::new();
    let mut now = at(0);
    for _ in 0..100 {
        world.dial(now);
        assert!(matches!(world.input(now, &greeting()), Some(Change::Ready(_))));
        let error = Error::Protocol("gone".into());
        world.core.fail(now, Cause::ConnectionLost, error, &mut world.outcomes);
        now = world.core.next_timeout();
    }
    assert!(now.since(at(0)) > Duration::from_secs(20), "{:?}", now.since(at(0)));
}

#[test]
fn a_denied_unlock_ends_the_session() {
    let mut world = World::ready();
    world.ask(0, Mode::Try);
    world.sent(at(10));
    world.input(at(11), &[reply(1), synced()].concat());
    world.ask(1, Mode::Try);
    world.sent(at(12));
    world.input(at(13), &[reply(1), synced()].concat());
    let (hold, _other) = (world.outcomes.granted[0].1, world.outcomes.granted[1].1);
    world.core.release(hold, &mut world.outcomes);
    assert_eq!(world.outcomes.released, [hold]);
    world.sent(at(14));
    let change = world.input(at(15), &[parsed(), reply(b'n'), synced()].concat());
    assert!(matches!(change, Some(Change::Ended(_))), "somebody else unlocks on this session");
    assert_eq!(world.outcomes.lost, [Cause::ProtocolViolation], "all other holds are lost");
}

#[test]
fn closing_ends_everything_and_says_goodbye() {
    let mut world = World::ready();
    world.ask(0, Mode::Wait);
    world.core.close(&mut world.outcomes);
    assert!(world.outcomes.failed[0].1.is_closed());
    assert_eq!(world.sent(at(20)), "X");
    world.core.closed();
    world.ask(1, Mode::Wait);
    assert!(world.outcomes.failed[1].1.is_closed());
    assert_eq!(world.core.next_timeout(), Time::NEVER);
}
