//! Servers that are away at first, go away again and again, or take nothing, with one line of `gst-launch-1.0` that sends to them
//! and never ends before its stream does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::{PATIENCE, init};
use crate::film::Film;
use crate::places::{End, Place, Tcp};
use crate::sender::Sender;
use crate::servers::{Nginx, Server, Srt, free_port};
use crate::verdict;

/// So small that many of them run at once.
const PICTURES: &str =
    "videotestsrc is-live=true num-buffers=COUNT ! video/x-raw,width=64,height=48 ! x264enc ! h264parse";
const PICTURES_PER_SECOND: f64 = 30.0;
/// No two frames of this tone are equal.
const SOUND: &str = "audiotestsrc is-live=true num-buffers=COUNT freq=441.7 ! avenc_aac ! aacparse";
const SOUNDS_PER_SECOND: f64 = 44_100.0 / 1024.0;

/// When the server is there.
#[derive(Clone)]
struct Plan {
    /// Away at first.
    late: Duration,
    outages: usize,
    there: Duration,
    away: Duration,
    /// What the sink may take to notice that the server has come or gone.
    slowness: Duration,
    /// How it leaves, in turn.
    ends: &'static [End],
    /// What more is put on the line.
    properties: &'static str,
    /// Seconds that may be missing at the end of the stream.
    tail: f64,
}

const SHORT: Plan = Plan {
    late: Duration::from_secs(3),
    outages: 5,
    there: Duration::from_millis(1500),
    away: Duration::from_millis(1000),
    slowness: Duration::from_millis(500),
    ends: &[End::Killed, End::Orderly],
    properties: "eos-timeout=60000000000 retry-max-interval=500000000",
    tail: 0.0,
};

/// SRT gives up a peer after 5 s, and an attempt to connect after 3 s.
const SHORT_SRT: Plan = Plan {
    outages: 2,
    there: Duration::from_secs(3),
    away: Duration::from_secs(8),
    slowness: Duration::from_secs(5),
    // And it closes without sending what it still has: that of its encoder, which comes at once at the end.
    tail: 2.0,
    ..SHORT
};

const LONG: Plan = Plan {
    late: Duration::from_secs(60),
    there: Duration::from_secs(10),
    away: Duration::from_secs(5),
    properties: "eos-timeout=60000000000",
    ..SHORT
};

impl Plan {
    /// For how long the stream has to last, with something left for the end.
    fn seconds(&self) -> f64 {
        let outages = (self.there + self.away + self.slowness) * self.outages as u32;
        (self.late + outages + self.slowness + self.there * 3).as_secs_f64()
    }

    fn check(&self, what: &str, film: &Film, per_second: f64, recordings: &[Vec<Option<usize>>]) {
        if self.tail == 0.0 {
            verdict::complete(what, film.length, recordings);
        } else {
            let missing = film.length - verdict::unbroken(what, recordings).until;
            assert!(missing as f64 <= self.tail * per_second, "{what}: {missing} of {} are missing", film.length);
        }
    }

    fn line(&self, line: &str, per_second: f64) -> String {
        line.replace("COUNT", &format!("{}", (self.seconds() * per_second).ceil()))
    }
}

/// Plays `line` to `server` by the plan; returns when it has ended by itself.
fn play(server: &dyn Server, plan: &Plan, directory: &Path, line: &str) -> Vec<PathBuf> {
    let mut sender = Sender::start(directory, line);
    let mut place = Place::new(server, directory);
    sender.run_on(plan.late);
    for outage in 0..plan.outages {
        place.open();
        sender.until("the server gets something", PATIENCE, |_| place.received() > 0);
        sender.run_on(plan.there);
        let end = plan.ends[outage % plan.ends.len()];
        let frozen = matches!(end, End::Frozen);
        if frozen {
            place.signal("STOP");
            sender.run_on(plan.away);
        }
        place.close(end);
        if !frozen {
            sender.run_on(plan.away);
        }
    }
    place.open();
    let output = sender.finish(Duration::from_secs_f64(plan.seconds()) + PATIENCE);
    place.close(End::Orderly);
    assert!(output.contains("diskbuffer-outage"), "no outage was reported:\n{output}");
    place.recordings()
}

/// `STORE` in `sink` is the directory of the store, in quotes.
fn pictures(what: &str, server: &dyn Server, plan: &Plan, source: &str, sink: &str) {
    let temp = tempfile::tempdir().unwrap();
    let source = plan.line(source, PICTURES_PER_SECOND);
    let film = Film::of_pictures(&source);
    let line = format!(
        "{source} ! diskbuffersink location=\"{}\" {} sink-description=\"{sink}\"",
        temp.path().join("store").display(),
        plan.properties
    );
    let recordings = play(server, plan, temp.path(), &line);
    let seen: Vec<_> = recordings.iter().map(|path| film.recognise(path, server.demuxer())).collect();
    plan.check(what, &film, PICTURES_PER_SECOND, &seen);
}

fn pictures_and_sound(what: &str, server: &dyn Server, plan: &Plan, sink: &str) {
    let temp = tempfile::tempdir().unwrap();
    let (source, sound) = (plan.line(PICTURES, PICTURES_PER_SECOND), plan.line(SOUND, SOUNDS_PER_SECOND));
    let line = format!(
        "diskbuffersink name=sink location=\"{}\" {} sink-description=\"{sink}\" {source} ! sink.video {sound} ! sink.audio_0",
        temp.path().join("store").display(),
        plan.properties
    );
    let recordings = play(server, plan, temp.path(), &line);
    let pictures = ("pictures", Film::of_pictures(&source), PICTURES_PER_SECOND);
    for (kind, film, per_second) in [pictures, ("sound", Film::of_sound(&sound), SOUNDS_PER_SECOND)] {
        let seen: Vec<_> = recordings.iter().map(|path| film.recognise(path, server.demuxer())).collect();
        plan.check(&format!("{what}, {kind}"), &film, per_second, &seen);
    }
}

fn rtmp(port: u16, muxer: &str) -> String {
    format!("{muxer} streamable=true ! rtmp2sink location=rtmp://127.0.0.1:{port}/live/x")
}

fn srt(port: u16) -> String {
    init();
    // Where it reconnects on its own (not in 1.20) it answers OK while nobody is there.
    let sink = gst::ElementFactory::make("srtsink").build().unwrap();
    let own = if sink.find_property("auto-reconnect").is_some() { "auto-reconnect=false" } else { "" };
    format!("mpegtsmux alignment=7 ! srtsink {own} uri=srt://127.0.0.1:{port}?mode=caller")
}

fn tcp(port: u16) -> String {
    format!("tcpclientsink host=127.0.0.1 port={port}")
}

const BYTE_STREAM: &str = " ! video/x-h264,stream-format=byte-stream,alignment=au";

fn rtmp_pictures(plan: &Plan) {
    let Some(nginx) = Nginx::find() else { return };
    pictures("rtmp", &nginx, plan, PICTURES, &rtmp(nginx.port, "flvmux"));
}

fn rtmp_pictures_and_sound(plan: &Plan) {
    let Some(nginx) = Nginx::find() else { return };
    pictures_and_sound("rtmp", &nginx, plan, &rtmp(nginx.port, "flvmux"));
}

fn srt_pictures(plan: &Plan) {
    let server = Srt { port: free_port() };
    pictures("srt", &server, plan, PICTURES, &srt(server.port));
}

fn srt_pictures_and_sound(plan: &Plan) {
    let server = Srt { port: free_port() };
    pictures_and_sound("srt", &server, plan, &srt(server.port));
}

fn tcp_pictures(plan: &Plan) {
    let server = Tcp { port: free_port() };
    pictures("tcp", &server, plan, &format!("{PICTURES}{BYTE_STREAM}"), &tcp(server.port));
}

/// More data than the connection holds, so that the sink blocks.
const MUCH: &str = "videotestsrc is-live=true num-buffers=COUNT pattern=snow ! video/x-raw,width=320,height=240 \
    ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=10000 threads=1 ! h264parse \
    ! video/x-h264,stream-format=byte-stream,alignment=au";

fn deaf(plan: &Plan) {
    let server = Tcp { port: free_port() };
    pictures("deaf", &server, plan, MUCH, &tcp(server.port));
}

const DEAF: Plan = Plan {
    late: Duration::from_millis(500),
    outages: 1,
    there: Duration::from_secs(2),
    away: Duration::from_secs(7),
    ends: &[End::Frozen],
    ..SHORT
};

#[test]
fn an_rtmp_server_that_comes_late_and_leaves_again_and_again_gets_every_picture() {
    rtmp_pictures(&SHORT);
}

#[test]
fn an_rtmp_server_that_leaves_again_and_again_gets_pictures_and_sound() {
    rtmp_pictures_and_sound(&SHORT);
}

#[test]
fn an_srt_listener_that_leaves_again_and_again_gets_every_picture() {
    srt_pictures(&SHORT_SRT);
}

#[test]
fn an_srt_listener_that_leaves_again_and_again_gets_pictures_and_sound() {
    srt_pictures_and_sound(&SHORT_SRT);
}

#[test]
fn a_tcp_receiver_that_leaves_again_and_again_gets_every_picture() {
    tcp_pictures(&SHORT);
}

#[test]
fn who_follows_a_receiver_that_read_nothing_gets_every_picture() {
    deaf(&DEAF);
}

#[test]
fn an_rtmp_server_that_freezes_gets_every_picture_when_it_is_started_again() {
    rtmp_pictures(&Plan { outages: 2, away: Duration::from_secs(3), ends: &[End::Frozen], ..SHORT });
}

/// For `scripts/soak`.
mod soak {
    use super::*;

    #[test]
    #[ignore = "long"]
    fn an_rtmp_server_that_comes_after_a_minute_gets_every_picture() {
        rtmp_pictures(&LONG);
    }

    #[test]
    #[ignore = "long"]
    fn an_rtmp_server_that_comes_after_a_minute_gets_pictures_and_sound() {
        rtmp_pictures_and_sound(&LONG);
    }

    #[test]
    #[ignore = "long"]
    fn an_srt_listener_that_comes_after_a_minute_gets_pictures_and_sound() {
        srt_pictures_and_sound(&Plan {
            away: Duration::from_secs(10),
            slowness: SHORT_SRT.slowness,
            tail: SHORT_SRT.tail,
            ..LONG
        });
    }

    #[test]
    #[ignore = "long"]
    fn a_tcp_receiver_that_comes_after_a_minute_gets_every_picture() {
        tcp_pictures(&LONG);
    }

    #[test]
    #[ignore = "long"]
    fn a_receiver_that_reads_nothing_for_a_minute_and_a_half_is_given_up() {
        deaf(&Plan { away: Duration::from_secs(90), ..DEAF });
    }

    /// What the process holds, as the system counts it.
    #[derive(Debug)]
    struct Holds {
        threads: usize,
        files: usize,
        resident: u64,
    }

    fn holds(process: u32) -> Holds {
        let entries = |name: &str| std::fs::read_dir(format!("/proc/{process}/{name}")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Holds { threads: entries("task"), files: entries("fd"), resident: kilobytes * 1024 }
    }

    /// `STREAMBUFFER_SOAK_OUTAGES` of random length; the process holds no more after them than after the first fifth.
    #[test]
    #[ignore = "long"]
    fn a_hundred_outages_leave_nothing_behind() {
        let outages = std::env::var("STREAMBUFFER_SOAK_OUTAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
        let temp = tempfile::tempdir().unwrap();
        let server = Tcp { port: free_port() };
        let line = format!(
            "{}{BYTE_STREAM} ! diskbuffersink location=\"{}\" retry-max-interval=500000000 sink-description=\"{}\"",
            PICTURES.replace(" num-buffers=COUNT", ""),
            temp.path().join("store").display(),
            tcp(server.port)
        );
        let mut sender = Sender::start(temp.path(), &line);
        let mut place = Place::new(&server, temp.path());
        let mut noise = u64::from(sender.id()) | 1;
        let mut random = |below: u64| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            Duration::from_millis(noise % below)
        };
        let mut early = None;
        let started = Instant::now();
        for outage in 0..outages {
            place.open();
            sender.until("the server gets something", PATIENCE, |_| place.received() > 0);
            sender.run_on(random(1500));
            let end = [End::Killed, End::Orderly, End::Frozen][outage % 3];
            if let End::Frozen = end {
                place.signal("STOP");
                sender.run_on(random(1000));
            }
            place.close(end);
            if outage == outages / 5 {
                early = Some(holds(sender.id()));
            }
            sender.run_on(random(2000));
        }
        let (early, late) = (early.unwrap(), holds(sender.id()));
        eprintln!("{outages} outages in {:?}: {early:?}, then {late:?}", started.elapsed());
        assert!(late.threads <= early.threads + 2, "{early:?} {late:?}");
        assert!(late.files <= early.files + 4, "{early:?} {late:?}");
        assert!(late.resident <= early.resident + 20_000_000, "{early:?} {late:?}");
        sender.kill();
    }
}
