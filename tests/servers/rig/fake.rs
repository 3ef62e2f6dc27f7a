//! A server that grants every lock to everybody, as the stubs of some engines do. It answers the
//! statements of the library, each connection as a process of its own, and nothing else.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use distlock::Config;

use super::wire;

/// How it shows itself.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// The answer of `version()`.
    pub version: &'static str,
    /// A ParameterStatus that no PostgreSQL sends.
    pub parameter: Option<(&'static str, &'static str)>,
    /// How many locks `pg_locks` shows, whatever is held.
    pub listed: &'static str,
}

impl Manners {
    /// Nothing gives it away but its locks.
    pub const HIDDEN: Self =
        Self { version: "PostgreSQL 15.18 on x86_64-pc-linux-gnu", parameter: None, listed: "1" };
}

/// A running fake. Its threads end with the connections, and the listening one with the process.
#[derive(Debug)]
pub struct Fake {
    address: SocketAddr,
}

impl Fake {
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        thread::spawn(move || {
            for (process, client) in (1_000_u32..).zip(listener.incoming().flatten()) {
                // A connection that breaks is over; the test sees it at the other end.
                thread::spawn(move || serve(client, process, manners));
            }
        });
        Self { address }
    }

    pub fn config(&self) -> Config {
        let config = Config::new().host("127.0.0.1").port(self.address.port());
        config.user("postgres").dbname("postgres")
    }
}

fn serve(mut client: TcpStream, process: u32, manners: Manners) -> io::Result<()> {
    client.set_nodelay(true)?;
    wire::read_startup(&mut client)?;
    // AuthenticationOk, what it says about itself, BackendKeyData, ReadyForQuery. A key of four
    // bytes is good in protocol 3.0 and in 3.2.
    wire::write(&mut client, b'R', &0_u32.to_be_bytes())?;
    let parameters = [Some(("server_version", "15.18")), manners.parameter];
    for (name, value) in parameters.into_iter().flatten() {
        wire::write(&mut client, b'S', format!("{name}\0{value}\0").as_bytes())?;
    }
    let key = [process.to_be_bytes(), [1, 2, 3, 4]].concat();
    wire::write(&mut client, b'K', &key)?;
    wire::write(&mut client, b'Z', b"I")?;

    let mut statements = HashMap::new();
    let mut bound = (String::new(), Vec::new());
    let mut token = String::new();
    loop {
        let message = wire::read(&mut client)?;
        match message.kind {
            b'P' => {
                let (name, statement) = wire::parse_texts(&message.body);
                statements.insert(name, statement);
                wire::write(&mut client, b'1', &[])?;
            }
            b'B' => {
                let (name, values) = wire::bind_values(&message.body);
                let statement = statements.get(&name).cloned().unwrap_or_default();
                if statement.contains("version()") {
                    token = String::from_utf8_lossy(&values[0]).into_owned();
                }
                bound = (statement, values);
                wire::write(&mut client, b'2', &[])?;
            }
            b'E' => {
                let row = answer(&bound.0, &bound.1, process, &token, manners);
                wire::write(&mut client, b'D', &row)?;
                wire::write(&mut client, b'C', b"SELECT 1\0")?;
            }
            b'S' => wire::write(&mut client, b'Z', b"I")?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

/// The row that a statement returns.
fn answer(
    statement: &str,
    values: &[Vec<u8>],
    process: u32,
    token: &str,
    manners: Manners,
) -> Vec<u8> {
    let process = process.to_string();
    let texts: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
    if statement.contains("version()") {
        let version = manners.version;
        let row = [&process, version, "false", "", token, "true", "off", "64", "100", "0"];
        wire::data_row(&row)
    } else if statement.contains("search_path") {
        let mut row = vec!["pg_catalog", "0", &texts[0], "on", "read committed"];
        row.extend(texts[1..].iter().take(4).map(AsRef::as_ref));
        let times: Vec<_> = texts.iter().skip(5).map(|text| format!("{text}ms")).collect();
        row.extend(times.iter().map(String::as_str));
        wire::data_row(&row)
    } else if statement.contains("pg_locks") {
        wire::data_row(&[&process, token, manners.listed])
    } else if statement.contains("pg_backend_pid") {
        wire::data_row(&[&process, "true"])
    } else {
        // The lock statements ask for binary results: a boolean is one byte.
        let is_binary_or_text = "\u{1}";
        wire::data_row(&[is_binary_or_text])
    }
}
