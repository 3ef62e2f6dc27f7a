//! Wakers are foreign code: they may panic, own locks, and come and go at any moment.

mod support;

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use distlock::{Canceler, Config, Context, Lock, Manager};
use support::{TempCluster, shared_cluster, unique_key, wait_until};

/// Far more than anything here takes: it tells a hang from a slow machine.
const HANG: Duration = Duration::from_secs(30);

fn manager() -> Manager {
    Manager::connect(shared_cluster().url()).expect("a session")
}

fn granted(manager: &Manager, key: i64) -> Lock {
    let answer = manager.try_lock(&Context::background(), key).expect("an answer");
    answer.expect("it is free")
}

fn poll<F: Future>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut TaskContext::from_waker(waker))
}

/// A future that had to leave its waker, and whose waker was called: now and then one is ready at
/// its first poll already.
fn pending<F: Future>(
    waker: &Waker,
    mut future: impl FnMut() -> F,
    rang: impl FnMut() -> bool,
) -> Pin<Box<F>> {
    let begin = Instant::now();
    loop {
        let mut future = Box::pin(future());
        if poll(&mut future, waker).is_pending() {
            wait_until("the waker", HANG, rang);
            return future;
        }
        assert!(begin.elapsed() < HANG, "always ready at once");
    }
}

/// Panics when it is called, on any thread but those that are named.
struct Panics {
    except_on: &'static str,
    rang: AtomicBool,
}

impl Panics {
    fn new(except_on: &'static str) -> Arc<Self> {
        Arc::new(Self { except_on, rang: AtomicBool::new(false) })
    }

    fn has_rung(&self) -> bool {
        self.rang.load(Ordering::SeqCst)
    }
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        if thread::current().name() != Some(self.except_on) {
            self.rang.store(true, Ordering::SeqCst);
            panic!("a panic of a waker, as the test wants it");
        }
    }
}

#[test]
fn a_panicking_waker_does_not_end_the_guard() {
    let manager = manager();
    let panics = Panics::new("nobody");
    let waker = Waker::from(Arc::clone(&panics));
    drop(pending(&waker, || manager.acquire(unique_key()).into_future(), || panics.has_rung()));
    // The guard's thread answers a task only if it lives.
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut future = Box::pin(manager.acquire(unique_key()).into_future());
        while poll(&mut future, Waker::noop()).is_pending() {
            thread::yield_now();
        }
        sender.send(()).expect("the test listens");
    });
    receiver.recv_timeout(HANG).expect("the guard goes on");
}

#[test]
fn a_panicking_waker_does_not_end_the_timer() {
    let deadline = || {
        let context = Context::background().with_timeout(Duration::from_millis(20));
        context.done().into_future()
    };
    let panics = Panics::new("nobody");
    let waker = Waker::from(Arc::clone(&panics));
    let _first = pending(&waker, deadline, || panics.has_rung());
    let (sender, receiver) = channel();
    struct Send(Mutex<std::sync::mpsc::Sender<()>>);
    impl Wake for Send {
        fn wake(self: Arc<Self>) {
            let _ = self.0.lock().expect("not poisoned").send(());
        }
    }
    let waker = Waker::from(Arc::new(Send(Mutex::new(sender))));
    let mut rang = || receiver.try_recv().is_ok();
    let _second = pending(&waker, deadline, &mut rang);
}

/// I1, I8. The waker panicked between the grant and its entry in the table of holds, where a loss
/// of the session has to find it.
#[test]
fn a_lock_granted_through_a_panicking_waker_dies_with_its_session() {
    let cluster = TempCluster::start();
    let manager = Manager::connect(cluster.url()).expect("a session");
    let panics = Panics::new("distlock-guard");
    let waker = Waker::from(Arc::clone(&panics));
    let stop = Arc::new(AtomicBool::new(false));
    // Callers take turns for the guard, so that the waker is called in one of theirs.
    let callers: Vec<_> = (0..3_i64)
        .map(|caller| {
            let (manager, stop) = (manager.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let cycle = || drop(granted(&manager, 100 + caller));
                    catch_unwind(AssertUnwindSafe(cycle)).expect("the panic is not theirs");
                }
            })
        })
        .collect();
    let begin = Instant::now();
    let lock = loop {
        assert!(begin.elapsed() < HANG, "no caller's turn has called the waker");
        let mut future = Box::pin(manager.acquire(1).into_future());
        let lock = loop {
            if let Poll::Ready(lock) = poll(&mut future, &waker) {
                break lock.expect("a grant");
            }
            thread::yield_now();
        };
        if panics.has_rung() {
            break lock;
        }
    };
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.join().expect("no panic");
    }
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity \
                     where application_name = 'distlock'";
    cluster.sql().query(terminate);
    let mut other = None;
    wait_until("the next session grants the key", HANG, || {
        other = manager.try_lock(&Context::background(), 1).ok().flatten();
        other.is_some()
    });
    assert!(!lock.is_held(), "two handles of one key are held");
}

/// Dropped with the last reference to it; lets go of a lock by that.
struct Owner {
    _lock: Mutex<Option<Lock>>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_owns_a_lock_may_be_replaced() {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let manager = manager();
        let owned = granted(&manager, unique_key());
        let first = Waker::from(Arc::new(Owner { _lock: Mutex::new(Some(owned)) }));
        let mut future = Box::pin(manager.acquire(unique_key()).into_future());
        let _ = poll(&mut future, &first);
        // Now the last reference is the library's, which gives it up for the next waker.
        drop(first);
        let _ = poll(&mut future, Waker::noop());
        sender.send(()).expect("the test listens");
    });
    receiver.recv_timeout(HANG).expect("no deadlock");
}

/// Lets go of a lock and cancels a context when it is called, by whatever thread.
struct LetsGo {
    lock: Mutex<Option<Lock>>,
    canceler: Canceler,
    rang: AtomicBool,
}

impl Wake for LetsGo {
    fn wake(self: Arc<Self>) {
        // Dropped here, in the midst of the guard's work.
        drop(self.lock.lock().expect("not poisoned").take());
        self.canceler.cancel();
        self.rang.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_may_let_go_of_a_lock_and_cancel_what_waits_in_the_same_manager() {
    let (manager, other) = (manager(), manager());
    for round in 0..50 {
        let [held, wanted] = [unique_key(), unique_key()];
        let (context, canceler) = Context::background().with_cancel();
        let lock = Mutex::new(Some(granted(&manager, held)));
        let lets_go = Arc::new(LetsGo { lock, canceler, rang: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&lets_go));
        let former = granted(&other, wanted);
        thread::scope(|scope| {
            // A caller that blocks, so that the waker is called in its turn, now and then.
            let blocked = scope.spawn(|| manager.lock(&context, wanted));
            let asked = if round % 2 == 0 { manager.acquire(held) } else { other.acquire(held) };
            let mut canceled = Box::pin(manager.acquire(wanted).context(&context).into_future());
            let mut future = Box::pin(manager.acquire(unique_key()).into_future());
            let is_asked = poll(&mut future, &waker).is_pending();
            if !is_asked {
                Wake::wake(Arc::clone(&lets_go));
            }
            wait_until("the waker", HANG, || lets_go.rang.load(Ordering::SeqCst));
            let lock = asked.timeout(HANG).wait().expect("it was let go");
            assert!(blocked.join().expect("no panic").expect_err("cancelled").is_canceled());
            assert!(poll(&mut canceled, Waker::noop()).is_ready(), "cancelled");
            lock.unlock().expect("it was held");
        });
        former.unlock().expect("it was held");
    }
}

/// The cancellation of a caller that works for the guard just now, at every moment of its way to
/// sleep. With the server stopped, nothing else wakes it.
#[test]
fn a_cancellation_is_noticed_while_the_server_is_silent() {
    let cluster = TempCluster::start();
    let config: Config = cluster.url().parse().expect("a URL");
    let config = config.heartbeat(Duration::from_secs(60)).reply_timeout(Duration::from_secs(120));
    let config = config.lease(Duration::from_secs(300)).server_timeout(Duration::from_secs(600));
    let manager = Manager::connect(config).expect("a session");
    let pid = "select pid from pg_stat_activity where application_name = 'distlock'";
    let pid = cluster.sql().value(pid).expect("the manager's session");
    let signal = |name: &str| assert!(support::signal(&pid, name), "the backend is there");
    let (jobs, queue) = channel::<Context>();
    let begun = Arc::new(AtomicU64::new(0));
    let (told, ended) = channel();
    let worker = thread::spawn({
        let (manager, begun) = (manager.clone(), Arc::clone(&begun));
        move || {
            for (number, context) in queue.iter().enumerate() {
                begun.fetch_add(1, Ordering::SeqCst);
                let answer = manager.try_lock(&context, 1_000 + number as i64);
                let _ = told.send(answer.is_ok_and(|lock| lock.is_some()));
            }
        }
    });
    let mut count = 0_u64;
    for _ in 0..30 {
        signal("STOP");
        for _ in 0..100 {
            let (context, canceler) = Context::background().with_cancel();
            jobs.send(context).expect("the worker listens");
            count += 1;
            while begun.load(Ordering::SeqCst) < count {
                std::hint::spin_loop();
            }
            // Not to order anything: to hit every point of the way.
            let moment = Instant::now() + Duration::from_nanos(count * 7919 % 40_000);
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            canceler.cancel();
            let granted = ended.recv_timeout(HANG);
            if granted.is_err() {
                signal("CONT");
            }
            assert!(!granted.expect("the cancellation is noticed"), "the server is stopped");
        }
        signal("CONT");
        wait_until("the server's answers", HANG, || {
            manager.try_lock(&Context::background(), 1).is_ok_and(|lock| lock.is_some())
        });
    }
    drop(jobs);
    worker.join().expect("no panic");
}
