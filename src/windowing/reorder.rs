//! How far a stream has come when its frames carry no decode times.
//!
//! A decoder that may have to hold back R frames puts out the earliest when one more has come; nothing that is decoded later
//! is presented before it. R is 4 at first. After 64 frames it is the most that has been seen: with no B-frames the stream's
//! place is that of its newest frame. When more are seen than were thought, R grows at once, to at most 16 (the most that
//! H.264 and H.265 allow).

use crate::timeline::Ns;

const MOST: usize = 16;
const AT_FIRST: usize = 4;
const TRIAL: u32 = 64;

#[derive(Debug, Clone, Default)]
pub struct Reorder {
    /// Presentation times of the last frames, ascending.
    held: [Ns; MOST + 1],
    len: usize,
    /// Most frames seen that were decoded before one that is presented before them.
    seen: usize,
    frames: u32,
}

impl Reorder {
    /// Where the stream is after this frame; None as long as nothing can be told.
    pub fn push(&mut self, time: Ns) -> Option<Ns> {
        let at = self.held[..self.len].partition_point(|&held| held <= time);
        self.seen = self.seen.max(self.len - at).min(MOST);
        self.held.copy_within(at..self.len, at + 1);
        self.held[at] = time;
        self.len += 1;
        self.frames = self.frames.saturating_add(1);
        let depth = if self.frames <= TRIAL { self.seen.max(AT_FIRST) } else { self.seen };
        let mut position = None;
        while self.len > MOST || self.len > depth {
            position = Some(self.held[0]);
            self.held.copy_within(1..self.len, 0);
            self.len -= 1;
        }
        position
    }

    /// Time went elsewhere; what the stream does is still known.
    pub fn restart(&mut self) {
        self.len = 0;
    }
}
