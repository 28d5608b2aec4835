//! What windows are to be, and what cannot be. A refusal is a sentence for the user and names what to set.
//! Names are those of the element's properties.

use std::fmt;

use crate::timeline::Ns;

/// Longest time that can be set: 100 years.
pub const LONGEST: Ns = Ns::from_secs(100 * 366 * 86_400);
/// Windows that a frame can be in at once.
pub const MOST_OVERLAPPING: i64 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Strategy {
    #[default]
    Fixed,
    Sliding,
    Keyframe,
    Adaptive,
    Scene,
    Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum LatePolicy {
    /// Counted; passes as if it belonged to no window.
    Count,
    /// Passes and says which its windows were.
    #[default]
    Mark,
    Drop,
}

/// Times are 0 when not set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub strategy: Strategy,
    pub duration: Ns,
    /// From the start of a window to that of the next one, with `Sliding`.
    pub hop: Ns,
    pub min_duration: Ns,
    pub max_duration: Ns,
    pub align_to_keyframe: bool,
    /// None: 0 on each stream, 1 s behind the leading stream when live.
    pub allowed_lateness: Option<Ns>,
    pub late_policy: LatePolicy,
    /// 0: `duration` x the running mean per second.
    pub target_complexity: f64,
    pub scene_threshold: f64,
    pub pre_roll: Ns,
    pub post_roll: Ns,
    /// For each stream.
    pub max_ring_bytes: u64,
    /// 0 to 1; 0: none is poor.
    pub min_quality: f64,
    /// Poor windows do not leave.
    pub drop_poor: bool,
    /// A window leaves as one list.
    pub buffer_lists: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strategy: Strategy::Fixed,
            duration: Ns::from_secs(10),
            hop: Ns::ZERO,
            min_duration: Ns::ZERO,
            max_duration: Ns::ZERO,
            align_to_keyframe: false,
            allowed_lateness: None,
            late_policy: LatePolicy::Mark,
            target_complexity: 0.,
            scene_threshold: f64::from(super::scene::detector::DEFAULT_THRESHOLD),
            pre_roll: Ns::from_secs(5),
            post_roll: Ns::from_secs(10),
            max_ring_bytes: 64 << 20,
            min_quality: 0.,
            drop_poor: false,
            buffer_lists: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} is below 0: set it to 0 or more.")]
    Negative(&'static str),
    #[error("{0} is longer than 100 years: set it to less.")]
    TooLong(&'static str),
    #[error("{0} is not a number: set it to one.")]
    NotANumber(&'static str),
    #[error("{0} is above 1: set it to a value from 0 to 1.")]
    AboveOne(&'static str),
    #[error("Windows of strategy={0} need a length: set duration above 0.")]
    NoDuration(Strategy),
    #[error("Nothing says when a window of strategy=adaptive is full: set target-complexity or duration above 0.")]
    NoTarget,
    #[error("strategy=sliding needs to know how far windows are apart: set hop above 0.")]
    NoHop,
    #[error(
        "Buffers would be in more than {MOST_OVERLAPPING} windows: set hop to at least duration / {MOST_OVERLAPPING}."
    )]
    TooManyOverlap,
    #[error("min-duration is longer than max-duration: set it to at most that, or max-duration to 0 for none.")]
    MinOverMax,
    #[error("min-duration is longer than duration: set it to at most duration.")]
    MinOverDuration,
    #[error("max-duration is shorter than duration: set it to at least duration, or to 0 for none.")]
    MaxUnderDuration,
    #[error(
        "Windows of strategy=sliding begin at multiples of hop: set align-to-keyframe=false, or strategy=keyframe."
    )]
    SlidingAligned,
    #[error("scene-threshold is {0}: set it above 0 and up to 1.")]
    Threshold(f64),
    #[error("Windows of strategy=event would be empty: set pre-roll or post-roll above 0.")]
    NoRoll,
    #[error("max-duration is shorter than pre-roll + post-roll: set it to at least that, or to 0 for none.")]
    MaxUnderRoll,
    #[error("strategy=event holds what precedes a trigger: set max-ring-bytes above 0.")]
    NoRing,
    #[error("output=buffer-lists needs windows that do not overlap: set hop to at least duration, or output=buffers.")]
    OverlappingLists,
    #[error(
        "output=buffer-lists holds whole windows, which takes a bound: set max-duration above 0, or strategy=fixed."
    )]
    UnboundedLists,
    #[error("Poor windows can be dropped only while they are held: set output=buffer-lists, or quality-policy=mark.")]
    DropWithoutLists,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Sliding => "sliding",
            Self::Keyframe => "keyframe",
            Self::Adaptive => "adaptive",
            Self::Scene => "scene",
            Self::Event => "event",
        })
    }
}

impl Config {
    /// What it is that cannot be, whatever the streams.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_values()?;
        self.check_strategy()?;
        if self.drop_poor && !self.buffer_lists {
            return Err(ConfigError::DropWithoutLists);
        }
        if self.buffer_lists && self.longest().is_none() {
            return Err(ConfigError::UnboundedLists);
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), ConfigError> {
        let times = [
            ("duration", self.duration),
            ("hop", self.hop),
            ("min-duration", self.min_duration),
            ("max-duration", self.max_duration),
            ("allowed-lateness", self.allowed_lateness.unwrap_or_default()),
            ("pre-roll", self.pre_roll),
            ("post-roll", self.post_roll),
        ];
        for (name, time) in times {
            if time < Ns::ZERO {
                return Err(ConfigError::Negative(name));
            }
            if time > LONGEST {
                return Err(ConfigError::TooLong(name));
            }
        }
        let numbers =
            [("target-complexity", self.target_complexity, f64::INFINITY), ("min-quality", self.min_quality, 1.)];
        for (name, number, most) in numbers {
            if number.is_nan() || number.is_infinite() {
                return Err(ConfigError::NotANumber(name));
            }
            if number < 0. {
                return Err(ConfigError::Negative(name));
            }
            if number > most {
                return Err(ConfigError::AboveOne(name));
            }
        }
        if self.max_duration > Ns::ZERO && self.min_duration > self.max_duration {
            return Err(ConfigError::MinOverMax);
        }
        Ok(())
    }

    /// Only what the strategy makes use of is looked at.
    fn check_strategy(&self) -> Result<(), ConfigError> {
        let timed = self.duration > Ns::ZERO;
        let aligned = self.strategy == Strategy::Fixed && self.align_to_keyframe || self.strategy == Strategy::Keyframe;
        if aligned && timed && self.min_duration > self.duration {
            return Err(ConfigError::MinOverDuration);
        }
        if aligned && timed && self.max_duration > Ns::ZERO && self.max_duration < self.duration {
            return Err(ConfigError::MaxUnderDuration);
        }
        match self.strategy {
            Strategy::Fixed | Strategy::Sliding if !timed => Err(ConfigError::NoDuration(self.strategy)),
            Strategy::Sliding if self.hop <= Ns::ZERO => Err(ConfigError::NoHop),
            Strategy::Sliding if self.align_to_keyframe => Err(ConfigError::SlidingAligned),
            Strategy::Sliding if self.duration.0 / self.hop.0 > MOST_OVERLAPPING => Err(ConfigError::TooManyOverlap),
            Strategy::Sliding if self.buffer_lists && self.hop < self.duration => Err(ConfigError::OverlappingLists),
            Strategy::Adaptive if !timed && self.target_complexity <= 0. => Err(ConfigError::NoTarget),
            Strategy::Scene if !(self.scene_threshold > 0. && self.scene_threshold <= 1.) => {
                Err(ConfigError::Threshold(self.scene_threshold))
            }
            Strategy::Event if self.pre_roll + self.post_roll <= Ns::ZERO => Err(ConfigError::NoRoll),
            Strategy::Event if self.max_duration > Ns::ZERO && self.max_duration < self.pre_roll + self.post_roll => {
                Err(ConfigError::MaxUnderRoll)
            }
            Strategy::Event if self.max_ring_bytes == 0 => Err(ConfigError::NoRing),
            _ => Ok(()),
        }
    }

    /// What no window is longer than, if there is such a bound: what holding a window costs in latency.
    pub fn longest(&self) -> Option<Ns> {
        let bound = (self.max_duration > Ns::ZERO).then_some(self.max_duration);
        match self.strategy {
            Strategy::Fixed if !self.align_to_keyframe => Some(self.duration),
            Strategy::Sliding => Some(self.duration),
            Strategy::Fixed | Strategy::Keyframe | Strategy::Adaptive | Strategy::Scene | Strategy::Event => bound,
        }
    }
}
