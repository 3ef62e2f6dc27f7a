//! Pgpool-II in front of a private cluster (its manual: runtime-config).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use distlock::Config;

use super::process::{Launch, Process, program};
use crate::support::{Scratch, Sql, TempCluster, free_port};

/// A running Pgpool-II.
#[derive(Debug)]
pub struct Pgpool {
    _process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Pgpool {
    /// In front of these servers, of which the first is the primary. `more` are settings.
    pub fn start(servers: &[&TempCluster], more: &str) -> Self {
        let scratch = Scratch::new();
        loop {
            let (port, pcp_port) = (free_port(), free_port());
            let settings = settings(&scratch, servers, port, pcp_port, more);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let launch = Launch {
                program: &program("pgpool", "pgpool2"),
                // In the foreground, and without the state of an earlier run.
                args: ["-n", "-D", "-f", &settings.display().to_string()]
                    .map(str::to_owned)
                    .to_vec(),
                // Its fast shutdown.
                end: "INT",
            };
            let answers = || Sql::connect_tcp(address, "postgres", "postgres").is_ok();
            match Process::start(&scratch, &launch, answers) {
                Ok(process) => return Self { _process: process, port, _scratch: scratch },
                // Somebody took the port since we looked.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("Pgpool-II does not start: {log}"),
            }
        }
    }

    /// The way through it to the cluster's database `postgres`.
    pub fn config(&self) -> Config {
        Config::new().host("127.0.0.1").port(self.port).user("postgres").dbname("postgres")
    }
}

fn settings(
    scratch: &Scratch,
    servers: &[&TempCluster],
    port: u16,
    pcp_port: u16,
    more: &str,
) -> PathBuf {
    let dir = scratch.path().display();
    // `socket_dir` was renamed in 4.4, and the other name is passed over by each.
    let mut text = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\n\
         pcp_listen_addresses = '127.0.0.1'\npcp_port = {pcp_port}\n\
         socket_dir = '{dir}'\nunix_socket_directories = '{dir}'\n\
         pcp_socket_dir = '{dir}'\nwd_ipc_socket_dir = '{dir}'\n\
         pid_file_name = '{dir}/pgpool.pid'\nlogdir = '{dir}'\n\
         enable_pool_hba = off\npool_passwd = ''\n\
         backend_clustering_mode = 'streaming_replication'\n\
         sr_check_period = 0\nhealth_check_period = 0\nuse_watchdog = off\n\
         failover_on_backend_shutdown = off\n\
         num_init_children = 8\nmax_pool = 1\n"
    );
    for (n, server) in servers.iter().enumerate() {
        let flag = if n == 0 { "ALWAYS_PRIMARY" } else { "" };
        text.push_str(&format!(
            "backend_hostname{n} = '127.0.0.1'\nbackend_port{n} = {}\n\
             backend_flag{n} = '{flag}'\nbackend_data_directory{n} = '{dir}'\n",
            server.port()
        ));
    }
    // The last one of a name counts.
    text.push_str(more);
    text.push('\n');
    let path = scratch.path().join("pgpool.conf");
    fs::write(&path, text).expect("cannot write the settings");
    path
}
