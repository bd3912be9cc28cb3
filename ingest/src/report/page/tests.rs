//! Facts about the page as a whole.

use std::sync::Arc;

use arrow::array::{FixedSizeBinaryBuilder, RecordBatch, StringArray, UInt64Array};
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::id::Digest;
use forebay_schemas::record;
use proptest::prelude::*;

use super::Summary;
use super::counts::MAX_REASONS;

const GOLDEN: &str = include_str!("../../../../schemas/golden/dataset-2.json");

/// A row of a ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) id: Option<Digest>,
    pub(super) verdict: &'static str,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) survivor: Option<Digest>,
    pub(super) split: Option<&'static str>,
    pub(super) tokens: Option<u64>,
}

impl Row {
    pub(super) fn kept(key: &str, split: &'static str, tokens: u64) -> Self {
        let id = Some(Digest::of(key.as_bytes()));
        Self { key: key.to_owned(), id, verdict: "kept", split: Some(split), tokens: Some(tokens), ..Self::default() }
    }

    fn left_out(key: &str, verdict: &'static str, reason: &str, detail: &str) -> Self {
        Self { key: key.to_owned(), verdict, reason: Some(reason.to_owned()), detail: Some(detail.to_owned()), ..Self::default() }
    }

    fn duplicate(key: &str, of: &str) -> Self {
        let survivor = Some(Digest::of(of.as_bytes()));
        Self { survivor, ..Self::left_out(key, "removed", "near_duplicate", "similarity 0.873") }
    }
}

/// The batch of a ledger with these rows, 100 raw bytes each.
pub(super) fn batch(rows: &[Row]) -> RecordBatch {
    let digests = |of: fn(&Row) -> Option<Digest>| {
        let mut column = FixedSizeBinaryBuilder::new(32);
        for row in rows {
            match of(row) {
                Some(digest) => column.append_value(digest.as_bytes()).expect("32 bytes"),
                None => column.append_null(),
            }
        }
        Arc::new(column.finish())
    };
    let text = |of: fn(&Row) -> Option<&str>| Arc::new(rows.iter().map(of).collect::<StringArray>());
    RecordBatch::try_new(
        record::records(),
        vec![
            text(|row| Some(&row.key)),
            digests(|row| row.id),
            text(|row| Some(row.verdict)),
            text(|row| row.reason.as_deref()),
            text(|row| row.detail.as_deref()),
            digests(|row| row.survivor),
            text(|row| row.split),
            Arc::new(UInt64Array::from(vec![100; rows.len()])),
            Arc::new(rows.iter().map(|row| row.tokens).collect::<UInt64Array>()),
        ],
    )
    .expect("a batch of the ledger")
}

/// The golden manifest with the tally of these rows.
fn manifest(rows: &[Row]) -> DatasetManifest {
    let mut manifest: DatasetManifest = serde_json::from_str(GOLDEN).expect("golden manifest");
    manifest.tally = Default::default();
    manifest.tally.read = rows.len() as u64;
    for row in rows {
        let reason = || row.reason.clone().unwrap_or_default();
        match row.verdict {
            "kept" => manifest.tally.kept += 1,
            "removed" => *manifest.tally.removed.entry(reason()).or_default() += 1,
            _ => *manifest.tally.quarantined.entry(reason()).or_default() += 1,
        }
    }
    manifest
}

fn page(manifest: &DatasetManifest, rows: &[Row]) -> String {
    let mut summary = Summary::new(manifest);
    rows.chunks(7).for_each(|rows| summary.add(&batch(rows)).expect("rows of a ledger"));
    rows.chunks(5).for_each(|rows| summary.name(&batch(rows)).expect("rows of a ledger"));
    summary.page("s3://lake/code", &[])
}

/// Ten records, one of each kind of fate.
fn ten() -> Vec<Row> {
    let mut rows: Vec<Row> = (0..5).map(|n| Row::kept(&format!("a/{n}.rs"), "train", 1 << n)).collect();
    rows.push(Row::kept("b/0.rs", "validation", 300));
    rows.extend([Row::duplicate("c/1.rs", "a/2.rs"), Row::duplicate("c/2.rs", "a/2.rs")]);
    rows.push(Row::left_out("d.rs", "removed", "too_short", "3 characters, at least 32"));
    rows.push(Row::left_out("e.rs", "quarantined", "bad_encoding", "invalid at byte 9"));
    rows
}

/// Tags that are opened and not closed, in order; none if the page is well formed.
fn unbalanced(page: &str) -> Vec<String> {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let mut open: Vec<String> = Vec::new();
    for tag in page.split('<').skip(1) {
        let inside = tag.split('>').next().unwrap_or_default();
        let name: String = inside.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
        if VOID.contains(&name.as_str()) || inside.ends_with('/') {
            continue;
        }
        if !inside.starts_with('/') {
            open.push(name);
        } else if open.pop().as_ref() != Some(&name) {
            open.push(format!("/{name}"));
            return open;
        }
    }
    open
}

#[test]
fn the_page_counts_every_record_once_and_says_that_the_ledger_agrees() {
    let rows = ten();
    let page = page(&manifest(&rows), &rows);
    assert!(page.contains("the 10 rows of the ledger agree with the manifest"));
    for (name, count) in [
        ("train", 5),
        ("validation", 1),
        ("<code>near_duplicate</code>", 2),
        ("<code>too_short</code>", 1),
        ("<code>bad_encoding</code>", 1),
    ] {
        let row =
            format!("{name}</span></td><td class=\"n\">{count}</td><td class=\"n\">{count}0.0 %</td><td class=\"n\">{count}00 B</td>");
        assert!(page.contains(&row), "{row}");
    }
    assert_eq!(page.matches("class=\"band ").count(), 8, "three branches and five leaves");
}

#[test]
fn a_ledger_that_lost_a_record_is_a_fault_on_the_page() {
    let rows = ten();
    let page = page(&manifest(&rows), &rows[1..]);
    assert!(page.contains("read: the manifest says 10, the ledger has 9") && page.contains("kept: the manifest says 6, the ledger has 5"));
    assert!(page.contains("role=\"alert\"") && !page.contains("rows of the ledger agree"));
}

#[test]
fn duplicates_are_shown_with_the_key_of_their_survivor_and_their_similarity() {
    let rows = ten();
    let page = page(&manifest(&rows), &rows);
    let cluster = page.split("class=\"clusters\"").nth(1).expect("clusters");
    for text in
        ["3 records", "<code>a/2.rs</code>", "<code>c/1.rs</code> <span class=\"soft\">similarity 0.873</span>", "<code>c/2.rs</code>"]
    {
        assert!(cluster.contains(text), "{text}");
    }
    assert!(page.contains("2 records (20.0 % of those read) were removed because another one was kept instead, in 1 cluster."));
}

#[test]
fn without_the_second_reading_the_page_shows_ids() {
    let rows = ten();
    let mut summary = Summary::new(&manifest(&rows));
    summary.add(&batch(&rows)).expect("rows");
    assert!(summary.has_survivors());
    let page = summary.page("lake/code", &[]);
    assert!(page.contains(&format!("id {}…", Digest::of(b"a/2.rs").short())) && !page.contains("<code>a/2.rs</code>"));
    assert_eq!(unbalanced(&page), Vec::<String>::new());
}

#[test]
fn nothing_from_outside_is_markup() {
    const EVIL: &str = "\"'></title></style><script>alert(1)</script><img src=x onerror=alert(1)>";
    let mut rows = ten();
    rows.extend([
        Row::left_out(EVIL, "removed", EVIL, EVIL),
        Row::left_out(EVIL, "quarantined", EVIL, EVIL),
        Row::kept(EVIL, "train", 1),
        Row { detail: Some(EVIL.to_owned()), ..Row::duplicate(EVIL, EVIL) },
    ]);
    let mut manifest = manifest(&rows);
    manifest.program = EVIL.to_owned();
    manifest.inputs.url = EVIL.to_owned();
    manifest.inputs.list.path = EVIL.to_owned();
    manifest.config = serde_json::json!({EVIL: {EVIL: [EVIL]}});
    manifest.statistics.classes = Some(vec![EVIL.to_owned()]);
    manifest.statistics.class_counts = Some(vec![1]);
    let table = manifest.tables.values().next().expect("a table").clone();
    manifest.tables.insert(EVIL.to_owned(), table);
    let mut summary = Summary::new(&manifest);
    summary.add(&batch(&rows)).expect("rows");
    summary.name(&batch(&rows)).expect("rows");
    let page = summary.page(EVIL, std::slice::from_ref(&manifest));
    assert!(!page.contains("<script") && !page.contains("<img") && page.contains("&lt;script&gt;"));
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(unbalanced(&page), Vec::<String>::new());
}

#[test]
fn the_page_fetches_nothing_and_every_picture_has_a_title() {
    let rows = ten();
    let page = page(&manifest(&rows), &rows);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for text in ["http", "url(", "@import", "src=", "<link", "NaN", "inf\"", "undefined"] {
        assert!(!page.contains(text), "{text}");
    }
    for svg in page.split("<svg").skip(1) {
        assert!(svg.split("</svg>").next().unwrap_or_default().contains("<title>"), "{svg}");
    }
    for target in page.split("href=\"#").skip(1).filter_map(|link| link.split('"').next()) {
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
    for table in page.split("<table").skip(1) {
        assert!(table.contains("<caption>"));
    }
}

#[test]
fn a_version_without_a_record_and_one_that_keeps_all_have_a_page() {
    for rows in [Vec::new(), ten()[..6].to_vec()] {
        let mut manifest = manifest(&rows);
        (manifest.statistics, manifest.quality, manifest.parent, manifest.layout) = (Default::default(), None, None, None);
        let page = page(&manifest, &rows);
        assert_eq!(unbalanced(&page), Vec::<String>::new());
        assert!(!page.contains("What was left out") && !page.contains("Duplicates") && page.contains("the first version"));
        assert_eq!(page.contains("No record was read."), rows.is_empty());
    }
}

#[test]
fn more_reasons_than_can_be_told_apart_are_counted_together() {
    let rows: Vec<Row> = (0..2 * MAX_REASONS).map(|n| Row::left_out(&format!("k{n}"), "removed", &format!("rule_{n:04}"), "")).collect();
    let page = page(&manifest(&rows), &rows);
    assert!(page.contains("rows of the ledger agree with the manifest"), "the sums agree");
    assert!(page.contains("483 more reasons"), "the picture shows 29 and the rest as one");
    assert!(page.contains("(other reasons)") && page.contains("rule_0511"), "the table has every reason of the manifest");
    assert!(page.matches("<details>").count() <= MAX_REASONS + 1);
}

#[test]
fn long_keys_and_details_are_cut_in_the_middle() {
    let rows = [Row::left_out(&format!("start{}end", "x".repeat(100_000)), "removed", "too_long", &"y".repeat(100_000))];
    let page = page(&manifest(&rows), &rows);
    assert!(page.contains("<code>startx") && page.contains("xend</code>") && page.len() < 40_000, "{} bytes", page.len());
}

#[test]
fn an_ancestor_is_a_row_of_the_lineage() {
    let rows = ten();
    let manifest = manifest(&rows);
    let mut before = manifest.clone();
    (before.version, before.parent, before.tally.kept) = (1, None, 4_321);
    let summary = Summary::new(&manifest);
    let page = summary.page("lake/code", &[before]);
    assert!(page.contains("made after version 1") && page.contains("4,321") && page.contains("The ledger was not read"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_page_is_well_formed_and_the_same_however_the_ledger_is_cut(
        fates in prop::collection::vec((any::<String>(), 0u8..5, any::<String>(), any::<u64>()), 0..60),
        turn in 0usize..60,
    ) {
        let rows: Vec<Row> = fates.iter().map(|(key, fate, reason, tokens)| match fate {
            0 => Row::kept(key, "train", *tokens),
            1 => Row::kept(key, "validation", *tokens),
            2 => Row::left_out(key, "removed", reason, key),
            3 => Row::left_out(key, "quarantined", reason, key),
            _ => Row::duplicate(key, reason),
        }).collect();
        let manifest = manifest(&rows);
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len().max(1));
        let text = |rows: &[Row]| {
            let mut summary = Summary::new(&manifest);
            rows.chunks(7).for_each(|rows| summary.add(&batch(rows)).expect("rows"));
            summary.page("d", &[])
        };
        let page = text(&rows);
        prop_assert_eq!(unbalanced(&page), Vec::<String>::new());
        prop_assert!(page.contains("rows of the ledger agree with the manifest"));
        // Equal keys with equal hashes are drawn in any order, and only those.
        let mut keys: Vec<&String> = rows.iter().map(|row| &row.key).collect();
        keys.sort();
        keys.dedup();
        if keys.len() == rows.len() {
            prop_assert_eq!(text(&turned), page);
        }
    }
}
