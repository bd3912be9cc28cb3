//! The `forebay` command: parse, load the configuration, start, print.
//!
//! One file a verb. Exit codes: 0 done, 2 bad usage or setting, 1 anything else. With `--json` standard output carries
//! one JSON object and nothing else; progress and notes go to standard error.

mod config;
mod failure;
mod output;
mod progress;
mod run_view;
mod supervisor;

mod checkpoint;
mod coordinator;
mod dataset;
mod doctor;
#[cfg(feature = "torch")]
mod evaluate;
#[cfg(feature = "torch")]
mod generate;
mod ingest;
mod loader;
#[cfg(feature = "torch")]
mod replica;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Raw text and images to trained weights: ingest, dataset versions, loader, elastic trainer, checkpoints.
#[derive(Parser)]
#[command(name = "forebay", version, after_help = "Start with:  forebay doctor\nThen:        forebay ingest examples/rust-code.toml")]
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
    #[cfg(feature = "torch")]
    Replica(replica::Replica),
    Checkpoint(checkpoint::Checkpoint),
    #[cfg(feature = "torch")]
    Eval(evaluate::Eval),
    #[cfg(feature = "torch")]
    Generate(generate::Generate),
    Doctor(doctor::Doctor),
}

fn main() -> ExitCode {
    output::start_logging();
    failure::report(match Cli::parse().verb {
        Verb::Ingest(verb) => verb.run(),
        Verb::Dataset(verb) => verb.run(),
        Verb::Loader(verb) => verb.run(),
        Verb::Train(verb) => verb.run(),
        Verb::Coordinator(verb) => verb.run(),
        #[cfg(feature = "torch")]
        Verb::Replica(verb) => verb.run(),
        Verb::Checkpoint(verb) => verb.run(),
        #[cfg(feature = "torch")]
        Verb::Eval(verb) => verb.run(),
        #[cfg(feature = "torch")]
        Verb::Generate(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
    })
}
