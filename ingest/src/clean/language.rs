//! Rule: the language of a text, by a fastText model (Joulin et al. 2017; FineWeb takes the same one, lid.176).
//!
//! Promises: the label and its probability are those of fastText for the first [`WINDOW_BYTES`] of the text; a model that
//! is missing or damaged is an error that says how to get it. Deliberately absent: the model itself (CC BY-SA 3.0, fetched
//! at set-up), and the crate `fasttext`, whose version 0.8.0 takes the hierarchical softmax of lid.176 for a flat one.

use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Language;

use super::{Rejection, Verdict};
use crate::error::{Error, Kind, Result};

mod model;

use model::Model;

/// Bytes at the head of a text that are looked at.
const WINDOW_BYTES: usize = 2_048;

/// Names the model file, before the setting.
pub(crate) const MODEL_VARIABLE: &str = "FOREBAY_LANGUAGE_MODEL";

/// The file below the cache of `infra/setup.sh`.
const FETCHED: &str = "deps/lid-176/lid.176.ftz";

/// A loaded model with the settings; threads share it.
#[derive(Debug)]
pub(crate) struct Identifier {
    model: Model,
    digest: Digest,
    settings: Language,
}

/// The likeliest language of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Detected<'a> {
    /// As the model names it, `en`.
    pub(crate) label: &'a str,
    /// Its probability, in 0…1.
    pub(crate) score: f32,
}

impl Identifier {
    /// Reads the model that the environment or the settings name.
    pub(crate) fn load(
        settings: &Language,
        environment: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&str) -> std::result::Result<Vec<u8>, String>,
    ) -> Result<Self> {
        let place = place(settings, environment)?;
        let bytes = read(&place).map_err(|reason| {
            let hint = "run `make setup`, or name a fastText model by `clean.language.model` or FOREBAY_LANGUAGE_MODEL";
            Error::new(Kind::Invalid, format!("language model `{place}`: {reason}; {hint}"))
        })?;
        let model = Model::parse(&bytes).map_err(|reason| Error::new(Kind::Invalid, format!("language model `{place}`: {reason}")))?;
        if let Some(unknown) = settings.allowed.iter().find(|label| *label != "*" && !model.labels().contains(label)) {
            let known = model.labels().iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("setting `clean.language.allowed`: found {unknown}, expected a language of `{place}`: {known}, …");
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(Self { digest: Digest::of(&bytes), model, settings: settings.clone() })
    }

    /// Digest of the model, which decides rows.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The likeliest language; none where the text has no words.
    pub(crate) fn identify(&self, text: &str) -> Option<Detected<'_>> {
        let (label, score) = self.model.predict(window(text))?;
        Some(Detected { label, score })
    }

    /// `other_language` or `unsure_language`, where `allowed` is given.
    pub(crate) fn check(&self, detected: Option<Detected<'_>>) -> Verdict {
        let allowed = &self.settings.allowed;
        if allowed.is_empty() {
            return Verdict::Keep;
        }
        let Some(Detected { label, score }) = detected else {
            return Verdict::Remove(Rejection::new("unsure_language", "no words"));
        };
        if !allowed.iter().any(|known| known == label || known == "*") {
            return Verdict::Remove(Rejection::new("other_language", format!("{label} {score:.3}")));
        }
        if f64::from(score) < self.settings.min_score {
            return Verdict::Remove(Rejection::new("unsure_language", format!("{label} {score:.3}")));
        }
        Verdict::Keep
    }
}

/// Where the model is: environment, setting, or where `infra/setup.sh` puts it for all checkouts and installed binaries.
fn place(settings: &Language, environment: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(path) = variable(MODEL_VARIABLE) {
        return Ok(path);
    }
    if !settings.model.trim().is_empty() {
        return Ok(settings.model.clone());
    }
    let cache = variable("FOREBAY_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| format!("{cache}/forebay")))
        .or_else(|| variable("HOME").map(|home| format!("{home}/.cache/forebay")));
    cache.map(|cache| format!("{cache}/{FETCHED}")).ok_or_else(|| {
        Error::new(Kind::Invalid, "language model: found no HOME to look below, expected `clean.language.model` or FOREBAY_LANGUAGE_MODEL")
    })
}

/// The head of a text, whole characters.
fn window(text: &str) -> &str {
    &text[..text.floor_char_boundary(WINDOW_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(settings: &Language, variables: &[(&str, &str)]) -> Option<String> {
        let environment = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        place(settings, &environment).ok()
    }

    #[test]
    fn the_environment_goes_before_the_setting_before_the_cache() {
        let (unset, set) = (Language::default(), Language { model: "m.bin".to_owned(), ..Language::default() });
        assert_eq!(at(&set, &[(MODEL_VARIABLE, "e.ftz"), ("HOME", "/h")]).as_deref(), Some("e.ftz"));
        assert_eq!(at(&set, &[(MODEL_VARIABLE, ""), ("HOME", "/h")]).as_deref(), Some("m.bin"));
        assert_eq!(at(&unset, &[("HOME", "/h")]).as_deref(), Some("/h/.cache/forebay/deps/lid-176/lid.176.ftz"));
        assert_eq!(at(&unset, &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).as_deref(), Some("/x/forebay/deps/lid-176/lid.176.ftz"));
        assert_eq!(at(&unset, &[("FOREBAY_CACHE", "/c"), ("XDG_CACHE_HOME", "/x")]).as_deref(), Some("/c/deps/lid-176/lid.176.ftz"));
        assert_eq!(at(&unset, &[]), None);
    }

    #[test]
    fn a_missing_model_says_how_to_get_it() {
        let settings = Language { model: "none.ftz".to_owned(), detect: true, ..Language::default() };
        let error = Identifier::load(&settings, &|_| None, &|_| Err("no such file".to_owned())).expect_err("missing").to_string();
        assert!(error.starts_with("language model `none.ftz`: no such file; run `make setup`"), "{error}");
    }

    #[test]
    fn a_language_that_the_model_does_not_know_is_refused() {
        let settings = Language { allowed: vec!["klingon".to_owned()], ..Language::default() };
        let error = load(&settings).expect_err("unknown").to_string();
        assert!(error.contains("found klingon") && error.contains("yes"), "{error}");
    }

    #[test]
    fn verdicts_name_language_and_score() {
        let settings = Language { allowed: vec!["yes".to_owned()], min_score: 0.9, ..Language::default() };
        let identifier = load(&settings).expect("model");
        let reason = |verdict: Verdict| verdict.rejection().map(|rejection| (rejection.reason.to_string(), rejection.detail.clone()));
        let judge = |label, score| reason(identifier.check(Some(Detected { label, score })));
        assert_eq!(judge("yes", 0.95), None);
        assert_eq!(judge("yes", 0.5), Some(("unsure_language".to_owned(), "yes 0.500".to_owned())));
        assert_eq!(judge("no", 0.95), Some(("other_language".to_owned(), "no 0.950".to_owned())));
        assert_eq!(reason(identifier.check(identifier.identify(" \n"))), Some(("unsure_language".to_owned(), "no words".to_owned())));
        let labelled = load(&Language { detect: true, ..Language::default() }).expect("model");
        assert_eq!(labelled.check(Some(Detected { label: "no", score: 0.1 })), Verdict::Keep);
    }

    #[test]
    fn the_window_ends_between_characters() {
        let text = format!("a{}", "语".repeat(WINDOW_BYTES));
        assert!(window(&text).len() <= WINDOW_BYTES && window(&text).len() > WINDOW_BYTES - 3);
        assert_eq!(window("short"), "short");
    }

    fn load(settings: &Language) -> Result<Identifier> {
        Identifier::load(settings, &|_| Some("tiny".to_owned()), &|_| Ok(model::tests::tiny()))
    }

    /// lid.176, where set-up has put it.
    fn fetched() -> Option<Identifier> {
        let settings = Language { detect: true, ..Language::default() };
        Identifier::load(&settings, &|name| std::env::var(name).ok(), &|path| std::fs::read(path).map_err(|error| error.to_string())).ok()
    }

    #[test]
    fn scores_are_those_of_fasttext() {
        let Some(identifier) = fetched() else {
            println!("skipped: no language model");
            return;
        };
        // What fastText 0.9.2 says, the fox in Chinese as Japanese too.
        for (text, label, score) in GOLDEN {
            let found = identifier.identify(text).expect("words");
            assert_eq!(found.label, label, "{text}");
            assert!((found.score - score).abs() < 2e-4, "{text}: {} is not {score}", found.score);
        }
    }

    const GOLDEN: [(&str, &str, f32); 6] = [
        ("The quick brown fox jumps over the lazy dog.", "en", 0.69745),
        ("Der schnelle braune Fuchs springt über den faulen Hund.", "de", 0.94470),
        ("敏捷的棕色狐狸跳过了懒狗。", "ja", 0.51684),
        ("Быстрая коричневая лиса перепрыгивает через ленивую собаку.", "ru", 0.97833),
        ("fn main() { println!(\"{}\", 1 + 1); }", "en", 0.60892),
        ("xqzt vlkm", "hu", 0.55400),
    ];

    #[test]
    fn short_texts_of_fifty_four_languages_are_told_apart() {
        let (Some(identifier), Some(text)) = (fetched(), tweets()) else {
            println!("skipped: no test data");
            return;
        };
        let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let right = pairs.iter().filter(|(label, text)| identifier.identify(text).is_some_and(|found| found.label == *label)).count();
        assert!(pairs.len() > 9_000 && right * 1_000 > pairs.len() * 985, "{right} of {}", pairs.len());
    }

    fn tweets() -> Option<String> {
        let folder = std::env::var("FOREBAY_TEST_DATA").ok()?;
        let file = std::fs::File::open(format!("{folder}/langid_eld.tar.zst")).ok()?;
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).ok()?);
        let mut text = String::new();
        let mut entries = archive.entries().ok()?.filter_map(std::result::Result::ok);
        let mut entry = entries.find(|entry| entry.path().is_ok_and(|path| path.ends_with("tweets.txt")))?;
        std::io::Read::read_to_string(&mut entry, &mut text).ok()?;
        Some(text)
    }
}
