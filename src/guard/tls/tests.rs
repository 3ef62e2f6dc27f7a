//! The channel against rustls's own server over a wire in memory, with as little room as is wanted;
//! and the files.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::*;
use crate::config::RootCert;
use crate::guard::stream::Input;

/// The socket, seen from the client.
#[derive(Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
    /// How much it still takes.
    room: usize,
    /// How much a read gives at most.
    piece: usize,
    is_closed: bool,
}

impl Wire {
    fn new() -> Self {
        Self { room: usize::MAX, piece: usize::MAX, ..Self::default() }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.piece);
        match self.to_client.read(&mut into[..count])? {
            0 if !self.is_closed => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.to_server.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both ends, and what the server has heard.
struct Pair {
    channel: Channel,
    wire: Wire,
    server: ServerConnection,
    heard: Vec<u8>,
}

impl Pair {
    /// Ends that have not begun, with TLS from the first byte.
    fn new() -> Self {
        let options = SslOptions { mode: SslMode::Require, ..SslOptions::default() };
        let config = Arc::new(client_config(&options).unwrap());
        let channel = Channel::new(config, nobody(), SslNegotiation::Direct).unwrap();
        let server = ServerConnection::new(Arc::new(server_config())).unwrap();
        Self { channel, wire: Wire::new(), server, heard: Vec::new() }
    }

    /// Ends that are through with the handshake.
    fn open() -> Self {
        let mut pair = Self::new();
        while !pair.channel.advance(&mut pair.wire).unwrap() {
            pair.serve();
        }
        pair.serve();
        pair
    }

    /// The server reads what is there, and sends what it has.
    fn serve(&mut self) {
        let bytes = std::mem::take(&mut self.wire.to_server);
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            self.server.read_tls(&mut bytes).unwrap();
            self.server.process_new_packets().unwrap();
            // The end of what there is.
            let _ = self.server.reader().read_to_end(&mut self.heard);
        }
        self.send();
    }

    fn send(&mut self) {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.wire.to_client).unwrap();
        }
    }

    fn says(&mut self, bytes: &[u8]) {
        self.server.writer().write_all(bytes).unwrap();
        self.send();
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<Input> {
        self.channel.read(&mut self.wire, into)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.channel.write(&mut self.wire, bytes).unwrap()
    }
}

fn identity() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().der().clone(), key)
}

fn server_config() -> ServerConfig {
    let (certificate, key) = identity();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Bytes that differ from their neighbours.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn the_handshake_goes_through_a_wire_with_room_for_one_byte() {
    let mut pair = Pair::new();
    pair.wire.piece = 1;
    let mut turns = 0;
    loop {
        pair.wire.room = 1;
        if pair.channel.advance(&mut pair.wire).unwrap() {
            break;
        }
        pair.serve();
        turns += 1;
        assert!(turns < 10_000, "it gets nowhere");
    }
    assert!(pair.channel.end_point().is_some_and(|hash| hash.len() == 32));
}

#[test]
fn what_was_taken_arrives_however_little_room_there_is() {
    let mut pair = Pair::open();
    let bytes = noise(500_000);
    let mut taken = 0;
    let mut refused = 0;
    pair.wire.room = 0;
    while taken < bytes.len() || pair.channel.has_unsent() {
        let count = pair.write(&bytes[taken..]);
        taken += count;
        if count == 0 {
            refused += 1;
            assert!(pair.channel.has_unsent() || taken == bytes.len());
            pair.wire.room = 1_000 + refused % 7;
            pair.channel.flush(&mut pair.wire).unwrap();
            pair.serve();
        }
    }
    pair.serve();
    assert!(pair.heard == bytes && refused > 100, "{} of {}", pair.heard.len(), bytes.len());
}

#[test]
fn only_so_much_is_taken_ahead_of_a_wire_without_room() {
    let mut pair = Pair::open();
    pair.wire.room = 0;
    let mut taken = 0;
    while let count @ 1.. = pair.write(&[7; 10_000]) {
        taken += count;
        assert!(taken <= 128 * 1024, "it grows");
    }
    assert_eq!(pair.write(&[7]), 0);
    assert!(pair.channel.has_unsent() && !pair.channel.has_pending());
}

#[test]
fn what_was_decrypted_and_not_taken_is_pending() {
    let mut pair = Pair::open();
    let bytes = noise(10_000);
    pair.says(&bytes);
    let (mut got, mut piece) = (Vec::new(), [0; 700]);
    loop {
        match pair.read(&mut piece).unwrap() {
            Input::Bytes(count) => {
                got.extend_from_slice(&piece[..count]);
                let is_all_decrypted = pair.wire.to_client.is_empty();
                assert_eq!(pair.channel.has_pending(), is_all_decrypted && got.len() < bytes.len());
            }
            Input::Empty => break,
            Input::End => panic!("it goes on"),
        }
    }
    assert!(got == bytes && !pair.channel.has_pending());
    assert_eq!(pair.read(&mut []).unwrap(), Input::Empty, "no room is not an end");
}

#[test]
fn both_kinds_of_end_are_the_end_after_the_last_byte() {
    for says_farewell in [true, false] {
        let mut pair = Pair::open();
        pair.says(b"last");
        if says_farewell {
            pair.server.send_close_notify();
            pair.send();
        }
        pair.wire.is_closed = true;
        let mut piece = [0; 100];
        assert_eq!(pair.read(&mut piece).unwrap(), Input::Bytes(4));
        assert_eq!(pair.read(&mut piece).unwrap(), Input::End);
        assert_eq!(pair.read(&mut piece).unwrap(), Input::End);
    }
}

#[test]
fn a_changed_byte_ends_the_channel_after_what_came_before_it() {
    let mut pair = Pair::open();
    pair.says(b"good");
    let good = pair.wire.to_client.len();
    pair.says(b"changed");
    pair.wire.to_client[good + 7] ^= 1;
    let mut piece = [0; 100];
    assert_eq!(pair.read(&mut piece).unwrap(), Input::Bytes(4));
    assert!(pair.channel.has_pending(), "the error must not be slept on");
    for _ in 0..2 {
        let error = pair.read(&mut piece).unwrap_err();
        assert!(is_trouble(&error), "{error}");
    }
}

#[test]
fn the_farewell_is_said() {
    let mut pair = Pair::open();
    pair.write(b"bye");
    pair.channel.close(&mut pair.wire);
    pair.serve();
    assert_eq!(pair.heard, b"bye");
    let mut rest = Vec::new();
    assert_eq!(pair.server.reader().read(&mut rest).unwrap(), 0, "close_notify");
}

#[test]
fn a_request_is_sent_in_pieces_and_its_answer_is_waited_for() {
    let options = SslOptions { mode: SslMode::Require, ..SslOptions::default() };
    let config = Arc::new(client_config(&options).unwrap());
    let mut channel = Channel::new(config, nobody(), SslNegotiation::Postgres).unwrap();
    let mut wire = Wire { room: 0, ..Wire::new() };
    for sent in 0..8 {
        assert!(!channel.advance(&mut wire).unwrap());
        assert_eq!(wire.to_server.len(), sent);
        wire.room = 1;
    }
    wire.room = 1_000_000;
    assert!(!channel.advance(&mut wire).unwrap());
    assert_eq!(wire.to_server, [0, 0, 0, 8, 4, 210, 22, 47], "and not a byte of TLS");
    wire.to_client.push_back(b'S');
    assert!(!channel.advance(&mut wire).unwrap());
    assert_eq!(wire.to_server[8], 22, "a handshake record");
    assert!(format!("{channel:?}").contains("Handshake"));
}

/// Files of a test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("distlock-tls-unit-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// In a path, it stands for a password that got there.
const CANARY: &str = "c4nary";

fn refusal(options: &SslOptions) -> String {
    match client_config(options) {
        Ok(_) => panic!("taken: {options:?}"),
        Err(error) => {
            assert!(error.is_config(), "{error:?}");
            let text = error.to_string();
            assert!(!text.contains(CANARY) && !text.contains("distlock-tls-unit"), "{text}");
            text
        }
    }
}

#[test]
fn what_a_file_lacks_is_said_with_the_parameter_and_never_with_the_path() {
    let folder = Folder::new(CANARY);
    let (certificate, key) = identity();
    let body = pem("CERTIFICATE", &certificate);
    let (cert, good_key) = (
        folder.write("cert", &body),
        folder.write("key", &pem("PRIVATE KEY", &key.serialize_der())),
    );
    let base = SslOptions { mode: SslMode::Require, ..SslOptions::default() };
    let root = |text: &str| {
        let path = folder.write("root", text);
        SslOptions { root_cert: Some(RootCert::File(path)), ..base.clone() }
    };
    let damaged = body.replace("MII", "M*I");
    for text in [
        "",
        "text",
        &damaged,
        body.trim_end().trim_end_matches('-'),
        &pem("PRIVATE KEY", &key.serialize_der()),
    ] {
        let text = refusal(&root(text));
        assert!(text.contains("the file of sslrootcert cannot be used: expected"), "{text}");
    }
    assert!(client_config(&root(&format!("a comment\n{body}\n{body}"))).is_ok());

    let with_key =
        |key: PathBuf| SslOptions { cert: Some(cert.clone()), key: Some(key), ..base.clone() };
    assert!(client_config(&with_key(good_key)).is_ok());
    let other = pem("PRIVATE KEY", &KeyPair::generate().unwrap().serialize_der());
    let encrypted =
        pem("PRIVATE KEY", &key.serialize_der()).replace("PRIVATE", "ENCRYPTED PRIVATE");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n";
    let rows = [
        (other.as_str(), "not the key of the certificate"),
        (&encrypted, "encrypted"),
        (old, "encrypted"),
        ("", "expected a private key"),
        (&body, "expected a private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "expected an RSA key"),
    ];
    for (text, words) in rows {
        let shown = refusal(&with_key(folder.write("bad", text)));
        assert!(shown.contains("the file of sslkey") && shown.contains(words), "{shown}");
    }
    assert!(refusal(&with_key(folder.0.join("missing"))).contains("cannot be read"));
    assert!(refusal(&with_key(folder.0.clone())).contains("expected a file"));
    let alone = SslOptions { key: None, ..with_key(cert.clone()) };
    assert!(refusal(&alone).contains("sslkey"));
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let folder = Folder::new("modes");
    let (certificate, key) = identity();
    let cert = folder.write("cert", &pem("CERTIFICATE", &certificate));
    let key = folder.write("key", &pem("PRIVATE KEY", &key.serialize_der()));
    let is_root = std::fs::metadata(&key).unwrap().uid() == 0;
    let options = SslOptions {
        mode: SslMode::Require,
        cert: Some(cert),
        key: Some(key.clone()),
        ..SslOptions::default()
    };
    for (mode, is_good) in [
        (0o600, true),
        (0o400, true),
        (0o640, is_root),
        (0o660, false),
        (0o644, false),
        (0o604, false),
        (0o601, false),
    ] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        match is_good {
            true => assert!(client_config(&options).is_ok(), "{mode:o}"),
            false => assert!(refusal(&options).contains("chmod"), "{mode:o}"),
        }
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
    let folder = Folder::new("pipe");
    let pipe = folder.0.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (certificate, _) = identity();
    let base = SslOptions { mode: SslMode::Require, ..SslOptions::default() };
    let cert = Some(folder.write("cert", &pem("CERTIFICATE", &certificate)));
    let rows = [
        SslOptions { root_cert: Some(RootCert::File(pipe.clone())), ..base.clone() },
        SslOptions { cert: Some(pipe.clone()), key: Some(pipe.clone()), ..base.clone() },
        SslOptions { cert, key: Some(pipe), ..base },
    ];
    for options in rows {
        // On a thread: a test that waits for the other end of the pipe would never fail.
        let (told, text) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(refusal(&options)));
        let text = text.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert!(text.contains("expected a file"), "{text}");
    }
}

#[test]
fn a_policy_that_cannot_be_kept_is_refused() {
    let base = SslOptions { mode: SslMode::VerifyFull, ..SslOptions::default() };
    assert!(refusal(&base).contains("sslrootcert"));
    let versions = SslOptions {
        mode: SslMode::Require,
        min_version: TlsVersion::V1_3,
        max_version: TlsVersion::V1_2,
        ..base
    };
    assert!(refusal(&versions).contains("ssl_min_protocol_version"));
    for host in ["", "a b", "-", "h\u{f6}st-c4nary", "fe80::1%eth0"] {
        let text = server_name("the server", host, SslMode::VerifyFull).unwrap_err().to_string();
        assert!(text.contains("the server") && !text.contains(CANARY), "{text}");
        assert!(server_name("the server", host, SslMode::VerifyCa).is_ok(), "{host}");
    }
    for host in ["localhost", "db_1.internal", "10.0.0.1", "::1"] {
        assert!(server_name("the server", host, SslMode::VerifyFull).is_ok(), "{host}");
    }
}

/// In PEM form (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
