//! Models made by hand, small enough to reckon what they say; damaged files.

use proptest::prelude::*;

use super::*;

/// Two words, `ja` and `nee`; two labels, `yes` and `no`; softmax.
pub(in super::super) fn tiny() -> Vec<u8> {
    file(3, None, false)
}

/// The file of the tiny model; with `grams`, n-grams of those lengths in four buckets, of which one is kept where `quantised`.
fn file(loss: i32, grams: Option<(i32, i32)>, quantised: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (shortest, longest) = grams.unwrap_or((0, 0));
    let arguments = [793_712_314, 12, 2, 5, 5, 1, 5, 1, loss, 3, 4, shortest, longest, 100];
    arguments.iter().for_each(|value: &i32| bytes.extend(value.to_le_bytes()));
    bytes.extend(1e-4f64.to_le_bytes());
    [5i32, 3, 2].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    let kept: i64 = if quantised { 1 } else { -1 };
    [9i64, kept].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    for (entry, count, kind) in [("</s>", 9i64, 0u8), ("ja", 5, 0), ("nee", 3, 0), ("__label__yes", 5, 1), ("__label__no", 3, 1)] {
        bytes.extend(entry.as_bytes());
        bytes.push(0);
        bytes.extend(count.to_le_bytes());
        bytes.push(kind);
    }
    if quantised {
        let bucket = (hash(b"<x>") % 4) as i32;
        [bucket, 0].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes.push(quantised.into());
    let rows: &[[f32; 2]] = &[[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0]];
    if quantised {
        quantised_matrix(&mut bytes, &rows[..4])
    } else {
        matrix(&mut bytes, rows)
    }
    bytes.push(0);
    matrix(&mut bytes, &[[1.0, 0.0], [0.0, 1.0]]);
    bytes
}

fn matrix(bytes: &mut Vec<u8>, rows: &[[f32; 2]]) {
    [rows.len() as i64, 2].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    rows.as_flattened().iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

/// Two parts of one value; centroid `c` of a part is `c`, and the norm of every row is half its code, which is 2.
fn quantised_matrix(bytes: &mut Vec<u8>, rows: &[[f32; 2]]) {
    bytes.push(1);
    [rows.len() as i64, 2].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes.extend((rows.len() as i32 * 2).to_le_bytes());
    bytes.extend(rows.as_flattened().iter().map(|value| *value as u8));
    [2i32, 2, 1, 1].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    (0..2).flat_map(|_| 0..256).for_each(|code| bytes.extend((code as f32).to_le_bytes()));
    bytes.extend(vec![2u8; rows.len()]);
    [1i32, 1, 1, 1].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    (0..256).for_each(|code| bytes.extend((code as f32 / 2.0).to_le_bytes()));
}

fn check(model: &[u8], text: &str, expected: Option<(&str, f32)>) {
    let model = Model::parse(model).expect("model");
    match (model.predict(text), expected) {
        (Some((label, score)), Some((expected, probability))) => {
            assert_eq!(label, expected, "{text}");
            assert!((score - probability).abs() < 1e-4, "{text}: {score} is not {probability}");
        }
        (found, expected) => assert_eq!(found, expected, "{text}"),
    }
}

#[test]
fn the_score_is_that_of_the_mean_of_the_words() {
    // The mean with the end of the line is (1, 0); of e¹ and e⁰ the first has this share.
    let sure = 1.0 / (1.0 + (-1.0f32).exp());
    check(&tiny(), "ja", Some(("yes", sure)));
    check(&tiny(), " nee\n", Some(("no", sure)));
    check(&tiny(), "ja unheard __label__no", Some(("yes", sure)));
    check(&tiny(), "", None);
    check(&tiny(), "unheard of", None);
}

#[test]
fn each_loss_has_its_own_probability() {
    let half = 1.0 / (1.0 + (-1.0f32).exp());
    for loss in [1, 2, 4] {
        check(&file(loss, None, false), "ja", Some(("yes", half)));
    }
    // Hierarchical: the one inner node sees (0, 1), so it cannot tell.
    check(&file(1, None, false), "nee", Some(("no", 0.5)));
    check(&file(2, None, false), "nee", Some(("no", half)));
}

#[test]
fn n_grams_speak_for_unknown_words() {
    // "<x>" has the n-grams "<x", "x>" and "<x>", whatever their buckets; their mean with the end of the line is (0, 3).
    check(&file(3, Some((2, 3)), false), "x", Some(("no", 1.0 / (1.0 + (-3.0f32).exp()))));
    // In the quantised model only the bucket of "<x>" is left.
    check(&file(3, Some((3, 3)), true), "x", Some(("no", 1.0 / (1.0 + (-2.0f32).exp()))));
    check(&file(3, Some((3, 3)), true), "ja", Some(("yes", 1.0 / (1.0 + (-1.0f32).exp()))));
}

#[test]
fn n_grams_are_cut_between_characters() {
    let grams = Grams { shortest: 1, longest: 2, buckets: 1 << 20, first: 0, kept: None };
    let mut found = Vec::new();
    grams.each("é语".as_bytes(), |row| found.push(row));
    let expected = ["<é", "é", "é语", "语", "语>"].map(|gram| (hash(gram.as_bytes()) % (1 << 20)) as usize);
    assert_eq!(found, expected);
}

#[test]
fn huffman_joins_the_lightest_first() {
    assert_eq!(tree(&[9, 5, 2, 1]), [(3, 2), (4, 1), (5, 0)]);
    assert_eq!(tree(&[1, 1, 1, 1]), [(3, 2), (1, 0), (4, 5)]);
    assert_eq!(tree(&[7]), []);
}

#[test]
fn a_damaged_file_says_what_is_wrong() {
    let whole = file(1, Some((2, 3)), true);
    for length in 0..whole.len() {
        let error = Model::parse(&whole[..length]).expect_err("truncated");
        assert!(error.contains("truncated") || error.contains("found"), "{length}: {error}");
    }
    let mut other = tiny();
    other[0] = 0;
    assert!(Model::parse(&other).expect_err("magic").contains("expected a fastText model"));
    let mut unsupervised = tiny();
    unsupervised[36] = 1;
    assert!(Model::parse(&unsupervised).expect_err("kind").contains("expected a classifier"));
}

proptest! {
    #[test]
    fn no_damage_panics(at in 0usize..3_000, value: u8, text in "[a-z语 \0<>]{0,20}") {
        let mut bytes = file(1, Some((2, 3)), true);
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(model) = Model::parse(&bytes) {
            let probability = model.predict(&text).map_or(0.0, |(_, probability)| probability);
            prop_assert!(probability.is_nan() || probability <= 1.0);
        }
    }
}
