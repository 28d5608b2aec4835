//! How far a stream has come when its frames carry no decode times.
//!
//! A decoder that may have to hold back R frames puts out the earliest when one more has come; nothing that is decoded
//! later is presented before it. R is 4 at first. After 64 frames it is the most that has been seen: with no B-frames
//! the stream's place is that of its newest frame. When more are seen than were thought, R grows at once, to at most 16
//! (the most that H.264 and H.265 allow).

use crate::timeline::Ns;

const MOST: usize = 16;
const AT_FIRST: usize = 4;
const TRIAL: u32 = 64;

#[derive(Debug, Clone, Default)]
pub struct Reorder {
    /// The latest presentation times, ascending.
    latest: [Ns; MOST + 2],
    len: usize,
    /// Most frames seen that were decoded before one that is presented before them.
    seen: usize,
    frames: u32,
}

impl Reorder {
    /// Where the stream is after this frame; None as long as nothing can be told.
    pub fn push(&mut self, time: Ns) -> Option<Ns> {
        let at = self.latest[..self.len].partition_point(|&latest| latest <= time);
        self.seen = self.seen.max(self.len - at).min(MOST);
        self.latest.copy_within(at..self.len, at + 1);
        self.latest[at] = time;
        self.len += 1;
        self.frames = self.frames.saturating_add(1);
        let depth = if self.frames <= TRIAL { self.seen.max(AT_FIRST) } else { self.seen };
        let position = (self.len > depth).then(|| self.latest[self.len - 1 - depth]);
        if self.len == self.latest.len() {
            self.latest.copy_within(1.., 0);
            self.len -= 1;
        }
        position
    }

    /// Time went elsewhere; what the stream does is still known.
    pub fn restart(&mut self) {
        self.len = 0;
    }
}
