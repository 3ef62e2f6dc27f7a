//! A relay in front of a cluster that passes everything on and notes what the client says: the type
//! byte of each message, in order (manual: protocol-message-formats).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use distlock::Config;

use crate::support::TempCluster;

/// A running relay. Its threads end with the connections, and the listening one with the process.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Relay {
    pub(crate) fn start(cluster: &TempCluster) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()));
        let said = Arc::new(Mutex::new(String::new()));
        let notes = Arc::clone(&said);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                // A connection that breaks is over; the test sees it at the other end.
                thread::spawn(move || serve(client, server, &notes));
            }
        });
        Self { address, said }
    }

    /// The way through it to the cluster's database `postgres`.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new().host("127.0.0.1").port(self.address.port());
        config.user("postgres").dbname("postgres")
    }

    /// What was said since the last time this was asked.
    pub(crate) fn said(&self) -> String {
        std::mem::take(&mut self.said.lock().expect("no test fails with it"))
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, notes: &Mutex<String>) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (mut up, mut down) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Both);
    });
    // The StartupMessage has no type byte.
    let mut head = vec![0; 4];
    loop {
        client.read_exact(&mut head)?;
        let (kind, length) = head.split_at(head.len() - 4);
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body)?;
        // Noted before it is passed on: who has the answer finds the note.
        notes.lock().expect("no test fails with it").extend(kind.iter().map(|it| char::from(*it)));
        server.write_all(&[&head[..], &body].concat())?;
        head.resize(5, 0);
    }
}
