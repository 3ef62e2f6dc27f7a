//! Measures distlock next to other clients on a private server, and holds each figure against its
//! goal. `README.md` beside this crate says how each is taken.
//!
//! | arguments | |
//! |---|---|
//! | none | everything, for the table and the chart of the repository |
//! | `--quick` | the same with fewer repeats |
//! | `--only GROUP` | one of `cycle`, `crowd`, `loss`, `flat`, `exact` |

mod clients;
mod crowd;
mod cycle;
mod figure;
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
    measure(&scale, only.as_deref());
    ExitCode::SUCCESS
}

fn measure(scale: &Scale, only: Option<&str>) {
    let wants = |group| only.is_none_or(|only| only == group);
    let mut report = Report::default();
    let cluster = TempCluster::start();
    let server =
        Server { port: cluster.port(), socket_directory: cluster.socket_dir().to_path_buf() };
    if wants("cycle") {
        cycle::run(&server, &mut cluster.sql(), scale.cycle, &mut report);
    }
    if wants("crowd") {
        crowd::run(&server, &mut cluster.sql(), scale.crowd, &mut report);
    }
}
