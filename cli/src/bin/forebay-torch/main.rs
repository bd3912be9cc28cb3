//! The verbs of `forebay` that compute on tensors. `forebay` starts this program; nobody has to call it by its name.

mod doctor;
mod evaluate;
mod generate;
mod replica;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forebay::{failure, output};

/// The verbs of `forebay` that compute on tensors.
#[derive(Parser)]
#[command(name = "forebay", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Replica(replica::Replica),
    Eval(evaluate::Eval),
    Generate(generate::Generate),
    Doctor(doctor::Doctor),
}

fn main() -> ExitCode {
    output::start_logging();
    failure::report(match Cli::parse().verb {
        Verb::Replica(verb) => verb.run(),
        Verb::Eval(verb) => verb.run(),
        Verb::Generate(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
    })
}
