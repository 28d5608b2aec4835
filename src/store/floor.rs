//! A file system at its floor: what is kept beside the pending data makes room, the oldest first.
//!
//! Delivered data that is kept for replay, and what consumers still need, goes step by step: whole extents, as many as it takes
//! to come some way above the floor, and no more until the space of the last step has come free or should have. A recorder so
//! loses its oldest minutes and not its recording. Only when no extent can go as a whole, because each holds something that is
//! pending, all that was delivered goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::log::{Log, lock};
use super::record::Sequence;
use super::stream_log::StreamLog;

/// Within this the files of a step are gone: who reads them in another process looks once a second.
const SETTLE: Duration = Duration::from_millis(1500);

/// The last step.
#[derive(Default)]
pub struct Relief(Mutex<Option<Step>>);

struct Step {
    at: Instant,
    /// Free space before it, and what it should bring.
    free: u64,
    bytes: u64,
}

impl Relief {
    /// Whether the last step has had its effect, as far as can be told while something is being written.
    fn is_settled(&self, free: u64) -> bool {
        lock(&self.0)
            .as_ref()
            .is_none_or(|step| step.at.elapsed() >= SETTLE || free >= step.free.saturating_add(step.bytes / 2))
    }
}

impl Log {
    /// Makes room if the file system is at its floor.
    pub fn keep_to_floor(&self, streams: &[Arc<StreamLog>]) {
        let free = self.space.free();
        if !self.space.is_low() || !self.relief.is_settled(free) {
            return;
        }
        let resumes: HashMap<u32, Sequence> =
            streams.iter().map(|stream| (stream.id, stream.cursor().resume)).collect();
        let (bytes, goals) = self.extents().oldest_delivered(self.space.shortage(), &resumes);
        for stream in streams {
            let goal = if bytes > 0 { goals.get(&stream.id).copied() } else { Some(Sequence::MAX) };
            // What cannot be read now is given up with the next step.
            let _ = goal.map_or(Ok(()), |goal| self.give_up_delivered(stream, goal));
        }
        *lock(&self.relief.0) = Some(Step { at: Instant::now(), free, bytes });
    }

    /// Moves the log start to the first sync point at or behind `goal`, but not past the resume point.
    fn give_up_delivered(&self, stream: &StreamLog, goal: Sequence) -> Result<(), StoreError> {
        let (cursor, cuts) = stream.cursor_and_cuts();
        if cursor.log_start >= goal.min(cursor.resume) {
            return Ok(());
        }
        let sync = match goal < cursor.resume {
            true => self.view(stream).next_sync(goal.max(1) - 1, |_, _| true)?,
            false => None,
        };
        match sync.filter(|(sequence, _)| *sequence < cursor.resume) {
            Some((sequence, entry)) => stream.set_log_start(sequence, entry.totals.bytes, Default::default(), cuts),
            None => stream.set_log_start(cursor.resume, cursor.totals.bytes, Default::default(), cuts),
        }
        Ok(())
    }
}
