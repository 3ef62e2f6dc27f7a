//! A relay in front of a cluster that passes everything on and notes what the client says: the type
//! byte of each message, in order (manual: protocol-message-formats). It can also fall silent.
#![allow(dead_code, reason = "each binary uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use distlock::Config;

use crate::support::TempCluster;

/// A running relay. Its threads end with the connections, and the listening one with the process.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    line: Arc<Line>,
}

/// What all of its connections share.
#[derive(Debug, Default)]
struct Line {
    said: Mutex<String>,
    is_cut: AtomicBool,
}

impl Relay {
    pub(crate) fn start(cluster: &TempCluster) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()));
        let line = Arc::new(Line::default());
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let line = Arc::clone(&shared);
                // A connection that breaks is over; the test sees it at the other end.
                thread::spawn(move || serve(client, server, &line));
            }
        });
        Self { address, line }
    }

    /// The way through it to the cluster's database `postgres`. Without the witness, whose goodbye
    /// may come at any time.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new().host("127.0.0.1").port(self.address.port());
        config.user("postgres").dbname("postgres").witness(false)
    }

    /// What was said since the last time this was asked.
    pub(crate) fn said(&self) -> String {
        std::mem::take(&mut self.line.said.lock().expect("no test fails with it"))
    }

    /// From now on nothing gets through, and no end does either: as if the cable was cut.
    pub(crate) fn cut(&self) {
        self.line.is_cut.store(true, Ordering::SeqCst);
    }
}

impl Line {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Passes on what the server says, until it or the line ends.
    fn pass_down(&self, server: &mut TcpStream, client: &mut TcpStream) -> io::Result<()> {
        let mut bytes = [0; 8192];
        loop {
            let count = server.read(&mut bytes)?;
            if count == 0 || self.is_cut() {
                return Ok(());
            }
            client.write_all(&bytes[..count])?;
        }
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, line: &Arc<Line>) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut up, mut down) = (server.try_clone()?, client.try_clone()?);
    let shared = Arc::clone(line);
    thread::spawn(move || {
        let _ = shared.pass_down(&mut up, &mut down);
        if !shared.is_cut() {
            let _ = down.shutdown(Shutdown::Both);
        }
    });
    // The StartupMessage has no type byte.
    let mut head = vec![0; 4];
    loop {
        client.read_exact(&mut head)?;
        let (kind, length) = head.split_at(head.len() - 4);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body)?;
        if line.is_cut() {
            head.resize(5, 0);
            continue;
        }
        // Noted before it is passed on: who has the answer finds the note.
        let mut said = line.said.lock().expect("no test fails with it");
        said.extend(kind.iter().map(|it| char::from(*it)));
        drop(said);
        server.write_all(&[&head[..], &body].concat())?;
        head.resize(5, 0);
    }
}
