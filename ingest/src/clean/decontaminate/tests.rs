//! Overlaps that must be found, and those that must not; the rolling hash against whole n-grams.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const ITEM: &str = "What is the name of the river that flows through the old capital of Austria?";

fn load(settings: &Decontaminate, files: &[(&str, &str)]) -> Result<Evaluations> {
    let settings = Decontaminate { evaluations: files.iter().map(|(place, _)| (*place).to_owned()).collect(), ..settings.clone() };
    let read = |place: &str| {
        let found = files.iter().find(|(known, _)| *known == place);
        found.map(|(_, content)| content.as_bytes().to_vec()).ok_or_else(|| "gone".to_owned())
    };
    Evaluations::load(&settings, &read)
}

fn detail(evaluations: &Evaluations, text: &str) -> Option<String> {
    evaluations.check(text).rejection().map(|rejection| rejection.detail.clone())
}

#[test]
fn wording_is_found_whatever_its_case_and_punctuation() {
    let evaluations = load(&Decontaminate::default(), &[("quiz.txt", &format!("other words\n\n{ITEM}\n"))]).expect("loads");
    let text = format!("Quoted:\n“{}” — he said.", ITEM.to_uppercase().replace(' ', ",\n"));
    assert_eq!(detail(&evaluations, &text).as_deref(), Some("3 n-grams, 3 of 3 of `quiz.txt` item 2"));
    let thirteen = "is the name of the river that flows through the old capital of";
    assert_eq!(detail(&evaluations, thirteen).as_deref(), Some("1 n-grams, 1 of 3 of `quiz.txt` item 2"));
    let twelve = "is the name of the river that flows through the old capital";
    assert_eq!(detail(&evaluations, twelve), None);
    assert_eq!(detail(&evaluations, ""), None);
}

#[test]
fn json_items_are_lines_or_elements_and_fields_are_joined_in_order() {
    let lines = format!("{{\"id\": 1, \"q\": {{\"text\": \"{ITEM}\"}}, \"a\": \"Danube\"}}\n");
    let settings = Decontaminate { fields: vec!["q.text".to_owned(), "a".to_owned()], ..Decontaminate::default() };
    let evaluations = load(&settings, &[("a.jsonl", &lines)]).expect("loads");
    let across = "name of the river that flows through the old capital of austria danube";
    assert_eq!(detail(&evaluations, across).as_deref(), Some("1 n-grams, 1 of 4 of `a.jsonl` item 1"));
    let array = format!("[{}, {{\"q\": \"none\"}}]", lines.trim());
    let evaluations = load(&Decontaminate::default(), &[("a.json", &array)]).expect("loads");
    assert_eq!(detail(&evaluations, across), None);
    assert_eq!(detail(&evaluations, ITEM).as_deref(), Some("3 n-grams, 3 of 3 of `a.json` item 1"));
    let missing = Decontaminate { fields: vec!["question".to_owned()], ..Decontaminate::default() };
    let error = load(&missing, &[("a.json", &array)]).expect_err("no field").to_string();
    assert_eq!(error, "evaluation set `a.json`: found no item with text in one of question");
}

#[test]
fn a_short_item_is_looked_for_as_a_whole() {
    let evaluations =
        load(&Decontaminate { min_ngrams: 5, ..Decontaminate::default() }, &[("s", "one two three four five six seven eight")]);
    let evaluations = evaluations.expect("loads");
    let found = detail(&evaluations, "zero one two three four five six seven eight nine");
    assert_eq!(found.as_deref(), Some("1 n-grams, 1 of 1 of `s` item 1"));
    assert_eq!(detail(&evaluations, "one two three four five six seven nine eight"), None);
    let error = load(&Decontaminate::default(), &[("s", "one two three")]).expect_err("short").to_string();
    assert_eq!(error, "evaluation set `s`: found no item that is long enough, expected one of 8 words or more");
}

#[test]
fn the_threshold_counts_different_ngrams() {
    let evaluations = load(&Decontaminate { min_ngrams: 3, ..Decontaminate::default() }, &[("a", ITEM), ("b", ITEM)]).expect("loads");
    let two = ITEM.rsplit_once(' ').expect("words").0;
    assert_eq!(detail(&evaluations, &[two, two, two].join(". ")), None);
    assert_eq!(detail(&evaluations, ITEM).as_deref(), Some("3 n-grams, 3 of 3 of `a` item 1"));
}

#[test]
fn a_character_of_a_script_without_spaces_is_a_word() {
    let evaluations = load(&Decontaminate::default(), &[("a", "床前明月光，疑是地上霜。举头望明月，低头思故乡。")]).expect("loads");
    assert!(detail(&evaluations, "诗曰：床前明月光疑是地上霜举头望明月！").is_some());
    assert_eq!(detail(&evaluations, "床前明月光，疑是地上霜，低头思故乡。"), None);
}

#[test]
fn faults_name_the_set() {
    assert_eq!(load(&Decontaminate::default(), &[("a.jsonl", "{")]).expect_err("JSON").kind(), Kind::Invalid);
    let settings = Decontaminate { evaluations: vec!["gone".to_owned()], ..Decontaminate::default() };
    assert!(
        Evaluations::load(&settings, &|_| Err("no such file".to_owned())).expect_err("gone").to_string().contains("`gone`: no such file")
    );
    assert!(Evaluations::load(&settings, &|_| Ok(vec![b'a', 0xFF])).expect_err("bytes").to_string().contains("not UTF-8 at byte 1"));
}

#[test]
fn the_digest_follows_the_wording() {
    let digest = |text: &str| load(&Decontaminate::default(), &[("a", text)]).expect("loads").digest();
    assert_eq!(digest(ITEM), digest(&ITEM.to_uppercase()));
    assert_ne!(digest(ITEM), digest(&ITEM.replace("old", "new")));
}

fn words(text: &str) -> Vec<u64> {
    let mut words = Vec::new();
    hashes(text, |word| words.push(word));
    words
}

proptest! {
    #[test]
    fn words_are_runs_of_letters_and_digits(text in "[aBc1é漢 .,'\n]{0,40}") {
        let mut expected: Vec<String> = vec![String::new()];
        for c in text.to_lowercase().chars() {
            if c == '漢' || !c.is_alphanumeric() {
                expected.push(if c == '漢' { c.to_string() } else { String::new() });
                expected.push(String::new());
            } else if let Some(last) = expected.last_mut() {
                last.push(c);
            }
        }
        expected.retain(|word| !word.is_empty());
        let found = words(&text);
        prop_assert_eq!(found.len(), expected.len());
        for (left, left_hash) in expected.iter().zip(&found) {
            for (right, right_hash) in expected.iter().zip(&found) {
                prop_assert_eq!(left == right, left_hash == right_hash);
            }
        }
    }

    #[test]
    fn the_rolling_hash_is_of_the_last_words_only(words in prop::collection::vec(0u64..4, 0..150), length in 1usize..=64) {
        let mut roll = Roll::new(length);
        for end in 1..=words.len() {
            let rolled = roll.push(words[end - 1]);
            let mut fresh = Roll::new(length);
            let window = &words[end.saturating_sub(length)..end];
            prop_assert_eq!(rolled, window.iter().filter_map(|word| fresh.push(*word)).last());
        }
    }

    #[test]
    fn a_document_is_contaminated_exactly_if_it_shares_an_ngram(item in "([ab] ){2,12}", text in "([ab] ){0,12}") {
        let settings = Decontaminate { ngram_words: 4, min_item_words: 4, ..Decontaminate::default() };
        let Ok(evaluations) = load(&settings, &[("a", &item)]) else {
            prop_assert!(item.split_whitespace().count() < 4);
            return Ok(());
        };
        let ngrams = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().windows(4).map(<[String]>::to_vec).collect::<HashSet<_>>();
        let shared = !ngrams(&item).is_disjoint(&ngrams(&text));
        prop_assert_eq!(evaluations.check(&text) != Verdict::Keep, shared);
    }

    #[test]
    fn any_text_gets_a_verdict(text: String) {
        let evaluations = load(&Decontaminate::default(), &[("a", ITEM)]).expect("loads");
        prop_assert_eq!(evaluations.check(&text), Verdict::Keep);
    }
}
