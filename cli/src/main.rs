//! The `forebay` command: parse, load the configuration, start, print.
//!
//! One file a verb. Exit codes: 0 done, 2 bad usage or setting, 1 anything else. With `--json` standard output carries
//! one JSON object and nothing else; progress and notes go to standard error.

mod run_view;
mod supervisor;

mod checkpoint;
mod coordinator;
mod dataset;
mod ingest;
mod loader;
mod passed;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forebay::{failure, output};

/// Raw text and images to trained weights: ingest, dataset versions, loader, elastic trainer, checkpoints.
#[derive(Parser)]
#[command(
    name = "forebay",
    version,
    disable_help_subcommand = true,
    after_help = "Start with:  forebay doctor\nThen:        forebay ingest examples/rust-code.toml"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Ingest(ingest::Ingest),
    Dataset(dataset::Dataset),
    Loader(loader::Loader),
    Train(train::Train),
    Coordinator(coordinator::Coordinator),
    /// Runs one replica: joins the coordinator, trains until the run is done
    #[command(disable_help_flag = true)]
    Replica(passed::Passed),
    Checkpoint(checkpoint::Checkpoint),
    /// Evaluates a checkpoint on the validation rows of the dataset version that it was trained on
    #[command(disable_help_flag = true)]
    Eval(passed::Passed),
    /// Continues a text with a trained language model
    #[command(disable_help_flag = true)]
    Generate(passed::Passed),
    /// Checks the machine, libtorch with its collectives, and that a store honours put-if-absent
    #[command(disable_help_flag = true)]
    Doctor(passed::Passed),
}

/// Buffers of so many bytes and more go back to the system when they are freed.
#[cfg(target_env = "gnu")]
const LARGE_BUFFER: libc::c_int = 512 << 10;

/// Has large buffers go back to the system when they are freed. What is read is in buffers of about a MiB, no two of one size, and
/// those that the allocator keeps, in the hope of the same again, come to half of `loader.prefetch`. To get them anew costs less
/// than a hundredth of reading into them. Not so in `forebay-torch`: libtorch's tensors are the same again.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator is told so by a call to C")]
fn keep_no_large_buffers() {
    // SAFETY: called before there are other threads; the allocator checks the values.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BUFFER) };
}

#[cfg(not(target_env = "gnu"))]
fn keep_no_large_buffers() {}

fn main() -> ExitCode {
    keep_no_large_buffers();
    output::start_logging();
    failure::report(match Cli::parse().verb {
        Verb::Ingest(verb) => verb.run(),
        Verb::Dataset(verb) => verb.run(),
        Verb::Loader(verb) => verb.run(),
        Verb::Train(verb) => verb.run(),
        Verb::Coordinator(verb) => verb.run(),
        Verb::Replica(verb) => verb.run("replica"),
        Verb::Checkpoint(verb) => verb.run(),
        Verb::Eval(verb) => verb.run("eval"),
        Verb::Generate(verb) => verb.run("generate"),
        Verb::Doctor(verb) => verb.run("doctor"),
    })
}
