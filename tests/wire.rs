//! The codec against `proto_notes.md`: each block of the notes is read, its byte table is checked
//! against its hex line, and the hex against the encoder or the decoder.
//!
//! It fails as well when the codec has a message that the notes do not. Nothing here talks to a
//! server or drives a session; `tests/session.rs` does.
#![cfg(feature = "__internals")]

#[path = "support/notes.rs"]
mod notes;

use distlock::proto::backend::{self, Authentication, BackendMessage, Status};
use distlock::proto::buffer::WriteBuf;
use distlock::proto::fault::Violation;
use distlock::proto::fields::Severity;
use distlock::proto::frontend::{self, INT8_OID, KeyParameters, ProtocolVersion};
use distlock::proto::handshake::STATEMENTS;
use distlock::proto::md5::md5_password;
use distlock::proto::rehearsal::ITERATIONS;
use distlock::proto::scram::{Binding, NONCE_ENTROPY, ScramClient};

use notes::{Block, Side};

/// The statement that the Parse block shows.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1)";

/// What our encoder makes of what a frontend block describes; nothing for a title it has not.
fn encode(title: &str) -> Option<Vec<u8>> {
    let mut buf = WriteBuf::new(1024);
    let out = &mut buf;
    let written = match title {
        "StartupMessage" => frontend::startup_message(
            out,
            ProtocolVersion::V3_2,
            &[
                ("user", "scramuser"),
                ("database", "postgres"),
                ("application_name", "distlock"),
                ("client_encoding", "UTF8"),
            ],
        ),
        "PasswordMessage" => {
            let salt = [0xe3, 0x8d, 0x29, 0x6f];
            let answer = md5_password("md5user", "secret", salt);
            frontend::password_message(out, std::str::from_utf8(&answer).expect("hexadecimal"))
        }
        "SASLInitialResponse" => {
            frontend::sasl_initial_response(out, "SCRAM-SHA-256", scram().client_first())
        }
        "SASLResponse" => {
            let mut scram = derived_scram();
            frontend::sasl_response(out, scram.client_final().expect("derived"))
        }
        "Parse" => frontend::parse(out, "t", TRY_LOCK, &[INT8_OID]),
        "Bind, bigint key" => frontend::bind_key(out, "t", KeyParameters::Bigint(42)),
        "Bind, pair of keys" => frontend::bind_key(out, "tp", KeyParameters::Pair(7, -1)),
        "Bind, text" => frontend::bind_text(out, &["2", "2", "5", "10000", "10000", "2000"]),
        "Execute" => frontend::execute(out),
        "Sync" => frontend::sync(out),
        "Terminate" => frontend::terminate(out),
        _ => return None,
    };
    written.expect("it fits");
    Some(buf.pending().to_vec())
}

/// The client of the recorded exchange.
fn scram() -> ScramClient {
    ScramClient::new("pencil", [0; NONCE_ENTROPY], ITERATIONS, Binding::None)
}

/// The same, when it has taken what the server answered.
fn derived_scram() -> ScramClient {
    let mut scram = scram();
    let server_first = notes::block("AuthenticationSASLContinue").bytes();
    scram.server_first(&server_first[9..]).expect("recorded");
    assert!(scram.derive(u32::MAX));
    scram
}

/// The same, when it has sent its proof.
fn signed_scram() -> ScramClient {
    let mut scram = derived_scram();
    scram.client_final().expect("derived");
    scram
}

/// Whether a decoded message is what its block describes.
fn is_as_described(title: &str, message: &BackendMessage<'_>) -> bool {
    use BackendMessage as M;
    let server_first = notes::block("AuthenticationSASLContinue").bytes();
    match (title, *message) {
        ("AuthenticationMD5Password", M::Authentication(request)) => {
            request == Authentication::Md5Password([0xe3, 0x8d, 0x29, 0x6f])
        }
        ("AuthenticationSASL", M::Authentication(request)) => {
            request == Authentication::Sasl(b"SCRAM-SHA-256\0\0")
        }
        ("AuthenticationSASLContinue", M::Authentication(request)) => {
            request == Authentication::SaslContinue(&server_first[9..])
        }
        // The signature is the one that the recorded exchange calls for.
        ("AuthenticationSASLFinal", M::Authentication(Authentication::SaslFinal(body))) => {
            signed_scram().server_final(body).is_ok()
        }
        ("BackendKeyData", message) => {
            message == M::BackendKeyData { process_id: 10_368, key_length: 4 }
        }
        ("DataRow", M::DataRow(row)) => row.columns() == 1 && row.boolean() == Ok(true),
        ("ErrorResponse", M::ErrorResponse(fields)) => {
            let error = fields.to_error();
            error.severity == Severity::Error
                && error.sqlstate == *b"26000"
                && &*error.message == "prepared statement \"nosuch\" does not exist"
        }
        ("NoticeResponse", M::NoticeResponse(fields)) => {
            let notice = fields.to_error();
            notice.severity == Severity::Notice
                && notice.sqlstate == *b"01000"
                && &*notice.message == "you don't own a lock of type ExclusiveLock"
        }
        ("NegotiateProtocolVersion", message) => {
            message == M::NegotiateProtocolVersion { version: 0x0003_0000, unknown_options: 0 }
        }
        ("ParameterStatus", message) => {
            message == M::ParameterStatus { name: b"in_hot_standby", value: b"off" }
        }
        ("ReadyForQuery", message) => message == M::ReadyForQuery(b'I'),
        // These have nothing but their names.
        (
            title,
            M::Authentication(
                Authentication::Ok
                | Authentication::CleartextPassword
                | Authentication::Unsupported(_),
            )
            | M::BindComplete
            | M::CommandComplete
            | M::NotificationResponse { .. }
            | M::ParseComplete,
        ) => title == backend::name(message),
        _ => false,
    }
}

fn decode(bytes: &[u8]) -> BackendMessage<'_> {
    match backend::decode(bytes) {
        Ok(Status::Complete { message, size }) if size == bytes.len() => message,
        other => panic!("{other:?} of {bytes:02x?}"),
    }
}

fn blocks(side: Side) -> impl Iterator<Item = Block> {
    notes::blocks().into_iter().filter(move |block| block.side == side)
}

#[test]
fn every_byte_table_adds_up_to_its_hex() {
    for Block { title, tag, rows, groups, .. } in notes::blocks() {
        assert_eq!(rows.len(), groups.len(), "{title}: rows and groups of hex");
        let mut offset = 0;
        for (row, group) in rows.iter().zip(&groups) {
            assert_eq!(row.offset, offset, "{title}: offset of {row:?}");
            assert_eq!(row.size, group.len(), "{title}: size of {row:?}");
            let fixed = match row.kind.as_str() {
                "Int16" => 2,
                "Int32" => 4,
                "Int64" => 8,
                "String" => row.size,
                other => other.strip_prefix("Byte").and_then(|n| n.parse().ok()).expect("a type"),
            };
            assert_eq!(row.size, fixed, "{title}: size of {row:?}");
            let ends =
                row.kind != "String" || group.iter().position(|b| *b == 0) == Some(fixed - 1);
            assert!(ends, "{title}: a String ends with its only NUL: {row:?}");
            offset += row.size;
        }
        let header = usize::from(tag.is_some());
        if let Some(tag) = tag {
            assert_eq!(groups[0], [tag], "{title}: type byte");
        }
        let length = i32::try_from(offset - header).expect("short").to_be_bytes();
        assert_eq!(groups[header], length, "{title}: length");
        let said = format!("length, itself included: {}", offset - header);
        assert_eq!(rows[header].value, said, "{title}");
    }
}

#[test]
fn every_block_names_its_page_its_file_and_its_test() {
    for Block { title, side, head, .. } in notes::blocks() {
        let anchor = "manual: protocol-message-formats#PROTOCOL-MESSAGE-FORMATS-";
        assert!(head.iter().any(|line| line.starts_with(anchor)), "{title}");
        let (file, test) = match side {
            Side::Frontend => ("frontend", "every_frontend_message_is_encoded_as_in_the_notes"),
            Side::Backend => ("backend", "every_backend_message_is_decoded_as_in_the_notes"),
        };
        let code = format!("code: src/proto/{file}.rs");
        assert!(head.iter().any(|line| line.starts_with(&code)), "{title}");
        assert!(head.contains(&format!("test: wire::{test}")), "{title}");
    }
}

#[test]
fn every_frontend_message_is_encoded_as_in_the_notes() {
    let mut seen = 0;
    for block in blocks(Side::Frontend) {
        let encoded = encode(&block.title).unwrap_or_else(|| panic!("no {}", block.title));
        assert_eq!(encoded, block.bytes(), "{}", block.title);
        seen += 1;
    }
    assert_eq!(seen, 11, "a block for each message, three for Bind");
}

#[test]
fn every_backend_message_is_decoded_as_in_the_notes() {
    for block in blocks(Side::Backend) {
        let bytes = block.bytes();
        let message = decode(&bytes);
        assert_eq!(backend::name(&message), block.title);
        assert!(is_as_described(&block.title, &message), "{}: {message:?}", block.title);
        for length in 0..bytes.len() {
            assert_eq!(backend::decode(&bytes[..length]), Ok(Status::Partial), "{}", block.title);
        }
    }
}

#[test]
fn no_function_of_the_encoder_is_without_a_block() {
    let source = include_str!("../src/proto/frontend.rs");
    let functions = source.lines().filter_map(|line| line.strip_prefix("pub fn "));
    let functions: Vec<&str> =
        functions.map(|line| line.split('(').next().unwrap_or_default()).collect();
    let titles: Vec<String> = blocks(Side::Frontend).map(|block| block.title).collect();
    for function in &functions {
        let wanted = match *function {
            "bind_key" => "bind,bigintkey".to_owned(),
            "bind_text" => "bind,text".to_owned(),
            other => other.replace('_', ""),
        };
        let squeezed = |title: &String| title.replace(' ', "").to_lowercase();
        assert!(titles.iter().any(|title| squeezed(title) == wanted), "no block for {function}");
    }
    assert_eq!(functions.len() + 1, titles.len(), "the key of Bind comes in two forms");
}

#[test]
fn no_message_of_the_decoder_is_without_a_block() {
    for tag in 0..=u8::MAX {
        if backend::decode(&[tag]) == Ok(Status::Partial) {
            let known = blocks(Side::Backend).any(|block| block.tag == Some(tag));
            assert!(known, "{}", tag.escape_ascii());
        }
    }
    // The authentication requests have a type byte in common; their numbers tell them apart. Four
    // more bytes suit the one that must have them.
    for code in 0..=u16::MAX {
        for rest in [&b""[..], b"salt"] {
            let length = i32::try_from(8 + rest.len()).expect("short").to_be_bytes();
            let bytes = [&b"R"[..], &length, &i32::from(code).to_be_bytes(), rest].concat();
            if let Ok(Status::Complete { message, .. }) = backend::decode(&bytes) {
                let block = notes::block(backend::name(&message));
                assert_eq!(block.bytes()[5..9], bytes[5..9]);
            }
        }
    }
}

#[test]
fn every_refused_message_is_in_the_list_of_those_that_are_not_implemented() {
    let listed: Vec<(u8, String)> = notes::table("## 6.", "type", 2)
        .into_iter()
        .map(|row| (row[0].as_bytes()[0], row[1].clone()))
        .collect();
    let mut refused = Vec::new();
    for tag in 0..=u8::MAX {
        if let Err(Violation::Unsupported(name)) = backend::decode(&[tag]) {
            refused.push((tag, name.to_owned()));
        }
    }
    let mut sorted = listed;
    sorted.sort();
    assert_eq!(sorted, refused);
}

#[test]
fn the_lengths_are_those_of_the_limits() {
    let rows = notes::table("## 7.", "message", 3);
    let mut tags: Vec<u8> = blocks(Side::Backend).filter_map(|block| block.tag).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(rows.len(), tags.len(), "a row for each type byte");
    for tag in tags {
        let mut header = vec![tag];
        header.extend_from_slice(&0_i32.to_be_bytes());
        let Err(Violation::Length { message, min, max, .. }) = backend::decode(&header) else {
            panic!("no message has a length of 0");
        };
        let row = rows.iter().find(|row| row[0] == message).expect(message);
        assert_eq!([&row[1], &row[2]], [&min.to_string(), &max.to_string()], "{message}");
    }
}

#[test]
fn the_front_matter_names_the_version_that_is_asked_for() {
    let rows = notes::table("## 1.", "what", 2);
    let asked = rows.iter().find(|row| row[0] == "protocol version asked for").expect("a row");
    let version = ProtocolVersion::V3_2.to_number();
    assert_eq!(asked[1], format!("{}.{}", version >> 16, version & 0xffff));
}

#[test]
fn the_parse_block_shows_a_statement_that_is_prepared() {
    assert!(STATEMENTS.contains(&("t", TRY_LOCK, &[INT8_OID])));
}
