use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::task::Wake;

use super::*;
use crate::slots::{Drive, Slots, Ticket};
use crate::warning::Warning;

/// Nobody's.
fn lease(span: Duration) -> Arc<Home> {
    let lease = Home::new(Weak::<Nobody>::new());
    lease.believe(Time::now().after(span));
    Arc::new(lease)
}

/// A lock's context under a parent, believed in for a minute.
fn hold(parent: &Context) -> HoldContext {
    let mut hold = HoldContext::new();
    assert!(hold.renew(parent, &lease(Duration::from_secs(60)), None));
    hold
}

#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_background_is_never_done() {
    let context = Context::background();
    assert_eq!((context.err(), context.deadline()), (None, None));
    assert_eq!(context.done().wait_timeout(Duration::from_millis(1)), None);
}

#[test]
fn cancelling_reaches_every_descendant_and_nothing_above() {
    let (parent, _keep) = Context::background().with_cancel();
    let (child, canceler) = parent.with_cancel();
    let grandchild = child.with_timeout(Duration::from_secs(60));
    let sibling = parent.with_timeout(Duration::from_secs(60));
    canceler.cancel();
    assert_eq!(child.err(), Some(Cause::Canceled));
    assert_eq!(grandchild.err(), Some(Cause::Canceled));
    assert_eq!((parent.err(), sibling.err()), (None, None));
    let late = child.with_timeout(Duration::from_secs(60));
    assert_eq!(late.err(), Some(Cause::Canceled), "born done");
}

#[test]
fn the_first_cause_stands() {
    let (context, canceler) = Context::background().with_cancel();
    let child = context.with_timeout(Duration::ZERO);
    assert_eq!(child.err(), Some(Cause::DeadlineExceeded));
    canceler.cancel();
    assert_eq!(child.err(), Some(Cause::DeadlineExceeded));
}

#[test]
fn a_child_is_never_done_later_than_its_parent() {
    let parent = Context::background().with_timeout(Duration::from_secs(1));
    let child = parent.with_timeout(Duration::from_secs(3600));
    let (parent, child) = (parent.deadline(), child.deadline());
    let gap = child.expect("inherited") - parent.expect("its own").min(child.expect("inherited"));
    assert!(gap < Duration::from_millis(500), "{gap:?}");
}

#[test]
fn dropping_the_canceler_cancels_nothing() {
    let (context, canceler) = Context::background().with_cancel();
    drop(canceler);
    assert!(!context.is_done());
}

#[test]
fn who_waits_is_woken_by_a_cancellation() {
    let (context, canceler) = Context::background().with_cancel();
    let (sender, receiver) = channel();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (context, sender) = (context.clone(), sender.clone());
            std::thread::spawn(move || {
                sender.send(()).expect("the test listens");
                context.done().wait()
            })
        })
        .collect();
    for _ in 0..3 {
        receiver.recv().expect("each waiter comes");
    }
    canceler.cancel();
    for waiter in waiters {
        assert_eq!(waiter.join().expect("no panic"), Cause::Canceled);
    }
}

#[test]
fn a_deadline_ends_the_wait_without_any_event() {
    let context = Context::background().with_timeout(Duration::from_millis(5));
    assert_eq!(context.done().wait(), Cause::DeadlineExceeded);
}

#[test]
fn a_watcher_is_woken_once_and_not_after_it_has_left() {
    let (context, canceler) = Context::background().with_cancel();
    let (stays, leaves) = (Arc::new(Count::default()), Arc::new(Count::default()));
    context.watch(&Waker::from(Arc::clone(&stays))).expect("live");
    let key = context.watch(&Waker::from(Arc::clone(&leaves))).expect("live");
    context.unwatch(key);
    canceler.cancel();
    canceler.cancel();
    assert_eq!((stays.0.load(Ordering::SeqCst), leaves.0.load(Ordering::SeqCst)), (1, 0));
    assert!(context.watch(&Waker::from(stays)).is_none(), "nothing more will come");
}

/// I8.
#[test]
fn an_expired_lease_is_never_believed_again() {
    let mut hold = HoldContext::new();
    let lease = lease(Duration::ZERO);
    assert!(hold.renew(&Context::background(), &lease, None));
    let context = hold.context();
    assert_eq!(context.hold_remaining(), Duration::ZERO);
    lease.believe(Time::now().after(Duration::from_secs(60)));
    assert_eq!(context.hold_remaining(), Duration::ZERO);
    assert_eq!(context.err(), Some(Cause::LeaseExpired));
    assert_eq!(context.fate(), Some(Cause::LeaseExpired));
}

/// I8.
#[test]
fn who_was_told_of_an_expired_lease_does_not_hold_the_lock_again() {
    let mut hold = HoldContext::new();
    let lease = lease(Duration::ZERO);
    assert!(hold.renew(&Context::background(), &lease, None));
    let context = hold.context();
    assert_eq!(context.err(), Some(Cause::LeaseExpired));
    lease.believe(Time::now().after(Duration::from_secs(60)));
    assert_eq!(context.hold_remaining(), Duration::ZERO);
}

#[test]
fn a_chain_of_contexts_may_be_longer_than_the_stack_is_deep() {
    let (root, canceler) = Context::background().with_cancel();
    let chain = || (0..100_000).fold(root.clone(), |context, _| context.with_cancel().0);
    drop(chain());
    let last = chain();
    canceler.cancel();
    assert_eq!(last.err(), Some(Cause::Canceled));
}

#[test]
fn a_panic_in_one_waker_keeps_nobody_else_from_being_woken() {
    struct Panic;
    impl Wake for Panic {
        fn wake(self: Arc<Self>) {
            panic!("not ours");
        }
    }
    let (context, canceler) = Context::background().with_cancel();
    let child = context.with_timeout(Duration::from_secs(60));
    let count = Arc::new(Count::default());
    context.watch(&Waker::from(Arc::clone(&count))).expect("live");
    context.watch(&Waker::from(Arc::new(Panic))).expect("live");
    context.watch(&Waker::from(Arc::clone(&count))).expect("live");
    canceler.cancel();
    assert_eq!((count.0.load(Ordering::SeqCst), child.err()), (2, Some(Cause::Canceled)));
}

#[test]
fn a_cancelled_requester_still_holds_the_lock() {
    let (parent, canceler) = Context::background().with_cancel();
    let hold = hold(&parent);
    canceler.cancel();
    let context = hold.context();
    assert_eq!(context.err(), Some(Cause::Canceled));
    assert!(!context.hold_remaining().is_zero(), "the lock itself is untouched");
    hold.finish(Cause::ConnectionLost);
    assert_eq!(context.err(), Some(Cause::Canceled), "the first cause stands");
    assert_eq!(context.fate(), Some(Cause::ConnectionLost));
    assert!(context.hold_remaining().is_zero());
}

#[test]
fn the_loss_of_a_lock_reaches_the_work_under_it_and_not_the_requester() {
    let (parent, _keep) = Context::background().with_cancel();
    let hold = hold(&parent);
    let work = hold.context().with_timeout(Duration::from_secs(60));
    hold.finish(Cause::ServerShutdown);
    assert_eq!(work.err(), Some(Cause::ServerShutdown));
    assert_eq!(parent.err(), None);
}

#[test]
fn work_under_a_lock_sees_its_lease_run_out() {
    let mut hold = HoldContext::new();
    assert!(hold.renew(&Context::background(), &lease(Duration::from_millis(5)), None));
    let work = hold.context().with_timeout(Duration::from_secs(60));
    assert_eq!(work.done().wait(), Cause::LeaseExpired);
}

#[test]
fn a_context_is_used_again_only_when_nobody_has_kept_it() {
    let (parent, _keep) = Context::background().with_cancel();
    let mut hold = hold(&parent);
    let kept = hold.context();
    hold.finish(Cause::Released);
    assert!(!hold.renew(&parent, &lease(Duration::from_secs(60)), None));
    assert_eq!(kept.err(), Some(Cause::Released));
    drop(kept);
    assert!(hold.renew(&parent, &lease(Duration::from_secs(60)), None));
    assert_eq!(hold.context().err(), None);
}

#[test]
fn a_thousand_lives_leave_no_trace_in_the_parent() {
    let (parent, _keep) = Context::background().with_cancel();
    let mut hold = HoldContext::new();
    for _ in 0..1_000 {
        assert!(hold.renew(&parent, &lease(Duration::from_secs(60)), None));
        hold.finish(Cause::Released);
    }
    drop(parent.with_timeout(Duration::from_secs(60)));
    let node = parent.node.as_ref().expect("not the background");
    assert!(node.links().next().is_none());
}

#[test]
fn a_joint_context_ends_with_the_first_of_its_locks_and_for_the_same_cause() {
    let (parent, _keep) = Context::background().with_cancel();
    for gone in 0..3 {
        let mut holds = [(); 3].map(|()| hold(&parent));
        let contexts = holds.each_ref().map(HoldContext::context);
        let joint = Context::joint(contexts.iter());
        let child = joint.with_timeout(Duration::from_secs(60));
        assert_eq!(joint.err(), None);
        holds[gone].finish(Cause::ConnectionLost);
        assert_eq!(joint.err(), Some(Cause::ConnectionLost));
        assert_eq!(child.err(), Some(Cause::ConnectionLost));
        holds.iter().for_each(|hold| hold.finish(Cause::Released));
        assert_eq!(joint.err(), Some(Cause::ConnectionLost), "the first cause stands");
        // Nothing that is left of it keeps the locks' contexts from being used again.
        drop(contexts);
        assert!(holds.iter_mut().all(HoldContext::is_unshared));
        assert!(holds.iter_mut().all(|hold| hold.renew(&parent, &lease(Duration::MAX), None)));
    }
    let gone = hold(&parent);
    gone.finish(Cause::ServerShutdown);
    let contexts = [hold(&parent).context(), gone.context()];
    assert_eq!(Context::joint(contexts.iter()).err(), Some(Cause::ServerShutdown), "born done");
}

/// The others would be believed again when the server's answer comes after all.
#[test]
fn a_joint_context_ends_when_one_of_its_locks_was_doubted() {
    let holds = [(); 2].map(|()| {
        let mut hold = HoldContext::new();
        let until = lease(Duration::from_secs(60));
        assert!(hold.renew(&Context::background(), &until, None));
        (hold, until)
    });
    let contexts = holds.each_ref().map(|(hold, _)| hold.context());
    let joint = Context::joint(contexts.iter());
    holds[1].1.believe(Time::now());
    assert!(contexts[1].hold_remaining().is_zero() && !contexts[0].hold_remaining().is_zero());
    assert_eq!(joint.err(), Some(Cause::LeaseExpired));
}

#[test]
fn a_token_ends_with_the_life_it_was_given_for() {
    let token = Token { timeline: 1, lsn: 7 };
    let mut hold = HoldContext::new();
    for given in [None, Some(token), None, Some(token)] {
        assert!(hold.renew(&Context::background(), &lease(Duration::from_secs(60)), given));
        assert_eq!(hold.context().token(), given);
        hold.finish(Cause::Released);
    }
}

/// Of two joint contexts, the second finds the place of the first taken.
#[test]
fn a_lock_ends_every_joint_context_that_it_is_in() {
    let holds = [(); 2].map(|()| hold(&Context::background()));
    let contexts = holds.each_ref().map(HoldContext::context);
    let joints = [(); 3].map(|()| Context::joint(contexts.iter()));
    holds[1].finish(Cause::Released);
    assert!(joints.iter().all(|joint| joint.err() == Some(Cause::Released)));
}

/// There is one for each held lock.
#[test]
fn a_node_is_small() {
    assert!(size_of::<Node>() <= 48, "{}", size_of::<Node>());
}

/// The guard of no lock.
#[derive(Debug)]
struct Nobody;

impl Drive for Nobody {
    fn slots(&self) -> &Slots {
        unreachable!("nobody is asked")
    }
    fn kick(&self) {}
    fn attend(&self, _: Ticket, _: bool) -> bool {
        false
    }
    fn kick_release(&self) {}
    fn drive(&self, _: Ticket, _: Time) -> bool {
        false
    }
    fn poker(&self, _: Ticket) -> &Waker {
        Waker::noop()
    }
    fn warnings(&self) -> Vec<Warning> {
        Vec::new()
    }
    fn close(&self) {}
}
