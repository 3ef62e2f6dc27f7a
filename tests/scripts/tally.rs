//! How often what came of the scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::forms::Form;

/// What may come of a request, and of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Granted,
    Refused,
    OutOfTime,
    CanceledWaiting,
    DroppedPending,
    GrantedToAPoll,
    GrantedAfterOwnRelease,
    Downgraded,
    /// A set was taken apart.
    Split,
    CanceledHeld,
    GoneUnderTheHolder,
    ContextKept,
    Unlocked,
    Dropped,
}

impl Event {
    const ALL: [Self; 14] = [
        Self::Granted,
        Self::Refused,
        Self::OutOfTime,
        Self::CanceledWaiting,
        Self::DroppedPending,
        Self::GrantedToAPoll,
        Self::GrantedAfterOwnRelease,
        Self::Downgraded,
        Self::Split,
        Self::CanceledHeld,
        Self::GoneUnderTheHolder,
        Self::ContextKept,
        Self::Unlocked,
        Self::Dropped,
    ];

    /// Whether it can come of what was asked for in this way.
    fn befalls(self, form: Form) -> bool {
        match self {
            Self::Downgraded => form.can_be_downgraded(),
            Self::Split => matches!(form, Form::Set(_)),
            _ => true,
        }
    }
}

#[derive(Default)]
pub(crate) struct Tally(Mutex<BTreeMap<(Event, Form), u32>>);

impl Tally {
    pub(crate) fn count(&self, event: Event, form: Form) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((event, form)).or_default() += 1;
    }

    /// What has never come of them.
    pub(crate) fn never(&self) -> Vec<(Event, Form)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = Event::ALL
            .into_iter()
            .flat_map(|event| Form::CHOICE.into_iter().map(move |form| (event, form)));
        let possible = all.filter(|(event, form)| event.befalls(*form));
        possible.filter(|what| !counts.contains_key(what)).collect()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fmt(f)
    }
}
