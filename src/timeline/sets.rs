//! What the matcher is told and what it gives: streams and bounds, sets and their members. Times are on the common timeline.

use super::Ns;

/// How a stream's frames get into sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Join {
    /// One frame a set, each in one set only.
    #[default]
    One,
    /// The frame nearest to the set, again and again if need be.
    Nearest,
    /// All frames since the last set, up to this one.
    AllSince,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reference {
    /// The frames choose.
    #[default]
    None,
    /// A set for each frame of this stream.
    Stream(usize),
    /// A set at each whole multiple of the period, counted from `phase`.
    Clock { period: Ns, phase: Ns },
}

#[derive(Debug, Clone, Copy)]
pub struct MatcherConfig {
    pub reference: Reference,
    /// Until when after its stamp a frame waits for others; none: for ever (not live).
    pub latency: Option<Ns>,
    /// A frame further from the pivot is of another moment.
    pub max_interval: Option<Ns>,
    /// Silent that long, a stream is not waited for.
    pub stream_timeout: Option<Ns>,
    /// Sets of fewer are not given out; 0: nothing but complete ones.
    pub min_streams: usize,
    /// At that many waiting frames of one stream the set goes out; 0: no bound.
    pub max_held: usize,
}

impl Default for MatcherConfig {
    fn default() -> Self {
        Self {
            reference: Reference::None,
            latency: None,
            max_interval: None,
            stream_timeout: None,
            min_streams: 1,
            max_held: 0,
        }
    }
}

/// What became of a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push<T> {
    Held,
    /// Its set is out already: the frame comes back.
    Late(T),
    /// Below the last one of its stream, or of no such stream: the frame comes back.
    Refused(T),
    /// Held, but the oldest of its stream had to give way: no set came that could take it.
    Replaced(T),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<T> {
    pub stream: usize,
    pub stamp: Ns,
    pub frame: T,
    /// It was in an earlier set already.
    pub again: bool,
}

#[derive(Debug, Clone)]
pub struct Set<T> {
    pub id: u64,
    /// Of the reference, or of the first of the frames taken by `Join::One`; each set is later than the one before.
    pub at: Ns,
    /// Between the first and the last of the frames taken by `Join::One`.
    pub spread: Ns,
    /// Every stream with `Join::One` that has not ended is in it.
    pub complete: bool,
    /// By stream, and by stamp within one.
    pub members: Vec<Member<T>>,
    /// Frames that are in no set, all before this one.
    pub skipped: Vec<Member<T>>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { id: 0, at: Ns::ZERO, spread: Ns::ZERO, complete: false, members: Vec::new(), skipped: Vec::new() }
    }
}
