//! The decoder: it never panics, takes no more than there is and no less than a header, says
//! Partial only of what is incomplete, and more bytes never change what fewer bytes said.
//!
//! Input: two bytes that choose a prefix, then what a server sends.
#![no_main]

use distlock::proto::backend::{self, BackendMessage, DataRow, HEADER, Status, decode};
use distlock::proto::fields::{Fields, MESSAGE_MAX};
use distlock_fuzz::{Input, check_text};
use libfuzzer_sys::fuzz_target;

/// The longest message that is accepted: an ErrorResponse and its type byte.
const MESSAGE_LIMIT: usize = 30_001;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let prefix = usize::from(input.u16());
    let mut rest = input.rest();
    check_prefix(rest, prefix.checked_rem(rest.len() + 1).unwrap_or(0));
    while let Ok(Status::Complete { message, size }) = decode(rest) {
        check_complete(rest, &message, size);
        rest = &rest[size..];
        check_prefix(rest, prefix % (rest.len() + 1));
    }
    match decode(rest) {
        Ok(Status::Partial) => check_partial(rest),
        Ok(Status::Complete { .. }) => unreachable!("the loop has ended"),
        Err(violation) => check_text(&violation),
    }
});

fn check_prefix(bytes: &[u8], prefix: usize) {
    let whole = decode(bytes);
    match (decode(&bytes[..prefix]), whole) {
        (Ok(Status::Partial), Ok(Status::Complete { size, .. })) => assert!(prefix < size),
        (Ok(Status::Partial), _) => {}
        (early, late) => assert_eq!(early, late, "more bytes changed the verdict"),
    }
}

fn check_complete(bytes: &[u8], message: &BackendMessage<'_>, size: usize) {
    assert!((HEADER..=MESSAGE_LIMIT).contains(&size) && size <= bytes.len());
    assert_eq!(declared(bytes), Some(size), "not the size of the header");
    assert_eq!(decode(&bytes[..size]), decode(bytes), "it looked behind the message");
    assert_eq!(decode(&bytes[..size - 1]), Ok(Status::Partial), "it did without a byte");
    assert!(!backend::name(message).is_empty());
    let body = &bytes[HEADER..size];
    match message {
        BackendMessage::DataRow(row) => check_row(row, body),
        BackendMessage::ErrorResponse(fields) | BackendMessage::NoticeResponse(fields) => {
            check_fields(*fields);
        }
        BackendMessage::ReadyForQuery(status) => assert_eq!(&[*status], body),
        BackendMessage::ParameterStatus { name, value } => {
            assert_eq!(body, [name, &b"\0"[..], value, b"\0"].concat());
        }
        _ => {}
    }
}

fn check_row(row: &DataRow<'_>, body: &[u8]) {
    let mut again = row.columns().to_be_bytes().to_vec();
    for value in row.values() {
        match value {
            None => again.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(value) => {
                again.extend_from_slice(&u32::try_from(value.len()).expect("capped").to_be_bytes());
                again.extend_from_slice(value);
            }
        }
    }
    assert_eq!(again, body, "the values are not those of the body");
    // The only forms of a grant and of a refusal.
    match row.boolean() {
        Ok(value) => assert_eq!(body, [0, 1, 0, 0, 0, 1, u8::from(value)]),
        Err(violation) => check_text(&violation),
    }
}

fn check_fields(fields: Fields<'_>) {
    let error = fields.to_error();
    assert_eq!(error.sqlstate, fields.sqlstate());
    assert_eq!(error.severity, fields.severity());
    // A control character of one byte becomes `\u{7f}` at most, bad UTF-8 three bytes.
    assert!(error.message.len() <= MESSAGE_MAX * 6);
    check_text(&error);
    let _ = fields.check_shutdown();
}

fn check_partial(bytes: &[u8]) {
    match declared(bytes) {
        Some(size) => assert!(bytes.len() < size && size <= MESSAGE_LIMIT),
        None => assert!(bytes.len() < HEADER),
    }
}

/// The size that the header gives.
fn declared(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..HEADER)?.try_into().ok()?;
    usize::try_from(i32::from_be_bytes(length)).ok()?.checked_add(1)
}
