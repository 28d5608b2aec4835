//! What `framesync` costs: processor time of all threads, for a buffer in `normalize` and for a set of 4 and 16 streams in `align`,
//! beside `queue`, which hands each buffer to a thread of its own as well, and beside nothing at all; then the layers below it
//! alone. At the end the best of each, as ratios, with Rust's allocations.
//!
//! Each frame costs its harness a new GstBuffer without memory and a step of the clock; that is what `nothing` shows, and is taken off
//! in the last table.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use rustix::time::{ClockId, clock_gettime};

#[path = "shared/allocations.rs"]
mod allocations;
// For the tests of the timeline, which clippy sees here too.
#[cfg(test)]
#[path = "../fuzz/src/bytes.rs"]
#[allow(dead_code)]
mod bytes;
#[path = "shared/flow.rs"]
mod flow;
#[path = "../src/timeline/mod.rs"]
#[allow(dead_code, unused_imports)]
mod timeline;

use flow::{Flow, Through};
use timeline::Ns;
use timeline::line::{Line, LineConfig, Stamped};
use timeline::matcher::{Join, Matcher, MatcherConfig, Set};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Processor time of the process, with the kernel's part of it.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What was measured: the name, ns, and allocations, of a buffer or a set.
struct Figure {
    name: String,
    ns: f64,
    allocations: f64,
}

#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    /// Measures `run`, which does it as often as it is told.
    fn measure(&mut self, group: &mut BenchmarkGroup<WallTime>, name: &str, mut run: impl FnMut(u64)) {
        let mut figure = Figure { name: name.into(), ns: f64::INFINITY, allocations: f64::INFINITY };
        run(2000);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let (start, before) = (processor_time(), allocations::count());
                run(times);
                let spent = processor_time() - start;
                let allocations = allocations::count() - before;
                figure.ns = figure.ns.min(spent.as_nanos() as f64 / times as f64);
                figure.allocations = figure.allocations.min(allocations as f64 / times as f64);
                spent
            });
        });
        if figure.ns.is_finite() {
            self.0.push(figure);
        }
    }

    fn ns(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|figure| figure.name == name).map(|figure| figure.ns)
    }

    /// Prints them, and leaves them as a table in `STREAMBUFFER_BENCH_OUTPUT`, if that names a directory.
    fn print(&self) {
        let mut table = String::from("framesync,CPU us,us added,of queue,allocations\n");
        println!("\n{:<28} {:>9} {:>10} {:>9} {:>12}", "best of this run", "us", "us added", "of queue", "allocations");
        for Figure { name, ns, allocations } in &self.0 {
            // Behind the comma of what goes through elements.
            let streams = name.rsplit_once(", ").map_or("", |(_, streams)| streams);
            let added = |name: &str| Some(self.ns(name)? - self.ns(&format!("nothing, {streams}"))?);
            let (own, queue) = (added(name), added(&format!("queue, {streams}")));
            let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
            let ratio = show(own.zip(queue).map(|(own, queue)| own / queue));
            let own = show(own.map(|ns| ns / 1e3));
            println!("{name:<28} {:>9.2} {own:>10} {ratio:>9} {allocations:>12.3}", ns / 1e3);
            let name = name.replace(", ", " ");
            table += &format!("{name},{:.2},{own},{ratio},{allocations:.3}\n", ns / 1e3);
        }
        if let Some(directory) = std::env::var_os("STREAMBUFFER_BENCH_OUTPUT") {
            let path = std::path::Path::new(&directory).join("framesync.csv");
            std::fs::write(&path, table).unwrap_or_else(|err| eprintln!("{}: {err}", path.display()));
        }
    }
}

fn elements(criterion: &mut Criterion, figures: &mut Figures) {
    let mut group = criterion.benchmark_group("element");
    for streams in [1, 4, 16] {
        let mode = if streams == 1 { "normalize" } else { "align" };
        let mut through = |name: &str, through, shared| {
            let mut flow = Flow::new(through, streams);
            flow.shared = shared;
            figures.measure(&mut group, &format!("{name}, {streams}"), |frames| flow.push(frames));
        };
        through("nothing", Through::Nothing, false);
        through("identity", Through::Each("identity"), false);
        through("queue", Through::Each("queue"), false);
        through(mode, Through::FrameSync(mode), false);
        if streams == 1 {
            through("normalize of shared buffers", Through::FrameSync(mode), true);
        }
    }
    group.finish();
}

fn layers(criterion: &mut Criterion, figures: &mut Figures) {
    let mut group = criterion.benchmark_group("layer");
    let mut line = Line::new(LineConfig::default());
    let mut frame = 0u64;
    figures.measure(&mut group, "Line::push", |times| {
        for _ in 0..times {
            let stamp = frame * 33_333_333;
            let arrival = Ns((stamp + 20_000_000 + frame * 7919 % 997 * 3000) as i64);
            black_box(line.push(Stamped { pts: Some(stamp), dts: None, arrival }));
            frame += 1;
        }
    });
    for streams in [4, 16] {
        let latency = Some(Ns::from_millis(200));
        let mut matcher = Matcher::new(MatcherConfig { latency, ..MatcherConfig::default() });
        let slots: Vec<_> = (0..streams).map(|_| matcher.add(Join::One, Ns::ZERO, Ns::ZERO)).collect();
        let (mut set, mut frame) = (Set::default(), 0i64);
        figures.measure(&mut group, &format!("matcher, set of {streams}"), |times| {
            for _ in 0..times {
                for (slot, apart) in slots.iter().zip(0..) {
                    let stamp = Ns(frame * 33_333_333 + apart * 1_000_000);
                    let now = stamp + Ns::from_millis(20);
                    black_box(matcher.push(*slot, stamp, frame, now));
                    while matcher.pop(now, &mut set) {
                        black_box(&set);
                    }
                }
                frame += 1;
            }
        });
    }
    group.finish();
}

fn main() {
    gst::init().expect("GStreamer starts");
    gststreambuffer::plugin_register_static().expect("the plugin registers");
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let mut figures = Figures::default();
    elements(&mut criterion, &mut figures);
    layers(&mut criterion, &mut figures);
    criterion.final_summary();
    figures.print();
}
