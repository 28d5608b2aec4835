//! What a line of elements sends, known beforehand: encoders give the same bytes each time, live or not, so each picture and each
//! frame of sound is recognised by a checksum.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::common::init;
use crate::frames;

/// One stream, by the checksums of its pictures or frames in order.
pub struct Film {
    kind: Kind,
    positions: HashMap<u64, Vec<usize>>,
    pub length: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Pictures,
    Sound,
}

impl Film {
    /// Of a line that ends in H.264.
    pub fn of_pictures(line: &str) -> Self {
        Self::of(Kind::Pictures, line)
    }

    /// Of a line that ends in AAC.
    pub fn of_sound(line: &str) -> Self {
        Self::of(Kind::Sound, line)
    }

    fn of(kind: Kind, line: &str) -> Self {
        init();
        let checksums = kind.checksums(&line.replace(" is-live=true", ""));
        assert!(!checksums.is_empty(), "{line}");
        let mut positions = HashMap::<u64, Vec<usize>>::new();
        for (position, checksum) in checksums.iter().enumerate() {
            positions.entry(*checksum).or_default().push(position);
        }
        Self { kind, positions, length: checksums.len() }
    }

    /// The numbers of what a recording holds; `None` for what was never sent, or is damaged.
    pub fn recognise(&self, recording: &Path, demuxer: &str) -> Vec<Option<usize>> {
        let source = format!("filesrc location=\"{}\" ! {demuxer}", recording.display());
        let checksums = self.kind.checksums(source.trim_end_matches([' ', '!']));
        let mut next = 0;
        checksums
            .iter()
            .map(|checksum| {
                // Should two be equal, it is the one that is due.
                let number = *self.positions.get(checksum)?.iter().min_by_key(|number| number.abs_diff(next))?;
                next = number + 1;
                Some(number)
            })
            .collect()
    }
}

impl Kind {
    /// Of what `source` gives up to its end, which may be ragged.
    fn checksums(self, source: &str) -> Vec<u64> {
        let list = Arc::new(Mutex::new(Vec::new()));
        let note = {
            let list = Arc::clone(&list);
            move |checksum| list.lock().unwrap().push(checksum)
        };
        match self {
            Self::Pictures => {
                let pipeline = frames::pipeline(source, note).unwrap();
                pipeline.set_state(gst::State::Playing).unwrap();
                let _ = frames::finish(&pipeline, &AtomicBool::new(false));
            }
            Self::Sound => sound(source, note),
        }
        std::mem::take(&mut list.lock().unwrap())
    }
}

/// Of frames of AAC that the last element of `source` gives, which may be a demuxer.
fn sound(source: &str, note: impl Fn(u64) + Clone + Send + Sync + 'static) {
    let pipeline = gst::parse::launch(&format!("{source} name=last")).unwrap().downcast::<gst::Pipeline>().unwrap();
    let last = pipeline.by_name("last").unwrap();
    let take = {
        let pipeline = pipeline.downgrade();
        move |pad: &gst::Pad| {
            let Some(pipeline) = pipeline.upgrade() else { return };
            let is_sound = pad.current_caps().is_none_or(|caps| caps.structure(0).unwrap().name() == "audio/mpeg");
            // Pictures are taken too: a demuxer fails while it has nothing but pads that lead nowhere.
            let branch = if is_sound { "aacparse ! audio/mpeg,stream-format=raw !" } else { "" };
            let branch = format!("{branch} appsink name=frames sync=false async=false");
            let branch = gst::parse::bin_from_description(&branch, true).unwrap();
            let sink = branch.by_name("frames").and_downcast::<gst_app::AppSink>().unwrap();
            let note = note.clone();
            let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                if is_sound {
                    let mut hasher = DefaultHasher::new();
                    hasher.write(&buffer.map_readable().map_err(|_| gst::FlowError::Error)?);
                    note(hasher.finish());
                }
                Ok(gst::FlowSuccess::Ok)
            });
            sink.set_callbacks(callbacks.build());
            pipeline.add(&branch).unwrap();
            branch.sync_state_with_parent().unwrap();
            pad.link(&branch.static_pad("sink").unwrap()).unwrap();
        }
    };
    last.src_pads().iter().for_each(&take);
    last.connect_pad_added(move |_, pad| take(pad));
    pipeline.set_state(gst::State::Playing).unwrap();
    let _ = frames::finish(&pipeline, &AtomicBool::new(false));
}
