//! A session under any sequence of calls, with any bytes of a server. Checked against a simple
//! model: answers in order, one outcome for each ticket, a grant only for the exact bytes of a
//! grant, output byte for byte, buffers and ring within their limits, no life after an error; and
//! no error at all as long as the server keeps to the protocol and the calls to their order.
//!
//! Input: a byte for the start and the limits, then operations, see `Harness::operate`.
#![no_main]

#[path = "session_ops/model.rs"]
mod model;

use distlock::proto::fault::Fault;
use distlock::proto::session::{Event, Session, SessionLimits};
use distlock_fuzz::{ANY_METHOD, Input, check_text, handshake, startup, statement};
use libfuzzer_sys::fuzz_target;
use model::{Model, Pending, Server};

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
            model: Model::default(),
            server: Server::default(),
            next: 0,
            is_clean: mode & 0x80 != 0,
            has_failed: false,
        };
        if harness.is_clean {
            harness.feed(&handshake());
            harness.poll();
            harness.take(usize::MAX);
            assert!(harness.session.is_ready(), "{}", harness.session.state());
        }
        harness
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.u8() % 10 {
            kind @ 0..=3 => self.submit(kind, input.u8()),
            4 => self.sync(),
            5 => {
                let count = usize::from(input.u8()) + 1;
                let bytes = input.bytes(count);
                // The rest of the conversation is not the model server's any more.
                self.is_clean &= bytes.is_empty();
                self.feed(bytes);
            }
            6 => {
                // A server keeps its replies until the Sync; only errors are sent at once, and
                // the callers of a session close their batches before they read.
                self.is_clean &= self.server.is_batch_closed();
                let bytes = self.server.reply(input.u8());
                self.feed(&bytes);
            }
            7 => self.poll(),
            8 => self.derive(u32::from(input.u8())),
            _ => {
                let count = usize::from(input.u8()) + 1;
                self.take(if count == 256 { usize::MAX } else { count });
            }
        }
        self.check();
    }

    fn submit(&mut self, kind: u8, key: u8) {
        // With bits in both halves and in the sign.
        let key = i64::from(key).wrapping_mul(-0x0123_4567_89ab_cdef);
        let is_ready = self.session.is_ready();
        let has_room = self.session.output().len() + 1024 <= self.limits.write_buffer
            && self.model.unanswered() + 2 <= self.limits.in_flight;
        let accepted = self.session.submit(&statement(kind, key), self.next).is_ok();
        assert_eq!(accepted, is_ready && has_room);
        if accepted {
            self.model.submitted(self.next, kind, key);
            self.server.queue.push_back(Pending::Statement { ticket: self.next });
            self.next += 1;
        }
    }

    fn sync(&mut self) {
        let mark = self.next;
        let is_ready = self.session.is_ready();
        let accepted = self.session.sync(mark).is_ok();
        assert!(is_ready || !accepted);
        if !accepted {
            // A statement that was accepted has room for its Sync.
            return assert!(!is_ready || self.server.is_batch_closed());
        }
        self.model.synced(mark);
        self.server.queue.push_back(Pending::Sync { mark });
        self.next += 1;
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.has_failed {
            if self.session.space().is_empty() {
                self.poll();
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

    fn poll(&mut self) {
        loop {
            match self.session.poll_event() {
                Ok(Some(event)) => {
                    assert!(!self.has_failed, "an event after the end: {event:?}");
                    match event {
                        Event::Ready(_) => self.model.ready(self.session.output().len()),
                        event => self.model.happened(&event),
                    }
                }
                Ok(None) => return assert!(!self.has_failed, "the error is forgotten"),
                Err(fault) => return self.failed(&fault),
            }
        }
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
        assert!(self.session.submit(&statement(0, 0), 0).is_err());
        assert!(self.session.sync(0).is_err());
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
        self.poll();
        self.check();
        if self.is_clean && self.server.is_batch_closed() {
            while !self.server.queue.is_empty() {
                let bytes = self.server.reply(0);
                self.feed(&bytes);
                self.poll();
            }
            assert_eq!(self.model.unanswered(), 0, "answers that were never told");
        }
        self.session.terminate();
        assert!(self.session.poll_event().is_err());
    }
}
