//! Measures distlock next to other clients on a private server, and holds each figure against its
//! goal. `README.md` beside this crate says how each is taken.
//!
//! | arguments | |
//! |---|---|
//! | none | everything, for the table and the chart of the repository |
//! | `--quick` | the same with fewer repeats |
//! | `--only GROUP` | one of `cycle`, `crowd`, `loss`, `flat`, `exact` |

mod chart;
mod clients;
mod crowd;
mod cycle;
mod exact;
mod figure;
mod flat;
mod holding;
mod loss;
mod page;
#[path = "../../raw/mod.rs"]
mod raw;
mod report;
mod scale;
mod spread;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod turns;

use std::process::ExitCode;

use clients::Server;
use exact::Idle;
use report::Report;
use scale::Scale;
use support::TempCluster;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut scale = Scale::FULL;
    let mut only = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--quick" => scale = Scale::QUICK,
            "--only" => only = rest.next().cloned(),
            _ => {
                eprintln!("usage: figures [--quick] [--only cycle|crowd|loss|flat|exact]");
                return ExitCode::FAILURE;
            }
        }
    }
    let (report, server) = measure(&scale, only.as_deref());
    let met = report.figures.iter().filter(|figure| figure.is_met()).count();
    println!("\n{met} of {} figures are ok", report.figures.len());
    if only.is_some() {
        return ExitCode::SUCCESS;
    }
    match page::write(&report, &server, scale.is_whole) {
        Ok(directory) => {
            println!("table and chart: {}", directory.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: the table and the chart cannot be written: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Locks that the server has room for: those of `flat`, and some more.
const SERVER_LOCKS_PER_SESSION: &str = "4096";

/// The report, and the version of the server.
fn measure(scale: &Scale, only: Option<&str>) -> (Report, String) {
    let wants = |group| only.is_none_or(|only| only == group);
    let mut report = Report::default();
    let cluster = TempCluster::start();
    let server = server(&cluster);
    let idle = wants("exact").then(|| Idle::start(&server, scale.exact));
    if wants("cycle") {
        cycle::run(&server, &mut cluster.sql(), scale.cycle, &mut report);
    }
    if wants("crowd") {
        crowd::run(&server, &mut cluster.sql(), scale.crowd, &mut report);
    }
    let builder = TempCluster::builder();
    let large = builder.setting("max_locks_per_transaction", SERVER_LOCKS_PER_SESSION).start();
    let roomy = self::server(&large);
    if wants("loss") {
        loss::run(&roomy, &mut large.sql(), scale.losses, &mut report);
    }
    if wants("flat") {
        flat::run(&roomy, scale.flat, &mut report);
    }
    if wants("exact") {
        exact::run(&roomy, scale.exact, &mut report);
    }
    if let Some(idle) = idle {
        idle.finish(&mut report);
    }
    let version = cluster.sql().value("SHOW server_version").expect("it has a version");
    (report, version.split(' ').next().unwrap_or_default().to_owned())
}

fn server(cluster: &TempCluster) -> Server {
    Server { port: cluster.port(), socket_directory: cluster.socket_dir().to_path_buf() }
}
