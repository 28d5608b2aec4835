//! A named consumer of a stream, who goes where it likes and gets a consistent story.

use super::super::*;
use super::camera::Camera;

/// Longer than any program lasts.
const LEASE: Duration = Duration::from_secs(1_000_000);

pub struct Viewer {
    pub camera: usize,
    pub name: String,
    reader: StreamReader,
    /// `None` when it has left for now.
    consumer: Option<Consumer>,
    cursor: CursorRecord,
    /// All since one that was certainly saved.
    history: Vec<CursorRecord>,
    /// Nothing was given up and taken back: the gaps in the sums are what is missing.
    exact: bool,
}

impl Viewer {
    /// A new one, at the beginning; one that was here before where it stood.
    pub fn new(name: String, at: usize, path: &Path, camera: &mut Camera, may_fail: bool) -> Option<Self> {
        let reader = StreamReader::open(path, Some(&camera.name), &ReaderOptions::default()).ok()?;
        assert!(reader.is_shared());
        let consumer = match reader.consumer(&name, LEASE) {
            Err(_) if may_fail => return None,
            consumer => consumer.unwrap(),
        };
        let cursor = match consumer.position() {
            Some(cursor) => cursor,
            None => reader.cursor_at(reader.first()).ok()?,
        };
        let mut viewer = Self {
            camera: at,
            name,
            reader,
            consumer: Some(consumer),
            cursor,
            history: vec![cursor],
            exact: !camera.has_given_up(),
        };
        viewer.hold(camera);
        Some(viewer)
    }

    /// Saves where it stands; from now on nothing goes that it needs.
    fn hold(&mut self, camera: &mut Camera) {
        let Some(consumer) = &self.consumer else { return };
        consumer.advance(self.cursor);
        if consumer.renew().is_ok() {
            self.history = vec![self.cursor];
            let overrun = camera.log_start() > self.cursor.resume;
            camera.leases.insert(self.name.clone(), if overrun { Sequence::MAX } else { self.cursor.resume });
        }
    }

    /// Reads so many.
    pub fn look(&mut self, count: usize, renew: bool, camera: &mut Camera) {
        let Some(consumer) = &self.consumer else { return };
        if self.reader.refresh().is_err() {
            return;
        }
        let mut left = count;
        while left > 0 {
            let first = camera.log_start();
            let Ok(chunk) = self.reader.read(self.cursor.position, left.min(9), 1 << 20) else { break };
            assert!(chunk.damaged.is_empty() && chunk.unreadable.is_empty(), "{chunk:?}");
            let Some(next) = chunk.next else { break };
            left -= chunk.records.len().min(left);
            for record in chunk.records {
                let position = self.cursor.position;
                let skipped: Vec<_> = camera.visible(position..record.sequence).map(|(at, _)| at).collect();
                let overrun = camera.log_start().max(first);
                assert!(
                    skipped.iter().all(|at| *at < overrun),
                    "{} stood at {position} and is given {}; {overrun} is the first that is kept",
                    self.name,
                    record.sequence
                );
                assert!(!camera.is_gone(record.sequence), "{} was given up", record.sequence);
                let Some(item) = camera.items.get(&record.sequence) else { panic!("{record:?} was never accepted") };
                item.check(&record);
                let missing: u64 =
                    camera.items.range(position..record.sequence).map(|(_, item)| item.adds().buffers).sum();
                let before = Mark { sequence: record.sequence, totals: record.before };
                let Pass::New { lost } = self.cursor.pass(before, record.after()) else { panic!("{record:?} again") };
                if self.exact {
                    assert_eq!(lost.buffers, missing, "what {} is told it lost before {}", self.name, record.sequence);
                }
                if item.is_sync() {
                    self.cursor.resume = record.sequence;
                }
            }
            self.cursor.position = self.cursor.position.max(next);
        }
        consumer.advance(self.cursor);
        self.history.push(self.cursor);
        if let Some(held) = camera.leases.get_mut(&self.name).filter(|held| **held < Sequence::MAX) {
            *held = self.cursor.resume;
        }
        if renew {
            self.hold(camera);
        }
    }

    /// What was given up of its stream counts as lost at another place.
    pub fn given_up(&mut self) {
        self.exact = false;
    }

    /// It ends; its lease goes on.
    pub fn leave(&mut self) {
        self.consumer = None;
    }

    /// It comes back, to a store that is elsewhere or the same one.
    pub fn come_back(&mut self, path: &Path, camera: &mut Camera, saved: bool, may_fail: bool) -> bool {
        self.consumer = None;
        let Some(next) = Self::new(self.name.clone(), self.camera, path, camera, may_fail) else { return false };
        let known = if saved { &self.history[self.history.len() - 1..] } else { &self.history[..] };
        assert!(known.contains(&next.cursor), "it comes back at {:?}, not at one of {known:?}", next.cursor);
        let (exact, camera) = (self.exact, self.camera);
        *self = Self { exact, camera, ..next };
        true
    }

    pub fn forget(mut self, camera: &mut Camera, may_fail: bool) {
        if let Some(consumer) = self.consumer.take() {
            let forgotten = consumer.forget();
            assert!(may_fail || forgotten.is_ok());
            camera.leases.remove(&self.name);
        }
    }
}
