//! Windows by content, on real clips (`../shared/media`); without them on made-up scenes.

use super::common;
use super::played::{Played, check_order, check_spans, field, play, source};

const MS: u64 = 1_000_000;

fn complexities(played: &Played) -> Vec<f64> {
    played.closed.iter().map(|message| message.get("complexity").unwrap()).collect()
}

/// All windows but the last, which ends with the stream.
fn check_equal(complexities: &[f64], target: f64) {
    let (_, whole) = complexities.split_last().unwrap();
    assert!(whole.len() >= 4, "{complexities:?}");
    for complexity in whole {
        assert!((complexity / target - 1.0).abs() <= 0.2, "{complexity} of {target}: {complexities:?}");
    }
}

#[test]
fn adaptive_windows_hold_equal_complexity_encoded_and_raw() {
    for clip in ["concat_ccby_b3.mp4", "concat_ccby_nob.mp4"] {
        let encoded =
            play(&format!("{} ! segmenter name=s strategy=adaptive target-complexity=12 ! fakesink", source(clip)));
        check_order(encoded.items("src"));
        check_equal(&complexities(&encoded), 12.0);
    }
    let raw = play(&format!(
        "{} ! avdec_h264 ! segmenter name=s strategy=adaptive target-complexity=1500 ! fakesink",
        source("concat_ccby_b3.mp4")
    ));
    check_equal(&complexities(&raw), 1500.0);
}

#[test]
fn adaptive_windows_keep_within_their_bounds() {
    let played = play(&format!(
        "{} ! segmenter name=s strategy=adaptive target-complexity=12 min-duration=2000000000 max-duration=4000000000 ! fakesink",
        source("concat_ccby_b3.mp4")
    ));
    let (_, whole) = played.closed.split_last().unwrap();
    for message in whole {
        let length = field(message, "end") - field(message, "start");
        assert!((1990 * MS..=4010 * MS).contains(&length), "{message}");
    }
}

/// Frames by index at which windows begin, and the true cuts of the clip with what is neither.
fn score(starts: &[u64], truth: &str) -> (usize, usize, usize) {
    let rows: Vec<(u64, u64, bool)> = truth
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[3] == "cut")
        })
        .collect();
    let near = |frame: u64, row: &(u64, u64, bool)| frame + 2 >= row.0 && frame <= row.1 + 2;
    let cuts: Vec<_> = rows.iter().filter(|row| row.2).collect();
    let found = cuts.iter().filter(|row| starts.iter().any(|start| near(*start, row))).count();
    let counted: Vec<_> = starts.iter().filter(|start| !rows.iter().any(|row| !row.2 && near(**start, row))).collect();
    let right = counted.iter().filter(|start| cuts.iter().any(|row| near(***start, row))).count();
    (found, right, counted.len())
}

/// Index, in order of presentation, of the first frame of each window but the first.
fn starts(played: &Played) -> Vec<u64> {
    let mut frames = played.buffers("src");
    frames.sort_by_key(|seen| seen.pts);
    let changes = frames.windows(2).enumerate().filter(|(_, pair)| pair[0].ids != pair[1].ids);
    changes.map(|(index, _)| index as u64 + 1).collect()
}

/// What all clips together give: precision and recall.
fn scenes(decoder: &str) -> Option<(f64, f64)> {
    let (mut found, mut right, mut told, mut cuts) = (0, 0, 0, 0);
    for clip in ["bbb_64s", "concat_ccby_b3", "concat_ccby_nob"] {
        let (Some(path), Some(truth)) =
            (common::clip(&format!("{clip}.mp4")), common::clip(&format!("{clip}.cuts.csv")))
        else {
            return None;
        };
        let played = play(&format!(
            "filesrc location={} ! qtdemux ! h264parse {decoder} ! segmenter name=s strategy=scene ! fakesink",
            path.display()
        ));
        check_spans(played.items("src"));
        let truth = std::fs::read_to_string(truth).unwrap();
        let of_clip = score(&starts(&played), &truth);
        let in_clip = truth.lines().filter(|line| line.ends_with(",cut")).count();
        eprintln!("{clip}: {} of {in_clip} cuts found, {} of {} starts right", of_clip.0, of_clip.1, of_clip.2);
        found += of_clip.0;
        right += of_clip.1;
        told += of_clip.2;
        cuts += in_clip;
    }
    let (precision, recall) = (right as f64 / told as f64, found as f64 / cuts as f64);
    eprintln!("precision {precision:.3}, recall {recall:.3}");
    Some((precision, recall))
}

#[test]
fn scenes_of_raw_video_begin_at_the_true_cuts() {
    let Some((precision, recall)) = scenes("! avdec_h264") else { return };
    assert!(precision >= 0.99 && recall >= 0.98);
}

#[test]
fn coded_sizes_tell_many_of_the_cuts() {
    let Some((precision, recall)) = scenes("") else { return };
    assert!(precision >= 0.7 && recall >= 0.4);
}

#[test]
fn scenes_of_all_readable_formats_are_found() {
    for format in
        ["I420", "NV12", "YUY2", "UYVY", "RGB", "BGRx", "ARGB", "GRAY8", "P010_10LE", "I420_10LE", "GRAY16_LE"]
    {
        let caps = "video/x-raw,width=160,height=120,framerate=25/1";
        let played = play(&format!(
            "concat name=c ! videoconvert ! video/x-raw,format={format} ! segmenter name=s strategy=scene time-base=running ! \
             fakesink  videotestsrc num-buffers=20 pattern=smpte ! {caps} ! c.  \
             videotestsrc num-buffers=20 pattern=checkers-8 ! {caps} ! c.  videotestsrc num-buffers=20 pattern=circular ! {caps} ! c."
        ));
        check_order(played.items("src"));
        let frames: Vec<_> = played.closed.iter().map(|message| field(message, "frames")).collect();
        assert_eq!(frames, [20, 20, 20], "{format}");
    }
}

#[test]
fn upstream_settles_on_a_format_that_can_be_read() {
    // Left to itself it takes one with 16 bits a component.
    for strategy in ["scene", "adaptive"] {
        let played = play(&format!("videotestsrc num-buffers=20 ! segmenter name=s strategy={strategy} ! fakesink"));
        assert_eq!(played.closed.iter().map(|message| field(message, "frames")).sum::<u64>(), 20);
    }
}

#[test]
fn intra_coded_and_vp8_video_is_cut_without_decoding() {
    for (encoder, keyframes) in [("jpegenc", 40), ("vp8enc keyframe-max-dist=10 deadline=1", 4)] {
        let played = play(&format!(
            "videotestsrc num-buffers=40 ! video/x-raw,width=64,height=64,framerate=20/1 ! {encoder} ! \
             segmenter name=s strategy=keyframe duration=0 ! fakesink"
        ));
        assert_eq!(played.closed.len(), keyframes, "{encoder}");
        check_order(played.items("src"));
    }
}
