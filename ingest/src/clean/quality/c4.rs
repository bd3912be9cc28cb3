//! Rule: C4's heuristics (Raffel et al. 2020), line by line, decided and edited as in datatrove.
//!
//! The only rule that edits: lines that are no prose go, citations are cut out, lines lose the blanks at both ends and the
//! text those lines. Indentation is lost, so this is a rule for prose, not for code.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use forebay_schemas::pipeline::quality::C4;
use regex::Regex;

use super::words::classes::{CLASSES, SPACE};
use super::words::{Segmenter, Word, sentences};
use super::{Rejection, Verdict, split};
use crate::clean::edits::Edits;

/// Lines seen, and dropped for each reason in the order in which they are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) seen: u64,
    pub(crate) too_long_word: u64,
    pub(crate) no_terminal_punctuation: u64,
    pub(crate) too_few_words: u64,
    pub(crate) javascript: u64,
    pub(crate) policy: u64,
    pub(crate) kept: u64,
}

impl Lines {
    /// Counts the dropped ones.
    pub(crate) fn note(&self, edits: &mut Edits) {
        for (kind, count) in [
            ("line_long_word", self.too_long_word),
            ("line_no_terminal_punctuation", self.no_terminal_punctuation),
            ("line_few_words", self.too_few_words),
            ("line_javascript", self.javascript),
            ("line_policy", self.policy),
        ] {
            edits.add(kind, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}

/// A text after the rule.
pub(crate) struct Edited<'t> {
    pub(crate) verdict: Verdict,
    /// Part of the text itself where only its ends changed; all of it if the document is left out.
    pub(crate) text: Cow<'t, str>,
    /// Words of the edited text.
    pub(crate) words: u64,
    pub(crate) lines: Lines,
}

const LOREM_IPSUM: usize = 0;
const JAVASCRIPT: usize = 1;
/// Those from the third on are of policies.
const PHRASES: [&str; 8] =
    ["lorem ipsum", "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// A test says that both can be built.
static FINDER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(PHRASES).ok());
static CITATION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[\d*\]|\[edit\]|\[citation needed\]").ok());

/// Drops lines; leaves the document out as `c4_lorem_ipsum`, `c4_curly_bracket` or `c4_too_few_sentences`. `words` are those of
/// the text, `segmenter` is for lines that change.
pub(crate) fn apply<'t>(text: &'t str, words: &[Word], settings: &C4, segmenter: &mut Segmenter) -> Edited<'t> {
    let mut edit =
        Edit { settings, suspect: is_suspect(text), segmenter, lines: Lines::default(), sentences: 0, words: 0, text: String::new() };
    edit.text.reserve(text.len());
    let verdict = edit.run(text, words);
    let (words, lines) = (edit.words, edit.lines);
    let edited = CLASSES.trim(&edit.text);
    let whole = CLASSES.trim(text);
    let text = match &verdict {
        Verdict::Keep if edited == whole => Cow::Borrowed(whole),
        Verdict::Keep => Cow::Owned(edited.to_owned()),
        _ => Cow::Borrowed(text),
    };
    Edited { verdict, text, words, lines }
}

/// Whether any line can have a phrase, a bracket or a citation; most texts have none.
fn is_suspect(text: &str) -> bool {
    memchr::memchr2(b'{', b'[', text.as_bytes()).is_some() || FINDER.as_ref().is_some_and(|finder| finder.is_match(text))
}

struct Edit<'s> {
    settings: &'s C4,
    suspect: bool,
    segmenter: &'s mut Segmenter,
    lines: Lines,
    sentences: u64,
    words: u64,
    text: String,
}

impl Edit<'_> {
    fn run(&mut self, text: &str, words: &[Word]) -> Verdict {
        let mut rest = words;
        for line in split::lines(text) {
            let line = CLASSES.trim(line);
            let end = line.as_ptr() as usize - text.as_ptr() as usize + line.len();
            let count = rest.partition_point(|word| (word.start as usize) < end);
            let (words, after) = rest.split_at(count);
            rest = after;
            self.lines.seen += 1;
            if let Err(rejection) = self.judge(line, words) {
                return Verdict::Remove(rejection);
            }
        }
        if self.sentences < self.settings.min_sentences {
            let detail = format!("{} sentences, at least {}", self.sentences, self.settings.min_sentences);
            return Verdict::Remove(Rejection::new("c4_too_few_sentences", detail));
        }
        Verdict::Keep
    }

    /// Keeps or drops a line, or refuses the document.
    fn judge(&mut self, line: &str, words: &[Word]) -> Result<(), Rejection> {
        if has_long_word(line, self.settings.max_word_chars) {
            self.lines.too_long_word += 1;
            return Ok(());
        }
        let cut = self.without_citations(line);
        if self.settings.terminal_punctuation && (!cut.ends_with(['.', '?', '!', '"', '\'']) || cut.ends_with("...")) {
            self.lines.no_terminal_punctuation += 1;
            return Ok(());
        }
        let chunks = words.iter().filter(|word| word.is_after_blank()).take(self.settings.min_line_words as usize).count();
        if (chunks as u64) < self.settings.min_line_words {
            self.lines.too_few_words += 1;
            return Ok(());
        }
        if self.suspect && self.drops_phrase(&cut)? {
            return Ok(());
        }
        // Words of a line that was cut are others.
        let words = if cut.len() == line.len() { words } else { self.segmenter.segment(&cut) };
        self.sentences += sentences(words);
        self.words += words.len() as u64;
        self.text.push_str(if self.lines.kept > 0 { "\n" } else { "" });
        self.text.push_str(&cut);
        self.lines.kept += 1;
        Ok(())
    }

    fn without_citations<'l>(&self, line: &'l str) -> Cow<'l, str> {
        match &*CITATION {
            Some(citation) if self.settings.remove_citations && self.suspect && line.contains('[') => citation.replace_all(line, ""),
            _ => Cow::Borrowed(line),
        }
    }

    /// Whether a phrase drops the line; an error if it refuses the document.
    fn drops_phrase(&mut self, line: &str) -> Result<bool, Rejection> {
        let mut found = [false; PHRASES.len()];
        for phrase in FINDER.iter().flat_map(|finder| finder.find_iter(line)) {
            found[phrase.pattern().as_usize()] = true;
        }
        let at = || format!("line {}", self.lines.seen);
        if self.settings.refuse_lorem_ipsum && found[LOREM_IPSUM] {
            return Err(Rejection::new("c4_lorem_ipsum", at()));
        }
        if self.settings.drop_javascript && found[JAVASCRIPT] {
            self.lines.javascript += 1;
            return Ok(true);
        }
        if self.settings.refuse_curly_bracket && line.contains('{') {
            return Err(Rejection::new("c4_curly_bracket", at()));
        }
        if self.settings.drop_policy && found[JAVASCRIPT + 1..].contains(&true) {
            self.lines.policy += 1;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Whether more than `limit` characters stand without a blank between them.
fn has_long_word(line: &str, limit: u64) -> bool {
    // Bytes bound characters from above, so most lines are never split.
    line.len() as u64 > limit && line.split(|c| CLASSES.of(c) & SPACE != 0).any(|word| word.chars().count() as u64 > limit)
}
