//! When a witness is heard, and what becomes of one that nobody wants to hear any more: the session
//! that it is about has ended, and the server leaves it without an answer.

#[allow(dead_code, reason = "shared with another binary")]
#[allow(unreachable_pub, reason = "a module of one binary, public in none")]
#[path = "servers/rig/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Config, Context, Manager, Proxy};

/// Nothing here takes this long; the connect timeout is far above.
const LIMIT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// The tests look at the threads of the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How often the treacherous server was connected to.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

fn witnesses() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    // The system keeps fifteen characters.
    names.filter(|name| name.starts_with("distlock-witnes")).count()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server that is good to the session until it asks for a witness. It never answers that one,
/// and hangs up on the session instead.
fn treacherous() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            let (mut session, _) = listener.accept().expect("a session");
            let _ = serve(&mut session, 77, EXAMINED, |_| {});
            let (witness, _) = listener.accept().expect("a witness");
            kept.push(witness);
            CONNECTIONS.fetch_add(1, Ordering::SeqCst);
        }
    });
    port
}

/// A server that is good to one session and its witness, and then gone.
fn mortal() -> (u16, thread::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let server = thread::spawn(move || {
        let (mut session, _) = listener.accept().expect("a session");
        let witness = thread::spawn(move || {
            let (mut witness, _) = listener.accept()?;
            serve(&mut witness, 78, EXAMINED, |_| {})
        });
        serve(&mut session, 77, READY, |_| {}).expect("a good client");
        let _ = witness.join();
        session
    });
    (port, server)
}

/// How many Syncs there are up to the confirmation.
const EXAMINED: u32 = 2;
/// And up to the settings, which end the start behind a proxy.
const SETTLED: u32 = 3;
/// And to the end of the start.
const READY: u32 = 4;

/// Answers so many Syncs; tells each statement that is run.
fn serve(
    client: &mut TcpStream,
    process: u32,
    last: u32,
    mut runs: impl FnMut(&str),
) -> io::Result<()> {
    client.set_nodelay(true)?;
    wire::read_startup(client)?;
    wire::write(client, b'R', &0_u32.to_be_bytes())?;
    wire::write(client, b'S', b"server_version\x0015.18\0")?;
    wire::write(client, b'K', &[process.to_be_bytes(), [1, 2, 3, 4]].concat())?;
    wire::write(client, b'Z', b"I")?;
    let mut statements = HashMap::new();
    let (mut statement, mut values, mut token) = (String::new(), Vec::new(), String::new());
    let mut syncs = 0;
    loop {
        let message = wire::read(client)?;
        match message.kind {
            b'P' => {
                let (name, text) = wire::parse_texts(&message.body);
                statements.insert(name, text);
                wire::write(client, b'1', &[])?;
            }
            b'B' => {
                let name;
                (name, values) = wire::bind_values(&message.body);
                statement = statements.get(&name).cloned().unwrap_or_default();
                wire::write(client, b'2', &[])?;
            }
            b'E' => {
                runs(&statement);
                let texts: Vec<_> = values.iter().map(|it| String::from_utf8_lossy(it)).collect();
                let process = process.to_string();
                let row = if statement.contains("version()") {
                    token = texts[0].clone().into_owned();
                    let version = "PostgreSQL 15.18 on x86_64-pc-linux-gnu";
                    let row = [&process, version, "false", "", &token, "true", "off"];
                    wire::data_row(&[&row[..], &["64", "100", "0"]].concat())
                } else if statement.contains("search_path") {
                    let mut row = vec!["pg_catalog", "0", &texts[0], "on", "read committed"];
                    row.extend(texts[1..].iter().take(4).map(AsRef::as_ref));
                    let times: Vec<_> = texts[5..].iter().map(|it| format!("{it}ms")).collect();
                    row.extend(times.iter().map(String::as_str));
                    wire::data_row(&row)
                } else if statement.contains("pg_locks") {
                    wire::data_row(&[&process, &token, "1"])
                } else if statement.contains("pg_backend_pid") {
                    wire::data_row(&[&process, "false"])
                } else {
                    wire::data_row(&["\u{1}"])
                };
                wire::write(client, b'D', &row)?;
                wire::write(client, b'C', b"SELECT 1\0")?;
            }
            b'S' => {
                syncs += 1;
                wire::write(client, b'Z', b"I")?;
                if syncs == last {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

/// How many sessions were found good so far, and how many witnesses were heard.
#[derive(Default)]
struct Counts {
    sessions: AtomicUsize,
    testimonies: AtomicUsize,
}

/// The identity asks for the lock, too.
fn is_testimony(statement: &str) -> bool {
    statement.contains("pg_try_advisory_lock") && !statement.contains("version()")
}

/// A server that is good to each session up to so many Syncs, and then hangs up.
fn forgetful(last: u32) -> (u16, Arc<Counts>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let counts = Arc::new(Counts::default());
    let own = Arc::clone(&counts);
    thread::spawn(move || {
        for process in 77.. {
            let (mut client, _) = listener.accept().expect("a client");
            let counts = Arc::clone(&own);
            thread::spawn(move || {
                let _ = serve(&mut client, process, last, |statement| {
                    if statement.contains("search_path") {
                        counts.sessions.fetch_add(1, Ordering::SeqCst);
                    } else if is_testimony(statement) {
                        counts.testimonies.fetch_add(1, Ordering::SeqCst);
                    }
                });
            });
        }
    });
    (port, counts)
}

fn config(port: u16) -> Config {
    let config = Config::new().host("127.0.0.1").port(port).user("app").dbname("app");
    config.connect_timeout(CONNECT_TIMEOUT)
}

/// Settings are made once the witness was heard, so what was counted before them was in time.
#[test]
fn behind_a_proxy_every_session_has_its_witness_and_else_the_first_at_an_address() {
    let _turn = ONE_AT_A_TIME.lock();
    let rows = [(Proxy::SessionAffine, SETTLED, true), (Proxy::None, READY, false)];
    for (proxy, last, every) in rows {
        let (port, counts) = forgetful(last);
        let sessions = || counts.sessions.load(Ordering::SeqCst);
        let manager = Manager::connect(config(port).proxy(proxy)).expect("it is good");
        wait_until("it comes again and again", || sessions() >= 3);
        // In this order: the next session may come in between.
        let sessions = sessions();
        let testimonies = counts.testimonies.load(Ordering::SeqCst);
        assert!(if every { testimonies >= sessions } else { testimonies == 1 }, "{testimonies}");
        drop(manager);
    }
}

#[test]
fn a_connect_that_has_failed_leaves_no_witness_behind() {
    let _turn = ONE_AT_A_TIME.lock();
    let error = Manager::connect(config(treacherous())).expect_err("the session was hung up on");
    assert!(error.to_string().contains("closed the connection"), "{error}");
    wait_until("the witness has gone, too", || witnesses() == 0);
}

#[test]
fn attempts_that_fail_do_not_pile_up_witnesses() {
    let _turn = ONE_AT_A_TIME.lock();
    let (good, server) = mortal();
    let config = config(good).hosts([("127.0.0.1", good), ("127.0.0.1", treacherous())]);
    let before = CONNECTIONS.load(Ordering::SeqCst);
    let manager = Manager::connect(config).expect("the first server is good");
    drop(server.join().expect("it has served"));
    let mut most = 0;
    wait_until("it goes on trying", || {
        most = most.max(witnesses());
        CONNECTIONS.load(Ordering::SeqCst) >= before + 5
    });
    // One, and those that are about to end on a busy machine; all five would be there else.
    assert!(most <= 3, "{most} witnesses at once");
    assert!(manager.try_lock(&Context::background(), 1).is_err());
    manager.close();
    wait_until("nothing of a closed manager is left", || witnesses() == 0);
}
