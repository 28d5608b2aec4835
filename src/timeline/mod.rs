//! Every stream on one timeline, without GStreamer: stamps and arrivals in, decisions out.
//!
//! | file | job |
//! |---|---|
//! | [`format`] | what stamps mean; unwrapping |
//! | [`detect`] | which format a stream has |
//! | [`drift`] | rate and offset of a sender's clock |
//! | [`slew`] | corrections that never go backwards |
//! | [`outlier`] | what a stamp is: good, outlier, jump, gap, duplicate, backwards |
//! | [`fill`] | stamps for frames that lack them |
//! | [`line`] | all of these, for one stream |
//! | [`matcher`], [`sets`] | sets of frames of the same moment; what they consist of |
//!
//! No clock is read, nothing sleeps, and no input makes anything here panic. Time is [`Ns`].

pub mod detect;
pub mod drift;
pub mod fill;
pub mod format;
pub mod line;
pub mod matcher;
pub mod outlier;
pub mod sets;
pub mod slew;
pub mod spread;
pub mod time;

#[cfg(test)]
mod tests;

pub use time::Ns;
