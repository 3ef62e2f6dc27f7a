//! How TLS begins, with SSLRequest and without, and that nothing in clear is ever believed or said
//! in its place (manual: protocol-flow, "SSL Session Encryption").

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use distlock::Error;

use super::authority::{Authority, params, self_signed};
use super::fake::{FATAL, SSL_REQUEST, answer, config, rest, secured, serve, startup_message, url};
use super::server::{LIMIT, Server, fails, works};

const REQUIRE: &str = "sslmode=require";
const DIRECT: &str = "sslmode=require sslnegotiation=direct";

/// A server that answers SSLRequest with these bytes, and tells what came after.
fn answering(bytes: &'static [u8], told: Sender<Vec<u8>>) -> u16 {
    serve(move |mut stream| {
        answer(&mut stream, bytes);
        let _ = told.send(rest(&mut stream));
    })
}

/// That the answer is refused, with these words, and with nothing said after it.
#[track_caller]
fn refused(bytes: &'static [u8], words: &[&str]) -> Error {
    let (told, heard) = channel();
    let error = fails(&url(answering(bytes, told), REQUIRE), words);
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    let said = heard.recv_timeout(LIMIT).expect("the client has closed");
    assert!(said.is_empty(), "said after the answer: {said:?}");
    error
}

#[test]
fn a_server_that_says_no_is_told_nothing_more() {
    refused(b"N", &["the server has no TLS"]);
}

#[test]
fn the_text_of_an_error_before_tls_is_not_shown() {
    let error = refused(FATAL, &["with an error", "anybody may have sent it"]);
    let text = format!("{error} {error:?}");
    assert!(!text.contains("words") && !text.contains("28000"), "{text}");
}

#[test]
fn any_other_answer_is_refused() {
    for answer in [&b"H"[..], b"s", b"\x15\x03\x01", b"\0", b"R\0\0\0\x08\0\0\0\0"] {
        refused(answer, &["is this a PostgreSQL server"]);
    }
}

#[test]
fn bytes_behind_the_yes_are_an_alarm() {
    for stuffed in [&b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"[..], b"S\x16", b"SS"] {
        refused(stuffed, &["bytes came before the TLS handshake"]);
    }
}

#[test]
fn a_server_that_hangs_up_on_the_question_is_told_of() {
    let port = serve(|mut stream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 8]);
    });
    fails(&url(port, REQUIRE), &["closed the connection", "request for TLS"]);
    let port = serve(|mut stream| {
        answer(&mut stream, b"S");
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
    });
    fails(&url(port, REQUIRE), &["in the midst of the TLS handshake"]);
}

#[test]
fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    let silent = serve(|mut stream| drop(rest(&mut stream)));
    let half = serve(|mut stream| {
        answer(&mut stream, b"S");
        rest(&mut stream);
    });
    for port in [silent, half] {
        for mode in [REQUIRE, DIRECT] {
            let error = fails(&url(port, &format!("{mode} connect_timeout=1")), &[]);
            assert!(matches!(error, Error::Connect { .. }), "{error:?}");
        }
    }
}

#[test]
fn what_is_no_tls_is_refused_in_the_handshake() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], FATAL, &[0; 100]] {
        let port = serve(move |mut stream| {
            answer(&mut stream, b"S");
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = stream.write_all(garbage);
            rest(&mut stream);
        });
        fails(&url(port, REQUIRE), &["what came is not TLS"]);
    }
}

/// A server that speaks TLS from the first byte, and refuses the session with an error.
fn direct(protocols: &[&str], told: Sender<Hello>) -> u16 {
    let config = Arc::new(config(&self_signed(&params()), protocols));
    serve(move |stream| {
        let mut stream = secured(stream, &config);
        let Ok(startup) = startup_message(&mut stream) else { return };
        let name = stream.conn.server_name().map(str::to_owned);
        let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        let _ = told.send(Hello { startup, name, protocol });
        let _ = stream.write_all(FATAL);
        stream.conn.send_close_notify();
        let _ = stream.flush();
        rest(&mut stream);
    })
}

/// What a fake server learns of a client.
struct Hello {
    startup: Vec<u8>,
    name: Option<String>,
    protocol: Option<Vec<u8>>,
}

#[test]
fn direct_negotiation_reaches_a_server_that_names_the_protocol() {
    let (told, heard) = channel();
    let error = fails(&url(direct(&["http/1.1", "postgresql"], told), DIRECT), &["28000"]);
    assert!(error.is_auth() && error.to_string().contains("the words of the server"), "{error}");
    let hello = heard.recv_timeout(LIMIT).expect("it was spoken to");
    assert_eq!(hello.protocol.as_deref(), Some(&b"postgresql"[..]));
    // The StartupMessage: the version, and the first parameter.
    assert!(hello.startup[..2] == [0, 3] && hello.startup[4..].starts_with(b"user\0"));
}

#[test]
fn direct_negotiation_refuses_a_server_that_does_not() {
    let (told, heard) = channel();
    fails(&url(direct(&[], told.clone()), DIRECT), &["sslnegotiation", "ALPN"]);
    fails(&url(direct(&["http/1.1"], told), DIRECT), &["another protocol"]);
    assert!(heard.try_recv().is_err(), "it was spoken to");
}

/// PostgreSQL before 17 takes the first byte of TLS for the length of a message.
#[test]
fn direct_negotiation_with_a_server_that_waits_for_the_request_fails_with_a_reason() {
    let port = serve(|mut stream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
    });
    fails(&url(port, DIRECT), &["in the midst of the TLS handshake", "does the server have TLS"]);
}

#[test]
fn direct_negotiation_is_for_the_servers_that_have_it() {
    let server = Server::of(&Authority::new("ours"), &params());
    let number = server.sql().value("SHOW server_version_num").expect("a number");
    let direct = format!("{} sslnegotiation=direct", server.verified());
    if number.parse::<u32>().expect("a number") >= 170_000 {
        let manager = works(&direct);
        assert!(server.tls_version().is_some());
        manager.close();
    } else {
        fails(&direct, &["in the midst of the TLS handshake"]);
    }
}

#[test]
fn direct_negotiation_does_not_ask_first() {
    let (told, heard) = channel();
    let port = serve(move |mut stream| {
        let mut first = [0; 8];
        std::io::Read::read_exact(&mut stream, &mut first).expect("the first bytes");
        let _ = told.send(first);
    });
    fails(&url(port, DIRECT), &["TLS"]);
    let first = heard.recv_timeout(LIMIT).expect("it was spoken to");
    assert_ne!(first, SSL_REQUEST);
    // A handshake record with a ClientHello (RFC 8446 section 5.1).
    assert!(first[0] == 22 && first[5] == 1, "{first:?}");
}

#[test]
fn the_server_is_told_the_host_unless_it_is_an_address_or_not_to_be_told() {
    let rows = [
        ("host=localhost", Some("localhost")),
        ("host=localhost sslsni=0", None),
        ("host=127.0.0.1", None),
    ];
    for (parameters, expected) in rows {
        let (told, heard) = channel();
        let port = direct(&["postgresql"], told);
        // The last `host` counts.
        fails(&url(port, &format!("{DIRECT} {parameters}")), &["28000"]);
        let hello = heard.recv_timeout(LIMIT).expect("it was spoken to");
        assert_eq!(hello.name.as_deref(), expected, "{parameters}");
    }
}

/// How long rustls's NewSessionTicket messages are.
const TICKET: usize = 81;

#[test]
fn a_flood_of_tls_with_nothing_in_it_ends_the_connection() {
    let mut config = config(&self_signed(&params()), &["postgresql"]);
    config.send_tls13_tickets = 20_000;
    // Each record ends where a ticket does, and so is whole.
    config.max_fragment_size = Some(100 * TICKET + 5);
    let config = Arc::new(config);
    let port = serve(move |stream| {
        let mut stream = secured(stream, &config);
        let _ = startup_message(&mut stream);
        rest(&mut stream);
    });
    // That there is nothing in them, or, with records cut elsewhere, that they have no end.
    fails(&url(port, DIRECT), &["TLS"]);
}

#[test]
fn the_last_words_before_a_broken_stream_are_heard() {
    let config = Arc::new(config(&self_signed(&params()), &["postgresql"]));
    let port = serve(move |stream| {
        let mut stream = secured(stream, &config);
        if startup_message(&mut stream).is_err() {
            return;
        }
        // Encrypted words, and bytes that are none in the same segment.
        let _ = stream.conn.writer().write_all(FATAL);
        let mut bytes = Vec::new();
        while stream.conn.wants_write() {
            let _ = stream.conn.write_tls(&mut bytes);
        }
        bytes.extend_from_slice(b"in clear");
        let _ = stream.sock.write_all(&bytes);
        rest(&mut stream.sock);
    });
    fails(&url(port, DIRECT), &["the words of the server"]);
}

/// The same server, that lets go without TLS's farewell: the end of the connection is an end.
#[test]
fn an_end_without_a_farewell_is_an_end() {
    let config = Arc::new(config(&self_signed(&params()), &["postgresql"]));
    let port = serve(move |stream| drop(startup_message(&mut secured(stream, &config))));
    fails(&url(port, DIRECT), &["the server closed the connection"]);
}

#[test]
fn a_real_server_is_not_tried_in_clear_after_tls_has_failed() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let builder = super::support::TempCluster::builder().setting("log_connections", "on");
    let server = Server::with(builder, &ours, &theirs.sign(&params()));
    fails(&server.verified(), &["certificate is not accepted"]);
    let log = server.cluster.log();
    assert!(!log.contains("application_name=distlock"), "{log}");
}
