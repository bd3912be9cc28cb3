use super::*;
use crate::engine::tests::{gpt_engine, resnet_engine};

fn scrambled(engine: &Engine) {
    let _guard = tch::no_grad_guard();
    for (_, mut tensor) in engine.weights().into_iter().chain(engine.optimizer_state()) {
        let _ = tensor.uniform_(-1.0, 1.0);
    }
}

#[test]
fn a_snapshot_comes_back_bit_for_bit() {
    for engine in [gpt_engine, resnet_engine] {
        let (saved, restored) = (engine(), engine());
        scrambled(&saved);
        let snapshot = Snapshot::take(&saved).expect("snapshot");
        assert_ne!(Snapshot::take(&restored).expect("snapshot"), snapshot);
        let encoded = snapshot.encode().expect("encoded");
        load(&restored.weights(), &encoded.model, "model").expect("weights");
        load(&restored.optimizer_state(), &encoded.optimizer, "optimizer").expect("state");
        assert_eq!(Snapshot::take(&restored).expect("snapshot"), snapshot);
        assert_eq!(Snapshot::take(&restored).expect("snapshot").weights_sha256(), encoded.weights_sha256);
    }
}

#[test]
fn a_truncated_object_is_corrupt_and_changes_no_weight() {
    let engine = gpt_engine();
    let before = Snapshot::take(&engine).expect("snapshot");
    let encoded = before.encode().expect("encoded");
    scrambled(&engine);
    let scrambled = Snapshot::take(&engine).expect("snapshot");
    for length in [0, 4, 100, encoded.model.len() - 1] {
        let error = load(&engine.weights(), &encoded.model[..length], "objects/m").expect_err("truncated");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("objects/m"), "{error}");
    }
    assert_eq!(Snapshot::take(&engine).expect("snapshot"), scrambled);
}

#[test]
fn tensors_of_another_model_are_named() {
    let encoded = Snapshot::take(&gpt_engine()).expect("snapshot").encode().expect("encoded");
    let error = load(&resnet_engine().weights(), &encoded.model, "m").expect_err("another model");
    assert_eq!(error.kind(), Kind::Corrupt);
    let mut renamed = gpt_engine().weights();
    renamed[0].0 = "other".to_owned();
    assert!(load(&renamed, &encoded.model, "m").expect_err("name").to_string().contains("`other`"));
    let mut reshaped = gpt_engine().weights();
    reshaped[0].1 = Tensor::zeros([3, 2], (Scalar::Float, tch::Device::Cpu));
    let error = load(&reshaped, &encoded.model, "m").expect_err("shape").to_string();
    assert!(error.contains("[50, 32]") && error.contains("[3, 2]"), "{error}");
}

#[test]
fn the_digest_of_weights_ignores_their_order_and_sees_every_bit() {
    let snapshot = Snapshot::take(&gpt_engine()).expect("snapshot");
    let mut turned = snapshot.clone();
    turned.model.reverse();
    assert_eq!(turned.weights_sha256(), snapshot.weights_sha256());
    turned.model[0].bytes[0] ^= 1;
    assert_ne!(turned.weights_sha256(), snapshot.weights_sha256());
}
