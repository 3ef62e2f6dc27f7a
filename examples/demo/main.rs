//! The demonstration: what a fleet that shares a key goes through, on a real PostgreSQL, with the
//! measured times and each expectation checked. `scripts/demo` runs it.
//!
//! This process is the director. It starts a private throw-away server and three processes of
//! itself as [workers](worker), each with a manager of its own, tells them what to do over their
//! standard input ([`crew`]), and does to them and to the server what happens in production. It
//! takes no locks: what the workers report is checked against what the server says to an
//! independent connection. Exit code: 0, or 1 when an expectation failed.
//!
//! Nothing stays behind, however it ends: the server and its directory go with the director, and
//! a worker ends as soon as its standard input does.

mod board;
mod crew;
#[path = "../../tests/support/mod.rs"]
mod support;
mod wire;
mod worker;

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use board::Board;
use crew::{Crew, LIMIT};
use distlock::Key;
use support::{Sql, StopMode, TempCluster};
use wire::{Command, Moment, Report, Word};

/// How often each worker locks while they contend.
const ROUNDS: u32 = 20;

/// How long a holder works before something happens to it. Nothing is waited for: it is there so
/// that the times are those of processes that have waited for a while, which ask less often.
const WORK: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => direct(),
        [crew::WORKER, name, url, counter] => worker::run(name, url, Path::new(counter)),
        _ => {
            eprintln!("error: the demonstration takes no arguments");
            ExitCode::from(2)
        }
    }
}

fn direct() -> ExitCode {
    let board = Board::new();
    board.section("A private PostgreSQL server");
    let begin = Moment::now();
    let cluster = TempCluster::start();
    let mut demo = Demo::new(board, cluster);
    let version = demo.sql.value("SHOW server_version").unwrap_or_default();
    let what = format!("PostgreSQL {version} answers on port {}", demo.cluster.port());
    demo.board.measured("demo", &what, Moment::now().since(begin));
    if let Err(why) = demo.play() {
        demo.board.check(false, &why);
    }
    // The verdict comes last: when everything that was started has ended.
    let Demo { crew, board, sql, cluster } = demo;
    drop((crew, sql, cluster));
    if board.conclude() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Fields are dropped in this order: nobody talks to a server that is gone.
struct Demo {
    crew: Crew,
    sql: Sql,
    cluster: TempCluster,
    board: Board,
}

/// An `Err` ends the demonstration: what comes after would make no sense. An expectation that
/// fails does not.
type Step<T = ()> = Result<T, String>;

impl Demo {
    fn new(board: Board, cluster: TempCluster) -> Self {
        // In the cluster's directory, which is removed whatever happens.
        let counter = cluster.socket_dir().join("counter");
        let crew = Crew::new(&cluster.url(), &counter);
        Self { crew, sql: cluster.sql(), cluster, board }
    }

    fn play(&mut self) -> Step {
        self.contend()?;
        let holder = self.kill_the_holder()?;
        let holder = self.end_the_session_of(&holder)?;
        self.restart_the_server(&holder)?;
        self.leave()
    }

    fn contend(&mut self) -> Step {
        self.board.section("Three processes contend for one key and work under it");
        fs::write(self.crew.counter(), "0")
            .map_err(|e| format!("cannot write the counter: {e}"))?;
        for name in ["A", "B", "C"] {
            self.crew.start(name)?;
        }
        for name in ["A", "B", "C"] {
            self.expect(name, Word::Ready, "to connect")?;
        }
        let sessions = self.sessions();
        self.board.check(sessions == 3, "one process, one manager, one session: three in all");

        let begin = Moment::now();
        for name in ["A", "B", "C"] {
            self.crew.tell(name, Command::Work(ROUNDS))?;
        }
        for name in ["A", "B", "C"] {
            self.expect(name, Word::Finished, "to finish its work")?;
        }
        let mut rounds = self.crew.take_all(Word::Round);
        rounds.sort_by_key(|round| round.at);
        let wanted = 3 * ROUNDS;
        let what = format!("{wanted} times: lock, read a counter, work, write it plus one, unlock");
        self.board.measured("demo", &what, Moment::now().since(begin));

        let overlaps = rounds.windows(2).filter(|pair| pair[1].at < pair[0].until()).count();
        let turns = rounds.windows(2).filter(|pair| pair[0].name != pair[1].name).count();
        let all_told = rounds.len() == wanted as usize;
        let what = format!("never two inside at once ({turns} times the key went to another one)");
        self.board.check(all_told && overlaps == 0, &what);
        let counted = fs::read_to_string(self.crew.counter()).unwrap_or_default();
        self.board.check(counted == wanted.to_string(), &format!("the counter is {counted}"));
        let locks = self.advisory_locks();
        self.board.check(locks == 0, "pg_locks has no advisory lock in between");
        Ok(())
    }

    /// Returns the next holder.
    fn kill_the_holder(&mut self) -> Step<String> {
        self.board.section("The holder is killed with SIGKILL");
        self.crew.tell("A", Command::Hold)?;
        self.expect("A", Word::Enter, "to have the free key")?;
        for name in ["B", "C"] {
            self.crew.tell(name, Command::Hold)?;
            self.expect(name, Word::Taken, "to find the key taken")?;
        }
        self.check_holder("A");

        thread::sleep(WORK);
        let killed = Moment::now();
        self.board.line(killed, "demo", "kills process A");
        self.crew.kill("A")?;
        let next = self.expect_next("to have the key of a dead process")?;
        self.board.check(next.at > killed, &format!("{} has it now, and not before", next.name));
        self.board.figure("hand-over after SIGKILL", next.at.since(killed));
        self.check_holder(&next.name);

        self.crew.start("D")?;
        self.expect("D", Word::Ready, "to connect")?;
        self.crew.tell("D", Command::Hold)?;
        self.expect("D", Word::Taken, "to find the key taken")?;
        self.board.check(true, "a new process takes its place and waits too");
        Ok(next.name)
    }

    /// Returns the next holder.
    fn end_the_session_of(&mut self, holder: &str) -> Step<String> {
        self.board.section("The holder's session is ended with pg_terminate_backend");
        let statement = format!("SELECT pid FROM pg_locks WHERE {}", held(worker::KEY));
        let pid = self.sql.value(&statement).ok_or("nobody holds the key in pg_locks")?;
        thread::sleep(WORK);
        let ended = Moment::now();
        self.board.line(ended, "demo", &format!("ends backend {pid}, the session of {holder}"));
        self.sql.query(&format!("SELECT pg_terminate_backend({pid})"));
        let notice = self.expect_loss(holder)?;
        self.board.figure("loss notice to the holder", notice.at.since(ended));

        let next = self.expect_next("to have the key of a dead session")?;
        let other = next.name != holder;
        self.board.check(other, &format!("{} has it now, without a word from {holder}", next.name));
        self.check_holder(&next.name);
        // Taken, or no session yet to ask with: it waits in either case.
        self.crew.tell(holder, Command::Hold)?;
        let what = format!("{holder} to ask again");
        let is_asking = |it: &Report| matches!(it.word, Word::Taken | Word::Refused);
        self.crew.expect(&self.board, &what, |it| it.name == holder && is_asking(it))?;
        Ok(next.name)
    }

    fn restart_the_server(&mut self, holder: &str) -> Step {
        self.board.section("The server is restarted");
        thread::sleep(WORK);
        let begin = Moment::now();
        self.board.line(begin, "demo", "stops the server, in its mode \"fast\"");
        self.cluster.stop(StopMode::Fast);
        self.expect_loss(holder)?;
        self.crew.tell(holder, Command::Hold)?;
        let asked = self.expect(holder, Word::Refused, "to be refused")?;
        let typed = matches!(asked.tag(), wire::UNAVAILABLE | wire::LOST);
        self.board.check(typed, "try_lock says at once that there is no session");

        self.cluster.start_again();
        let back = Moment::now();
        self.board.measured("demo", "the server answers again", back.since(begin));
        self.sql = self.cluster.sql();
        let first = self.expect_next("to have a lock again")?;
        if first.at < back {
            self.board.line(first.at, "demo", "that was even before the director saw it answer");
        }
        self.board.figure("first lock after the restart", first.at.since(back));
        let mut had = vec![first.name];
        while had.len() < 3 {
            let name = &had[had.len() - 1];
            self.check_holder(name);
            self.crew.tell(name, Command::Release)?;
            let next = self.expect_next("to be handed the key")?;
            had.push(next.name);
        }
        self.check_holder(&had[2]);
        self.crew.tell(&had[2], Command::Release)?;
        self.expect(&had[2], Word::Leave, "to let go")?;
        had.sort();
        let what = format!("the managers of {} are back by themselves", had.join(", "));
        self.board.check(had == ["B", "C", "D"], &what);
        Ok(())
    }

    fn leave(&mut self) -> Step {
        self.board.section("Everybody leaves");
        for name in ["B", "C", "D"] {
            self.crew.tell(name, Command::Close)?;
        }
        for name in ["B", "C", "D"] {
            self.expect(name, Word::Closed, "to close its manager")?;
            self.expect(name, Word::Gone, "to end")?;
            let status = self.crew.dismiss(name)?;
            if !status.success() {
                self.board.check(false, &format!("{name} ended with {status}"));
            }
        }
        let locks = self.advisory_locks();
        self.board.check(locks == 0, "pg_locks has no advisory lock left");
        // A backend ends a moment after its client.
        let begin = Instant::now();
        while self.sessions() > 0 && begin.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
        let sessions = self.sessions();
        self.board.check(sessions == 0, "pg_stat_activity has no session of theirs left");
        Ok(())
    }

    /// Waits until `name` reports `word`.
    fn expect(&mut self, name: &str, word: Word, what: &str) -> Step<Report> {
        let what = format!("{name} {what}");
        self.crew.expect(&self.board, &what, |it| it.name == name && it.word == word)
    }

    /// Waits until some worker has the lock.
    fn expect_next(&mut self, what: &str) -> Step<Report> {
        let what = format!("a worker {what}");
        self.crew.expect(&self.board, &what, |it| it.word == Word::Enter)
    }

    /// Waits until the holder was told that its lock is lost, and checks what it was told.
    fn expect_loss(&mut self, holder: &str) -> Step<Report> {
        let notice = self.expect(holder, Word::Lost, "to be told that its lock is lost")?;
        let shutdown = notice.tag() == "ServerShutdown";
        let what = format!("the cause is {}, is_held() is false, unlock() says lost", notice.tag());
        self.board.check(shutdown, &what);
        Ok(notice)
    }

    fn check_holder(&mut self, name: &str) {
        let rows = self.sql.query(&format!(
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {}",
            held(worker::KEY)
        ));
        let holders: Vec<&str> =
            rows.iter().filter_map(|row| row.first()?.as_deref()?.strip_prefix("demo-")).collect();
        self.board.check(holders == [name], &format!("pg_locks has one holder: {name}"));
    }

    fn advisory_locks(&mut self) -> u32 {
        self.count("FROM pg_locks WHERE locktype = 'advisory'")
    }

    fn sessions(&mut self) -> u32 {
        self.count("FROM pg_stat_activity WHERE application_name LIKE 'demo-%'")
    }

    fn count(&mut self, from: &str) -> u32 {
        let count = self.sql.value(&format!("SELECT count(*) {from}"));
        count.and_then(|count| count.parse().ok()).expect("count(*) is a number")
    }
}

/// The condition for the row of `pg_locks` that stands for the key's holder: those who wait hold
/// another advisory lock, which says that they do.
fn held(key: &str) -> String {
    let Key::Bigint(key) = Key::from(key) else { panic!("a text is hashed to one bigint") };
    format!(
        "locktype = 'advisory' AND granted AND objsubid = 1 \
         AND (classid::bigint << 32) | objid::bigint = {key}"
    )
}
