//! ErrorResponse and NoticeResponse: what is kept of them is what a second reader keeps, it is text
//! that can be shown anywhere, and a list of fields is refused wherever it is cut.
//!
//! Input: a byte of flags, two bytes that choose a cut; with flag 0 fields of a type, a word by its
//! number, and text behind it; else the body itself.
#![no_main]

use distlock::SqlState;
use distlock::proto::backend::{BackendMessage, Status, decode};
use distlock::proto::fault::Fault;
use distlock::proto::fields::{Fields, MESSAGE_MAX, ServerError, Severity};
use distlock::proto::session::{Session, SessionLimits};
use distlock_fuzz::reference::{Message, Outcome, parse};
use distlock_fuzz::{ANY_METHOD, Input, Trace, check_text, message, startup};
use libfuzzer_sys::fuzz_target;

/// Words that mean something somewhere.
const WORDS: [&str; 16] = [
    "",
    "ERROR",
    "FATAL",
    "PANIC",
    "WARNING",
    "NOTICE",
    "DEBUG",
    "INFO",
    "LOG",
    "FEHLER",
    "57P01",
    "57P02",
    "53200",
    "42883",
    "0A000",
    "\u{1b}[2J\u{202e}\r\n",
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.u8();
    let cut = usize::from(input.u16());
    let body = if flags & 1 != 0 { fields(&mut input) } else { input.rest().to_vec() };
    let is_notice = flags & 2 != 0;
    let expected = match parse(&message(if is_notice { b'N' } else { b'E' }, &body)) {
        Outcome::Message(Message::ErrorResponse(report) | Message::NoticeResponse(report), _) => {
            report
        }
        // A body alone has no limit: what the frame is refused for has to be something else.
        Outcome::Refused(_) if body.len() + 4 <= 30_000 => {
            assert!(Fields::new("ErrorResponse", &body).is_err(), "{body:?}");
            return;
        }
        _ => return,
    };
    let fields = Fields::new("ErrorResponse", &body).expect("well-formed");
    let kept = fields.to_error();
    assert_eq!(kept, expected.kept());
    assert_eq!((fields.severity(), fields.sqlstate()), (kept.severity, kept.sqlstate));
    assert_eq!(fields.check_shutdown().is_err(), expected.is_shutdown());
    check_kept(&kept, &body);
    let cut = cut % body.len();
    assert!(Fields::new("ErrorResponse", &body[..cut]).is_err(), "cut off at {cut}");
    let frame = message(b'E', &body);
    assert!(matches!(
        decode(&frame),
        Ok(Status::Complete { message: BackendMessage::ErrorResponse(same), size })
            if same.to_error() == kept && size == frame.len()
    ));
    check_session(is_notice, &body, &kept, expected.is_shutdown());
});

/// A body of fields that are likely to mean something.
fn fields(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    while !input.is_empty() {
        let kind = input.u8();
        body.push(b"VSCMVSCMDHPFLR\0x"[usize::from(kind & 15)]);
        body.extend_from_slice(WORDS[usize::from(kind >> 4)].as_bytes());
        body.extend_from_slice(input.counted());
        body.push(0);
    }
    body.push(0);
    body
}

/// What may be shown, and what callers go by.
fn check_kept(kept: &ServerError, body: &[u8]) {
    check_text(kept);
    // A control character of one byte becomes six, bad UTF-8 three.
    assert!(kept.message.len() <= MESSAGE_MAX * 6);
    let marks = ['\u{200e}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{2069}'];
    assert!(!kept.to_string().contains(marks), "invisible marks: {kept}");
    let code = SqlState::new(kept.sqlstate);
    assert!(code.as_str().bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()));
    assert_eq!(code.as_str().len(), 5);
    // Only a word of the server makes it less than fatal.
    let says = |word: &str| {
        let field = format!("{word}\0");
        body.windows(field.len()).any(|window| window == field.as_bytes())
    };
    assert!(match kept.severity {
        Severity::Error => says("ERROR"),
        Severity::Notice => ["WARNING", "NOTICE", "DEBUG", "INFO", "LOG"].into_iter().any(says),
        Severity::Fatal => true,
    });
}

/// An ErrorResponse ends the start of a session, whatever its severity; a NoticeResponse ends it
/// only when the server goes down.
fn check_session(is_notice: bool, body: &[u8], kept: &ServerError, is_shutdown: bool) {
    let mut session =
        Session::new(startup(ANY_METHOD), SessionLimits::DEFAULT).expect("a StartupMessage");
    let mut trace = Trace::default();
    if is_notice {
        trace.feed(&mut session, &message(b'R', &[0; 4]));
    }
    trace.feed(&mut session, &message(if is_notice { b'N' } else { b'E' }, body));
    let ends = !is_notice || is_shutdown;
    assert_eq!(trace.fault, ends.then(|| Fault::Server(Box::new(kept.clone()))));
}
