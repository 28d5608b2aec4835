//! What a window is and what is told of it.
//!
//! A window is [start, end) in window time, whatever clock that is. Its id follows from its start alone, so two runs
//! over the same data, or a run that begins in the middle, give the same ids.

use std::sync::Arc;

use crate::timeline::Ns;

/// A stream of one [`Windows`](super::Windows).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    /// Small and dense: fit to index what the caller keeps of each stream.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// floor(start / unit): the unit is `hop` or `duration` where windows stand on a grid, 1 ns elsewhere. Negative before
/// the origin of window time.
pub type WindowId = i64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub id: WindowId,
    pub start: Ns,
    /// Not known yet where content decides, until the share or the window is final.
    pub end: Option<Ns>,
    /// Of the first trigger, in event windows.
    pub name: Option<Arc<str>>,
    /// Triggers that this window answers; 0 outside event windows.
    pub triggers: u32,
}

/// The windows of a frame: successive ids, because only windows on a grid overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    first: WindowId,
    count: u32,
}

impl Ids {
    pub const NONE: Self = Self { first: 0, count: 0 };

    pub const fn one(id: WindowId) -> Self {
        Self { first: id, count: 1 }
    }

    /// All from `first` to `last`; none if `last` lies before `first`.
    pub fn between(first: WindowId, last: WindowId) -> Self {
        match i128::from(last) - i128::from(first) + 1 {
            count if count <= 0 => Self::NONE,
            count => Self { first, count: u32::try_from(count).unwrap_or(u32::MAX) },
        }
    }

    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    pub fn len(self) -> usize {
        self.count as usize
    }

    pub fn first(self) -> Option<WindowId> {
        (self.count > 0).then_some(self.first)
    }

    pub fn last(self) -> Option<WindowId> {
        (self.count > 0).then(|| self.first.saturating_add(i64::from(self.count) - 1))
    }

    pub fn contains(self, id: WindowId) -> bool {
        self.first().is_some_and(|first| id >= first) && self.last().is_some_and(|last| id <= last)
    }

    #[cfg(any(feature = "v1_20", test))]
    pub fn iter(self) -> impl DoubleEndedIterator<Item = WindowId> {
        (0..i64::from(self.count)).map(move |offset| self.first.saturating_add(offset))
    }
}

/// Why a window ended where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its time was over.
    Duration,
    /// A keyframe began the next one.
    Keyframe,
    /// It held the complexity it was to hold.
    Complexity,
    /// A new scene began.
    Scene,
    /// The post-roll of its last trigger was over.
    Event,
    /// Somebody asked for it.
    Split,
    /// It had become as long as a window may be.
    MaxDuration,
    /// All streams ended.
    Eos,
    Flush,
    /// Time went elsewhere.
    Segment,
    /// Streams that stayed behind were waited for no longer.
    Timeout,
}

impl Reason {
    /// As it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Keyframe => "keyframe",
            Self::Complexity => "complexity",
            Self::Scene => "scene",
            Self::Event => "event",
            Self::Split => "split",
            Self::MaxDuration => "max-duration",
            Self::Eos => "eos",
            Self::Flush => "flush",
            Self::Segment => "segment",
            Self::Timeout => "timeout",
        }
    }
}

/// A frame (or audio buffer) as windows see it. Times are window time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    pub stream: StreamId,
    /// Of presentation: what decides which windows it is in.
    pub time: Ns,
    /// Of decoding: no later frame is presented before. None if it is not known: then the stream's order tells, see
    /// [`reorder`](super::reorder).
    pub position: Option<Ns>,
    pub duration: Option<Ns>,
    pub keyframe: bool,
    pub corrupted: bool,
    /// Stands for what is not there (GAP flag): its duration counts as gap.
    pub gap: bool,
    /// Bytes.
    pub size: usize,
    /// See [`complexity`](super::complexity). What is not a number or negative counts as 0.
    pub complexity: f64,
    /// 0 (all black or all white) to 1, of raw video.
    pub exposure: Option<f64>,
    /// A new scene begins with it.
    pub cut: bool,
    /// Where that scene begins, if among frames that are decoded after this one and presented before it.
    pub cut_at: Option<Ns>,
}

impl Frame {
    /// Small, decodable on its own, nothing wrong with it.
    #[cfg(test)]
    pub fn new(stream: StreamId, time: Ns) -> Self {
        Self {
            stream,
            time,
            position: None,
            duration: None,
            keyframe: true,
            corrupted: false,
            gap: false,
            size: 0,
            complexity: 0.,
            exposure: None,
            cut: false,
            cut_at: None,
        }
    }
}

/// What one stream, or all of them, had in a window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    pub frames: u32,
    pub keyframes: u32,
    /// Frames that came, while this window was open, for windows that were not.
    pub late: u32,
    /// See [`quality`](super::quality).
    pub missing: u32,
    pub bytes: u64,
    /// 0 to 1, see [`quality`](super::quality). Joint: that of the worst stream.
    pub quality: f64,
    /// Sum over the frames. Joint: that of the reference stream.
    pub complexity: f64,
    /// Presentation time of the earliest frame.
    pub first: Option<Ns>,
    /// End of the last frame.
    pub last: Option<Ns>,
}

/// A window as it was when it closed; nothing changes it any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub window: Window,
    pub reason: Reason,
    /// Nothing was given up on: no flush, no timeout, in event windows nothing of the pre-roll missing.
    pub complete: bool,
    /// The quality is below `min_quality`.
    pub poor: bool,
    pub figures: Figures,
    /// One for each stream that could have been in it, in the order of [`StreamId`].
    pub streams: Vec<StreamSummary>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamSummary {
    pub stream: StreamId,
    pub figures: Figures,
    pub complete: bool,
}

/// What was decided, in the order in which it is to leave.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The stream's share of a window begins; its first frame follows.
    Open { stream: StreamId, window: Window },
    /// A frame is decided. Those of a stream are decided in the order of their serials.
    Frame {
        stream: StreamId,
        serial: u64,
        /// Those that it counts in; if it is late for all of its windows, these, or none where late frames are only
        /// counted; none outside of windows.
        windows: Ids,
        /// The share of at least one of its windows was final.
        late: bool,
        /// False: it leaves nowhere (late and to be dropped).
        keep: bool,
    },
    /// All frames of the stream with serials below `before` that are undecided leave nowhere.
    Forget {
        stream: StreamId,
        before: u64,
        /// They would have been pre-roll: the ring's bytes were not enough.
        short: bool,
    },
    /// The stream's share of a window is final. Windows in which it had no frame are not told.
    Share { stream: StreamId, window: Window, figures: Figures, reason: Reason, complete: bool, poor: bool },
    /// All shares are final. Boxed: rare and large beside the others.
    Closed(Box<Summary>),
}

/// What is asked for in event mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trigger {
    pub time: Ns,
    /// Empty: all.
    pub streams: Vec<StreamId>,
    pub name: Option<Arc<str>>,
}

/// Where the current window is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// At the next frame of the reference stream; in event mode behind what has been decided.
    Now,
    /// At its next keyframe.
    Keyframe,
    /// At its first frame at or after this time; in event mode there.
    At(Ns),
}

/// What a stream should carry, to tell what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Expected {
    /// Measured: the usual distance of its frames.
    #[default]
    Cadence,
    /// Frames per second, numerator and denominator above 0.
    Rate(u32, u32),
    /// Durations without holes: audio.
    Coverage,
    /// Nothing: sparse streams, text.
    Nothing,
}

/// Sums over the life of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub frames: u64,
    /// Frames for which at least one of their windows was over.
    pub late: u64,
    /// Frames outside of all windows.
    pub outside: u64,
    /// Frames that left nowhere: dropped when late, forgotten by the ring.
    pub dropped: u64,
}
