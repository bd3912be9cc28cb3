//! Times training steps on random data and prints one JSON object; `infra/bench/step_time` compares it with PyTorch.
//!
//!     step_time [key=value …]     a setting of the run, for example model.width=256; kind (gpt, resnet, mlp), steps, threads,
//!                                 length, vocabulary, device, documents (in each row of tokens), world
//!
//! A step is what a replica does: its share of the K micro-batches forward and backward, the sum over `world` processes, the
//! digest of the state, clipping, the optimizer. Data is made before the clock starts.

#[path = "../../c10d/tests/processes/store.rs"]
mod store;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_c10d::{Patience, ProcessGroup};
use forebay_loader::{Documents, Numbers};
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
[batch]
steps = 1000
micro_batches = 4
micro_batch_size = 4
[model]
";
const GPT: &str = "kind = 'gpt'\nlayers = 4\nheads = 4\nwidth = 128";
const RESNET: &str = "kind = 'resnet'\ndepth = 18\nimage_size = 64";
const MLP: &str = "kind = 'mlp'\nwidth = 512\nimage_size = 64";
const WARM_UP_STEPS: u64 = 3;
const PATIENCE: Patience = Patience { operation: Duration::from_secs(60), silence: Duration::from_secs(60) };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut steps, mut threads, mut length, mut vocabulary) = (10u64, 1usize, 256i64, 4096i64);
    let (mut documents, mut device, mut model) = (1u32, Wish::Cpu, GPT);
    // Of several processes each is told its rank and where they meet.
    let (mut world, mut rank, mut folder) = (1usize, None::<usize>, String::new());
    let mut overrides = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("steps", value)) => steps = value.parse()?,
            Some(("threads", value)) => threads = value.parse()?,
            Some(("length", value)) => length = value.parse()?,
            Some(("vocabulary", value)) => vocabulary = value.parse()?,
            Some(("device", value)) => device = value.parse()?,
            Some(("documents", value)) => documents = value.parse()?,
            Some(("kind", value)) => {
                let known = [("gpt", GPT), ("resnet", RESNET), ("mlp", MLP)].into_iter().find(|(name, _)| *name == value);
                model = known.ok_or("kind: expected gpt, resnet or mlp")?.1;
            }
            Some(("world", value)) => world = value.parse()?,
            Some(("rank", value)) => rank = Some(value.parse()?),
            Some(("folder", value)) => folder = value.to_owned(),
            _ => overrides.push(argument),
        }
    }
    let Some(rank) = rank.or((world == 1).then_some(0)) else { return several(world) };
    let run: Run = layered("step_time", &format!("{SETTINGS}{model}"), [], &overrides)?;
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
                Input::packed(batches[index][..].into(), &Documents::new(rows, None).unwrap_or_default(), None, vocabulary, length)
            };
            (Engine::new(&run, &task, device)?, Box::new(inputs) as Box<dyn FnMut(usize) -> forebay_trainer::Result<Input>>)
        }
        forebay_schemas::run::Model::Resnet { image_size, .. }
        | forebay_schemas::run::Model::Vit { image_size, .. }
        | forebay_schemas::run::Model::Mlp { image_size, .. } => {
            let (side, samples) = (i64::from(*image_size), run.batch.micro_batch_size as usize);
            let mut random = random();
            let pixels: Vec<f32> = (0..samples * 3 * (side * side) as usize).map(|_| (random() % 2000) as f32 / 1000.0 - 1.0).collect();
            let labels: Vec<i64> = (0..samples).map(|_| (random() % 10) as i64).collect();
            let inputs = move |_| Input::images(Numbers::F32(pixels[..].into()), &labels, side, 10, [[0.0; 3], [1.0; 3]]);
            (Engine::new(&run, &Task::Images { classes: 10 }, device)?, Box::new(inputs) as _)
        }
    };

    if world > 1 {
        let store = Arc::new(store::FolderStore(folder.into()));
        engine.attach(Some(ProcessGroup::connect(store, "step_time", rank, world, "127.0.0.1", PATIENCE)?))?;
    }
    let micro_batches = run.batch.micro_batches as usize / world;
    let mut seconds = Vec::new();
    let mut losses = Vec::new();
    for step in 0..WARM_UP_STEPS + steps {
        let inputs: Vec<Input> = (0..micro_batches).map(&mut batches).collect::<Result<_, _>>()?;
        let started = Instant::now();
        engine.begin(false)?;
        losses.clear();
        for (index, input) in inputs.into_iter().enumerate() {
            let number = (rank * micro_batches + index) as u32;
            losses.push(engine.compute(number, input.send(device)?, index + 1 == micro_batches, Duration::ZERO)?);
        }
        let computed = engine.reduce()?;
        engine.digest(step, &computed)?;
        engine.apply(step, &computed)?;
        if step >= WARM_UP_STEPS {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    if rank > 0 {
        return Ok(());
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

/// As many processes of this program, with its arguments.
fn several(world: usize) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let place = |rank: usize| [format!("rank={rank}"), format!("folder={}", folder.path().display())];
    let start = |rank| Command::new(std::env::current_exe()?).args(std::env::args().skip(1)).args(place(rank)).spawn();
    let children: Vec<_> = (0..world).map(start).collect::<Result<_, _>>()?;
    for mut child in children {
        if !child.wait()?.success() {
            return Err("a process failed".into());
        }
    }
    Ok(())
}

fn random() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}
