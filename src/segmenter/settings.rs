//! What can be set on `segmenter`. Values are declarative: the order in which they are set does not matter. What cannot
//! be together is refused when the element starts, see [`crate::windowing::config`].

use gst::glib;
use gst::prelude::*;

use crate::media::keyframe;
use crate::timeline::Ns;
use crate::windowing::{self, Config};

/// As `GST_CLOCK_TIME_NONE`: not set.
pub const NONE: u64 = u64::MAX;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterStrategy")]
pub enum Strategy {
    #[default]
    #[enum_value(name = "Fixed: a window each duration", nick = "fixed")]
    Fixed = 0,
    #[enum_value(name = "Sliding: windows of duration, one each hop (overlapping, or with gaps)", nick = "sliding")]
    Sliding = 1,
    #[enum_value(name = "Keyframe: windows begin at keyframes", nick = "keyframe")]
    Keyframe = 2,
    #[enum_value(name = "Adaptive: windows of equal complexity", nick = "adaptive")]
    Adaptive = 3,
    #[enum_value(name = "Scene: windows begin at hard cuts", nick = "scene")]
    Scene = 4,
    #[enum_value(name = "Event: windows around triggers", nick = "event")]
    Event = 5,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterTimeBase")]
pub enum TimeBase {
    #[default]
    #[enum_value(name = "Stream time of the reference stream", nick = "stream")]
    Stream = 0,
    #[enum_value(name = "Running time", nick = "running")]
    Running = 1,
    #[enum_value(name = "UTC: reference timestamps of buffers, else running time on the wall clock", nick = "utc")]
    Utc = 2,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterLatePolicy")]
pub enum LatePolicy {
    #[enum_value(name = "Count: late buffers pass as if they belonged to no window", nick = "count")]
    Count = 0,
    #[default]
    #[enum_value(
        name = "Mark: late buffers pass, their meta says of which window and that they are late",
        nick = "mark"
    )]
    Mark = 1,
    #[enum_value(name = "Drop: late buffers do not pass", nick = "drop")]
    Drop = 2,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterQualityPolicy")]
pub enum QualityPolicy {
    #[default]
    #[enum_value(name = "Mark: the end of a window says that it is poor", nick = "mark")]
    Mark = 0,
    #[enum_value(name = "Drop: poor windows do not leave (output=buffer-lists)", nick = "drop")]
    Drop = 1,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterOutput")]
pub enum Output {
    #[default]
    #[enum_value(name = "Buffers: each as it comes", nick = "buffers")]
    Buffers = 0,
    #[enum_value(name = "Buffer lists: a window as one list, when it is complete", nick = "buffer-lists")]
    BufferLists = 1,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterSceneMethod")]
pub enum SceneMethod {
    #[default]
    #[enum_value(name = "Auto: pixels of raw video, coded sizes of encoded video", nick = "auto")]
    Auto = 0,
    #[enum_value(name = "Pixels: raw video in system memory, anything else is refused", nick = "pixels")]
    Pixels = 1,
    #[enum_value(name = "Coded size: encoded video without decoding, anything else is refused", nick = "coded-size")]
    CodedSize = 2,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterKeyframeDetection")]
pub enum KeyframeDetection {
    #[default]
    #[enum_value(name = "Auto: the bitstream of parsed H.264 and H.265, flags otherwise", nick = "auto")]
    Auto = 0,
    #[enum_value(name = "Flags: buffers without DELTA_UNIT", nick = "flags")]
    Flags = 1,
}

impl KeyframeDetection {
    pub fn source(self) -> keyframe::Source {
        match self {
            Self::Auto => keyframe::Source::Auto,
            Self::Flags => keyframe::Source::Flags,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSegmenterWorkerPolicy")]
pub enum WorkerPolicy {
    #[default]
    #[enum_value(name = "Wait: upstream waits until a worker has room", nick = "wait")]
    Wait = 0,
    #[enum_value(
        name = "Drop window: a window for which no worker has room is left out as a whole",
        nick = "drop-window"
    )]
    DropWindow = 1,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub strategy: Strategy,
    pub duration: u64,
    pub hop: u64,
    pub min_duration: u64,
    pub max_duration: u64,
    pub time_base: TimeBase,
    pub align_to_keyframe: bool,
    pub allowed_lateness: u64,
    pub late_policy: LatePolicy,
    pub scene_threshold: f64,
    pub scene_method: SceneMethod,
    pub target_complexity: f64,
    pub min_quality: f64,
    pub quality_policy: QualityPolicy,
    pub output: Output,
    pub send_keyframe_requests: bool,
    pub keyframe_detection: KeyframeDetection,
    pub add_window_meta: bool,
    pub pre_roll: u64,
    pub post_roll: u64,
    pub trigger_label: Option<String>,
    pub max_ring_bytes: u64,
    pub max_size_buffers: u32,
    pub max_size_bytes: u64,
    pub max_size_time: u64,
    pub worker_policy: WorkerPolicy,
    pub max_worker_bytes: u64,
    pub max_worker_time: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            duration: 10_000_000_000,
            hop: NONE,
            min_duration: 0,
            max_duration: 0,
            time_base: TimeBase::default(),
            align_to_keyframe: false,
            allowed_lateness: NONE,
            late_policy: LatePolicy::default(),
            scene_threshold: Config::default().scene_threshold,
            scene_method: SceneMethod::default(),
            target_complexity: 0.0,
            min_quality: 0.0,
            quality_policy: QualityPolicy::default(),
            output: Output::default(),
            send_keyframe_requests: false,
            keyframe_detection: KeyframeDetection::default(),
            add_window_meta: true,
            pre_roll: 5_000_000_000,
            post_roll: 10_000_000_000,
            trigger_label: None,
            max_ring_bytes: 64 << 20,
            max_size_buffers: 0,
            max_size_bytes: 32 << 20,
            max_size_time: 3_000_000_000,
            worker_policy: WorkerPolicy::default(),
            max_worker_bytes: 64 << 20,
            max_worker_time: 0,
        }
    }
}

/// What GObject let through has this type.
fn get<T: for<'a> glib::value::FromValue<'a>>(value: &glib::Value) -> T {
    value.get().unwrap_or_else(|_| unreachable!("GObject checked the type"))
}

impl Settings {
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "strategy" => self.strategy = get(value),
            "duration" => self.duration = get(value),
            "hop" => self.hop = get(value),
            "min-duration" => self.min_duration = get(value),
            "max-duration" => self.max_duration = get(value),
            "time-base" => self.time_base = get(value),
            "align-to-keyframe" => self.align_to_keyframe = get(value),
            "allowed-lateness" => self.allowed_lateness = get(value),
            "late-policy" => self.late_policy = get(value),
            "scene-threshold" => self.scene_threshold = get(value),
            "scene-method" => self.scene_method = get(value),
            "target-complexity" => self.target_complexity = get(value),
            "min-quality" => self.min_quality = get(value),
            "quality-policy" => self.quality_policy = get(value),
            "output" => self.output = get(value),
            "send-keyframe-requests" => self.send_keyframe_requests = get(value),
            "keyframe-detection" => self.keyframe_detection = get(value),
            "add-window-meta" => self.add_window_meta = get(value),
            "pre-roll" => self.pre_roll = get(value),
            "post-roll" => self.post_roll = get(value),
            "trigger-label" => self.trigger_label = get::<Option<String>>(value).filter(|text| !text.is_empty()),
            "max-ring-bytes" => self.max_ring_bytes = get(value),
            "max-size-buffers" => self.max_size_buffers = get(value),
            "max-size-bytes" => self.max_size_bytes = get(value),
            "max-size-time" => self.max_size_time = get(value),
            "worker-policy" => self.worker_policy = get(value),
            "max-worker-bytes" => self.max_worker_bytes = get(value),
            "max-worker-time" => self.max_worker_time = get(value),
            _ => {}
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "strategy" => self.strategy.to_value(),
            "duration" => self.duration.to_value(),
            "hop" => self.hop.to_value(),
            "min-duration" => self.min_duration.to_value(),
            "max-duration" => self.max_duration.to_value(),
            "time-base" => self.time_base.to_value(),
            "align-to-keyframe" => self.align_to_keyframe.to_value(),
            "allowed-lateness" => self.allowed_lateness.to_value(),
            "late-policy" => self.late_policy.to_value(),
            "scene-threshold" => self.scene_threshold.to_value(),
            "scene-method" => self.scene_method.to_value(),
            "target-complexity" => self.target_complexity.to_value(),
            "min-quality" => self.min_quality.to_value(),
            "quality-policy" => self.quality_policy.to_value(),
            "output" => self.output.to_value(),
            "send-keyframe-requests" => self.send_keyframe_requests.to_value(),
            "keyframe-detection" => self.keyframe_detection.to_value(),
            "add-window-meta" => self.add_window_meta.to_value(),
            "pre-roll" => self.pre_roll.to_value(),
            "post-roll" => self.post_roll.to_value(),
            "trigger-label" => self.trigger_label.to_value(),
            "max-ring-bytes" => self.max_ring_bytes.to_value(),
            "max-size-buffers" => self.max_size_buffers.to_value(),
            "max-size-bytes" => self.max_size_bytes.to_value(),
            "max-size-time" => self.max_size_time.to_value(),
            "worker-policy" => self.worker_policy.to_value(),
            "max-worker-bytes" => self.max_worker_bytes.to_value(),
            "max-worker-time" => self.max_worker_time.to_value(),
            _ => return None,
        })
    }

    /// As the windows take it.
    pub fn config(&self) -> Config {
        // What was meant as negative has the highest bit set.
        let time = |ns: u64| Ns(ns.cast_signed());
        Config {
            strategy: match self.strategy {
                Strategy::Fixed => windowing::Strategy::Fixed,
                Strategy::Sliding => windowing::Strategy::Sliding,
                Strategy::Keyframe => windowing::Strategy::Keyframe,
                Strategy::Adaptive => windowing::Strategy::Adaptive,
                Strategy::Scene => windowing::Strategy::Scene,
                Strategy::Event => windowing::Strategy::Event,
            },
            duration: time(self.duration),
            hop: time(if self.hop == NONE { self.duration } else { self.hop }),
            min_duration: time(self.min_duration),
            max_duration: time(self.max_duration),
            align_to_keyframe: self.align_to_keyframe,
            allowed_lateness: (self.allowed_lateness != NONE).then(|| time(self.allowed_lateness)),
            late_policy: match self.late_policy {
                LatePolicy::Count => windowing::LatePolicy::Count,
                LatePolicy::Mark => windowing::LatePolicy::Mark,
                LatePolicy::Drop => windowing::LatePolicy::Drop,
            },
            target_complexity: self.target_complexity,
            scene_threshold: self.scene_threshold,
            pre_roll: time(self.pre_roll),
            post_roll: time(self.post_roll),
            max_ring_bytes: self.max_ring_bytes,
            min_quality: self.min_quality,
            drop_poor: self.quality_policy == QualityPolicy::Drop,
            buffer_lists: self.output == Output::BufferLists,
        }
    }

    /// What holding buffers costs.
    pub fn own_latency(&self) -> gst::ClockTime {
        let config = self.config();
        let held = match (self.output, self.strategy) {
            (Output::BufferLists, _) => {
                config.longest().unwrap_or(Ns::ZERO) + config.allowed_lateness.unwrap_or(Ns::ZERO)
            }
            (_, Strategy::Event) => config.pre_roll,
            _ => Ns::ZERO,
        };
        gst::ClockTime::from_nseconds(held.0.max(0).unsigned_abs())
    }

    /// Whether windows end where arithmetic says, and nowhere else.
    pub fn is_on_a_grid(&self) -> bool {
        match self.strategy {
            Strategy::Fixed | Strategy::Sliding => true,
            Strategy::Keyframe => self.duration > 0,
            Strategy::Adaptive | Strategy::Scene | Strategy::Event => false,
        }
    }
}
