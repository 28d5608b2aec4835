//! One measurement in a process of its own, so that processor time, memory and bytes written are its alone.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Outcome, backlog, healthy, ingest, written};

/// What a measurement found, by name.
pub type Found = HashMap<String, f64>;

/// A figure that goes to the parent.
pub fn tell(name: &str, value: f64) {
    println!("{name}\t{value}");
}

pub fn run(task: &[String]) -> Outcome<()> {
    let words: Vec<&str> = task.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ingest", rest @ ..] => ingest::child(rest),
        ["healthy", rest @ ..] => healthy::child(rest),
        ["written", rest @ ..] => written::child(rest),
        ["backlog", rest @ ..] => backlog::child(rest),
        _ => Err(format!("no measurement is called {task:?}").into()),
    }
}

fn start(task: &[String]) -> Outcome<Child> {
    // What one measurement left to be written must not cost the next.
    rustix::fs::sync();
    let child = Command::new(std::env::current_exe()?)
        .arg("child")
        .args(task)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}

fn figure(line: &str) -> Option<(String, f64)> {
    let (name, value) = line.split_once('\t')?;
    Some((name.to_owned(), value.parse().ok()?))
}

/// Runs a measurement to its end.
pub fn measured(task: &[String]) -> Outcome<Found> {
    let output = start(task)?.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("the measurement {task:?} failed: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.lines().filter_map(figure).collect())
}

/// Runs a measurement until it tells the figure `last`, and kills it with SIGKILL.
pub fn killed_after(task: &[String], last: &str) -> Outcome<Found> {
    let mut child = start(task)?;
    let mut found = Found::new();
    let output = child.stdout.take().ok_or("the measurement has no output")?;
    for line in BufReader::new(output).lines() {
        found.extend(figure(&line?));
        if found.contains_key(last) {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    if found.contains_key(last) { Ok(found) } else { Err(format!("the measurement {task:?} ended early").into()) }
}

/// A directory of its own below the scratch directory, as a word of a task.
pub fn place(scratch: &Path) -> Outcome<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("streambuffer-bench.").tempdir_in(scratch)?)
}

/// The median of each figure.
pub fn medians(rounds: &[Found]) -> Found {
    let mut medians = Found::new();
    for name in rounds.iter().flat_map(HashMap::keys) {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        medians.insert(name.clone(), (low + high) / 2.0);
    }
    medians
}
