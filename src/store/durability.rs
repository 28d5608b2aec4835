//! What survives what, and what it costs.
//!
//! Promises: [`Durability::Power`] returns from an append when the disk has it; [`Durability::Interval`] syncs what was
//! appended once per `sync_interval`, and how late it ever was is measured. `durable` of a stream names what survives a power
//! cut: exactly with these two, with the others what was synced or flushed for other reasons, never more than is true. A
//! sync that fails moves nothing.
//!
//! How long appends take is counted in a histogram without a lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::log::{Log, lock};
use super::record::Sequence;

/// What survives what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is logged: a crash loses what was not flushed.
    None,
    /// Each record is with the operating system when it is accepted: survives the end of the process.
    Crash,
    /// As `Crash`; what is older than the sync interval survives a power cut as well.
    Interval,
    /// Each record is on the disk when it is accepted: survives a power cut.
    Power,
}

/// A round of the metronome that comes this early is on time.
const EARLY: Duration = Duration::from_millis(2);
/// The histogram shows the last one to two of these.
const WINDOW: Duration = Duration::from_secs(60);

/// The metronome of a log and the cost of its appends.
pub struct Commits {
    interval: Duration,
    /// Something was appended since the last tick.
    moved: AtomicBool,
    beat: Mutex<Beat>,
    /// The latest that a tick came, in ns.
    jitter: AtomicU64,
    latency: Latency,
}

struct Beat {
    due: Instant,
    /// The tick before this one was one beat ago.
    steady: bool,
    window: Instant,
}

impl Commits {
    pub fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            interval,
            moved: AtomicBool::new(false),
            beat: Mutex::new(Beat { due: now, steady: false, window: now }),
            jitter: AtomicU64::new(0),
            latency: Latency::default(),
        }
    }

    /// An append that began at `start` is done; true when it is the first since the last tick.
    pub fn appended(&self, start: Instant) -> bool {
        self.latency.add(start.elapsed());
        // Released to whoever ticks: what it syncs includes this append.
        !self.moved.swap(true, Ordering::AcqRel)
    }

    /// After how long the next tick is due; `None` while nothing moves.
    pub fn next_tick(&self) -> Option<Duration> {
        let mut beat = lock(&self.beat);
        let wait = beat.due.saturating_duration_since(Instant::now());
        if self.moved.load(Ordering::Relaxed) {
            return Some(wait);
        }
        beat.steady &= !wait.is_zero();
        None
    }

    /// Begins a tick if it is time and something moved.
    fn begin_tick(&self) -> bool {
        let now = Instant::now();
        let mut beat = lock(&self.beat);
        if now - beat.window > WINDOW {
            beat.window = now;
            self.latency.turn();
        }
        if now + EARLY < beat.due || !self.moved.swap(false, Ordering::AcqRel) {
            return false;
        }
        if beat.steady {
            let late = now.saturating_duration_since(beat.due).as_nanos() as u64;
            self.jitter.fetch_max(late, Ordering::Relaxed);
        }
        beat.due = now + self.interval;
        beat.steady = true;
        true
    }

    /// A tick did not come to its end.
    fn again(&self) {
        self.moved.store(true, Ordering::Release);
    }

    pub fn jitter(&self) -> Duration {
        Duration::from_nanos(self.jitter.load(Ordering::Relaxed))
    }

    pub fn p99(&self) -> Duration {
        self.latency.quantile(99, 100)
    }
}

impl Log {
    /// One beat of the metronome, if it is time: sync, then the high-water file.
    pub fn tick(&self) -> Result<(), StoreError> {
        if !self.commits.begin_tick() {
            return Ok(());
        }
        self.check_directory()?;
        let synced = match self.options.durability {
            Durability::Interval => self.sync_wal(),
            _ => Ok(()),
        };
        if synced.is_err() {
            self.commits.again();
        }
        self.save_high_water();
        synced
    }

    /// Has all that is logged on the disk.
    pub fn sync_wal(&self) -> Result<(), StoreError> {
        let reached: Vec<_> = self.stream_list().into_iter().map(|stream| (stream.committed(), stream)).collect();
        self.db()?.flush_wal(true).map_err(|err| self.refused(err))?;
        if self.options.durability != Durability::None {
            reached.into_iter().for_each(|(sequence, stream)| stream.set_durable(sequence));
        }
        Ok(())
    }

    /// Notes what has got into files, which are synced before they count.
    pub fn note_flushed(&self) {
        // In this order: what is newest now was opened when the memtables before it were on their way.
        let firsts: Vec<_> = {
            let extents = self.extents();
            let first = |stream: u32| extents.spans(stream, Sequence::MAX, 1).first().map(|span| span.first);
            self.stream_list().into_iter().filter_map(|stream| Some((first(stream.id)?, stream))).collect()
        };
        let waiting = self.db().ok().and_then(|db| db.property_int_value("rocksdb.num-immutable-mem-table").ok()?);
        if waiting == Some(0) {
            firsts.into_iter().for_each(|(sequence, stream)| stream.set_durable(sequence));
        }
    }
}

/// Buckets per doubling.
const STEPS: u32 = 8;
const BUCKETS: usize = 62 * STEPS as usize;

/// A histogram of durations with a resolution of an eighth, over a moving window.
struct Latency {
    windows: [Box<[AtomicU32]>; 2],
    current: AtomicUsize,
}

impl Default for Latency {
    fn default() -> Self {
        let window = || (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self { windows: [window(), window()], current: AtomicUsize::new(0) }
    }
}

impl Latency {
    fn add(&self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        let bucket = match ns.checked_ilog2() {
            Some(power) if power > 3 => (power - 2) * STEPS + ((ns >> (power - 3)) as u32 & (STEPS - 1)),
            _ => ns as u32,
        };
        let window = &self.windows[self.current.load(Ordering::Relaxed) & 1];
        if let Some(bucket) = window.get(bucket as usize) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn turn(&self) {
        let next = self.current.load(Ordering::Relaxed) ^ 1;
        self.windows[next & 1].iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        self.current.store(next, Ordering::Relaxed);
    }

    /// The duration that `part` of `whole` did not exceed; zero when nothing was counted.
    fn quantile(&self, part: u64, whole: u64) -> Duration {
        let counts: Vec<u64> = (0..BUCKETS)
            .map(|bucket| self.windows.iter().map(|w| u64::from(w[bucket].load(Ordering::Relaxed))).sum())
            .collect();
        let wanted = (counts.iter().sum::<u64>() * part).div_ceil(whole);
        let mut sum = 0;
        let bucket = counts.iter().position(|count| {
            sum += count;
            wanted > 0 && sum >= wanted
        });
        let end = match bucket.map(|bucket| bucket as u64) {
            None => 0,
            Some(ns) if ns < 16 => ns,
            Some(bucket) => {
                let (power, step) = (bucket / u64::from(STEPS) + 2, bucket % u64::from(STEPS));
                (u64::from(STEPS) + step + 1) << (power - 3)
            }
        };
        Duration::from_nanos(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_within_an_eighth() {
        for scale in [1u64, 1000, 1_000_000, 77_777_777] {
            let latency = Latency::default();
            assert_eq!(latency.quantile(99, 100), Duration::ZERO);
            (1..=1000).for_each(|i| latency.add(Duration::from_nanos(i * scale)));
            let (found, exact) = (latency.quantile(99, 100).as_nanos() as f64, 990.0 * scale as f64);
            assert!(found >= exact * 0.999 && found <= exact * 1.13, "{found} for {exact}");
            latency.turn();
            assert!(latency.quantile(1, 2) > Duration::ZERO, "the window before still counts");
            latency.turn();
            assert_eq!(latency.quantile(1, 2), Duration::ZERO);
        }
    }

    #[test]
    fn the_metronome_ticks_only_when_something_moved() {
        let commits = Commits::new(Duration::from_secs(3600));
        assert!(!commits.begin_tick() && commits.next_tick().is_none());
        assert!(commits.appended(Instant::now()));
        assert!(!commits.appended(Instant::now()), "the tender knows already");
        assert_eq!(commits.next_tick(), Some(Duration::ZERO));
        assert!(commits.begin_tick());
        commits.appended(Instant::now());
        assert!(!commits.begin_tick(), "not before the hour is over");
        assert!(commits.next_tick().is_some_and(|wait| wait > Duration::from_secs(3000)));
    }
}
