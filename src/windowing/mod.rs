//! Windows over streams, without GStreamer: frames and triggers in, decisions out.
//!
//! No clock is read, nothing sleeps, and no input makes anything here panic. Time is [`Ns`](crate::timeline::Ns): window
//! time, whatever the caller made that.

pub mod complexity;
pub mod config;
pub mod scene;
pub mod window;
pub mod windows;

pub use config::{Config, ConfigError, LatePolicy, Strategy};
pub use window::{
    Decision, Expected, Figures, Frame, Ids, Reason, Split, StreamId, StreamSummary, Summary, Totals, Trigger, Window,
    WindowId,
};
pub use windows::Windows;
