//! The workers as the director sees them: processes to be started, told, listened to and killed.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::wire::{Command, Moment, Report, Word};

/// The first argument of a worker's process.
pub(crate) const WORKER: &str = "worker";

/// How long the director waits for any one report. It is below the lease (6 s) and the server's
/// timeout (10 s), so that what comes in time came because somebody was told, and not because
/// a time was up.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// All workers, and what they have said.
pub(crate) struct Crew {
    url: String,
    counter: PathBuf,
    workers: Vec<Worker>,
    reports: Receiver<Report>,
    sender: Sender<Report>,
    /// Reports that nobody has asked for yet.
    backlog: VecDeque<Report>,
}

struct Worker {
    name: String,
    process: Child,
    input: ChildStdin,
    /// Whether its end is expected.
    may_end: bool,
}

impl Crew {
    /// Nobody yet. The workers will lock on the server at `url`, and count in a file.
    pub(crate) fn new(url: &str, counter: &Path) -> Self {
        let (sender, reports) = channel();
        let (url, counter) = (url.to_owned(), counter.to_owned());
        Self { url, counter, workers: Vec::new(), reports, sender, backlog: VecDeque::new() }
    }

    /// The file that the workers count in.
    pub(crate) fn counter(&self) -> &Path {
        &self.counter
    }

    /// Starts a process of this program as a worker.
    pub(crate) fn start(&mut self, name: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot start worker {name}: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = process::Command::new(program)
            .args([WORKER, name, &self.url])
            .arg(&self.counter)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(format!("worker {name} has no pipes"));
        };
        self.workers.push(Worker { name: name.to_owned(), process, input, may_end: false });
        let (name, sender) = (name.to_owned(), self.sender.clone());
        thread::spawn(move || listen(&name, output, &sender));
        Ok(())
    }

    /// Gives an order.
    pub(crate) fn tell(&mut self, name: &str, order: Command) -> Result<(), String> {
        let worker = self.worker(name)?;
        worker.may_end |= order == Command::Close;
        let sent = writeln!(worker.input, "{order}");
        sent.map_err(|error| format!("worker {name} does not take orders any more: {error}"))
    }

    /// Ends a worker with SIGKILL.
    pub(crate) fn kill(&mut self, name: &str) -> Result<(), String> {
        let worker = self.worker(name)?;
        worker.may_end = true;
        worker.process.kill().map_err(|error| format!("cannot kill worker {name}: {error}"))
    }

    /// How a worker ended that has closed its standard output.
    pub(crate) fn dismiss(&mut self, name: &str) -> Result<ExitStatus, String> {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let status = self.worker(name)?.process.try_wait();
            match status.map_err(|error| format!("cannot wait for worker {name}: {error}"))? {
                Some(status) => return Ok(status),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(format!("not within {LIMIT:?}: worker {name} to end"))
    }

    /// The first report, of those not taken yet, that is the one. Shows all that come on the way.
    pub(crate) fn expect(
        &mut self,
        board: &Board,
        what: &str,
        is_it: impl Fn(&Report) -> bool,
    ) -> Result<Report, String> {
        let begin = Instant::now();
        loop {
            while let Ok(report) = self.reports.try_recv() {
                self.note(board, what, report)?;
            }
            if let Some(index) = self.backlog.iter().position(&is_it) {
                return self.backlog.remove(index).ok_or_else(|| what.to_owned());
            }
            match self.reports.recv_timeout(LIMIT.saturating_sub(begin.elapsed())) {
                Ok(report) if begin.elapsed() < LIMIT => self.note(board, what, report)?,
                _ => return Err(format!("not within {LIMIT:?}: {what}")),
            }
        }
    }

    /// All reports of a kind that have come and were not taken yet.
    pub(crate) fn take_all(&mut self, word: Word) -> Vec<Report> {
        let backlog = std::mem::take(&mut self.backlog);
        let (taken, left): (Vec<_>, _) = backlog.into_iter().partition(|it| it.word == word);
        self.backlog = left.into();
        taken
    }

    /// Shows a report and keeps it, unless it says that there is nothing to wait for any more.
    fn note(&mut self, board: &Board, what: &str, report: Report) -> Result<(), String> {
        show(board, &report);
        let name = &report.name;
        if report.word == Word::Failed {
            let why = report.text();
            return Err(format!("worker {name} cannot go on ({why}); expected {what}"));
        }
        if report.word == Word::Gone && !self.worker(name)?.may_end {
            return Err(format!("worker {name} has ended; expected {what}"));
        }
        self.backlog.push_back(report);
        Ok(())
    }

    fn worker(&mut self, name: &str) -> Result<&mut Worker, String> {
        let found = self.workers.iter_mut().find(|worker| worker.name == name);
        found.ok_or_else(|| format!("there is no worker {name}"))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // One that has ended already is what we want.
            let _ = worker.process.kill();
            let _ = worker.process.wait();
        }
    }
}

/// Passes on what a worker says, until it has ended.
fn listen(name: &str, output: ChildStdout, sender: &Sender<Report>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let report = Report::parse(name, &line).unwrap_or_else(|| Report {
            at: Moment::now(),
            name: name.to_owned(),
            word: Word::Failed,
            rest: format!("error line not understood: {line}"),
        });
        // The director may have given up.
        let _ = sender.send(report);
    }
    let (at, name, rest) = (Moment::now(), name.to_owned(), String::new());
    let _ = sender.send(Report { at, name, word: Word::Gone, rest });
}

fn show(board: &Board, report: &Report) {
    let what = match report.word {
        Word::Taken => "finds the key taken, and waits",
        Word::Enter => "has the lock",
        Word::Leave => "lets go",
        Word::Finished => "has done its rounds",
        Word::Ready | Word::Refused | Word::Again | Word::Lost | Word::Closed => report.text(),
        Word::Failed => "cannot go on",
        Word::Gone => "has ended",
        // There are too many.
        Word::Round => return,
    };
    board.line(report.at, &report.name, what);
}
