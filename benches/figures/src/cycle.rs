//! The time of one cycle on one thread: try_lock, and the release.

use std::time::Instant;

use distlock::Manager;

use crate::clients::{Client, Dlp, Flavor, Ours, OursAwaited, Raw, Server, Sqlx, TokioPostgres};
use crate::figure::Goal::AtMost;
use crate::report::{Report, Row};
use crate::spread::Spread;
use crate::support::{Sql, pg_locks_advisory};
use crate::turns::{Turns, interleaved, order};

/// How a client is made, with a session of its own.
struct Entrant {
    name: String,
    make: Box<Make>,
}

type Make = dyn Fn(&Server, i64) -> Box<dyn Client>;

/// The keys of the entrants, one each.
const FIRST_KEY: i64 = 1_000;

/// Measures, and says the figures.
pub(crate) fn run(server: &Server, observer: &mut Sql, turns: Turns, report: &mut Report) {
    let entrants = entrants();
    let mut times = vec![Vec::new(); entrants.len()];
    let start = Instant::now();
    for generation in 0..turns.generations {
        if generation > 0 && start.elapsed() > turns.limit {
            break;
        }
        // Who connects first decides where its server process comes to run.
        let mut clients: Vec<Option<Box<dyn Client>>> = entrants.iter().map(|_| None).collect();
        for at in order(entrants.len(), generation) {
            clients[at] = Some((entrants[at].make)(server, FIRST_KEY + at as i64));
        }
        let mut clients: Vec<_> = clients.into_iter().flatten().collect();
        if generation == 0 {
            prove(&entrants, &mut clients, observer);
        }
        interleaved(turns, generation, &mut clients, &mut times);
        nothing_is_held(observer);
    }
    let spread = |(entrant, times): (Entrant, Vec<f64>)| Row {
        name: entrant.name,
        spread: Spread::of(&times),
    };
    let rows = entrants.into_iter().zip(times).map(spread).collect();
    report.group("one cycle on one thread", "us", rows);
    figures(report);
}

/// That the locks are locks: the server shows each while it is held, and not afterwards.
fn prove(entrants: &[Entrant], clients: &mut [Box<dyn Client>], observer: &mut Sql) {
    for (at, (entrant, client)) in entrants.iter().zip(clients).enumerate() {
        let key = FIRST_KEY + at as i64;
        let mut sees = |held: bool, when: &str| {
            let found = pg_locks_advisory(observer).iter().filter(|lock| lock.0 == key).count();
            assert_eq!(found, usize::from(held), "{}: sessions with the key {when}", entrant.name);
        };
        sees(false, "at first");
        client.hold(&mut || sees(true, "while it is held"));
        sees(false, "after its release");
        client.cycles(3);
        sees(false, "after cycles");
    }
}

fn nothing_is_held(observer: &mut Sql) {
    let last = FIRST_KEY + 1_000;
    let locks = pg_locks_advisory(observer);
    let left = locks.iter().filter(|(key, _)| (FIRST_KEY..last).contains(key)).count();
    assert_eq!(left, 0, "keys that nobody should have");
}

fn entrants() -> Vec<Entrant> {
    let mut all = Vec::new();
    let mut add = |name: String, make: Box<Make>| {
        all.push(Entrant { name, make });
    };
    let tcp = |server: &Server| Manager::connect(server.url()).expect("a session");
    let unix = |server: &Server| Manager::connect(server.socket_string()).expect("a session");
    add("raw tcp".into(), Box::new(|s, key| Box::new(Raw::tcp(s, key, false))));
    add(
        "distlock tcp, drop".into(),
        Box::new(move |s, key| Box::new(Ours::new(tcp(s), key, true))),
    );
    add(
        "distlock tcp, unlock".into(),
        Box::new(move |s, key| Box::new(Ours::new(tcp(s), key, false))),
    );
    add(
        "distlock tcp, .await and drop, current-thread".into(),
        Box::new(move |s, key| Box::new(OursAwaited::new(tcp(s), key, Flavor::Current))),
    );
    for flavor in Flavor::ALL {
        let name = flavor.name();
        add(
            format!("tokio-postgres, {name}"),
            Box::new(move |s, key| Box::new(TokioPostgres::new(s, key, flavor, false))),
        );
        for (way, drops) in [("drop", true), ("release_now", false)] {
            add(
                format!("sqlx, {way}, {name}"),
                Box::new(move |s, key| Box::new(Sqlx::new(s, key, flavor, drops))),
            );
        }
        add(
            format!("distributed-lock-postgres, {name}"),
            Box::new(move |s, key| Box::new(Dlp::new(s, key, flavor))),
        );
    }
    add("(again) raw tcp".into(), Box::new(|s, key| Box::new(Raw::tcp(s, key, false))));
    add("(floor) raw tcp, riding".into(), Box::new(|s, key| Box::new(Raw::tcp(s, key, true))));
    add(
        "(floor) raw tcp, riding, careful".into(),
        Box::new(|s, key| Box::new(Raw::tcp(s, key, true).careful())),
    );
    add(
        "(floor) raw tcp, awaited, careful".into(),
        Box::new(|s, key| Box::new(Raw::tcp(s, key, false).careful())),
    );
    add(
        "(joined) tokio-postgres, current-thread".into(),
        Box::new(|s, key| Box::new(TokioPostgres::new(s, key, Flavor::Current, true))),
    );
    add("raw unix".into(), Box::new(|s, key| Box::new(Raw::unix(s, key, false))));
    add(
        "distlock unix, drop".into(),
        Box::new(move |s, key| Box::new(Ours::new(unix(s), key, true))),
    );
    add("(again) raw unix".into(), Box::new(|s, key| Box::new(Raw::unix(s, key, false))));
    add("(floor) raw unix, riding".into(), Box::new(|s, key| Box::new(Raw::unix(s, key, true))));
    add(
        "(floor) raw unix, riding, careful".into(),
        Box::new(|s, key| Box::new(Raw::unix(s, key, true).careful())),
    );
    all
}

fn figures(report: &mut Report) {
    let group = report.groups.last().expect("it was just added");
    let at = |name: &str| group.least(name);
    let dropped = at("distlock tcp, drop");
    let tcp = dropped / at("raw tcp");
    let unix = at("distlock unix, drop") / at("raw unix");
    let unlocked = at("distlock tcp, unlock") / at("raw tcp");
    let to_tokio_postgres = dropped / at("tokio-postgres");
    let to_sqlx = dropped / at("sqlx");
    let to_dlp = dropped / at("distributed-lock-postgres");
    let awaited = at("distlock tcp, .await") / at("tokio-postgres");
    let again = ["tcp", "unix"].map(|kind| {
        let ratio = at(&format!("(again) raw {kind}")) / at(&format!("raw {kind}"));
        (format!("raw_{kind}_vs_itself"), ratio)
    });
    for (name, ratio) in again {
        report.check(name, ratio);
    }
    let ratio = "ratio";
    let mut say = |name, value, goal, what| report.figure(name, value, ratio, (AtMost, goal), what);
    say("cycle_vs_raw_tcp", tcp, 0.6, "try_lock and drop, to two blocking round trips over TCP");
    say("cycle_vs_raw_unix", unix, 0.6, "the same over the server's Unix socket");
    say("unlock_awaited_vs_raw", unlocked, 1.1, "try_lock and unlock, both answers awaited, to it");
    say("cycle_vs_tokio_postgres", to_tokio_postgres, 0.5, "try_lock and drop, to tokio-postgres");
    say("cycle_vs_sqlx", to_sqlx, 0.45, "to sqlx's PgAdvisoryLock");
    say("cycle_vs_dlp", to_dlp, 0.32, "to distributed-lock-postgres");
    say("async_cycle_vs_tokio_postgres", awaited, 0.6, "awaited in a task, to tokio-postgres");
}
