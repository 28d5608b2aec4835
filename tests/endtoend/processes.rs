//! Several processes with one store: an update that overlaps, and consumers of one recording.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use crate::film::Film;
use crate::places::{End, Place};
use crate::sender::Sender;
use crate::servers::{Nginx, Server};
use crate::verdict;

const SECONDS: usize = 8;

/// Pictures that differ from those of another pattern.
fn pictures(pattern: &str) -> String {
    format!(
        "videotestsrc is-live=true num-buffers={} pattern={pattern} ! video/x-raw,width=64,height=48 \
         ! x264enc tune=zerolatency key-int-max=30 threads=1 ! h264parse",
        SECONDS * 30
    )
}

#[test]
fn an_update_takes_over_while_the_old_process_still_runs() {
    let Some(nginx) = Nginx::find() else { return };
    let temp = tempfile::tempdir().unwrap();
    let mut place = Place::new(&nginx, temp.path());
    place.open();
    let (old, new) = (pictures("smpte"), pictures("snow"));
    let start = |name: &str, source: &str| {
        Sender::start_as(
            name,
            temp.path(),
            &format!(
                "-e {source} ! diskbuffersink location=\"{}\" \
                 sink-description=\"flvmux streamable=true ! rtmp2sink location=rtmp://127.0.0.1:{}/live/x\"",
                temp.path().join("store").display(),
                nginx.port
            ),
        )
    };
    let mut before = start("old", &old);
    before.until("the server gets something", PATIENCE, |_| place.received() > 0);
    before.run_on(Duration::from_secs(2));
    let mut after = start("new", &new);
    // It waits for the store: two never write to it.
    after.run_on(Duration::from_secs(2));
    before.assert_runs();
    before.finish(PATIENCE);
    after.finish(PATIENCE);
    place.close(End::Orderly);
    for (what, source) in [("old", old), ("new", new)] {
        let film = Film::of_pictures(&source);
        let recordings = place.recordings().into_iter().map(|path| film.recognise(&path, nginx.demuxer()));
        // Each has one epoch: a muxer begins anew with another.
        let seen: Vec<_> = recordings.filter(|recording| recording.iter().any(Option::is_some)).collect();
        verdict::complete(what, film.length, &seen);
    }
}

/// What a consumer writes of the recording, once or for ever.
fn consume(name: &str, directory: &Path, options: &str, slow: &str) -> Sender {
    let line = format!(
        "-e diskbuffersrc location=\"{}\" consumer={name} {options} ! {slow} \
         filesink location=\"{}\" buffer-mode=unbuffered",
        directory.join("store").display(),
        directory.join(format!("{name}.h264")).display()
    );
    Sender::start_as(name, directory, &line)
}

#[test]
fn two_consumers_get_everything_each_at_its_own_speed() {
    let temp = tempfile::tempdir().unwrap();
    let source = pictures("smpte");
    let line = format!(
        "{source} ! video/x-h264,stream-format=byte-stream,alignment=au ! diskbuffersink location=\"{}\"",
        temp.path().join("store").display()
    );
    let mut recorder = Sender::start_as("recorder", temp.path(), &line);
    let size = |name: &str| temp.path().join(name).metadata().map_or(0, |metadata| metadata.len());
    recorder.run_on(Duration::from_secs(2));
    let mut fast = consume("fast", temp.path(), "follow=true", "");
    // A third of the speed of the recording.
    let mut slow = consume("slow", temp.path(), "follow=true", "identity sleep-time=100000 !");
    fast.until("the fast one gets something", PATIENCE, |_| size("fast.h264") > 0);
    slow.until("the slow one gets something", PATIENCE, |_| size("slow.h264") > 0);
    slow.run_on(Duration::from_secs(3));
    slow.kill();
    std::fs::rename(temp.path().join("slow.h264"), temp.path().join("slow-1.h264")).unwrap();
    recorder.finish(PATIENCE);
    // Nothing tells from outside that it has caught up: it has written nothing for a second.
    let (mut last, mut since) = (0, Instant::now());
    fast.until("the fast one has caught up", PATIENCE, |_| {
        if size("fast.h264") != last {
            (last, since) = (size("fast.h264"), Instant::now());
        }
        since.elapsed() > Duration::from_secs(1)
    });
    fast.interrupt();
    fast.finish(PATIENCE);
    // Without following it ends by itself.
    consume("slow", temp.path(), "", "").finish(PATIENCE);

    let film = Film::of_pictures(&source);
    let seen =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| film.recognise(&temp.path().join(name), "")).collect() };
    let fast = verdict::complete("fast consumer", film.length, &seen(&["fast.h264"]));
    assert_eq!(fast.repeated, 0);
    let slow = verdict::complete("slow consumer", film.length, &seen(&["slow-1.h264", "slow.h264"]));
    // Back to the keyframe, and what it had taken since its place was noted last.
    assert!(slow.furthest_back < 60 && slow.recordings == 2, "{} back", slow.furthest_back);
}
