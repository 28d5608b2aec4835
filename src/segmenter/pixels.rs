//! Raw video for the scene score: which formats can be read, and what is seen of a frame.

use super::frames::Seen;
use super::settings::Settings;

/// What was found out about the contents of a frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scored {
    /// Encoded: coded bits a pixel. Raw: gradient and temporal difference.
    pub complexity: f64,
    /// Raw: 0 (nothing to be seen) to 1.
    pub exposure: Option<f64>,
    /// A hard cut begins here.
    pub cut: bool,
}

/// Reads the pixels of one stream.
#[derive(Default)]
pub struct Pixels {}

impl Pixels {
    /// Says, as a sentence, why these pixels cannot be read.
    pub fn new(_caps: &gst::CapsRef, _settings: &Settings) -> Result<Self, String> {
        Ok(Self {})
    }

    pub fn is_active(&self) -> bool {
        false
    }

    /// What is known by now of the first frame of which that was not known.
    pub fn score(&mut self, _buffer: &gst::BufferRef, seen: Seen) -> Option<Seen> {
        Some(seen)
    }

    /// The next frame that waits for others, with what is known.
    pub fn finish(&mut self) -> Option<Seen> {
        None
    }

    /// What follows has nothing to do with what was before.
    pub fn reset(&mut self) {}
}
