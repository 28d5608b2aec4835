//! Where shots begin: hard cuts, told from pictures or from coded sizes.
//!
//! | file | job |
//! |---|---|
//! | [`picture`] | where the samples of a raw frame lie |
//! | [`sample`] | a few thousand samples of every frame, whatever its size and format |
//! | [`score`] | how different two frames are after motion and light |
//! | [`detector`] | the decision, and the score of each frame |
//! | [`figures`] | exposure and complexity, from the same samples |
//! | [`encoded`] | the decision without decoding |
//!
//! A cut is a change of the whole picture from one frame to the next. A flash or a broken frame (up to two frames), a
//! fade, a dissolve, a pan, a title, an object that passes, light that is switched are not. Where two frames are
//! blended at the cut (fields, frame rate conversion), the one or the other is told.
//!
//! Nothing here panics, whatever the input, and raw frames cost no allocation once the detector is made.

pub mod detector;
pub mod encoded;
pub mod figures;
pub mod picture;
pub mod sample;
pub mod score;

#[cfg(test)]
mod tests;
