//! Which windows frames are in, and when windows are over.

use super::config::{Config, ConfigError};
use super::window::{Decision, Expected, Frame, Reason, Split, StreamId, Totals, Trigger, Window, WindowId};
use crate::timeline::Ns;

#[derive(Debug)]
pub struct Windows {
    config: Config,
}

impl Windows {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config: config.clone() })
    }

    /// The first one is the reference stream until [`set_reference`](Self::set_reference) says otherwise.
    pub fn add_stream(&mut self) -> StreamId {
        StreamId(0)
    }

    /// As if it had ended; it is waited for no longer.
    pub fn remove_stream(&mut self, _stream: StreamId, _out: &mut Vec<Decision>) {}

    /// When it changes while windows are open, these are closed with [`Reason::Segment`].
    pub fn set_reference(&mut self, _stream: StreamId, _out: &mut Vec<Decision>) {}

    pub fn set_expected(&mut self, _stream: StreamId, _expected: Expected) {}

    /// Whether frames without decode times may come out of presentation order (B-frames).
    pub fn set_reordered(&mut self, _stream: StreamId, _reordered: bool) {}

    pub fn set_live(&mut self, _live: bool) {}

    /// Returns the frame's serial: 0, 1, 2 ... on each stream, not reset by anything.
    pub fn push(&mut self, _frame: Frame, _out: &mut Vec<Decision>) -> u64 {
        0
    }

    /// Nothing comes between `time` and `time + duration`.
    pub fn gap(&mut self, _stream: StreamId, _time: Ns, _duration: Ns, _out: &mut Vec<Decision>) {}

    pub fn eos(&mut self, _stream: StreamId, _out: &mut Vec<Decision>) {}

    /// Undecided frames are gone without a decision; what was before makes nothing after late. Of the reference stream:
    /// all open windows close; of another one: its shares of them.
    pub fn flush(&mut self, _stream: StreamId, _out: &mut Vec<Decision>) {}

    /// As [`flush`](Self::flush), but undecided frames are decided by what is known.
    pub fn restart(&mut self, _stream: StreamId, _reason: Reason, _out: &mut Vec<Decision>) {}

    /// Ends the current window. False if there is none that could end there: on a grid ends are arithmetic.
    pub fn split(&mut self, _split: Split, _out: &mut Vec<Decision>) -> bool {
        false
    }

    /// The window that will hold it; None outside of event mode, or when all of it has been decided or forgotten.
    pub fn trigger(&mut self, _trigger: Trigger, _out: &mut Vec<Decision>) -> Option<WindowId> {
        None
    }

    /// Undecided frames of the stream up to `until` (None: all) are decided by what is known. A cut of the reference stream before
    /// these comes to stand after them.
    pub fn give_up_waiting(&mut self, _stream: StreamId, _until: Option<Ns>, _out: &mut Vec<Decision>) {}

    /// Latest presentation time on the stream.
    pub fn latest(&self, _stream: StreamId) -> Option<Ns> {
        None
    }

    /// The first window start after `time` that is known ahead: to ask for a keyframe there.
    pub fn next_start(&self, _time: Ns) -> Option<Ns> {
        None
    }

    /// Frames of the stream that wait for a decision, and their bytes.
    pub fn undecided(&self, _stream: StreamId) -> (usize, u64) {
        (0, 0)
    }

    /// Those that are not closed yet, in the order of ids.
    pub fn open(&self) -> impl Iterator<Item = &Window> {
        std::iter::empty()
    }

    pub fn totals(&self, _stream: StreamId) -> Totals {
        Totals::default()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }
}
