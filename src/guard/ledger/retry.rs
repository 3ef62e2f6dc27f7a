//! Trying again for a key that another process holds: after a pause, with jitter, one try in flight
//! for each key.

use std::time::Duration;

use super::{Ledger, Sink};
use crate::clock::Time;

/// The first wait before a refused waiter is tried again, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(4);
/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_millis(128);

impl Ledger {
    /// When [`Ledger::retry`] is due.
    pub(crate) fn next_retry(&self) -> Time {
        if self.online { self.next_retry } else { Time::NEVER }
    }

    /// Tries again for the waiters whose time has come.
    pub(crate) fn retry(&mut self, now: Time, sink: &mut impl Sink) {
        let mut position = 0;
        while let Some(entry) = self.cooling.get(position).copied() {
            if self.entries[entry as usize].retry_at.is_some_and(|at| at <= now) {
                self.cooling.swap_remove(position);
                self.entries[entry as usize].retry_at = None;
                self.advance(entry, sink);
                self.drop_if_unused(entry);
            } else {
                position += 1;
            }
        }
        self.next_retry = self
            .cooling
            .iter()
            .filter_map(|entry| self.entries[*entry as usize].retry_at)
            .min()
            .unwrap_or(Time::NEVER);
    }

    pub(super) fn start_cooling(&mut self, entry: u32, now: Time) {
        let state = &mut self.entries[entry as usize];
        let doublings = state.refusals.min(16);
        state.refusals = state.refusals.saturating_add(1);
        let span = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
        let at = now.after(self.jitter.upper_half_of(span));
        if state.retry_at.replace(at).is_none() {
            self.cooling.push(entry);
        }
        self.next_retry = self.next_retry.min(at);
    }

    pub(super) fn stop_cooling(&mut self, entry: u32) {
        if self.entries[entry as usize].retry_at.take().is_some() {
            self.cooling.retain(|cooling| *cooling != entry);
        }
    }
}
