//! Times training steps on random tokens and prints one JSON object; `infra/bench/step_time` compares it with eager PyTorch.
//!
//!     step_time [key=value …]     a setting of the run, for example model.width=256; steps, threads, length, vocabulary, device,
//!                                 documents (in each row of tokens)
//!
//! A step is what a lone replica does: K micro-batches forward and backward, the digest of the state, clipping, the optimizer. Data is made before
//! the clock starts.

use std::time::{Duration, Instant};

use forebay_loader::Documents;
use forebay_schemas::run::Run;
use forebay_schemas::settings::layered;
use forebay_torch::device::{choose, name};
use forebay_torch::engine::{Engine, set_threads};
use forebay_torch::model::{Input, Task};
use forebay_trainer::Wish;

const SETTINGS: &str = "
name = 'step_time'
dataset = 'none'
checkpoints = 'none'
[model]
kind = 'gpt'
layers = 4
heads = 4
width = 128
[batch]
steps = 1000
micro_batches = 4
micro_batch_size = 4
";
const WARM_UP_STEPS: u64 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut steps, mut threads, mut length, mut vocabulary) = (10u64, 1usize, 256i64, 4096i64);
    let (mut documents, mut device) = (1u32, Wish::Cpu);
    let mut overrides = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("steps", value)) => steps = value.parse()?,
            Some(("threads", value)) => threads = value.parse()?,
            Some(("length", value)) => length = value.parse()?,
            Some(("vocabulary", value)) => vocabulary = value.parse()?,
            Some(("device", value)) => device = value.parse()?,
            Some(("documents", value)) => documents = value.parse()?,
            _ => overrides.push(argument),
        }
    }
    let run: Run = layered("step_time", SETTINGS, [], &overrides)?;
    run.validate()?;
    let device = choose(device, 0)?;
    set_threads(threads);
    let (mut engine, mut batches) = match &run.model {
        forebay_schemas::run::Model::Gpt { .. } => {
            let task = Task::Text { vocabulary, length };
            let rows = run.batch.micro_batch_size as usize * (length as usize + 1);
            let mut random = random();
            let batches: Vec<Vec<u32>> =
                (0..run.batch.micro_batches).map(|_| (0..rows).map(|_| (random() % vocabulary as u64) as u32).collect()).collect();
            let row = length as u32 + 1;
            let starts: Vec<u32> = (0..documents.clamp(1, row)).map(|number| number * (row / documents.clamp(1, row))).collect();
            let inputs = move |index: usize| {
                let rows = batches[index].chunks_exact(row as usize).map(|ids| (ids, &starts[..]));
                Input::packed(&batches[index], &Documents::new(rows, None).unwrap_or_default(), None, vocabulary, length)
            };
            (Engine::new(&run, &task, device)?, Box::new(inputs) as Box<dyn FnMut(usize) -> forebay_trainer::Result<Input>>)
        }
        forebay_schemas::run::Model::Resnet { image_size, .. } | forebay_schemas::run::Model::Vit { image_size, .. } => {
            let (side, samples) = (i64::from(*image_size), run.batch.micro_batch_size as usize);
            let mut random = random();
            let pixels: Vec<f32> = (0..samples * 3 * (side * side) as usize).map(|_| (random() % 2000) as f32 / 1000.0 - 1.0).collect();
            let labels: Vec<i64> = (0..samples).map(|_| (random() % 10) as i64).collect();
            let inputs = move |_| Input::images(&pixels, &labels, side, 10);
            (Engine::new(&run, &Task::Images { classes: 10 }, device)?, Box::new(inputs) as _)
        }
    };

    let micro_batches = run.batch.micro_batches as usize;
    let mut seconds = Vec::new();
    let mut losses = Vec::new();
    for step in 0..WARM_UP_STEPS + steps {
        let started = Instant::now();
        engine.begin(false)?;
        losses.clear();
        for index in 0..micro_batches {
            let input = batches(index)?;
            losses.push(engine.compute(index as u32, &input, index + 1 == micro_batches, Duration::ZERO)?);
        }
        let computed = engine.reduce()?;
        engine.digest(step, &computed)?;
        engine.apply(step, &computed)?;
        if step >= WARM_UP_STEPS {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let parameters: usize = engine.parameters().iter().map(tch::Tensor::numel).sum();
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    println!(
        "{}",
        serde_json::json!({
            "program": "forebay", "median_seconds": seconds[seconds.len() / 2], "best_seconds": seconds[0], "steps": steps,
            "threads": threads, "device": name(device), "parameters": parameters, "loss": loss,
        })
    );
    Ok(())
}

fn random() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}
