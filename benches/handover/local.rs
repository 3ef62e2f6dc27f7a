//! Threads of one process: those of one manager, next to a bare queue that parks and unparks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use distlock::{Context, Lock, Manager};

use crate::crew::nanos;
use crate::holds::{Figures, Hold, now};
use crate::worker::KEY;

/// Takes the key and gives it back, from any thread.
pub(crate) trait Local: Sync {
    type Held;
    fn take(&self) -> Self::Held;
    fn give(&self, held: Self::Held);
}

impl Local for Manager {
    type Held = Lock;

    fn take(&self) -> Lock {
        self.lock(&Context::background(), KEY).expect("a lock")
    }

    fn give(&self, held: Lock) {
        held.unlock().expect("it was held");
    }
}

/// First come, first served; the one that gives it back hands it to the next in the line.
#[derive(Default)]
pub(crate) struct Line(Mutex<State>);

#[derive(Default)]
struct State {
    is_held: bool,
    waiting: VecDeque<(Arc<AtomicBool>, Thread)>,
}

impl Local for Line {
    type Held = ();

    fn take(&self) {
        let turn = Arc::new(AtomicBool::new(false));
        {
            let mut state = self.0.lock().expect("nobody panics");
            if !state.is_held {
                state.is_held = true;
                return;
            }
            state.waiting.push_back((Arc::clone(&turn), thread::current()));
        }
        while !turn.load(Ordering::Acquire) {
            thread::park();
        }
    }

    fn give(&self, (): ()) {
        let mut state = self.0.lock().expect("nobody panics");
        match state.waiting.pop_front() {
            Some((turn, thread)) => {
                turn.store(true, Ordering::Release);
                thread.unpark();
            }
            None => state.is_held = false,
        }
    }
}

/// So many threads lock, hold and release for so long.
pub(crate) fn looped(
    what: &impl Local,
    threads: usize,
    time: Duration,
    hold: Duration,
    figures: &mut Figures,
) {
    let begin = now();
    let end = begin + nanos(time);
    let one = |who| {
        let mut holds = Vec::new();
        while now() < end {
            let request = now();
            let held = what.take();
            let grant = now();
            thread::sleep(hold);
            let release = now();
            what.give(held);
            holds.push(Hold { request, grant, release, who });
        }
        holds
    };
    let holds = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|who| scope.spawn(move || one(who))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("it ends well")).collect()
    });
    figures.add(holds, threads, (begin, end));
}
