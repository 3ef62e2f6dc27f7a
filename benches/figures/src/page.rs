//! The run as a page of Markdown, for this directory, and its figures for the README.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chart;
use crate::figure::number;
use crate::report::{Group, Report};

const BEGIN: &str = "<!-- figures:begin -->\n";
const END: &str = "<!-- figures:end -->\n";

/// The lock file, which names the versions that were measured.
const LOCK: &str = include_str!("../Cargo.lock");

/// The other clients.
const CLIENTS: [&str; 3] = ["tokio-postgres", "sqlx", "distributed-lock-postgres"];

/// Where a whole run is kept, and where one with few repeats is.
const PAGE: &str = "FIGURES.md";
const CHART: &str = "figures.svg";
const QUICK: &str = "target/quick";

/// Writes the page and the chart. Those of a run with all repeats are the repository's, and go into
/// its README, too. Returns the directory that they are in.
///
/// # Errors
///
/// Whatever keeps the files from being written.
pub(crate) fn write(report: &Report, server: &str, whole: bool) -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = if whole { home.to_path_buf() } else { home.join(QUICK) };
    let says = |error: std::io::Error| error.to_string();
    fs::create_dir_all(&directory).map_err(says)?;
    fs::write(directory.join(CHART), chart::draw(report)).map_err(says)?;
    fs::write(directory.join(PAGE), page(report, server)).map_err(says)?;
    if whole {
        let path = home.join("../../README.md");
        let readme = fs::read_to_string(&path).map_err(says)?;
        let (before, rest) = readme.split_once(BEGIN).ok_or("README.md has no begin marker")?;
        let (_, after) = rest.split_once(END).ok_or("README.md has no end marker")?;
        let section = section(report, server);
        fs::write(path, format!("{before}{BEGIN}{section}{END}{after}")).map_err(says)?;
    }
    Ok(directory)
}

/// What the README shows.
fn section(report: &Report, server: &str) -> String {
    let mut out = format!("{}\n\n", circumstances(server));
    let _ = writeln!(out, "![cycles and pairs a second, in bars](benches/figures/{CHART})\n");
    out.push_str(&figures(report));
    let _ = writeln!(out, "\nAll rows of the run: [{PAGE}](benches/figures/{PAGE}).");
    out
}

/// Everything.
fn page(report: &Report, server: &str) -> String {
    let mut out = String::from(
        "# The figures\n\n\
         Written by `scripts/bench`; [README.md](README.md) says how each is taken.\n\n",
    );
    let _ = writeln!(out, "{}\n\n![in bars]({CHART})\n", circumstances(server));
    out.push_str(&figures(report));
    for group in &report.groups {
        out.push_str(&rows(group));
    }
    out.push_str("\n## Checks\n\nRatios of a thing to itself, which should be about 1.\n\n");
    for (name, value) in &report.checks {
        let _ = writeln!(out, "* `{name}`: {value:.3}");
    }
    out
}

fn figures(report: &Report) -> String {
    let mut out = String::from("| figure | what | value | goal | |\n|---|---|---|---|---|\n");
    for figure in &report.figures {
        let (value, goal) = (number(figure.value), figure.goal());
        let (unit, goal) = (figure.unit, goal.replace('<', "&lt;").replace('>', "&gt;"));
        let value = if unit == "ratio" { value } else { format!("{value} {unit}") };
        let (name, what, verdict) = (figure.name, figure.what, figure.verdict());
        let _ = writeln!(out, "| `{name}` | {what} | {value} | {goal} | {verdict} |");
    }
    out
}

fn rows(group: &Group) -> String {
    let Group { title, unit, rows } = group;
    let mut out = format!(
        "\n## {title}\n\n| {unit} | p10 | p50 | p90 | p50 to the first | blocks |\n\
         |---|---|---|---|---|---|\n"
    );
    for row in rows {
        let spread = &row.spread;
        let [p10, p50, p90] = [spread.p10, spread.p50, spread.p90].map(number);
        let ratio = spread.p50 / rows[0].spread.p50;
        let (name, count) = (&row.name, spread.count);
        let _ = writeln!(out, "| {name} | {p10} | {p50} | {p90} | {ratio:.3} | {count} |");
    }
    out
}

/// When, where and with what.
fn circumstances(server: &str) -> String {
    let day = said_by("date", &["-u", "+%Y-%m-%d"]);
    let rust = said_by("rustc", &["--version"]);
    let rust = rust.split(" (").next().unwrap_or_default();
    let kernel = said_by("uname", &["-sr"]);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let clients = CLIENTS.map(|name| format!("{name} {}", version(name))).join(", ");
    format!(
        "Measured on {day} with `scripts/bench`: {cores} cores ({}), {kernel}, PostgreSQL {server} \
         on the same machine, {rust}, {clients}. Only ratios within one run say something.",
        processor()
    )
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// The version of a package in the lock file.
fn version(package: &str) -> &'static str {
    let head = format!("name = \"{package}\"\nversion = \"");
    let rest = LOCK.split_once(&head).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or("?")
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "?".to_owned())
}
