//! The ways that an attempt to connect can take.

use super::*;
use crate::proto::handshake::{LockSession, Purpose};

/// One more address, and an older protocol version to ask for.
const FIRST: Attempt = Attempt { others: true, give_up_at: Time::NEVER, silent_until: Time::NEVER };

fn error_response(sqlstate: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0Mno\0\0").as_bytes())
}

fn asks_older() -> Attempt {
    Attempt { others: false, give_up_at: at(10_000), silent_until: at(5_000) }
}

#[test]
fn a_server_that_hangs_up_on_the_question_is_asked_for_the_older_protocol() {
    let mut world = World::attempting(startup(), asks_older());
    assert!(matches!(world.hang_up(at(1)), Change::OlderProtocol));
    assert!(world.core.is_connecting() && world.core.connect_deadline() == at(10_000));
    for sqlstate in ["08P01", "0A000", "XX000"] {
        let mut world = World::attempting(startup(), asks_older());
        let change = world.input(at(1), &error_response(sqlstate));
        assert!(matches!(change, Some(Change::OlderProtocol)), "{sqlstate}: {change:?}");
    }
}

#[test]
fn silence_is_an_answer_to_the_newer_protocol_after_half_of_the_time() {
    let mut world = World::attempting(startup(), asks_older());
    assert_eq!(world.core.next_timeout(), at(5_000));
    assert!(world.timeout(at(4_999)).is_none());
    assert!(matches!(world.timeout(at(5_000)), Some(Change::OlderProtocol)));
}

#[test]
fn a_server_that_has_answered_is_not_asked_again() {
    let mut world = World::attempting(startup(), asks_older());
    assert!(world.input(at(1), &rehearsal::greeting()[..4].concat()).is_none());
    assert_eq!(world.core.next_timeout(), at(10_000));
    assert!(matches!(world.hang_up(at(2)), Change::Ended(_)));
    for sqlstate in ["28P01", "53300", "57P03"] {
        let mut world = World::attempting(startup(), asks_older());
        let change = world.input(at(1), &error_response(sqlstate));
        assert!(matches!(change, Some(Change::Ended(_))), "{sqlstate}: {change:?}");
    }
    let mut world = World::attempting(startup(), LAST);
    assert!(matches!(world.hang_up(at(1)), Change::Ended(_)), "no older one to ask for");
}

#[test]
fn a_server_that_fails_before_its_key_is_asked_for_the_older_protocol() {
    // Through all that comes before BackendKeyData.
    for said in 1..=3 {
        let said = rehearsal::greeting()[..said].concat();
        for sqlstate in ["08P01", "0A000", "XX000"] {
            let mut world = World::attempting(startup(), asks_older());
            assert!(world.input(at(1), &said).is_none());
            assert_eq!(world.core.next_timeout(), at(10_000), "silence says nothing any more");
            let change = world.input(at(2), &error_response(sqlstate));
            assert!(matches!(change, Some(Change::OlderProtocol)), "{sqlstate}: {change:?}");
        }
        let mut world = World::attempting(startup(), asks_older());
        assert!(world.input(at(1), &said).is_none());
        assert!(matches!(world.hang_up(at(2)), Change::OlderProtocol));
        for sqlstate in ["28P01", "28000", "3D000", "42501", "53300", "57P01", "57P03"] {
            let mut world = World::attempting(startup(), asks_older());
            assert!(world.input(at(1), &said).is_none());
            let change = world.input(at(2), &error_response(sqlstate));
            assert!(matches!(change, Some(Change::Ended(_))), "{sqlstate}: {change:?}");
        }
    }
}

#[test]
fn the_older_protocol_is_asked_for_only_where_that_may_help() {
    let greeting = rehearsal::greeting();
    let negotiated = [message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), greeting[..3].concat()].concat();
    // With a key of 3.2, and with one that is no longer than those of 3.0.
    let long = message(b'K', &[&rehearsal::PID.to_be_bytes()[..], &[7; 32]].concat());
    let keyed = [greeting[..3].concat(), long].concat();
    for said in [negotiated, keyed, greeting[..4].concat()] {
        let mut world = World::attempting(startup(), asks_older());
        assert!(world.input(at(1), &said).is_none());
        let change = world.input(at(2), &error_response("XX000"));
        assert!(matches!(change, Some(Change::Ended(_))), "{change:?}");
    }
    // There is no older one to ask for: this was it, or the configuration has none older.
    let mut world = World::attempting(startup(), LAST);
    let change = world.input(at(1), &[greeting[0].clone(), error_response("XX000")].concat());
    assert!(matches!(change, Some(Change::Ended(_))), "{change:?}");
}

/// To a pooler that reports a wrong password as an error of its own, it would be sent twice.
#[test]
fn a_password_is_not_sent_again_in_the_older_protocol() {
    let methods = Methods { none: false, password: true, md5: true, scram_sha_256: true };
    let clear = message(b'R', &[0, 0, 0, 3]);
    let md5 = message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
    let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    for request in [clear, md5, sasl] {
        let with_password = || {
            let mut startup = rehearsal::startup(methods);
            startup.credentials.password = Some("secret".to_owned().into());
            startup
        };
        let mut world = World::attempting(with_password(), asks_older());
        assert!(world.input(at(1), &request).is_none());
        let change = world.input(at(2), &error_response("XX000"));
        assert!(matches!(change, Some(Change::Ended(_))), "{change:?}");
        let mut world = World::attempting(with_password(), asks_older());
        assert!(world.input(at(1), &request).is_none());
        assert!(matches!(world.hang_up(at(2)), Change::Ended(_)));
    }
    // It was right: what fails then fails for another reason.
    let mut startup = rehearsal::startup(methods);
    startup.credentials.password = Some("secret".to_owned().into());
    let mut world = World::attempting(startup, asks_older());
    let taken = [message(b'R', &[0, 0, 0, 3]), rehearsal::greeting()[..3].concat()].concat();
    assert!(world.input(at(1), &taken).is_none());
    let change = world.input(at(2), &error_response("XX000"));
    assert!(matches!(change, Some(Change::OlderProtocol)), "{change:?}");
}

#[test]
fn another_address_is_tried_for_what_another_server_may_do_better() {
    for sqlstate in ["57P03", "57P01"] {
        let mut world = World::attempting(startup(), FIRST);
        let change = world.input(at(1), &error_response(sqlstate));
        assert!(matches!(change, Some(Change::NextAddress(_))), "{sqlstate}: {change:?}");
        assert!(world.core.is_connecting());
    }
    let mut world = World::attempting(startup(), FIRST);
    assert!(matches!(world.hang_up(at(1)), Change::NextAddress(_)));
    let mut world = World::attempting(startup(), FIRST);
    let standby = [rehearsal::greeting().concat(), message(b'S', b"in_hot_standby\0on\0")];
    assert!(matches!(world.input(at(1), &standby.concat()), Some(Change::NextAddress(_))));
}

#[test]
fn who_we_are_is_refused_for_all_addresses_at_once() {
    for sqlstate in ["28P01", "28000", "3D000", "53300"] {
        let mut world = World::attempting(startup(), FIRST);
        let change = world.input(at(1), &error_response(sqlstate));
        assert!(matches!(change, Some(Change::Ended(_))), "{sqlstate}: {change:?}");
    }
    let mut world = World::attempting(startup(), FIRST);
    let request = message(b'R', &[0, 0, 0, 3]);
    assert!(matches!(world.input(at(1), &request), Some(Change::Ended(_))), "a password is asked");
}

#[test]
fn a_silent_server_leaves_time_for_the_others_and_the_deadline_ends_it_all() {
    let attempt = Attempt { give_up_at: at(3_000), ..FIRST };
    let mut world = World::attempting(startup(), attempt);
    assert_eq!(world.core.next_timeout(), at(3_000));
    let Some(Change::NextAddress(error)) = world.timeout(at(3_000)) else { panic!("no way out") };
    assert!(error.to_string().contains("its share of 10s"), "{error}");
    world.start(at(3_000), startup(), Attempt { give_up_at: Time::NEVER, ..FIRST });
    let Some(Change::Ended(error)) = world.timeout(at(10_000)) else { panic!("no end") };
    assert!(error.to_string().contains("within 10s"), "{error}");
}

#[test]
fn a_known_server_has_all_of_its_share_for_an_answer_and_no_more() {
    let known = Attempt { silent_until: at(10_000), give_up_at: at(3_000), others: true };
    let mut world = World::attempting(startup(), known);
    assert!(matches!(world.hang_up(at(1)), Change::OlderProtocol));
    let mut world = World::attempting(startup(), known);
    assert_eq!(world.core.next_timeout(), at(3_000));
    assert!(matches!(world.timeout(at(3_000)), Some(Change::NextAddress(_))));
    let mut world = World::attempting(startup(), Attempt { others: false, ..known });
    assert_eq!(world.core.next_timeout(), at(10_000));
    assert!(matches!(world.timeout(at(10_000)), Some(Change::Ended(_))));
}

#[test]
fn a_session_waits_for_its_witness() {
    let purpose = Purpose::Locks(LockSession { witness: true, ..rehearsal::lock_session() });
    let all = greeting();
    let (before, after) = all.split_at(examined());
    let mut world = World::attempting(Startup { purpose, ..startup() }, LAST);
    let asked = world.input(at(1), before);
    let Some(Change::Witness(question)) = asked else { panic!("{asked:?}") };
    assert_eq!(question, Question { process_id: rehearsal::PID, key: rehearsal::KEY });
    assert_eq!(world.core.next_timeout(), at(10_000), "not for ever");
    let change = world.core.witnessed(at(2), Ok(()), &mut world.outcomes);
    assert!(change.is_none(), "the settings are made first: {change:?}");
    assert!(matches!(world.input(at(3), after), Some(Change::Ready(_))));
}

/// What the server said last says more than that it has gone.
#[test]
fn a_server_that_ends_while_we_compute_or_hear_a_witness_is_heard_out() {
    let methods = Methods { none: false, password: false, md5: false, scram_sha_256: true };
    let deriving = || {
        let mut startup = rehearsal::startup(methods);
        startup.credentials.password = Some("secret".to_owned().into());
        let mut world = World::attempting(startup, LAST);
        world.input(at(1), &message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
        let ours = String::from_utf8_lossy(world.core.session().expect("a session").output());
        let nonce = ours.split_once("r=").expect("a nonce").1.to_owned();
        let challenge = format!("\0\0\0\x0br={nonce}theirs,s=c2FsdA==,i=100000");
        assert!(world.input(at(2), &message(b'R', challenge.as_bytes())).is_none());
        assert!(world.core.session().expect("a session").is_deriving());
        world
    };
    let witnessing = || {
        let purpose = Purpose::Locks(LockSession { witness: true, ..rehearsal::lock_session() });
        let mut world = World::attempting(Startup { purpose, ..startup() }, LAST);
        assert!(matches!(world.input(at(1), &greeting()[..examined()]), Some(Change::Witness(_))));
        world
    };
    for mut world in [deriving(), witnessing()] {
        let fatal = error_response("57P01");
        let session = world.core.session().expect("a session");
        session.space()[..fatal.len()].copy_from_slice(&fatal);
        session.filled(fatal.len());
        let change = world.core.handle_end(at(3), &mut world.outcomes);
        let Some(Change::Ended(error)) = change else { panic!("{change:?}") };
        assert_eq!(error.sqlstate().expect("it was said").as_str(), "57P01", "{error}");
    }
    for mut world in [deriving(), witnessing(), World::ready()] {
        let change = world.core.handle_end(at(3), &mut world.outcomes);
        assert!(change.is_none(), "nothing was left: {change:?}");
    }
    // What is no error still waits until we have computed, and is no fault of the server.
    let mut world = deriving();
    let over = message(b'R', &[0, 0, 0, 0]);
    assert!(world.input(at(3), &over).is_none());
    assert!(world.core.handle_end(at(3), &mut world.outcomes).is_none());
}

#[test]
fn a_witness_that_speaks_against_it_ends_the_session() {
    let purpose = Purpose::Locks(LockSession { witness: true, ..rehearsal::lock_session() });
    let mut world = World::attempting(Startup { purpose, ..startup() }, LAST);
    assert!(matches!(world.input(at(1), &greeting()[..examined()]), Some(Change::Witness(_))));
    let against = Error::Unsuitable { kind: Unsuitability::FakeLocks, reason: "a test".into() };
    let change = world.core.witnessed(at(2), Err(against), &mut world.outcomes);
    assert!(matches!(change, Some(Change::Ended(_))), "{change:?}");
}

#[test]
fn behind_a_proxy_the_marked_key_stays_locked() {
    let session = LockSession { session_affine: true, witness: true, ..rehearsal::lock_session() };
    let startup = Startup { purpose: Purpose::Locks(session), ..startup() };
    let mut world = World::attempting(startup, LAST);
    let all = greeting();
    let (before, after) = all.split_at(examined());
    assert!(matches!(world.input(at(1), before), Some(Change::Witness(_))));
    let change = world.core.witnessed(at(2), Ok(()), &mut world.outcomes);
    assert!(change.is_none(), "{change:?}");
    let after = &after[..after.len() - rehearsal::release().concat().len()];
    assert!(matches!(world.input(at(3), after), Some(Change::Ready(_))), "nothing is released");
}

/// How long [`greeting`] is up to where a witness has to be heard.
fn examined() -> usize {
    [rehearsal::greeting(), rehearsal::examination()].concat().concat().len()
}
