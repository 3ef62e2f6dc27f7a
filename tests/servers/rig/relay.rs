//! A relay in front of a private cluster that mistreats the start of a session, and passes on
//! whatever else comes: old servers and poolers, and proxies that leave messages out.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use distlock::Config;

use super::wire;
use crate::support::TempCluster;

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Passes everything on.
    Fair,
    /// Hangs up on protocol 3.2.
    HangsUpOn3_2,
    /// Refuses protocol 3.2, as PgBouncer before 1.23 does.
    Refuses3_2,
    /// Never answers protocol 3.2.
    IgnoresThe3_2,
    /// Leaves BackendKeyData out.
    HidesTheKey,
    /// Leaves every DataRow out.
    HidesTheRows,
}

/// A running relay. Its threads end with the connections, and the listening one with the process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    asked_3_2: Arc<AtomicU32>,
    treatment: Arc<Mutex<Treatment>>,
}

impl Relay {
    pub fn start(cluster: &TempCluster, treatment: Treatment) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()));
        let asked_3_2 = Arc::new(AtomicU32::new(0));
        let asked = Arc::clone(&asked_3_2);
        let treatment = Arc::new(Mutex::new(treatment));
        let current = Arc::clone(&treatment);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                let treatment = *current.lock().expect("no test fails with it");
                // A connection that breaks is over; the test sees it at the other end.
                thread::spawn(move || serve(client, server, treatment, &asked));
            }
        });
        Self { address, asked_3_2, treatment }
    }

    /// How it treats the connections that come from now on.
    pub fn turns(&self, treatment: Treatment) {
        *self.treatment.lock().expect("no test fails with it") = treatment;
    }

    /// The way through it to the cluster's database `postgres`.
    pub fn config(&self) -> Config {
        let config = Config::new().host("127.0.0.1").port(self.address.port());
        config.user("postgres").dbname("postgres")
    }

    /// How many sessions asked for protocol 3.2.
    pub fn asked_3_2(&self) -> u32 {
        self.asked_3_2.load(Ordering::SeqCst)
    }
}

fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    treatment: Treatment,
    asked: &AtomicU32,
) -> io::Result<()> {
    let (version, startup) = wire::read_startup(&mut client)?;
    if version == wire::VERSION_3_2 {
        asked.fetch_add(1, Ordering::SeqCst);
        match treatment {
            Treatment::HangsUpOn3_2 => return Ok(()),
            Treatment::Refuses3_2 => {
                let text = wire::fatal("08P01", "unsupported protocol version");
                return wire::write(&mut client, b'E', &text);
            }
            // Until the client has gone.
            Treatment::IgnoresThe3_2 => return wire::read(&mut client).map(drop),
            Treatment::Fair | Treatment::HidesTheKey | Treatment::HidesTheRows => {}
        }
    }
    let mut server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(&startup)?;
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Both);
    });
    let result = pass_on(&mut server, &mut client, treatment);
    let _ = client.shutdown(Shutdown::Both);
    result
}

fn pass_on(server: &mut TcpStream, client: &mut TcpStream, treatment: Treatment) -> io::Result<()> {
    loop {
        let message = wire::read(server)?;
        let is_hidden = match treatment {
            Treatment::HidesTheKey => message.kind == b'K',
            Treatment::HidesTheRows => message.kind == b'D',
            _ => false,
        };
        if !is_hidden {
            wire::write(client, message.kind, &message.body)?;
        }
    }
}
