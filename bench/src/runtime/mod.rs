//! `cargo xtask bench runtime`: what a pod costs, beside bare wasmtime, the kernel and `wasmtime serve`.

mod bare;
mod child;
mod fair;
mod files;
mod guest;
mod parked;
mod pod;
mod serve;
mod side;
mod sockets;
mod start;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use child::{Child, run as run_child};

use crate::program::step;
use crate::report::{self, Report, Row, Samples};
use crate::wasmtime::Wasmtime;

/// What is measured, and how long.
#[derive(clap::Args)]
pub struct Options {
    /// A folder of this run's own.
    #[arg(long)]
    scratch: PathBuf,
    /// The folder of the guests.
    #[arg(long)]
    guests: PathBuf,
    /// wasmtime's command line; without it there are no rows beside it.
    #[arg(long)]
    wasmtime: Option<PathBuf>,
    /// Run only the parts whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// A few iterations of everything: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
}

/// What all parts use.
struct Bench {
    scratch: PathBuf,
    guests: PathBuf,
    wasmtime: Option<Wasmtime>,
    quick: bool,
}

impl Bench {
    fn guest(&self, name: &str) -> PathBuf {
        self.guests.join(format!("{name}.wasm"))
    }

    /// How often all sides take their turn.
    fn rounds(&self) -> usize {
        self.of(5, 1)
    }

    /// `full`, or `quick` in the quick mode.
    fn of<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Part = fn(&Bench) -> Result<Vec<Row>>;

const PARTS: [(&str, Part); 7] = [
    ("start", start::run),
    ("memory", parked::run),
    ("sockets", sockets::run),
    ("files", files::run),
    ("http", serve::requests),
    ("call", serve::calls),
    ("fairness", fair::run),
];

/// Measures, prints the table.
///
/// # Errors
/// A part failed; the table says which.
pub fn run(options: &Options) -> Result<()> {
    let wasmtime = Wasmtime::at(options.wasmtime.as_deref());
    if let Err(error) = &wasmtime {
        eprintln!("    without wasmtime's command line: {error:#}");
    }
    let peer = wasmtime.as_ref().map_or("no wasmtime", |w| w.version.as_str()).to_string();
    let bench = Bench {
        scratch: std::path::absolute(&options.scratch)?,
        guests: std::path::absolute(&options.guests)?,
        wasmtime: wasmtime.ok(),
        quick: options.quick,
    };
    let machine = report::machine();
    let mut report = Report::default();
    for (name, part) in PARTS.into_iter().filter(|(name, _)| name.contains(&options.only)) {
        step(name);
        report.add(name, part(&bench));
    }
    let version = env!("CARGO_PKG_VERSION");
    println!(
        "`cargo xtask bench runtime`: Copepod {version}, the command line of {peer}, {machine} before. Medians (least \
         to greatest); sides in turn. The ratio is Copepod's value by the peer's: below 1 is better for times, CPU and \
         memory, above 1 for rates.\n\n{}",
        report.markdown()
    );
    report.outcome()
}

/// One measurement of Copepod beside one of a peer.
fn row(what: impl Into<String>, unit: &str, ours: &Samples, peer: Option<(&str, &Samples)>) -> Row {
    let ratio = peer.filter(|(_, theirs)| theirs.median() > 0.0).map(|(_, theirs)| ours.median() / theirs.median());
    let peer = peer.map(|(name, theirs)| format!("{name}: {}", theirs.show(unit)));
    Row { what: what.into().into(), ours: ours.show(unit), peer, ratio, command: "" }
}

/// A folder that is made anew.
fn fresh(path: &Path) -> Result<PathBuf> {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path)?;
    Ok(path.into())
}
