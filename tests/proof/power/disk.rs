//! A disk that loses power: what of a record may be on it afterwards.
//!
//! What it promises is what POSIX does, and what file systems were found to do by ALICE (Pillai et al., "All File Systems Are
//! Not Created Equal", OSDI 2014) and CrashMonkey (Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash
//! Testing", OSDI 2018), whose models this is a mix of:
//!
//! - What was written to a file is there once a sync of that file has returned that began after the write had returned, with
//!   the size that reading it takes. `sync_file_range` promises nothing.
//! - Any other write may be there or not, or in some of its sectors: in order, or not. The size of the file is any that it has
//!   had since the sync; what is below it and was not written is what was there before, or zeros.
//! - An entry of a directory (made, renamed, linked, removed) is there once that directory was synced after it. A rename is there
//!   as a whole or not at all. With [`Promises::Posix`] any of the other changes may be there, each for itself. With
//!   [`Promises::Journal`], which is what ext4 and XFS do, changes of names are there in their order, up to any of them, and a
//!   sync of a file brings all those before it when it has to write the journal: when the file is new or its size has changed.
//!
//! Not in it: sectors torn in themselves, stale or foreign content of blocks (`data=writeback`), disks that lie about flushes,
//! errors of a sync, times, modes and owners of files.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::{self, File};
use std::path::Path;

use super::dice::Dice;
use super::log::{Bytes, Entry};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promises {
    Posix,
    Journal,
}

/// What of that which is not promised is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Nothing,
    Everything,
    /// Of each file up to some write, and that in part; names as the promises allow.
    Prefix,
    /// Any writes, in sectors of this many bytes.
    Scattered(u64),
}

pub const FATES: [Fate; 5] =
    [Fate::Nothing, Fate::Everything, Fate::Prefix, Fate::Scattered(512), Fate::Scattered(4096)];

type Inode = usize;
/// The directory that is recorded.
const ROOT: Inode = 0;

#[derive(Clone)]
enum Change {
    Write { at: u64, data: Bytes },
    Size(u64),
}

#[derive(Clone, Default)]
struct Content {
    data: Vec<u8>,
    /// May be more than what there is data of.
    size: u64,
}

impl Content {
    fn write(&mut self, at: u64, data: &[u8]) {
        let end = at as usize + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[at as usize..end].copy_from_slice(data);
        self.size = self.size.max(end as u64);
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        self.data.truncate(size as usize);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, data } => self.write(*at, data),
            Change::Size(size) => self.resize(*size),
        }
    }
}

/// A file or directory, with what is promised of it and what came after.
#[derive(Default)]
struct Node {
    directory: bool,
    promised: Content,
    changes: VecDeque<Change>,
    /// Changes that were ever made.
    made: u64,
    /// As the process sees it.
    size: u64,
    /// Sizes were changed up to here.
    resized: u64,
}

impl Node {
    fn change(&mut self, change: Change) {
        let size = match &change {
            Change::Write { at, data } => self.size.max(at + data.len() as u64),
            Change::Size(size) => *size,
        };
        self.made += 1;
        if size != self.size {
            self.resized = self.made;
        }
        self.size = size;
        self.changes.push_back(change);
    }

    /// What came before change number `until` is promised from now on.
    fn promise(&mut self, until: u64) {
        while self.made - (self.changes.len() as u64) < until {
            let Some(change) = self.changes.pop_front() else { break };
            self.promised.apply(&change);
        }
    }

    fn survives(&self, fate: Fate, dice: &mut Dice) -> Content {
        let mut content = self.promised.clone();
        let count = self.changes.len() as u64;
        match fate {
            Fate::Nothing => {}
            Fate::Everything => self.changes.iter().for_each(|change| content.apply(change)),
            Fate::Prefix => {
                let whole = dice.below(count + 1);
                for (number, change) in (0..).zip(&self.changes) {
                    match change {
                        change if number < whole => content.apply(change),
                        Change::Write { at, data } if number == whole => {
                            let length = dice.below(data.len() as u64 + 1);
                            // Sectors of the disk, not of the write.
                            let end = (at + length) / 512 * 512;
                            content.write(*at, &data[..end.saturating_sub(*at).min(data.len() as u64) as usize]);
                            if dice.below(2) == 0 {
                                content.size = content.size.max(at + data.len() as u64);
                            }
                        }
                        _ => break,
                    }
                }
            }
            Fate::Scattered(sector) => {
                let mut sizes = vec![content.size];
                let mut live = content.size;
                // Nearly all, some, nearly none.
                let share = [2, 50, 98][dice.below(3) as usize];
                for change in &self.changes {
                    match change {
                        Change::Size(size) => {
                            live = *size;
                            if dice.below(2) == 0 {
                                content.resize(*size);
                            }
                        }
                        Change::Write { at, data } => {
                            live = live.max(at + data.len() as u64);
                            let mut from = *at;
                            while from < at + data.len() as u64 {
                                let to = ((from / sector + 1) * sector).min(at + data.len() as u64);
                                if dice.below(100) < share {
                                    content.write(from, &data[(from - at) as usize..(to - at) as usize]);
                                }
                                from = to;
                            }
                        }
                    }
                    sizes.push(live);
                }
                content.resize(sizes[dice.below(sizes.len() as u64) as usize]);
            }
        }
        content
    }
}

type Names = BTreeMap<(Inode, String), Inode>;

/// Changes of names that happen as one.
struct Naming {
    changes: Vec<((Inode, String), Option<Inode>)>,
    /// Directories that have to be synced before it is promised.
    wants: Vec<Inode>,
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        for (name, inode) in &self.changes {
            match inode {
                Some(inode) => _ = names.insert(name.clone(), *inode),
                None => _ = names.remove(name),
            }
        }
    }
}

/// What a sync that has begun covers.
struct Covered {
    inode: Inode,
    changes: u64,
    namings: u64,
    everything: Option<Vec<u64>>,
}

pub struct Disk {
    root: String,
    promises: Promises,
    nodes: Vec<Node>,
    /// As the process sees it.
    live: Names,
    promised: Names,
    namings: VecDeque<Naming>,
    /// Namings that were ever made.
    named: u64,
    descriptors: HashMap<i32, Inode>,
    syncs: HashMap<i64, Covered>,
}

impl Disk {
    /// Empty, at the path `root` of the process.
    pub fn new(root: &Path, promises: Promises) -> Self {
        let root = root.to_str().unwrap().to_owned();
        let nodes = vec![Node { directory: true, ..Node::default() }];
        let (live, promised) = (Names::new(), Names::new());
        let (namings, descriptors, syncs) = (VecDeque::new(), HashMap::new(), HashMap::new());
        Self { root, promises, nodes, live, promised, namings, named: 0, descriptors, syncs }
    }

    /// Directory and name of a path.
    fn place(&self, path: &str) -> Option<(Inode, String)> {
        let path = path.strip_prefix(&self.root)?;
        let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
        let mut at = ROOT;
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Some((at, part.to_owned()));
            }
            at = *self.live.get(&(at, part.to_owned()))?;
        }
        None
    }

    fn find(&self, path: &str) -> Option<Inode> {
        if path.strip_prefix(&self.root).is_some_and(|rest| rest.trim_matches('/').is_empty()) {
            return Some(ROOT);
        }
        self.live.get(&self.place(path)?).copied()
    }

    fn name(&mut self, changes: Vec<((Inode, String), Option<Inode>)>) {
        let mut wants: Vec<Inode> = changes.iter().map(|((directory, _), _)| *directory).collect();
        wants.dedup();
        let naming = Naming { changes, wants };
        naming.apply(&mut self.live);
        self.namings.push_back(naming);
        self.named += 1;
    }

    fn add(&mut self, directory: bool) -> Inode {
        self.nodes.push(Node { directory, ..Node::default() });
        self.nodes.len() - 1
    }

    /// Takes the next entry of the record.
    pub fn take(&mut self, entry: &Entry) {
        match entry {
            Entry::Open { fd, path, create, truncate } => {
                let inode = match (self.find(path), self.place(path)) {
                    (Some(inode), _) => inode,
                    (None, Some(place)) if *create => {
                        let inode = self.add(false);
                        self.name(vec![(place, Some(inode))]);
                        inode
                    }
                    other => panic!("{path} was opened, which is unknown: {other:?}"),
                };
                if *truncate && self.nodes[inode].size > 0 {
                    self.nodes[inode].change(Change::Size(0));
                }
                self.descriptors.insert(*fd, inode);
            }
            Entry::Close { fd } => _ = self.descriptors.remove(fd),
            Entry::Dup { fd, copy } => _ = self.descriptors.insert(*copy, self.descriptors[fd]),
            Entry::Write { fd, at, data } => {
                self.nodes[self.descriptors[fd]].change(Change::Write { at: *at, data: data.clone() });
            }
            Entry::Truncate { fd, path, size } => {
                let inode = fd.map_or_else(|| self.find(path).unwrap(), |fd| self.descriptors[&fd]);
                self.nodes[inode].change(Change::Size(*size));
            }
            Entry::Allocate { fd, end, keep_size } => {
                let node = &mut self.nodes[self.descriptors[fd]];
                if !keep_size && *end > node.size {
                    node.change(Change::Size(*end));
                }
            }
            Entry::SyncBegin { fd, token, everything } => {
                let inode = self.descriptors[fd];
                let everything = everything.then(|| self.nodes.iter().map(|node| node.made).collect());
                let covered = Covered { inode, changes: self.nodes[inode].made, namings: self.named, everything };
                self.syncs.insert(*token, covered);
            }
            Entry::SyncEnd { token } => {
                let covered = self.syncs.remove(token).unwrap();
                self.promise(&covered);
            }
            Entry::Rename { from, to } => {
                let inode = self.find(from).unwrap_or_else(|| panic!("{from} was renamed, which is unknown"));
                let (from, to) = (self.place(from).unwrap(), self.place(to).unwrap());
                self.name(vec![(from, None), (to, Some(inode))]);
            }
            Entry::Link { from, to } => {
                let (inode, to) = (self.find(from).unwrap(), self.place(to).unwrap());
                self.name(vec![(to, Some(inode))]);
            }
            Entry::Remove { path } => {
                let place = self.place(path).unwrap();
                self.name(vec![(place, None)]);
            }
            Entry::MakeDirectory { path } => {
                let (inode, place) = (self.add(true), self.place(path).unwrap());
                self.name(vec![(place, Some(inode))]);
            }
            Entry::Mark(_) | Entry::Range => {}
        }
    }

    fn promise(&mut self, covered: &Covered) {
        let first = self.named - self.namings.len() as u64;
        let before = covered.namings.saturating_sub(first) as usize;
        let inode = covered.inode;
        let node = &mut self.nodes[inode];
        let names_file = |naming: &Naming| naming.changes.iter().any(|(_, named)| *named == Some(inode));
        let journal = match self.promises {
            Promises::Posix => false,
            Promises::Journal if node.directory => self.namings.iter().take(before).any(|n| n.wants.contains(&inode)),
            Promises::Journal => {
                let promised = node.made - node.changes.len() as u64;
                node.resized > promised || self.namings.iter().take(before).any(names_file)
            }
        };
        node.promise(covered.changes);
        for naming in self.namings.iter_mut().take(before) {
            naming.wants.retain(|directory| *directory != inode && !journal && covered.everything.is_none());
        }
        for (node, made) in self.nodes.iter_mut().zip(covered.everything.iter().flatten()) {
            node.promise(*made);
        }
        // The first that is not promised keeps those after it in the list: what they change comes after.
        while self.namings.front().is_some_and(|naming| naming.wants.is_empty()) {
            self.namings.pop_front().unwrap().apply(&mut self.promised);
        }
    }

    /// Makes `target` what this disk may hold when the power goes now.
    pub fn cut(&self, target: &Path, fate: Fate, dice: &mut Dice) {
        let mut names = self.promised.clone();
        let prefix = dice.below(self.namings.len() as u64 + 1);
        for (number, naming) in (0..).zip(&self.namings) {
            let there = match (fate, self.promises) {
                (Fate::Nothing, _) => false,
                (Fate::Everything, _) => true,
                (_, Promises::Journal) => number < prefix,
                (_, Promises::Posix) => dice.below(2) == 0,
            };
            if there || naming.wants.is_empty() {
                naming.apply(&mut names);
            }
        }
        self.write(ROOT, target, &names, fate, dice);
    }

    fn write(&self, directory: Inode, target: &Path, names: &Names, fate: Fate, dice: &mut Dice) {
        fs::create_dir_all(target).unwrap();
        for ((_, name), inode) in names.range((directory, String::new())..(directory + 1, String::new())) {
            let (node, path) = (&self.nodes[*inode], target.join(name));
            if node.directory {
                self.write(*inode, &path, names, fate, dice);
                continue;
            }
            let content = match node.changes.is_empty() {
                true => None,
                // Files have fates of their own, or nothing would ever be missing in one alone.
                false if !matches!(fate, Fate::Nothing | Fate::Everything) && dice.below(4) == 0 => {
                    Some(node.survives(FATES[dice.below(2) as usize], dice))
                }
                false => Some(node.survives(fate, dice)),
            };
            let content = content.as_ref().unwrap_or(&node.promised);
            fs::write(&path, &content.data).unwrap();
            if content.size != content.data.len() as u64 {
                File::options().write(true).open(&path).unwrap().set_len(content.size).unwrap();
            }
        }
    }
}
