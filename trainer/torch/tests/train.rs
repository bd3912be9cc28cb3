//! Whole runs of a tiny model: a real dataset version, coordinator, replicas, collectives and checkpoints on this host.
//!
//! What is checked is the outcome: the weights and the samples of every step are those of an undisturbed run with one
//! replica, whatever the number of replicas and whichever of them was killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use arrow::array::{FixedSizeListArray, ListBuilder, RecordBatch, UInt16Array, UInt32Builder, UInt64Builder};
use bytes::Bytes;
use forebay_schemas::checkpoint::{CheckpointManifest, DatasetVersionRef};
use forebay_schemas::dataset::{DatasetManifest, Inputs, Modality, Statistics, TableFormat, Tally, TokenizerRef};
use forebay_schemas::record::{self, TRAIN, VALIDATION};
use forebay_schemas::run::Run;
use forebay_schemas::settings::layered;
use forebay_schemas::{Digest, RowsDigest};
use forebay_store::{Checkpoints, Dataset};
use forebay_torch::device::choose;
use forebay_torch::engine::Engine;
use forebay_torch::evaluate::evaluate;
use forebay_torch::generate::{Sampling, generate};
use forebay_torch::run::{ReplicaOptions, replica};
use forebay_trainer::membership::{Coordinator, CoordinatorOptions, RunSummary};
use forebay_trainer::telemetry::{Cause, Event, Observer, What};
use forebay_trainer::{Error, Kind, Wish};
use tokio::runtime::Runtime;

const TOKEN: &str = "the token of the tests";
const LENGTH: usize = 16;
const VOCABULARY: u32 = 32;
const STEPS: u64 = 60;
const COORDINATOR: &str = "FOREBAY_TEST_COORDINATOR";

/// A folder with a dataset version, and runs on it.
struct Lake {
    runtime: Runtime,
    folder: tempfile::TempDir,
    dataset: DatasetVersionRef,
}

/// How a run ended.
struct Ended {
    summary: RunSummary,
    /// Step and digest of its samples, in the order of the commits.
    samples: Vec<(u64, Digest)>,
    checkpoints: Checkpoints,
    manifest: CheckpointManifest,
}

impl Lake {
    fn new() -> Self {
        let runtime = Runtime::new().expect("runtime");
        let folder = tempfile::tempdir().expect("folder");
        let dataset = runtime.block_on(commit_dataset(folder.path()));
        Self { runtime, folder, dataset }
    }

    fn run(&self, name: &str, overrides: &[&str]) -> Run {
        let (dataset, checkpoints) = (&self.dataset.url, self.folder.path().join("checkpoints"));
        let text = format!(
            "name='{name}'\ndataset='{dataset}'\ncheckpoints='{}'\n[model]\nkind='gpt'\nlayers=1\nheads=2\nwidth=16\n[batch]\nsteps={STEPS}\nmicro_batches=4\nmicro_batch_size=2\n[optimizer]\nkind='sgd'\nlearning_rate=0.3\nwarmup_steps=5\n[checkpoint]\nevery_steps=20\n[elastic]\nlease='2s'\n",
            checkpoints.display()
        );
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        layered(name, &text, [], &overrides).expect("settings")
    }

    fn start(&self, run: &Run, expected: usize, seen: Arc<Seen>) -> Coordinator {
        self.runtime.block_on(async {
            let options = CoordinatorOptions {
                run: run.clone(),
                dataset: self.dataset.clone(),
                checkpoints: Checkpoints::open(&run.checkpoints, &run.name).await.expect("checkpoints"),
                listen: "127.0.0.1:0".parse().expect("address"),
                advertise: None,
                token: TOKEN.to_owned(),
                expected,
                observer: seen,
            };
            Coordinator::start(options).await.expect("coordinator")
        })
    }

    fn wait(&self, run: &Run, coordinator: &Coordinator, seen: &Seen) -> Ended {
        self.runtime.block_on(async {
            let summary = coordinator.wait().await.expect("summary");
            let checkpoints = Checkpoints::open(&run.checkpoints, &run.name).await.expect("checkpoints");
            let manifest = checkpoints.latest().await.expect("log").expect("a checkpoint");
            checkpoints.verify(&manifest).await.expect("whole");
            Ended { summary, samples: seen.samples(), checkpoints, manifest }
        })
    }

    /// Trains with so many replicas, each on a thread.
    fn train(&self, run: &Run, replicas: usize) -> Ended {
        let seen = Arc::new(Seen::default());
        let coordinator = self.start(run, replicas, seen.clone());
        let threads: Vec<_> = (0..replicas)
            .map(|index| {
                let options = options(&coordinator.url(), &format!("r{index}"));
                std::thread::spawn(move || replica(options))
            })
            .collect();
        let ended = self.wait(run, &coordinator, &seen);
        for thread in threads {
            assert_eq!(thread.join().expect("thread").expect("replica").step, run.batch.steps);
        }
        ended
    }

    fn weights(&self, ended: &Ended) -> BTreeMap<String, Vec<f32>> {
        let bytes = self.runtime.block_on(ended.checkpoints.get(&ended.manifest.model)).expect("weights");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let values = |bytes: &[u8]| bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("4 bytes"))).collect();
        tensors.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
    }
}

fn options(coordinator: &str, name: &str) -> ReplicaOptions {
    ReplicaOptions {
        coordinator: coordinator.to_owned(),
        token: TOKEN.to_owned(),
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        threads: 1,
        device: device(),
        place: 0,
        watch: None,
    }
}

/// What the tests train on: `FOREBAY_TEST_DEVICE`, the CPU without.
fn device() -> Wish {
    std::env::var("FOREBAY_TEST_DEVICE").map_or(Wish::Cpu, |text| text.parse().expect("FOREBAY_TEST_DEVICE"))
}

/// What happened; tells whoever listens of every committed step.
#[derive(Default)]
struct Seen {
    events: Mutex<Vec<Event>>,
    steps: Mutex<Option<mpsc::Sender<u64>>>,
}

impl Observer for Seen {
    fn event(&self, event: &Event) {
        if let (What::StepCommitted { step, .. }, Some(listener)) = (&event.what, self.steps.lock().expect("lock").as_ref()) {
            // A listener that has heard enough is gone.
            let _ = listener.send(*step);
        }
        self.events.lock().expect("lock").push(event.clone());
    }
}

impl Seen {
    fn samples(&self) -> Vec<(u64, Digest)> {
        let events = self.events.lock().expect("lock");
        let step = |event: &Event| match &event.what {
            What::StepCommitted { step, samples_digest, .. } => Some((*step, *samples_digest)),
            _ => None,
        };
        events.iter().filter_map(step).collect()
    }

    fn listen(&self) -> mpsc::Receiver<u64> {
        let (sender, receiver) = mpsc::channel();
        *self.steps.lock().expect("lock") = Some(sender);
        receiver
    }
}

fn furthest(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f32 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().flat_map(|(name, values)| values.iter().zip(&b[name])).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A language in which every token says which comes next, but for one in eight.
fn rows(count: usize, seed: u64) -> RecordBatch {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut tokens = Vec::with_capacity(count * (LENGTH + 1));
    for _ in 0..count {
        let mut token = random() % VOCABULARY;
        for _ in 0..=LENGTH {
            tokens.push(token);
            token = if random() % 8 == 0 { random() % VOCABULARY } else { (token * 5 + 3) % VOCABULARY };
        }
    }
    let schema = record::sequences(LENGTH, record::id_bytes(VOCABULARY));
    let arrow::datatypes::DataType::FixedSizeList(item, width) = schema.field(0).data_type().clone() else { panic!("tokens") };
    let tokens =
        FixedSizeListArray::new(item, width, Arc::new(UInt16Array::from_iter_values(tokens.into_iter().map(|token| token as u16))), None);
    let field = |index: usize| match schema.field(index).data_type() {
        arrow::datatypes::DataType::List(item) => item.clone(),
        other => panic!("{other}"),
    };
    let mut documents = ListBuilder::new(UInt64Builder::new()).with_field(field(1));
    let mut starts = ListBuilder::new(UInt32Builder::new()).with_field(field(2));
    for row in 0..count {
        documents.values().append_value(row as u64);
        documents.append(true);
        starts.values().append_value(0);
        starts.append(true);
    }
    RecordBatch::try_new(schema, vec![Arc::new(tokens), Arc::new(documents.finish()), Arc::new(starts.finish())]).expect("rows")
}

async fn commit_dataset(folder: &Path) -> DatasetVersionRef {
    let dataset = Dataset::create(&folder.join("data").display().to_string()).await.expect("dataset");
    let tables = dataset.tables(TableFormat::Parquet);
    let mut written = BTreeMap::new();
    for (name, count, seed) in [(TRAIN, 300, 1), (VALIDATION, 40, 2)] {
        let stream = Box::pin(futures::stream::iter([Ok(rows(count, seed))]));
        let table = tables
            .write(&format!("tables/{name}"), None, record::sequences(LENGTH, record::id_bytes(VOCABULARY)), stream)
            .await
            .expect("table");
        written.insert(name.to_owned(), table);
    }
    let words: BTreeMap<String, u32> = (0..VOCABULARY).map(|id| (format!("w{id}"), id)).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    let object = dataset.put_object(Bytes::from(tokenizer.to_string()), ".json").await.expect("tokenizer");
    let list = dataset.put_object(Bytes::from_static(b""), ".jsonl").await.expect("inputs");
    let manifest = DatasetManifest {
        format: forebay_schemas::dataset::FORMAT,
        version: 1,
        parent: None,
        created_unix_ms: 0,
        program: "test".to_owned(),
        modality: Modality::Text,
        config_digest: Digest::of(b"config"),
        config: serde_json::json!({}),
        inputs: Inputs { url: "test".to_owned(), objects: 0, bytes: 0, digest: Digest::of(b""), list },
        tally: Tally { read: 340, kept: 340, ..Tally::default() },
        rows_digest: RowsDigest::default(),
        tables: written,
        tokenizer: Some(TokenizerRef { object, vocabulary: VOCABULARY, end_of_document: VOCABULARY - 1 }),
        statistics: Statistics {
            tokens: Some(300 * LENGTH as u64),
            sequence_length: Some(LENGTH as u32),
            unigram_entropy_nats: Some(f64::from(VOCABULARY).ln()),
            ..Statistics::default()
        },
        layout: None,
        cleaned: None,
        quality: None,
    };
    dataset.commit(&manifest).await.expect("commit");
    DatasetVersionRef { url: dataset.location().url().to_string(), version: 1, identity: manifest.identity(), mixed: Vec::new() }
}

#[test]
fn one_two_and_three_replicas_give_the_same_weights_from_the_same_samples() {
    let lake = Lake::new();
    let alone = lake.train(&lake.run("one", &[]), 1);
    assert_eq!(alone.samples.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
    assert_eq!((alone.manifest.position.step, alone.manifest.samples), (STEPS, STEPS * 8));
    assert_eq!(alone.summary.weights_sha256, alone.manifest.weights_sha256);
    for replicas in [2, 3] {
        let together = lake.train(&lake.run(&format!("of-{replicas}"), &[]), replicas);
        assert_eq!(together.samples, alone.samples);
        let distance = furthest(&lake.weights(&alone), &lake.weights(&together));
        assert!(distance < 1e-5, "{replicas} replicas: weights differ by {distance}");
    }
    // It learnt: to guess at random costs ln 32 = 3.47 nats.
    let device = choose(device(), 0).expect("device");
    let evaluation = evaluate(lake.runtime.handle(), &alone.checkpoints, &alone.manifest, None, device, &|_, _| {}).expect("evaluation");
    assert_eq!((evaluation.samples, evaluation.tokens), (40, Some(40 * LENGTH as u64)));
    assert!(evaluation.loss < 0.8 * f64::from(VOCABULARY).ln(), "{evaluation:?}");
    assert!((evaluation.perplexity.expect("text") - evaluation.loss.exp()).abs() < 1e-9 && evaluation.accuracy.is_none());
    let few = evaluate(lake.runtime.handle(), &alone.checkpoints, &alone.manifest, Some(7), device, &|_, _| {}).expect("evaluation");
    assert_eq!(few.samples, 7);

    let sampling = Sampling { tokens: 12, temperature: 0.7, top_k: 4, seed: 1 };
    let write = |sampling| generate(lake.runtime.handle(), &alone.checkpoints, &alone.manifest, "w1 w8", &sampling, device).expect("text");
    assert_eq!(write(sampling), write(sampling));
    assert!(write(sampling).starts_with("w1 w8 w"), "{}", write(sampling));
}

#[test]
fn a_run_goes_on_from_its_last_checkpoint_as_if_it_had_not_stopped() {
    let lake = Lake::new();
    let straight = lake.train(&lake.run("straight", &[]), 1);

    let run = lake.run("stopped", &[]);
    let seen = Arc::new(Seen::default());
    let steps = seen.listen();
    let coordinator = lake.start(&run, 1, seen);
    let mut child = replica_process(&coordinator.url());
    steps.iter().find(|&step| step >= 30).expect("step 30");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    drop(coordinator);

    let resumed = lake.train(&run, 1);
    assert!(resumed.samples[0].0 >= 20, "it began anew at step {}", resumed.samples[0].0);
    assert_eq!(resumed.samples, straight.samples[resumed.samples[0].0 as usize..]);
    assert_eq!(resumed.manifest.weights_sha256, straight.manifest.weights_sha256);
}

/// Trains with three replica processes, of which those named are killed once a step is committed, and another started for each.
/// Two of three, because those that come for them may take longer to start than the run to end.
fn disturbed(lake: &Lake, run: &Run, kills: [(usize, u64); 2]) -> Ended {
    let seen = Arc::new(Seen::default());
    let steps = seen.listen();
    let coordinator = lake.start(run, 3, seen.clone());
    let mut children: Vec<Child> = (0..3).map(|_| replica_process(&coordinator.url())).collect();
    for (victim, after) in kills {
        steps.iter().find(|&step| step >= after).expect("a step");
        children[victim].kill().expect("killed");
        children.push(replica_process(&coordinator.url()));
    }
    let ended = lake.wait(run, &coordinator, &seen);
    end(children);
    ended
}

#[test]
fn a_killed_replica_changes_neither_samples_nor_weights() {
    let lake = Lake::new();
    let alone = lake.train(&lake.run("undisturbed", &[]), 1);
    let ended = disturbed(&lake, &lake.run("disturbed", &[]), [(0, 8), (1, 25)]);
    assert_eq!(ended.summary.faults.len(), 2, "{:?}", ended.summary.faults);
    assert_eq!(ended.samples, alone.samples);
    let distance = furthest(&lake.weights(&alone), &lake.weights(&ended));
    assert!(distance < 1e-5, "weights differ by {distance}");
}

const STRICT: [&str; 2] = ["reduce=strict", "elastic.threads=1"];

#[test]
fn a_strict_run_ends_with_the_same_bits_whatever_the_world_and_whoever_dies() {
    let lake = Lake::new();
    let alone = lake.train(&lake.run("strict-1", &STRICT), 1);
    for replicas in [2, 3, 5] {
        let together = lake.train(&lake.run(&format!("strict-{replicas}"), &STRICT), replicas);
        assert_eq!(together.summary.weights_sha256, alone.summary.weights_sha256, "{replicas} replicas");
        assert_eq!(together.samples, alone.samples);
    }
    let ended = disturbed(&lake, &lake.run("strict-disturbed", &STRICT), [(0, 8), (1, 20)]);
    assert_eq!(ended.summary.faults.len(), 2, "{:?}", ended.summary.faults);
    assert_eq!(ended.samples, alone.samples);
    assert_eq!(ended.summary.weights_sha256, alone.summary.weights_sha256);
}

#[test]
fn a_coordinator_that_is_killed_and_started_elsewhere_costs_no_step() {
    let lake = Lake::new();
    // No checkpoint before the last: what is not lost is with the replicas.
    let settings = [&STRICT[..], &["checkpoint.every_steps=1000"]].concat();
    let alone = lake.train(&lake.run("one-coordinator", &settings), 1);
    let run = lake.run("three-coordinators", &settings);
    let seen = Arc::new(Seen::default());
    let steps = seen.listen();
    let mut coordinator = lake.start(&run, 2, seen.clone());
    let children: Vec<Child> = (0..2).map(|_| replica_process(&coordinator.url())).collect();
    for after in [15, 35] {
        steps.iter().find(|&step| step >= after).expect("a step");
        coordinator.stop();
        coordinator = lake.start(&run, 2, seen.clone());
    }
    let ended = lake.wait(&run, &coordinator, &seen);
    end(children);
    // A step that was committed when the coordinator died is committed by the next one if nobody had heard of it.
    let mut samples = ended.samples.clone();
    samples.dedup();
    assert_eq!(samples, alone.samples);
    assert!(ended.samples.len() <= alone.samples.len() + 2, "{:?}", ended.samples.len());
    assert_eq!(ended.summary.weights_sha256, alone.summary.weights_sha256);
}

/// Turns the lowest bit of one weight over, once.
fn flip(engine: &Engine, step: u64) {
    if step == 20 {
        let mut weight = engine.parameters()[1].detach().flatten(0, -1).narrow(0, 3, 1);
        let value = weight.double_value(&[0]) as f32;
        let _ = weight.fill_(f64::from(f32::from_bits(value.to_bits() ^ 1)));
    }
}

#[test]
fn a_replica_with_a_wrong_bit_is_named_and_takes_the_state_of_the_others() {
    let lake = Lake::new();
    let alone = lake.train(&lake.run("right", &STRICT), 1);
    let run = lake.run("flipped", &STRICT);
    let seen = Arc::new(Seen::default());
    let coordinator = lake.start(&run, 3, seen.clone());
    let threads: Vec<_> = (0..3)
        .map(|index| {
            let options = options(&coordinator.url(), &format!("r{index}"));
            let options = ReplicaOptions { watch: (index == 1).then_some(flip as fn(&Engine, u64)), ..options };
            std::thread::spawn(move || replica(options))
        })
        .collect();
    let ended = lake.wait(&run, &coordinator, &seen);
    for thread in threads {
        thread.join().expect("thread").expect("replica");
    }
    let [fault] = &ended.summary.faults[..] else { panic!("{:?}", ended.summary.faults) };
    assert_eq!((fault.replica.as_str(), fault.cause, fault.step), ("r1", Cause::Diverged, 20));
    assert_eq!(ended.samples, alone.samples);
    assert_eq!(ended.summary.weights_sha256, alone.summary.weights_sha256);
}

#[test]
fn a_diverging_run_ends_with_the_setting_to_change() {
    let lake = Lake::new();
    let run = lake.run("diverging", &["optimizer.learning_rate=1e30", "optimizer.clip_norm=0.0"]);
    let coordinator = lake.start(&run, 1, Arc::new(Seen::default()));
    let error = replica(options(&coordinator.url(), "r0")).expect_err("diverges");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("optimizer.learning_rate"), "{error}");
}

#[test]
fn another_dataset_than_the_one_named_is_corrupt() {
    let lake = Lake::new();
    let run = lake.run("swapped", &[]);
    let mut swapped = Lake { dataset: lake.dataset.clone(), ..lake };
    swapped.dataset.identity = Digest::of(b"another");
    let coordinator = swapped.start(&run, 1, Arc::new(Seen::default()));
    let error: Error = replica(options(&coordinator.url(), "r0")).expect_err("swapped");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("identity"), "{error}");
}

/// Starts this test program again as a replica, so that it can be killed.
fn replica_process(coordinator: &str) -> Child {
    let program = std::env::current_exe().expect("test program");
    let mut command = Command::new(program);
    command.args(["--exact", "a_replica_process", "--ignored", "--nocapture"]).env(COORDINATOR, coordinator);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started")
}

fn end(children: Vec<Child>) {
    for mut child in children {
        // One that came back late would wait for a coordinator that is no more.
        let _ = child.kill();
        child.wait().expect("reaped");
    }
}

#[test]
#[ignore = "other tests start it as a process of its own"]
fn a_replica_process() {
    let Ok(coordinator) = std::env::var(COORDINATOR) else { return };
    replica(options(&coordinator, &format!("p{}", std::process::id()))).expect("replica");
}
