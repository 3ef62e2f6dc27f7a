//! PgBouncer in front of a private cluster, in each of its pool modes (its manual: config).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use distlock::Config;

use super::process::{Launch, Process, program};
use crate::support::{Scratch, Sql, TempCluster, free_port};

/// For how long a server connection belongs to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
    Statement,
}

impl PoolMode {
    pub const ALL: [Self; 3] = [Self::Session, Self::Transaction, Self::Statement];

    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// A running PgBouncer.
#[derive(Debug)]
pub struct PgBouncer {
    process: Option<Process>,
    port: u16,
    scratch: Scratch,
}

impl PgBouncer {
    /// In front of `cluster`. `more` are lines of its `[pgbouncer]` section.
    pub fn start(cluster: &TempCluster, mode: PoolMode, more: &str) -> Self {
        let scratch = Scratch::new();
        let mut bouncer = Self { process: None, port: 0, scratch };
        loop {
            bouncer.port = free_port();
            bouncer.write_settings(cluster, mode, more);
            match bouncer.launch() {
                Ok(()) => return bouncer,
                // Somebody took the port since we looked.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("PgBouncer does not start: {log}"),
            }
        }
    }

    /// The way through it to the cluster's database `postgres`.
    pub fn config(&self) -> Config {
        Config::new().host("127.0.0.1").port(self.port).user("postgres").dbname("postgres")
    }

    /// A connection of the observer through it.
    pub fn sql(&self, user: &str) -> Sql {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        Sql::connect_tcp(address, user, "postgres").expect("the observer connects")
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("kill9: it does not run").kill9();
    }

    /// Starts it again after [`kill9`](Self::kill9), on the same port.
    pub fn start_again(&mut self) {
        self.launch().unwrap_or_else(|log| panic!("PgBouncer does not start again: {log}"));
    }

    fn write_settings(&self, cluster: &TempCluster, mode: PoolMode, more: &str) {
        let (mode, port, server) = (mode.name(), self.port, cluster.port());
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\n{more}\n",
            self.users().display()
        );
        fs::write(self.settings(), settings).expect("cannot write the settings");
        let users = ["postgres", "app"].map(|user| format!("\"{user}\" \"\"\n")).concat();
        fs::write(self.users(), users).expect("cannot write the users");
    }

    fn launch(&mut self) -> Result<(), String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let launch = Launch {
            program: &program("pgbouncer", "pgbouncer"),
            args: vec![self.settings().display().to_string()],
            end: "TERM",
        };
        // Its own database: no connection of the pool is made for this look.
        let answers = || match Sql::connect_tcp(address, "postgres", "pgbouncer") {
            Ok(_) => true,
            Err((sqlstate, _)) => sqlstate != "08006",
        };
        self.process = Some(Process::start(&self.scratch, &launch, answers)?);
        Ok(())
    }

    fn settings(&self) -> std::path::PathBuf {
        self.scratch.path().join("pgbouncer.ini")
    }

    fn users(&self) -> std::path::PathBuf {
        self.scratch.path().join("users.txt")
    }
}
