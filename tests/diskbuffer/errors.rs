//! A store that cannot be had: the state change fails with one error that names the path and the reason, and nothing on
//! the disk is touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use gst::prelude::*;

use crate::common::*;

const TASK: &str = "STREAMBUFFER_TEST_TASK";

fn element(location: Option<&Path>, properties: &[(&str, &str)]) -> Rig {
    Rig::idle(location, properties, Sink::default())
}

/// All error texts on the bus.
fn errors(rig: &Rig) -> Vec<String> {
    std::iter::from_fn(|| rig.bus.pop_filtered(&[gst::MessageType::Error]))
        .map(|message| match message.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!(),
        })
        .collect()
}

/// Fails to get to `state`; with which words. Afterwards the element is in NULL and can be tried again, with the same result.
fn refusal_at(rig: &Rig, state: gst::State) -> String {
    let mut texts = Vec::new();
    for _ in 0..2 {
        assert!(rig.element.set_state(state).is_err());
        assert_eq!(rig.element.current_state(), gst::State::Null);
        rig.element.set_state(gst::State::Null).unwrap();
        let mut errors = errors(rig);
        assert_eq!(errors.len(), 1, "{errors:?}");
        texts.append(&mut errors);
    }
    texts.remove(0)
}

/// Whatever the state that is asked for, the refusal has these words.
fn assert_refused(rig: &Rig, words: &[&str]) {
    for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing] {
        let text = refusal_at(rig, state);
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
    }
}

/// Everything below a directory: contents, kind, permissions, time of the last change.
fn listing(path: &Path) -> BTreeMap<PathBuf, (std::fs::Permissions, SystemTime, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let meta = std::fs::metadata(path).unwrap();
    let content = meta.is_file().then(|| std::fs::read(path).unwrap());
    found.insert(path.to_owned(), (meta.permissions(), meta.modified().unwrap(), content));
    if meta.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| found.extend(listing(&entry.unwrap().path())));
    }
    found
}

/// Refused with the path and these words, and everything around it is as it was.
fn assert_refused_untouched(around: &Path, location: &Path, words: &[&str]) {
    let before = listing(around);
    let path = location.to_str().unwrap();
    let properties = [("lock-timeout", "0"), ("recovery", "fail")];
    assert_refused(&element(Some(location), &properties), &[&[path], words].concat());
    assert!(listing(around) == before, "{} is changed", around.display());
}

/// A store that was used and closed.
fn make_store(location: &Path) {
    let rig = Rig::new(location, &[]);
    rig.start_stream("s", &h264_caps());
    (0..50).for_each(|i| rig.push(frame(i, 10, 1000)));
    rig.sink.wait_buffers(50);
    rig.stop();
}

#[test]
fn a_location_below_a_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_refused_untouched(temp.path(), &file.join("store"), &["Not a directory"]);
    assert_refused_untouched(temp.path(), &file.join("a/b/store"), &["Not a directory"]);
}

#[test]
fn a_location_where_nothing_can_be_made_is_refused() {
    let text = refusal_at(&element(Some(Path::new("/proc/streambuffer")), &[]), gst::State::Ready);
    assert!(text.contains("/proc/streambuffer: cannot be created"), "{text}");
    let text = refusal_at(&element(Some(Path::new("/proc/streambuffer/a/b")), &[]), gst::State::Playing);
    assert!(text.contains("/proc/streambuffer") && text.contains("cannot be created"), "{text}");
}

#[test]
fn a_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_refused_untouched(temp.path(), &file, &["is not a directory"]);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("CURRENT", "MANIFEST-000001\n"),
        ("MANIFEST-000001", "\x01\x02"),
        ("LOCK", ""),
        ("000004.log", "records"),
        ("IDENTITY", "a-b-c"),
    ] {
        std::fs::write(temp.path().join(name), content).unwrap();
    }
    assert_refused_untouched(temp.path(), temp.path(), &["another program's RocksDB"]);
}

#[test]
fn a_directory_with_other_files_is_refused() {
    for name in ["holiday.jpg", ".hidden", "db"] {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(name), "precious").unwrap();
        assert_refused_untouched(temp.path(), temp.path(), &[name, "is not empty and holds no store"]);
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    make_store(temp.path());
    let file = temp.path().join("FORMAT");
    let format = std::fs::read_to_string(&file).unwrap();
    let (before, _) = format.split_once("version=").unwrap();
    std::fs::write(&file, format!("{before}version=999\n")).unwrap();
    assert_refused_untouched(temp.path(), temp.path(), &["999", "update"]);
    std::fs::write(&file, format).unwrap();
    element(Some(temp.path()), &[]).element.set_state(gst::State::Ready).unwrap();
}

#[test]
fn a_store_whose_format_cannot_be_read_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    make_store(temp.path());
    let file = temp.path().join("FORMAT");
    for garbage in
        [&b""[..], b"\xff\x00\xfe garbage", b"gst-streambuffer-store\n", b"gst-streambuffer-store\nversion=-1\n"]
    {
        std::fs::write(&file, garbage).unwrap();
        assert_refused_untouched(temp.path(), temp.path(), &["FORMAT"]);
    }
}

/// By default the element goes on with a store of its own, says so, and leaves the other to the version that wrote it.
#[test]
fn a_store_of_a_newer_format_is_set_aside_untouched() {
    let temp = tempfile::tempdir().unwrap();
    make_store(temp.path());
    let file = temp.path().join("FORMAT");
    // A later version need not know our checksum.
    let format = std::fs::read_to_string(&file).unwrap().replace("version=1", "version=999");
    let format = format.lines().filter(|line| !line.starts_with("check")).fold(String::new(), |all, l| all + l + "\n");
    std::fs::write(&file, &format).unwrap();
    let database = |below: &Path| {
        listing(&below.join("db")).into_values().filter_map(|(_, _, content)| content).collect::<Vec<_>>()
    };
    let before = database(temp.path());
    let rig = Rig::new(temp.path(), &[]);
    let told = rig.message("diskbuffer-storage");
    assert_eq!(told.get::<&str>("state"), Ok("damaged"));
    assert!(told.get::<&str>("reason").unwrap().contains("999"), "{told}");
    rig.start_stream("s", &h264_caps());
    rig.push(frame(0, 10, 100));
    rig.sink.wait_buffers(1);
    rig.check_accounts();
    let aside = std::fs::read_dir(temp.path().join("aside")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_to_string(aside.join("FORMAT")).unwrap(), format);
    assert!(database(&aside) == before, "what was set aside is as it was");
}

#[test]
fn one_stream_cannot_be_used_twice() {
    let temp = tempfile::tempdir().unwrap();
    let first = Rig::new(temp.path(), &[("stream-name", "north")]);
    let second = element(Some(temp.path()), &[("stream-name", "north")]);
    assert_refused(&second, &[temp.path().to_str().unwrap(), "\"north\"", "stream-name"]);
    // The first has not noticed.
    first.start_stream("s", &h264_caps());
    first.push(frame(0, 10, 1000));
    first.sink.wait_buffers(1);
    first.stop();
    second.element.set_state(gst::State::Ready).unwrap();
}

#[test]
fn elements_share_a_store_by_different_streams() {
    let temp = tempfile::tempdir().unwrap();
    let rigs = ["north", "south", "default"].map(|name| Rig::new(temp.path(), &[("stream-name", name)]));
    for (rig, size) in rigs.iter().zip([100, 200, 300]) {
        rig.start_stream("s", &h264_caps());
        (0..20).for_each(|i| rig.push(frame(i, 5, size)));
        rig.eos();
    }
    for (rig, size) in rigs.iter().zip([100, 200, 300]) {
        rig.sink.wait_eos();
        let expected: Vec<_> = (0..20).map(|i| see(&frame(i, 5, size))).collect();
        crate::trace::assert_same("one stream", &expected, &rig.sink.buffers());
    }
}

#[test]
fn a_setting_that_belongs_to_the_store_has_to_be_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_str().unwrap();
    let first = Rig::new(temp.path(), &[("durability", "none")]);
    let second = element(Some(temp.path()), &[("stream-name", "other"), ("durability", "crash")]);
    assert_refused(&second, &[path, "durability", "none", "crash"]);
    first.stop();
    second.element.set_state(gst::State::Ready).unwrap();
}

/// This program again, doing one of the tasks below.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Returns when the task has got to its point.
    fn start(task: &str, environment: &[(&str, &OsStr)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "errors::in_another_process", "--nocapture"])
            .env_remove("STATE_DIRECTORY")
            .env(TASK, task)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, stdin, output };
        let ready = process.output.any(|line| line.is_ok_and(|line| line.ends_with("ready")));
        assert!(ready, "{task} did not come to its point");
        process
    }

    /// Lets it end and checks that all went well.
    fn end(mut self) {
        self.stdin.take();
        self.output.by_ref().for_each(drop);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test by itself: what a [`Process`] does.
#[test]
fn in_another_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let directory = std::env::var_os("STREAMBUFFER_TEST_DIRECTORY").map(PathBuf::from);
    let rig = element(directory.as_deref(), &[]);
    match task.as_str() {
        "open" => rig.element.set_state(gst::State::Ready).map(drop).unwrap(),
        "open without a location" => assert_refused(&rig, &["location"]),
        other => panic!("{other}"),
    }
    println!("ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    rig.element.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_store_held_by_another_process_is_refused_until_that_ends() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_str().unwrap();
    let process = Process::start("open", &[("STREAMBUFFER_TEST_DIRECTORY", temp.path().as_os_str())]);
    let rig = element(Some(temp.path()), &[("lock-timeout", "300000000")]);
    let start = std::time::Instant::now();
    let text = refusal_at(&rig, gst::State::Ready);
    assert!(start.elapsed() >= std::time::Duration::from_millis(600), "it is to wait");
    assert!([path, "another process", "lock-timeout"].iter().all(|word| text.contains(word)), "{text}");
    process.end();
    rig.element.set_state(gst::State::Playing).unwrap();
}

#[test]
fn a_store_is_waited_for_while_another_process_lets_go_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let process = Process::start("open", &[("STREAMBUFFER_TEST_DIRECTORY", temp.path().as_os_str())]);
    let rig = element(Some(temp.path()), &[("lock-timeout", "60000000000")]);
    let opening = std::thread::spawn(move || {
        rig.element.set_state(gst::State::Ready).unwrap();
        rig
    });
    process.end();
    assert_eq!(opening.join().unwrap().element.current_state(), gst::State::Ready);
}

#[test]
fn without_a_location_the_error_says_to_set_it() {
    Process::start("open without a location", &[]).end();
    Process::start("open without a location", &[("STATE_DIRECTORY", OsStr::new(""))]).end();
}

#[test]
fn the_state_directory_of_systemd_is_the_default_location() {
    let temp = tempfile::tempdir().unwrap();
    // systemd gives several, divided by colons.
    let mut directories = temp.path().join("one").into_os_string();
    directories.push(":/nowhere");
    Process::start("open", &[("STATE_DIRECTORY", directories.as_os_str())]).end();
    assert!(temp.path().join("one/streambuffer/FORMAT").is_file());
    let (directory, other) = (temp.path().join("given"), temp.path().join("unused"));
    let environment = [("STREAMBUFFER_TEST_DIRECTORY", directory.as_os_str()), ("STATE_DIRECTORY", other.as_os_str())];
    Process::start("open", &environment).end();
    assert!(directory.join("FORMAT").is_file() && !other.exists(), "the property comes first");
}
