//! A temporary folder with raw files, and ingests of them as real processes.
//!
//! Deliberately absent: what a result must be; the tests say that.

use std::io::Read;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::folder::Folder;

/// Longer than any run here takes, on whatever machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A folder where the command is run.
pub(crate) struct Lake {
    folder: Folder,
    variables: Vec<(String, String)>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) errors: String,
    /// Largest resident set seen.
    pub(crate) peak_bytes: u64,
    pub(crate) took: Duration,
}

impl Deref for Lake {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Lake {
    pub(crate) fn new(pipeline: &str) -> Self {
        let lake = Self { folder: Folder::new(), variables: Vec::new() };
        lake.write("pipeline.toml", pipeline);
        lake
    }

    /// The same with environment variables for its processes.
    pub(crate) fn with_variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Starts the command in this folder.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts")
    }

    /// Starts an ingest into `dataset`.
    pub(crate) fn start_ingest(&self, dataset: &str, more: &[&str]) -> Child {
        self.start(&[&["ingest", "pipeline.toml", "--json", "--set", &format!("dataset={dataset}")], more].concat())
    }

    pub(crate) fn ingest(&self, dataset: &str, more: &[&str]) -> Ended {
        end(self.start_ingest(dataset, more))
    }

    /// Runs a command that must succeed, and gives its object.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        end(self.start(&[arguments, &["--json"]].concat())).json()
    }
}

impl Ended {
    /// The object that it printed; it must have succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.errors);
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in:\n{}", self.text))
    }

    /// Version, conservation table and digest of an ingest; the table must add up.
    pub(crate) fn facts(&self) -> Value {
        let mut facts = self.json();
        let count = |value: &Value| value.as_u64().expect("count");
        let total = |counts: &Value| counts.as_object().expect("counts").values().map(count).sum::<u64>();
        let sum = count(&facts["kept"]) + total(&facts["removed"]) + total(&facts["quarantined"]);
        assert_eq!(count(&facts["read"]), sum, "{facts}");
        let object = facts.as_object_mut().expect("object");
        for name in ["committed", "seconds", "stages"] {
            object.remove(name).unwrap_or_else(|| panic!("{name} is missing"));
        }
        facts
    }

    /// Whether it neither succeeded nor failed in an orderly way.
    pub(crate) fn has_crashed(&self) -> bool {
        !matches!(self.code, Some(0..=2)) || self.errors.contains("panicked")
    }
}

/// Waits for a process, and watches its memory meanwhile.
pub(crate) fn end(mut child: Child) -> Ended {
    let start = Instant::now();
    let mut peak_bytes = 0;
    let errors = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        })
    });
    while child.try_wait().expect("wait").is_none() {
        peak_bytes = peak_bytes.max(peak(child.id()));
        if start.elapsed() > DEADLINE {
            child.kill().expect("kill");
            panic!("still at work after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let took = start.elapsed();
    let errors = errors.map(|thread| thread.join().expect("reader").expect("standard error")).unwrap_or_default();
    let Output { status, stdout, .. } = child.wait_with_output().expect("wait");
    Ended { code: status.code(), text: String::from_utf8_lossy(&stdout).into_owned(), errors, peak_bytes, took }
}

/// The high-water mark of a process's resident set; 0 where the system does not tell.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// A suite of the test data, unpacked; none without test data.
pub(crate) fn unpacked(suite: &str) -> Option<tempfile::TempDir> {
    let archive = std::env::var_os("FOREBAY_TEST_DATA").map(|data| Path::new(&data).join(format!("{suite}.tar.zst")));
    let Some(archive) = archive.filter(|archive| archive.exists()) else {
        eprintln!("skipped: no test data ({suite})");
        return None;
    };
    let folder = tempfile::tempdir().expect("folder");
    let packed = std::fs::File::open(archive).expect("archive");
    tar::Archive::new(zstd::Decoder::new(packed).expect("zstd")).unpack(folder.path()).expect("archive");
    Some(folder)
}
