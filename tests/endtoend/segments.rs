//! The examples with `segmenter` as a user runs them, on a real clip where there is one (`../shared/media`), else on a generated one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gst::prelude::*;

use crate::common::{self, PATIENCE};
use crate::film::Film;
use crate::frames;
use crate::sender::Sender;

const RATE: f64 = 24.0;

struct Clip {
    path: PathBuf,
    film: Film,
    _temp: tempfile::TempDir,
}

impl Clip {
    fn new() -> Self {
        common::init();
        let temp = tempfile::tempdir().unwrap();
        let path = common::clip("concat_ccby_nob.mp4").unwrap_or_else(|| generate(temp.path()));
        let film = Film::of_pictures(&format!("filesrc location=\"{}\" ! qtdemux", path.display()));
        Self { path, film, _temp: temp }
    }

    /// Frames from one second to another.
    fn between(&self, from: f64, to: f64) -> usize {
        (0..self.film.length).filter(|&n| (from..to).contains(&(n as f64 / RATE + 0.001))).count()
    }
}

/// Three scenes.
fn generate(directory: &Path) -> PathBuf {
    let path = directory.join("clip.mp4");
    let scenes: String = [("smpte", 250), ("ball", 300), ("checkers-8", 290)]
        .map(|(pattern, frames)| {
            format!(" videotestsrc pattern={pattern} num-buffers={frames} ! video/x-raw,width=160,height=120,framerate=24/1 ! c.")
        })
        .concat();
    let line = format!(
        "concat name=c ! x264enc tune=zerolatency key-int-max=30 ! h264parse ! mp4mux ! filesink location=\"{}\"{scenes}",
        path.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    common::wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    path
}

/// What an example says; none on a machine without Python for GStreamer, which `scripts/test` installs.
fn run(example: &str, clip: &Clip, arguments: &[&str], directory: Option<&Path>) -> Option<String> {
    let python = Command::new("/usr/bin/python3").args(["-c", "import gi; gi.require_version('Gst', '1.0')"]).output();
    if !python.is_ok_and(|python| python.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "there is no Python for GStreamer to test with");
        eprintln!("python3-gi is not on this machine: this test did not run; scripts/test gets it");
        return None;
    }
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example));
    // Nothing is left in the directory of the examples.
    command.env("PYTHONDONTWRITEBYTECODE", "1").args(arguments).arg(&clip.path).args(directory).stdin(Stdio::null());
    let logs = tempfile::tempdir().unwrap();
    Some(Sender::run(example, logs.path(), command).finish(PATIENCE))
}

/// Number, start, end and frames of windows: "window 3: 24.000 s to 34.000 s, 240 frames ..."
fn windows(said: &str) -> BTreeMap<usize, (f64, f64, usize)> {
    let one = |line: &str| {
        let words: Vec<_> = line.split([' ', ':', ',']).filter(|word| !word.is_empty()).collect();
        let ["window", id, start, "s", "to", end, "s", frames, "frames", ..] = words[..] else { return None };
        Some((id.parse().unwrap(), (start.parse().unwrap(), end.parse().unwrap(), frames.parse().unwrap())))
    };
    said.lines().filter_map(one).collect()
}

#[test]
fn windows_that_overlap_reach_an_analysis_in_python_whole() {
    let clip = Clip::new();
    let Some(said) = run("windows.py", &clip, &[], None) else { return };
    let all = windows(&said);
    let count = (clip.film.length as f64 / RATE / 8.0).ceil() as usize;
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>(), "{said}");
    for (id, (start, end, frames)) in all {
        assert_eq!((start, end), (id as f64 * 8.0, id as f64 * 8.0 + 10.0));
        assert_eq!(frames, clip.between(start, end), "window {id}");
    }
}

#[test]
fn four_workers_share_the_windows_of_a_video() {
    let clip = Clip::new();
    let Some(said) = run("workers.py", &clip, &["--duration", "2.5"], None) else { return };
    let all = windows(&said);
    assert_eq!(all.len(), (clip.film.length as f64 / RATE / 2.5).ceil() as usize, "{said}");
    for (id, (start, end, frames)) in &all {
        assert_eq!(*frames, clip.between(*start, *end), "window {id}");
    }
    for worker in 0..4 {
        assert!(said.contains(&format!("by worker-{worker}")), "{said}");
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn pictures(file: &Path) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let note = count.clone();
    let source = format!("filesrc location=\"{}\" ! matroskademux", file.display());
    let count_it = move |_| {
        note.fetch_add(1, Ordering::Relaxed);
    };
    let pipeline = frames::pipeline(&source, count_it).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    frames::finish(&pipeline, &AtomicBool::new(false)).unwrap();
    count.load(Ordering::Relaxed)
}

#[test]
fn each_scene_becomes_a_file_that_begins_with_its_first_frame() {
    let (clip, temp) = (Clip::new(), tempfile::tempdir().unwrap());
    let Some(said) = run("scenes.py", &clip, &[], Some(temp.path())) else { return };
    let start = |line: &str| line.strip_prefix("scene from ")?.strip_suffix(" s")?.parse::<f64>().ok();
    let scenes: Vec<_> = said.lines().filter_map(start).map(|start| (start * RATE).round() as usize).collect();
    assert!(scenes.len() >= 3 && scenes[0] == 0, "{said}");
    let mut begins = 0;
    let mut files_begin = Vec::new();
    for file in files(temp.path()) {
        files_begin.push(begins);
        begins += pictures(&file);
    }
    assert_eq!(files_begin, scenes);
    assert_eq!(begins, clip.film.length);
}

/// Numbers of the first and the last frame of each file, which has all between.
fn copied(clip: &Clip, directory: &Path) -> Vec<(usize, usize)> {
    let ends = |file: &PathBuf| {
        let numbers: Vec<_> = clip.film.recognise(file, "matroskademux").into_iter().map(Option::unwrap).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}: {numbers:?}", file.display());
        (numbers[0], numbers[numbers.len() - 1])
    };
    files(directory).iter().map(ends).collect()
}

#[test]
fn scenes_that_are_copied_begin_at_keyframes_and_nothing_is_missing() {
    let (clip, temp) = (Clip::new(), tempfile::tempdir().unwrap());
    let Some(_) = run("scenes.py", &clip, &["--copy"], Some(temp.path())) else { return };
    let all = copied(&clip, temp.path());
    assert!(all.len() > 1);
    assert!(all.windows(2).all(|pair| pair[1].0 == pair[0].1 + 1), "{all:?}");
    assert_eq!((all[0].0, all[all.len() - 1].1), (0, clip.film.length - 1));
}

#[test]
fn events_become_clips_that_play_from_their_first_frame() {
    let (clip, temp) = (Clip::new(), tempfile::tempdir().unwrap());
    let arguments = ["--at", "8", "--at", "24", "--at", "26.5", "--before", "2", "--after", "3"];
    let Some(said) = run("events.py", &clip, &arguments, Some(temp.path())) else { return };
    assert!(said.contains("clip at-8: 6.000 s to 11.000 s\n"), "{said}");
    assert!(said.contains("clip at-24: 22.000 s to 29.500 s\n"), "one of two: {said}");
    let names: Vec<_> = files(temp.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000-at-8.mkv", "00001-at-24.mkv"]);
    let frame = |seconds: f64| (seconds * RATE) as usize;
    let wanted = [(frame(6.0), frame(11.0) - 1), (frame(22.0), frame(29.5) - 1)];
    for ((first, last), (from, to)) in copied(&clip, temp.path()).into_iter().zip(wanted) {
        assert!(first <= from && from - first < 30 && last == to, "{first} to {last} for {from} to {to}");
    }
}
