//! Windows over streams, without GStreamer: frames and triggers in, decisions out.
//!
//! | file | job |
//! |---|---|
//! | [`windows`] | what a caller does: streams, frames, gaps, ends, flushes, splits, triggers |
//! | [`window`], [`config`] | what goes in and comes out; what windows are to be, and what cannot be |
//! | `strategy` | the trait of strategies: how windows lie in time |
//! | `fixed`, `keyframe`, `adaptive`, `scene_cuts`, `event` | the strategies |
//! | `cuts` | windows that follow one another: where they begin, when that is known |
//! | `ring` | event mode: what is held for triggers to come, which of it leaves |
//! | `deciding`, `closing` | which windows a frame is in; when shares are final and windows over |
//! | `stream`, `share` | what is kept of a stream; of a window that is open |
//! | [`reorder`] | how far a stream without decode times has come |
//! | [`quality`], [`complexity`] | figures |
//! | [`scene`] | hard cuts, exposure, complexity of pictures |
//!
//! No clock is read, nothing sleeps, and no input makes anything here panic. Time is [`Ns`](crate::timeline::Ns):
//! window time, whatever the caller made that.
//!
//! What others count on:
//!
//! - The id of a window and the windows of a frame follow from times alone with `Fixed` and `Sliding`, and from the
//!   frames since any keyframe with `Keyframe`: the same in each run, wherever it begins. With `min-duration`,
//!   `max-duration`, `Adaptive` and `Scene` they follow from the frames since the window before.
//! - On a stream whose frames are decoded out of order a window may begin before the one before it has ended:
//!   start(n+1) P B B end(n). Its frames are told apart by [`Decision::Frame`].
//! - Frames of other streams wait until the reference stream has come to their time, where it decides.
//! - Frames before the first window (audio that begins before video; leading pictures of an open GOP) are in none.

mod adaptive;
mod closing;
pub mod complexity;
pub mod config;
mod cuts;
mod deciding;
mod event;
mod fixed;
mod keyframe;
pub mod quality;
pub mod reorder;
mod ring;
pub mod scene;
mod scene_cuts;
mod share;
mod strategy;
mod stream;
#[cfg(test)]
mod tests;
pub mod window;
pub mod windows;

pub use config::{Config, ConfigError, LatePolicy, Strategy};
pub use window::{
    Decision, Expected, Figures, Frame, Ids, Reason, Split, StreamId, Summary, Trigger, Window, WindowId,
};
pub use windows::Windows;
