//! The properties of `segmenter` as `gst-inspect-1.0` shows them: nick, blurb, unit, range, default.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::{
    KeyframeDetection, LatePolicy, Output, QualityPolicy, SceneMethod, Settings, Strategy, TimeBase, WorkerPolicy,
};

pub static ELEMENT: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let mut all = cutting();
    all.extend(contents());
    all.extend(passing());
    all.extend(clips_and_workers());
    all
});

fn number(name: &'static str, nick: &'static str, blurb: &'static str, default: u64) -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder(name).nick(nick).blurb(blurb).default_value(default).mutable_ready().build()
}

fn flag(name: &'static str, nick: &'static str, blurb: &'static str, default: bool) -> glib::ParamSpec {
    glib::ParamSpecBoolean::builder(name).nick(nick).blurb(blurb).default_value(default).mutable_ready().build()
}

/// Where windows begin and end.
fn cutting() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        glib::ParamSpecEnum::builder_with_default("strategy", Strategy::default())
            .nick("Strategy")
            .blurb("What windows are cut by")
            .mutable_ready()
            .build(),
        number(
            "duration",
            "Duration (ns)",
            "Length of windows, in ns. strategy=keyframe: windows begin at the first keyframe at or after each multiple of \
             it (0 = at each keyframe). strategy=adaptive: mean length, where target-complexity is 0",
            default.duration,
        ),
        number(
            "hop",
            "Hop (ns)",
            "For strategy=sliding: from the start of one window to the start of the next, in ns; at least 1 (-1 = duration)",
            default.hop,
        ),
        number(
            "min-duration",
            "Minimum duration (ns)",
            "No window of strategy keyframe, adaptive or scene is shorter, in ns (0 = any length)",
            default.min_duration,
        ),
        number(
            "max-duration",
            "Maximum duration (ns)",
            "A window of strategy keyframe, adaptive, scene or event ends after that, in ns (0 = any length)",
            default.max_duration,
        ),
        glib::ParamSpecEnum::builder_with_default("time-base", TimeBase::default())
            .nick("Time base")
            .blurb("The time that window bounds are counted in")
            .mutable_ready()
            .build(),
        flag(
            "align-to-keyframe",
            "Align to keyframe",
            "Windows of strategy fixed and adaptive begin at the next keyframe of the reference stream",
            default.align_to_keyframe,
        ),
        number(
            "allowed-lateness",
            "Allowed lateness (ns)",
            "How far a stream has to be beyond the end of a window until its share of it is final, in ns; live, also how long \
             streams that are behind hold a window open (-1 = 0, and 1 s for live streams that are behind)",
            default.allowed_lateness,
        ),
        glib::ParamSpecEnum::builder_with_default("late-policy", LatePolicy::default())
            .nick("Late policy")
            .blurb("What is done with buffers that come when their stream's share of the window is final")
            .mutable_ready()
            .build(),
    ]
}

/// What contents are measured by.
fn contents() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        glib::ParamSpecDouble::builder("scene-threshold")
            .nick("Scene threshold (0..1)")
            .blurb(
                "For strategy=scene: how much more a frame has to differ from those before it than is usual around it, as a \
                 share of the greatest difference; less finds more cuts",
            )
            .minimum(0.0)
            .maximum(1.0)
            .default_value(default.scene_threshold)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("scene-method", SceneMethod::default())
            .nick("Scene method")
            .blurb("For strategy=scene: what hard cuts are found by")
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("target-complexity")
            .nick("Target complexity")
            .blurb(
                "For strategy=adaptive: a window ends when its frames add up to that complexity (encoded: coded bits a pixel; \
                 raw: gradient and temporal difference) (0 = as much as the stream has in duration, on average)",
            )
            .minimum(0.0)
            .maximum(f64::MAX)
            .default_value(default.target_complexity)
            .mutable_ready()
            .build(),
        glib::ParamSpecDouble::builder("min-quality")
            .nick("Minimum quality (0..1)")
            .blurb("Windows of less quality are poor, see quality-policy (0 = no window is)")
            .minimum(0.0)
            .maximum(1.0)
            .default_value(default.min_quality)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("quality-policy", QualityPolicy::default())
            .nick("Quality policy")
            .blurb("What is done with poor windows")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("keyframe-detection", KeyframeDetection::default())
            .nick("Keyframe detection")
            .blurb("How keyframes are found: some hardware encoders mark every buffer DELTA_UNIT")
            .mutable_ready()
            .build(),
    ]
}

/// How data leaves.
fn passing() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        glib::ParamSpecEnum::builder_with_default("output", Output::default())
            .nick("Output")
            .blurb("Whether buffers leave as they come, or windows as lists (adds the longest window to the latency)")
            .mutable_ready()
            .build(),
        flag(
            "add-window-meta",
            "Add window meta",
            "Put a custom meta \"segmenter-windows\" on each buffer: ids (GstValueArray of uint64), late (bool). Needs \
             GStreamer 1.20",
            default.add_window_meta,
        ),
        flag(
            "send-keyframe-requests",
            "Send keyframe requests",
            "Ask upstream for a keyframe at window starts that are known ahead (fixed, sliding, keyframe with duration, \
             max-duration)",
            default.send_keyframe_requests,
        ),
        glib::ParamSpecUInt::builder("max-size-buffers")
            .nick("Maximum size (buffers)")
            .blurb("Buffers of a further stream (sink_%u) that may wait before upstream does (0 = any number)")
            .default_value(default.max_size_buffers)
            .mutable_ready()
            .build(),
        number(
            "max-size-bytes",
            "Maximum size (bytes)",
            "Bytes of a further stream (sink_%u) that may wait before upstream does (0 = any number)",
            default.max_size_bytes,
        ),
        number(
            "max-size-time",
            "Maximum size (ns)",
            "Running time of a further stream (sink_%u) that may wait before upstream does, in ns (0 = any time)",
            default.max_size_time,
        ),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Windows, buffers and what came late since the element started, see the documentation")
            .read_only()
            .build(),
    ]
}

/// Event mode and worker pads.
fn clips_and_workers() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        number(
            "pre-roll",
            "Pre-roll (ns)",
            "For strategy=event: how long before the trigger a window begins, at a keyframe at or before that, in ns",
            default.pre_roll,
        ),
        number(
            "post-roll",
            "Post-roll (ns)",
            "For strategy=event: how long after the trigger a window ends, in ns",
            default.post_roll,
        ),
        glib::ParamSpecString::builder("trigger-label")
            .nick("Trigger label")
            .blurb(
                "For strategy=event: a buffer with a GstVideoRegionOfInterestMeta of this type triggers, when none had it for \
                 post-roll (NULL = none does)",
            )
            .mutable_ready()
            .build(),
        number(
            "max-ring-bytes",
            "Maximum ring (bytes)",
            "For strategy=event: what each stream may keep for the pre-roll, in bytes; when it is more, whole GOPs are left \
             out, the oldest first, and a warning says so",
            default.max_ring_bytes,
        ),
        glib::ParamSpecEnum::builder_with_default("worker-policy", WorkerPolicy::default())
            .nick("Worker policy")
            .blurb("What happens to a window that begins while no worker has room")
            .mutable_ready()
            .build(),
        number(
            "max-worker-bytes",
            "Maximum of a worker (bytes)",
            "Bytes that may wait for one worker pad (0 = any number)",
            default.max_worker_bytes,
        ),
        number(
            "max-worker-time",
            "Maximum of a worker (ns)",
            "Running time that may wait for one worker pad, in ns (0 = any time)",
            default.max_worker_time,
        ),
    ]
}
