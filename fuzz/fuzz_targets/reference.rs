//! The decoder and a ready session against a second, simple reader of the same bytes: they accept
//! and refuse the same, for the same kind of reason, find the same fields, and use up as much.
//!
//! Input: a byte for the mode; with its high bit a count and a script of so many bytes for a ready
//! session (`src/script.rs`); then what a server sends.
#![no_main]

#[path = "reference/replies.rs"]
mod replies;

use distlock::proto::backend::{Authentication, BackendMessage, Status, decode};
use distlock::proto::fault::Violation;
use distlock::proto::fields::Fields;
use distlock_fuzz::reference::{Message, Outcome, Refusal, Report, Request, parse};
use distlock_fuzz::script::{session_asked, steps};
use distlock_fuzz::{Input, Trace};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.u8() & 0x80 == 0 {
        return compare_messages(input.rest());
    }
    let count = usize::from(input.u8() % 64);
    compare_replies(input.bytes(count), input.rest());
});

fn compare_messages(mut bytes: &[u8]) {
    loop {
        match (decode(bytes), parse(bytes)) {
            (Ok(Status::Complete { message, size }), Outcome::Message(expected, expected_size)) => {
                assert_eq!(size, expected_size, "another length of {expected:?}");
                assert!(is_same(&message, &expected), "{message:?} is not {expected:?}");
                bytes = &bytes[size..];
            }
            (Ok(Status::Partial), Outcome::Incomplete) => return,
            (Err(violation), Outcome::Refused(refusal)) => {
                return assert_eq!(refusal_of(violation), refusal);
            }
            (ours, expected) => panic!("{ours:?} is not {expected:?}"),
        }
    }
}

fn compare_replies(script: &[u8], bytes: &[u8]) {
    let steps = steps(script);
    let mut session = session_asked(&steps);
    let mut trace = Trace::default();
    trace.feed(&mut session, bytes);
    let (events, end) = replies::read(&steps, bytes);
    assert_eq!(trace.events, events);
    assert_eq!(replies::End::of(trace.fault.as_ref()), end);
}

/// The kind of reason that the decoder has.
fn refusal_of(violation: Violation) -> Refusal {
    match violation {
        Violation::UnknownMessage(_) => Refusal::Unknown,
        Violation::Unsupported(_) => Refusal::NeverAsked,
        Violation::Length { .. } => Refusal::Length,
        Violation::Malformed { .. } => Refusal::Body,
        Violation::Unexpected { .. } | Violation::Budget { .. } => {
            panic!("the decoder has no state: {violation}")
        }
    }
}

fn is_same(ours: &BackendMessage<'_>, expected: &Message) -> bool {
    match (*ours, expected) {
        (BackendMessage::Authentication(ours), Message::Authentication(expected)) => {
            is_same_request(ours, expected)
        }
        (
            BackendMessage::BackendKeyData { process_id: ours, key_length },
            Message::BackendKeyData { process_id, key },
        ) => ours == *process_id && key_length == key.len(),
        (BackendMessage::DataRow(row), Message::DataRow(values)) => {
            let ours: Vec<_> = row.values().map(|value| value.map(<[u8]>::to_vec)).collect();
            ours == *values && usize::from(row.columns()) == values.len()
        }
        (BackendMessage::ErrorResponse(ours), Message::ErrorResponse(expected))
        | (BackendMessage::NoticeResponse(ours), Message::NoticeResponse(expected)) => {
            is_same_report(ours, expected)
        }
        (
            BackendMessage::NegotiateProtocolVersion { version: ours, unknown_options },
            Message::NegotiateProtocolVersion { version, options },
        ) => ours == *version && usize::try_from(unknown_options) == Ok(options.len()),
        (
            BackendMessage::NotificationResponse { process_id: ours, channel: on, payload: told },
            Message::NotificationResponse { process_id, channel, payload },
        ) => ours == *process_id && on == channel && told == payload,
        (
            BackendMessage::ParameterStatus { name: our_name, value: our_value },
            Message::ParameterStatus { name, value },
        ) => our_name == name && our_value == value,
        (BackendMessage::ReadyForQuery(ours), Message::ReadyForQuery(expected)) => {
            ours == *expected
        }
        // What else is in these is not kept.
        (BackendMessage::BindComplete, Message::BindComplete)
        | (BackendMessage::CommandComplete, Message::CommandComplete { .. })
        | (BackendMessage::ParseComplete, Message::ParseComplete) => true,
        _ => false,
    }
}

fn is_same_request(ours: Authentication<'_>, expected: &Request) -> bool {
    match (ours, expected) {
        (Authentication::Ok, Request::Ok)
        | (Authentication::CleartextPassword, Request::CleartextPassword) => true,
        (Authentication::Md5Password(ours), Request::Md5Password(salt)) => ours == *salt,
        (Authentication::Sasl(ours), Request::Sasl(body))
        | (Authentication::SaslContinue(ours), Request::SaslContinue(body))
        | (Authentication::SaslFinal(ours), Request::SaslFinal(body)) => ours == body,
        (Authentication::Unsupported(name), Request::NotSpoken(number)) => {
            let named = match number {
                2 => "AuthenticationKerberosV5",
                7 => "AuthenticationGSS",
                8 => "AuthenticationGSSContinue",
                _ => "AuthenticationSSPI",
            };
            name == named
        }
        _ => false,
    }
}

fn is_same_report(ours: Fields<'_>, expected: &Report) -> bool {
    ours.to_error() == expected.kept() && ours.check_shutdown().is_err() == expected.is_shutdown()
}
