//! Writes the seeds that take no server: inputs of the targets that make their own messages. The
//! recorded ones are made by `record`. Run it in `fuzz/` with `cargo run --bin seeds`; it writes
//! the same bytes every time.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use distlock_fuzz::ANY_METHOD;

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

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&directory).expect("a directory for the seeds");
    fs::write(directory.join(name), bytes).expect("a seed");
}
