//! `forebay eval`: loss and perplexity or accuracy of a checkpoint on the validation rows.

use anyhow::Result;
use clap::Args;
use forebay_ingest::Unit;
use forebay_torch::device::choose;
use forebay_torch::evaluate::evaluate;
use forebay_trainer::Wish;

use forebay::config::runtime;
use forebay::output;
use forebay::progress::bar;
use forebay::runs::{RunName, open, pick};

/// Evaluates a checkpoint on the validation rows of the dataset version that it was trained on
#[derive(Args)]
#[command(after_help = "Example:\n  forebay eval lake/checkpoints rust-code-gpt --samples 500")]
pub(crate) struct Eval {
    #[command(flatten)]
    run: RunName,
    /// The step; the newest if left out
    #[arg(long)]
    step: Option<u64>,
    /// At most so many samples, from the first row on; all if left out
    #[arg(long)]
    samples: Option<u64>,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value_t)]
    device: Wish,
    /// Prints {step, samples, loss, perplexity or accuracy, unigram_entropy_nats}
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn run(self) -> Result<()> {
        let device = choose(self.device, 0)?;
        let runtime = runtime()?;
        let checkpoints = runtime.block_on(open(&self.run))?;
        let manifest = runtime.block_on(pick(&checkpoints, self.step))?;
        let bar = bar("evaluate", Some(0), Unit::Rows);
        let evaluated = evaluate(runtime.handle(), &checkpoints, &manifest, self.samples, device, &|done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let evaluation = evaluated?;
        if self.json {
            let mut value = serde_json::to_value(&evaluation)?;
            value["step"] = manifest.position.step.into();
            return output::json(&value);
        }
        output::line(format!("step {} on {} validation samples", manifest.position.step, output::grouped(evaluation.samples)))?;
        match evaluation.unigram_entropy_nats {
            Some(entropy) => {
                output::line(format!("  loss       {:.4} nats a token (unigram entropy of the data: {entropy:.4})", evaluation.loss))?
            }
            None => output::line(format!("  loss       {:.4} nats a sample", evaluation.loss))?,
        }
        if let Some(perplexity) = evaluation.perplexity {
            output::line(format!("  perplexity {perplexity:.2}"))?;
        }
        if let Some(accuracy) = evaluation.accuracy {
            output::line(format!("  accuracy   {:.2} %", 100.0 * accuracy))?;
        }
        Ok(())
    }
}
