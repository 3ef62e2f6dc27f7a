//! The classes of attacks that no server's bytes can show, or not alone: what the client writes,
//! shows, compares and draws. [`TESTS`] says which test is about which class.

use std::fs;
use std::path::Path;

use distlock::proto::authentication::Methods;
use distlock::proto::buffer::{Full, WriteBuf};
use distlock::proto::frontend::KeyParameters;
use distlock::proto::frontend::{self, ProtocolVersion};
use distlock::proto::handshake::STATEMENTS;
use distlock::proto::session::{Session, SessionLimits};
use distlock::proto::statement::Statement;
use distlock::proto::{probe, rehearsal, settings};
use distlock::{Config, Context, Error, Key, Manager};
use zeroize::Zeroizing;

use crate::good::{Kind, Processes, Server as Good};
use crate::judge::{self, PASSWORD};
use crate::player::{Frontend, Tamper, messages, split};
use crate::server::{Play, Record, Server};
use crate::{format, memory};

/// Class, file and test.
pub const TESTS: [(usize, &str, &str); 27] = [
    (8, HERE, "no_length_of_ours_is_ever_other_than_what_follows"),
    (8, HERE, "a_length_beyond_its_field_is_never_written"),
    (8, "src/proto/buffer.rs", "a_count_beyond_sixteen_bits_refuses_the_message"),
    (9, "src/proto/buffer.rs", "a_nul_byte_in_a_string_refuses_the_message"),
    (12, NEGOTIATION, "the_text_of_an_error_before_tls_is_not_shown"),
    (13, NEGOTIATION, "bytes_behind_the_yes_are_an_alarm"),
    (14, NEGOTIATION, "a_real_server_is_not_tried_in_clear_after_tls_has_failed"),
    (14, "tests/tls/work.rs", "the_end_of_the_session_is_noticed_and_a_new_one_is_secured_again"),
    (16, NEGOTIATION, "direct_negotiation_refuses_a_server_that_does_not"),
    (23, "src/proto/scram/tests.rs", "a_slice_runs_no_more_rounds_than_asked_for"),
    (27, BINDING, "a_demanded_binding_refuses_every_other_method_and_says_which"),
    (27, BINDING, "a_certificate_without_a_hash_is_refused_only_where_binding_is_demanded"),
    (27, BINDING, "one_in_between_who_takes_the_binding_off_the_list_is_found_out"),
    (29, HERE, "the_servers_signature_is_compared_in_constant_time_only"),
    (32, "tests/replay/anywhere.rs", ANYWHERE),
    (34, "tests/session/states.rs", STATES),
    (39, HERE, "nothing_that_could_cancel_a_statement_is_ever_sent"),
    (40, HERE, "what_is_shown_anywhere_has_no_password"),
    (40, "src/config/tests.rs", "debug_never_shows_the_password"),
    (41, "src/config/tests/files.rs", PASSFILE),
    (41, HERE, "nothing_is_sent_before_the_server_has_asked"),
    (42, "tests/session/ready.rs", "a_row_that_is_not_one_binary_boolean_is_never_a_grant"),
    (43, HERE, "no_text_of_the_user_is_in_a_statement"),
    (44, "tests/replay/anywhere.rs", PREFIXES),
    (46, HERE, "no_two_connections_have_the_same_nonce_or_mark"),
    (46, HERE, "randomness_is_drawn_in_one_place_alone"),
    (46, "src/guard/startup.rs", "randomness_that_cannot_be_had_is_an_error_and_no_zeros"),
];

const HERE: &str = "tests/replay/elsewhere.rs";
const STATES: &str = "every_known_message_is_taken_or_refused_in_every_state_as_the_table_says";
const NEGOTIATION: &str = "tests/tls/negotiation.rs";
const BINDING: &str = "tests/tls/binding.rs";
const PASSFILE: &str = "a_password_counts_for_its_server_alone_and_decides_on_its_methods";
const PREFIXES: &str = "the_state_machine_waits_after_every_prefix_of_a_good_conversation";
const ANYWHERE: &str = "asynchronous_messages_may_come_anywhere_behind_the_authentication";

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_test_that_stands_in_for_vectors_is_there() {
    for (class, path, name) in TESTS {
        let found = source(path).contains(&format!("fn {name}()"));
        assert!(found, "A{class}: no test {name} in {path}");
    }
}

/// What a good server hears in all connections of a manager that works for a while.
fn heard(config: &str, work: impl FnOnce(&Manager)) -> Vec<Record> {
    let text = format!("class A43\ntitle -\n{config}outcome connect ready\n");
    let vector = format::parse("elsewhere", &text).expect("a vector");
    let kind = Kind { witness: vector.has("witness"), ..Kind::default() };
    let processes = Processes::default();
    let play = Play {
        connections: Vec::new(),
        password: vector.setting("password").map(|_| PASSWORD.to_owned()),
        tamper: Tamper::Nothing,
        good: Box::new(move |_| Box::new(Good::new(kind, &processes))),
    };
    let server = Server::start(play, false).expect("a fake server");
    let config = judge::config(&vector, server.address()).expect("a configuration");
    let manager = Manager::connect(config).expect("a good server");
    work(&manager);
    drop(manager);
    server.stop()
}

fn lock_once(manager: &Manager) {
    let lock = manager.try_lock(&Context::background(), 7).expect("an answer").expect("it is free");
    lock.unlock().expect("it was held");
}

/// A deterministic source of sizes.
struct Sizes(u64);

impl Sizes {
    fn up_to(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % (most + 1)
    }
}

#[test]
fn no_length_of_ours_is_ever_other_than_what_follows() {
    let mut sizes = Sizes(1);
    for _ in 0..20_000 {
        let mut buf = WriteBuf::new(sizes.up_to(300));
        let text = "x".repeat(sizes.up_to(200));
        let parameters = vec![text.as_str(); sizes.up_to(4)];
        let types = vec![0; sizes.up_to(8)];
        let written = match sizes.up_to(4) {
            0 => frontend::parse(&mut buf, "", &text, &types),
            1 => frontend::bind_text(&mut buf, &parameters),
            2 => frontend::sasl_response(&mut buf, text.as_bytes()),
            3 => frontend::sasl_initial_response(&mut buf, "SCRAM-SHA-256", text.as_bytes()),
            _ => frontend::startup_message(&mut buf, ProtocolVersion::V3_2, &[("user", &text)]),
        };
        match (written, split(buf.pending())) {
            (Ok(()), Some((_, size))) => assert_eq!(size, buf.pending().len()),
            (Err(Full), None) => assert!(buf.pending().is_empty(), "half a message"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_length_beyond_its_field_is_never_written() {
    let longest = i32::MAX as usize;
    for length in [longest + 1, u32::MAX as usize, u32::MAX as usize + 5, usize::MAX - 3] {
        let mut buf = WriteBuf::new(64);
        let written = buf.message(Some(b'B'), |body| body.length(length));
        assert_eq!((written, buf.pending()), (Err(Full), &b""[..]), "{length}");
    }
    for count in [i16::MAX as usize + 1, u16::MAX as usize, u16::MAX as usize + 2] {
        let mut buf = WriteBuf::new(64);
        let written = buf.message(Some(b'P'), |body| body.count(count));
        assert_eq!((written, buf.pending()), (Err(Full), &b""[..]), "{count}");
    }
    let mut buf = WriteBuf::new(64);
    assert_eq!(buf.message(Some(b'B'), |body| body.length(longest)), Ok(()));
}

#[test]
fn the_servers_signature_is_compared_in_constant_time_only() {
    let source = source("src/proto/scram.rs");
    let code: Vec<&str> =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let compared: Vec<_> = code.iter().filter(|line| line.contains(".ct_eq(")).collect();
    assert_eq!(compared.len(), 1, "{compared:?}");
    assert!(compared[0].contains("server_signature"), "{compared:?}");
    let others = code.iter().filter(|line| {
        (line.contains("signature") || line.contains("salted")) && line.contains("==")
    });
    assert_eq!(others.count(), 0, "a secret is compared in another way");
}

#[test]
fn nothing_that_could_cancel_a_statement_is_ever_sent() {
    let _turn = memory::beside_others();
    let records = heard("", lock_once);
    for record in records {
        for Frontend { tag, body } in messages(&record.log) {
            assert!(b"\0PBESX".contains(&tag), "{}", char::from(tag));
            let cancel = 80_877_102_u32.to_be_bytes();
            assert!(tag != 0 || !body.starts_with(&cancel), "a CancelRequest");
        }
    }
    // Nor could it be: nothing in the library has its number.
    for file in ["src/proto/frontend.rs", "src/guard/turn.rs", "src/guard/stream.rs"] {
        assert!(!source(file).contains("80877102"), "{file}");
    }
}

#[test]
fn what_is_shown_anywhere_has_no_password() {
    let _turn = memory::beside_others();
    let config = Config::new().user("app").password(PASSWORD).host("127.0.0.1").port(1);
    let mut shown = vec![format!("{config:?} {config:#?}")];
    let refused = Manager::connect(config.clone()).expect_err("nothing listens there");
    shown.push(format!("{refused} {refused:?}"));
    let url = format!("postgres://app:{PASSWORD}@127.0.0.1:1/prod?nonsense=1");
    let refused: Error = url.parse::<Config>().expect_err("no such parameter");
    shown.push(format!("{refused} {refused:?}"));
    let pairs = format!("host=127.0.0.1 password='{PASSWORD}");
    let refused: Error = pairs.parse::<Config>().expect_err("a quote without an end");
    shown.push(format!("{refused} {refused:?}"));
    // Separated as other clients have it: all of it is the value of the first parameter.
    for first in ["host=db", "host=/run/x", "user=app", "dbname=prod", "sslrootcert=/etc/ca.pem"] {
        for separator in [';', ',', '&'] {
            let text = format!("{first}{separator}user=app{separator}password={PASSWORD}");
            let refused = text.parse::<Config>().expect_err(&text);
            shown.push(format!("{refused} {refused:?}"));
        }
    }
    let path = format!("/etc/ca-{PASSWORD}.pem");
    let with_file = Config::new().user("app").host("db").ssl_root_cert(path.as_str());
    let refused = Manager::connect(with_file);
    let refused = refused.expect_err("no such file, or no TLS in this build");
    shown.push(format!("{refused} {refused:?}"));
    let records = heard("config password\n", |manager| {
        let lock = manager.acquire(7).wait().expect("it is free");
        shown.push(format!("{manager:?} {lock:?} {:?} {config:?}", lock.context()));
    });
    let mut startup =
        rehearsal::startup(Methods { none: false, password: true, md5: true, scram_sha_256: true });
    startup.credentials.password = Some(Zeroizing::new(PASSWORD.to_owned()));
    shown.push(format!("{startup:?}"));
    let mut session = Session::new(startup, SessionLimits::DEFAULT).expect("a short start");
    let request = crate::items::bytes_of("AuthenticationCleartextPassword").expect("known");
    session.space()[..request.len()].copy_from_slice(&request);
    session.filled(request.len());
    assert_eq!(session.poll_event(), Ok(None));
    assert!(session.output().ends_with(&[PASSWORD.as_bytes(), b"\0"].concat()), "it was asked");
    shown.push(format!("{session:?} {session:#?}"));
    for text in &shown {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    assert!(!records.is_empty());
}

#[test]
fn nothing_is_sent_before_the_server_has_asked() {
    let _turn = memory::beside_others();
    for record in heard("config password\nconfig witness\n", lock_once) {
        let messages = messages(&record.log);
        let tags: Vec<u8> = messages.iter().take(4).map(|message| message.tag).collect();
        assert_eq!(tags, b"\0ppP", "startup, two steps of SCRAM, and then the first statement");
        let startup = String::from_utf8_lossy(&messages[0].body).into_owned();
        assert!(!startup.contains("password") && !startup.contains(PASSWORD), "{startup}");
    }
}

#[test]
fn no_text_of_the_user_is_in_a_statement() {
    let _turn = memory::beside_others();
    let hostile = "x'); DROP TABLE t; --";
    let config = format!(
        "config dbname \"{hostile}\"\nconfig application_name \"{hostile}\"\nconfig witness\n"
    );
    let keys = [hostile, "$1", "\u{0}", "1); SELECT pg_sleep(1", "\" OR \"\"=\""];
    let records = heard(&config, |manager| {
        for key in keys {
            let background = Context::background();
            drop(manager.try_lock(&background, key).expect("an answer").expect("it is free"));
        }
        drop(manager.acquire(Key::Pair(1, -1)).wait().expect("it is free"));
    });
    let mut known: Vec<&str> = vec![probe::IDENTITY, probe::CONFIRMATION, probe::TESTIMONY];
    known.extend(STATEMENTS.iter().map(|(_, query, _)| *query));
    let release = |key| Statement::Release(key).definition().query;
    known.extend([KeyParameters::Bigint(0), KeyParameters::Pair(0, 0)].map(release));
    known.extend([10, 12, 14].map(|major| settings::statement(major).0));
    let mut seen = 0;
    for record in records {
        for Frontend { tag, body } in messages(&record.log).into_iter().skip(1) {
            let text = String::from_utf8_lossy(&body);
            for part in ["DROP", "pg_sleep", "\"=\""] {
                assert!(!text.contains(part), "{text:?}");
            }
            if tag == b'P' {
                let query = text.split('\0').nth(1).unwrap_or_default();
                assert!(known.contains(&query), "{query:?} is no constant");
                seen += 1;
            }
        }
    }
    assert!(seen > 7, "{seen} statements of two connections");
}

/// The nonce of a connection's SCRAM exchange, and the mark of its session.
fn randoms(record: &Record) -> Vec<String> {
    let messages = messages(&record.log);
    let text = |message: &Frontend| String::from_utf8_lossy(&message.body).into_owned();
    let initial = messages.iter().find(|message| message.tag == b'p').map(text);
    let initial = initial.expect("a SASLInitialResponse");
    let nonce = initial.split_once("r=").expect("a nonce").1.to_owned();
    assert!(nonce.len() >= 24, "{nonce}");
    let mark = messages.iter().find(|message| message.tag == b'B').expect("the identity");
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let mark = mark.body.windows(32).find(|window| window.iter().all(hex));
    [Some(nonce), mark.map(|mark| String::from_utf8_lossy(mark).into_owned())]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn no_two_connections_have_the_same_nonce_or_mark() {
    let _turn = memory::beside_others();
    let mut all = Vec::new();
    for _ in 0..4 {
        // Two connections each: the session, and the witness, which has no mark.
        for record in heard("config password\nconfig witness\n", lock_once) {
            all.extend(randoms(&record));
        }
    }
    assert_eq!(all.len(), 4 * 3);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4 * 3, "{all:?}");
}

/// In the one whose failure `src/guard/startup.rs` tests.
#[test]
fn randomness_is_drawn_in_one_place_alone() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut drawn = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).expect("a source");
            let count = source.matches("getrandom::fill").count();
            drawn.extend(std::iter::repeat_n(path, count));
        }
    }
    assert_eq!(drawn.len(), 1, "{drawn:?}");
    assert!(drawn[0].ends_with("guard/startup.rs"), "{drawn:?}");
}
