//! Where shots begin: the decision from a few frames before and after.
//!
//! Frame t begins a shot if it and the two frames after it have little in common with the three before, beyond what is
//! usual among neighbours here. All is asked of the distance of [`score`](super::score), which leaves out motion,
//! light and what happens on a third of the frame.
//!
//! - `apart`: the least distance of a pair with one frame on each side, at most three frames from each other. A flash,
//!   a broken frame, a strobe: the picture returns within three frames, some pair is close, no cut.
//! - `usual`: the second largest change among the two before and the two after. Fast motion, shaking, explosions and
//!   dissolves change for several frames in a row; a single other event counts for nothing. Repeated frames (30 in 60
//!   frames a second) are no changes; flashes are looked past. The idea of a neighbourhood is that of PySceneDetect's
//!   `AdaptiveDetector` and of J. Yuan et al., "A Formal Study of Shot Boundary Detection", IEEE TCSVT 17(2), 2007.
//! - A blank frame on one side and contrast that grows from it, or falls to it, on the other: a fade.
//! - The score is the part of the possible distance beyond the usual: (apart - usual) / (1 - usual).
//!
//! The verdict on a frame comes when [`LOOK_AHEAD`] frames more are known. Shots of one or two frames are not told, nor
//! cuts inside a motion so fast that successive frames have nothing in common.

use super::figures::{self, Figures};
use super::picture::Picture;
use super::sample::{Sample, Sampler};
use super::score::{self, Motion, Texture};

/// Frames after a frame that its verdict waits for: the latency of [`SceneDetector::push`].
pub const LOOK_AHEAD: usize = 2;
/// Frames before a frame that it is compared with.
const LOOK_BACK: usize = 3;
/// Frames compared with each other.
const HELD: usize = LOOK_BACK + 1 + LOOK_AHEAD;
/// Scores below that are only known to be below it: motion is not searched for in calm frames.
pub const FLOOR: f32 = 0.15;
/// Hard cuts of films score 0.35 to 0.8, nearly all else below 0.2; a lamp that is switched on or an object that covers a third of
/// the picture at once may reach 0.4.
pub const DEFAULT_THRESHOLD: f32 = 0.25;
/// More contrast than that within two frames of a blank one is a fade.
const FADING: f32 = 1.25;
/// Steps below that are repetitions.
const REPEATED: f32 = 0.01;
/// Frames back in which changes are looked for among repetitions: frames shown three times.
const REPETITIONS: u64 = 6;
/// Steps remembered: those, the one in question, those ahead.
const STEPS: usize = REPETITIONS as usize + 1 + LOOK_AHEAD;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SceneConfig {
    /// Scores from here on are cuts, above 0 to 1.
    pub threshold: f32,
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self { threshold: DEFAULT_THRESHOLD }
    }
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict<M> {
    /// What was pushed with the frame.
    pub mark: M,
    /// A new shot begins with this frame.
    pub cut: bool,
    /// 0 to 1: how much more the picture changes before this frame than it does around it.
    pub score: f32,
    pub figures: Figures,
}

#[derive(Debug, Clone)]
struct Frame<M> {
    mark: Option<M>,
    sample: Sample,
    texture: Texture,
    figures: Figures,
}

/// One stream's detector. Memory is allocated when it is made, never again.
#[derive(Debug)]
pub struct SceneDetector<M> {
    config: SceneConfig,
    sampler: Box<Sampler>,
    /// The last frames; frame n is at n modulo `HELD`.
    frames: Box<[Frame<M>]>,
    /// Distance of frame n from the one before, at n modulo `STEPS`.
    steps: [f32; STEPS],
    /// Distance of frame n from the one after the next, once it was asked for, at n modulo `HELD`: what is asked of
    /// frames ahead is asked again when they are behind.
    leaps: [Option<f32>; HELD],
    /// Where a frame is put under another's light.
    relit: Box<(Sample, Texture)>,
    /// Frames seen since the last reset.
    seen: u64,
    /// Frames that have had their verdict since then.
    judged: u64,
    last_cut: Option<u64>,
}

impl<M: Copy> SceneDetector<M> {
    pub fn new(config: SceneConfig) -> Self {
        let frame = || Frame {
            mark: None,
            sample: Sample::default(),
            texture: [0; score::BLOCKS],
            figures: Figures::default(),
        };
        Self {
            config,
            sampler: Box::new(Sampler::default()),
            frames: (0..HELD).map(|_| frame()).collect(),
            steps: [0.0; STEPS],
            leaps: [None; HELD],
            relit: Box::new((Sample::default(), [0; score::BLOCKS])),
            seen: 0,
            judged: 0,
            last_cut: None,
        }
    }

    /// Forgets what was before, for a discontinuity or new caps; frames without a verdict are lost unless drained.
    pub fn reset(&mut self) {
        self.seen = 0;
        self.judged = 0;
        self.last_cut = None;
    }

    /// Takes the next frame; returns the verdict on the frame [`LOOK_AHEAD`] frames before it.
    pub fn push(&mut self, picture: &Picture, mark: M) -> Option<Verdict<M>> {
        let now = self.seen;
        let slot = slot(now);
        let frame = &mut self.frames[slot];
        frame.mark = Some(mark);
        self.sampler.read(picture, &mut frame.sample);
        score::texture(&frame.sample, &mut frame.texture);
        let before = now.checked_sub(1);
        let previous = before.map(|n| &self.frames[self::slot(n)].sample);
        let figures = figures::of(&self.frames[slot].sample, previous);
        let step = before.map_or(0.0, |n| self.distance(n, now));
        self.steps[step_slot(now)] = step;
        self.frames[slot].figures = figures;
        self.leaps[slot] = None;
        self.seen += 1;
        if self.seen - self.judged > LOOK_AHEAD as u64 { self.judge() } else { None }
    }

    /// The verdict on the next frame that waits for one, with what is known; `None` when none waits. For the end of a
    /// stream.
    pub fn drain(&mut self) -> Option<Verdict<M>> {
        if self.judged < self.seen { self.judge() } else { None }
    }

    fn judge(&mut self) -> Option<Verdict<M>> {
        let at = self.judged;
        self.judged += 1;
        let score = self.score(at);
        let free = self.last_cut.is_none_or(|cut| at - cut > LOOK_AHEAD as u64);
        let cut = score >= self.config.threshold && free;
        if cut {
            self.last_cut = Some(at);
        }
        let frame = &self.frames[slot(at)];
        Some(Verdict { mark: frame.mark?, cut, score, figures: frame.figures })
    }

    fn score(&mut self, at: u64) -> f32 {
        let mut apart = self.step(at);
        if at == 0 || apart < FLOOR {
            return 0.0;
        }
        let usual = self.usual(at);
        let beyond = |distance: f32| ((distance - usual) / (1.0 - usual)).max(0.0);
        for (back, ahead) in PAIRS {
            if beyond(apart) < FLOOR {
                break;
            }
            let (Some(a), b) = (at.checked_sub(back), at + ahead) else { continue };
            if b < self.seen {
                apart = apart.min(if b - a == 2 { self.leap(a) } else { self.distance(a, b) });
            }
        }
        let score = beyond(apart);
        if score >= FLOOR && self.fades(at) { 0.0 } else { score }
    }

    /// A fade begins or ends here: one side is blank, the contrast of the other grows from it or falls to it.
    fn fades(&self, at: u64) -> bool {
        let sample = |n: u64| &self.frames[slot(n)].sample;
        let grows = |from: u64, to: u64| score::contrast(sample(from), sample(to)).is_some_and(|gain| gain > FADING);
        (score::is_blank(sample(at - 1)) && at + 2 < self.seen && grows(at, at + 2))
            || (score::is_blank(sample(at)) && at >= 3 && grows(at - 1, at - 3))
    }

    /// Second largest change about `at`, without the one that leads to it.
    fn usual(&mut self, at: u64) -> f32 {
        // The last two steps that are no repetition.
        let past = (at.saturating_sub(REPETITIONS).max(1)..at).rev();
        let mut past = past.filter(|&n| self.step(n) > REPEATED);
        let [last, earlier] = [past.next(), past.next()];
        let mut changes = [last, earlier, Some(at + 1), Some(at + 2)].map(|n| n.map_or(0.0, |n| self.step(n)));
        if at > 2 && (last, earlier) == (Some(at - 1), Some(at - 2)) {
            self.look_past(&mut changes[..2], at - 3);
        }
        if at + 2 < self.seen {
            self.look_past(&mut changes[2..], at);
        }
        changes.sort_unstable_by(f32::total_cmp);
        changes[2]
    }

    /// Two successive steps from `from` count no more than what they amount to together: after a flash, nothing.
    fn look_past(&mut self, steps: &mut [f32], from: u64) {
        if steps.iter().all(|step| *step >= FLOOR) {
            let both = self.leap(from);
            steps.iter_mut().for_each(|step| *step = step.min(both));
        }
    }

    /// How far the frame is from the one before; 0 for frames that are not yet there.
    fn step(&self, n: u64) -> f32 {
        if n < self.seen { self.steps[step_slot(n)] } else { 0.0 }
    }

    /// How far the frame is from the one after the next.
    fn leap(&mut self, n: u64) -> f32 {
        if let Some(known) = self.leaps[slot(n)] {
            return known;
        }
        let distance = self.distance(n, n + 2);
        self.leaps[slot(n)] = Some(distance);
        distance
    }

    /// Distance of two frames of those held, under whatever light.
    fn distance(&mut self, a: u64, b: u64) -> f32 {
        let [a, b] = [a, b].map(|n| &self.frames[slot(n)]);
        let (from, to) = ((&a.sample, &a.texture), (&b.sample, &b.texture));
        let plain = score::distance(from, to, Motion::Ignore);
        if plain < FLOOR {
            return plain;
        }
        let moved = score::distance(from, to, Motion::Search);
        if moved < FLOOR {
            return moved;
        }
        let (sample, texture) = &mut *self.relit;
        if score::relight(from.0, to.0, (sample, texture)) {
            return moved.min(score::distance((sample, texture), to, Motion::Search));
        }
        moved
    }
}

/// Frames before and after a frame that are compared, beside the step to it: likely returns first.
const PAIRS: [(u64, u64); 5] = [(1, 1), (2, 0), (1, 2), (3, 0), (2, 1)];

fn slot(frame: u64) -> usize {
    (frame % HELD as u64) as usize
}

fn step_slot(frame: u64) -> usize {
    (frame % STEPS as u64) as usize
}
