use forebay_schemas::run::Model as Architecture;
use tch::{Device, Kind as Scalar};

use forebay_loader::{Arena, Documents, Masked, Numbers};

use super::*;
use crate::device::tested;

const TEXT: Task = Task::Text { vocabulary: 64, length: 16 };
const PICTURES: Task = Task::Images { classes: 10 };
const NORMALISED: [[f64; 3]; 2] = [[0.0; 3], [1.0; 3]];

fn gpt() -> Architecture {
    Architecture::Gpt { layers: 2, heads: 4, width: 32 }
}

fn values(model: &dyn Model) -> Vec<(String, Vec<f32>)> {
    model.parameters().iter().map(|(name, tensor)| (name.clone(), Vec::try_from(tensor.reshape([-1])).expect("values"))).collect()
}

#[test]
fn initial_weights_are_a_function_of_the_seed() {
    let first = values(build(&gpt(), &TEXT, 7, tested()).expect("model").as_ref());
    let noise = Tensor::randn([100], (Scalar::Float, Device::Cpu));
    assert_eq!(noise.size(), [100]);
    assert_eq!(values(build(&gpt(), &TEXT, 7, tested()).expect("model").as_ref()), first);
    assert_ne!(values(build(&gpt(), &TEXT, 8, tested()).expect("model").as_ref()), first);
}

#[test]
fn a_deeper_model_starts_with_the_same_embedding() {
    let deeper = Architecture::Gpt { layers: 3, heads: 4, width: 32 };
    let (shallow, deeper) = (build(&gpt(), &TEXT, 1, tested()).expect("model"), build(&deeper, &TEXT, 1, tested()).expect("model"));
    assert_eq!(values(shallow.as_ref())[0], values(deeper.as_ref())[0]);
}

#[test]
fn parameter_names_are_unique() {
    for (architecture, task) in [
        (gpt(), TEXT),
        (Architecture::Resnet { depth: 18, image_size: 32 }, PICTURES),
        (Architecture::Resnet { depth: 20, image_size: 32 }, PICTURES),
        (Architecture::Vit { layers: 2, heads: 2, width: 32, patch: 8, image_size: 32 }, PICTURES),
        (Architecture::Mlp { width: 64, image_size: 32 }, PICTURES),
    ] {
        let model = build(&architecture, &task, 0, tested()).expect("model");
        let mut names: Vec<&str> = model.parameters().iter().chain(model.buffers()).map(|(name, _)| name.as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{architecture:?}");
    }
}

#[test]
fn resnets_have_the_published_sizes() {
    let weights = |depth, classes| {
        let model = build(&Architecture::Resnet { depth, image_size: 32 }, &Task::Images { classes }, 0, tested()).expect("model");
        model.parameters().iter().map(|(_, tensor)| tensor.numel()).sum::<usize>()
    };
    assert_eq!(weights(18, 1000), 11_689_512);
    // He et al. count 0.27 million; two projection shortcuts and their norms come on top of 269,722.
    assert_eq!(weights(20, 10), 269_722 + (16 * 32 + 64) + (32 * 64 + 128));
}

#[test]
fn a_fresh_model_knows_nothing() {
    for (architecture, task, classes) in [
        (gpt(), TEXT, 64.0_f64),
        (Architecture::Resnet { depth: 18, image_size: 32 }, PICTURES, 10.0),
        (Architecture::Resnet { depth: 20, image_size: 32 }, PICTURES, 10.0),
        (Architecture::Vit { layers: 2, heads: 2, width: 32, patch: 8, image_size: 32 }, PICTURES, 10.0),
        (Architecture::Mlp { width: 64, image_size: 32 }, PICTURES, 10.0),
    ] {
        let model = build(&architecture, &task, 3, tested()).expect("model");
        let input = match task {
            Task::Text { vocabulary, length } => {
                let ids: Vec<u32> = (0..4 * (length + 1)).map(|i| (i * 7 % vocabulary) as u32).collect();
                Input::tokens(ids[..].into(), vocabulary, length).expect("ids")
            }
            Task::Images { .. } => {
                let pixels: Vec<f32> = (0..4 * 3 * 32 * 32).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
                images(&pixels, &[0, 3, 9, 1], 32).expect("pixels")
            }
        };
        let input = moved(input);
        let loss = model.loss(&input).expect("forward").loss.double_value(&[]);
        assert!((loss - classes.ln()).abs() < 0.5, "{architecture:?}: loss {loss}, of chance {}", classes.ln());
        let scores = model.score(&input).expect("scores");
        assert_eq!(scores.targets, if task == TEXT { 64 } else { 4 });
        assert!(scores.correct <= scores.targets && scores.loss_sum.is_finite());
    }
}

#[test]
fn a_token_sees_only_those_before_it() {
    let model = build(&gpt(), &TEXT, 5, tested()).expect("model");
    let ids = Tensor::arange(16, (Scalar::Int64, tested())).view([1, 16]);
    let whole = model.next_token(&ids.narrow(1, 0, 10)).expect("logits");
    let changed = ids.copy();
    let _ = changed.narrow(1, 10, 6).fill_(63);
    assert_eq!(model.next_token(&changed.narrow(1, 0, 10)).expect("logits"), whole);
    let _ = changed.narrow(1, 3, 1).fill_(62);
    assert_ne!(model.next_token(&changed.narrow(1, 0, 10)).expect("logits"), whole);
}

/// Rows of 17 ids and where documents begin, of which 63 ends one.
fn packed(rows: &[(&[u32], &[u32])]) -> Input {
    let documents = Documents::new(rows.iter().copied(), Some(63)).expect("places");
    let ids: Vec<u32> = rows.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    moved(Input::packed(ids[..].into(), &documents, None, 64, 16).expect("ids"))
}

fn images(pixels: &[f32], labels: &[i64], side: i64) -> Result<Input> {
    Input::images(Numbers::F32(pixels.into()), labels, side, 10, NORMALISED)
}

/// On the device of the tests.
fn moved(input: Input) -> Input {
    let input = input.send(tested()).expect("sent");
    input.arrive().expect("there");
    input
}

#[test]
fn documents_of_one_row_are_scored_as_if_each_were_alone() {
    let model = build(&gpt(), &TEXT, 5, tested()).expect("model");
    let (first, second) = ([9, 3, 14, 27, 8, 41, 5, 63], [30, 2, 17, 6, 50, 11, 9, 22, 63]);
    let filled = |document: &[u32]| document.iter().copied().chain(std::iter::repeat(63)).take(17).collect::<Vec<u32>>();
    let score = |rows: &[(&[u32], &[u32])]| model.score(&packed(rows)).expect("scores");
    let together = score(&[(&[&first[..], &second].concat(), &[0, 8])]);
    let (one, other) = (score(&[(&filled(&first), &[0])]), score(&[(&filled(&second), &[0])]));
    assert_eq!((one.targets, other.targets, together.targets), (7, 8, 15));
    assert!((together.loss_sum - one.loss_sum - other.loss_sum).abs() < 1e-4, "{together:?} {one:?} {other:?}");
    // Without boundaries the second document sees the first, and is another's continuation.
    let joined = score(&[(&[&first[..], &second].concat(), &[0])]);
    assert!(joined.targets == 16 && (joined.loss_sum - together.loss_sum).abs() > 0.01, "{joined:?}");
    // A row of one document takes the way without a mask, and is the same with it.
    let mixed = score(&[(&[&first[..], &second].concat(), &[0, 8]), (&filled(&second), &[0])]);
    assert!((mixed.loss_sum - together.loss_sum - other.loss_sum).abs() < 1e-4, "{mixed:?}");
}

#[test]
fn a_hidden_token_is_shown_as_the_mask_and_foretold_as_itself() {
    let model = build(&gpt(), &TEXT, 5, tested()).expect("model");
    let ids: Vec<u32> = (1..18).collect();
    let documents = Documents::new([(&ids[..], &[0][..])], Some(63)).expect("places");
    let score = |hidden: &[usize], scored: Vec<bool>| {
        let shown: Vec<u32> = (0..16).map(|place| if hidden.contains(&place) { 60 } else { ids[place] }).collect();
        let masked = Masked { inputs: Arena::from(&shown[..]), scored };
        let input = moved(Input::packed(ids[..].into(), &documents, Some(masked), 64, 16).expect("ids"));
        model.score(&input).expect("scores")
    };
    let all = score(&[], vec![true; 16]);
    assert_eq!(all, model.score(&packed(&[(&ids, &[0])])).expect("scores"));
    let hidden = score(&[7, 8], vec![true; 16]);
    assert!(hidden.targets == 16 && hidden.loss_sum != all.loss_sum, "{hidden:?}");
    // Token 8 is the target of place 7, which sees the mask in place of token 7.
    let alone = score(&[7, 8], (0..16).map(|place| place == 6 || place == 7).collect());
    assert!(alone.targets == 2 && alone.loss_sum < hidden.loss_sum, "{alone:?}");
    let masked = Masked { inputs: Arena::from(&[64; 16][..]), scored: vec![true; 16] };
    assert_eq!(Input::packed(ids[..].into(), &documents, Some(masked), 64, 16).err().map(|error| error.kind()), Some(Kind::Corrupt));
    let short = Masked { inputs: Arena::from(&[1; 32][..]), scored: vec![true; 16] };
    assert_eq!(Input::packed(ids[..].into(), &documents, Some(short), 64, 16).err().map(|error| error.kind()), Some(Kind::Corrupt));
}

#[test]
fn a_micro_batch_without_a_target_has_no_loss_and_no_gradient() {
    let model = build(&gpt(), &TEXT, 5, tested()).expect("model");
    let starts: Vec<u32> = (0..17).collect();
    let loss = model.loss(&packed(&[(&[63; 17], &starts)])).expect("forward").loss;
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    let grads = model.parameters().iter().map(|(_, tensor)| tensor.grad());
    assert!(grads.filter(Tensor::defined).all(|grad| grad.abs().max().double_value(&[]) == 0.0));
}

#[test]
fn positions_matter() {
    let model = build(&gpt(), &TEXT, 5, tested()).expect("model");
    let logits = |ids: &[i64]| model.next_token(&Tensor::from_slice(ids).view([1, -1]).to_device(tested())).expect("logits");
    assert_ne!(logits(&[1, 2, 3, 4]), logits(&[2, 1, 3, 4]));
}

#[test]
fn inputs_out_of_range_are_refused() {
    assert_eq!(Input::tokens([0; 17][..].into(), 64, 16).map(|input| input.samples()).ok(), Some(1));
    for ids in [&[0; 16][..], &[64; 17], &[u32::MAX; 17], &[]] {
        assert_eq!(Input::tokens(ids.into(), 64, 16).err().map(|error| error.kind()), Some(Kind::Corrupt));
    }
    for (pixels, labels) in [(3 * 64, vec![10]), (3 * 64, vec![-1]), (3 * 63, vec![0]), (0, vec![])] {
        assert_eq!(images(&vec![0.0; pixels], &labels, 8).err().map(|error| error.kind()), Some(Kind::Corrupt));
    }
}

#[test]
fn the_wrong_model_for_the_data_is_named() {
    let error = build(&gpt(), &PICTURES, 0, tested()).err().expect("mismatch");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("model.kind"), "{error}");
    let resnet = build(&Architecture::Resnet { depth: 20, image_size: 32 }, &PICTURES, 0, tested()).expect("model");
    assert_eq!(resnet.loss(&Input::tokens([0; 17][..].into(), 64, 16).expect("ids")).err().map(|error| error.kind()), Some(Kind::Corrupt));
    assert_eq!(resnet.loss(&images(&[0.0; 192], &[0], 8).expect("pixels")).err().map(|error| error.kind()), Some(Kind::Corrupt));
}
