//! What the director and its workers say to each other over pipes, a line each, and the clock
//! that both read.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The tag of a refusal because there was no session to ask with.
pub(crate) const UNAVAILABLE: &str = "unavailable";
/// The tag of a refusal because the session ended meanwhile.
pub(crate) const LOST: &str = "lost";
/// The tag of any other refusal.
pub(crate) const OTHER: &str = "other";

/// The tag of a loss that not everything agrees on.
pub(crate) const IN_DOUBT: &str = "in-doubt";

/// A point on the monotonic clock, in nanoseconds. It is one clock for all processes of a
/// machine, so moments of different processes can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The present.
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self(seconds * 1_000_000_000 + nanos)
    }

    /// The span from an earlier moment; zero where it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a worker is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// So many rounds of locking, working and unlocking.
    Work(u32),
    /// To ask for the lock, wait for it, and hold it until it is lost or to be released.
    Hold,
    /// To let go of it.
    Release,
    /// To close its manager and end.
    Close,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(rounds) => write!(f, "work {rounds}"),
            Self::Hold => f.write_str("hold"),
            Self::Release => f.write_str("release"),
            Self::Close => f.write_str("close"),
        }
    }
}

impl Command {
    /// The inverse of `Display`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line {
            "hold" => Some(Self::Hold),
            "release" => Some(Self::Release),
            "close" => Some(Self::Close),
            _ => Some(Self::Work(line.strip_prefix("work ")?.parse().ok()?)),
        }
    }
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Connected.
    Ready,
    /// Somebody else has the lock; waits for it.
    Taken,
    /// There was no answer to whether the lock is free; waits for it. Tag: why.
    Refused,
    /// Has the lock, and works.
    Enter,
    /// Stopped working; lets go of the lock.
    Leave,
    /// The context of the lock it worked under is done. Tag: the cause, or [`IN_DOUBT`].
    Lost,
    /// One round of work, from the report's moment to the one in its tag.
    Round,
    /// All rounds are done.
    Finished,
    /// Waited while the session ended, and waits again. Tag: why.
    Again,
    /// The manager is closed.
    Closed,
    /// Cannot go on.
    Failed,
    /// Said by the director's side of the pipe: the process has ended.
    Gone,
}

const WORDS: [(Word, &str); 12] = [
    (Word::Ready, "ready"),
    (Word::Taken, "taken"),
    (Word::Refused, "refused"),
    (Word::Enter, "enter"),
    (Word::Leave, "leave"),
    (Word::Lost, "lost"),
    (Word::Round, "round"),
    (Word::Finished, "finished"),
    (Word::Again, "again"),
    (Word::Closed, "closed"),
    (Word::Failed, "failed"),
    (Word::Gone, "gone"),
];

/// One line of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// When it happened.
    pub(crate) at: Moment,
    /// Who says so.
    pub(crate) name: String,
    /// What happened.
    pub(crate) word: Word,
    /// A tag for the director, a space, and a text for people; either may be empty.
    pub(crate) rest: String,
}

impl Report {
    /// For programs.
    pub(crate) fn tag(&self) -> &str {
        self.rest.split(' ').next().unwrap_or_default()
    }

    /// For people.
    pub(crate) fn text(&self) -> &str {
        self.rest.split_once(' ').map_or("", |(_, text)| text)
    }

    /// The end of a [`Word::Round`]. What has no end never ended.
    pub(crate) fn until(&self) -> Moment {
        Moment(self.tag().parse().unwrap_or(u64::MAX))
    }

    /// The inverse of `Display`, for a line of `name`.
    pub(crate) fn parse(name: &str, line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let at = Moment(parts.next()?.parse().ok()?);
        let text = parts.next()?;
        let (word, _) = WORDS.into_iter().find(|(_, known)| *known == text)?;
        let rest = parts.next().unwrap_or_default().to_owned();
        Some(Self { at, name: name.to_owned(), word, rest })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(word, _)| *word == self.word).map_or("", |(_, text)| *text);
        // A line break would end the report.
        write!(f, "{} {word} {}", self.at, self.rest.replace('\n', " "))
    }
}
