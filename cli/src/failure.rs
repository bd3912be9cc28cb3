//! The edge where errors become one line and an exit code.
//!
//! Code 2 is for what the caller can mend in the command line or the settings, 1 for everything else. The chain of causes
//! is printed after the message, each once. Deliberately absent: backtraces; they are no help to a user.

use std::process::ExitCode;

use forebay_schemas::settings::{Invalid, SettingsError};

/// A failure that the caller can mend in the command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints a failure on standard error and gives the exit code.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("forebay: error: {}", chain(&error));
    ExitCode::from(if is_usage(&error) { 2 } else { 1 })
}

/// The messages of an error and its causes, without those that a message already holds.
pub fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let message = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = message;
        } else if !line.contains(&message) {
            line = format!("{line}: {message}");
        }
    }
    line
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<Invalid>()
            || cause.is::<SettingsError>()
            || cause.downcast_ref::<forebay_store::Error>().is_some_and(|e| e.kind() == forebay_store::Kind::Invalid)
            || cause.downcast_ref::<forebay_ingest::Error>().is_some_and(|e| e.kind() == forebay_ingest::Kind::Invalid)
            || cause.downcast_ref::<forebay_loader::Error>().is_some_and(|e| e.kind() == forebay_loader::Kind::Invalid)
            || cause.downcast_ref::<forebay_trainer::Error>().is_some_and(|e| e.kind() == forebay_trainer::Kind::Invalid)
    })
}

// `forebay dataset log | head` is not an error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}
