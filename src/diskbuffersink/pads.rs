//! The pads that can be requested, and what they are called.
//!
//! The order of the templates is that in which gst-launch-1.0 tries them for an element without a pad name.

use std::collections::BTreeSet;
use std::sync::LazyLock;

const VIDEO: &[&str] = &[
    "video/x-h264",
    "video/x-h265",
    "video/x-h263",
    "video/x-vp8",
    "video/x-vp9",
    "video/x-av1",
    "video/x-theora",
    "video/x-dirac",
    "video/x-prores",
    "video/x-dnxhd",
    "video/x-wmv",
    "video/x-divx",
    "video/x-xvid",
    "video/x-flash-video",
    "video/x-huffyuv",
    "video/x-ffv",
    "video/x-dv",
    "video/mpeg",
    "video/x-raw",
    "video/x-bayer",
    "image/jpeg",
    "image/png",
    "image/x-jpc",
    "image/x-j2c",
    "image/jp2",
    "image/webp",
    "image/tiff",
    "image/bmp",
];

const AUDIO: &[&str] = &[
    "audio/mpeg",
    "audio/x-opus",
    "audio/x-vorbis",
    "audio/x-flac",
    "audio/x-speex",
    "audio/x-ac3",
    "audio/x-eac3",
    "audio/x-dts",
    "audio/x-alaw",
    "audio/x-mulaw",
    "audio/x-adpcm",
    "audio/x-alac",
    "audio/x-wma",
    "audio/x-raw",
    "audio/x-lpcm",
    "audio/x-private1-lpcm",
    "audio/x-private-ts-lpcm",
    "audio/G722",
    "audio/G729",
    "audio/AMR",
    "audio/AMR-WB",
    "audio/x-gsm",
    "audio/x-nellymoser",
    "audio/x-wavpack",
    "audio/x-tta",
];

fn all(names: &[&str]) -> gst::Caps {
    names.iter().map(|name| gst::Structure::new_empty(*name)).collect()
}

pub static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
    [("video", all(VIDEO)), ("audio_%u", all(AUDIO)), ("sink_%u", gst::Caps::new_any())]
        .into_iter()
        .filter_map(|(name, caps)| {
            gst::PadTemplate::new(name, gst::PadDirection::Sink, gst::PadPresence::Request, &caps).ok()
        })
        .collect()
});

/// The name of a new pad: as asked for when that fits and is free, else the next that is free.
pub fn name(template: &gst::PadTemplate, asked: Option<&str>, taken: &BTreeSet<String>) -> Option<String> {
    let pattern = template.name_template();
    let Some(prefix) = pattern.strip_suffix("%u") else {
        return (!taken.contains(pattern) && asked.is_none_or(|asked| asked == pattern)).then(|| pattern.to_string());
    };
    match asked.filter(|asked| *asked != pattern) {
        Some(asked) => {
            // As this element writes it: the name belongs to a stream in the store.
            let number: u32 = asked.strip_prefix(prefix)?.parse().ok()?;
            let name = format!("{prefix}{number}");
            (name == asked && !taken.contains(&name)).then_some(name)
        }
        None => (0u32..).map(|number| format!("{prefix}{number}")).find(|name| !taken.contains(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_once() {
        gst::init().unwrap();
        let taken: BTreeSet<String> = ["video", "audio_0", "audio_2"].into_iter().map(Into::into).collect();
        let [video, audio, sink] = &TEMPLATES[..] else { panic!("three templates") };
        assert_eq!(name(video, None, &taken), None);
        assert_eq!(name(video, None, &BTreeSet::new()).as_deref(), Some("video"));
        assert_eq!(name(audio, None, &taken).as_deref(), Some("audio_1"));
        assert_eq!(name(audio, Some("audio_%u"), &taken).as_deref(), Some("audio_1"));
        assert_eq!(name(audio, Some("audio_7"), &taken).as_deref(), Some("audio_7"));
        assert_eq!(name(audio, Some("audio_2"), &taken), None);
        assert_eq!(name(audio, Some("audio_07"), &taken), None);
        assert_eq!(name(sink, Some("sink_0"), &taken).as_deref(), Some("sink_0"));
    }
}
