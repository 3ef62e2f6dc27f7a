//! The runs as Markdown: a short table for the repository's README, and a long one with each run
//! that is not as it should be for `VECTORS.md` beside this crate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::attack::Run;
use crate::clients::Client;
use crate::verdict::Verdict;

const BEGIN: &str = "<!-- vectors:begin -->\n";
const END: &str = "<!-- vectors:end -->\n";

/// The lock file, which names the versions that were measured.
const LOCK: &str = include_str!("../Cargo.lock");

/// Vectors that were left out, and why.
type Left = [(String, &'static str)];

/// One run, in a line.
pub(crate) fn line(run: &Run) -> String {
    let details = run.details.join(" | ");
    format!("{} {}: {} | {details}", run.client.name(), run.vector, run.verdict.word())
}

/// Writes the tables into the files.
pub(crate) fn write(runs: &[Run], left: &Left) -> Result<(), String> {
    let broken: Vec<String> =
        runs.iter().filter(|run| run.verdict == Verdict::Broken).map(line).collect();
    if !broken.is_empty() {
        return Err(format!("runs that say nothing:\n{}", broken.join("\n")));
    }
    let path = crate::root().join("README.md");
    let readme = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let (before, rest) = readme.split_once(BEGIN).ok_or("README.md has no begin marker")?;
    let (_, after) = rest.split_once(END).ok_or("README.md has no end marker")?;
    let readme = format!("{before}{BEGIN}{}{END}{after}", short(runs, left));
    fs::write(path, readme).map_err(|error| error.to_string())?;
    let path = crate::root().join("benches/peers/VECTORS.md");
    fs::write(path, long(runs, left)?).map_err(|error| error.to_string())
}

/// Totals.
pub(crate) fn short(runs: &[Run], left: &Left) -> String {
    let mut out = String::new();
    let mut say = |line: &str| out.push_str(&format!("{line}\n"));
    let count = runs.iter().filter(|run| run.client == Client::Distlock).count();
    say(&format!(
        "Measured on {}, {count} of the {} vectors; the others say nothing of other clients.\n",
        today(),
        count + left.len()
    ));
    say(&format!("| client | {} |", Verdict::ALL.map(Verdict::word).join(" | ")));
    say(&format!("|---|{}", "---|".repeat(Verdict::ALL.len())));
    for client in Client::ALL {
        let mut cells = Vec::with_capacity(Verdict::ALL.len());
        for verdict in Verdict::ALL {
            let is_it = |run: &&Run| run.client == client && run.verdict == verdict;
            cells.push(runs.iter().filter(is_it).count().to_string());
        }
        say(&format!("| {} {} | {} |", client.name(), version(client.name()), cells.join(" | ")));
    }
    out
}

/// Everything.
fn long(runs: &[Run], left: &Left) -> Result<String, String> {
    let mut out = String::from(
        "# The attack vectors, replayed to other clients\n\n\
         Written by `scripts/peers --write`; [README.md](README.md) explains the words.\n\n",
    );
    out.push_str(&short(runs, left));
    out.push_str("\n## By class\n\n");
    out.push_str(&by_class(runs)?);
    out.push_str("\n## What is not as it should be\n");
    for client in Client::ALL {
        let mut table = String::from("\n| vector | verdict | what was seen |\n|---|---|---|\n");
        let mut count = 0;
        for run in runs.iter().filter(|run| run.client == client) {
            if run.verdict == Verdict::Fine {
                continue;
            }
            count += 1;
            let details = cell(&run.details.join("; "));
            let word = run.verdict.word();
            let _ = writeln!(table, "| {} | {word} | {details} |", run.vector);
        }
        let _ = writeln!(out, "\n### {} {}", client.name(), version(client.name()));
        out.push_str(if count == 0 { "\nNothing.\n" } else { &table });
    }
    out.push_str("\n## Left out, for every client\n\n| why | vectors |\n|---|---|\n");
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (vector, why) in left {
        reasons.entry(why).or_default().push(vector);
    }
    for (why, vectors) in reasons {
        let _ = writeln!(out, "| {why} | {} |", vectors.join(", "));
    }
    Ok(out)
}

fn by_class(runs: &[Run]) -> Result<String, String> {
    let titles = titles()?;
    let names = Client::ALL.map(Client::name).join(" | ");
    let mut out = format!("| class | attack | vectors | {names} |\n|---|---|---|---|---|---|\n");
    let mut classes: Vec<u32> = runs.iter().map(|run| number(&run.class)).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes {
        let mut cells = Vec::with_capacity(Client::ALL.len());
        let mut total = 0;
        for client in Client::ALL {
            let of_it = |run: &&Run| run.client == client && number(&run.class) == class;
            let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
            runs.iter().filter(of_it).for_each(|run| {
                *counts.entry(run.verdict).or_default() += 1;
            });
            total = counts.values().sum();
            let words: Vec<String> = counts
                .iter()
                .map(|(verdict, count)| format!("{count} {}", verdict.word()))
                .collect();
            cells.push(words.join(", "));
        }
        let title = titles.get(&class).map_or("", String::as_str);
        let _ = writeln!(out, "| A{class} | {title} | {total} | {} |", cells.join(" | "));
    }
    Ok(out)
}

fn number(class: &str) -> u32 {
    class.trim_start_matches('A').parse().unwrap_or(0)
}

/// The names of the classes, from the table that explains them.
fn titles() -> Result<BTreeMap<u32, String>, String> {
    let path = crate::root().join("tests/vectors/README.md");
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut titles = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| A")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        for pair in cells.chunks_exact(2).filter(|pair| pair[0].starts_with('A')) {
            titles.insert(number(pair[0]), pair[1].to_owned());
        }
    }
    Ok(titles)
}

/// A text that ends no cell, and shows no path of this machine.
fn cell(text: &str) -> String {
    let mut words = Vec::new();
    for word in text.split(' ') {
        // Of a source file in the registry's folder: crate and file are enough.
        words.push(match word.split_once("/registry/src/") {
            Some((_, path)) => path.split_once('/').map_or(path, |(_, path)| path),
            None => word,
        });
    }
    words.join(" ").replace('|', "\\|").replace('<', "&lt;")
}

/// The version of a package in the lock file.
fn version(package: &str) -> &'static str {
    let head = format!("name = \"{package}\"\nversion = \"");
    let rest = LOCK.split_once(&head).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or("?")
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "an unknown day".into())
}
