//! Cases of our own, those of ftfy, and texts in many languages that must stay as they are.

use std::io::Read;

use proptest::prelude::*;

use super::*;

/// UTF-8 read as windows-1252, as browsers do: Latin-1 where that has no character.
fn mistaken(text: &str) -> String {
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(text.as_bytes()).0.into_owned()
}

#[test]
fn what_was_misread_once_or_twice_is_repaired() {
    for text in
        ["Hôtel de la Plage, déjà fermé", "it’s “so”", "€5 – 30 °C", "Привет, мир", "你好，世界", "שלום עולם", "😀 smile", "naïve café"]
    {
        assert_eq!(repair(&mistaken(text)), text);
        assert_eq!(repair(&mistaken(&mistaken(text))), text, "twice");
        assert_eq!(repair(text), text, "proper");
    }
    assert_eq!(repair("Hi í\u{A0}½í¸\u{8D}"), "Hi 😍");
    assert_eq!(repair("first Ã© line\nproper é line\nÃ¼ber"), "first é line\nproper é line\nüber");
}

#[test]
fn proper_text_that_looks_like_it_stays() {
    for text in [
        "VOCÊ… É…”",
        "NESTLÉ® requiere",
        "une phrase à\u{A0}«\u{A0}droite\u{A0}»",
        "cité¹²",
        "10 Å² and 5 Å³",
        "5×£35",
        "Â",
        "S Ã O",
        "Dupré†‡",
        "Spaß»",
        "ÄÖÜ°",
        "la clé\u{A0}°",
    ] {
        assert_eq!(repair(text), text);
    }
}

proptest! {
    #[test]
    fn repairing_twice_changes_nothing(text in "[ a-zA-Z\nÃÂâÄÅÐÑ×à-ï€-™œ\u{80}-\u{BF}…”’£]{0,40}") {
        let once = repair(&text).into_owned();
        prop_assert_eq!(repair(&once), once.as_str());
    }

    #[test]
    fn any_text_is_repaired_to_a_fixed_point(text in any::<String>()) {
        let once = repair(&text).into_owned();
        prop_assert_eq!(repair(&once), once.as_str());
    }
}

/// The files of an item of real data; none without the data.
fn item(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let Ok(folder) = std::env::var("FOREBAY_TEST_DATA") else {
        println!("skipped: no test data");
        return None;
    };
    let file = std::fs::File::open(std::path::Path::new(&folder).join(format!("{name}.tar.zst"))).expect("the item");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        files.push((path, bytes));
    }
    Some(files)
}

#[test]
fn correct_text_in_many_languages_is_not_changed() {
    for name in
        ["wiki_mars_multiling", "books_md_dev", "zh_poetry_tang", "zh_goldminer_dev", "langid_eld", "bbc_news", "stackexchange_coffee"]
    {
        let Some(files) = item(name) else { return };
        for (path, bytes) in &files {
            let Ok(text) = std::str::from_utf8(bytes) else { continue };
            for (line, repaired) in text.lines().map(|line| (line, repair(line))).filter(|(line, repaired)| repaired != line) {
                // One of the books really has it, in 35 words such as aÃ«rial and PalÃ¦onophis.
                let pairs = [("Ã¦", "æ"), ("Ã«", "ë"), ("Ã©", "é"), ("Ã¯", "ï"), ("Ã¶", "ö")];
                let known = pairs.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
                assert!(path.ends_with("Thirty Strange Stories.md"), "{path}: {line}");
                assert_eq!(repaired, known, "{path}");
            }
        }
    }
}

#[test]
fn the_cases_of_ftfy_are_repaired_or_left() {
    let Some(files) = item("mojibake_ftfy") else { return };
    let (mut whole, mut partly, mut left) = (0, 0, 0);
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".json") && !path.ends_with("language-names.json")) {
        let cases: Vec<serde_json::Value> = serde_json::from_slice(bytes).expect("cases");
        for case in &cases {
            let text = |key: &str| case[key].as_str().map(str::to_owned);
            let original = text("original").expect("original");
            let expected = text("fixed-encoding").or_else(|| text("fixed")).expect("fixed");
            let found = repair(&original);
            if path.ends_with("negative.json") || original == expected {
                assert_eq!(found, original, "a negative case");
            } else if found == expected {
                whole += 1;
            } else if found == original {
                left += 1;
            } else {
                partly += 1;
            }
        }
    }
    // Those left are other encodings for the most part, those partly repaired have lost bytes.
    println!("{whole} repaired, {partly} in part, {left} left");
    assert!(whole >= 35, "{whole}");
}
