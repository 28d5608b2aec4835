//! The store of a program, its streams and consumers, and what the steps do to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::store::clock::Clock;
use crate::store::clock::fake::FakeClock;

use super::super::*;
use super::camera::{Camera, FRAME, Item, Kind};
use super::image;
use super::viewer::Viewer;
use super::{Setup, Step};

const NOW: i64 = 1_770_000_000_000_000_000;
const VIEWERS: usize = 3;

/// How an opening of the store came about.
enum Since {
    Closed,
    Killed,
}

pub struct World<'a> {
    root: &'a Path,
    /// Where copies are made: a full disk does not keep that.
    aside: PathBuf,
    /// Of the store as it lies now: each copy lies elsewhere.
    path: PathBuf,
    copies: usize,
    clock: Arc<FakeClock>,
    setup: Setup,
    store: Option<Store>,
    cameras: Vec<Camera>,
    viewers: [Option<Viewer>; VIEWERS],
    /// Makes the disk full, where there is a way.
    control: Option<PathBuf>,
    full: bool,
    seed: u64,
}

impl<'a> World<'a> {
    pub fn new(root: &'a Path, aside: PathBuf, setup: Setup, control: Option<PathBuf>) -> Self {
        let path = root.join("store 0");
        let clock = FakeClock::new("boot", NOW, 1_000_000_000);
        let mut world = Self {
            root,
            aside,
            path,
            copies: 0,
            clock,
            setup,
            store: None,
            cameras: Vec::new(),
            viewers: [const { None }; VIEWERS],
            control,
            full: false,
            seed: 0,
        };
        let store = Store::open(&world.path, &world.options()).unwrap();
        world.cameras = (0..setup.streams)
            .map(|i| {
                let name = format!("camera {i}");
                let stream = store.stream(&name).unwrap();
                Camera::new(&name, stream)
            })
            .collect();
        world.store = Some(store);
        world
    }

    fn options(&self) -> StoreOptions {
        let Setup { durability, .. } = self.setup;
        let sync_interval = Duration::from_millis(20);
        StoreOptions { durability, sync_interval, clock: self.clock.clone(), ..options() }
    }

    fn now(&self) -> u64 {
        self.clock.boot()
    }

    fn camera(&mut self, which: u8) -> &mut Camera {
        let index = usize::from(which) % self.cameras.len();
        &mut self.cameras[index]
    }

    /// Offers items one by one or as one.
    fn append(&mut self, which: u8, items: Vec<Item>, batch: bool) {
        let (clock, full) = (self.clock.clone(), self.full);
        let count = items.len() as u64;
        let camera = self.camera(which);
        if batch {
            camera.append(items, &*clock, full);
            clock.pass(Duration::from_nanos(FRAME * count));
        } else {
            for item in items {
                camera.append(vec![item], &*clock, full);
                clock.pass(Duration::from_nanos(FRAME));
            }
        }
    }

    fn items(&mut self, kinds: impl IntoIterator<Item = Kind>, len: usize) -> Vec<Item> {
        kinds
            .into_iter()
            .map(|kind| {
                self.seed += 1;
                // A few are much smaller.
                let len = if self.seed % 5 == 4 { len / 50 } else { len };
                Item::new(kind, self.seed, len, 0)
            })
            .collect()
    }

    pub fn step(&mut self, step: &Step) {
        let mut touched = None;
        match *step {
            Step::Append { stream, count, len, gop, batch } => {
                let kinds = (0..count).map(|i| match i % gop {
                    0 if i % 2 == 0 => Kind::Buffer(Sync::Closed),
                    0 => Kind::Buffer(Sync::Open),
                    _ => Kind::Buffer(Sync::None),
                });
                let items = self.items(kinds, len);
                self.append(stream, items, batch);
                touched = Some(stream);
            }
            Step::Event(stream) => {
                let items = self.items([Kind::Event], 30);
                self.append(stream, items, false);
                touched = Some(stream);
            }
            Step::State { stream, rank, clears, empty } => {
                let clears = match clears {
                    0 => Clears::All,
                    1 => Clears::Ranks(vec![1, 2]),
                    _ => Clears::Nothing,
                };
                let items = self.items([Kind::State(rank, clears)], if empty { 0 } else { 100 });
                self.append(stream, items, false);
                touched = Some(stream);
            }
            Step::GiveOut { stream, count } => self.camera(stream).give_out(count),
            Step::Deliver { stream, count } => {
                self.camera(stream).deliver(count);
                touched = Some(stream);
            }
            Step::Drop(stream, part) => {
                self.camera(stream).drop_until(part);
                touched = Some(stream);
            }
            Step::Expire(stream) => {
                let now = self.now();
                self.camera(stream).expire(now);
                touched = Some(stream);
            }
            Step::Thin(stream, buffers) => {
                self.give_up(stream, |camera| camera.thin(buffers));
                touched = Some(stream);
            }
            Step::Purge(stream, from, part) => {
                self.give_up(stream, |camera| camera.purge(from, part));
                touched = Some(stream);
            }
            Step::Retain(stream, retention) => {
                self.camera(stream).retain(retention);
                touched = Some(stream);
            }
            Step::Pass(seconds) => self.clock.pass(Duration::from_secs(seconds)),
            Step::Low(size) => {
                let space = &self.store.as_ref().unwrap().log().space;
                space.pretend(space.floor() + size);
                self.cameras.iter_mut().for_each(|camera| camera.limited = true);
            }
            Step::Save => self.save(),
            Step::Settle => self.settle(),
            Step::Retake(stream) => {
                let store = self.store.clone().unwrap();
                let camera = self.camera(stream);
                if !camera.is_refused() {
                    camera.let_go();
                    let stream = store.stream(&camera.name).unwrap();
                    camera.retake(stream);
                }
                touched = Some(stream);
            }
            Step::Reopen => self.reopen(Since::Closed),
            Step::Crash => self.reopen(Since::Killed),
            Step::Copy => self.copy(0),
            Step::CopyBusy(count) => self.copy(count),
            Step::Watch { viewer, stream } => self.watch(viewer, stream),
            Step::Look { viewer, count, renew } => {
                if let Some(viewer) = &mut self.viewers[usize::from(viewer) % VIEWERS] {
                    viewer.look(count, renew, &mut self.cameras[viewer.camera]);
                }
            }
            Step::Leave(viewer) => {
                if let Some(viewer) = &mut self.viewers[usize::from(viewer) % VIEWERS] {
                    viewer.leave();
                }
            }
            Step::Forget(viewer) => {
                if let Some(viewer) = self.viewers[usize::from(viewer) % VIEWERS].take() {
                    let full = self.full;
                    let at = viewer.camera;
                    viewer.forget(&mut self.cameras[at], full);
                }
            }
            Step::Fill => self.set_full(true),
            Step::Free => self.free(),
        }
        match touched {
            Some(which) => {
                let now = self.now();
                self.camera(which).check(now);
            }
            None => self.check(),
        }
    }

    pub fn check(&self) {
        self.cameras.iter().for_each(|camera| camera.check(self.now()));
    }

    fn give_up(&mut self, which: u8, how: impl FnOnce(&mut Camera)) {
        let index = usize::from(which) % self.cameras.len();
        how(&mut self.cameras[index]);
        for viewer in self.viewers.iter_mut().flatten().filter(|viewer| viewer.camera == index) {
            viewer.given_up();
        }
    }

    fn watch(&mut self, which: u8, stream: u8) {
        let slot = usize::from(which) % VIEWERS;
        let full = self.full;
        match &mut self.viewers[slot] {
            Some(viewer) => {
                let camera = &mut self.cameras[viewer.camera];
                viewer.come_back(&self.path, camera, !full, full);
            }
            empty => {
                let at = usize::from(stream) % self.cameras.len();
                *empty = Viewer::new(format!("viewer {slot}"), at, &self.path, &mut self.cameras[at], full);
            }
        }
    }

    /// An erasure may keep the thread that saves, and a full disk does.
    fn save(&mut self) {
        if !self.full {
            until("the cursors are saved", || self.cameras[0].stream().save_cursor());
            self.cameras.iter_mut().for_each(Camera::saved);
        }
    }

    /// Until limits are kept.
    fn settle(&mut self) {
        if self.full {
            return;
        }
        let now = self.now();
        for camera in &self.cameras {
            until("limits are kept", || {
                camera.stream().probe();
                camera.is_within_limits(now)
            });
        }
    }

    fn set_full(&mut self, full: bool) {
        let Some(control) = &self.control else { return };
        self.full |= full;
        match full {
            true => std::fs::write(control, "full").unwrap(),
            false => _ = std::fs::remove_file(control),
        }
    }

    /// There is space again, and all that was refused is taken.
    fn free(&mut self) {
        if !self.full {
            return;
        }
        self.set_full(false);
        let clock = self.clock.clone();
        for camera in &mut self.cameras {
            until("writing goes on", || camera.append(Vec::new(), &*clock, true));
            until("the store takes data", || camera.stream().probe());
        }
        self.full = false;
    }

    /// Drops all handles.
    fn let_go(&mut self, abandon: bool) {
        if let Some(store) = &self.store {
            store.log().abandoned.store(abandon, Ordering::Relaxed);
        }
        self.cameras.iter_mut().for_each(|camera| _ = camera.let_go());
        self.store = None;
    }

    fn reopen(&mut self, since: Since) {
        let clean = matches!(since, Since::Closed) && !self.full;
        self.let_go(matches!(since, Since::Killed));
        self.open(clean, None);
        // Consumers are there all the time, as if in another process, and find the store again.
    }

    /// A copy of the store is taken while it is open, the old one is thrown away, and another opening goes on with the copy.
    /// So many records may be on their way into each stream meanwhile.
    fn copy(&mut self, busy: usize) {
        self.copies += 1;
        let aside = self.aside.clone();
        let path = self.root.join(format!("store {}", self.copies));
        let (clock, full) = (self.clock.clone(), self.full);
        let mut required = None;
        if busy == 0 {
            image::copy(&self.path, &aside);
        } else {
            let seed = self.seed;
            self.seed += (busy * self.cameras.len()) as u64;
            let ends: Vec<_> = self.cameras.iter().map(|camera| camera.accepted.clone()).collect();
            let wanted = ends[0].load(Ordering::Acquire) + (seed % busy as u64);
            let mut reached = Vec::new();
            std::thread::scope(|scope| {
                let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
                let count = self.cameras.len();
                for (index, camera) in self.cameras.iter_mut().enumerate() {
                    let (clock, done) = (clock.clone(), done.clone());
                    scope.spawn(move || {
                        for i in 0..busy {
                            let seed = seed + (index * busy + i) as u64;
                            let sync = if i % 5 == 0 { Sync::Closed } else { Sync::None };
                            let item =
                                |n| Item::new(Kind::Buffer(sync), seed + n, 3000 + (seed * 977 % 30_000) as usize, 0);
                            camera.append((0..seed % 3 + 1).map(item).collect(), &*clock, full);
                            if i % 3 == 0 {
                                camera.deliver(2);
                            }
                            std::thread::sleep(Duration::from_micros(300));
                        }
                        done.fetch_add(1, Ordering::Release);
                    });
                }
                while ends[0].load(Ordering::Acquire) < wanted && done.load(Ordering::Acquire) < count {
                    std::thread::yield_now();
                }
                reached = ends.iter().map(|end| end.load(Ordering::Acquire)).collect();
                image::copy(&self.path, &aside);
            });
            required = Some(reached);
        }
        self.let_go(true);
        // Its consumers may still be writing: what is left goes with the rest.
        let _ = std::fs::remove_dir_all(&self.path);
        std::fs::rename(&aside, &path).unwrap();
        self.path = path;
        self.open(false, required);
        for viewer in &mut self.viewers {
            let full = self.full;
            let gone = viewer.as_mut().is_some_and(|viewer| {
                let camera = &mut self.cameras[viewer.camera];
                !viewer.come_back(&self.path, camera, false, full)
            });
            if gone {
                *viewer = None;
            }
        }
    }

    fn open(&mut self, clean: bool, required: Option<Vec<Sequence>>) {
        let store = match Store::open(&self.path, &self.options()) {
            Err(error) if self.full => {
                assert!(error.is_no_space(), "{error}");
                self.set_full(false);
                let store = Store::open(&self.path, &self.options()).unwrap();
                self.full = false;
                store
            }
            store => store.unwrap(),
        };
        for (index, camera) in self.cameras.iter_mut().enumerate() {
            let stream = loop {
                match store.stream(&camera.name) {
                    // A reader that looked in holds nothing for long.
                    Err(StoreError::Away { .. }) => std::thread::sleep(Duration::from_millis(5)),
                    stream => break stream.unwrap(),
                }
            };
            let incidents = stream.take_incidents();
            assert!(incidents.is_empty(), "{incidents:?}");
            camera.adopt(stream, clean, required.as_ref().map(|ends| ends[index]));
        }
        self.store = Some(store);
    }

    /// Everything that is left is delivered, and all is accounted for.
    pub fn finish(mut self) {
        self.free();
        for viewer in self.viewers.iter_mut().flatten() {
            viewer.look(usize::MAX, true, &mut self.cameras[viewer.camera]);
        }
        self.cameras.iter_mut().for_each(|camera| camera.deliver(usize::MAX));
        self.settle();
        self.check();
        for camera in &self.cameras {
            assert_eq!(camera.visible(camera.resume()..).filter(|item| item.0 > camera.given).count(), 0);
            assert_eq!(camera.stream().cursor().pending(camera.stream().end().totals), Totals::default());
        }
        self.save();
        self.reopen(Since::Closed);
        self.check();
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.set_full(false);
        self.let_go(true);
    }
}
