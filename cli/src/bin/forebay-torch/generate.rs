//! `forebay generate`: a few lines from a trained language model.

use anyhow::Result;
use clap::Args;
use forebay_torch::device::choose;
use forebay_torch::generate::{Sampling, generate};
use forebay_trainer::Wish;
use serde_json::json;

use forebay::config::runtime;
use forebay::output;
use forebay::runs::{RunName, open, pick};

/// Continues a text with a trained language model
#[derive(Args)]
#[command(after_help = "Example:\n  forebay generate lake/checkpoints rust-code-gpt --prompt 'pub fn new(' --tokens 80")]
pub(crate) struct Generate {
    #[command(flatten)]
    run: RunName,
    /// The step; the newest if left out
    #[arg(long)]
    step: Option<u64>,
    /// The text to continue
    #[arg(long, default_value = "/// Returns the number of ")]
    prompt: String,
    /// Tokens to add; ends sooner at the end of a document
    #[arg(long, default_value_t = 96)]
    tokens: usize,
    /// 0 always takes the likeliest token; 1 draws as the model says
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Draws among so many likeliest tokens; 0 among all
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value_t)]
    device: Wish,
    /// Prints {step, prompt, text}
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(crate) fn run(self) -> Result<()> {
        let device = choose(self.device, 0)?;
        let runtime = runtime()?;
        let checkpoints = runtime.block_on(open(&self.run))?;
        let manifest = runtime.block_on(pick(&checkpoints, self.step))?;
        let sampling = Sampling { tokens: self.tokens, temperature: self.temperature, top_k: self.top_k, seed: self.seed };
        let text = generate(runtime.handle(), &checkpoints, &manifest, &self.prompt, &sampling, device)?;
        if self.json {
            return output::json(&json!({"step": manifest.position.step, "prompt": self.prompt, "text": text}));
        }
        output::line(text)
    }
}
