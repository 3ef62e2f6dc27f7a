//! A session under any sequence of calls, with any bytes of a server. Checked against a simple
//! model: answers in order, one outcome for each ticket, an answer only for the exact bytes of
//! one, output byte for byte, buffers and ring within their limits, no life after an error; and
//! no error at all as long as the server keeps to the protocol and the calls to their order.
//!
//! Input: a byte for the start and the limits, then operations, see `Harness::operate`.
#![no_main]

#[path = "session_ops/model.rs"]
mod model;
#[path = "session_ops/server.rs"]
mod server;

use distlock::proto::fault::Fault;
use distlock::proto::frontend::KeyParameters;
use distlock::proto::session::{Event, Refused, Session, SessionLimits};
use distlock::proto::statement::{Run, Statement, Swap};
use distlock_fuzz::script::{Call, call};
use distlock_fuzz::{ANY_METHOD, Input, check_text, handshake, startup};
use libfuzzer_sys::fuzz_target;
use model::Model;
use server::Server;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut harness = Harness::new(input.u8());
    // Bounded, since a thousand operations find nothing that a hundred do not.
    for _ in 0..512 {
        if input.is_empty() {
            break;
        }
        harness.operate(&mut input);
    }
    harness.finish();
});

struct Harness {
    session: Session,
    limits: SessionLimits,
    model: Model,
    server: Server,
    /// What the server has sent and the session has not got yet.
    late: Vec<u8>,
    next: u64,
    /// Whether the server has kept to the protocol and we to the order of calls.
    is_clean: bool,
    has_failed: bool,
}

impl Harness {
    fn new(mode: u8) -> Self {
        let limits = SessionLimits {
            in_flight: [2, 3, 8, 256][usize::from(mode & 3)],
            // The smaller one holds all that a start has to send, and little more.
            write_buffer: [5_120, SessionLimits::DEFAULT.write_buffer][usize::from(mode >> 2 & 1)],
            ..SessionLimits::DEFAULT
        };
        let mut harness = Self {
            session: Session::new(startup(ANY_METHOD), limits).expect("a StartupMessage"),
            limits,
            model: Model::new(limits),
            server: Server::default(),
            late: Vec::new(),
            next: 0,
            is_clean: mode & 0x80 != 0,
            has_failed: false,
        };
        if harness.is_clean {
            harness.feed(&handshake());
            while harness.poll() {}
            harness.take(usize::MAX);
            assert!(harness.session.is_ready(), "{}", harness.session.state());
        }
        harness
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => match call(input.u8(), input.u8()) {
                Some(call) => self.submit(&call),
                None => self.sync(),
            },
            1 => self.sync(),
            2 => {
                let count = usize::from(input.u8()) + 1;
                let bytes = input.bytes(count);
                // The rest of the conversation is not the model server's any more.
                self.is_clean &= bytes.is_empty();
                self.feed(bytes);
            }
            3 => {
                // A server keeps its replies until the Sync; only errors are sent at once, and
                // the callers of a session close their batches before they read.
                self.is_clean &= self.server.is_batch_closed();
                let (answer, how) = (input.u8(), input.u8());
                let mut bytes = self.server.reply(answer, how);
                self.is_clean &= self.server.is_honest();
                // Its end may come with what comes next.
                let late = if how & server::LATE == 0 { 0 } else { usize::from(answer) + 1 };
                let late = bytes.split_off(bytes.len().saturating_sub(late));
                self.feed(&bytes);
                self.late = late;
            }
            4 => while self.poll() {},
            5 => {
                self.poll();
            }
            6 => self.derive(u32::from(input.u8())),
            _ => {
                let count = usize::from(input.u8()) + 1;
                self.take(if count == 256 { usize::MAX } else { count });
            }
        }
        self.check();
    }

    fn submit(&mut self, call: &Call) {
        let description = call.describe();
        let expected = match self.session.is_ready() {
            true => self.model.may_submit(call, &description, self.session.output().len()),
            false => Err(Refused::Busy),
        };
        assert_eq!(call.submit(&mut self.session, self.next), expected);
        if expected.is_ok() {
            let is_parsed = self.model.submitted(self.next, call, &description);
            self.server.submitted(&description, is_parsed);
            self.next += call.tickets();
        }
    }

    fn sync(&mut self) {
        let mark = self.next;
        let expected = match self.session.is_ready() {
            true => self.model.may_sync(self.session.output().len()),
            false => Err(Refused::Busy),
        };
        assert_eq!(self.session.sync(mark), expected);
        if expected.is_ok() {
            self.model.synced(mark);
            self.server.synced();
            self.next += 1;
        } else {
            // A statement that was accepted has room for its Sync.
            assert!(!self.session.is_ready() || self.server.is_batch_closed());
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let all = [&std::mem::take(&mut self.late)[..], bytes].concat();
        let mut bytes = &all[..];
        while !bytes.is_empty() && !self.has_failed {
            if self.session.space().is_empty() {
                while self.poll() {}
                self.derive(u32::MAX);
                continue;
            }
            let space = self.session.space();
            assert!(space.len() <= self.limits.read_buffer);
            let (now, later) = bytes.split_at(space.len().min(bytes.len()));
            space[..now.len()].copy_from_slice(now);
            self.session.filled(now.len());
            self.model.fed(now);
            bytes = later;
        }
    }

    /// Takes an event; false when there is none.
    fn poll(&mut self) -> bool {
        match self.session.poll_event() {
            Ok(Some(event)) => {
                assert!(!self.has_failed, "an event after the end: {event:?}");
                match event {
                    Event::Ready(_) => self.model.ready(self.session.output().len()),
                    event => self.model.happened(&event),
                }
                return true;
            }
            Ok(None) => {
                assert!(!self.has_failed, "the error is forgotten");
                self.model.polled();
            }
            Err(fault) => self.failed(&fault),
        }
        false
    }

    fn derive(&mut self, rounds: u32) {
        if let Err(fault) = self.session.derive(rounds) {
            self.failed(&fault);
            assert!(self.session.poll_event().is_err(), "the error is forgotten");
        }
    }

    fn failed(&mut self, fault: &Fault) {
        check_text(fault);
        assert!(!self.is_clean, "an error without a reason: {fault}");
        self.has_failed = true;
        assert!(!self.session.is_ready() && !self.session.is_deriving());
        for call in [
            Call::One(Statement::TryLock(KeyParameters::Bigint(0))),
            Call::Run(Run::TryLock, vec![0, 1]),
            Call::Swap(Swap { release: 0, try_lock: 0 }),
        ] {
            assert_eq!(call.submit(&mut self.session, 0), Err(Refused::Busy));
        }
        assert_eq!(self.session.sync(0), Err(Refused::Busy));
    }

    fn take(&mut self, count: usize) {
        let count = count.min(self.session.output().len());
        self.model.sent(count);
        self.session.sent(count);
    }

    /// What holds after every operation.
    fn check(&self) {
        assert!(self.session.output().len() <= self.limits.write_buffer);
        assert!(self.model.unanswered() <= self.limits.in_flight);
        assert!(self.session.tickets().eq(self.model.tickets()), "other tickets than ours");
        assert_eq!(self.session.oldest_mark(), self.model.oldest_mark());
        assert!(!self.session.state().is_empty());
        self.model.check_output(self.session.output());
    }

    fn finish(mut self) {
        self.feed(&[]);
        while self.poll() {}
        self.check();
        if self.is_clean && self.server.is_batch_closed() {
            while !self.server.is_idle() {
                let bytes = self.server.reply(0, server::NO_FAULT);
                self.feed(&bytes);
                while self.poll() {}
            }
            assert_eq!(self.model.unanswered(), 0, "answers that were never told");
        }
        self.session.terminate();
        assert!(self.session.poll_event().is_err());
    }
}
