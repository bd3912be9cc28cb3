//! Text: documents that become tokens on the way, and tokens that are hidden.

use std::collections::BTreeMap;

use forebay_loader::{Batch, Error, Kind, Loader, Masked, Masking, MicroBatch, StreamOptions, Transform, pin};
use forebay_schemas::dataset::TableFormat;
use forebay_schemas::run::{Loading, Run, Scored, Spans};
use forebay_schemas::units::Millis;
use forebay_tokens::{Encoder, Tokenizer};

use super::lake::{LENGTH, Lake};
use super::{all, ordering};

/// Documents of 1 to some 60 words.
fn document(row: u64) -> String {
    let words = 1 + row * row % 61;
    (0..words).map(|word| format!("word{} of row {row}, größe {}\n", word % 7, (row + word) % 13)).collect()
}

fn tokenizer(texts: &[String], mask: bool) -> Tokenizer {
    Tokenizer::from_json(&forebay_tokens::train(texts, 400, mask).expect("trained")).expect("tokenizer")
}

fn open(lake: &Lake, (k, b): (u32, u32), transform: &Transform) -> Loader {
    load(lake, (k, b), transform, &Loading::default())
}

fn load(lake: &Lake, (k, b): (u32, u32), transform: &Transform, loading: &Loading) -> Loader {
    let (sources, order) = ([lake.source()], ordering(k, b));
    lake.runtime.block_on(Loader::open(&sources, "train", &order, transform.clone(), loading)).expect("loader")
}

/// What a batch of tokens holds.
fn tokens(batch: &Batch) -> (&[u32], Option<&Masked>) {
    let Batch::Tokens { ids, masked, .. } = batch else { panic!("tokens") };
    (ids, masked.as_ref())
}

#[test]
fn documents_become_tokens_on_the_way_the_same_for_every_world() {
    let rows = 140;
    let texts: Vec<String> = (0..rows).map(document).collect();
    let tokenizer = tokenizer(&texts, true);
    let mut encoder = Encoder::new(tokenizer.clone());
    let end = tokenizer.end_of_document();
    let encoded: Vec<Vec<u32>> = texts.iter().map(|text| [encoder.encode(text).expect("ids"), vec![end]].concat()).collect();
    let length = 48;
    let masking = Masking { spans: Spans::default(), mask: tokenizer.mask().expect("a mask") };
    let transform = Transform::Documents { tokenizer, length: length as u32, masking: Some(masking) };
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        let lake = Lake::documents(format, &texts);
        let loader = open(&lake, (5, 4), &transform);
        let mut reference: BTreeMap<(u64, u32), MicroBatch> = BTreeMap::new();
        for world in [1, 4, 7] {
            let options = StreamOptions { threads: 1 + world % 3, prefetch_bytes: 1 << 18, ..StreamOptions::default() };
            let mine = |rank: usize| (0..5).filter(|index| *index as usize % world == rank).collect::<Vec<u32>>();
            let fed = (0..world).flat_map(|rank| all(loader.stream(lake.handle(), mine(rank), 0, 21, options)));
            let fed: BTreeMap<_, _> = fed.map(|micro_batch| ((micro_batch.step, micro_batch.index), micro_batch)).collect();
            assert_eq!(fed.len(), 105);
            if world > 1 {
                assert!(fed == reference, "{format:?}, world {world}");
            } else {
                reference = fed;
            }
        }
        let (mut fed, mut windows) = (vec![0; rows as usize], BTreeMap::<u64, Vec<Vec<u32>>>::new());
        for ((step, index), micro_batch) in &reference {
            let draws = loader.plan().micro_batch(*step, *index).draws;
            let Batch::Tokens { ids, documents, .. } = &micro_batch.batch else { panic!("tokens") };
            for (place, (draw, ids)) in draws.iter().zip(ids.chunks_exact(length + 1)).enumerate() {
                let whole = &encoded[draw.row as usize];
                let shown = &ids[..whole.len().min(length + 1)];
                assert!(whole.windows(shown.len()).any(|window| window == shown), "row {}", draw.row);
                assert!(ids[shown.len()..].iter().all(|id| *id == end) && documents.tokens(place) == shown.len());
                fed[draw.row as usize] += 1;
                windows.entry(draw.row).or_default().push(ids.to_vec());
            }
        }
        assert_eq!(fed, vec![3; rows as usize], "every document once an epoch");
        let long = windows.iter().filter(|(row, _)| encoded[**row as usize].len() > 4 * length);
        let moved = long.clone().filter(|(_, windows)| windows[0] != windows[1] && windows[1] != windows[2]).count();
        assert!(moved > 40 && moved * 10 > long.count() * 9, "{moved} of the long documents show another part each epoch");
        // From any step on it is the rest of the same.
        let rest: Vec<MicroBatch> = all(loader.stream(lake.handle(), (0..5).collect(), 9, 21, StreamOptions::default()));
        assert!(rest.iter().eq(reference.range((9, 0)..).map(|(_, micro_batch)| micro_batch)));
        let mut stream = loader.stream(lake.handle(), vec![0], 0, 21, StreamOptions::default());
        while stream.next().is_some() {}
        let work = stream.work();
        assert!(work.decode > 0.0 && work.augment > 0.0, "{work:?}");
    }
}

#[test]
fn validation_shows_the_beginning_of_a_document_and_hides_nothing() {
    let texts: Vec<String> = (0..30).map(document).collect();
    let tokenizer = tokenizer(&texts, true);
    let mut encoder = Encoder::new(tokenizer.clone());
    let masking = Masking { spans: Spans::default(), mask: 1 };
    let lake = Lake::documents(TableFormat::Lance, &texts);
    let loader = open(&lake, (1, 1), &Transform::Documents { tokenizer, length: 20, masking: Some(masking) });
    let mut row = 0;
    for batch in loader.sequential(lake.handle(), 8, None, StreamOptions::default()) {
        let batch = batch.expect("batch");
        let (ids, masked) = tokens(&batch);
        assert_eq!(masked, None);
        for ids in ids.chunks_exact(21) {
            let whole = encoder.encode(&texts[row]).expect("ids");
            let shown = whole.len().min(21);
            assert_eq!(ids[..shown], whole[..shown]);
            row += 1;
        }
    }
    assert_eq!(row, 30);
}

#[test]
fn a_document_without_a_token_is_replaced_by_another_in_its_own_window() {
    let mut texts: Vec<String> = (0..40).map(document).collect();
    texts[11] = String::new();
    let lake = Lake::documents(TableFormat::Lance, &texts);
    let transform = Transform::Documents { tokenizer: tokenizer(&texts, false), length: 24, masking: None };
    let loader = open(&lake, (1, 8), &transform);
    let options = StreamOptions { corrupt_samples: 1, ..StreamOptions::default() };
    let fed = all(loader.stream(lake.handle(), vec![0], 0, 5, options));
    let replaced: Vec<_> = fed.iter().flat_map(|micro_batch| &micro_batch.replaced).collect();
    let [one] = &replaced[..] else { panic!("{replaced:?}") };
    assert_eq!((one.row, one.reason.as_str()), (11, "text: found no token, expected at least 1"));
    let mut stream = loader.stream(lake.handle(), vec![0], 0, 5, StreamOptions::default());
    let last = std::iter::from_fn(|| stream.next()).last().expect("an item").expect_err("none may be replaced");
    assert_eq!(last.to_string(), "split `train`, row 11: text: found no token, expected at least 1");
}

#[test]
fn a_document_that_has_changed_is_replaced_whether_or_not_it_is_text_still() {
    // Letters at random, so that the file holds them as they are.
    let letters = |row: u64| (0..400).map(|i| char::from(b'a' + ((row * 7919 + i * i * 31 + i * row) % 26) as u8)).collect();
    let texts: Vec<String> = (0..40).map(letters).collect();
    for verify in [true, false] {
        let lake = Lake::documents(TableFormat::Lance, &texts);
        let file = super::checks::data(lake.folder.path()).pop().expect("a file");
        let sound = std::fs::read(&file).expect("file");
        let at = |row: usize| sound.windows(400).position(|window| window == texts[row].as_bytes()).expect("text as it is");
        let transform = Transform::Documents { tokenizer: tokenizer(&texts, false), length: 24, masking: None };
        let loading = Loading { patience: Millis(0), verify, ..Loading::default() };
        let options = StreamOptions { corrupt_samples: 1, ..StreamOptions::default() };
        let epoch = |place: usize, byte: u8| {
            let mut bytes = sound.clone();
            bytes[place] = byte;
            std::fs::write(&file, bytes).expect("file");
            let mut stream = load(&lake, (1, 8), &transform, &loading).stream(lake.handle(), vec![0], 0, 5, options);
            std::iter::from_fn(|| stream.next()).collect::<Result<Vec<MicroBatch>, Error>>()
        };
        // From row 26 on the letters are those of earlier rows.
        for row in (0..26).step_by(3) {
            let place = at(row) + 9 * row;
            let byte = if verify && row % 2 == 0 { sound[place] ^ 1 << (row % 7) } else { 0xff };
            let fed = epoch(place, byte).expect("an epoch");
            let replaced: Vec<_> = fed.iter().flat_map(|micro_batch| &micro_batch.replaced).collect();
            assert!(replaced.len() == 1 && replaced[0].row == row as u64 && replaced[0].reason.contains("bytes"), "{replaced:?}");
        }
        // Too many for rows that changed one by one.
        let mut bytes = sound.clone();
        (0..26).for_each(|row| bytes[at(row)] = 0xff);
        std::fs::write(&file, bytes).expect("file");
        let options = StreamOptions { corrupt_samples: 40, ..StreamOptions::default() };
        let mut stream = load(&lake, (1, 8), &transform, &loading).stream(lake.handle(), vec![0], 0, 5, options);
        let error = std::iter::from_fn(|| stream.next()).find_map(Result::err).expect("an error");
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}

#[test]
fn what_is_hidden_is_shown_as_the_mask_and_the_targets_stay() {
    let lake = Lake::wide_tokens(TableFormat::Lance, 200);
    for scored in [Scored::All, Scored::Hidden] {
        let spans = Spans { density: 0.2, mean_length: 4.0, scored, mask_id: None };
        let loader = open(&lake, (2, 10), &Transform::Tokens { masking: Some(Masking { spans, mask: 9_999 }) });
        let (mut hidden, mut count, mut first) = (0, 0, None);
        for micro_batch in all(loader.stream(lake.handle(), vec![0, 1], 0, 20, StreamOptions::default())) {
            let (ids, masked) = tokens(&micro_batch.batch);
            let masked = masked.expect("hidden tokens");
            let rows = ids.chunks_exact(257).zip(masked.inputs.chunks_exact(256)).zip(masked.scored.chunks_exact(256));
            for ((ids, inputs), scores) in rows {
                assert_eq!(inputs[0], ids[0], "nothing foretells the first token");
                for place in 1..256 {
                    let is_hidden = inputs[place] != ids[place];
                    assert!(!is_hidden || inputs[place] == 9_999);
                    assert_eq!(scores[place - 1], scored == Scored::All || is_hidden);
                    hidden += u32::from(is_hidden);
                }
                count += 255;
            }
            // A row shows other tokens in its second epoch.
            let (draws, inputs) = (loader.plan().micro_batch(micro_batch.step, micro_batch.index).draws, &masked.inputs);
            let at = draws.iter().position(|draw| draw.row == 17).map(|at| inputs[256 * at..256 * (at + 1)].to_vec());
            match (&first, at) {
                (Some(first), Some(again)) => assert_ne!(first, &again),
                (None, Some(found)) => first = Some(found),
                (_, None) => {}
            }
        }
        let share = f64::from(hidden) / f64::from(count);
        assert!((share - 0.2).abs() < 0.005, "{share}");
    }
}

/// A run on text with these settings besides.
fn run(settings: serde_json::Value) -> Run {
    let mut run = serde_json::json!({
        "name": "x", "dataset": "d", "checkpoints": "c", "model": {"kind": "gpt", "layers": 1, "heads": 1, "width": 2},
        "batch": {"steps": 1, "micro_batches": 1, "micro_batch_size": 1},
    });
    run.as_object_mut().expect("object").extend(settings.as_object().expect("object").clone());
    serde_json::from_value(run).expect("run")
}

#[test]
fn the_mask_is_a_token_of_the_tokenizer_or_one_that_is_named() {
    let mut lake = Lake::tokens(TableFormat::Lance, 5);
    let texts = ["some text".to_owned()];
    let mut training = |mask: bool, spans: serde_json::Value| {
        let json = forebay_tokens::train(&texts, 300, mask).expect("trained");
        let object = lake.runtime.block_on(lake.dataset.put_object(json.into(), ".json")).expect("object");
        lake.manifest.tokenizer.as_mut().expect("a tokenizer").object = object;
        let run = run(serde_json::json!({"augment": {"spans": spans}}));
        let transform = lake.runtime.block_on(Transform::training(&run, &lake.dataset, &lake.manifest));
        transform.map(|transform| match transform {
            Transform::Tokens { masking: Some(masking) } => masking.mask,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(training(true, serde_json::json!({})).expect("mask"), 1);
    assert_eq!(training(false, serde_json::json!({"mask_id": 256})).expect("mask"), 256);
    let error = training(false, serde_json::json!({})).expect_err("no mask").to_string();
    assert!(error.starts_with("setting `augment.spans`: tokenizer") && error.contains("tokenizer.mask = true"), "{error}");
    let error = training(true, serde_json::json!({"mask_id": 5_000})).expect_err("no such id").to_string();
    assert!(error.starts_with("setting `augment.spans.mask_id`: found 5000, expected less than"), "{error}");
    assert_eq!(LENGTH, 8);
}

#[test]
fn a_tokenizer_is_pinned_by_its_digest() {
    let texts: Vec<String> = (0..9).map(document).collect();
    let (documents, packed) = (Lake::documents(TableFormat::Lance, &texts), Lake::tokens(TableFormat::Lance, 5));
    let file = documents.folder.path().join("tokenizer.json");
    std::fs::write(&file, forebay_tokens::train(&texts, 400, false).expect("trained")).expect("file");
    let mut first = run(serde_json::json!({"tokenizer": {"file": file, "sequence_length": 32}}));
    let pinned = |run: &mut Run| documents.runtime.block_on(pin(run));
    let training = |run: &Run, lake: &Lake| lake.runtime.block_on(Transform::training(run, &lake.dataset, &lake.manifest));
    let unpinned = first.digest();
    pinned(&mut first).expect("pinned");
    assert_ne!(first.digest(), unpinned);
    let transform = training(&first, &documents).expect("transform");
    assert_eq!(transform.tokenizer().map(Tokenizer::sha256), first.tokenizer.as_ref().and_then(|one| one.sha256.as_deref()));
    let refused = |outcome: Result<Transform, Error>, expected: &str| {
        let error = outcome.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(training(&first, &packed), "holds tokens; expected a dataset of documents");
    refused(training(&run(serde_json::json!({})), &documents), "found documents, expected tokens, or the setting `tokenizer.file`");
    std::fs::write(&file, forebay_tokens::train(&texts, 400, true).expect("trained")).expect("file");
    refused(training(&first, &documents), "with which the run began");
    let mut other = run(serde_json::json!({"tokenizer": {"file": file, "sequence_length": 32}}));
    pinned(&mut other).expect("pinned");
    assert_ne!((other.digest(), other.text_digest()), (first.digest(), first.text_digest()));
    std::fs::write(&file, b"{}").expect("file");
    refused(training(&other, &documents), "expected a Hugging Face tokenizer.json");
    std::fs::remove_file(&file).expect("file");
    refused(training(&other, &documents), "setting `tokenizer.file`: found no");
}
