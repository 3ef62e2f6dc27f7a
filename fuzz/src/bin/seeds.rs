//! Writes the seeds that take no server: inputs of the targets that make their own messages. The
//! recorded ones are made by `record`. Run it in `fuzz/` with `cargo run --bin seeds`; it writes
//! the same bytes every time.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use distlock_fuzz::script::*;
use distlock_fuzz::{ANY_METHOD, message};

/// The low half of the bytes that choose a message, see `fuzz_targets/authentication/server.rs`.
const OK: u8 = 0;
const CLEARTEXT: u8 = 1;
const MD5: u8 = 2;
const SASL: u8 = 3;
const SASL_CONTINUE: u8 = 4;
const SASL_FINAL: u8 = 5;
const NEGOTIATE: u8 = 7;
const KEY_DATA: u8 = 8;
const READY: u8 = 9;
const VERSION: u8 = 10;
const PARAMETER: u8 = 11;

/// A server-first-message as `server_first` reads it: a count, four bytes of nonce, a salt.
const FIRST: [u8; 8] = [SASL_CONTINUE, 2, 1, 2, 3, 4, 1, b'x'];

fn main() {
    authentication();
    encoder();
    probe();
    connection_string();
    listing();
    replies();
    several();
}

fn authentication() {
    let settle = [VERSION, PARAMETER, KEY_DATA, READY];
    let scram = [&[NEGOTIATE, SASL][..], &FIRST, &[SASL_FINAL, OK], &settle].concat();
    let plus = [&[0x10 | SASL][..], &FIRST, &[SASL_FINAL, OK], &settle].concat();
    let only_scram = 0x18;
    for (name, policy, messages) in [
        ("trust", [0x01, 0], [&[OK], &settle[..]].concat()),
        ("cleartext", [0x12, 0], [&[CLEARTEXT, OK], &settle[..]].concat()),
        ("md5", [0x14, 0], [&[MD5, 1, 2, 3, 4, OK], &settle[..]].concat()),
        ("scram", [only_scram, 0], scram.clone()),
        ("scram_any", [ANY_METHOD, 0], scram.clone()),
        ("scram_tls", [only_scram, 3], scram),
        ("scram_plus", [only_scram, 3], plus.clone()),
        ("scram_plus_required", [ANY_METHOD, 7], plus.clone()),
        ("scram_plus_without_tls", [only_scram, 0], plus.clone()),
        ("scram_plus_no_end_point", [only_scram, 5], plus),
        ("scram_no_proof", [only_scram, 0], [&[SASL][..], &FIRST, &[OK], &settle].concat()),
        (
            "scram_impostor",
            [only_scram, 0],
            [&[SASL][..], &FIRST, &[0xc0 | SASL_FINAL, 9, 1]].concat(),
        ),
        ("trust_refused", [only_scram, 0], vec![OK]),
        ("trust_not_bound", [ANY_METHOD, 7], vec![OK]),
        ("no_password", [0x0e, 0], vec![CLEARTEXT]),
        ("old_protocol", [0x58, 0], vec![NEGOTIATE]),
        ("unannounced", [0x01, 0], vec![OK, VERSION, READY]),
        ("too_old", [0x01, 0], vec![OK, 0x60 | VERSION]),
    ] {
        write("authentication", name, &[&policy[..], &messages].concat());
    }
}

fn encoder() {
    let texts = |texts: &[&[u8]]| -> Vec<u8> {
        texts.iter().flat_map(|text| [&[text.len() as u8], *text].concat()).collect()
    };
    // All calls once, each with a byte behind it that says how much is sent then.
    let calls = [
        &[130][..],
        &texts(&[b"app", b"prod", b"distlock", b""]),
        &[255],
        &[1],
        &texts(&[b"pencil"]),
        &[3],
        &[2],
        &texts(&[b"SCRAM-SHA-256", b"n,,n=,r=x"]),
        &[0],
        &[3],
        &texts(&[b"c=biws,r=x,p=y"]),
        &[255],
        &[4, 1],
        &texts(&[b"t", b"SELECT 1"]),
        &[0, 0, 0, 20, 255],
        &[5],
        &texts(&[b"tp"]),
        &[0, 0, 0, 1, 0, 0, 0, 2, 0],
        &[6],
        &texts(&[b"t"]),
        &[0, 0, 0, 1, 0, 0, 0, 2, 0],
        &[7, 2],
        &texts(&[b"one", b"t\0o"]),
        &[9],
        &[8, 255, 9, 255, 129, 0],
    ];
    write("encoder", "calls", &[&[6], &calls.concat()[..]].concat());
    write("encoder", "small", &[&[0], &calls.concat()[..]].concat());
    let nul = [&[6, 1][..], &texts(&[b"pen\0cil"]), &[0, 9, 0]].concat();
    write("encoder", "nul", &nul);
    let strings = texts(&[b"app", b"prod", b"distlock", b"pencil"]);
    for (name, mode) in [("cleartext", 1), ("md5", 9), ("scram", 13)] {
        write("encoder", &format!("start_{name}"), &[&[mode], &strings[..]].concat());
    }
    let strings = texts(&[b"app", b"pr\0options\0-c x", b"distlock", b"pencil"]);
    write("encoder", "start_nul", &[&[1], &strings[..]].concat());
    let strings = texts(&[b"app", b"prod", b"distlock", b"-c a=b", b"pen\0cil"]);
    write("encoder", "start_nul_password", &[&[3], &strings[..]].concat());
}

fn probe() {
    write("probe", "good", &[0; 64]);
    // The bits of `Case::new`.
    for (name, flags) in [
        ("testimony", 1_u16),
        ("session_affine", 1 << 1),
        ("read_write", 1 << 2),
        ("witness", 1 << 3),
        ("unix", 1 << 4),
        ("unknown_transport", 1 << 5),
        ("version_10", 1 << 6),
        ("version_12", 2 << 6),
        ("version_18", 3 << 6),
        ("unannounced", 1 << 8),
        ("affine_unannounced", 1 << 8 | 1 << 1 | 1 << 3),
    ] {
        write("probe", name, &[&flags.to_be_bytes()[..], &[0; 32]].concat());
    }
    // Ten columns and a word in one of them, and fewer columns.
    for place in 0..10 {
        let mut row = [0; 11];
        row[1 + place] = 3 + 1;
        write("probe", &format!("false_{place}"), &[&[0, 0], &row[..]].concat());
    }
    write("probe", "null", &[0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1]);
    write("probe", "short", &[0, 0, 9]);
}

fn connection_string() {
    let texts = [
        "",
        "host=localhost user=app",
        "postgresql://app:c%40t@db.internal:5433/prod",
        "postgres:///prod?host=/var/run/postgresql&user=app",
        "postgresql://[2001:db8::5]:5433/",
        "user = 'a b' password = 'it\\'s' dbname=prod",
        "host=localhost password=a b",
        "postgresql://app:se/cret@db.internal/prod",
        "host=",
        "password='open",
        "user=app require_auth=scram-sha-256,md5 connect_timeout=5 sslmode=disable",
    ];
    for (number, text) in texts.iter().enumerate() {
        write("connection_string", &format!("text_{number}"), &[&[0], text.as_bytes()].concat());
    }
    let two_pairs = [2, 0, 1, 2, 6, 1, 2, b'a', b'\'', 3, b'\\', b' ', b'x'];
    write("connection_string", "pairs", &[&[1], &two_pairs[..]].concat());
    write("connection_string", "not_quoted", &[&[3], &two_pairs[..]].concat());
    let url =
        [0x20, 1, b'@', 1, b'/', 3, b'a', b'p', b'p', 2, b'd', b'b', 4, b'p', b'r', b'o', b'd'];
    write("connection_string", "url", &[&[2], &url[..], &[4, 6, 5, 8]].concat());
    write("connection_string", "url_parameter", &[&[2, 0x21], &url[1..], &[4, 6, 5, 8]].concat());
}

fn listing() {
    // Those of the model server, and what is made of the input: a holder and a waiter, and many.
    for choice in [0, 1, 2, 3, 0x0a, 0x13, 0x22, 0x43, 0xff] {
        let column = distlock_fuzz::listing::sample(choice);
        write("listing", &format!("sample_{choice}"), &[&[2, 9, 0], &column[..]].concat());
    }
    let entry = |how: u8, sight: u8| {
        let ages = [0, 60, 0xa0];
        [&[how, sight, 7, 0][..usize::from(how & 0x18 == 0) * 2 + 2], &ages, &[3], b"app"].concat()
    };
    let holder = [&entry(0xc8, 1)[..], &[1, 2, 3, 4], &[1, 127, 0, 0, 1], &[9, 9]].concat();
    let slot = [&entry(0x41, 0)[..], &[1, 2, 3, 4], &[2, 127, 0, 0, 1, 40], &[9, 9]].concat();
    let waiter = [&entry(0x8c, 2)[..], &[0; 4], &[0]].concat();
    let two = [&[1, 1], &holder[..], &waiter].concat();
    write("listing", "two", &[&[1, 9, 0], &two[..], &[0]].concat());
    write("listing", "two_cut", &[&[3, 9, 0], &two[..], &[2, 30, 0]].concat());
    write("listing", "two_and_more", &[&[5, 9, 0], &two[..], &[3, 0, 0, b'x']].concat());
    let many = [&[39, 2, 1, 1, 2, 2], &slot.repeat(32)[..], &[1, 17, 0, b'v']].concat();
    write("listing", "many", &[&[7, 9, 0], &many[..]].concat());
}

/// What no server says that is easily had: a commit that fails, and one that may not last.
fn replies() {
    let row = |value: &[Option<&[u8]>]| distlock::proto::rehearsal::row(value);
    let [parsed, bound, done, ready, warning, error] = [
        message(b'1', b""),
        message(b'2', b""),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
        message(b'N', b"SWARNING\0VWARNING\0C01000\0Mcanceling wait\0\0"),
        message(b'E', b"SERROR\0VERROR\0C53400\0Mtoo many notifications\0\0"),
    ];
    let token = row(&[Some(&[0, 0, 0, 1, 2, 3, 4, 5]), Some(b"0000000B")]);
    let fenced = [&parsed[..], &bound, &token, &done].concat();
    let released = [&parsed[..], &bound, &row(&[Some(b"k")]), &done].concat();
    for (name, op, reply) in [
        ("doubtful", FENCE, [&fenced[..], &warning, &ready]),
        ("not_fenced", FENCE, [&fenced[..], &error, &ready]),
        ("not_told", RELEASE, [&released[..], &error, &ready]),
    ] {
        let reply = reply.concat();
        let script = [op, SYNC];
        write("reference", name, &[&[0x80, 2], &script[..], &reply].concat());
        write("split_invariance", name, &[&[0x80, 2], &script[..], &[2, 0, 9], &reply].concat());
    }
    // Rows of other statements, and a list of holders that is not the answer of the next one.
    let letter = |letter: u8| [&parsed[..], &bound, &row(&[Some(&[letter])]), &done].concat();
    let slot = [&parsed[..], &bound, &row(&[Some(&(-2_i32).to_be_bytes())]), &done].concat();
    let nobody = row(&[Some(&distlock_fuzz::listing::sample(0))]);
    let granted = [&bound[..], &row(&[Some(&[1])]), &done, &ready].concat();
    let forgotten = [&parsed[..], &bound, &nobody, &error, &ready, &granted].concat();
    for (name, script, reply) in [
        ("retry_registered", [RETRY, SYNC], letter(b'r')),
        ("share_gated", [REGISTER_SHARED, SYNC], letter(b'g')),
        ("slot_registered", [TAKE_SLOT, SYNC], slot),
        ("holders_failed", [HOLDERS, TRY_LOCK], forgotten),
    ] {
        write("reference", name, &[&[0x80, 2], &script[..], &reply].concat());
    }
    // The first three by the model server: a statement, its row, and what comes with its end.
    for (name, op, how) in
        [("doubtful", FENCE, 0x5f), ("not_fenced", FENCE, 0x08), ("not_told", RELEASE, 0x08)]
    {
        let calls = [0, op, 0, 1, 7, 255, 3, 0, 0x0f, 3, 0, 0x0f, 3, 0, how, 4, 7, 255];
        write("session_ops", &format!("{name}_model"), &[&[0x87], &calls[..]].concat());
    }
}

/// Several as one, with errors and rows that no server of ours sends.
fn several() {
    let row = |byte: u8| distlock::proto::rehearsal::row(&[Some(&[byte])]);
    let [parsed, bound, done, ready, error] = [
        message(b'1', b""),
        message(b'2', b""),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
        message(b'E', b"SERROR\0VERROR\0C53200\0Mout of shared memory\0\0"),
    ];
    let reply = |rows: &[u8]| {
        let rows: Vec<u8> = rows.iter().flat_map(|byte| row(*byte)).collect();
        [&parsed[..], &bound, &rows].concat()
    };
    let end = [&done[..], &ready].concat();
    let (tries, releases) = (of_key(3, TRY_RUN), of_key(3, RELEASE_RUN));
    for (name, op, said) in [
        ("swap_failed_unbound", SWAP, [&parsed[..], &error, &ready].concat()),
        ("swap_failed", SWAP, [&reply(b""), &error[..], &ready].concat()),
        ("swap_failed_behind", SWAP, [&reply(b"K"), &error[..], &ready].concat()),
        ("swap_and_denied", SWAP, [&reply(b"K"), &done, &error[..], &ready].concat()),
        ("swap_and_failed", SWAP, [&reply(b"Q")[..], &done, &bound, &error, &ready].concat()),
        ("swap_released", SWAP, [&reply(b"n"), &end[..]].concat()),
        ("swap_granted", SWAP, [&reply(b"\x01"), &end[..]].concat()),
        ("swap_twice", SWAP, [&reply(b"qQ"), &end[..]].concat()),
        ("swap_silent", SWAP, [&reply(b""), &end[..]].concat()),
        ("run_failed_unbound", tries, [&parsed[..], &error, &ready].concat()),
        ("run_failed", tries, [&reply(b"\x01\0"), &error[..], &ready].concat()),
        ("run_failed_behind", releases, [&reply(b"qkqk"), &error[..], &ready].concat()),
        ("run_short", releases, [&reply(b"kkq"), &end[..]].concat()),
        ("run_divided", tries, [&reply(b"\x01")[..], &done, &row(0).repeat(3), &end].concat()),
        ("run_long", tries, [&reply(b"\x01\0\0\x01\x01"), &end[..]].concat()),
        ("run_swapped", releases, [&reply(b"qQ"), &end[..]].concat()),
    ] {
        // With more of the batch behind it, and a heartbeat.
        let script = [op, TRY_LOCK, SYNC, SYNC];
        let said = [&said[..], &ready].concat();
        write("reference", name, &[&[0x80, 4], &script[..], &said].concat());
        // Byte by byte.
        write("split_invariance", name, &[&[0x80, 4], &script[..], &[1, 0], &said].concat());
    }
    // By the model server, with an end that comes later; an event at a time.
    for (name, op, salt) in
        [("swap", SWAP, 0), ("tries", tries, 0), ("releases", releases, 0), ("long", TRY_RUN, 64)]
    {
        for how in [0x0f, 0x2f, 0x01, 0x22, 0x05, 0x06, 0x27, 0x09, 0x0a, 0x0b, 0x0c] {
            let calls = [0, op, salt, 0, op, salt, 0, TRY_LOCK, 0, 1, 7, 255];
            let replies = [how, 0x2f, 0x0f, 0x0f].map(|how| [3, 9, how, 5, 5]).concat();
            let bytes = [&[0x87][..], &calls, &[3, 0, 0x0f], &replies, &[4]].concat();
            write("session_ops", &format!("{name}_{how:02x}_model"), &bytes);
        }
    }
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&directory).expect("a directory for the seeds");
    fs::write(directory.join(name), bytes).expect("a seed");
}
