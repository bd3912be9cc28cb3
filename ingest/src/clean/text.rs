//! Text records: decode, extract, normalise, judge, identify, sign.
//!
//! The id is the blake3 digest of the cleaned text, so two spellings of one text are one record. The rules come in the
//! order of the settings, the cheap ones first, and the first that objects decides; those that edit hand on what they
//! leave. Deliberately absent: the rules themselves, one file each.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::{Clean, Pipeline};

use super::decode::Claim;
use super::edits::Edits;
use super::quality::{self, Judge};
use super::rules::Rules;
use super::{
    Cleaner, Judged, Raw, Rejection, Verdict, Verdicts, alphanumerics, decode, html, length, lines, mojibake, normalise, personal,
};
use crate::dedup::minhash::Signer;
use crate::error::Result;
use crate::source::read::kind;

/// Columns that only text has; the content first.
pub(super) fn payload() -> Vec<Field> {
    vec![
        Field::new("text", DataType::LargeUtf8, true),
        Field::new("url", DataType::Utf8, true),
        Field::new("title", DataType::Utf8, true),
        Field::new("language", DataType::Utf8, true),
    ]
}

/// The rules that look at characters alone, in order.
const CHARACTER_RULES: [fn(&str, &Clean) -> Verdict; 3] = [length::check, lines::check, alphanumerics::check];

/// What one thread needs to clean texts; reused from batch to batch.
pub(crate) struct Worker {
    signer: Option<Signer>,
    judge: Judge,
}

impl Worker {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        Self { signer: pipeline.dedup.near.then(|| Signer::new(&pipeline.dedup)), judge: Judge::default() }
    }
}

/// One cleaned record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cleaned {
    pub(crate) verdict: Verdict,
    /// Absent where the bytes are not text, or were not looked at.
    pub(crate) text: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) edits: Edits,
}

impl Cleaned {
    fn without_text(verdict: Verdict) -> Self {
        Self { verdict, text: None, title: None, language: None, edits: Edits::default() }
    }
}

/// Cleans and judges one record.
pub(crate) fn clean(raw: &Raw<'_>, settings: &Clean, rules: &Rules, judge: &mut Judge) -> Cleaned {
    if let (Some(blocked), Some(url)) = (&rules.blocked, raw.url) {
        let verdict = blocked.check(url);
        if verdict != Verdict::Keep {
            return Cleaned::without_text(verdict);
        }
    }
    match read(raw, settings) {
        Ok(record) => judged(record, settings, rules, judge),
        // A page of nothing but navigation is no bad record.
        Err(rejection) if rejection.reason == html::NO_CONTENT => Cleaned::without_text(Verdict::Remove(rejection)),
        Err(rejection) => Cleaned::without_text(Verdict::Quarantine(rejection)),
    }
}

/// The text of a record, before any rule but those of bytes has seen it.
struct Record {
    text: String,
    title: Option<String>,
    edits: Edits,
}

fn read(raw: &Raw<'_>, settings: &Clean) -> std::result::Result<Record, Rejection> {
    let bytes = raw.content.clone()?;
    let mut edits = Edits::default();
    // Text out of a format with a character set of its own needs no guess.
    let detect = settings.detect_charset && raw.kind != kind::TEXT;
    let decoded = decode::decode(bytes, Claim { charset: raw.charset, markup: raw.kind == kind::HTML }, detect)?;
    let (text, title) = match raw.kind {
        kind::HTML => {
            let page = html::extract(&decoded, &settings.html)?;
            (Cow::Owned(page.text), page.title)
        }
        _ => (decoded, None),
    };
    let repaired = if settings.repair_mojibake { mojibake::repair(&text) } else { Cow::Borrowed(text.as_ref()) };
    edits.add("mojibake", u32::from(matches!(repaired, Cow::Owned(_))));
    Ok(Record { text: normalise::normalise(&repaired), title, edits })
}

fn judged(record: Record, settings: &Clean, rules: &Rules, judge: &mut Judge) -> Cleaned {
    let Record { text, title, mut edits } = record;
    let mut language = None;
    let result = apply(&text, settings, rules, judge, &mut language, &mut edits);
    let (verdict, text) = match result {
        Ok(Some(edited)) => (Verdict::Keep, edited),
        Ok(None) => (Verdict::Keep, text),
        Err(verdict) => (verdict, text),
    };
    Cleaned { verdict, text: Some(text), title, language, edits }
}

/// The text as the rules leave it, if they change it; or the verdict of the first that objects.
fn apply(
    text: &str,
    settings: &Clean,
    rules: &Rules,
    judge: &mut Judge,
    language: &mut Option<String>,
    edits: &mut Edits,
) -> std::result::Result<Option<String>, Verdict> {
    CHARACTER_RULES.iter().try_for_each(|rule| kept(rule(text, settings)))?;
    if let Some(identifier) = &rules.language {
        let detected = identifier.identify(text);
        *language = detected.map(|detected| detected.label.to_owned());
        kept(identifier.check(detected))?;
    }
    let quality::Judged { verdict, text: prose, lines } = judge.judge(text, &settings.quality);
    kept(verdict)?;
    lines.note(edits);
    if let Some(lists) = &rules.bad_words {
        kept(lists.check(&prose, language.as_deref()))?;
    }
    if let Some(evaluations) = &rules.evaluations {
        kept(evaluations.check(&prose))?;
    }
    let (scrubbed, replaced) = personal::scrub(&prose, &settings.personal);
    replaced.note(edits);
    if matches!((&prose, &scrubbed), (Cow::Borrowed(_), Cow::Borrowed(_))) {
        return Ok(None);
    }
    let edited = normalise::normalise(&scrubbed);
    // What an edit leaves may be too little.
    kept(length::check(&edited, settings))?;
    Ok(Some(edited))
}

fn kept(verdict: Verdict) -> std::result::Result<(), Verdict> {
    if verdict == Verdict::Keep { Ok(()) } else { Err(verdict) }
}

/// The columns of the verdict and of [`payload`] for raw records.
pub(super) fn columns<'a>(raw: impl Iterator<Item = Raw<'a>>, cleaner: &Cleaner, worker: &mut Worker) -> Result<Vec<ArrayRef>> {
    let (mut verdicts, mut texts) = (Verdicts::default(), LargeStringBuilder::new());
    let (mut urls, mut titles, mut languages) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    for raw in raw {
        let Cleaned { verdict, text, title, language, edits } = clean(&raw, &cleaner.pipeline.clean, &cleaner.rules, &mut worker.judge);
        let id = text.as_ref().map(|text| Digest::of(text.as_bytes()));
        let kept = text.filter(|_| verdict == Verdict::Keep);
        let signed = kept.as_ref().and_then(|text| Some(worker.signer.as_mut()?.sign(text)));
        let judged = Judged {
            id,
            size: kept.as_ref().map_or(0, |text| text.chars().count() as u32),
            rank: signed.as_ref().map_or(0, |signed| signed.rank),
            sketch: signed.as_ref().map_or(&[], |signed| &signed.sketch),
            class: language.as_deref(),
            edits: edits.to_column(),
            moments: None,
        };
        verdicts.push(&verdict, judged)?;
        urls.append_option(raw.url.filter(|_| kept.is_some()));
        titles.append_option(title.filter(|_| kept.is_some()));
        languages.append_option(language.filter(|_| kept.is_some()));
        // Text that is left out is needed no more; its raw bytes are still where they were.
        texts.append_option(kept);
    }
    let mut columns = verdicts.finish();
    columns.extend([
        Arc::new(texts.finish()) as ArrayRef,
        Arc::new(urls.finish()),
        Arc::new(titles.finish()),
        Arc::new(languages.finish()),
    ]);
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use forebay_schemas::pipeline::quality::C4;
    use forebay_schemas::pipeline::{BadWords, Blocklist, Decontaminate, Personal, PersonalKind, Quality};

    use super::*;

    fn raw(content: &[u8]) -> Raw<'_> {
        Raw { kind: kind::PLAIN, content: Ok(content), charset: None, url: None, class: None }
    }

    fn cleaned(raw: &Raw<'_>, settings: &Clean) -> Cleaned {
        let lists = |place: &str| match place {
            "hosts" => Ok(b"bad.example\n".to_vec()),
            "words" => Ok(b"darn\n".to_vec()),
            "exam" => Ok(b"what is the airspeed velocity of an unladen european swallow in summer\n".to_vec()),
            _ => Err("no such list".to_owned()),
        };
        let rules = Rules::load(settings, &lists).expect("rules");
        clean(raw, settings, &rules, &mut Judge::default())
    }

    fn reason(content: &[u8]) -> Option<String> {
        let settings = Clean { min_chars: 4, max_chars: 40, max_line_chars: 20, detect_charset: false, ..Clean::default() };
        cleaned(&raw(content), &settings).verdict.rejection().map(|rejection| rejection.reason.to_string())
    }

    #[test]
    fn every_rule_of_characters_names_its_reason() {
        assert_eq!(reason(b"fn main() {}"), None);
        assert_eq!(reason(b"a  \n\n").as_deref(), Some("too_short"));
        assert_eq!(reason("abc\n".repeat(11).as_bytes()).as_deref(), Some("too_long"));
        assert_eq!(reason("a".repeat(21).as_bytes()).as_deref(), Some("long_line"));
        assert_eq!(reason(b"{}[]();;;; a").as_deref(), Some("few_alphanumerics"));
        assert_eq!(reason(b"\xFFabc").as_deref(), Some("bad_encoding"));
    }

    #[test]
    fn limits_are_inclusive_and_count_characters() {
        assert_eq!(reason("äöü".as_bytes()), None);
        assert_eq!(reason("ä".repeat(20).as_bytes()), None);
    }

    #[test]
    fn a_page_is_its_main_content_in_the_character_set_that_it_claims() {
        let words = "Une phrase assez longue pour être le contenu principal de cette page, rédigée en français. ".repeat(6);
        let page = format!(
            "<html><head><meta charset=iso-8859-1><title>Été</title></head><body><nav>Accueil</nav><article><p>{words}</p></article></body></html>"
        );
        let bytes: Vec<u8> = page.chars().map(|c| c as u8).collect();
        let found = cleaned(&Raw { kind: kind::HTML, ..raw(&bytes) }, &Clean::default());
        assert_eq!((found.verdict, found.title.as_deref()), (Verdict::Keep, Some("Été")));
        let text = found.text.expect("text");
        assert!(text.starts_with("Une phrase") && text.contains("être") && !text.contains("Accueil"), "{text}");
        let empty = cleaned(&Raw { kind: kind::HTML, ..raw(b"<html><body><nav>Home</nav></body></html>") }, &Clean::default());
        assert!(matches!(empty.verdict, Verdict::Remove(rejection) if rejection.reason == html::NO_CONTENT));
    }

    #[test]
    fn a_certain_wrong_decoding_is_undone_and_counted() {
        let found = cleaned(&raw("The cafÃ© is not open on Sundays, says the sign on its door.".as_bytes()), &Clean::default());
        assert_eq!(found.text.as_deref(), Some("The café is not open on Sundays, says the sign on its door.\n"));
        assert_eq!(found.edits.to_column().as_deref(), Some("mojibake=1"));
        let settings = Clean { repair_mojibake: false, ..Clean::default() };
        assert_eq!(cleaned(&raw("The cafÃ© is not open, says the sign.".as_bytes()), &settings).edits, Edits::default());
    }

    #[test]
    fn lists_and_evaluation_sets_leave_records_out() {
        let settings = Clean {
            blocklist: Blocklist { domains: vec!["hosts".to_owned()], ..Blocklist::default() },
            bad_words: BadWords { lists: [("*".to_owned(), vec!["words".to_owned()])].into(), keep_fraction: 0.0 },
            decontaminate: Decontaminate { evaluations: vec!["exam".to_owned()], ..Decontaminate::default() },
            ..Clean::default()
        };
        let text = b"Nothing is wrong with this sentence, whatever its address.";
        let reason = |raw: &Raw<'_>| cleaned(raw, &settings).verdict.rejection().map(|rejection| rejection.reason.to_string());
        assert_eq!(reason(&raw(text)), None);
        assert_eq!(reason(&Raw { url: Some("https://www.bad.example/x"), ..raw(text) }).as_deref(), Some("blocked_domain"));
        assert_eq!(reason(&raw(b"Well, darn it, this sentence has a listed word.")).as_deref(), Some("bad_word"));
        let copied = b"They asked: What is the airspeed velocity of an unladen European swallow in summer?";
        assert_eq!(reason(&raw(copied)).as_deref(), Some("contaminated"));
    }

    #[test]
    fn edits_are_counted_and_what_they_leave_is_judged_again() {
        let settings = Clean {
            personal: Personal { replace: vec![PersonalKind::Email], ..Personal::default() },
            quality: Quality { c4: Some(C4 { min_sentences: 1, ..C4::default() }), ..Quality::default() },
            ..Clean::default()
        };
        let text = "Write to somebody@example.org if you want to know more.\nPlease read our privacy policy now.\nToo few.\n";
        let found = cleaned(&raw(text.as_bytes()), &settings);
        assert_eq!(found.text.as_deref(), Some("Write to |||EMAIL_ADDRESS||| if you want to know more.\n"));
        assert_eq!(found.edits.to_column().as_deref(), Some("line_few_words=1 line_policy=1 email=1"));
        let short = cleaned(&raw(b"It is so, yes.\nPlease read our privacy policy now, all of it.\n"), &settings);
        assert_eq!(short.verdict.rejection().map(|rejection| rejection.reason.as_ref()), Some("too_short"));
    }
}
