//! TLS in front of a fake server, so that a client that asks for it can be served when the server
//! has turned good: ends the encryption, and passes on what is inside.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A front that runs.
#[derive(Debug)]
pub struct Front {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long one side is waited for before the other one is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// How long the client may take for its first bytes; it sends them at once.
const PATIENCE: Duration = Duration::from_secs(15);

impl Front {
    /// In front of a port of the loopback address.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn start(behind: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("front".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                if own.load(Ordering::SeqCst) {
                    return;
                }
                // One client at a time. How it ends is the client's to tell.
                let _ = pass_on(client, behind, &own);
            }
        })?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    /// Where it listens, on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What every front has: one certificate, by itself, for clients that do not verify any.
fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key that was made");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate], key)
            })
            .expect("a good certificate");
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Arc::new(config)
    });
    Arc::clone(config)
}

fn pass_on(mut client: TcpStream, behind: u16, stop: &AtomicBool) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_nodelay(true)?;
    let mut first = [0];
    client.peek(&mut first)?;
    // A handshake record, where the client has asked for no answer first.
    if first != [22] {
        let mut request = [0; 8];
        client.read_exact(&mut request)?;
        client.write_all(b"S")?;
    }
    client.set_read_timeout(Some(LOOK))?;
    let connection = ServerConnection::new(config()).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(connection, client);
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, behind))?;
    server.set_read_timeout(Some(LOOK))?;
    server.set_nodelay(true)?;
    let mut space = [0; 4096];
    while !stop.load(Ordering::SeqCst) {
        if let Some(count) = some(client.read(&mut space))? {
            server.write_all(&space[..count])?;
        }
        if let Some(count) = some(server.read(&mut space))? {
            client.write_all(&space[..count])?;
        }
    }
    Ok(())
}

/// What was read; nothing in time is no error, and the end is one.
fn some(read: io::Result<usize>) -> io::Result<Option<usize>> {
    match read {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}
