//! Leaders against a real server: one at a time, and who takes over when one resigns, is dropped,
//! or loses its session.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use distlock::{Canceler, Cause, Config, Context, Error, Key, Manager, Term};
use futures::StreamExt;
use support::{
    StopMode, TempCluster, await_for, block_on, pg_locks_advisory, shared_cluster, unique_key,
    wait_until,
};

/// Nothing here takes this long; a test that hangs fails instead.
const LIMIT: Duration = Duration::from_secs(60);

fn config() -> Config {
    shared_cluster().url().parse().expect("a URL")
}

fn manager() -> Manager {
    Manager::connect(config()).expect("connects")
}

/// The terms of a candidate that campaigns in a thread of its own.
struct Candidate {
    terms: Receiver<Result<Term, Error>>,
    canceler: Canceler,
    thread: JoinHandle<()>,
}

impl Candidate {
    fn new(manager: &Manager, key: i64) -> Self {
        let (context, canceler) = Context::background().with_cancel();
        let election = manager.elect(key).context(&context);
        let (sender, terms) = channel();
        let thread = thread::spawn(move || {
            for term in election {
                if sender.send(term).is_err() {
                    return;
                }
            }
        });
        Self { terms, canceler, thread }
    }

    fn term(&self) -> Term {
        self.terms.recv_timeout(LIMIT).expect("it ends").expect("elected")
    }

    /// For a moment; who is not asked for any longer may become the leader.
    fn is_no_leader(&self) -> bool {
        self.terms.recv_timeout(Duration::from_millis(50)).is_err()
    }

    /// Ends the campaign; the error that it ends with.
    fn end(self) -> Error {
        self.canceler.cancel();
        let end = self.terms.recv_timeout(LIMIT).expect("it ends").expect_err("canceled");
        assert!(self.terms.recv_timeout(LIMIT).is_err(), "the error is the last item");
        self.thread.join().expect("no panic");
        end
    }
}

#[test]
fn a_resignation_and_a_drop_hand_over_to_another_candidate() {
    let (key, managers) = (unique_key(), [(); 2].map(|()| manager()));
    let leader = Candidate::new(&managers[0], key);
    let mut term = leader.term();
    let mut candidates = vec![leader];
    for n in 0..6 {
        assert!(term.is_leader() && !term.remaining().is_zero() && term.context().err().is_none());
        assert_eq!(term.lock().key(), Key::Bigint(key));
        // Of the same manager, and of another one.
        let next = Candidate::new(&managers[n / 2 % 2], key);
        assert!(next.is_no_leader());
        // The former one would campaign again, but for this.
        let former = candidates.pop().expect("the leader");
        former.canceler.cancel();
        assert!(next.is_no_leader() && term.is_leader(), "a slow leader is still alone");
        assert_eq!(term.context().err(), Some(Cause::Canceled));
        match n % 2 {
            0 => term.resign().expect("it led"),
            _ => drop(term),
        }
        assert!(former.end().is_canceled());
        term = next.term();
        candidates.push(next);
    }
}

#[test]
fn terms_are_counted_by_their_campaign_and_ordered_by_their_tokens() {
    let (key, managers) = (unique_key(), [(); 2].map(|()| manager()));
    let mut elections = managers.each_ref().map(|manager| manager.elect(key).fenced());
    let mut last = None;
    for number in 1..=4 {
        for election in &mut elections {
            let term = match number % 2 {
                0 => election.next_term().expect("nobody leads"),
                _ => block_on(election.next_term_async()).expect("nobody leads"),
            };
            assert_eq!(term.number(), number, "others have their own");
            assert!(term.token() > last && term.token() == term.lock().token());
            last = term.token();
            block_on(term.resign_async()).expect("it led");
        }
    }
    // An election that ends without a term has had none.
    let (context, canceler) = Context::background().with_cancel();
    let mut election = manager().elect(key).context(&context);
    canceler.cancel();
    assert!(election.next_term().expect_err("canceled").is_canceled());
    let term = managers[0].elect(key).next_term().expect("nobody leads");
    assert_eq!((term.number(), term.token()), (1, None), "the next campaign counts anew");
}

#[test]
fn there_is_one_leader_at_a_time_and_everybody_gets_a_term() {
    const CANDIDATES: usize = 6;
    let managers = [(); 3].map(|()| manager());
    let key = unique_key();
    let leader = AtomicU64::new(0);
    let terms = [(); CANDIDATES].map(|()| AtomicU32::new(0));
    let (context, canceler) = Context::background().with_cancel();
    thread::scope(|scope| {
        for number in 0..CANDIDATES {
            let election = managers[number % 3].elect(key).context(&context);
            let (leader, terms) = (&leader, &terms);
            let lead = move |term: Term| {
                let before = leader.swap(number as u64 + 1, Ordering::SeqCst);
                assert_eq!(before, 0, "two lead");
                assert!(term.is_leader());
                terms[number].fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                leader.store(0, Ordering::SeqCst);
                if number % 2 == 0 { drop(term) } else { term.resign().expect("it led") }
            };
            scope.spawn(move || match number {
                0..4 => election.for_each(|term| match term {
                    Ok(term) => lead(term),
                    Err(error) => assert!(error.is_canceled(), "{error}"),
                }),
                _ => {
                    let mut election = election;
                    loop {
                        match block_on(election.next_term_async()) {
                            Ok(term) => lead(term),
                            Err(error) => return assert!(error.is_canceled(), "{error}"),
                        }
                    }
                }
            });
        }
        wait_until("three terms for everybody", LIMIT, || {
            terms.iter().all(|terms| terms.load(Ordering::SeqCst) >= 3)
        });
        canceler.cancel();
    });
    wait_until("nobody is left", LIMIT, || {
        let held = pg_locks_advisory(&mut shared_cluster().sql());
        !held.iter().any(|(locked, _)| *locked == key)
    });
}

fn backend_of(cluster: &TempCluster, key: i64) -> Option<i32> {
    let held = pg_locks_advisory(&mut cluster.sql());
    held.iter().find(|(locked, _)| *locked == key).map(|(_, backend)| *backend)
}

fn terminate(cluster: &TempCluster, backend: i32) {
    cluster.sql().query(&format!("SELECT pg_terminate_backend({backend})"));
}

#[test]
fn a_leader_whose_session_is_terminated_steps_down_and_campaigns_again() {
    let cluster = TempCluster::start();
    let managers = [(); 2].map(|()| Manager::connect(cluster.url()).expect("connects"));
    let mut election = managers[0].elect(1);
    let mut term = election.next_term().expect("elected");
    for _ in 0..3 {
        let other = Candidate::new(&managers[1], 1);
        assert!(other.is_no_leader() && term.is_leader());
        let (parent, child) = (term.context().clone(), term.context().with_timeout(LIMIT * 100));
        terminate(&cluster, backend_of(&cluster, 1).expect("there is a leader"));
        assert_eq!(parent.done().wait_timeout(LIMIT), Some(Cause::ServerShutdown));
        assert!(!term.is_leader() && term.remaining().is_zero());
        // Told right after the one that it was derived from.
        assert_eq!(child.done().wait_timeout(LIMIT), Some(Cause::ServerShutdown));
        let others = other.term();
        assert!(others.is_leader() && !term.is_leader());
        // The old one, whose term is still there, campaigns in its next session.
        thread::scope(|scope| {
            let again = scope.spawn(|| election.next_term());
            assert!(other.is_no_leader() && !again.is_finished() && others.is_leader());
            other.canceler.cancel();
            others.resign().expect("it led");
            let next = again.join().expect("no panic").expect("elected again");
            let error = std::mem::replace(&mut term, next).resign().expect_err("lost long ago");
            assert!(error.is_session_lost(), "{error}");
        });
        assert!(other.end().is_canceled());
        assert!(term.is_leader(), "a late resignation does not reach the next term");
        assert!(backend_of(&cluster, 1).is_some());
    }
}

#[test]
fn neither_a_lost_session_nor_a_stopped_server_ends_the_campaign_of_who_waits() {
    let mut cluster = TempCluster::start();
    let managers = [(); 2].map(|()| Manager::connect(cluster.url()).expect("connects"));
    let term = managers[0].elect(1).next_term().expect("elected");
    let waiting = Candidate::new(&managers[1], 1);
    // A lock of the one that waits tells its backend.
    for _ in 0..3 {
        let marker = managers[1].acquire(2).timeout(LIMIT).wait().expect("a session");
        assert!(waiting.is_no_leader());
        terminate(&cluster, backend_of(&cluster, 2).expect("locked"));
        assert!(marker.context().done().wait_timeout(LIMIT).is_some());
        assert!(waiting.is_no_leader() && term.is_leader());
    }
    let lost = term.context().clone();
    cluster.stop(StopMode::Fast);
    assert_eq!(lost.done().wait_timeout(LIMIT), Some(Cause::ServerShutdown));
    assert!(waiting.is_no_leader());
    cluster.start_again();
    let next = waiting.term();
    assert!(next.is_leader() && !term.is_leader());
    drop(next);
}

#[test]
fn who_asks_while_its_last_term_lasts_waits_for_the_end_of_that() {
    let (manager, key) = (manager(), unique_key());
    let candidate = Candidate::new(&manager, key);
    let mut term = candidate.term();
    for n in 0..4 {
        assert!(candidate.is_no_leader() && term.is_leader());
        match n % 2 {
            0 => term.resign().expect("it led"),
            _ => drop(term),
        }
        term = candidate.term();
    }
    assert!(candidate.end().is_canceled(), "also while it lasts");
    let mut election = manager.elect(unique_key());
    let term = block_on(election.next_term_async()).expect("elected");
    let short = Duration::from_millis(50);
    assert!(await_for(election.next_term_async(), short).is_none() && term.is_leader());
    drop(term);
    block_on(election.next_term_async()).expect("elected").resign().expect("it led");
}

#[test]
fn a_cancelled_context_ends_a_campaign_wherever_it_is_and_a_dropped_future_leaves_nothing() {
    let (ours, other, key) = (manager(), manager(), unique_key());
    let holder = other.elect(key).next_term().expect("elected");
    let candidate = Candidate::new(&ours, key);
    assert!(candidate.is_no_leader());
    assert!(candidate.end().is_canceled());
    let short = Context::background().with_timeout(Duration::from_millis(30));
    let mut election = ours.elect(key).context(&short);
    assert_eq!(election.key(), Key::Bigint(key));
    assert!(election.next_term().expect_err("taken").is_timeout());
    assert!(block_on(election.next_term_async()).expect_err("done").is_timeout());
    let mut election = ours.elect(key);
    assert!(await_for(election.next_term_async(), Duration::from_millis(30)).is_none());
    holder.resign().expect("it led");
    let none_waits = other.try_lock(&Context::background(), key).expect("answers");
    assert!(none_waits.is_some(), "nobody is left campaigning");
    drop(none_waits);
    assert!(block_on(election.next_term_async()).expect("elected").is_leader());
}

#[test]
fn the_end_of_the_manager_and_a_limit_end_a_campaign() {
    let (manager, key) = (manager(), unique_key());
    let candidate = Candidate::new(&manager, key);
    let term = candidate.term();
    let queued = Candidate::new(&manager, key);
    assert!(queued.is_no_leader());
    let limited = Manager::connect(config().max_waiters(0)).expect("connects");
    let mut election = limited.elect(key);
    let ends: Vec<Result<Term, Error>> = election.by_ref().take(3).collect();
    assert!(matches!(&ends[..], [Err(Error::TooManyWaiters { limit: 0 })]), "{ends:?}");
    assert!(block_on(election.next_term_async()).expect_err("no waiters").is_limit());
    manager.close();
    assert_eq!(term.context().err(), Some(Cause::ManagerClosed));
    for candidate in [candidate, queued] {
        let error = candidate.terms.recv_timeout(LIMIT).expect("it ends").expect_err("closed");
        assert!(error.is_closed(), "{error}");
        candidate.thread.join().expect("no panic");
    }
    // An election does not keep its manager.
    let mut orphan = Manager::connect(config()).expect("connects").elect(key);
    assert!(orphan.next_term().expect_err("closed").is_closed());
}

#[test]
fn a_term_is_told_after_its_pause_and_one_that_is_lost_in_it_never() {
    let cluster = TempCluster::start();
    let manager = Manager::connect(cluster.url()).expect("connects");
    let pause = Duration::from_millis(100);
    let mut election = manager.elect(1).settle(pause);
    for is_async in [false, true] {
        let begin = Instant::now();
        let term = match is_async {
            false => election.next_term(),
            true => block_on(election.next_term_async()),
        };
        assert!(begin.elapsed() >= pause, "told after {:?}", begin.elapsed());
        assert!(term.as_ref().expect("nobody leads").is_leader());
        block_on(term.expect("nobody leads").resign_async()).expect("it led");
    }
    for is_async in [false, true] {
        let (context, canceler) = Context::background().with_cancel();
        let mut kept_back = manager.elect(2).context(&context).settle(LIMIT * 10);
        thread::scope(|scope| {
            let campaign = scope.spawn(|| match is_async {
                false => kept_back.next_term(),
                true => block_on(kept_back.next_term_async()),
            });
            let mut former = None;
            // Lost in its pause, it campaigns again.
            for _ in 0..2 {
                let mut latest = None;
                wait_until("it is kept back", LIMIT, || {
                    latest = backend_of(&cluster, 2);
                    latest.is_some() && latest != former
                });
                former = latest;
                terminate(&cluster, latest.expect("it is kept back"));
            }
            assert!(!campaign.is_finished(), "nobody is told of a term that was lost");
            canceler.cancel();
            let error = campaign.join().expect("no panic").expect_err("cancelled");
            assert!(error.is_canceled(), "{error}");
        });
        wait_until("nothing is left of it", LIMIT, || backend_of(&cluster, 2).is_none());
    }
}

#[test]
fn the_terms_of_an_election_make_a_stream_that_ends_with_its_error() {
    let (manager, key) = (manager(), unique_key());
    let (context, canceler) = Context::background().with_cancel();
    let election = manager.elect(key).context(&context);
    let terms = futures::stream::try_unfold(election, |mut election| async move {
        let term = election.next_term_async().await?;
        Ok::<_, Error>(Some((term, election)))
    });
    let mut terms = std::pin::pin!(terms);
    for number in 1..=3 {
        let term = block_on(terms.next()).expect("an item").expect("nobody leads");
        assert!(term.is_leader() && term.number() == number);
    }
    canceler.cancel();
    assert!(block_on(terms.next()).expect("an item").expect_err("cancelled").is_canceled());
    assert!(block_on(terms.next()).is_none(), "the error is the last item");
}

/// Set for the process that is stopped: the server's URL.
const LEADER: &str = "DISTLOCK_TEST_LEADER_URL";

/// The session of a process that was stopped may live on, and with it the lock of a term that is
/// doubted for good.
#[test]
fn a_term_that_was_doubted_after_a_stop_is_no_obstacle_to_the_next() {
    if let Ok(url) = std::env::var(LEADER) {
        return lead_and_be_stopped(&url);
    }
    let cluster = TempCluster::start();
    let name = "a_term_that_was_doubted_after_a_stop_is_no_obstacle_to_the_next";
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(["--exact", name, "--nocapture"]).env(LEADER, cluster.url());
    let mut leader = command.stdout(Stdio::piped()).spawn().expect("starts itself");
    let lines = BufReader::new(leader.stdout.take().expect("piped")).lines();
    for line in lines.map(|line| line.expect("the leader's output")) {
        println!("{line}");
        if line.contains("STOP ME") {
            assert!(support::signal(leader.id(), "STOP"));
            // For longer than the lease; the process does not see anything of it.
            thread::sleep(LEASE * 2);
            assert!(support::signal(leader.id(), "CONT"));
        }
    }
    assert!(leader.wait().expect("it ends").success());
}

const LEASE: Duration = Duration::from_millis(800);

/// The other side of the test above.
fn lead_and_be_stopped(url: &str) {
    let config: Config = url.parse().expect("a URL");
    let config = config.heartbeat(LEASE / 4).reply_timeout(LEASE / 2).lease(LEASE);
    let manager = Manager::connect(config.server_timeout(LIMIT)).expect("connects");
    let mut election = manager.elect(1).context(&Context::background().with_timeout(LIMIT));
    let mut term = election.next_term().expect("elected");
    loop {
        // The first look after the stop is by this thread, if it is quick; else once more. That is
        // not seen where the stop falls between two looks at the clock: then it is over at last.
        let began = Instant::now();
        let mut last = began;
        println!("\nSTOP ME");
        while term.is_leader() && last.elapsed() < LEASE && began.elapsed() < LEASE * 4 {
            last = Instant::now();
        }
        let cause = term.context().err();
        if cause == Some(Cause::LeaseExpired) {
            break;
        } else if cause.is_some() {
            // The session has not lived on this time.
            term = election.next_term().expect("elected");
        }
    }
    let next = election.next_term().expect("the doubted term does not stand in the way");
    assert!(next.is_leader() && !term.is_leader());
    drop(term);
    manager.acquire(2).wait().expect("free").unlock().expect("it was held");
    assert!(next.is_leader(), "a late release does not reach the next term");
    next.resign().expect("it led");
}
