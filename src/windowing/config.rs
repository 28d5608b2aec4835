//! What windows are to be, and what cannot be. A refusal is a sentence for the user and names what to set.
//! Names are those of the element's properties.

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
            scene_threshold: 0.3,
            pre_roll: Ns::from_secs(5),
            post_roll: Ns::from_secs(10),
            max_ring_bytes: 64 << 20,
            min_quality: 0.,
            drop_poor: false,
            buffer_lists: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("Windows of strategy={0} need a length: set duration above 0.")]
    NoDuration(&'static str),
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// What no window is longer than, if there is such a bound: what holding a window costs in latency.
    pub fn longest(&self) -> Option<Ns> {
        None
    }
}
