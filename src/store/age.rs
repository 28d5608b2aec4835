//! What delivered data is kept for replay, and what is too old to stay.
//!
//! The log start of a stream lies at or below the resume point of its cursor. Without retention it is the resume point. With
//! it, and while consumers need what was delivered, the thread that tends the log moves it from sync point to sync point:
//!
//! - retention by time keeps at least that much, by bytes at most; with both, the sooner one counts;
//! - what a consumer with a valid lease needs stays as well (see `leases`);
//! - `total_bytes` bounds what is kept and what is pending together, and a file system at its floor takes the oldest (see
//!   `floor`): limits come first;
//! - nothing that has reached `max_age` stays. What is pending is given up by whoever delivers it ([`Stream::expired_until`]); of a
//!   stream that nobody holds it is given up here and counted as expired. A stream keeps the `max_age` of its last owner;
//!   one that never had any takes the longest of the others.
//!
//! [`Stream::expired_until`]: super::Stream::expired_until

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::aside::ASIDE;
use super::clock::Arrival;
use super::cursor::Cause;
use super::error::StoreError;
use super::log::{Log, lock};
use super::record::Sequence;
use super::schema::{CursorRecord, IndexEntry};
use super::stream::Mark;
use super::stream_log::{Progress, StreamLog};

/// Sync points that the log start passes in one round.
const ROUNDS: usize = 4096;
/// Without a sync point so much may be kept.
const MAX_UNINDEXED: u64 = 64 << 20;
/// How often ages are looked at when nothing says earlier.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_SOON: Duration = Duration::from_millis(100);

/// What is kept of delivered data, and for how long anything stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Delivered data is kept at least so long; zero: no time.
    pub time: Duration,
    /// At most so many payload bytes of delivered data are kept; 0: no bound of its own.
    pub bytes: u64,
    /// Pending and delivered data together stay below this, the delivered goes first; 0: no bound.
    pub total_bytes: u64,
    /// Nothing older than this stays, delivered or not; zero: no bound.
    pub max_age: Duration,
}

impl Retention {
    pub fn keeps_delivered(&self) -> bool {
        !self.time.is_zero() || self.bytes > 0
    }
}

/// What the tending thread remembers of a stream's log start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    at: Sequence,
    arrival: Option<Arrival>,
    next: Option<(Sequence, IndexEntry)>,
}

/// What decides on a log start.
struct Kept {
    cursor: CursorRecord,
    retention: Retention,
    start: Start,
    held: Option<Sequence>,
    settled: bool,
    cuts: u64,
}

impl Log {
    /// Moves the log starts of streams that keep delivered data, and gives up what is too old. After how long it wants to be
    /// called again.
    pub fn retire(&self) -> Option<Duration> {
        let streams = self.stream_list();
        let longest = longest_age(&streams);
        self.keep_to_floor(&streams);
        let mut again: Option<Duration> = None;
        for stream in &streams {
            if !stream.is_attached() {
                let own = Duration::from_nanos(stream.cursor().max_age);
                let max_age = if own.is_zero() { longest } else { own };
                if !max_age.is_zero() {
                    again = again.into_iter().chain(Some(LOOK)).min();
                    // A disk that cannot be read now is asked again.
                    let _ = self.expire_orphan(stream, max_age);
                }
            }
            if let Ok(due) = self.move_log_start(stream, longest) {
                again = again.into_iter().chain(due).min();
            }
        }
        if !longest.is_zero() {
            self.expire_aside(longest);
            again = again.into_iter().chain(Some(LOOK)).min();
        }
        again.map(|again| again.clamp(LOOK_SOON, LOOK))
    }

    fn move_log_start(&self, stream: &StreamLog, longest: Duration) -> Result<Option<Duration>, StoreError> {
        let Kept { mut cursor, retention, mut start, held, settled, cuts } = stream.kept();
        let attached = stream.is_attached();
        if cursor.log_start >= cursor.resume || (attached && !settled) {
            return Ok(None);
        }
        let max_age = match Duration::from_nanos(cursor.max_age) {
            own if own.is_zero() && !attached => longest,
            own => own,
        };
        // Beyond it somebody needs what was delivered.
        let goal = held.map_or(cursor.resume, |held| held.min(cursor.resume));
        let unwanted = attached && !retention.keeps_delivered();
        if unwanted && goal == cursor.resume {
            stream.set_log_start(cursor.resume, cursor.totals.bytes, Start::default(), cuts);
            return Ok(None);
        }
        let end = stream.written_mark().totals.bytes;
        let mut due = None;
        for _ in 0..ROUNDS {
            if start.at != cursor.log_start {
                start = Start {
                    at: cursor.log_start,
                    arrival: self.view(stream).arrival_at(cursor.log_start)?,
                    next: None,
                };
            }
            if start.next.is_none() {
                start.next = self.view(stream).next_sync(cursor.log_start, |_, _| true)?;
            }
            let Some((sequence, entry)) = start.next.filter(|next| next.0 <= cursor.resume) else {
                let unindexed = cursor.totals.bytes.saturating_sub(cursor.log_start_bytes);
                if unindexed > MAX_UNINDEXED && goal == cursor.resume {
                    (cursor.log_start, cursor.log_start_bytes) = (cursor.resume, cursor.totals.bytes);
                    start = Start::default();
                }
                break;
            };
            let held = cursor.totals.bytes.saturating_sub(cursor.log_start_bytes);
            let stored = end.saturating_sub(cursor.log_start_bytes);
            let past = |limit: u64, bytes: u64| limit > 0 && bytes > limit;
            let late = |limit: Duration, arrival: Option<Arrival>| match arrival {
                Some(arrival) if !limit.is_zero() => Some(limit.saturating_sub(self.time.age(arrival))),
                _ => None,
            };
            let too_old = late(max_age, start.arrival);
            let too_long = late(retention.time, Some(entry.arrival)).filter(|_| sequence <= goal);
            due = too_old.into_iter().chain(too_long).min();
            let unneeded = sequence <= goal && (unwanted || past(retention.bytes, held));
            if unneeded || past(retention.total_bytes, stored) || due == Some(Duration::ZERO) {
                (cursor.log_start, cursor.log_start_bytes) = (sequence, entry.totals.bytes);
                start = Start { at: sequence, arrival: Some(entry.arrival), next: None };
                due = Some(Duration::ZERO);
            } else {
                break;
            }
        }
        stream.set_log_start(cursor.log_start, cursor.log_start_bytes, start, cuts);
        Ok(due)
    }

    /// The first sync point that is younger than `max_age`, when the oldest record that is still needed is older.
    pub fn expired_until(&self, stream: &StreamLog, max_age: Duration) -> Result<Option<Mark>, StoreError> {
        if max_age.is_zero() {
            return Ok(None);
        }
        let cursor = stream.cursor();
        let too_old = |arrival| self.time.age(arrival) >= max_age;
        if !self.view(stream).arrival_at(cursor.resume)?.is_some_and(too_old) {
            return Ok(None);
        }
        let end = stream.written_mark();
        let young = self.view(stream).next_sync(cursor.resume, |_, entry| !too_old(entry.arrival))?;
        Ok(Some(young.map_or(end, |(sequence, entry)| Mark { sequence, totals: entry.totals })))
    }

    /// Gives up what is too old of a stream that nobody holds.
    fn expire_orphan(&self, stream: &Arc<StreamLog>, max_age: Duration) -> Result<(), StoreError> {
        let Some(to) = self.expired_until(stream, max_age)? else { return Ok(()) };
        // Nobody takes the stream meanwhile.
        let streams = lock(&self.streams);
        if !stream.is_attached() {
            stream.skip(to, Cause::Expired);
        }
        drop(streams);
        Ok(())
    }

    /// Removes what was set aside longer ago.
    fn expire_aside(&self, max_age: Duration) {
        let entries = std::fs::read_dir(self.directory.path().join(ASIDE));
        for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
            match self.aside_age(&path) {
                Some(age) if age > max_age => {
                    let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                }
                Some(_) => {}
                // Set aside before the clock was right: it ages from now on.
                None if self.time.age_of_wall(super::wall_clock()).is_some() => {
                    let now = SystemTime::now();
                    let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(now));
                }
                None => {}
            }
        }
    }

    fn aside_age(&self, path: &PathBuf) -> Option<Duration> {
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        self.time.age_of_wall(i64::try_from(since.as_nanos()).ok()?)
    }
}

/// The longest age that the owners of streams allow; zero when one of them allows any, or none is there.
fn longest_age(streams: &[Arc<StreamLog>]) -> Duration {
    let mut ages = streams.iter().filter(|s| s.is_attached()).map(|s| s.cursor().max_age).peekable();
    if ages.peek().is_none() {
        return Duration::ZERO;
    }
    ages.try_fold(0, |longest, age| (age > 0).then_some(longest.max(age))).map_or(Duration::ZERO, Duration::from_nanos)
}

impl StreamLog {
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    pub fn cursor_and_cuts(&self) -> (CursorRecord, u64) {
        let progress = lock(&self.progress);
        (progress.cursor, progress.cuts)
    }

    fn kept(&self) -> Kept {
        let progress = lock(&self.progress);
        let Progress { cursor, retention, start, held, settled, cuts, .. } = *progress;
        Kept { cursor, retention, start, held, settled, cuts }
    }

    /// Unless holes were cut since there were `cuts`: the sums are others then, and it is asked again.
    pub fn set_log_start(&self, sequence: Sequence, bytes: u64, start: Start, cuts: u64) {
        let mut progress = lock(&self.progress);
        if progress.cuts != cuts {
            return;
        }
        progress.start = start;
        let sequence = sequence.min(progress.cursor.resume);
        if sequence > progress.cursor.log_start {
            progress.cursor.log_start = sequence;
            progress.cursor.log_start_bytes = bytes;
            progress.dirty = true;
        }
    }

    fn skip(&self, to: Mark, cause: Cause) {
        let mut progress = lock(&self.progress);
        let progress = &mut *progress;
        progress.cursor.skip(to, cause);
        progress.settle_log_start();
        progress.dirty = true;
    }
}
