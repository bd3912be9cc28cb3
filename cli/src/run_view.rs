//! How a run looks from outside: a progress bar while it goes on, a summary and a report at its end.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use forebay_ingest::Unit;
use forebay_schemas::Digest;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::run::Run;
use forebay_store::Checkpoints;
use forebay_trainer::membership::RunSummary;
use forebay_trainer::report::{History, Report};
use forebay_trainer::telemetry::{Cause, Event, Observer, What, read_events};
use indicatif::ProgressBar;
use serde::Serialize;

use forebay::output;
use forebay::progress::{bar, console_is_terminal};

/// Without a terminal a line is printed every so many steps.
const PLAIN_EVERY_STEPS: u64 = 25;

/// Shows the events of a run on standard error.
pub(crate) struct RunView {
    bar: ProgressBar,
    plain: bool,
    events: Option<Mutex<File>>,
}

impl RunView {
    /// A bar over the steps of `run`.
    ///
    /// Every event goes to the file `events` as well, if there is one, as it happens.
    pub(crate) fn new(run: &Run, events: Option<&Path>) -> Result<Self> {
        let open = |path: &Path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("file of events `{}`", path.display()))
        };
        let events = events.map(open).transpose()?.map(Mutex::new);
        Ok(Self { bar: bar("train", Some(run.batch.steps), Unit::Rows), plain: !console_is_terminal(), events })
    }

    /// A line above the bar.
    pub(crate) fn note(&self, line: &str) {
        if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// Ends the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish();
    }
}

impl Observer for RunView {
    fn event(&self, event: &Event) {
        if let Some(Err(error)) = self.events.as_ref().map(|file| append(file, event)) {
            self.note(&format!("an event was not written to the file of events: {error}"));
        }
        match &event.what {
            What::RunStarted { step, .. } => {
                self.bar.set_position(*step);
                self.bar.reset_eta();
            }
            What::StepCommitted { step, loss, world, .. } => {
                let loss = loss.map_or("not finite".to_owned(), |loss| format!("{loss:.3}"));
                self.bar.set_position(step + 1);
                self.bar.set_message(format!("loss {loss}, {world} replicas"));
                if self.plain && (step + 1) % PLAIN_EVERY_STEPS == 0 {
                    eprintln!("step {:>6}  loss {loss}  {world} replicas", step + 1);
                }
            }
            What::GenerationFormed { members, reason, step } => {
                self.note(&format!("step {step}: generation {} of {} ({reason})", event.generation, members.join(", ")));
            }
            What::ReplicaLost { cause: Cause::Left, .. } | What::RunFinished { .. } => {}
            What::ReplicaLost { replica, cause: Cause::Diverged, detail, step } => {
                self.note(&format!("step {step}: replica {replica} diverged, {detail}; it takes the state of the others"));
            }
            What::ReplicaLost { replica, detail, step, .. } => self.note(&format!("step {step}: replica {replica} lost, {detail}")),
            What::GenerationFailed { reason, step } => self.note(&format!("step {step}: generation {} failed, {reason}", event.generation)),
            What::CheckpointPublished { step, .. } => self.note(&format!("step {step}: checkpoint published")),
            What::ReplicaJoined { replica, pid, .. } => self.note(&format!("replica {replica} joined, pid {pid}")),
        }
    }
}

/// In one write, so that a line is whole whenever this process is killed.
fn append(file: &Mutex<File>, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    summary: &'a RunSummary,
    samples_digest: Option<Digest>,
    report: String,
}

/// Writes the report and prints what came of a run.
pub(crate) async fn finish(
    run: &Run,
    dataset: &DatasetManifest,
    checkpoints: &Checkpoints,
    summary: &RunSummary,
    report: Option<&Path>,
    json: bool,
) -> Result<()> {
    let history = History::of(&read_events(checkpoints).await?);
    let log = checkpoints.log().await?;
    let html = Report { run, dataset, history: &history, checkpoints: &log, weights_sha256: &summary.weights_sha256 }.html();
    let place = match report {
        Some(path) => {
            std::fs::write(path, html).with_context(|| format!("report `{}`", path.display()))?;
            path.display().to_string()
        }
        None => {
            const NAME: &str = "report.html";
            checkpoints.location().put(NAME, html.into()).await?;
            let folder = checkpoints.location().url().to_string();
            format!("{}/{NAME}", folder.trim_end_matches('/'))
        }
    };
    if json {
        return output::json(&Json { summary, samples_digest: history.samples_digest(), report: place });
    }
    let loss = summary.loss.map_or("not finite".to_owned(), |loss| format!("{loss:.4}"));
    output::line(format!(
        "{} steps, {} samples in {:.1} s",
        output::grouped(summary.step),
        output::grouped(summary.samples),
        summary.seconds
    ))?;
    output::line(format!("  training loss {loss} (last step)"))?;
    if let Some(entropy) = dataset.statistics.unigram_entropy_nats {
        output::line(format!("  unigram entropy of the data {entropy:.4}"))?;
    }
    output::line(format!("  weights sha256 {}", summary.weights_sha256))?;
    if let Some(digest) = history.samples_digest() {
        output::line(format!("  samples digest {digest}"))?;
    }
    for fault in &summary.faults {
        let what = if fault.cause == Cause::Diverged { "diverged" } else { "lost" };
        output::line(format!("  survived at step {}: replica {} {what}, {}", fault.step, fault.replica, fault.detail))?;
    }
    output::line(format!("  report {place}"))
}
