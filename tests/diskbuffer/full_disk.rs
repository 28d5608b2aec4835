//! A disk of 96 MB that the element fills by itself, that somebody else fills, and that has room again.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;

const CHILD: &str = "STREAMBUFFER_TEST_FULL";
const LOCATION: &str = "STREAMBUFFER_TEST_LOCATION";
const GOP: u64 = 10;
const SIZE: usize = 100_000;
/// Space is back: writing has to go on.
const SOON: Duration = Duration::from_secs(15);

/// Runs [`child`] with these durabilities, in a mount namespace of its own.
fn on_small_disk(durabilities: &str) {
    if std::fs::metadata("/proc/self").map_or(1, |meta| meta.uid()) != 0 {
        eprintln!("mounting a small disk takes root: this did not run");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=96m tmpfs '{}' && exec \"$@\"", temp.path().display());
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::child", "--nocapture"])
        .env(CHILD, durabilities)
        .env(LOCATION, temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all well"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
}

/// Not a test by itself.
#[test]
fn child() {
    let (Ok(durabilities), Some(location)) = (std::env::var(CHILD), std::env::var_os(LOCATION)) else { return };
    for durability in durabilities.split(' ') {
        fill(Path::new(&location), durability);
    }
    println!("all well");
}

/// Pushes, with upstream never hearing of anything.
struct Pusher {
    rig: Rig,
    next: u64,
}

impl Pusher {
    fn push(&mut self) {
        self.rig.push(frame(self.next, GOP, SIZE));
        self.next += 1;
    }

    /// Until the disk takes something that was not stored before; how long that took.
    fn push_until_stored(&mut self, what: &str) -> Duration {
        let (start, before) = (Instant::now(), self.rig.stat("stored"));
        while self.rig.stat("stored") <= before {
            assert!(start.elapsed() < SOON, "{what}: {}", self.rig.element.property::<gst::Structure>("stats"));
            self.push();
            self.rig.check_accounts();
            std::thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    /// Until nothing more is stored; what the element says of that.
    fn push_until_full(&mut self, what: &str) -> String {
        for _ in 0..2000 {
            let before = self.rig.stat("stored");
            (0..GOP).for_each(|_| self.push());
            self.rig.check_accounts();
            if self.rig.stat("stored") == before {
                return self.rig.element.property::<gst::Structure>("stats").get("status").unwrap();
            }
        }
        panic!("{what}: the disk is never full");
    }
}

fn fill(location: &Path, durability: &str) {
    let store = location.join(durability);
    let sink = Sink::default();
    sink.hold_after(0);
    let properties =
        [("durability", durability), ("leaky", "upstream"), ("min-free-bytes", "1"), ("max-memory-bytes", "2000000")];
    let mut pusher = Pusher { rig: Rig::with_sink(&store, &properties, sink.clone()), next: 0 };
    pusher.rig.start_stream("s", &h264_caps());

    let status = pusher.push_until_full("by itself");
    println!("{durability}: full by itself after {} frames of {SIZE}: {status}", pusher.rig.stat("stored"));
    assert!(pusher.rig.stat("rejected") > 0);
    sink.release();
    until("the backlog is delivered", || pusher.rig.stat("pending") == 0);
    let took = pusher.push_until_stored("its own data is gone");
    println!("{durability}: stored again {took:?} after its backlog was delivered");

    sink.hold_after(0);
    (0..50).for_each(|_| pusher.push());
    let other = location.join("other");
    let mut file = std::fs::File::create(&other).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    drop(file);
    let status = pusher.push_until_full("by somebody else");
    println!(
        "{durability}: full by somebody else: {status}, {:?}",
        pusher.rig.element.property::<gst::Structure>("stats").get::<String>("last-error")
    );
    (0..30).for_each(|_| pusher.push());
    pusher.rig.check_accounts();
    std::fs::remove_file(&other).unwrap();
    let took = pusher.push_until_stored("the other file is gone");
    println!("{durability}: stored again {took:?} after the other file was removed");
    (0..50).for_each(|_| pusher.push());
    sink.release();
    pusher.rig.eos();
    sink.wait_eos();
    let rig = &pusher.rig;
    until("all is counted", || rig.stat("pending") == 0 && rig.stat("queued") == 0);
    rig.check_accounts();
    let status: String = rig.element.property::<gst::Structure>("stats").get("status").unwrap();
    assert_eq!(status, "live");

    // All that was taken came out, once, in order, as it was; all else is counted and told.
    let buffers = sink.buffers();
    assert!(buffers.iter().map(number).is_sorted_by(|a, b| a < b), "order");
    for seen in &buffers {
        let expected = see(&frame(number(seen), GOP, SIZE));
        assert!(seen.data.ends_with(&expected.data) && seen.pts == expected.pts, "{} has changed", number(seen));
    }
    let told: u64 = std::iter::from_fn(|| rig.bus.pop())
        .filter_map(|message| {
            message.structure().filter(|s| s.name() == "diskbuffer-dropped")?.get::<u64>("buffers").ok()
        })
        .sum();
    let counts = ["received", "rejected", "dropped", "lost"].map(|name| rig.stat(name));
    println!("{durability}: received, rejected, dropped, lost: {counts:?}");
    assert_eq!(counts, [pusher.next, pusher.next - buffers.len() as u64, 0, 0]);
    assert_eq!(told, counts[1], "what is missing is told");
    drop(pusher);
    std::fs::remove_dir_all(&store).unwrap();
}

#[test]
fn a_full_disk_costs_only_what_is_told() {
    on_small_disk("crash");
}

/// For `scripts/soak`.
mod soak {
    #[test]
    #[ignore = "takes some time"]
    fn a_full_disk_costs_only_what_is_told_with_any_durability() {
        super::on_small_disk("none crash interval power");
    }
}
