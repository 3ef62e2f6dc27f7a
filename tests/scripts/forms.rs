//! The ways to ask for a lock, and what each looks like to who asks.
//!
//! A new way is a variant of [`Form`] with an arm in each of its methods; one that gives back
//! something else than a [`Lock`] is a variant of [`Handle`], too. What each looks like on the
//! server is in `traces`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use distlock::{Acquire, AcquireAll, Context, Error, Key, Lock, LockSet, Manager, Token};

/// What the scripts are about: keys of both spaces, two of which have the same bits.
pub(crate) const KEYS: [Key; 5] = [
    Key::Bigint(-0x0123_4567_89ab_cdef),
    Key::Bigint(0x0000_0007_0000_002a),
    Key::Pair(7, 42),
    Key::Pair(-1, i32::MIN),
    Key::Bigint(i64::MAX),
];

/// How a lock is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// By its key alone.
    Plain,
    /// With a fencing token.
    Fenced,
    /// To be shared.
    Shared,
    /// As one of the [`slots`] of the key.
    Slots,
    /// With so many of the keys that follow it, as a set.
    Set(usize),
}

impl Form {
    /// What a script may choose from, as often as it is listed.
    pub(crate) const CHOICE: [Self; 8] = [
        Self::Plain,
        Self::Plain,
        Self::Fenced,
        Self::Shared,
        Self::Shared,
        Self::Slots,
        Self::Set(1),
        Self::Set(3),
    ];

    /// The places that are taken by who asks for it in this way.
    pub(crate) fn places(self, key: usize) -> Vec<Place> {
        match self {
            Self::Plain | Self::Fenced | Self::Shared => vec![Place::Key(key)],
            Self::Slots => vec![Place::Slot(key)],
            Self::Set(more) => (key..=key + more).map(|key| Place::Key(key % KEYS.len())).collect(),
        }
    }

    /// Whether it may be held while the others are.
    pub(crate) fn admits(self, place: Place, others: &[Self]) -> bool {
        match self {
            Self::Plain | Self::Fenced | Self::Set(_) => others.is_empty(),
            Self::Shared => others.iter().all(|other| *other == Self::Shared),
            Self::Slots => others.len() < slots(place.key()) as usize,
        }
    }

    /// Whether it can be made a shared one.
    pub(crate) fn can_be_downgraded(self) -> bool {
        matches!(self, Self::Plain | Self::Fenced)
    }

    /// The mode that `pg_locks` shows.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::Shared => "ShareLock",
            Self::Plain | Self::Fenced | Self::Slots | Self::Set(_) => "ExclusiveLock",
        }
    }
}

/// How many hold the counted lock of a key at the most: one, two or three.
pub(crate) fn slots(key: usize) -> u32 {
    1 + key as u32 % 3
}

/// What is locked; the number is that of one of [`KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Key(usize),
    /// One of its slots, which one does not matter.
    Slot(usize),
}

impl Place {
    pub(crate) fn key(self) -> usize {
        let (Self::Key(key) | Self::Slot(key)) = self;
        key
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) manager: usize,
    /// The number of one of [`KEYS`].
    pub(crate) key: usize,
    pub(crate) form: Form,
}

impl Ask {
    pub(crate) fn of(self, managers: &[Manager; 2]) -> Request {
        let manager = &managers[self.manager];
        let one = manager.acquire(KEYS[self.key]);
        match self.form {
            Form::Plain => Request::One(one),
            Form::Fenced => Request::One(one.fenced()),
            Form::Shared => Request::One(one.shared()),
            Form::Slots => Request::One(one.slots(slots(self.key))),
            Form::Set(_) => {
                let keys = self.places().into_iter().map(|place| KEYS[place.key()]);
                Request::All(manager.acquire_all(keys))
            }
        }
    }

    pub(crate) fn places(self) -> Vec<Place> {
        self.form.places(self.key)
    }
}

/// A request for one lock or for a set.
pub(crate) enum Request {
    One(Acquire),
    All(AcquireAll),
}

/// What became of a request.
pub(crate) type Answer = Result<Option<Handle>, Error>;
/// A request that is awaited.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Answer>>>;

impl Request {
    pub(crate) fn context(self, context: &Context) -> Self {
        match self {
            Self::One(one) => Self::One(one.context(context)),
            Self::All(all) => Self::All(all.context(context)),
        }
    }

    pub(crate) fn timeout(self, span: Duration) -> Self {
        match self {
            Self::One(one) => Self::One(one.timeout(span)),
            Self::All(all) => Self::All(all.timeout(span)),
        }
    }

    pub(crate) fn try_now(self) -> Answer {
        match self {
            Self::One(one) => Ok(one.try_now()?.map(Handle::One)),
            Self::All(all) => Ok(all.try_now()?.map(Handle::All)),
        }
    }

    pub(crate) fn wait(self) -> Answer {
        match self {
            Self::One(one) => Ok(Some(Handle::One(one.wait()?))),
            Self::All(all) => Ok(Some(Handle::All(all.wait()?))),
        }
    }

    pub(crate) fn into_asking(self, waits: bool) -> Asking {
        match (self, waits) {
            (Self::One(one), true) => Box::pin(async { Ok(Some(Handle::One(one.await?))) }),
            (Self::One(one), false) => {
                Box::pin(async { Ok(one.try_async().await?.map(Handle::One)) })
            }
            (Self::All(all), true) => Box::pin(async { Ok(Some(Handle::All(all.await?))) }),
            (Self::All(all), false) => {
                Box::pin(async { Ok(all.try_async().await?.map(Handle::All)) })
            }
        }
    }
}

/// What was granted.
#[derive(Debug)]
pub(crate) enum Handle {
    One(Lock),
    All(LockSet),
}

impl Handle {
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::One(lock) => lock.is_held(),
            Self::All(set) => set.is_held(),
        }
    }

    /// Whether nothing of it is held any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::One(lock) => !lock.is_held(),
            Self::All(set) => !set.iter().any(Lock::is_held),
        }
    }

    pub(crate) fn context(&self) -> &Context {
        match self {
            Self::One(lock) => lock.context(),
            Self::All(set) => set.context(),
        }
    }

    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Self::One(lock) => lock.token(),
            Self::All(_) => None,
        }
    }

    pub(crate) fn unlock(self) -> Result<(), Error> {
        match self {
            Self::One(lock) => lock.unlock(),
            Self::All(set) => set.unlock(),
        }
    }
}
