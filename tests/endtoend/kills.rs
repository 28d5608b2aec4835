//! The sending process is killed, and started again with the next film: of each film every picture and every frame of sound up to
//! the kill is in what the receiver recorded, whether or not it was there.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::PATIENCE;
use crate::film::Film;
use crate::sender::Sender;
use crate::servers::free_port;
use crate::verdict;

const PICTURES_PER_SECOND: f64 = 30.0;
const SOUNDS_PER_SECOND: f64 = 44_100.0 / 1024.0;
/// Longer than any sender that is killed lives.
const SECONDS: f64 = 60.0;
/// Seconds by which what a sender had of pictures and sound may differ when it is killed, on a busy machine.
const APART: f64 = 1.5;

/// Takes what comes over TCP; each connection is a file.
struct Receiver {
    directory: PathBuf,
    closing: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    accepts: Option<JoinHandle<()>>,
}

impl Receiver {
    fn open(port: u16, directory: &Path) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (closing, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let accepts = std::thread::spawn({
            let (closing, received, directory) = (closing.clone(), received.clone(), directory.to_owned());
            move || {
                let mut writers = Vec::new();
                for connection in listener.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        break;
                    }
                    let (mut connection, received) = (connection.unwrap(), received.clone());
                    let path = directory.join(format!("{:05}.mkv", writers.len()));
                    writers.push(std::thread::spawn(move || {
                        let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
                        while let Ok(count @ 1..) = connection.read(&mut part) {
                            bytes.extend_from_slice(&part[..count]);
                            received.fetch_add(count as u64, Ordering::SeqCst);
                        }
                        std::fs::write(path, bytes).unwrap();
                    }));
                }
                writers.into_iter().for_each(|writer| writer.join().unwrap());
            }
        });
        Self { directory: directory.to_owned(), closing, received, accepts: Some(accepts) }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// When nobody sends any more.
    fn recordings(mut self, port: u16) -> Vec<PathBuf> {
        self.closing.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", port)).unwrap());
        self.accepts.take().unwrap().join().unwrap();
        let mut paths: Vec<_> = std::fs::read_dir(&self.directory).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

struct Scene {
    pictures: String,
    sound: String,
}

impl Scene {
    /// Different from each other in each picture and each frame.
    fn new(pattern: &str, frequency: f64, seconds: f64) -> Self {
        let pictures = (seconds * PICTURES_PER_SECOND) as u64;
        let sounds = (seconds * SOUNDS_PER_SECOND) as u64;
        Self {
            pictures: format!(
                "videotestsrc is-live=true num-buffers={pictures} pattern={pattern} \
                 ! video/x-raw,width=64,height=48,framerate=30/1 \
                 ! x264enc tune=zerolatency key-int-max=15 threads=1 ! h264parse"
            ),
            sound: format!(
                "audiotestsrc is-live=true num-buffers={sounds} freq={frequency} ! audio/x-raw,rate=44100,channels=1 \
                 ! avenc_aac ! aacparse"
            ),
        }
    }
}

#[test]
fn a_sender_that_is_killed_loses_no_picture_and_no_sound() {
    let temp = tempfile::tempdir().unwrap();
    let recorded = temp.path().join("recorded");
    std::fs::create_dir(&recorded).unwrap();
    let port = free_port();
    let scenes = [
        Scene::new("smpte", 441.7, SECONDS),
        Scene::new("ball", 523.3, SECONDS),
        Scene::new("snow", 662.9, SECONDS),
        Scene::new("gradient", 787.1, 3.0),
    ];
    let start = |number: usize| {
        let Scene { pictures, sound } = &scenes[number];
        let line = format!(
            "diskbuffersink name=sink location=\"{}\" retry-max-interval=300000000 eos-timeout=60000000000 \
             sink-description=\"matroskamux streamable=true ! tcpclientsink host=127.0.0.1 port={port}\" \
             {pictures} ! sink.video {sound} ! sink.audio_0",
            temp.path().join("store").display()
        );
        Sender::start_as(&format!("sender-{number}"), temp.path(), &line)
    };
    // Nobody is there; all of it is in the store.
    let mut sender = start(0);
    sender.until("it spools", PATIENCE, |sender| sender.output().contains("diskbuffer-outage"));
    sender.run_on(Duration::from_secs(3));
    sender.kill();
    // The receiver gets the backlog of the first, and some of what comes.
    let receiver = Receiver::open(port, &recorded);
    let mut sender = start(1);
    sender.until("the receiver gets something", PATIENCE, |_| receiver.received() > 0);
    sender.run_on(Duration::from_secs(3));
    sender.kill();
    // The same, killed when it has just begun to send.
    let before = receiver.received();
    let mut sender = start(2);
    sender.until("the receiver gets more", PATIENCE, |_| receiver.received() > before);
    sender.run_on(Duration::from_millis(1500));
    sender.kill();
    start(3).finish(PATIENCE);
    let recordings = receiver.recordings(port);
    for (number, scene) in scenes.iter().enumerate() {
        let is_last = number + 1 == scenes.len();
        let kinds = [
            ("pictures", Film::of_pictures(&scene.pictures), PICTURES_PER_SECOND),
            ("sound", Film::of_sound(&scene.sound), SOUNDS_PER_SECOND),
        ];
        let [pictures, sound] = kinds.map(|(kind, film, per_second)| {
            let what = format!("{kind} of sender {number}");
            // A muxer gets what one sender has sent; encoders begin with frames that are the same for all.
            let of_this = |seen: &Vec<Option<usize>>| seen.iter().flatten().count() * 2 > seen.len();
            let all = recordings.iter().map(|path| film.recognise(path, "matroskademux !"));
            let seen: Vec<_> = all.filter(of_this).collect();
            let verdict =
                if is_last { verdict::complete(&what, film.length, &seen) } else { verdict::unbroken(&what, &seen) };
            verdict.until as f64 / per_second
        });
        assert!(
            pictures > 0.5 && (pictures - sound).abs() < APART,
            "sender {number}: {pictures} s, {sound} s of sound"
        );
    }
}
