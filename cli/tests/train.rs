//! Training through the command: world sizes, kills, freezes and resumption end at the same weights.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::Lake;

const DEADLINE: Duration = Duration::from_secs(120);

/// A run that goes on while the test does something to it.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(lake: &Lake, arguments: &[&str]) -> Self {
        let mut child = lake
            .command(&[&["train", "run.toml", "--json"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let (sender, lines) = channel();
        let errors = BufReader::new(child.stderr.take().expect("stderr"));
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The process id of replica `name`, from the line that says that it was started.
    fn pid(&self, name: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let line = self.lines.recv_timeout(DEADLINE).expect("a line of progress");
            if let Some((_, pid)) = line.split_once(&format!("replica {name} started, pid ")) {
                return pid.trim().to_owned();
            }
        }
        panic!("replica {name} was not started")
    }

    fn end(self) -> Value {
        let output = self.child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{}: {:?}", output.status, self.lines.try_iter().collect::<Vec<_>>());
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([name, pid]).status().expect("kill").success(), "kill {name} {pid}");
}

fn wait_for_checkpoint(lake: &Lake, run: &str) -> u64 {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        let output = lake.run(&["checkpoint", "log", "lake/runs", run, "--json"]);
        if let Some(step) =
            serde_json::from_slice::<Value>(&output.stdout).ok().and_then(|log| log["checkpoints"][0]["position"]["step"].as_u64())
        {
            return step;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no checkpoint of {run}")
}

fn validation_loss(lake: &Lake, run: &str) -> f64 {
    lake.json(&["eval", "lake/runs", run])["loss"].as_f64().expect("loss")
}

fn ingested() -> Lake {
    let lake = Lake::new();
    lake.json(&["ingest", "pipeline.toml"]);
    lake
}

#[test]
fn any_number_of_replicas_sees_the_same_samples_and_ends_at_the_same_weights() {
    let lake = ingested();
    let train = |name: &str, replicas: &str, reduce: &str| {
        let settings = ["--set", &format!("name={name}"), "--set", &format!("reduce={reduce}")];
        let trained = lake.json(&[&["train", "run.toml", "--replicas", replicas], &settings[..]].concat());
        assert_eq!((&trained["step"], &trained["samples"]), (&60.into(), &960.into()), "{trained}");
        (trained["samples_digest"].clone(), trained["weights_sha256"].clone())
    };
    let alone = train("alone", "1", "strict");
    for replicas in ["2", "3", "5"] {
        assert_eq!(train(&format!("strict-{replicas}"), replicas, "strict"), alone);
    }
    // Sums in another order are rounded otherwise, and training makes more of it.
    assert_eq!(train("fast", "3", "fast").0, alone.0);
    let (loss, other) = (validation_loss(&lake, "alone"), validation_loss(&lake, "fast"));
    assert!((loss - other).abs() < 0.05, "{loss} {other}");
}

#[test]
fn hidden_tokens_are_the_same_for_any_number_of_replicas() {
    let lake = Lake::new();
    lake.json(&["ingest", "pipeline.toml", "--set", "tokenizer.mask=true"]);
    let train = |name: &str, replicas: &str, settings: &[&str]| {
        let set: Vec<String> = settings.iter().map(|setting| format!("--set={setting}")).collect();
        let name = format!("--set=name={name}");
        let set = set.iter().map(String::as_str);
        let trained = ["train", "run.toml", "--set=reduce=strict", "--replicas", replicas, &name];
        let trained = lake.json(&trained.into_iter().chain(set).collect::<Vec<_>>());
        (trained["samples_digest"].clone(), trained["weights_sha256"].clone())
    };
    let spans = ["augment.spans.density=0.25", "augment.spans.mean_length=2.0"];
    let alone = train("alone", "1", &spans);
    assert_eq!(train("together", "3", &spans), alone);
    // What is fed is another thing than without, and than with what is hidden alone scored.
    assert_ne!(train("plain", "1", &[]).0, alone.0);
    assert_ne!(train("gaps", "1", &[&spans[..], &["augment.spans.scored=hidden"]].concat()).0, alone.0);
    for (first, second) in [("alone", "plain"), ("alone", "gaps")] {
        assert!((validation_loss(&lake, first) - validation_loss(&lake, second)).abs() > 1e-3, "{first} and {second} learnt the same");
    }
    let report = std::fs::read_to_string(lake.path("lake/runs/alone/report.html")).expect("report");
    assert!(report.contains("What samples were waited for") && report.contains("collate"), "the account of waits");

    lake.json(&["ingest", "pipeline.toml", "--set", "dataset=lake/unmasked"]);
    let unmasked = ["run.toml", "--set", "dataset=lake/unmasked", "--set", "name=x", "--set", "augment.spans.density=0.1"];
    for verb in [&["train"][..], &["loader", "bench"]] {
        let error = lake.error(2, &[verb, &unmasked].concat());
        assert!(error.contains("`augment.spans`") && error.contains("tokenizer.mask = true"), "{error}");
    }
}

#[test]
fn documents_become_tokens_on_the_way_and_a_model_learns_and_speaks() {
    let lake = ingested();
    lake.json(&["ingest", "pipeline.toml", "--set", "dataset=lake/documents", "--set", "output=documents"]);
    let shown = lake.json(&["dataset", "show", "lake/code"]);
    let tokenizer = lake.path("lake/code").join(shown["tokenizer"]["object"]["path"].as_str().expect("path"));
    std::fs::copy(tokenizer, lake.path("tokenizer.json")).expect("tokenizer");
    let tokenizing = "[tokenizer]\nfile = 'tokenizer.json'\nsequence_length = 64\n";
    lake.write("documents.toml", support::RUN.replace("lake/code", "lake/documents") + tokenizing);
    let train = |name: &str, replicas: &str| {
        let name = format!("--set=name={name}");
        lake.json(&["train", "documents.toml", "--replicas", replicas, "--set=batch.steps=150", "--set=reduce=strict", &name])
    };
    let (alone, together) = (train("alone", "1"), train("together", "3"));
    assert_eq!((&alone["samples_digest"], &alone["samples"]), (&together["samples_digest"], &2_400.into()));
    let evaluated = lake.json(&["eval", "lake/runs", "alone"]);
    let loss = evaluated["loss"].as_f64().expect("loss");
    assert!(loss < f64::from(512).ln() - 1.0, "{loss} nats, of a model that knows nothing {:.1}", f64::from(512).ln());
    assert_eq!(alone["weights_sha256"], together["weights_sha256"]);
    let spoken = lake.json(&["generate", "lake/runs", "alone", "--prompt", "pub fn ", "--tokens", "4"]);
    assert!(spoken["text"].as_str().is_some_and(|text| text.starts_with("pub fn ")), "{spoken}");
    let bench = lake.json(&["loader", "bench", "documents.toml", "--steps", "20"]);
    assert!(bench["work"]["decode"].as_f64().is_some_and(|seconds| seconds > 0.0) && bench["samples"] == 320, "{bench}");
    let plan = |set: &str| lake.json(&["loader", "plan", "documents.toml", "--set", set])["micro_batches"][0].clone();
    let (first, other) = (plan("seed=7"), plan("tokenizer.sequence_length=32"));
    assert!(first["samples"] == other["samples"] && first["digest"] != other["digest"], "{first} {other}");

    let bench = |arguments: &[&str]| lake.error(2, &[&["loader", "bench", "documents.toml"], arguments].concat());
    assert!(bench(&["--set", "tokenizer.file=none.json"]).contains("setting `tokenizer.file`: found no `none.json`"));
    assert!(bench(&["--set", "dataset=lake/code"]).contains("expected a dataset of documents"));
    let error = lake.error(2, &["loader", "bench", "run.toml", "--set", "dataset=lake/documents"]);
    assert!(error.contains("`tokenizer.file`"), "{error}");
    // A run goes on with the tokenizer that it began with, or not at all.
    let text = std::fs::read_to_string(lake.path("tokenizer.json")).expect("tokenizer");
    lake.write("tokenizer.json", format!("{text} "));
    let error = lake.error(2, &["train", "documents.toml", "--set=name=alone", "--set=batch.steps=151"]);
    assert!(error.contains("alone"), "{error}");
}

#[test]
fn a_killed_and_a_frozen_replica_cost_no_step_no_sample_and_no_bit() {
    let lake = ingested();
    let long = ["--set", "batch.steps=600", "--set", "checkpoint.every_steps=50", "--set", "reduce=strict"];
    let calm = lake.json(&[&["train", "run.toml", "--set", "name=calm"], &long[..]].concat());
    let running = Running::start(&lake, &[&["--replicas", "3", "--set", "name=stormy"], &long[..]].concat());
    let (frozen, killed) = (running.pid("r0"), running.pid("r1"));
    wait_for_checkpoint(&lake, "stormy");
    signal("-KILL", &killed);
    signal("-STOP", &frozen);
    let back = running.pid("r1");
    std::thread::sleep(Duration::from_millis(1500));
    signal("-CONT", &frozen);
    assert_ne!(back, killed);
    let stormy = running.end();
    for figure in ["step", "samples", "samples_digest", "weights_sha256"] {
        assert_eq!(stormy[figure], calm[figure], "{figure}");
    }
    let faults = stormy["faults"].as_array().expect("faults");
    assert!(faults.iter().any(|fault| fault["replica"] == "r1"), "{faults:?}");
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let lake = ingested();
    let long = ["--set", "batch.steps=400", "--set", "reduce=strict"];
    let whole = lake.json(&[&["train", "run.toml", "--set", "name=whole"], &long[..]].concat());
    let mut running = Running::start(&lake, &[&["--replicas", "2", "--set", "name=resumed"], &long[..]].concat());
    let replicas = [running.pid("r0"), running.pid("r1")];
    wait_for_checkpoint(&lake, "resumed");
    running.child.kill().expect("kill");
    running.child.wait().expect("wait");
    let resumed = lake.json(&[&["train", "run.toml", "--replicas", "2", "--set", "name=resumed"], &long[..]].concat());
    // The replicas of the killed run look for their coordinator for a while; they are of no use to anybody.
    replicas.iter().for_each(|pid| drop(Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status()));
    for figure in ["step", "samples", "weights_sha256"] {
        assert_eq!(resumed[figure], whole[figure], "{figure}");
    }
    lake.json(&["checkpoint", "verify", "lake/runs", "resumed"]);
    let done = lake.json(&[&["train", "run.toml", "--set", "name=resumed"], &long[..]].concat());
    assert_eq!(done["step"], 400, "a run that is done says so again");
}

#[test]
fn epochs_are_steps_of_the_version_that_a_run_began_with() {
    let lake = Lake::new();
    lake.write("run.toml", support::RUN.replace("steps = 60", "epochs = 2"));
    let ingest = |url: &str| {
        lake.json(&["ingest", "pipeline.toml", "--set", &format!("source.url={url}")]);
        lake.json(&["dataset", "show", "lake/code"])["tables"]["train"]["rows"].as_u64().expect("rows")
    };
    // All rows twice, 16 samples a step.
    let steps = |rows: u64| (2 * rows).div_ceil(16);
    let rows = ingest("raw/store");
    let mut running = Running::start(&lake, &["--set", "name=begun"]);
    let replica = running.pid("r0");
    wait_for_checkpoint(&lake, "begun");
    running.child.kill().expect("kill");
    running.child.wait().expect("wait");
    let later = ingest("raw/schemas");
    assert_ne!(steps(rows), steps(later));

    let begun = ["train", "run.toml", "--set", "name=begun"];
    let resumed = lake.json(&begun);
    drop(Command::new("kill").args(["-KILL", &replica]).stderr(Stdio::null()).status());
    assert_eq!(
        (&resumed["step"], &resumed["samples"]),
        (&steps(rows).into(), &(16 * steps(rows)).into()),
        "the version that it began with"
    );
    assert_eq!(lake.json(&begun)["step"], resumed["step"], "a run that is done says so again");
    assert_eq!(lake.json(&["train", "run.toml", "--set", "name=later"])["step"], steps(later));
}

/// `infra/chaos` by hand does more; here the driver and its audit are run for a few faults.
#[test]
fn a_storm_on_every_process_costs_no_step_no_sample_and_no_bit() {
    let lake = ingested();
    lake.write("run.toml", support::RUN.replace("seed = 7", "seed = 7\nreduce = 'strict'").replace("'1000ms'", "'500ms'"));
    let seed = std::env::var("FOREBAY_CHAOS_SEED").unwrap_or_else(|_| "5".to_owned());
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/chaos/chaos.py");
    let output = Command::new("python3")
        .args([driver, "--forebay", env!("CARGO_BIN_EXE_forebay"), "--replicas", "3", "--faults", "8", "--pause", "0.6", "--json"])
        .args(["--seed", &seed, "--lake"])
        .arg(lake.path("."))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3");
    let (found, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "seed {seed}: {found}\n{errors}");
    let found: Value = serde_json::from_str(&found).expect("one JSON object");
    assert!(found["faults"].as_object().is_some_and(|faults| !faults.is_empty()), "{found}");
}

#[test]
fn the_model_learns_and_speaks() {
    let lake = ingested();
    let trained = lake.json(&["train", "run.toml", "--set", "batch.steps=150", "--set", "checkpoint.keep=2"]);
    let evaluated = lake.json(&["eval", "lake/runs"]);
    let (loss, entropy) = (evaluated["loss"].as_f64().expect("loss"), evaluated["unigram_entropy_nats"].as_f64().expect("entropy"));
    assert!(loss < entropy, "loss {loss}, unigram entropy {entropy}");
    assert!((evaluated["perplexity"].as_f64().expect("perplexity") - loss.exp()).abs() < 1e-6 * loss.exp());
    let spoken =
        |seed: &str| lake.json(&["generate", "lake/runs", "tiny", "--prompt", "pub fn ", "--tokens", "8", "--seed", seed])["text"].clone();
    assert_eq!(spoken("1"), spoken("1"));
    assert!(spoken("1").as_str().is_some_and(|text| text.starts_with("pub fn ")));
    let log = lake.json(&["checkpoint", "log", "lake/runs", "tiny"]);
    assert_eq!(log["checkpoints"].as_array().map(Vec::len), Some(2));
    assert_eq!(log["checkpoints"][0]["weights_sha256"], trained["weights_sha256"]);
    let report = trained["report"].as_str().expect("report");
    let html = std::fs::read_to_string(report.trim_start_matches("file://")).expect("report");
    assert!(html.contains("<svg") && html.contains("Conservation") && !html.contains("http://"), "self-contained");
}

#[test]
fn bad_runs_are_refused_by_name() {
    let lake = ingested();
    lake.json(&["train", "run.toml", "--set", "batch.steps=20"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let taken = listener.local_addr().expect("address").to_string();
    let endless = "weight = [[0, 1], [5, 0]]\nmixture = [{ dataset = 'lake/code' }]";
    lake.write("endless.toml", support::RUN.replace("seed = 7", endless).replace("steps = 60", "epochs = 2"));
    let cases: [(i32, &[&str], &[&str]); 8] = [
        (2, &["train", "run.toml", "--set", "model.width=33"], &["model.width", "33"]),
        (2, &["train", "endless.toml", "--set", "name=x"], &["batch.epochs", "epoch 2", "never ends"]),
        (1, &["train", "run.toml", "--set", "version=7", "--set", "name=x"], &["7"]),
        (1, &["train", "run.toml", "--set", "dataset=lake/none", "--set", "name=x"], &["lake/none"]),
        (2, &["train", "run.toml", "--set", "seed=8"], &["tiny", "name"]),
        (1, &["train", "run.toml", "--set", "name=x", "--listen", &taken], &[&taken]),
        (2, &["replica", "--coordinator", "http://127.0.0.1:1"], &["FOREBAY_TOKEN"]),
        (2, &["eval", "lake/nowhere"], &["lake/nowhere"]),
    ];
    for (code, arguments, names) in cases {
        let error = lake.error(code, arguments);
        assert!(names.iter().all(|name| error.contains(name)), "{arguments:?} -> {error}");
    }
}

#[test]
fn a_truncated_checkpoint_is_refused() {
    let lake = ingested();
    lake.json(&["train", "run.toml", "--set", "batch.steps=20"]);
    let manifest = lake.json(&["checkpoint", "show", "lake/runs", "tiny"]);
    let object = lake.path("lake/runs/tiny").join(manifest["model"]["path"].as_str().expect("path"));
    let bytes = std::fs::read(&object).expect("model");
    std::fs::write(&object, &bytes[..bytes.len() / 2]).expect("truncate");
    for verb in [&["checkpoint", "verify", "lake/runs", "tiny"][..], &["eval", "lake/runs", "tiny"], &["generate", "lake/runs", "tiny"]] {
        let error = lake.error(1, verb);
        assert!(error.contains("objects/"), "{verb:?} -> {error}");
    }
}
