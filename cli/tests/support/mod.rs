//! A lake in a temporary folder, and the command run on it as a user would.

use std::ops::Deref;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

mod folder;

use folder::Folder;

/// A temporary folder with raw files, where the command is run.
pub(crate) struct Lake {
    folder: Folder,
}

impl Deref for Lake {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Lake {
    /// A lake whose raw files are this project's own Rust sources.
    pub(crate) fn new() -> Self {
        let lake = Self { folder: Folder::new() };
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for part in ["schemas", "store", "ingest", "loader", "trainer", "cli"] {
            copy_sources(&sources.join(part), &lake.path(&format!("raw/{part}")));
        }
        lake.write("pipeline.toml", PIPELINE);
        lake.write("run.toml", RUN);
        lake
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command starts")
    }

    /// Runs the command with `--json`, expects success and gives the object.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{err}", output.status);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error} in:\n{out}"))
    }

    /// Runs the command, expects this exit code, and gives its one line of error.
    pub(crate) fn error(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{text}");
        let line = text
            .lines()
            .find(|line| line.starts_with("forebay: error: "))
            .unwrap_or_else(|| panic!("{arguments:?} names no error:\n{text}"));
        assert!(!text.contains("panicked"), "{arguments:?} panicked:\n{text}");
        line.to_owned()
    }
}

/// Small enough for a test, with both kinds of duplicates switched on.
pub(crate) const PIPELINE: &str = "
dataset = 'lake/code'
[source]
modality = 'text'
url = 'raw'
include = ['**/*.rs']
[split]
validation = 0.1
[tokenizer]
vocabulary = 512
sample = '256KiB'
[pack]
sequence_length = 64
";

/// A model of some ten thousand weights: a step takes milliseconds.
pub(crate) const RUN: &str = "
name = 'tiny'
dataset = 'lake/code'
checkpoints = 'lake/runs'
seed = 7
[model]
kind = 'gpt'
layers = 2
heads = 2
width = 32
[batch]
steps = 60
micro_batches = 4
micro_batch_size = 4
[optimizer]
learning_rate = 3e-3
warmup_steps = 5
[checkpoint]
every_steps = 20
[elastic]
lease = '1000ms'
threads = 1
";

fn copy_sources(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_sources(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            std::fs::create_dir_all(to).expect("folder");
            std::fs::copy(&path, &target).expect("copy");
        }
    }
}
