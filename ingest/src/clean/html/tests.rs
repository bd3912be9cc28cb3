//! Pages made to hurt, and collections of pages with their text.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use super::*;

fn reason(html: &str) -> Option<String> {
    extract(html, &Html::default()).err().map(|rejection| rejection.reason.into_owned())
}

/// As small as a page can be that is an article.
fn article(paragraphs: usize) -> String {
    let paragraph =
        "<p>The forebay is the pool right above a turbine, and it keeps the turbine under full head, whatever the river does.</p>";
    format!(
        "<html><head><title>Pools</title></head><body><nav><a href=/>Home</a> <a href=/a>About us</a></nav><article><h1>Pools</h1>{}\
         </article><footer>All rights reserved</footer></body></html>",
        paragraph.repeat(paragraphs)
    )
}

#[test]
fn the_article_is_kept_and_what_surrounds_it_is_not() {
    let found = extract(&article(5), &Html::default()).expect("content");
    assert_eq!(found.title.as_deref(), Some("Pools"));
    assert_eq!(found.text.matches("whatever the river does.\n").count(), 5, "{}", found.text);
    assert!(!found.text.contains("About us") && !found.text.contains("rights"), "{}", found.text);
}

#[test]
fn limits_are_on_size_tags_and_depth() {
    let html = article(5);
    let settings = |max_page: usize, max_tags: u32, max_depth: u32| Html {
        max_page: forebay_schemas::units::ByteSize(max_page as u64),
        max_tags,
        max_depth,
        ..Html::default()
    };
    let reason = |settings: Html| extract(&html, &settings).err().map(|rejection| rejection.reason.into_owned());
    let tags = html.matches('<').count() as u32;
    assert_eq!(reason(settings(html.len(), tags, 4)), None);
    assert_eq!(reason(settings(html.len() - 1, tags, 4)).as_deref(), Some("html_too_large"));
    assert_eq!(reason(settings(html.len(), tags - 1, 4)).as_deref(), Some("html_too_complex"));
    assert_eq!(reason(settings(html.len(), tags, 3)).as_deref(), Some("html_too_complex"));
}

#[test]
fn a_page_without_content_says_so() {
    for html in ["", "plain", "<html></html>", "<script>let x = 1;</script>", "\0\0\0"] {
        assert!(matches!(reason(html).as_deref(), None | Some("html_no_content")), "{html}");
    }
    assert_eq!(reason("<html></html>").as_deref(), Some("html_no_content"));
}

#[test]
fn pages_made_to_hurt_are_judged_on_a_small_stack() {
    let depth = Html::default().max_depth as usize - 8;
    let nested = |tag: &str| format!("<body>{}{}", format!("<{tag}>").repeat(depth), article(3));
    let pages = [
        "<div>".repeat(100_000),
        "<div>".repeat(19_000),
        "<table><tr><td>x".repeat(6_000),
        "<b><p>".repeat(9_000),
        "<a".repeat(2 << 20),
        "<".repeat(4 << 20),
        "<!--".repeat(1 << 20),
        "&".repeat(4 << 20),
        format!("<p {}>", (0..300_000).map(|number| format!("a{number} ")).collect::<String>()),
        "</br>".repeat(800_000),
        nested("div"),
        nested("blockquote"),
        nested("span"),
    ];
    let judged = std::thread::Builder::new().stack_size(1 << 20).spawn(move || pages.iter().map(|page| reason(page)).collect::<Vec<_>>());
    let reasons = judged.expect("a thread").join().expect("no panic");
    let reasons: Vec<_> = reasons.iter().map(Option::as_deref).collect();
    assert_eq!(reasons[..3], [Some("html_too_complex"); 3]);
    assert_eq!(reasons[6..10], [Some("html_too_complex"); 4]);
    assert_eq!(reasons[10..], [None; 3]);
}

/// The files of an item of real data; none without the data.
fn item(name: &str) -> Option<HashMap<String, Vec<u8>>> {
    let Ok(folder) = std::env::var("FOREBAY_TEST_DATA") else {
        println!("skipped: no test data");
        return None;
    };
    let file = std::fs::File::open(std::path::Path::new(&folder).join(format!("{name}.tar.zst"))).expect("the item");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
    let mut files = HashMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        files.insert(path, bytes);
    }
    Some(files)
}

/// Runs of four words, as the benchmark of ScrapingHub counts them.
fn shingles(text: &str) -> BTreeMap<Vec<&str>, usize> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let mut shingles = BTreeMap::new();
    for start in 0..(words.len() + 1).saturating_sub(4).max(1) {
        *shingles.entry(words[start..words.len().min(start + 4)].to_vec()).or_insert(0) += 1;
    }
    shingles
}

/// Precision and recall of one page.
fn score(expected: &str, found: &str) -> (f64, f64) {
    let (expected, found) = (shingles(expected), shingles(found));
    let hits: usize = expected.iter().map(|(key, count)| *count.min(found.get(key).unwrap_or(&0))).sum();
    let (expected, found): (usize, usize) = (expected.values().sum(), found.values().sum());
    (hits as f64 / found as f64, hits as f64 / expected as f64)
}

/// 30 pages of the benchmark, for time; `infra` measures all.
#[test]
fn extraction_scores_as_published() {
    let Some(files) = item("html_scrapinghub_gold") else { return };
    let (_, truth) = files.iter().find(|(path, _)| path.ends_with("ground-truth.json")).expect("the truth");
    let truth: BTreeMap<String, serde_json::Value> = serde_json::from_slice(truth).expect("truth");
    let (mut precision, mut recall, mut pages) = (0.0, 0.0, 0.0);
    for (id, case) in truth.iter().step_by(6) {
        let (_, page) = files.iter().find(|(path, _)| path.ends_with(&format!("{id}.html.gz"))).expect("the page");
        let mut html = Vec::new();
        flate2::read::GzDecoder::new(&page[..]).read_to_end(&mut html).expect("gzip");
        let found = extract(&String::from_utf8_lossy(&html), &Html::default()).map(|found| found.text).unwrap_or_default();
        let (right, whole) = score(case["articleBody"].as_str().unwrap_or_default(), &found);
        (precision, recall, pages) = (precision + right, recall + whole, pages + 1.0);
    }
    let f1 = 2.0 * precision * recall / (precision + recall) / pages;
    println!("precision {:.4}, recall {:.4}, F1 {f1:.4} of {pages} pages", precision / pages, recall / pages);
    assert!(f1 > 0.95, "{f1}");
}
