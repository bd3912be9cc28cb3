//! Checkpoints.

use bytes::Bytes;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::dataset::ObjectRef;
use forebay_store::{Checkpoints, Kind, Outcome};
use futures::TryStreamExt;

use crate::place::{Place, on_every_store};

on_every_store!(a_checkpoint_is_staged_published_and_read, a_truncated_checkpoint_is_corrupt, retention_keeps_what_is_named_or_newer,);

const GOLDEN: &str = include_str!("../../../schemas/golden/checkpoint-1.json");

async fn stage(checkpoints: &Checkpoints, step: u64, generation: u64) -> CheckpointManifest {
    let mut manifest: CheckpointManifest = serde_json::from_str(GOLDEN).expect("golden manifest");
    let object = |name: &'static str| {
        let bytes = Bytes::from(format!("{name} of step {step}, generation {generation}").repeat(100));
        checkpoints.stage(step, generation, "replica-0", name, bytes)
    };
    manifest.position.step = step;
    manifest.generation = generation;
    (manifest.model, manifest.optimizer) =
        (object("model.safetensors").await.expect("stage"), object("optimizer.safetensors").await.expect("stage"));
    manifest
}

async fn publish(checkpoints: &Checkpoints, step: u64) -> CheckpointManifest {
    let manifest = stage(checkpoints, step, 1).await;
    assert_eq!(checkpoints.publish(&manifest).await.expect("publish"), Outcome::Committed);
    manifest
}

async fn a_checkpoint_is_staged_published_and_read(place: Place) {
    let checkpoints = Checkpoints::open(&place.url, "run-1").await.expect("open");
    let staged = stage(&checkpoints, 100, 3).await;
    assert!(staged.model.path.starts_with("objects/00000000000000000100-3-replica-0-model"), "{}", staged.model.path);
    assert!(checkpoints.latest().await.expect("latest").is_none() && checkpoints.log().await.expect("log").is_empty());
    assert_eq!(checkpoints.publish(&staged).await.expect("publish"), Outcome::Committed);
    assert_eq!(checkpoints.publish(&staged).await.expect("publish again"), Outcome::Committed);
    let late = stage(&checkpoints, 100, 2).await;
    assert_eq!(checkpoints.publish(&late).await.expect("publish late"), Outcome::Lost);

    let second = publish(&checkpoints, 1000).await;
    assert_eq!(checkpoints.log().await.expect("log"), [staged.clone(), second.clone()]);
    assert_eq!(checkpoints.latest().await.expect("latest"), Some(second));
    assert_eq!(checkpoints.at(100).await.expect("at"), staged);
    let error = checkpoints.at(5).await.expect_err("missing");
    assert!(error.kind() == Kind::NotFound && error.to_string().ends_with("there are 100, 1000"), "{error}");
    checkpoints.verify(&staged).await.expect("verify");
    assert_eq!(Checkpoints::runs(&place.url).await.expect("runs"), ["run-1"]);
    for name in ["", "..", "a/b", ".hidden"] {
        assert_eq!(Checkpoints::open(&place.url, name).await.expect_err("name").kind(), Kind::Invalid, "{name}");
    }
}

async fn a_truncated_checkpoint_is_corrupt(place: Place) {
    let checkpoints = Checkpoints::open(&place.url, "run").await.expect("open");
    let manifest = publish(&checkpoints, 7).await;
    let ObjectRef { path, bytes, .. } = &manifest.model;
    let whole = checkpoints.get(&manifest.model).await.expect("get");

    checkpoints.location().put(path, whole.slice(..10)).await.expect("cut");
    let error = checkpoints.verify(&manifest).await.expect_err("cut");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error.to_string().contains("model.safetensors") && error.to_string().ends_with(&format!("has 10 bytes, expected {bytes}")),
        "{error}"
    );
    let error = checkpoints.publish(&manifest).await.expect_err("cut");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");

    let mut flipped = whole.to_vec();
    flipped[10] ^= 1;
    checkpoints.location().put(path, flipped.into()).await.expect("flip");
    let error = checkpoints.get(&manifest.model).await.expect_err("flipped");
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("has digest"), "{error}");

    checkpoints.location().delete(path).await.expect("delete");
    assert_eq!(checkpoints.get(&manifest.model).await.expect_err("gone").kind(), Kind::Corrupt);
    assert_eq!(checkpoints.publish(&manifest).await.expect_err("gone").kind(), Kind::NotFound);

    checkpoints.location().put("manifests/00000000000000000007.json", Bytes::from("{\"format\": 1, ")).await.expect("cut");
    let error = checkpoints.latest().await.expect_err("cut");
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("00000000000000000007.json"), "{error}");
}

async fn retention_keeps_what_is_named_or_newer(place: Place) {
    let checkpoints = Checkpoints::open(&place.url, "run").await.expect("open");
    assert_eq!(checkpoints.retain(1).await.expect("retain"), 0);
    for step in [10, 20, 30, 40] {
        publish(&checkpoints, step).await;
    }
    stage(&checkpoints, 25, 9).await;
    let coming = stage(&checkpoints, 50, 1).await;
    assert_eq!(checkpoints.retain(0).await.expect("retain"), 0);
    assert_eq!(checkpoints.retain(2).await.expect("retain"), 2);
    let steps: Vec<u64> = checkpoints.log().await.expect("log").iter().map(|manifest| manifest.position.step).collect();
    assert_eq!(steps, [30, 40]);
    for manifest in checkpoints.log().await.expect("log") {
        checkpoints.verify(&manifest).await.expect("still whole");
    }
    let objects: Vec<_> = checkpoints.location().list("objects").try_collect().await.expect("list");
    assert_eq!(objects.len(), 6, "two of steps 30, 40 and the coming 50: {objects:?}");
    assert_eq!(checkpoints.publish(&coming).await.expect("publish"), Outcome::Committed);
}
