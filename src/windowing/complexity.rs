//! Complexity of encoded frames: coded bits per pixel. A window's complexity is the sum over its frames, so a second of
//! 25 frames of 1280x720 at 2 Mbit/s has 2,000,000 / 921,600 = 2.17. Frames whose size in pixels is not known count
//! kbit.

/// Bits per pixel of a frame of `bytes`; kbit if `pixels` is 0.
pub fn coded(bytes: usize, pixels: u64) -> f64 {
    let bits = bytes as f64 * 8.;
    if pixels == 0 { bits / 1000. } else { bits / pixels as f64 }
}
