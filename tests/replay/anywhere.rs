//! Attacks at every place of a good conversation, which would be too many files: asynchronous
//! messages in front of each message (class A32), and the end of the connection, or silence, after
//! each byte (class A44).

use crate::format::{self, Vector};
use crate::judge::PASSWORD;
use crate::player::{End, Tamper};
use crate::pure::{self, CUTS, Cut};
use crate::{check_all, items, live, memory, scram};

/// The conversations: who asks for no password, who does by SCRAM, and one with a witness.
const CONFIGS: [&str; 3] = ["", "config password\n", "config witness\n"];

/// How many of the messages of each belong to the authentication, AuthenticationOk included.
const AUTHENTICATION: [usize; 3] = [1, 4, 1];

/// What a good server says, and what came of it.
struct Conversation {
    vector: Vector,
    /// Where the messages end.
    boundaries: Vec<usize>,
    /// How many bytes there are before the session is ready.
    start: usize,
}

/// A change, its place, and the vector that says what has to come of it.
struct Case {
    name: String,
    vector: Vector,
    tamper: Tamper,
}

fn vector(config: &str, outcomes: &str) -> Vector {
    let head = "class A44\ntitle a conversation that is tampered with\nsource none\n";
    let text = format!("{head}{config}client try 7\nconnection always\n  good serve\n{outcomes}");
    format::parse("a44-anywhere", &text).unwrap_or_else(|why| panic!("{why}"))
}

fn conversation(config: &str) -> Conversation {
    let vector = vector(config, "outcome connect ready\noutcome try granted\n");
    let played = pure::play(&vector, 0, Cut::Whole, Tamper::Nothing);
    assert_eq!((&played.fault, &played.answers[..]), (&None, &[Some(true)][..]));
    Conversation { vector, boundaries: played.boundaries, start: played.ready_at }
}

/// The messages that may come at any time, and the two that may, and say that the end has come.
fn asynchronous() -> [(&'static str, bool); 7] {
    [
        ("@notice:00000", false),
        ("@warning:01000", false),
        ("@parameter", false),
        ("ParameterStatus(\"\\0\" \"\\0\")", false),
        ("@notification", false),
        ("@standby", true),
        ("@warning:57P01", true),
    ]
}

/// Every message in front of every other, and what has to come of it.
fn insertions() -> Vec<Case> {
    let mut cases = Vec::new();
    for (config, authentication) in CONFIGS.iter().zip(AUTHENTICATION) {
        let conversation = conversation(config);
        let boundaries = &conversation.boundaries;
        let start = boundaries.iter().position(|end| *end == conversation.start).expect("one");
        for place in 0..places(config, authentication, boundaries.len()) {
            for (item, is_fatal) in asynchronous() {
                let outcomes = match (place < authentication, is_fatal, place <= start) {
                    (true, ..) => "outcome connect fails protocol \"came \"\n",
                    (false, false, _) => "outcome connect ready\noutcome try granted\n",
                    (false, true, true) => "outcome connect fails any\n",
                    // The last ReadyForQuery comes behind the grant.
                    (false, true, false) => "outcome connect ready\noutcome try ends\n",
                };
                let bytes = items::bytes_of(item).expect("known items");
                cases.push(Case {
                    name: format!("{item} in front of message {place}, {config:?}"),
                    vector: vector(config, outcomes),
                    tamper: Tamper::Insert(place, bytes),
                });
            }
        }
    }
    cases
}

/// How many messages of a conversation are looked at. After the authentication one is as the
/// other, and that with a password takes its time.
fn places(config: &str, authentication: usize, messages: usize) -> usize {
    if config.contains("password") { authentication + 1 } else { messages }
}

#[test]
fn asynchronous_messages_may_come_anywhere_behind_the_authentication() {
    let _turn = memory::beside_others();
    scram::warm_up(PASSWORD);
    let cases = insertions();
    check_all(
        &cases,
        |case| case.name.clone(),
        |case| {
            let mut outcomes = Vec::with_capacity(CUTS.len());
            for cut in CUTS {
                let played = pure::play(&case.vector, 0, cut, case.tamper.clone());
                let fails = case.vector.outcomes[0].verdict == "fails";
                let ends = case.vector.outcomes.iter().any(|outcome| outcome.verdict == "ends");
                if played.fault.is_some() != (fails || ends) || played.ready == fails {
                    return Err(format!("{cut:?}: {:?}", played.fault));
                }
                outcomes.push((played.fault, played.answers));
            }
            outcomes.dedup();
            if outcomes.len() == 1 { Ok(()) } else { Err(format!("{outcomes:?}")) }
        },
    );
    println!("{} places, {} cuts", cases.len(), CUTS.len());
}

#[test]
fn asynchronous_messages_over_sockets_may_come_anywhere_behind_the_authentication() {
    let _turn = memory::beside_others();
    live::record_panics();
    scram::warm_up(PASSWORD);
    let cases = insertions();
    check_all(&cases, |case| case.name.clone(), |case| live::check(&case.vector, &case.tamper));
    println!("{} places", cases.len());
}

#[test]
fn the_state_machine_waits_after_every_prefix_of_a_good_conversation() {
    let _turn = memory::beside_others();
    scram::warm_up(PASSWORD);
    let mut count = 0;
    for (config, authentication) in CONFIGS.iter().zip(AUTHENTICATION) {
        let Conversation { vector, boundaries, start } = conversation(config);
        let total = boundaries[places(config, authentication, boundaries.len()) - 1];
        // The key derivation takes its time: with a password only what is near a boundary.
        let is_near = |at: &usize| {
            !config.contains("password") || boundaries.iter().any(|end| end.abs_diff(*at) < 2)
        };
        for after in (0..total).filter(is_near) {
            for cut in [Cut::Whole, Cut::EveryByte] {
                let tamper = Tamper::Cut(after, End::Silence);
                let played = pure::play(&vector, 0, cut, tamper);
                assert_eq!(played.fault, None, "after {after} bytes");
                assert_eq!(played.ready, after >= start, "after {after} bytes");
            }
            count += 1;
        }
    }
    println!("{count} prefixes");
}

/// Every prefix of the conversations, with an end.
fn ends(conversation: &Conversation, config: &str, end: End, places: Vec<usize>) -> Vec<Case> {
    places
        .into_iter()
        .map(|after| {
            let outcomes = match (end, after < conversation.start) {
                (End::Silence, true) => "outcome connect fails connect \"within 250ms\"\n",
                (_, true) => "outcome connect fails connect\n",
                // The last byte of the start may come together with the end.
                (_, false) => "outcome connect ends\noutcome try ends\n",
            };
            let times = match end {
                End::Silence => "config connect_timeout 250\nconfig reply_timeout 100\n",
                End::Close | End::Reset => "",
            };
            Case {
                name: format!("{end:?} after {after} bytes, {config:?}"),
                vector: vector(&format!("{config}{times}"), outcomes),
                tamper: Tamper::Cut(after, end),
            }
        })
        .collect()
}

#[test]
fn a_connection_may_end_or_fall_silent_after_every_byte_of_a_good_conversation() {
    let _turn = memory::beside_others();
    live::record_panics();
    scram::warm_up(PASSWORD);
    let mut cases = Vec::new();
    for (config, authentication) in CONFIGS.iter().zip(AUTHENTICATION).take(2) {
        let conversation = conversation(config);
        let mut boundaries = conversation.boundaries.clone();
        boundaries.truncate(places(config, authentication, boundaries.len()));
        let total = *boundaries.last().expect("messages");
        let places: Vec<usize> = match config.contains("password") {
            false => (0..total).collect(),
            true => boundaries.iter().flat_map(|end| [end - 1, *end]).collect(),
        };
        for end in [End::Close, End::Reset] {
            cases.extend(ends(&conversation, config, end, places.clone()));
        }
        cases.extend(ends(&conversation, config, End::Silence, boundaries));
    }
    check_all(&cases, |case| case.name.clone(), |case| live::check(&case.vector, &case.tamper));
    println!("{} ends", cases.len());
}
