//! One thread's part in a script.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use distlock::{Canceler, Cause, Context, Lock, Manager};

use crate::forms::{Answer, Ask, Asking, Form, Handle, KEYS};
use crate::plan::{Plan, Step, THREADS};
use crate::rooms::{Rooms, Term};
use crate::tally::{Event, Tally};

/// What the threads share.
#[derive(Debug)]
pub(crate) struct World {
    /// The second one releases on cancel.
    pub(crate) managers: [Manager; 2],
    pub(crate) rooms: Rooms,
    pub(crate) tally: Tally,
    /// Of each thread the canceler of its latest context.
    cancelers: [Mutex<Option<Scope>>; THREADS],
}

#[derive(Debug, Clone)]
struct Scope {
    canceler: Canceler,
    canceled: Arc<AtomicBool>,
}

impl World {
    pub(crate) fn new(managers: [Manager; 2]) -> Self {
        Self {
            managers,
            rooms: Rooms::default(),
            tally: Tally::default(),
            cancelers: Default::default(),
        }
    }

    /// Releases a lock. One that is gone already is as good as released by its holder.
    pub(crate) fn let_go(&self, held: Held, unlocks: bool) {
        if held.may_be_gone() {
            self.tally.count(Event::GoneUnderTheHolder, held.ask.form);
        } else {
            assert!(held.handle.is_held() || held.may_be_gone(), "{:?} is lost", held.ask);
            if held.handle.context().is_done() {
                self.tally.count(Event::CanceledHeld, held.ask.form);
            }
        }
        // Not of all: a context that somebody has is not used again for another lock.
        let context = (held.number % 4 == 0).then(|| held.handle.context().clone());
        self.rooms.leave(held.ask, held.number);
        match unlocks {
            true => {
                self.tally.count(Event::Unlocked, held.ask.form);
                held.handle.unlock().expect("held until now");
            }
            false => {
                self.tally.count(Event::Dropped, held.ask.form);
                drop(held.handle);
            }
        }
        assert!(context.is_none_or(|context| context.is_done()), "{:?} is released", held.ask);
    }

    /// Makes an exclusive lock a shared one, or a set its locks.
    fn change(&self, held: Held) -> Vec<Held> {
        let Held { mut ask, handle, term, number } = held;
        match handle {
            Handle::One(mut lock) => {
                let form = ask.form;
                if form.can_be_downgraded() {
                    self.rooms.share(ask, number);
                    ask.form = Form::Shared;
                }
                match lock.downgrade() {
                    Ok(()) if form.can_be_downgraded() => self.tally.count(Event::Downgraded, form),
                    // It stays what it is.
                    Ok(()) => {}
                    Err(error) => assert!(term.is_over(), "{ask:?}, {form:?} before: {error}"),
                }
                vec![Held { ask, handle: Handle::One(lock), term, number }]
            }
            Handle::All(set) => {
                self.tally.count(Event::Split, ask.form);
                let one = |lock: Lock| {
                    let key = KEYS.iter().position(|key| *key == lock.key());
                    let ask = Ask { key: key.expect("it was asked for"), form: Form::Plain, ..ask };
                    let (handle, term) = (Handle::One(lock), term.clone());
                    Held { ask, handle, term, number }
                };
                set.into_iter().map(one).collect()
            }
        }
    }
}

/// What a thread holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) ask: Ask,
    pub(crate) handle: Handle,
    term: Term,
    /// To leave the room by.
    number: u64,
}

impl Held {
    /// Whether it may be released under its holder, by what has happened so far.
    pub(crate) fn may_be_gone(&self) -> bool {
        self.term.is_over()
    }

    /// Whether its release is a matter of time.
    pub(crate) fn is_released_by_time(&self) -> bool {
        self.term.deadline.is_some()
    }
}

/// What a thread has at the end of its part, or the text of its panic.
pub(crate) type Report = Result<Vec<Held>, String>;

/// Counts its calls, and unparks its thread.
struct Bell {
    rings: AtomicU32,
    thread: Thread,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

pub(crate) struct Worker {
    number: usize,
    world: Arc<World>,
    bell: Arc<Bell>,
    held: Vec<Held>,
    /// A request that is under way.
    kept: Option<(Ask, Asking)>,
    /// Of locks that were held in this script, and of some before, with what ended them.
    contexts: VecDeque<(Context, Option<Cause>)>,
}

/// So many contexts of former scripts are kept.
const CONTEXTS_MAX: usize = 8;

impl Worker {
    pub(crate) fn new(number: usize, world: Arc<World>) -> Self {
        let bell = Arc::new(Bell { rings: AtomicU32::new(0), thread: thread::current() });
        let contexts = VecDeque::new();
        Self { number, world, bell, held: Vec::new(), kept: None, contexts }
    }

    pub(crate) fn report(&mut self, plan: &Plan) -> Report {
        let play = catch_unwind(AssertUnwindSafe(|| self.play(plan)));
        play.map_err(|panic| text_of(&*panic))
    }

    fn play(&mut self, plan: &Plan) -> Vec<Held> {
        // Everything was released since they were kept, and no newer lock revives them (I8).
        for (context, cause) in &mut self.contexts {
            let now = context.err();
            assert!(now.is_some() && (cause.is_none() || *cause == now), "{cause:?}, now {now:?}");
            *cause = now;
        }
        self.contexts.drain(..self.contexts.len().saturating_sub(CONTEXTS_MAX));
        for step in plan.steps[self.number] {
            self.step(step);
        }
        self.kept = None;
        std::mem::take(&mut self.held)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Try(ask) => {
                let answer = ask.of(&self.world.managers).try_now();
                self.answered(ask, Term::default(), answer);
            }
            Step::LockFor(ask, span) => {
                let answer = ask.of(&self.world.managers).timeout(span).wait();
                self.answered(ask, Term::default(), answer);
            }
            Step::LockUnder(ask, span) => self.lock_under(ask, span),
            Step::LockCancelable(ask, span) => self.lock_cancelable(ask, span),
            Step::CancelOf(thread) => {
                let scope = self.world.cancelers[thread].lock().expect("no panic in it").clone();
                if let Some(scope) = scope {
                    scope.canceled.store(true, Ordering::SeqCst);
                    scope.canceler.cancel();
                }
            }
            Step::PollAndDrop { ask, polls, pause, waits } => {
                let mut asking = self.asking(ask, waits);
                match self.poll(&mut asking, polls, pause) {
                    Some(answer) => {
                        self.world.tally.count(Event::GrantedToAPoll, ask.form);
                        self.answered(ask, Term::default(), answer);
                    }
                    None => self.world.tally.count(Event::DroppedPending, ask.form),
                }
            }
            Step::PollAndKeep { ask, polls, pause } => {
                let mut asking = self.asking(ask, true);
                match self.poll(&mut asking, polls, pause) {
                    Some(answer) => self.answered(ask, Term::default(), answer),
                    None => self.kept = Some((ask, asking)),
                }
            }
            Step::AwaitKept(limit) => {
                if let Some((ask, asking)) = self.kept.take() {
                    self.await_for(ask, asking, limit);
                }
            }
            Step::ReleaseWhileWaiting { which, polls, unlocks, limit } => {
                self.release_while_waiting(which, polls, unlocks, limit);
            }
            Step::Change(which) => {
                if let Some(place) = self.place(which) {
                    let held = self.held.swap_remove(place);
                    let changed = self.world.change(held);
                    self.held.extend(changed);
                }
            }
            Step::Unlock(which) => self.let_go(which, true),
            Step::Drop(which) => self.let_go(which, false),
            Step::KeepContext(which) => {
                if let Some(place) = self.place(which) {
                    let form = self.held[place].ask.form;
                    self.world.tally.count(Event::ContextKept, form);
                    self.contexts.push_back((self.held[place].handle.context().clone(), None));
                }
            }
        }
    }

    fn lock_under(&mut self, ask: Ask, span: Duration) {
        // Taken before the context takes its own, which is thus not earlier.
        let deadline = Instant::now() + span;
        let context = Context::background().with_timeout(span);
        let answer = ask.of(&self.world.managers).context(&context).wait();
        let deadline = self.releases_on_cancel(ask).then_some(deadline);
        let term = Term { deadline, ..Term::default() };
        self.answered(ask, term, answer);
    }

    fn lock_cancelable(&mut self, ask: Ask, span: Duration) {
        let (context, canceler) = Context::background().with_cancel();
        let canceled = Arc::new(AtomicBool::new(false));
        let scope = Scope { canceler, canceled: Arc::clone(&canceled) };
        *self.world.cancelers[self.number].lock().expect("no panic in it") = Some(scope);
        let answer = ask.of(&self.world.managers).context(&context).timeout(span).wait();
        let canceled = self.releases_on_cancel(ask).then_some(canceled);
        let term = Term { canceled, ..Term::default() };
        self.answered(ask, term, answer);
    }

    fn releases_on_cancel(&self, ask: Ask) -> bool {
        ask.manager == 1
    }

    fn release_while_waiting(&mut self, which: u64, polls: u64, unlocks: bool, limit: Duration) {
        let Some(place) = self.place(which) else { return };
        let ask = self.held[place].ask;
        let mut asking = self.asking(ask, true);
        let early = self.poll(&mut asking, polls, Duration::ZERO);
        let held = &self.held[place];
        if early.is_some() {
            let both = ask.places().into_iter().all(|place| ask.form.admits(place, &[ask.form]));
            assert!(both || held.may_be_gone(), "{ask:?} was granted twice");
        }
        self.let_go(which, unlocks);
        match early {
            Some(answer) => self.answered(ask, Term::default(), answer),
            None if self.await_for(ask, asking, limit) => {
                self.world.tally.count(Event::GrantedAfterOwnRelease, ask.form);
            }
            None => {}
        }
    }

    fn asking(&self, ask: Ask, waits: bool) -> Asking {
        ask.of(&self.world.managers).into_asking(waits)
    }

    /// Polls so often, and after each time but the last gives the waker time to be called.
    fn poll(&self, asking: &mut Asking, polls: u64, pause: Duration) -> Option<Answer> {
        let waker = Waker::from(Arc::clone(&self.bell));
        for poll in 0..polls {
            let rings = self.bell.rings.load(Ordering::SeqCst);
            let polled = asking.as_mut().poll(&mut TaskContext::from_waker(&waker));
            if let Poll::Ready(answer) = polled {
                return Some(answer);
            }
            let is_last = poll + 1 == polls;
            if !is_last && self.bell.rings.load(Ordering::SeqCst) == rings {
                thread::park_timeout(pause);
            }
        }
        None
    }

    /// Awaits a request for a time, and drops it then; says whether it was granted.
    fn await_for(&mut self, ask: Ask, mut asking: Asking, limit: Duration) -> bool {
        let waker = Waker::from(Arc::clone(&self.bell));
        let end = Instant::now() + limit;
        loop {
            let polled = asking.as_mut().poll(&mut TaskContext::from_waker(&waker));
            if let Poll::Ready(answer) = polled {
                self.answered(ask, Term::default(), answer);
                return true;
            }
            match end.checked_duration_since(Instant::now()) {
                Some(left) => thread::park_timeout(left),
                None => {
                    self.world.tally.count(Event::DroppedPending, ask.form);
                    return false;
                }
            }
        }
    }

    fn answered(&mut self, ask: Ask, term: Term, answer: Answer) {
        match answer {
            Ok(Some(handle)) => {
                self.world.tally.count(Event::Granted, ask.form);
                let number = self.world.rooms.enter(ask, &term, handle.token());
                let held = Held { ask, handle, term, number };
                // Asked in this order: what was not over afterwards was not before.
                let is_held = held.handle.is_held();
                assert!(is_held || held.may_be_gone(), "{ask:?} was granted and is not held");
                self.held.push(held);
            }
            Ok(None) => self.world.tally.count(Event::Refused, ask.form),
            Err(error) if error.is_timeout() => self.world.tally.count(Event::OutOfTime, ask.form),
            Err(error) if error.is_canceled() => {
                self.world.tally.count(Event::CanceledWaiting, ask.form)
            }
            Err(error) => panic!("{ask:?}: {error}"),
        }
    }

    fn let_go(&mut self, which: u64, unlocks: bool) {
        if let Some(place) = self.place(which) {
            let held = self.held.swap_remove(place);
            self.world.let_go(held, unlocks);
        }
    }

    fn place(&self, which: u64) -> Option<usize> {
        which.checked_rem(self.held.len() as u64).map(|place| place as usize)
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
