//! What the threads share: the task on the source pad, those that seek, and those that ask.

use std::collections::VecDeque;
use std::thread::ThreadId;

use super::acks::Acks;
use super::settings::Status;
use super::timeline::{Playing, Timeline};
use crate::store::{CursorRecord, Mark, Sequence, Totals};

/// What the pipeline wants of us.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    #[default]
    Stopped,
    Paused,
    Playing,
}

/// What the task does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was asked for yet.
    #[default]
    Idle,
    Playing,
    /// Everything was pushed; more may come.
    Waiting,
    /// The store cannot be read now.
    Away,
    /// The end was pushed, or downstream wants no more.
    Ended,
    /// Downstream was flushed, by a seek or by somebody else: what comes next is another beginning.
    Flushed,
}

/// Where playing ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    #[default]
    End,
    /// At the first sync point that was captured at or after this time, in ns since 1970.
    Time(i64),
    /// At the first sync point at or after it.
    Position(Sequence),
}

/// Where a beginning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Where the properties say.
    Properties,
    /// At this sync point.
    At(Sequence),
}

/// A start or a seek, to be carried out by the task.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub origin: Origin,
    /// `None`: as the properties say.
    pub until: Option<Until>,
    pub playing: Playing,
    pub seqnum: gst::Seqnum,
    /// Running time begins at zero.
    pub resets: bool,
}

impl Beginning {
    /// Only sync points go out.
    pub fn is_key_units(&self) -> bool {
        self.playing.flags.contains(gst::SegmentFlags::TRICKMODE_KEY_UNITS)
    }

    /// Its end is told as the end of a segment.
    pub fn is_segment(&self) -> bool {
        self.playing.flags.contains(gst::SegmentFlags::SEGMENT)
    }

    pub fn start() -> Self {
        Self {
            origin: Origin::Properties,
            until: None,
            playing: Playing::default(),
            seqnum: gst::Seqnum::next(),
            resets: true,
        }
    }
}

/// Where the stream ends that is held.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tip {
    pub sequence: Sequence,
    /// When the last buffer ended, ns since 1970.
    pub utc: Option<i64>,
}

#[derive(Debug, Default)]
pub struct State {
    pub activity: Activity,
    /// The pad is being deactivated.
    pub stopping: bool,
    /// FLUSH_START was sent and FLUSH_STOP was not.
    pub flushing: bool,
    pub phase: Phase,
    /// The task works on a step, perhaps in a push.
    pub busy: bool,
    /// The task's.
    pub thread: Option<ThreadId>,
    pub next: Option<Beginning>,
    /// Who flushes downstream for a seek: one at a time.
    pub seeker: Option<ThreadId>,
    /// The application wants the end of the stream.
    pub eos: Option<gst::Seqnum>,
    /// Serialized events that the application wants to be sent.
    pub events: VecDeque<gst::Event>,
    /// Fixed when playing begins, or when the first record shows up.
    pub timeline: Option<Timeline>,
    /// End of what is played, without follow.
    pub end: Option<Mark>,
    pub tip: Tip,
    pub until: Until,
    /// As it is being played.
    pub playing: Playing,
    /// The segment that is in force downstream.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Stream time of what was pushed last.
    pub position: Option<gst::ClockTime>,
    /// Caps in force downstream.
    pub caps: Option<gst::Caps>,
    /// Position in the store of the buffer that was pushed last.
    pub current: Sequence,
    /// Where the task goes on, and the sums before it.
    pub at: Mark,
    pub captured_at: i64,
    pub delivered: Totals,
    pub left_out: Totals,
    pub lost: Totals,
    pub acks: Acks,
    /// The consumer's.
    pub cursor: Option<CursorRecord>,
    pub last_error: Option<String>,
}

impl State {
    pub fn status(&self) -> Status {
        match (self.activity, self.phase) {
            (Activity::Stopped, _) => Status::Stopped,
            (_, Phase::Idle | Phase::Playing | Phase::Flushed) => Status::Playing,
            (_, Phase::Waiting) => Status::Waiting,
            (_, Phase::Away) => Status::Away,
            (_, Phase::Ended) => Status::Ended,
        }
    }

    /// Whether a wait has to end.
    pub fn is_interrupted(&self) -> bool {
        self.stopping || self.flushing || self.next.is_some() || self.eos.is_some()
    }
}
