//! Decisions against a few lines of independent arithmetic. [`Run`] feeds windows and checks what must hold of any
//! decisions.

mod allocations;
mod config;
mod content;
mod event;
mod extremes;
mod grid;
mod lateness;
mod quality;
mod streams;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::timeline::Ns;

pub const MS: i64 = 1_000_000;
pub const S: i64 = 1000 * MS;

pub fn ms(ms: i64) -> Ns {
    Ns(ms * MS)
}

pub fn secs(secs: i64) -> Ns {
    Ns(secs * S)
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    pub frame: Frame,
    pub windows: Vec<WindowId>,
    pub late: bool,
    pub keep: bool,
}

pub struct Run {
    pub windows: Windows,
    pub out: Vec<Decision>,
    pub log: Vec<Decision>,
    pub frames: BTreeMap<(StreamId, u64), Frame>,
    /// Those of the start.
    pub streams: Vec<StreamId>,
}

impl Run {
    pub fn new(config: &Config) -> Self {
        let windows = Windows::new(config).unwrap();
        Self { windows, out: Vec::new(), log: Vec::new(), frames: BTreeMap::new(), streams: Vec::new() }
    }

    pub fn with(config: &Config, streams: usize) -> (Self, Vec<StreamId>) {
        let mut run = Self::new(config);
        run.streams = (0..streams).map(|_| run.windows.add_stream()).collect();
        let streams = run.streams.clone();
        (run, streams)
    }

    pub fn call<T>(&mut self, call: impl FnOnce(&mut Windows, &mut Vec<Decision>) -> T) -> T {
        let result = call(&mut self.windows, &mut self.out);
        self.log.append(&mut self.out);
        result
    }

    pub fn push(&mut self, frame: Frame) -> u64 {
        let serial = self.call(|windows, out| windows.push(frame, out));
        self.frames.insert((frame.stream, serial), frame);
        serial
    }

    pub fn eos(&mut self) {
        let streams: BTreeSet<_> = self.frames.keys().map(|key| key.0).chain(self.streams.iter().copied()).collect();
        for stream in streams {
            self.call(|windows, out| windows.eos(stream, out));
        }
    }

    pub fn closed(&self) -> Vec<Summary> {
        let closed = self.log.iter().filter_map(|decision| match decision {
            Decision::Closed(summary) => Some((**summary).clone()),
            _ => None,
        });
        closed.collect()
    }

    /// In the order of arrival on each stream.
    pub fn decided(&self, stream: StreamId) -> Vec<Decided> {
        let decided = self.log.iter().filter_map(|decision| match decision {
            Decision::Frame { stream: of, serial, windows, late, keep } if *of == stream => Some(Decided {
                frame: self.frames[&(stream, *serial)],
                windows: windows.iter().collect(),
                late: *late,
                keep: *keep,
            }),
            _ => None,
        });
        decided.collect()
    }

    /// (id, start, end) of closed windows, ns.
    pub fn spans(&self) -> Vec<(i64, i64, i64)> {
        let closed = self.closed();
        closed.iter().map(|closed| (closed.window.id, closed.window.start.0, closed.window.end.unwrap().0)).collect()
    }

    /// What holds of any decisions between two restarts. `all`: every frame has been decided.
    pub fn check(&self, all: bool) {
        let mut last: BTreeMap<StreamId, u64> = BTreeMap::new();
        let mut begun: BTreeMap<(StreamId, WindowId), (u32, u32, u64, u32)> = BTreeMap::new();
        let mut shared: BTreeMap<StreamId, WindowId> = BTreeMap::new();
        let mut shares: BTreeMap<WindowId, Vec<(StreamId, Figures)>> = BTreeMap::new();
        let mut closed: Option<WindowId> = None;
        let mut decided = 0;
        for decision in &self.log {
            match decision {
                Decision::Open { stream, window } => {
                    assert!(begun.insert((*stream, window.id), (0, 0, 0, 0)).is_none(), "{window:?} began twice");
                    assert!(shared.get(stream).is_none_or(|&id| id < window.id), "{window:?} began after its end");
                    assert!(closed.is_none_or(|id| id < window.id), "{window:?} began after it was closed");
                }
                Decision::Frame { stream, serial, windows, late, keep } => {
                    let next = last.get(stream).map_or(0, |last| last + 1);
                    assert_eq!(*serial, next, "frames of {stream:?} out of order");
                    last.insert(*stream, *serial);
                    decided += 1;
                    let frame = self.frames[&(*stream, *serial)];
                    let open: Vec<_> =
                        windows.iter().filter(|id| shared.get(stream).is_none_or(|shared| id > shared)).collect();
                    let counted = !late || open.iter().any(|id| begun.contains_key(&(*stream, *id)));
                    if counted && *keep {
                        for id in windows.iter() {
                            let sums = begun.get_mut(&(*stream, id)).expect("began before its first frame");
                            sums.0 += 1;
                            sums.1 += u32::from(frame.keyframe);
                            sums.2 += frame.size as u64;
                        }
                    }
                }
                Decision::Forget { stream, before, .. } => {
                    let first = last.get(stream).map_or(0, |last| last + 1);
                    assert!(*before > first, "nothing to forget");
                    decided += before - first;
                    last.insert(*stream, before - 1);
                }
                Decision::Share { stream, window, figures, .. } => {
                    let sums = begun.remove(&(*stream, window.id)).expect("a share that ends has begun");
                    assert_eq!((sums.0, sums.1, sums.2), (figures.frames, figures.keyframes, figures.bytes));
                    let before = shared.insert(*stream, window.id);
                    assert!(before.is_none_or(|before| before < window.id), "shares end in order");
                    assert!((0. ..=1.).contains(&figures.quality), "{figures:?}");
                    shares.entry(window.id).or_default().push((*stream, *figures));
                }
                Decision::Closed(summary) => {
                    let id = summary.window.id;
                    assert!(closed.is_none_or(|closed| closed < id), "closed in order, once: {closed:?} {id}");
                    closed = Some(id);
                    assert!(summary.window.end.unwrap() >= summary.window.start);
                    let mut shares = shares.remove(&id).unwrap_or_default();
                    shares.sort_by_key(|share| share.0);
                    let told = summary.streams.iter().filter(|stream| stream.figures.frames > 0);
                    let told: Vec<_> = told.map(|stream| (stream.stream, stream.figures)).collect();
                    assert_eq!(told, shares, "what was told of shares is what was told of the window");
                    assert_eq!(summary.figures.frames, told.iter().map(|share| share.1.frames).sum::<u32>());
                }
            }
        }
        if all {
            assert_eq!(decided, self.frames.len() as u64, "every frame is decided once");
            assert!(begun.is_empty() && shares.is_empty(), "all has ended: {begun:?} {shares:?}");
            assert_eq!(self.windows.open().count(), 0);
        }
    }
}

/// 25 frames a second in decode order: a keyframe each `gop` frames, `b` B-frames before each reference frame, decode
/// times as encoders give them. From `start`, in frames.
pub fn video(stream: StreamId, start: i64, frames: i64, gop: i64, b: i64) -> Vec<Frame> {
    let mut shown = Vec::new();
    let mut at = 0;
    while at < frames {
        // Closed GOPs: the last frames of one refer to nothing after.
        let end = (at + gop).min(frames);
        shown.push((at, true));
        let mut from = at + 1;
        while from < end {
            let reference = (from + b).min(end - 1);
            shown.push((reference, false));
            shown.extend((from..reference).map(|frame| (frame, false)));
            from = reference + 1;
        }
        at = end;
    }
    let delay = if b > 0 { 1 } else { 0 };
    let frame = |(decoded, (shown, keyframe)): (usize, (i64, bool))| Frame {
        position: Some(ms(40 * (start + decoded as i64 - delay))),
        duration: Some(ms(40)),
        keyframe,
        size: 100 + shown as usize % 7,
        complexity: if keyframe { 4. } else { 1. },
        ..Frame::new(stream, ms(40 * (start + shown)))
    };
    shown.into_iter().enumerate().map(frame).collect()
}
