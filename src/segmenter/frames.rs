//! What is seen of a buffer before anything is decided: its times, whether decoding can start there, how much is in it.
//!
//! Encoded video is never decoded: of H.264 and H.265 the heads of NAL units are read, as far as the first slice, and
//! of other codecs flags. Memory other than system memory is never mapped. Raw pixels are read by [`super::pixels`]
//! alone, when the strategy wants them.

use gst::prelude::*;

use super::coded::Coded;
use super::mapping::Clockwork;
use super::pixels::{Pixels, Scored};
use super::settings::{SceneMethod, Settings, Strategy};
use crate::media::keyframe::{self, Detector};
use crate::media::reference;
use crate::store::Sync;
use crate::timeline::Ns;
use crate::windowing::complexity;

/// How buffers of a stream have to do with windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// No segment yet.
    #[default]
    Unknown,
    Windowed,
    NotInTime,
    Backwards,
}

/// What caps say a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    Raw,
    /// Frames that may depend on others.
    InterCoded,
    /// Frames each for itself: JPEG, ProRes.
    IntraCoded,
    Audio,
    #[default]
    Other,
}

impl Kind {
    pub fn of(caps: &gst::CapsRef) -> Self {
        const INTRA: [&str; 8] = [
            "video/x-jpeg",
            "image/jpeg",
            "image/png",
            "video/x-prores",
            "video/x-dnxhd",
            "video/x-bayer",
            "image/x-jpc",
            "video/x-huffyuv",
        ];
        let Some(name) = caps.structure(0).map(|s| s.name().as_str()) else { return Self::Other };
        match name {
            "video/x-raw" => Self::Raw,
            name if INTRA.contains(&name) => Self::IntraCoded,
            name if name.starts_with("video/") || name.starts_with("image/") => Self::InterCoded,
            name if name.starts_with("audio/") => Self::Audio,
            _ => Self::Other,
        }
    }

    pub fn is_encoded_video(self) -> bool {
        matches!(self, Self::InterCoded | Self::IntraCoded)
    }
}

/// What was seen of a buffer. Times are as stamped, in the stream's own segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// PTS, or what stands for it.
    pub stamp: Ns,
    pub dts: Option<Ns>,
    pub duration: Option<Ns>,
    /// When it was captured, ns since 1970.
    pub utc: Option<Ns>,
    pub clockwork: Option<Clockwork>,
    pub keyframe: bool,
    pub corrupted: bool,
    pub gap: bool,
    pub size: usize,
    pub scored: Scored,
}

/// A buffer was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    pub at: Ns,
    pub keyframe: bool,
    /// All that is to be seen of the first buffer of which that was not known: this one, or one before it.
    pub known: Option<Seen>,
}

/// What the thread upstream of a line knows of it. Begins anew with caps.
#[derive(Default)]
pub struct Look {
    /// Upstream was asked what there is to ask.
    pub greeted: bool,
    /// That there are no windows was said.
    pub said: bool,
    pub timing: Timing,
    pub clockwork: Option<Clockwork>,
    pub kind: Kind,
    /// Frames in a second, as caps have it.
    pub framerate: Option<gst::Fraction>,
    detector: Detector,
    /// Payload is read, not only flags.
    reads: bool,
    pixels: Pixels,
    coded: Option<Coded>,
    area: u64,
    /// Where the buffer before ended, or was.
    last: Option<Ns>,
}

fn stamp(time: Option<gst::ClockTime>) -> Option<Ns> {
    time.map(|time| Ns::from(time.nseconds()))
}

impl Look {
    pub fn set_segment(&mut self, segment: &gst::Segment) {
        self.clockwork = None;
        self.last = None;
        self.said = false;
        self.timing = match segment.downcast_ref::<gst::ClockTime>() {
            None => Timing::NotInTime,
            Some(segment) => {
                self.clockwork = Clockwork::new(segment);
                if self.clockwork.is_some() { Timing::Windowed } else { Timing::Backwards }
            }
        };
    }

    /// New caps. Says, as a sentence, why the strategy cannot go by what they announce.
    pub fn set_caps(&mut self, caps: &gst::CapsRef, settings: &Settings, reference: bool) -> Result<(), String> {
        let structure = caps.structure(0);
        self.kind = Kind::of(caps);
        self.framerate =
            structure.and_then(|s| s.get::<gst::Fraction>("framerate").ok()).filter(|rate| rate.numer() > 0);
        let size = |name| structure.and_then(|s| s.get::<i32>(name).ok()).and_then(|n| u64::try_from(n).ok());
        self.area = size("width").zip(size("height")).map_or(0, |(width, height)| width * height);
        self.detector = Detector::new(settings.keyframe_detection.source(), Some(caps));
        let system = is_system_memory(caps);
        self.reads = system
            && settings.keyframe_detection.source() == keyframe::Source::Auto
            && keyframe::bitstream(caps).is_some();
        self.pixels = Pixels::default();
        self.coded = None;
        if !reference {
            return Ok(());
        }
        match wants(settings, self.kind) {
            Wants::Nothing => {}
            Wants::CodedSizes if self.kind.is_encoded_video() => self.coded = Some(Coded::default()),
            Wants::CodedSizes => {
                return Err(
                    "scene-method=coded-size needs encoded video: link encoded video, or set scene-method=auto".into(),
                );
            }
            Wants::Pixels if self.kind.is_encoded_video() => {
                return Err(
                    "scene-method=pixels needs raw video, and this is encoded: set scene-method=auto to go by coded sizes, or \
                     put a decoder before the element"
                        .into(),
                );
            }
            Wants::Pixels if self.kind != Kind::Raw => {
                let name = structure.map_or("nothing", |s| s.name().as_str());
                return Err(format!(
                    "strategy={} needs video, and this is {name}: link video, or set strategy to fixed, sliding, keyframe or \
                     event",
                    nick(settings.strategy)
                ));
            }
            Wants::Pixels if !system => {
                let features = caps.features(0).map_or_else(String::new, |features| features.to_string());
                return Err(format!(
                    "strategy={} needs pixels in system memory, and these are in {features}: set strategy to fixed, sliding, \
                     keyframe or event, put an element that copies to system memory (nvvideoconvert) before it, or put it \
                     behind the encoder",
                    nick(settings.strategy)
                ));
            }
            Wants::Pixels => self.pixels = Pixels::new(caps, settings)?,
        }
        if settings.min_quality > 0.0 && self.kind == Kind::Raw && system && !self.pixels.is_active() {
            // Exposure, where the format allows it; quality does without otherwise.
            self.pixels = Pixels::new(caps, settings).unwrap_or_default();
        }
        Ok(())
    }

    /// Looks at a buffer. None where it has no time and there was none before.
    pub fn look(&mut self, buffer: &gst::BufferRef) -> Option<Looked> {
        let pts = stamp(buffer.pts());
        let dts = stamp(buffer.dts());
        let at = pts.or(dts).or(self.last)?;
        self.last = Some(at);
        let flags = buffer.flags();
        let size = buffer.size();
        let seen = Seen {
            stamp: at,
            dts,
            duration: stamp(buffer.duration()),
            utc: reference::utc(buffer).map(Ns),
            clockwork: self.clockwork,
            keyframe: self.is_keyframe(buffer, flags),
            corrupted: flags.contains(gst::BufferFlags::CORRUPTED),
            gap: flags.contains(gst::BufferFlags::GAP),
            size,
            scored: Scored::default(),
        };
        if self.pixels.is_active() {
            return Some(Looked { at, keyframe: seen.keyframe, known: self.pixels.score(buffer, seen) });
        }
        let complexity = if self.kind.is_encoded_video() { complexity::coded(size, self.area) } else { 0.0 };
        let seen = Seen { scored: Scored { complexity, ..Scored::default() }, ..seen };
        let known = match &mut self.coded {
            Some(coded) => coded.score(seen),
            None => Some(seen),
        };
        Some(Looked { at, keyframe: seen.keyframe, known })
    }

    /// What else is known now, after [`look`](Self::look).
    pub fn more(&mut self) -> Option<Seen> {
        self.coded.as_mut()?.settled()
    }

    /// What waits for the frames after it is known as far as it can be: something else follows.
    pub fn finish(&mut self) -> Option<Seen> {
        match &mut self.coded {
            Some(coded) => coded.finish(),
            None => self.pixels.finish(),
        }
    }

    fn is_keyframe(&mut self, buffer: &gst::BufferRef, flags: gst::BufferFlags) -> bool {
        if !self.reads {
            return !flags.contains(gst::BufferFlags::DELTA_UNIT) || !self.kind.is_encoded_video();
        }
        // Without the whole of it mapped as one: memories are not merged.
        let single = buffer.n_memory() == 1;
        let sync = if single {
            buffer.map_readable().map(|map| self.detector.inspect(flags, buffer.pts(), &[map.as_slice()]).sync)
        } else {
            let maps: Vec<_> =
                (0..buffer.n_memory()).filter_map(|i| buffer.peek_memory(i).map_readable().ok()).collect();
            let parts: Vec<&[u8]> = maps.iter().map(|map| map.as_slice()).collect();
            Ok(self.detector.inspect(flags, buffer.pts(), &parts).sync)
        };
        sync.is_ok_and(|sync| sync != Sync::None)
    }

    /// After a flush.
    pub fn reset(&mut self) {
        self.last = None;
        self.timing = Timing::Unknown;
        self.clockwork = None;
        self.pixels.reset();
        self.coded = self.coded.take().map(|_| Coded::default());
    }
}

pub fn is_system_memory(caps: &gst::CapsRef) -> bool {
    caps.features(0).is_none_or(|features| {
        features.is_empty() || features.contains(gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY) && !features.is_any()
    })
}

fn nick(strategy: Strategy) -> String {
    let value = strategy.to_value();
    gst::glib::EnumValue::from_value(&value).map_or_else(String::new, |(_, value)| value.nick().to_string())
}

/// Whether raw video is looked into.
pub fn reads_pixels(settings: &Settings) -> bool {
    matches!(wants(settings, Kind::Raw), Wants::Pixels)
}

enum Wants {
    Nothing,
    Pixels,
    CodedSizes,
}

fn wants(settings: &Settings, kind: Kind) -> Wants {
    match (settings.strategy, settings.scene_method) {
        (Strategy::Adaptive, _) if kind.is_encoded_video() => Wants::Nothing,
        (Strategy::Adaptive, _) => Wants::Pixels,
        (Strategy::Scene, SceneMethod::Auto) if kind.is_encoded_video() => Wants::CodedSizes,
        (Strategy::Scene, SceneMethod::Auto | SceneMethod::Pixels) => Wants::Pixels,
        (Strategy::Scene, SceneMethod::CodedSize) => Wants::CodedSizes,
        (Strategy::Fixed | Strategy::Sliding | Strategy::Keyframe | Strategy::Event, _) => Wants::Nothing,
    }
}
