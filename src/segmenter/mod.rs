//! `segmenter` cuts continuous streams into windows [start, end) that analysis can rely on, by time, keyframe, content
//! or event, and tells everyone where they are: downstream by events and metas, the application by messages. Payload is
//! neither changed nor copied; buffers pass as they come unless a strategy or `output` has to hold them.
//!
//! `sink` and `src` are always there. Further streams come in by `sink_%u` and leave by the `src_%u` beside it, through
//! a queue (`max-size-buffers`, `-bytes`, `-time`) and a task each (`sink` then has them too), cut at the same running
//! times. The reference stream is that of `sink` if it is linked, else the linked one with the lowest number: contents
//! of it alone decide. `worker_%u` pads get whole windows of it, in turn.
//!
//! ## Strategies
//!
//! - `fixed`: a window each `duration`. With `align-to-keyframe` each begins at the first keyframe at or after its
//!   time.
//! - `sliding`: windows of `duration`, one each `hop`: they overlap, or leave gaps.
//! - `keyframe`: a window at each keyframe, or with `duration` at the first one at or after each multiple of it. Each
//!   buffer of raw video and audio is a keyframe.
//! - `adaptive`: windows of equal complexity, `target-complexity`, or on average of `duration`.
//! - `scene`: windows begin at hard cuts, found in the pixels of raw video or in the coded sizes of encoded video. The
//!   latter is a guess: over the three clips of the tests 0.72 of the cuts were found and 0.78 of what was found was
//!   one, against all and nothing else by pixels. `scene-method=pixels` refuses encoded video.
//! - `event`: windows from `pre-roll` before a trigger to `post-roll` after it. Each stream has its own from a keyframe
//!   at or before; triggers whose windows overlap make one. Without a trigger nothing leaves but GAP events. What may
//!   be wanted as pre-roll is kept in memory, at most `max-ring-bytes` for each stream, in whole GOPs.
//!
//! `min-duration` and `max-duration` bound windows of keyframe, adaptive and scene. `duration` 0, a `hop` of 0, a
//! minimum above the maximum and the like are refused when the element starts, with a sentence that says what to set.
//!
//! ## Time and ids
//!
//! Windows are counted in stream time of the reference, or as `time-base` says in running time or UTC (reference
//! timestamps of buffers, else running time on the wall clock as of the start): with UTC a `duration` of 60 s begins at
//! each full minute. A buffer belongs to the windows that its PTS lies in, whatever came before or after it.
//!
//! The id of a window follows from its start: floor(start / hop) for fixed and sliding windows and keyframe windows
//! with a duration, else the start in ns, never below 0. Two runs over the same data, or seeks, give the same ids.
//! Windows in which no stream has a buffer do not exist.
//!
//! What plays backwards, or is not in TIME, passes without windows, and a warning says so.
//!
//! ## When a window is over
//!
//! A stream's share of a window is final when its position (DTS; PTS where nothing is reordered) is `allowed-lateness`
//! beyond the end: of B-frames, those of one window and of the next interleave. The window is closed when all shares
//! are final. Live, streams that stay behind the leading one by `allowed-lateness` (automatic: 1 s) are no longer
//! waited for; then `complete` is false. While a reference whose contents decide is silent, its newest window goes on for
//! the others, as far as `max-duration`. Closed windows never change: what comes later is `late`, counted in the window
//! that is open on its stream, and marked, passed or dropped as `late-policy` says.
//!
//! ## What receivers are told
//!
//! Serialized events around a stream's share, on its own pad:
//!
//! - `segmenter-window-start`, before the first buffer: `window-id` (uint64), `start`, `end`, `start-running-time`,
//!   `end-running-time` (uint64, ns; 0 also for what lies before; 2^64-1: not known yet), `start-utc` (int64, ns since
//!   1970, -1: not known); of event windows `name` (string) and `triggers` (uint);
//! - `segmenter-window-end`, when the share is final: these, and `frames`, `keyframes`, `late`, `missing` (uint),
//!   `bytes` (uint64), `quality`, `complexity` (double), `reason` (string), `complete` (boolean), `poor` (boolean,
//!   where `min-quality` was not reached). Reasons: duration, keyframe, complexity, scene, event, split, max-duration,
//!   eos, flush, segment (time went elsewhere), timeout (a live stream stayed behind).
//!
//! Element message `segmenter-window-closed`: the same for all streams together, in the order in which windows close,
//! and `streams`, an array of structures {`pad` (string), `frames`, `keyframes`, `late`, `missing`, `bytes`, `quality`,
//! `complexity`, `complete`}.
//!
//! GstCustomMeta `segmenter-windows` on each buffer that is in a window: `ids` (GstValueArray of uint64), `late`
//! (boolean). Built for less than GStreamer 1.20 there is no meta.
//!
//! `stats`: `windows` (closed), `open`, `buffers`, `late`, `dropped` (uint64), `streams` (array of {`pad`, `buffers`,
//! `bytes`, `late`, `dropped`, `unwindowed`, `waiting`}).
//!
//! ## Workers
//!
//! `worker_%u` pads get whole windows of the reference stream, each window one worker: the next one, in turn, that has
//! nothing to do. While all are busy a window waits for the first that is done. Windows are streamed, not held, each
//! pad has a thread of its own, and overlapping windows share their buffers.
//!
//! On a worker each window is an epoch of its own: STREAM_START, CAPS, SEGMENT, the other sticky events, the start
//! event, the buffers, of which the first has DISCONT, the end event. Where a window does not begin with a keyframe,
//! the pictures from the keyframe before go ahead, flagged DECODE_ONLY, with parameter sets if they lack them; so do
//! pictures of the next window that B-frames of this one refer to. Decoders know what to show by the SEGMENT: it begins
//! with the window, and ends with it where the end is known ahead (fixed, sliding); elsewhere a decoder may show a
//! picture that is behind `end`. Muxers leave out what is before the SEGMENT: for files let windows begin with
//! keyframes. Running time is that of the stream. Behind a window its worker gets the next STREAM_START and a GAP:
//! decoders give what they hold. A worker without a window gets a GAP for each: sinks preroll, aggregators go on. EOS
//! comes behind the last window.
//!
//! What may wait is bounded for each worker, and for windows that wait for one, by `max-worker-bytes` and `-time`; a
//! window should fit, if workers are to work side by side. Then upstream waits, or with `worker-policy=drop-window`
//! windows are left out as a whole, and what a worker is in the middle of ends early. A worker that fails is left out
//! with a warning, the last one with an error.
//!
//! Element message `segmenter-window-lost`: `window-id` (uint64), `reason` (string: no-room, error, not-linked,
//! flushing, eos, released), `worker` (string, if it had one): the window did not reach a worker, or not to its end.
//!
//! ## Triggers
//!
//! With `strategy=event` whatever triggers says a time (running time in ns, 2^64-1: now, the newest buffer), the
//! streams of which a clip is wanted (names of their sink pads; none: all), and a name:
//!
//! - the action `trigger` (uint64 time, array of strings streams, string name), which says whether there will be a
//!   clip;
//! - the custom event `segmenter-trigger` {`time` (uint64), `streams` (array or list of strings or of numbers of pads,
//!   or one string with commas), `name` (string)}, in any direction, on any pad; what is not there is as above;
//! - with `trigger-label`, a buffer with a GstVideoRegionOfInterestMeta of that type: when it appears, and while it
//!   stays, so that the clip ends `post-roll` after it was last seen. `triggers` counts those that prolonged it.
//!
//! A trigger may come before the first buffer, for a time to come, or for one that has passed, as far as the memory
//! reaches; what is missing then makes `complete` false, if need be with no frames at all. One for what has left is refused.
//!
//! ## Figures
//!
//! `frames` are buffers by PTS. `missing` is what caps (frame rate; audio: durations without holes; else the cadence of
//! the stream) promise for the part of the window that the stream was there for, less `frames`; 0 where nothing is
//! promised. `quality`, 0 to 1, is (1 - missing / expected) x (1 - corrupted / frames) x (1 - gap / length) x exposure:
//! CORRUPTED flags, time of GAP events and flags, and, where pixels are looked at (scene, adaptive, or `min-quality`
//! set), the share of a frame that is neither crushed to black nor blown out. The message has that of the worst stream.
//!
//! `complexity` is a sum over the frames of the reference: of encoded video, coded bits a pixel (2 Mbit/s at 1280x720:
//! 2.17 a second); of raw video, where pixels are looked at, the mean difference of neighbouring cells of a 64x36 grid
//! and of each cell from the frame before, in 8-bit codes.
//!
//! ## Actions
//!
//! `split-now`, `split-after` (at the next keyframe), `split-at-running-time` (uint64) end a window of keyframe,
//! adaptive or scene, and a clip of event. Fixed and sliding windows, and keyframe windows with a duration, end where
//! arithmetic says: a warning says so.
//!
//! ## Latency and flow
//!
//! `output=buffer-lists` holds a window until its share is final and pushes it as one list, between its events (in
//! parts where caps change within it); the longest window is added to the latency. `quality-policy=drop` leaves out
//! poor ones, and puts a GAP there. In event mode `pre-roll` is added.
//!
//! `send-keyframe-requests` asks upstream for a keyframe at each start that is known ahead.
//!
//! Alone, `sink` to `src` is synchronous. With further streams each has a queue and a task. Streams wait for the
//! decisions of the reference where contents decide. With one thread upstream for several streams (a demuxer) queues
//! stretch up to four times before it has to wait. When they are full and the reference has nothing, windows are decided
//! without it: at once where one thread brings both or the stream is live, else when the reference has brought nothing
//! for 10 s (an encoder that looks far ahead is slow to begin).
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 -m filesrc location=in.mp4 ! qtdemux name=d \
//!     d.video_0 ! h264parse ! segmenter name=s strategy=fixed duration=10000000000 align-to-keyframe=true ! fakesink \
//!     d.audio_0 ! s.sink_0  s.src_0 ! fakesink
//! gst-launch-1.0 -m filesrc location=in.mp4 ! qtdemux ! h264parse ! segmenter name=s strategy=sliding duration=10000000000 \
//!     hop=8000000000 s.worker_0 ! avdec_h264 ! fakesink s.worker_1 ! avdec_h264 ! fakesink
//! ```

use gst::glib;
use gst::prelude::*;

mod actions;
mod coded;
mod core;
mod frames;
mod imp;
mod input;
mod line;
mod mapping;
mod output;
mod pad;
mod pixels;
mod properties;
mod settings;
mod tell;
mod trigger;
mod waiting;
mod worker;

glib::wrapper! {
    /// The `segmenter` element.
    pub struct Segmenter(ObjectSubclass<imp::Segmenter>) @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "v1_18")]
    {
        for api in [
            settings::Strategy::static_type(),
            settings::TimeBase::static_type(),
            settings::LatePolicy::static_type(),
            settings::QualityPolicy::static_type(),
            settings::Output::static_type(),
            settings::SceneMethod::static_type(),
            settings::KeyframeDetection::static_type(),
            settings::WorkerPolicy::static_type(),
        ] {
            api.mark_as_plugin_api(gst::PluginAPIFlags::empty());
        }
    }
    tell::register();
    gst::Element::register(Some(plugin), "segmenter", gst::Rank::NONE, Segmenter::static_type())
}
