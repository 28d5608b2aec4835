//! The elements beside their peers: what a buffer costs, what a backlog costs, what a restart costs.
//!
//! Promises: peers are measured in the same run, in turn, each in a process of its own; every figure is the median of its
//! rounds; what is compared says so in the table. Figures by themselves say something of the machine, ratios of the code.
//! Each part leaves its figures as CSV; the page and the plots are drawn from what parts have left.

mod backlog;
mod child;
mod contenders;
mod figures;
mod healthy;
mod ingest;
#[path = "../../examples/shared/letters.rs"]
mod letters;
mod page;
mod payload;
mod pipe;
mod plot;
mod process;
mod rocks;
mod warm;
mod written;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Measures the elements beside their peers and writes a page of tables and plots")]
struct Arguments {
    /// What is measured; everything when nothing is named
    parts: Vec<Part>,
    /// Where tables and plots go
    #[arg(long, default_value = "docs/benchmarks")]
    output: PathBuf,
    /// Where the measured data goes while it is measured: the disk that is meant
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How much of everything, 1 is what the page shows
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Sizes of the backlogs of which memory and restarts are measured, in MB
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000])]
    backlogs: Vec<u64>,
    /// As `cargo bench` calls its programs
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Subcommand)]
enum Child {
    /// One measurement in a process of its own
    #[command(hide = true)]
    Child { task: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// A blocked sink, then the backlog is drained, for four sizes of buffers
    Ingest,
    /// A sink that keeps up, at the pace of cameras
    Healthy,
    /// What reaches the disk, and what stays there
    Written,
    /// Memory, and the first buffer after a restart
    Backlog,
    /// Only writes the page again
    Page,
}

/// How much is measured, and where.
pub struct Plan {
    pub output: PathBuf,
    pub scratch: PathBuf,
    pub rounds: usize,
    pub scale: f64,
    pub backlogs: Vec<u64>,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    if let Some(Child::Child { task }) = arguments.child {
        gst::init()?;
        gststreambuffer::plugin_register_static()?;
        return child::run(&task);
    }
    let Arguments { output, scratch, rounds, scale, backlogs, .. } = arguments;
    std::fs::create_dir_all(&output)?;
    if arguments.parts != [Part::Page] {
        warm::up();
    }
    let plan = Plan { output, scratch, rounds: rounds.max(1), scale, backlogs };
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    if wanted(Part::Ingest) {
        ingest::measure(&plan)?;
    }
    if wanted(Part::Healthy) {
        healthy::measure(&plan)?;
    }
    if wanted(Part::Written) {
        written::measure(&plan)?;
    }
    if wanted(Part::Backlog) {
        backlog::measure(&plan)?;
    }
    page::write(&plan.output)
}
