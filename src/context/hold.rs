//! The context of a held lock.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use super::{Cause, Context, LIVE, Node, Watcher, adopt, cause_of};
use crate::clock::Time;
use crate::slots::Drive;
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::token::Token;

/// What all locks of a manager have in common.
#[derive(Debug)]
pub(crate) struct Home {
    /// Until when the session's locks are provably held, in nanoseconds of the boot-time clock.
    lease_until: AtomicU64,
    /// Who has the session. This keeps nothing alive.
    drive: Weak<dyn Drive>,
}

impl Home {
    pub(crate) fn new(drive: Weak<dyn Drive>) -> Self {
        Self { lease_until: AtomicU64::new(0), drive }
    }

    /// Says until when the session's locks are provably held.
    pub(crate) fn believe(&self, until: Time) {
        self.lease_until.store(until.as_nanos(), Ordering::Release);
    }

    pub(super) fn lease_until(&self) -> Time {
        Time::from_nanos(self.lease_until.load(Ordering::Acquire))
    }
}

/// The context of one held lock, kept by the guard and used again once nobody else has it.
#[derive(Debug, Clone)]
pub(crate) struct HoldContext(Arc<Node>);

impl HoldContext {
    /// An unused one.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Node::new()))
    }

    /// Makes it a live child of the requester's context, believed for as long as `home` says;
    /// hands it back unchanged when somebody still has a clone of its former life.
    pub(crate) fn renew(
        &mut self,
        parent: &Context,
        home: &Arc<Home>,
        token: Option<Token>,
    ) -> bool {
        let Some(node) = Arc::get_mut(&mut self.0) else {
            return false;
        };
        node.cause = AtomicU8::new(LIVE);
        node.fate = AtomicU8::new(LIVE);
        node.deadline = parent.deadline_time();
        let links = node.links.get_mut().unwrap_or_else(PoisonError::into_inner);
        links.joint = None;
        match &mut links.more {
            Some(more) => (more.parent, more.token) = (None, token),
            None if token.is_some() => links.more().token = token,
            None => {}
        }
        match &node.home {
            Some(own) if Arc::ptr_eq(own, home) => {}
            _ => node.home = Some(Arc::clone(home)),
        }
        adopt(parent, &self.0);
        true
    }

    /// Whether nobody else has a clone, so that [`HoldContext::renew`] will succeed.
    pub(crate) fn is_unshared(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_some()
    }

    /// Lets a deadline that has passed be the cause, if nobody has looked at it yet.
    pub(crate) fn notice_deadline(&self) {
        let _ = self.0.cause_now();
    }

    pub(crate) fn finish(&self, cause: Cause) {
        self.0.end_hold(cause);
        self.0.finish(cause);
    }

    pub(crate) fn context(&self) -> Context {
        Context { node: Some(Arc::clone(&self.0)) }
    }
}

/// What a [`Lock`](crate::Lock) asks of its own context, and a [`LockSet`](crate::LockSet) of its
/// locks'.
impl Context {
    /// A child of the first of the contexts that is done as soon as any of them is; the background
    /// if there is none.
    pub(crate) fn joint<'a>(mut contexts: impl Iterator<Item = &'a Self>) -> Self {
        let Some(first) = contexts.next() else { return Self::background() };
        let child = first.child(Time::NEVER);
        for other in contexts {
            other.reaches(&child);
        }
        child
    }

    /// Makes another context done as soon as this one is, without being its parent: neither keeps
    /// the other. What is left of the other here goes when this one is done.
    fn reaches(&self, other: &Self) {
        let (Some(node), Some(other)) = (&self.node, &other.node) else { return };
        let mut links = node.links();
        match node.latched() {
            Some(cause) => {
                drop(links);
                other.finish(cause);
            }
            // Who is in the midst of finishing has latched its cause before it takes the lock that
            // is held here, as in `adopt`.
            None if links.joint.is_none() => links.joint = Some(Arc::downgrade(other)),
            None => {
                links.more().watchers.insert(Watcher::Child(Arc::downgrade(other)));
            }
        }
    }

    /// Ends a lock's context because its holder let go. The allocation stays with the guard.
    pub(crate) fn release(&self) {
        if let Some(node) = &self.node {
            node.end_hold(Cause::Released);
            node.finish(Cause::Released);
        }
    }

    /// The fencing token that a lock was granted with.
    pub(crate) fn token(&self) -> Option<Token> {
        self.node.as_ref().and_then(|node| node.links().more.as_ref()?.token)
    }

    /// Whom the lock belongs to, as long as that is there.
    pub(crate) fn drive(&self) -> Option<Arc<dyn Drive>> {
        self.node.as_ref().and_then(|node| node.home.as_ref()?.drive.upgrade())
    }

    /// How the lock itself ended, whatever became of the requester's context.
    pub(crate) fn fate(&self) -> Option<Cause> {
        self.node.as_ref().and_then(|node| cause_of(node.fate.load(Ordering::Acquire)))
    }

    /// For how long the lock itself is provably held, whatever became of the requester's context.
    pub(crate) fn hold_remaining(&self) -> Duration {
        let Some(node) = &self.node else { return Duration::ZERO };
        // The lease before the fate, as in `cause_now`.
        let lease = node.lease_until();
        if cause_of(node.fate.load(Ordering::Acquire)).is_some() {
            return Duration::ZERO;
        }
        let remaining = lease.since(Time::now());
        if remaining.is_zero() {
            // Once doubted, never believed again, even if the server's answer comes after all.
            node.end_hold(Cause::LeaseExpired);
            node.finish(Cause::LeaseExpired);
        }
        remaining
    }
}
