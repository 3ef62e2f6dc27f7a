//! What we send: any calls with any strings, into a buffer of any size. A message that is accepted
//! reads back to the same fields, and one that is refused, since a string in it has a NUL or it
//! does not fit, leaves nothing behind. Then the same of a whole session's start.
//!
//! Input: a byte for the mode; calls, see `Call::new`; or strings of a Startup, see `check_start`.
#![no_main]

use distlock::proto::buffer::{Full, WriteBuf};
use distlock::proto::frontend::{self as ours, KeyParameters, ProtocolVersion};
use distlock::proto::session::{Session, SessionLimits};
use distlock_fuzz::frontend::{Message, password, read, read_all, sasl_initial_response};
use distlock_fuzz::{ANY_METHOD, Input, Trace, message, startup};
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.u8() {
        mode if mode & 1 == 0 => {
            check_calls([16, 64, 300, 2_560][usize::from(mode >> 1 & 3)], input)
        }
        mode => check_start(mode >> 1, input),
    }
});

fn check_calls(capacity: usize, mut input: Input<'_>) {
    let mut buffer = WriteBuf::new(capacity);
    let (mut sent, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let call = Call::new(&mut input);
        let before = buffer.pending().to_vec();
        assert_eq!(buffer.room(), capacity - before.len());
        let fits = call.size() <= capacity - before.len() && !call.has_nul();
        let accepted = call.make(&mut buffer).is_ok();
        assert_eq!(accepted, fits, "{call:?} with {} of {capacity}", before.len());
        if accepted {
            assert_eq!(buffer.pending().len(), before.len() + call.size());
            expected.push(call.message());
        } else {
            assert_eq!(buffer.pending(), before, "{call:?} was refused, and left something");
        }
        let count = usize::from(input.u8()).min(buffer.pending().len());
        sent.extend_from_slice(&buffer.pending()[..count]);
        buffer.sent(count);
    }
    sent.extend_from_slice(buffer.pending());
    let mut rest = &sent[..];
    for expected in expected {
        let is_first = matches!(expected, Message::Startup { .. });
        assert_eq!(read(&mut rest, is_first), Some(expected));
    }
    assert!(rest.is_empty(), "more than was asked for: {rest:?}");
}

/// A call of the encoder. Names of parameters are the library's own, never empty.
#[derive(Debug)]
enum Call {
    Startup(ProtocolVersion, [String; 4]),
    Password(String),
    SaslInitialResponse(String, Vec<u8>),
    SaslResponse(Vec<u8>),
    Parse(String, String, Vec<i32>),
    BindKey(String, KeyParameters),
    BindText(Vec<String>),
    Execute,
    Sync,
    Terminate,
}

const NAMES: [&str; 4] = ["user", "database", "application_name", "options"];

impl Call {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = input.u8();
        match kind % 10 {
            0 => {
                let version =
                    [ProtocolVersion::V3_0, ProtocolVersion::V3_2][usize::from(kind >> 7)];
                Self::Startup(version, std::array::from_fn(|_| input.text()))
            }
            1 => Self::Password(input.text()),
            2 => Self::SaslInitialResponse(input.text(), input.counted().to_vec()),
            3 => Self::SaslResponse(input.counted().to_vec()),
            4 => {
                let count = input.u8() % 16;
                let (name, query) = (input.text(), input.text());
                Self::Parse(name, query, (0..count).map(|_| input.i32()).collect())
            }
            5 => Self::BindKey(input.text(), KeyParameters::Pair(input.i32(), input.i32())),
            6 => {
                let key = i64::from(input.i32()) << 32 | i64::from(input.i32());
                Self::BindKey(input.text(), KeyParameters::Bigint(key))
            }
            7 => {
                let count = input.u8() % 16;
                Self::BindText((0..count).map(|_| input.text()).collect())
            }
            8 => Self::Execute,
            _ if kind & 0x80 == 0 => Self::Sync,
            _ => Self::Terminate,
        }
    }

    fn make(&self, buffer: &mut WriteBuf) -> Result<(), Full> {
        match self {
            Self::Startup(version, values) => {
                let mut parameters = NAMES.map(|name| (name, ""));
                for (parameter, value) in parameters.iter_mut().zip(values) {
                    parameter.1 = value;
                }
                ours::startup_message(buffer, *version, &parameters)
            }
            Self::Password(text) => ours::password_message(buffer, text),
            Self::SaslInitialResponse(mechanism, body) => {
                ours::sasl_initial_response(buffer, mechanism, body)
            }
            Self::SaslResponse(body) => ours::sasl_response(buffer, body),
            Self::Parse(name, query, types) => ours::parse(buffer, name, query, types),
            Self::BindKey(statement, key) => ours::bind_key(buffer, statement, *key),
            Self::BindText(values) => {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                ours::bind_text(buffer, &values)
            }
            Self::Execute => ours::execute(buffer),
            Self::Sync => ours::sync(buffer),
            Self::Terminate => ours::terminate(buffer),
        }
    }

    /// What a server has to read.
    fn message(&self) -> Message {
        let bytes = |text: &String| text.clone().into_bytes();
        match self {
            Self::Startup(version, values) => Message::Startup {
                version: match version {
                    ProtocolVersion::V3_0 => 196_608,
                    ProtocolVersion::V3_2 => 196_610,
                },
                parameters: NAMES
                    .map(Vec::from)
                    .into_iter()
                    .zip(values.iter().map(bytes))
                    .collect(),
            },
            Self::Password(text) => Message::Response([text.as_bytes(), b"\0"].concat()),
            Self::SaslInitialResponse(mechanism, body) => {
                let length = (body.len() as i32).to_be_bytes();
                Message::Response([mechanism.as_bytes(), b"\0", &length, body].concat())
            }
            Self::SaslResponse(body) => Message::Response(body.clone()),
            Self::Parse(name, query, types) => {
                Message::Parse { name: bytes(name), query: bytes(query), types: types.clone() }
            }
            Self::BindKey(statement, key) => Message::Bind {
                portal: Vec::new(),
                statement: bytes(statement),
                formats: vec![1],
                values: match key {
                    KeyParameters::Bigint(key) => vec![Some(key.to_be_bytes().into())],
                    KeyParameters::Pair(high, low) => {
                        vec![Some(high.to_be_bytes().into()), Some(low.to_be_bytes().into())]
                    }
                },
                result_formats: vec![1],
            },
            Self::BindText(values) => Message::Bind {
                portal: Vec::new(),
                statement: Vec::new(),
                formats: Vec::new(),
                values: values.iter().map(|value| Some(bytes(value))).collect(),
                result_formats: Vec::new(),
            },
            Self::Execute => Message::Execute { portal: Vec::new(), rows: 0 },
            Self::Sync => Message::Sync,
            Self::Terminate => Message::Terminate,
        }
    }

    /// The bytes of the whole message, counted after the tables of the manual.
    fn size(&self) -> usize {
        5 + match self {
            Self::Startup(_, values) => {
                // No type byte; the version; a zero byte at the end.
                4 + NAMES.iter().map(|name| name.len() + 1).sum::<usize>()
                    + values.iter().map(|value| value.len() + 1).sum::<usize>()
            }
            Self::Password(text) => text.len() + 1,
            Self::SaslInitialResponse(mechanism, body) => mechanism.len() + 1 + 4 + body.len(),
            Self::SaslResponse(body) => body.len(),
            Self::Parse(name, query, types) => name.len() + query.len() + 2 + 2 + 4 * types.len(),
            Self::BindKey(statement, key) => {
                let values = match key {
                    KeyParameters::Bigint(_) => 4 + 8,
                    KeyParameters::Pair(..) => 2 * (4 + 4),
                };
                1 + statement.len() + 1 + 4 + 2 + values + 4
            }
            Self::BindText(values) => {
                2 + 2 + 2 + values.iter().map(|value| 4 + value.len()).sum::<usize>() + 2
            }
            Self::Execute => 1 + 4,
            Self::Sync | Self::Terminate => 0,
        }
    }

    /// Whether a NUL would end a string early. Values with a length may hold any byte.
    fn has_nul(&self) -> bool {
        let has_nul = |text: &String| text.contains('\0');
        match self {
            Self::Startup(_, values) => values.iter().any(has_nul),
            Self::Password(text) | Self::SaslInitialResponse(text, _) | Self::BindKey(text, _) => {
                has_nul(text)
            }
            Self::Parse(name, query, _) => has_nul(name) || has_nul(query),
            Self::SaslResponse(_)
            | Self::BindText(_)
            | Self::Execute
            | Self::Sync
            | Self::Terminate => false,
        }
    }
}

/// A session with these strings, of which the server then asks the password.
fn check_start(mode: u8, mut input: Input<'_>) {
    let mut startup = startup(ANY_METHOD);
    startup.credentials.user = input.text();
    startup.database = input.text();
    startup.application_name = input.text();
    startup.options = (mode & 1 != 0).then(|| input.text());
    let secret = input.text();
    startup.credentials.password = Some(Zeroizing::new(secret.clone()));
    let mut parameters = vec![
        ("user", startup.credentials.user.clone()),
        ("database", startup.database.clone()),
        ("application_name", startup.application_name.clone()),
        ("client_encoding", "UTF8".to_owned()),
    ];
    parameters.extend(startup.options.clone().map(|options| ("options", options)));
    let has_nul = parameters.iter().any(|(_, value)| value.contains('\0'));

    let Ok(mut session) = Session::new(startup, SessionLimits::DEFAULT) else {
        return assert!(has_nul, "refused without a reason: {parameters:?}");
    };
    assert!(!has_nul, "a NUL was sent: {parameters:?}");
    let parameters = parameters.into_iter().map(|(name, value)| (name.into(), value.into()));
    let expected = Message::Startup { version: 196_610, parameters: parameters.collect() };
    let output = session.output().to_vec();
    let mut rest = &output[..];
    assert_eq!(read(&mut rest, true), Some(expected));
    assert!(rest.is_empty());
    session.sent(output.len());

    let (request, body): (u8, &[u8]) = match mode >> 1 & 3 {
        0 | 1 => (3, b""),
        2 => (5, b"salt"),
        _ => (10, b"SCRAM-SHA-256\0\0"),
    };
    let mut trace = Trace::default();
    trace.feed(&mut session, &message(b'R', &[&[0, 0, 0, request], body].concat()));
    if request == 3 && secret.contains('\0') {
        assert!(trace.fault.is_some() && trace.output.is_empty(), "half a password was sent");
        return;
    }
    let [Message::Response(body)] = &read_all(&trace.output)[..] else {
        panic!("one answer to one question, not {:?}", trace.output);
    };
    match request {
        3 => assert_eq!(password(body), Some(secret.as_bytes())),
        5 => assert!(password(body).is_some_and(|body| body.len() == 35)),
        _ => {
            let (mechanism, _) = sasl_initial_response(body).expect("well-formed");
            assert_eq!(mechanism, b"SCRAM-SHA-256");
        }
    }
}
