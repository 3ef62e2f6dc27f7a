//! Servers that do what no real one does: each connection is served by a story, on a thread of its
//! own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Identity;
use super::server::LIMIT;

/// SSLRequest (manual: protocol-message-formats).
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// An ErrorResponse that ends the connection.
pub(crate) const FATAL: &[u8] = b"E\0\0\0\x33SFATAL\0VFATAL\0C28000\0Mthe words of the server\0\0";

/// Serves connections until the test ends. The port is on 127.0.0.1.
pub(crate) fn serve(story: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let story = Arc::new(story);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let story = Arc::clone(&story);
            stream.set_read_timeout(Some(LIMIT)).expect("a time");
            thread::spawn(move || story(stream));
        }
    });
    port
}

/// A connection string for such a server.
pub(crate) fn url(port: u16, parameters: &str) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname=postgres {parameters}")
}

/// Reads SSLRequest, and answers it with these bytes in one segment.
pub(crate) fn answer(stream: &mut TcpStream, answer: &[u8]) {
    let mut request = [0; 8];
    stream.read_exact(&mut request).expect("a request");
    assert_eq!(request, SSL_REQUEST);
    stream.write_all(answer).expect("the client is there");
}

/// All that still comes, until the client closes.
pub(crate) fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // However it ends: what came is what counts.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// What a server with this certificate needs, that offers these protocols by ALPN.
pub(crate) fn config(identity: &Identity, protocols: &[&str]) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key of the certificate");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The server's end of TLS, from here on.
pub(crate) fn secured(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(Arc::clone(config)).expect("a good configuration");
    StreamOwned::new(connection, stream)
}

/// Reads the first message of a session, which has no type byte.
pub(crate) fn startup_message(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}
