//! The page of tables and plots, from what the parts have left.

use std::path::Path;

use crate::contenders::CONTENDERS;
use crate::figures::Table;
use crate::plot::{self, Bars};
use crate::{Outcome, contenders, healthy, ingest, written};

/// Bytes as people say them.
fn size(bytes: usize) -> String {
    match bytes {
        1_000_000.. => format!("{} MB", bytes / 1_000_000),
        1_000.. => format!("{} kB", bytes / 1_000),
        _ => format!("{bytes} B"),
    }
}

/// With three digits that count.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn cameras(case: &str) -> String {
    match case {
        "loop" => "a loop".to_owned(),
        "1" => "1 camera".to_owned(),
        _ => format!("{case} cameras"),
    }
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text += text.as_ref();
        self.text += "\n";
    }

    fn row(&mut self, cells: &[String]) {
        self.line(format!("| {} |", cells.join(" | ")));
    }

    fn head(&mut self, cells: &[String]) {
        self.row(cells);
        self.line(format!("|---{}", "|--:".repeat(cells.len() - 1)) + "|");
    }
}

/// A target, what was measured, and whether it holds.
struct Target {
    what: String,
    wanted: String,
    found: Option<f64>,
    holds: bool,
}

pub fn write(directory: &Path) -> Outcome<()> {
    let mut page = Page { text: String::new() };
    let mut targets = Vec::new();
    page.line("# Figures\n");
    page.line(
        "Written by `scripts/bench`: each table is of one run, each figure the median of its rounds, the peers in turn, each measurement\n\
         in a process of its own. A figure by itself says something of the machine; compare ratios. CPU is that of all threads. Peers are: a\n\
         loop around RocksDB that puts each record with the options of a `diskbuffer` store; the pattern of Savant Buffer NG (for each\n\
         message a batch with it and two index cells, universal compaction, a get and a delete to take it out); `queue2` with a temporary\n\
         file; `filesink` and then `filesrc`, which keep bytes and nothing else; `queue`, which keeps all of it in memory.\n",
    );
    ingest_section(&mut page, &mut targets, directory)?;
    healthy_section(&mut page, &mut targets, directory)?;
    written_section(&mut page, &mut targets, directory)?;
    backlog_section(&mut page, &mut targets, directory)?;
    plain_section(
        &mut page,
        directory,
        "framesync: processor time of a frame, or of a set of so many streams",
        "Added: above what the same frames cost without an element. Allocations are those of Rust's allocator.",
        &["framesync"],
    )?;
    plain_section(
        &mut page,
        directory,
        "segmenter: processor time of a frame, and of a buffer that only gets its window",
        "Above: more than the first line of the table.",
        &["segmenter-frames", "segmenter-buffers"],
    )?;
    plain_section(
        &mut page,
        directory,
        "Scenes, end to end",
        "Whole processes that decode the clips of the tests and tell the cuts; processor time with decoding, the least of three rounds. A cut\n\
         is right within two frames.",
        &["scenes"],
    )?;
    page.line("## Targets\n");
    page.head(&["what", "wanted", "measured", ""].map(str::to_owned));
    for Target { what, wanted, found, holds } in &targets {
        let verdict = if *holds { "holds" } else { "**missed**" };
        page.row(&[what.clone(), wanted.clone(), number(*found), verdict.to_owned()]);
    }
    // What people have to say of it stands in a file of its own.
    if let Ok(notes) = std::fs::read_to_string(directory.join("notes.md")) {
        page.line(format!("\n{}", notes.trim_end()));
    }
    std::fs::write(directory.join("README.md"), &page.text)?;
    print!("{}", page.text);
    Ok(())
}

fn at_least(what: impl Into<String>, least: f64, found: Option<f64>) -> Target {
    let holds = found.is_some_and(|found| found >= least);
    Target { what: what.into(), wanted: format!("at least {least}"), found, holds }
}

fn at_most(what: impl Into<String>, most: f64, found: Option<f64>) -> Target {
    let holds = found.is_some_and(|found| found <= most);
    let most = (most * 100.0).round() / 100.0;
    Target { what: what.into(), wanted: format!("at most {most}"), found, holds }
}

fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b.filter(|b| *b > 0.0)?)
}

/// Tables that other programs have left, as they are.
fn plain_section(page: &mut Page, directory: &Path, title: &str, text: &str, names: &[&str]) -> Outcome<()> {
    let read = |name: &&str| std::fs::read_to_string(directory.join(format!("{name}.csv"))).ok();
    let tables: Vec<String> = names.iter().filter_map(read).collect();
    if tables.is_empty() {
        return Ok(());
    }
    page.line(format!("## {title}\n\n{text}\n"));
    for table in tables {
        let mut lines = table.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        page.head(&lines.next().unwrap_or_default());
        lines.for_each(|line| page.row(&line));
        page.line("");
    }
    Ok(())
}

fn ingest_section(page: &mut Page, targets: &mut Vec<Target>, directory: &Path) -> Outcome<()> {
    let Some(table) = Table::load(directory, "ingest", 2)? else { return Ok(()) };
    let keys = |name: &str, bytes: usize| [name.to_owned(), bytes.to_string()];
    let get = |name: &str, bytes: usize, figure: &str| {
        let keys = keys(name, bytes);
        table.get(&[&keys[0], &keys[1]], figure)
    };
    let figures = [
        ("A blocked sink: ingest", "ingest-mb-s", "MB/s"),
        ("A blocked sink: CPU of a buffer", "ingest-cpu-us", "us"),
        ("A blocked sink: bytes written for a byte", "written-per-byte", "bytes"),
        ("The backlog is drained", "drain-mb-s", "MB/s"),
        ("The backlog is drained: CPU of a buffer", "drain-cpu-us", "us"),
    ];
    page.line("## A blocked sink, then a drain\n");
    page.line("The backlog is in the page cache when it is drained: what is compared is the work, not the disk.\n");
    for (title, figure, unit) in figures {
        page.line(format!("{title}, {unit}:\n"));
        let sizes = ingest::SIZES.map(size);
        page.head(&[vec![String::new()], sizes.to_vec()].concat());
        for name in CONTENDERS {
            let values = ingest::SIZES.map(|bytes| number(get(name, bytes, figure)));
            page.row(&[vec![contenders::title(name).to_owned()], values.to_vec()].concat());
        }
        page.line("");
    }
    for (file, title, figure) in [
        ("ingest.png", "Ingest with a blocked sink", "ingest-mb-s"),
        ("drain.png", "Drain of that backlog", "drain-mb-s"),
    ] {
        let series = CONTENDERS
            .iter()
            .map(|name| (contenders::title(name).to_owned(), ingest::SIZES.map(|b| get(name, b, figure)).to_vec()))
            .collect();
        let bars =
            Bars { title: title.to_owned(), axis: "MB/s".to_owned(), groups: ingest::SIZES.map(size).to_vec(), series };
        plot::write(&directory.join(file), &bars)?;
        page.line(format!("![{title}]({file})\n"));
    }
    for bytes in ingest::SIZES {
        let of = |figure, peer| ratio(get("diskbuffer", bytes, figure), get(peer, bytes, figure));
        let name = size(bytes);
        targets.push(at_least(format!("ingest, {name}, of the bare RocksDB loop"), 0.9, of("ingest-mb-s", "bare")));
        targets.push(at_least(format!("ingest, {name}, of Buffer NG's pattern"), 1.5, of("ingest-mb-s", "buffer-ng")));
        targets.push(at_least(format!("drain, {name}, of Buffer NG's pattern"), 4.0, of("drain-mb-s", "buffer-ng")));
    }
    Ok(())
}

fn healthy_section(page: &mut Page, targets: &mut Vec<Target>, directory: &Path) -> Outcome<()> {
    let Some(table) = Table::load(directory, "healthy", 2)? else { return Ok(()) };
    let get = |name: &str, case: &str, figure: &str| table.get(&[name, case], figure);
    page.line("## A sink that keeps up\n");
    page.line(format!(
        "Cameras of 30 frames a second, {} each. CPU is above what the same frames cost without an element; a thread that sleeps between\n\
         two frames finds cold caches, so a buffer costs more here than in a loop. The time is from the push to the arrival behind the\n\
         element; for RocksDB that of the put.\n",
        size(healthy::SIZE)
    ));
    let figures = [
        ("cpu-us-above", "CPU us"),
        ("p50-ms", "p50 ms"),
        ("p99-ms", "p99 ms"),
        ("p999-ms", "p99.9 ms"),
        ("written-per-byte", "written per byte"),
        ("threads", "threads"),
        ("files", "files"),
        ("rss-mb", "RSS MB"),
    ];
    for case in healthy::CASES {
        page.line(match case {
            "loop" => "One stream as fast as it is taken (the time includes waiting for those before):\n".to_owned(),
            "1" => "1 stream:\n".to_owned(),
            _ => format!("{case} streams:\n"),
        });
        page.head(&[vec![String::new()], figures.map(|f| f.1.to_owned()).to_vec()].concat());
        for name in healthy::CONTENDERS {
            let values = figures.map(|(figure, _)| number(get(name, case, figure)));
            page.row(&[vec![healthy::title(name).to_owned()], values.to_vec()].concat());
        }
        page.line("");
    }
    let shown = ["queue", "bare", "none", "crash", "interval", "power"];
    for (file, title, figure, axis) in [
        ("latency.png", "Latency that 99 of 100 buffers keep below, of a sink that keeps up", "p99-ms", "ms"),
        ("healthy.png", "Processor time of a buffer with a sink that keeps up", "cpu-us-above", "us"),
    ] {
        let series = shown
            .iter()
            .map(|name| (healthy::title(name).to_owned(), healthy::CASES.map(|case| get(name, case, figure)).to_vec()))
            .collect();
        let groups = healthy::CASES.map(cameras).to_vec();
        plot::write(&directory.join(file), &Bars { title: title.to_owned(), axis: axis.to_owned(), groups, series })?;
        page.line(format!("![{title}]({file})\n"));
    }
    for case in healthy::CASES {
        let found = ratio(get("crash", case, "cpu-us-above"), get("bare", case, "cpu-us-above"));
        targets.push(at_most(format!("CPU with a healthy sink, {}, of the bare write", cameras(case)), 1.3, found));
    }
    targets.push(at_most("added latency with 16 cameras, p99, ms", 2.0, get("crash", "16", "p99-ms")));
    Ok(())
}

fn written_section(page: &mut Page, targets: &mut Vec<Target>, directory: &Path) -> Outcome<()> {
    let Some(table) = Table::load(directory, "written", 2)? else { return Ok(()) };
    let get = |case: &str, streams: usize, figure: &str| table.get(&[case, &streams.to_string()], figure);
    page.line("## What reaches the disk\n");
    page.line(format!(
        "One store, buffers of {}, a keyframe each 30. Outage: all sinks are blocked, then released one after the other. Left: what the\n\
         directory holds some seconds after the drain, ballast included, and when the store is closed.\n",
        size(healthy::SIZE)
    ));
    let figures = [
        ("written-per-byte", "written per byte"),
        ("left-mb", "left MB"),
        ("left-when-closed-mb", "left when closed MB"),
        ("rss-mb", "RSS MB"),
        ("files", "files"),
        ("threads", "threads"),
    ];
    page.head(&[vec![String::new(), "streams".to_owned()], figures.map(|f| f.1.to_owned()).to_vec()].concat());
    for (case, streams) in written::CASES {
        let values = figures.map(|(figure, _)| number(get(case, streams, figure)));
        page.row(&[vec![case.to_owned(), streams.to_string()], values.to_vec()].concat());
    }
    page.line("");
    for streams in [1, 64] {
        let found = get("outage", streams, "written-per-byte");
        targets.push(at_most(format!("written per byte in an outage, {streams} streams"), 2.1, found));
    }
    for streams in [1, 16, 64] {
        let most = if streams == 1 { 1.1 } else { written::formula(streams) };
        let found = get("healthy", streams, "written-per-byte");
        targets.push(at_most(format!("written per byte with a healthy sink, {streams} streams"), most, found));
    }
    targets.push(at_most("MB left after a drain, 1 stream", 128.0, get("outage", 1, "left-mb")));
    targets.push(at_most("MB left after a drain, 64 streams", 512.0, get("outage", 64, "left-mb")));
    Ok(())
}

fn backlog_section(page: &mut Page, targets: &mut Vec<Target>, directory: &Path) -> Outcome<()> {
    let Some(table) = Table::load(directory, "backlog", 1)? else { return Ok(()) };
    page.line("## Memory, and the next start\n");
    page.line("A process that is killed with its backlog, and the one that delivers it. First buffer: from the start of the element in NULL.\n");
    let figures = [
        ("rss-mb", "RSS MB"),
        ("files", "files"),
        ("fill-mb-s", "filled MB/s"),
        ("first-buffer-ms", "first buffer ms"),
        ("drain-mb-s", "drained MB/s"),
        ("drain-rss-mb", "RSS MB while drained"),
        ("left-mb", "left MB"),
    ];
    page.head(&[vec!["backlog MB".to_owned()], figures.map(|f| f.1.to_owned()).to_vec()].concat());
    for row in &table.rows {
        let values = figures.map(|(figure, _)| number(row.get(figure)));
        page.row(&[row.keys.clone(), values.to_vec()].concat());
    }
    page.line("");
    if let (Some(first), Some(last)) = (table.rows.first(), table.rows.last()) {
        let (small, large) = (&first.keys[0], &last.keys[0]);
        let memory = ratio(last.get("rss-mb"), first.get("rss-mb"));
        targets.push(at_most(format!("RSS with {large} MB, of that with {small} MB"), 1.1, memory));
        targets.push(at_most(format!("RSS with {large} MB, MB"), 256.0, last.get("rss-mb")));
        targets.push(at_most(format!("first buffer with {large} MB, ms"), 1000.0, last.get("first-buffer-ms")));
    }
    Ok(())
}
