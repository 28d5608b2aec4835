//! Windows over streams, without GStreamer: frames and triggers in, decisions out.
//!
//! No clock is read, nothing sleeps, and no input makes anything here panic. Time is [`Ns`](crate::timeline::Ns):
//! window time, whatever the caller made that.

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
    Decision, Expected, Figures, Frame, Ids, Reason, Split, StreamId, StreamSummary, Summary, Totals, Trigger, Window,
    WindowId,
};
pub use windows::Windows;
