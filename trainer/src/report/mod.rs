//! The report of a run: one self-contained HTML page.
//!
//! Pure: history in, text out. Shows what a person wants to know after a night: did it learn, how fast, where did the time
//! go, who was there, and where do the weights come from. Deliberately absent: scripts, fonts and anything else fetched.

mod chart;
mod history;

use std::fmt::Write;

use forebay_schemas::Waits;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::run::Run;
use forebay_schemas::wire::Timings;

pub use history::{History, Moment, Step};

use chart::{Base, Line, escape, lines, shares};

const STYLE: &str = include_str!("style.css");

/// What a report is made of.
pub struct Report<'a> {
    /// The run's settings.
    pub run: &'a Run,
    /// The dataset version that it read.
    pub dataset: &'a DatasetManifest,
    /// What happened.
    pub history: &'a History,
    /// Published checkpoints, ascending.
    pub checkpoints: &'a [CheckpointManifest],
    /// SHA-256 of the last weights.
    pub weights_sha256: &'a str,
}

impl Report<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let mut page = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        let name = escape(&self.run.name);
        let _ = write!(
            page,
            "<meta name=\"viewport\" content=\"width=device-width\"><title>{name} · Forebay run</title><style>{STYLE}</style></head><body>"
        );
        let _ = write!(page, "<h1>{name}</h1>");
        self.figures(&mut page);
        self.loss(&mut page);
        self.throughput(&mut page);
        self.time(&mut page);
        self.waits(&mut page);
        self.membership(&mut page);
        self.conservation(&mut page);
        self.lineage(&mut page);
        page.push_str("</body></html>\n");
        page
    }

    fn figures(&self, page: &mut String) {
        let steps = &self.history.steps;
        let samples: u64 = steps.values().map(|step| step.samples).sum();
        let losses = (steps.values().find_map(|step| step.loss), steps.values().rev().find_map(|step| step.loss));
        let mut figures = vec![
            ("steps", format!("{} of {}", steps.len(), self.run.batch.steps)),
            ("samples", samples.to_string()),
            ("wall time", format!("{:.1} s", self.wall_seconds())),
            ("samples/s", format!("{:.1}", samples as f64 / self.wall_seconds().max(1e-9))),
            ("faults survived", self.history.moments.iter().filter(|moment| moment.fault).count().to_string()),
        ];
        if let (Some(first), Some(last)) = losses {
            figures.push(("training loss", format!("{first:.3} → {last:.3}")));
        }
        if let Some(entropy) = self.dataset.statistics.unigram_entropy_nats {
            figures.push(("unigram entropy", format!("{entropy:.3}")));
        }
        page.push_str("<dl class=\"figures\">");
        for (name, value) in figures {
            let _ = write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        page.push_str("</dl>");
    }

    fn loss(&self, page: &mut String) {
        let points: Vec<_> = self.history.steps.iter().filter_map(|(number, step)| Some((*number as f64, step.loss?))).collect();
        let mut curves = vec![Line { name: "training loss", class: "a", points: points.clone(), stepped: false }];
        if let (Some(entropy), Some(first), Some(last)) = (self.dataset.statistics.unigram_entropy_nats, points.first(), points.last()) {
            curves.push(Line {
                name: "unigram entropy of the data",
                class: "b",
                points: vec![(first.0, entropy), (last.0, entropy)],
                stepped: false,
            });
        }
        let _ = write!(page, "<h2>Loss</h2>{}", lines("step", "nats", Base::Fit, &curves, &self.marks()));
    }

    fn throughput(&self, page: &mut String) {
        // The rate over a few steps: one alone is as noisy as the clock.
        const WINDOW: usize = 5;
        let steps: Vec<_> = self.history.steps.iter().collect();
        let rates = steps.windows(WINDOW + 1).map(|window| {
            let ((_, first), (number, last)) = (window[0], window[WINDOW]);
            let samples: u64 = window[1..].iter().map(|(_, step)| step.samples).sum();
            (*number as f64, samples as f64 * 1000.0 / last.unix_ms.saturating_sub(first.unix_ms).max(1) as f64)
        });
        let curve = Line { name: "samples a second", class: "c", points: rates.collect(), stepped: false };
        let _ = write!(page, "<h2>Throughput</h2>{}", lines("step", "samples/s", Base::Zero, &[curve], &self.marks()));
    }

    fn time(&self, page: &mut String) {
        let sum = |phase: fn(&Timings) -> f64| self.history.steps.values().map(|step| phase(&step.timings)).sum::<f64>();
        let parts = [
            ("loader", "c", sum(|p| p.data)),
            ("forward and backward", "a", sum(|p| p.compute)),
            ("all-reduce, exposed", "b", sum(|p| p.reduce)),
            ("commit", "d", sum(|p| p.commit)),
            ("optimizer", "e", sum(|p| p.apply)),
        ];
        let busy: f64 = parts.iter().map(|part| part.2).sum();
        let rest = (self.wall_seconds() - busy).max(0.0);
        let all: Vec<_> = parts.into_iter().chain([("between steps: starting, joining, checkpoints", "f", rest)]).collect();
        let _ = write!(page, "<h2>Where the time went</h2><p>Mean over replicas, summed over steps.</p>{}", shares(&all, "s"));
    }

    fn waits(&self, page: &mut String) {
        const CLASSES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let steps = &self.history.steps;
        let mut sum = Waits::default();
        steps.values().for_each(|step| sum += step.timings.waits);
        let parts: Vec<_> = sum.causes().into_iter().zip(CLASSES).map(|((cause, seconds), class)| (cause, class, seconds)).collect();
        let waited = steps.iter().map(|(number, step)| (*number as f64, 1000.0 * step.timings.waits.total()));
        let curve = Line { name: "waiting for samples", class: "c", points: waited.collect(), stepped: false };
        let _ = write!(
            page,
            "<h2>What samples were waited for</h2><p>Mean over replicas: the loader's part of the above by cause, and step by step.</p>{}{}",
            shares(&parts, "s"),
            lines("step", "ms", Base::Zero, &[curve], &self.marks())
        );
    }

    fn membership(&self, page: &mut String) {
        let points = self.history.steps.iter().map(|(number, step)| (*number as f64, f64::from(step.world))).collect();
        let curve = Line { name: "replicas", class: "d", points, stepped: true };
        let _ = write!(page, "<h2>Membership</h2>{}", lines("step", "replicas", Base::Zero, &[curve], &self.marks()));
        let start = self.history.moments.first().map_or(0, |moment| moment.unix_ms);
        page.push_str("<table><thead><tr><th>second</th><th>step</th><th>what</th></tr></thead><tbody>");
        for moment in &self.history.moments {
            let class = if moment.fault { " class=\"fault\"" } else { "" };
            let seconds = moment.unix_ms.saturating_sub(start) as f64 / 1000.0;
            let _ = write!(page, "<tr{class}><td>{seconds:.2}</td><td>{}</td><td>{}</td></tr>", moment.step, escape(&moment.what));
        }
        page.push_str("</tbody></table>");
    }

    fn conservation(&self, page: &mut String) {
        let tally = &self.dataset.tally;
        page.push_str(
            "<h2>Conservation</h2><p>Every record read is kept, removed by a rule or quarantined with a reason.</p><table><tbody>",
        );
        let mut row = |name: &str, count: u64, strong: bool| {
            let (open, close) = if strong { ("<b>", "</b>") } else { ("", "") };
            let _ = write!(page, "<tr><td>{open}{}{close}</td><td>{open}{count}{close}</td></tr>", escape(name));
        };
        row("read", tally.read, true);
        row("kept", tally.kept, true);
        tally.removed.iter().for_each(|(rule, count)| row(&format!("removed: {rule}"), *count, false));
        tally.quarantined.iter().for_each(|(reason, count)| row(&format!("quarantined: {reason}"), *count, false));
        let sum = tally.kept + tally.removed_total() + tally.quarantined_total();
        row("kept + removed + quarantined", sum, true);
        page.push_str("</tbody></table>");
    }

    fn lineage(&self, page: &mut String) {
        let (data, run) = (self.dataset, self.run);
        let rows = [
            ("raw objects", format!("{} of {}, digest {}", data.inputs.objects, data.inputs.url, data.inputs.digest)),
            ("ingest settings", data.config_digest.to_string()),
            ("dataset version", format!("{} of {}, identity {}", data.version, run.dataset, data.identity())),
            ("order", format!("seed {}, {} × {} samples a step", run.seed, run.batch.micro_batches, run.batch.micro_batch_size)),
            ("run settings", run.digest().to_string()),
            ("weights", format!("sha256 {}", self.weights_sha256)),
        ];
        page.push_str("<h2>Lineage</h2><table class=\"lineage\"><tbody>");
        for (name, value) in rows {
            let _ = write!(page, "<tr><td>{name}</td><td><code>{}</code></td></tr>", escape(&value));
        }
        page.push_str("</tbody></table><h2>Checkpoints</h2><table><thead><tr><th>step</th><th>generation</th><th>bytes</th><th>weights</th></tr></thead><tbody>");
        for checkpoint in self.checkpoints {
            let (step, bytes) = (checkpoint.position.step, checkpoint.model.bytes + checkpoint.optimizer.bytes);
            let _ = write!(
                page,
                "<tr><td>{step}</td><td>{}</td><td>{bytes}</td><td><code>{}</code></td></tr>",
                checkpoint.generation,
                escape(&checkpoint.weights_sha256)
            );
        }
        page.push_str("</tbody></table>");
    }

    fn marks(&self) -> Vec<(f64, String)> {
        self.history.moments.iter().filter(|moment| moment.fault).map(|moment| (moment.step as f64, moment.what.clone())).collect()
    }

    // Gaps between two coordinators of a run that was interrupted do not count.
    fn wall_seconds(&self) -> f64 {
        self.history.steps.values().map(|step| step.seconds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_schemas::settings::layered;

    const RUN: &str = "name='<r>'\ndataset='d'\ncheckpoints='c'\n[model]\nkind='gpt'\nlayers=2\nheads=2\nwidth=64\n[batch]\nsteps=10\nmicro_batches=4\nmicro_batch_size=2\n";
    const DATASET: &str = include_str!("../../../schemas/golden/dataset-2.json");

    fn page(history: &History) -> String {
        let run: Run = layered("r.toml", RUN, [], &[]).expect("run");
        let dataset: DatasetManifest = serde_json::from_str(DATASET).expect("manifest");
        Report { run: &run, dataset: &dataset, history, checkpoints: &[], weights_sha256: "abc" }.html()
    }

    #[test]
    fn a_run_without_a_step_has_a_page() {
        let page = page(&History::default());
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(!page.contains("NaN") && !page.contains("<r>"));
    }

    #[test]
    fn the_page_shows_faults_conservation_and_lineage_and_fetches_nothing() {
        let step = |number: u64| Step {
            unix_ms: 1000 + 100 * number,
            loss: Some(5.0 - 0.1 * number as f64),
            samples: 8,
            samples_digest: forebay_schemas::Digest::of(b""),
            seconds: 0.1,
            world: 2,
            timings: Timings { waits: Waits { decode: 0.05, ..Waits::default() }, ..Timings::default() },
        };
        let fault = Moment { unix_ms: 1500, step: 5, what: "replica r1 lost: disconnected".to_owned(), fault: true };
        let page = page(&History { steps: (0..10).map(|number| (number, step(number))).collect(), moments: vec![fault] });
        for text in [
            "replica r1 lost",
            "exact_duplicate",
            "quarantined: bad_encoding",
            "sha256 abc",
            "class=\"mark\"",
            "unigram entropy",
            "decode 0.5 s (100.0 %)",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}
