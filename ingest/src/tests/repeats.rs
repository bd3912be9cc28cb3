//! Text that stands in several documents is cut out of all but one.

use super::*;

/// `count` words that no other start has.
fn words(start: u32, count: u32) -> String {
    (start..start + count).map(|number| format!("w{number} ")).collect::<String>().trim_end().to_owned()
}

/// Documents with a passage, a paragraph and a whole text that stand in others too.
fn corpus(place: &Place) {
    let (passage, paragraph) = (words(90_000, 60), words(80_000, 15));
    for number in 0..6 {
        let own = |part: u32| words(number * 1_000 + part * 200, 100);
        let text = match number {
            0 | 1 => format!("{}\nIt began in {number}: “{passage}”, {number} said. {}\n", own(0), own(1)),
            2 | 3 => format!("{}\n\n{paragraph}.\n\n{}\n", own(0), own(1)),
            // Twice in one document, and split differently into lines.
            4 => format!("{} {passage}\n{}\n", own(0), passage.replace(' ', "\n")),
            // Nothing but what others have.
            _ => format!("{passage}, {}.\n", words(1_000, 100)),
        };
        place.put(&format!("{number}.txt"), text);
    }
}

const ON: [&str; 5] = [
    "output='documents'",
    "dedup.near=false",
    "dedup.repeats.passages=true",
    "dedup.repeats.paragraphs=true",
    "clean.max_line_chars=100000",
];

async fn texts(place: &Place, manifest: &DatasetManifest) -> BTreeMap<String, String> {
    let ledger = place.read(manifest, "records").await;
    let key_of: BTreeMap<&[u8], &str> = (0..ledger.num_rows())
        .map(|row| (ledger.column(1).as_fixed_size_binary().value(row), ledger.column(0).as_string::<i32>().value(row)))
        .collect();
    let mut texts = BTreeMap::new();
    for table in ["train", "validation"] {
        let rows = place.read(manifest, table).await;
        for row in 0..rows.num_rows() {
            let key = key_of[rows.column(0).as_fixed_size_binary().value(row)];
            texts.insert(key.to_owned(), rows.column(1).as_string::<i64>().value(row).to_owned());
        }
    }
    texts
}

#[tokio::test]
async fn what_stands_elsewhere_is_cut_and_stays_in_one_place() {
    let place = Place::new();
    corpus(&place);
    let manifest = committed(place.ingest(&ON).await);
    let left = texts(&place, &manifest).await;
    let all = left
        .values()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| word.strip_prefix('w').is_some_and(|number| number.parse::<u32>().is_ok()));
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    all.for_each(|word| *seen.entry(word).or_default() += 1);
    for word in (90_000..90_060).chain(80_000..80_015).chain(1_000..1_100) {
        assert_eq!(seen.get(format!("w{word}").as_str()), Some(&1), "w{word}: {left:#?}");
    }
    assert_eq!(seen.len(), 60 + 15 + 4 * 200 + 100, "no word is lost, and none that stands in one place alone is cut");
    // Whichever of 1 and 5 has the smaller id keeps the hundred words that both have; what is left of 5 may be nothing.
    let removed = manifest.tally.removed.get("repeated_text").copied().unwrap_or(0);
    assert_eq!((manifest.tally.read, manifest.tally.kept), (6, 6 - removed));
    let cuts = manifest.statistics.edits["repeated_text"];
    assert!(cuts >= 4 - removed, "{cuts} cuts, {removed} removed");
    assert!(left.values().any(|text| text.contains("It began in 0: “0 said.") || text.contains("It began in 1: “1 said.")), "{left:#?}");
}

#[tokio::test]
async fn a_document_of_nothing_else_is_removed_and_names_who_has_it() {
    let place = Place::new();
    let shared = words(0, 80);
    for number in 0..5 {
        place.put(&format!("{number}.txt"), format!("{shared} {}\n", words(1_000 + number, number * 3)));
    }
    let manifest = committed(place.ingest(&[&ON[..], &["clean.min_chars=200"]].concat()).await);
    assert_eq!((manifest.tally.kept, manifest.tally.removed.clone()), (1, counts(&[("repeated_text", 4)])));
    let ledger = place.read(&manifest, "records").await;
    let verdicts = ledger.column(2).as_string::<i32>();
    let kept = verdicts.iter().position(|verdict| verdict == Some("kept")).expect("kept");
    for row in (0..5).filter(|row| *row != kept) {
        assert_eq!(ledger.column(5).as_fixed_size_binary().value(row), ledger.column(1).as_fixed_size_binary().value(kept));
        let detail = ledger.column(4).as_string::<i32>().value(row);
        assert!(detail.ends_with(" of its words repeated") && detail > "0.85", "{detail}");
    }
}

#[tokio::test]
async fn what_is_cut_does_not_depend_on_names_tasks_threads_or_runs() {
    let place = Place::new();
    corpus(&place);
    let expected = committed(place.ingest(&ON).await);
    let plain = committed(place.ingest(&["output='documents'", "dedup.near=false", "clean.max_line_chars=100000"]).await);
    assert_ne!(plain.rows_digest, expected.rows_digest, "the digest of the rows sees what was cut");

    let other = Place::new();
    let documents: Vec<_> = (0..6).map(|number| fs::read(place.folder.path().join(format!("raw/{number}.txt"))).expect("file")).collect();
    // In two runs, under other names: the second version is made anew, as an old document may lose text to a new one.
    documents[..3].iter().enumerate().for_each(|(number, text)| other.put(&format!("{}/z.txt", 9 - number), text));
    committed(other.ingest(&ON).await);
    documents[3..].iter().enumerate().for_each(|(number, text)| other.put(&format!("{}.txt", 9 - number), text));
    let pipeline = other.pipeline("text", &[&ON[..], &["limits.threads=1"]].concat());
    let size = TaskSize { bytes: 1, objects: 1 };
    let again = committed(ingest_in_tasks(&pipeline, Options::default(), Arc::new(Silent), size).await);
    assert_eq!((again.version, again.rows_digest), (2, expected.rows_digest));
    let sorted = |texts: BTreeMap<String, String>| {
        let mut all: Vec<String> = texts.into_values().collect();
        all.sort();
        all
    };
    assert_eq!(sorted(texts(&other, &again).await), sorted(texts(&place, &expected).await));
}
