//! The timeline that the demonstration prints, and its verdict. Knows nothing of locks.

use std::io::{self, Write};
use std::time::Duration;

use crate::wire::Moment;

/// How wide the column of the text is; longer ones go on in the next line.
const TEXT_WIDTH: usize = 66;

/// Prints as things happen, and keeps what the summary is made of.
pub(crate) struct Board {
    begin: Moment,
    figures: Vec<(String, Duration)>,
    met: u32,
    failed: Vec<String>,
}

impl Board {
    /// Time zero.
    pub(crate) fn new() -> Self {
        print_row(["time", "check", "who", "what", "measured"]);
        Self { begin: Moment::now(), figures: Vec::new(), met: 0, failed: Vec::new() }
    }

    /// The title of the next part.
    pub(crate) fn section(&self, title: &str) {
        print(&format!("\n{title}"));
    }

    /// Something that happened to `who` at a moment, which may lie back a little.
    pub(crate) fn line(&self, at: Moment, who: &str, what: &str) {
        self.row(at, "", who, what, None);
    }

    /// Something that has just ended, and took a while.
    pub(crate) fn measured(&self, who: &str, what: &str, took: Duration) {
        self.row(Moment::now(), "", who, what, Some(took));
    }

    /// One of the figures that the demonstration is about; the summary repeats it.
    pub(crate) fn figure(&mut self, what: &str, took: Duration) {
        self.measured("demo", what, took);
        self.figures.push((what.to_owned(), took));
    }

    /// An expectation.
    pub(crate) fn check(&mut self, is_met: bool, what: &str) {
        if is_met {
            self.met += 1;
            self.row(Moment::now(), "ok", "", what, None);
        } else {
            self.failed.push(what.to_owned());
            self.row(Moment::now(), "FAILED", "", what, None);
        }
    }

    /// Prints the summary. True when every expectation was met.
    pub(crate) fn conclude(&self) -> bool {
        print("\nSummary");
        for (what, took) in &self.figures {
            print(&format!("  {what:<30} {:>12}", in_ms(*took)));
        }
        for what in &self.failed {
            print(&format!("  FAILED: {what}"));
        }
        let all = self.met as usize + self.failed.len();
        let seconds = Moment::now().since(self.begin).as_secs_f64();
        print(&format!("  {} of {all} expectations met, in {seconds:.1} s", self.met));
        self.failed.is_empty()
    }

    fn row(&self, at: Moment, check: &str, who: &str, what: &str, took: Option<Duration>) {
        let seconds = format!("{:.3}", at.since(self.begin).as_secs_f64());
        let took = took.map_or_else(String::new, in_ms);
        let mut lines = wrapped(what).into_iter();
        let first = lines.next().unwrap_or_default();
        print_row([&seconds, check, who, &first, &took]);
        for line in lines {
            print_row(["", "", "", &line, ""]);
        }
    }
}

fn print_row([time, check, who, what, took]: [&str; 5]) {
    let row = format!("{time:>7}  {check:<6}  {who:<4}  {what:<TEXT_WIDTH$} {took:>10}");
    print(row.trim_end());
}

/// Where nobody reads any more the exit code still counts.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The text in lines of at most the width of its column, unless a word is longer.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= TEXT_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn in_ms(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1e3)
}
