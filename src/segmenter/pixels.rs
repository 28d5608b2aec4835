//! Raw video for the scene score: which formats can be read, and what is seen of a frame.
//!
//! A frame is mapped for reading and sampled; nothing is copied, and nothing is allocated after the caps. Whether a
//! hard cut begins with it is known two frames later.

use gst_video::prelude::*;

use super::frames::Seen;
use super::settings::{Settings, Strategy};
use crate::timeline::Ns;
use crate::windowing::scene::detector::{SceneConfig, SceneDetector};
use crate::windowing::scene::figures::{self, Figures};
use crate::windowing::scene::picture::{Picture, PixelFormat, Plane};
use crate::windowing::scene::sample::{Sample, Sampler};

/// What was found out about the contents of a frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scored {
    /// Encoded: coded bits a pixel. Raw: gradient and temporal difference.
    pub complexity: f64,
    /// Raw: 0 (nothing to be seen) to 1.
    pub exposure: Option<f64>,
    /// A hard cut begins here.
    pub cut: bool,
    /// Where exactly, if before this frame.
    pub cut_at: Option<Ns>,
}

/// Reads the pixels of one stream.
#[derive(Default)]
pub struct Pixels {
    reader: Option<Reader>,
}

struct Reader {
    format: PixelFormat,
    info: gst_video::VideoInfo,
    by: By,
}

enum By {
    Cuts(SceneDetector<Seen>),
    /// The sampler, the sample of this frame and of the one before.
    Figures(Box<(Sampler, Sample, Sample)>, Before),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    None,
    Known,
}

impl Pixels {
    /// Says, as a sentence, why these pixels cannot be read.
    pub fn new(caps: &gst::CapsRef, settings: &Settings) -> Result<Self, String> {
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| {
            format!("These caps of raw video are not complete: {caps}. Put videoconvert before the element")
        })?;
        let name = info.format().to_str();
        let Some(format) = PixelFormat::from_name(name) else {
            let known: Vec<_> = PixelFormat::ALL.iter().map(|(_, name)| *name).collect();
            return Err(format!(
                "Pixels of format {name} cannot be read: put videoconvert before the element, for one of {}",
                known.join(", ")
            ));
        };
        let by = match settings.strategy {
            Strategy::Scene => By::Cuts(SceneDetector::new(SceneConfig { threshold: settings.scene_threshold as f32 })),
            _ => By::Figures(Box::new((Sampler::default(), Sample::default(), Sample::default())), Before::None),
        };
        Ok(Self { reader: Some(Reader { format, info, by }) })
    }

    pub fn is_active(&self) -> bool {
        self.reader.is_some()
    }

    /// What is known by now of the first frame of which that was not known.
    pub fn score(&mut self, buffer: &gst::BufferRef, seen: Seen) -> Option<Seen> {
        let Some(reader) = &mut self.reader else { return Some(seen) };
        let Ok(frame) = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &reader.info) else {
            return reader.by.unreadable(seen);
        };
        let mut planes = [Plane { data: &[], stride: 0 }; 4];
        let count = (frame.n_planes() as usize).min(planes.len());
        for (index, plane) in planes.iter_mut().take(count).enumerate() {
            let (data, stride) = (frame.plane_data(index as u32), frame.plane_stride().get(index));
            let (Ok(data), Some(Ok(stride))) = (data, stride.map(|stride| usize::try_from(*stride))) else {
                return reader.by.unreadable(seen);
            };
            *plane = Plane { data, stride };
        }
        let size = (reader.info.width() as usize, reader.info.height() as usize);
        match Picture::new(reader.format, size.0, size.1, &planes[..count]) {
            Ok(picture) => reader.by.read(&picture, seen),
            Err(_) => reader.by.unreadable(seen),
        }
    }

    /// The next frame that waits for others, with what is known.
    pub fn finish(&mut self) -> Option<Seen> {
        match &mut self.reader.as_mut()?.by {
            // Nothing is forgotten: where one stream follows another there may be a cut.
            By::Cuts(detector) => detector.drain().map(|verdict| with(verdict.mark, &verdict.figures, verdict.cut)),
            By::Figures(..) => None,
        }
    }

    /// What follows has nothing to do with what was before.
    pub fn reset(&mut self) {
        match self.reader.as_mut().map(|reader| &mut reader.by) {
            Some(By::Cuts(detector)) => detector.reset(),
            Some(By::Figures(_, before)) => *before = Before::None,
            None => {}
        }
    }
}

/// Raw video in system memory with formats that can be read alone; anything else as it is. So upstream settles on one
/// of them where it has the choice, and what it cannot have is refused with a sentence when it comes.
pub fn readable(caps: &gst::Caps) -> gst::Caps {
    let formats = PixelFormat::ALL.iter().map(|(_, name)| *name);
    let wanted = gst::Caps::builder("video/x-raw").field("format", gst::List::new(formats)).build();
    let mut answer = gst::Caps::new_empty();
    let into = answer.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let one = gst::Caps::builder_full().structure_with_features(structure.to_owned(), features.to_owned()).build();
        let raw = structure.name() == "video/x-raw" && super::frames::is_system_memory(&one);
        into.append(if raw { one.intersect(&wanted) } else { one });
    }
    answer
}

fn with(seen: Seen, figures: &Figures, cut: bool) -> Seen {
    let scored =
        Scored { complexity: figures.complexity().into(), exposure: Some(figures.exposure.into()), cut, cut_at: None };
    Seen { scored, ..seen }
}

impl By {
    fn read(&mut self, picture: &Picture, seen: Seen) -> Option<Seen> {
        match self {
            By::Cuts(detector) => {
                detector.push(picture, seen).map(|verdict| with(verdict.mark, &verdict.figures, verdict.cut))
            }
            By::Figures(samples, before) => {
                let (sampler, now, last) = &mut **samples;
                sampler.read(picture, now);
                let known = std::mem::replace(before, Before::Known) == Before::Known;
                let figures = figures::of(now, known.then_some(&*last));
                std::mem::swap(now, last);
                Some(with(seen, &figures, false))
            }
        }
    }

    /// A frame that cannot be read is like the one before.
    fn unreadable(&mut self, seen: Seen) -> Option<Seen> {
        match self {
            // Its place among those that wait for a verdict is kept.
            By::Cuts(detector) => {
                let grey = [128u8; 1];
                let planes = [Plane { data: &grey, stride: 1 }];
                let picture = Picture::new(PixelFormat::Gray8, 1, 1, &planes).ok()?;
                detector.push(&picture, seen).map(|verdict| with(verdict.mark, &verdict.figures, verdict.cut))
            }
            By::Figures(..) => Some(seen),
        }
    }
}
