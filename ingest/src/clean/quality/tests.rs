//! Each rule at its limits, on texts made for it. Expected decisions are what datatrove 0.10 answers for the same text.

use forebay_schemas::pipeline::quality::{C4, FineWeb, GopherQuality, GopherRepetition, Quality};
use proptest::prelude::*;

use super::*;

fn repetition() -> Quality {
    Quality { gopher_repetition: Some(GopherRepetition::default()), ..Quality::default() }
}

fn quality() -> Quality {
    Quality { gopher_quality: Some(GopherQuality::default()), ..Quality::default() }
}

fn c4() -> Quality {
    Quality { c4: Some(C4 { terminal_punctuation: false, ..C4::default() }), ..Quality::default() }
}

fn fineweb() -> Quality {
    Quality { fineweb: Some(FineWeb::default()), ..Quality::default() }
}

fn all() -> Quality {
    let (gopher_repetition, gopher_quality) = (repetition().gopher_repetition, quality().gopher_quality);
    Quality { gopher_repetition, gopher_quality, c4: c4().c4, fineweb: fineweb().fineweb }
}

fn reason(text: &str, settings: &Quality) -> Option<String> {
    Judge::default().judge(text, settings).verdict.rejection().map(|rejection| rejection.reason.to_string())
}

#[track_caller]
fn check(settings: &Quality, text: &str, expected: Option<&str>) {
    assert_eq!(reason(text, settings).as_deref(), expected, "{text:?}");
}

/// So many different words, of five letters each.
fn words(count: usize) -> Vec<String> {
    (0..count).map(|i| [i / 676 % 26, i / 26 % 26, i % 26].iter().map(|d| (b'a' + *d as u8) as char).collect::<String>() + "qu").collect()
}

fn prose(count: usize) -> String {
    format!("the of {}", words(count - 2).join(" "))
}

#[test]
fn a_text_of_fifty_words_is_long_enough_and_punctuation_is_none() {
    check(&quality(), &prose(50), None);
    check(&quality(), &format!("{} .", prose(49)), Some("gopher_short_doc"));
    let few = Quality { gopher_quality: Some(GopherQuality { max_words: 60, ..GopherQuality::default() }), ..Quality::default() };
    check(&few, &prose(60), None);
    check(&few, &prose(61), Some("gopher_long_doc"));
}

#[test]
fn the_mean_word_has_three_to_ten_characters() {
    check(&quality(), &"the of abcd ".repeat(20), None);
    check(&quality(), &"the of abc ".repeat(20), Some("gopher_below_avg_threshold"));
    check(&quality(), &format!("the of {}", "abcdefghij ".repeat(60)), None);
    check(&quality(), &format!("the of {}", "abcdefghijk ".repeat(60)), Some("gopher_above_avg_threshold"));
}

#[test]
fn a_tenth_of_the_words_may_be_symbols() {
    // A number sign is a word too: 10 of 100 words, then 11 of 100.
    check(&quality(), &format!("{} {}", prose(90), "# ".repeat(10)), None);
    check(&quality(), &format!("{} {}", prose(89), "# ".repeat(11)), Some("gopher_too_many_hashes"));
    check(&quality(), &format!("{} {}x", prose(90), "... ".repeat(10)), None);
    check(&quality(), &format!("{} {} …", prose(89), "... ".repeat(10)), Some("gopher_too_many_ellipsis"));
}

#[test]
fn bullets_and_ellipses_count_by_lines() {
    let lines = |bad: usize, all: usize, line: &str, other: &str| {
        (0..all)
            .map(|i| if i < bad { line } else { other }.replace('@', &words(all * 8)[i * 8..][..8].join(" ")))
            .collect::<Vec<_>>()
            .join("\n")
    };
    check(&quality(), &lines(9, 10, " - the of @", "the @"), None);
    check(&quality(), &lines(10, 10, "• the of @", "the @"), Some("gopher_too_many_bullets"));
    check(&quality(), &lines(3, 10, "the of @...", "the @"), None);
    check(&quality(), &lines(4, 10, "the of @… ", "the @"), Some("gopher_too_many_end_ellipsis"));
}

#[test]
fn four_fifths_of_the_words_have_letters_and_two_are_stop_words() {
    check(&quality(), &format!("{} {}", prose(80), "1234 ".repeat(20)), None);
    check(&quality(), &format!("{} {}", prose(79), "1234 ".repeat(21)), Some("gopher_below_alpha_threshold"));
    check(&quality(), &format!("the the The {}", words(60).join(" ")), Some("gopher_enough_stop_words"));
    check(&quality(), &format!("the have {}", words(60).join(" ")), None);
}

#[test]
fn paragraphs_and_lines_repeat_up_to_their_limits() {
    let part = |i: usize| words(400)[i * 5..][..5].join(" ");
    let text = |parts: usize, repeats: usize, between: &str, repeated: &str| {
        let parts: Vec<String> = (1..parts).map(part).chain((0..=repeats).map(|_| repeated.to_owned())).collect();
        parts.join(between)
    };
    check(&repetition(), &text(70, 30, "\n\n", "x"), None);
    check(&repetition(), &text(69, 31, "\n\n", "x"), Some("gopher_dup_para_frac"));
    check(&repetition(), &text(69, 31, "\n", "x"), Some("gopher_dup_line_frac"));
    let long = "y".repeat(60);
    check(&repetition(), &text(20, 3, "\n\n", &long), Some("gopher_dup_para_char_frac"));
    check(&repetition(), &text(20, 3, "\n", &long), Some("gopher_dup_line_char_frac"));
}

#[test]
fn the_most_frequent_and_the_duplicate_ngrams_are_measured() {
    let text = |unit: &str, times: usize, rest: usize| {
        let unique = words(rest);
        let gap = rest / times;
        (0..times).map(|i| format!("{unit} {}", unique[i * gap..][..gap].join(" "))).collect::<Vec<_>>().join(" ")
    };
    check(&repetition(), &text("foo bar", 30, 60), Some("gopher_top_2_gram"));
    check(&repetition(), &text("foo bar baz", 20, 140), Some("gopher_top_3_gram"));
    check(&repetition(), &text("foo bar ba do", 20, 160), Some("gopher_top_4_gram"));
    let unit: Vec<String> = (0..10).map(|i| format!("ab{i}cd")).collect();
    check(&repetition(), &text(&unit.join(" "), 3, 60), Some("gopher_duplicated_5_n_grams"));
    check(&repetition(), &words(200).join(" "), None);
    // Of a short text the first pair of words is the most frequent, though it comes once.
    check(&repetition(), "hello world", Some("gopher_top_2_gram"));
}

#[test]
fn c4_drops_lines_that_are_no_prose() {
    let good = "One is here. Two is here. Three is here. Four is here. Five is here.";
    let text = format!(
        "  {good} [12]\n\nToo few\nPlease enable JavaScript now!\nWe use cookies on it.\nA {} b\nAnother good[edit] line.\n",
        "x".repeat(1001)
    );
    let judged = Judge::default().judge(&text, &c4()).clone_text();
    assert_eq!(judged.0, Verdict::Keep);
    assert_eq!(judged.1, format!("{good} \nAnother good line."));
    let lines = Lines { seen: 7, too_long_word: 1, too_few_words: 2, javascript: 1, policy: 1, kept: 2, no_terminal_punctuation: 0 };
    assert_eq!(judged.2, lines);
}

#[test]
fn c4_refuses_documents() {
    let good = "One is here. Two is here. Three is here. Four is here. Five is here.";
    check(&c4(), good, None);
    check(&c4(), "One is here. Two is here. Three is here. Four is here.", Some("c4_too_few_sentences"));
    check(&c4(), &format!("{good}\nLorem ipsum dolor sit amet."), Some("c4_lorem_ipsum"));
    check(&c4(), &format!("{good}\nif x {{ y }} else z"), Some("c4_curly_bracket"));
    check(&c4(), &format!("{good}\njavascript {{ is dropped first }}"), None);
    let paper = Quality { c4: Some(C4::default()), ..Quality::default() };
    check(&paper, &good.replace("here.", "here,"), Some("c4_too_few_sentences"));
    // A line without an end goes, and one that ends with an ellipsis; a quote is an end.
    let (unended, quoted) = (good.trim_end_matches('.'), format!("{good} \"Six is here\""));
    let judged = Judge::default().judge(&format!("{unended}\n{good}..\n{quoted}"), &paper).clone_text();
    assert_eq!((judged.1, judged.2.no_terminal_punctuation), (quoted, 2));
}

#[test]
fn c4_gives_back_a_part_of_the_text_where_only_the_ends_change() {
    let text = "\n One is here. Two is here. Three is here. Four is here. Five is here.\nAnd one more line.\n";
    let mut judge = Judge::default();
    let judged = judge.judge(text, &c4());
    assert!(matches!(judged.text, Cow::Borrowed(kept) if kept == text.trim()), "{judged:?}");
}

#[test]
fn fineweb_wants_lines_that_end_are_long_and_do_not_repeat() {
    let line = |i: usize, end: &str| format!("{}{end}", words(800)[i * 8..][..8].join(" "));
    let lines = |range: std::ops::Range<usize>, end: &str| range.map(|i| line(i, end)).collect::<Vec<_>>();
    let text = |parts: &[Vec<String>]| parts.concat().join("\n");
    check(&fineweb(), " \n\u{a0}\n", Some("fineweb_empty"));
    check(&fineweb(), &text(&[lines(0..3, "."), lines(3..25, "")]), None);
    check(&fineweb(), &text(&[lines(0..2, "."), lines(2..20, "")]), Some("fineweb_line_punct_ratio"));
    // A line of 30 characters is short, one of 31 is not.
    let short = |count: usize, chars: usize| (0..count).map(|i| format!("{i:0chars$}")).collect::<Vec<_>>();
    check(&fineweb(), &text(&[lines(0..33, "."), short(67, 30)]), None);
    check(&fineweb(), &text(&[lines(0..32, "."), short(68, 30)]), Some("fineweb_short_line_ratio"));
    check(&fineweb(), &text(&[lines(0..32, "."), short(68, 31)]), None);
    check(&fineweb(), &text(&[lines(0..20, "."), short(60, 31)]), Some("fineweb_list_ratio"));
    check(&fineweb(), &text(&[lines(0..90, "."), lines(0..1, ".")]), Some("fineweb_char_dup_ratio"));
    let accepting = Quality { fineweb: Some(FineWeb { accept_no_terminal_lines: true, ..FineWeb::default() }), ..Quality::default() };
    check(&accepting, &text(&[lines(0..20, "")]), None);
}

#[test]
fn the_first_rule_that_objects_decides_and_no_rule_keeps_everything() {
    check(&all(), "hello world", Some("gopher_top_2_gram"));
    check(&Quality { gopher_repetition: None, ..all() }, "hello world", Some("gopher_short_doc"));
    check(&Quality::default(), "{", None);
}

#[test]
fn fineweb_judges_what_c4_left() {
    // Alone it would find too few lines that end.
    let prose = "One is here. Two is here. Three is here. Four is here. Five is here.\n".to_owned();
    let menu: String = words(20).iter().map(|word| format!("{word} menu\n")).collect();
    let text = prose + &menu;
    check(&fineweb(), &text, Some("fineweb_line_punct_ratio"));
    check(&Quality { c4: c4().c4, ..fineweb() }, &text, None);
}

impl Judged<'_> {
    fn clone_text(self) -> (Verdict, String, Lines) {
        (self.verdict, self.text.into_owned(), self.lines)
    }
}

/// Text that comes near the limits of every rule.
fn crafted() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "the ",
        "of ",
        "word ",
        "repeated line here.\n",
        "\n\n",
        "\n",
        "- item ",
        "... ",
        "… ",
        "# ",
        "[1] ",
        "[edit]",
        "javascript ",
        "{",
        "use cookies ",
        "lorem ipsum ",
        "中文。",
        "can't ",
        "U.S. ",
        "\u{2028}",
        "\r\n",
        "1 ",
        ". ",
        "! ",
        "éa ",
        "\u{a0}",
    ]);
    proptest::collection::vec(parts, 0..120).prop_map(|parts| parts.concat())
}

/// The most frequent n-gram and the duplicates as they are defined, on joined strings.
fn slow(words: &[&str], n: usize) -> (u64, u64) {
    let grams: Vec<String> = words.windows(n).map(|gram| gram.join(" ")).collect();
    let count = |gram: &String| grams.iter().filter(|other| *other == gram).count();
    let top = grams.iter().rev().max_by_key(|gram| count(gram)).map_or(0, |gram| gram.chars().count() * count(gram));
    let (mut seen, mut at, mut chars) = (std::collections::HashSet::new(), 0, 0);
    while at < grams.len() {
        if seen.insert(&grams[at]) {
            at += 1;
        } else {
            chars += words[at..at + n].iter().map(|word| word.chars().count()).sum::<usize>();
            at += n;
        }
    }
    (top as u64, chars as u64)
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic_and_the_same_by_a_used_judge(texts in proptest::collection::vec(prop_oneof![crafted(), any::<String>()], 1..4)) {
        let mut used = Judge::default();
        for text in &texts {
            prop_assert_eq!(used.judge(text, &all()), Judge::default().judge(text, &all()));
        }
    }

    #[test]
    fn a_rule_decides_the_same_whatever_rules_ran_before(text in crafted()) {
        // Only C4 changes the text, so each rule alone says what it says after the others.
        let mut judge = Judge::default();
        for settings in [fineweb(), c4(), quality(), repetition()] {
            let alone = reason(&text, &settings);
            prop_assert_eq!(judge.judge(&text, &settings).verdict.rejection().map(|found| found.reason.to_string()), alone);
        }
        let first = [repetition(), quality()].iter().find_map(|settings| reason(&text, settings));
        let both = Quality { gopher_quality: quality().gopher_quality, ..repetition() };
        prop_assert_eq!(reason(&text, &both), first);
    }

    #[test]
    fn ngrams_are_those_of_the_definition(text in "([abc] ){0,60}", n in 1u32..6) {
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let (top, duplicate) = slow(&words, n as usize);
        let chars = text.chars().count() as f64;
        for (top_ngrams, duplicate_ngrams, measured) in [(vec![(n, 0.0)], vec![], top), (vec![], vec![(n, 0.0)], duplicate)] {
            let limits = |limit: f64| GopherRepetition {
                top_ngrams: top_ngrams.iter().map(|(n, _)| (*n, limit)).collect(),
                duplicate_ngrams: duplicate_ngrams.iter().map(|(n, _)| (*n, limit)).collect(),
                max_duplicate_lines: f64::INFINITY, max_duplicate_line_chars: f64::INFINITY,
                max_duplicate_paragraphs: f64::INFINITY, max_duplicate_paragraph_chars: f64::INFINITY,
            };
            let removed = |limit: f64| reason(&text, &Quality { gopher_repetition: Some(limits(limit)), ..Quality::default() }).is_some();
            let share = if chars == 0.0 { 0.0 } else { measured as f64 / chars };
            prop_assert!(!removed(share), "{share}");
            prop_assert_eq!(removed(share - 1e-9), share > 0.0 || share - 1e-9 < 0.0);
        }
    }

    #[test]
    fn c4_accounts_for_every_line_and_its_words(text in crafted()) {
        let settings = C4 { min_sentences: 0, refuse_lorem_ipsum: false, refuse_curly_bracket: false, ..C4::default() };
        let (mut words, mut lines) = (Segmenter::default(), Segmenter::default());
        let edited = c4::apply(&text, words.segment(&text), &settings, &mut lines);
        let Lines { seen, too_long_word, no_terminal_punctuation, too_few_words, javascript, policy, kept } = edited.lines;
        prop_assert_eq!(seen, too_long_word + no_terminal_punctuation + too_few_words + javascript + policy + kept);
        prop_assert_eq!(seen, split::lines(&text).count() as u64);
        prop_assert_eq!(edited.words, Segmenter::default().segment(&edited.text).len() as u64);
    }

    #[test]
    fn a_text_that_c4_keeps_is_kept_unchanged_by_it_again(text in crafted()) {
        let once = Judge::default().judge(&text, &c4()).clone_text();
        if once.0 == Verdict::Keep && !text.contains('[') {
            let twice = Judge::default().judge(&once.1, &c4()).clone_text();
            prop_assert_eq!((twice.0, twice.1), (Verdict::Keep, once.1));
        }
    }
}
