//! The world around the guard's seat: threads that sleep, a clock that goes on when all of them do
//! (and now and then a little earlier), a socket, and a server that answers when it wants.
//!
//! Whenever everybody sleeps the [judge] looks whether they may. The clock goes on from there to
//! the next thing that is due. If nothing is, they would sleep for ever.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use shuttle::rand::Rng;
use shuttle::sync::{Condvar, Mutex};

use crate::guard::judge;

/// What never comes.
pub(crate) const NEVER: u64 = u64::MAX;

pub(crate) const MICROSECOND: u64 = 1_000;
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// When each scenario should be over: what comes later is a call that nobody ends.
pub(crate) const LATEST: u64 = 30_000 * MILLISECOND;

/// Who looks at the clock so often without ever sleeping waits for something all the time, where
/// schedules are fair.
pub(crate) const LOOKS_MAX: usize = 300;

/// How long a slow thread takes for a step at the longest.
const SLOWEST: u64 = 80 * MILLISECOND;

/// Where a thread sleeps, and thereby what wakes it before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Until it is unparked.
    Parked,
    /// In the event loop: new bytes in the socket (by edges, as epoll tells them), or its waker.
    EventLoop,
    /// With the seat: bytes in the socket, or the bell.
    WithSeat,
    /// With the seat, and out of the bell's reach.
    Deaf,
    /// The timer's thread.
    Timer,
}

/// Why a thread woke.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Woken {
    pub(crate) socket: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sleeper {
    pub(crate) spot: Spot,
    pub(crate) until: u64,
}

/// What the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// To one batch of statements.
    Answer,
    /// That a key was let go of elsewhere.
    Notification,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) now: u64,
    awake: usize,
    pub(crate) sleepers: BTreeMap<usize, Sleeper>,
    beds: BTreeMap<usize, Bed>,
    unparked: BTreeMap<usize, bool>,
    /// When each thread last looked at the clock, and how often since it slept.
    looked_at: BTreeMap<usize, u64>,
    looks: BTreeMap<usize, usize>,
    /// What the server has yet to say, and when it does.
    coming: VecDeque<(u64, Message)>,
    socket: VecDeque<Message>,
    has_edge: bool,
    is_called: bool,
    rings: usize,
    alarms: BTreeMap<usize, (u64, Waker)>,
    next_alarm: usize,
    over: bool,
    /// How the server and the clock behave.
    pub(crate) manners: Manners,
}

/// How the world behaves in a scenario.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manners {
    /// After what times the server answers, of which each batch gets one.
    pub(crate) answers: &'static [u64],
    /// Whether threads may be so slow that what is due comes before they go on.
    pub(crate) is_slow: bool,
    /// Whether the keys are mostly had by other processes.
    pub(crate) is_contended: bool,
}

/// How a thread is put to sleep and woken in shuttle's terms.
type Bed = Arc<(Mutex<bool>, Condvar)>;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::default());
    /// See [`LOOKS_MAX`].
    pub(crate) static LOOKS: Cell<usize> = const { Cell::new(LOOKS_MAX) };
}

fn with<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|world| look(&mut world.borrow_mut()))
}

/// Looks at the world as it is.
pub(crate) fn look<T>(look: impl FnOnce(&World) -> T) -> T {
    WORLD.with(|world| look(&world.borrow()))
}

/// A new world, in which one thread is awake: the one that makes the others.
pub(crate) fn begin(manners: Manners) {
    // The beginning of the clock has its own meaning.
    let world = World { now: 1_000 * MILLISECOND, awake: 1, manners, ..World::default() };
    drop(WORLD.with(|old| old.replace(world)));
}

/// One of so many possibilities.
pub(crate) fn choose(count: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..count)
}

pub(crate) fn current() -> usize {
    shuttle::thread::current().id().into()
}

pub(crate) fn now() -> u64 {
    look(|world| world.now)
}

/// By how much later a thread may do what it was to do.
pub(crate) fn slowness() -> u64 {
    look(|world| if world.manners.is_slow { SLOWEST } else { 0 })
}

/// What was found to be wrong. It is told by the panic's hook, which ends the program: a panic in
/// the guard's thread alone would be caught there.
pub(crate) fn fail(what: &str) -> ! {
    panic!("{what}")
}

/// What the world looks like, for who has to find out what is wrong.
pub(crate) fn describe() -> String {
    WORLD.with(|world| match world.try_borrow() {
        Ok(world) => format!(
            "at {} us, {} awake, asleep {:?}, in the socket {}, to come {:?}",
            world.now / MICROSECOND,
            world.awake,
            world.sleepers,
            world.socket.len(),
            world.coming,
        ),
        Err(_) => String::new(),
    })
}

/// Makes a thread of this world.
pub(crate) fn spawn(
    what: impl FnOnce() + Send + 'static,
) -> (usize, shuttle::thread::JoinHandle<()>) {
    with(|world| world.awake += 1);
    let handle = shuttle::thread::spawn(move || {
        let _gone = Gone { has_heir: false };
        what();
    });
    (handle.thread().id().into(), handle)
}

/// The same for a thread that may leave its place among those who are awake to the one that waits
/// for its end: it says so.
pub(crate) fn spawn_heir(
    what: impl FnOnce() -> bool + Send + 'static,
) -> shuttle::thread::JoinHandle<()> {
    with(|world| world.awake += 1);
    shuttle::thread::spawn(move || {
        let mut gone = Gone { has_heir: false };
        gone.has_heir = what();
    })
}

/// Of a thread that has ended.
struct Gone {
    has_heir: bool,
}

impl Drop for Gone {
    fn drop(&mut self) {
        if !self.has_heir {
            retire();
        }
    }
}

/// The calling thread is one of this world's no longer.
pub(crate) fn retire() {
    let is_quiet = with(|world| {
        world.awake -= 1;
        world.awake == 0 && !world.sleepers.is_empty()
    });
    if is_quiet {
        go_on();
    }
}

/// The end of the scenario: what is wrong is told, and the timer's thread ends.
pub(crate) fn end() {
    wake_all(with(|world| {
        world.over = true;
        world.due()
    }));
}

/// Sleeps until the spot's news, or `until`.
pub(crate) fn sleep(spot: Spot, until: u64) -> Woken {
    let me = current();
    loop {
        let is_quiet = with(|world| {
            if world.has_news(me, spot) || world.now >= until {
                return None;
            }
            world.sleepers.insert(me, Sleeper { spot, until });
            world.looks.remove(&me);
            world.awake -= 1;
            Some(world.awake == 0)
        });
        let Some(is_quiet) = is_quiet else { break };
        if is_quiet {
            go_on();
        }
        let bed = with(|world| world.bed(me));
        let mut woken = bed.0.lock().expect("no panic here");
        while !*woken {
            woken = bed.1.wait(woken).expect("no panic here");
        }
        *woken = false;
    }
    with(|world| world.wake_up(me, spot))
}

/// Everybody sleeps: the clock goes on until somebody does not.
fn go_on() {
    loop {
        if let Err(what) = judge::judge() {
            fail(&what);
        }
        let due = with(|world| {
            let next = world.next();
            world.now = next.max(world.now);
            (next != NEVER).then(|| world.due())
        });
        match due {
            None => fail("everybody sleeps without a bound"),
            Some(due) if due.is_empty() => continue,
            Some(due) => return wake_all(due),
        }
    }
}

/// What the boot-time clock says, which goes on a little.
pub(crate) fn read_clock() -> u64 {
    let pace = choose(16);
    wake_all(with(|world| {
        match pace {
            0 if world.manners.is_slow && world.next() <= world.now + SLOWEST => {
                world.now = world.now.max(world.next());
            }
            0..=2 => world.now += 20 * MICROSECOND,
            _ => world.now += MICROSECOND,
        }
        world.due()
    }));
    let (now, looks) = with(|world| {
        world.looked_at.insert(current(), world.now);
        let looks = world.looks.entry(current()).or_default();
        *looks += 1;
        (world.now, *looks)
    });
    match looks <= LOOKS.get() {
        true => now,
        false => fail("a thread waits without sleeping"),
    }
}

/// When the calling thread last looked at the clock: a span that it has computed counts from then.
pub(crate) fn looked_at() -> u64 {
    look(|world| world.looked_at.get(&current()).copied().unwrap_or(world.now))
}

pub(crate) fn unpark(thread: usize) {
    wake_all(with(|world| {
        world.unparked.insert(thread, true);
        world.due()
    }));
}

pub(crate) fn call_event_loop() {
    wake_all(with(|world| {
        world.is_called = true;
        world.due()
    }));
}

pub(crate) fn ring() {
    wake_all(with(|world| {
        world.rings += 1;
        world.due()
    }));
}

pub(crate) fn set_alarm(at: u64, waker: Waker) -> usize {
    let (number, due) = with(|world| {
        world.next_alarm += 1;
        world.alarms.insert(world.next_alarm, (at, waker));
        (world.next_alarm, world.due())
    });
    wake_all(due);
    number
}

pub(crate) fn unset_alarm(number: usize) -> Option<Waker> {
    with(|world| world.alarms.remove(&number)).map(|(_, waker)| waker)
}

/// The timer's thread.
pub(crate) fn run_timer() {
    loop {
        sleep(Spot::Timer, NEVER);
        if look(|world| world.over) {
            return;
        }
        let due = with(|world| {
            let now = world.now;
            let number = *world.alarms.iter().find(|(_, (at, _))| *at <= now)?.0;
            world.alarms.remove(&number)
        });
        if let Some((_, waker)) = due {
            crate::foreign::wake(waker);
        }
    }
}

/// Sends a batch to the server.
pub(crate) fn send() {
    expect(Message::Answer);
}

/// Somebody else lets go of a key after a time.
pub(crate) fn notify() {
    expect(Message::Notification);
}

fn expect(message: Message) {
    let answers = look(|world| world.manners.answers);
    let after = answers[choose(answers.len())];
    wake_all(with(|world| {
        let earliest = world.coming.back().map_or(0, |(at, _)| *at);
        let at = world.now.saturating_add(after).max(earliest);
        world.coming.push_back((at, message));
        world.due()
    }));
}

/// Reads from the socket; nothing if there is nothing.
pub(crate) fn receive() -> Option<Message> {
    with(|world| world.socket.pop_front())
}

/// A new connection.
pub(crate) fn reconnect() {
    with(|world| {
        world.socket.clear();
        world.coming.clear();
        world.has_edge = false;
    });
}

fn wake_all(due: Vec<Bed>) {
    for bed in due {
        *bed.0.lock().expect("no panic here") = true;
        bed.1.notify_one();
    }
}

impl World {
    pub(crate) fn is_readable(&self) -> bool {
        !self.socket.is_empty()
    }

    fn bed(&mut self, thread: usize) -> Bed {
        Arc::clone(self.beds.entry(thread).or_default())
    }

    /// When the next thing happens by itself.
    fn next(&self) -> u64 {
        let sleepers = self.sleepers.values().map(|sleeper| sleeper.until);
        let answers = self.coming.iter().map(|(at, _)| *at);
        let alarms = self.alarms.values().map(|(at, _)| *at);
        sleepers.chain(answers).chain(alarms).min().unwrap_or(NEVER)
    }

    /// Who does not sleep any longer.
    fn due(&mut self) -> Vec<Bed> {
        while self.coming.front().is_some_and(|(at, _)| *at <= self.now && *at != NEVER) {
            let (_, message) = self.coming.pop_front().expect("there is one");
            self.socket.push_back(message);
            self.has_edge = true;
        }
        let due = |(thread, sleeper): (&usize, &Sleeper)| {
            let is_due = self.has_news(*thread, sleeper.spot) || sleeper.until <= self.now;
            is_due.then_some(*thread)
        };
        let due: Vec<usize> = self.sleepers.iter().filter_map(due).collect();
        self.awake += due.len();
        due.into_iter()
            .map(|thread| {
                self.sleepers.remove(&thread);
                self.bed(thread)
            })
            .collect()
    }

    fn has_news(&self, thread: usize, spot: Spot) -> bool {
        let is_readable = self.is_readable();
        match spot {
            Spot::Parked => self.unparked.get(&thread).copied().unwrap_or(false),
            Spot::EventLoop => self.is_called || self.has_edge && is_readable,
            Spot::WithSeat => is_readable || self.rings > 0,
            Spot::Deaf => is_readable,
            Spot::Timer => self.over || self.alarms.values().any(|(at, _)| *at <= self.now),
        }
    }

    /// Takes the news.
    fn wake_up(&mut self, thread: usize, spot: Spot) -> Woken {
        let is_readable = self.is_readable();
        match spot {
            Spot::Parked => {
                self.unparked.insert(thread, false);
                Woken::default()
            }
            Spot::EventLoop => {
                self.is_called = false;
                Woken { socket: std::mem::take(&mut self.has_edge) && is_readable }
            }
            Spot::WithSeat => {
                self.rings = 0;
                Woken { socket: is_readable }
            }
            Spot::Deaf => Woken { socket: is_readable },
            Spot::Timer => Woken::default(),
        }
    }
}
