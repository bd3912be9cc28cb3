//! Classes of characters that the rules of segmentation and of quality ask for, one table look-up a character.
//!
//! The table is filled once from classes written as regular expressions, so that the Unicode tables of the `regex` crate
//! are the only ones. Characters above the emoji have no entry; they are letters of the East or nothing.

use std::sync::LazyLock;

use regex::Regex;

pub(crate) const LETTER: u16 = 1;
/// In datatrove's set of punctuation; a word of these alone is no word for Gopher's counts.
pub(crate) const SYMBOL: u16 = 1 << 1;
/// Unicode category P.
pub(crate) const PUNCTUATION: u16 = 1 << 2;
/// Alone as a token, it ends a sentence.
pub(crate) const STOP: u16 = 1 << 3;
/// At the end of a line, it ends a sentence (FineWeb).
pub(crate) const TERMINAL: u16 = 1 << 4;
/// Lower case, or a script without case.
pub(crate) const LOWER: u16 = 1 << 5;
/// Upper case, or a script without case.
pub(crate) const UPPER: u16 = 1 << 6;
/// Letters that infixes look for; fewer scripts than [`LETTER`].
pub(crate) const ALPHA: u16 = 1 << 7;
pub(crate) const PREFIX: u16 = 1 << 8;
pub(crate) const SUFFIX: u16 = 1 << 9;
/// After one of these a full stop at the end is a word of its own.
pub(crate) const BEFORE_STOP: u16 = 1 << 10;
pub(crate) const QUOTE: u16 = 1 << 11;
pub(crate) const ICON: u16 = 1 << 12;
/// Blank in Python's sense: White_Space and the four separators below U+0020.
pub(crate) const SPACE: u16 = 1 << 13;
/// May begin an infix.
pub(crate) const INFIX: u16 = 1 << 14;
/// 0 to 9.
pub(crate) const DIGIT: u16 = 1 << 15;

/// First character without an entry.
const END: u32 = 0x2_0000;

/// Blocks of scripts without case that spaCy's rules know as letters.
const CASELESS: &str = r"\u{591}-\u{5F4}\u{620}-\u{64A}\u{66E}-\u{6D5}\u{6E5}-\u{6FF}\u{750}-\u{77F}\u{8A0}-\u{8BD}\u{900}-\u{9FF}\u{B80}-\u{CFF}\u{D80}-\u{DFF}\u{1100}-\u{137F}\u{2E80}-\u{2FDF}\u{2FF0}-\u{30FF}\u{31C0}-\u{31EF}\u{3200}-\u{4DBF}\u{4E00}-\u{9FFF}\u{AC00}-\u{D7AF}\u{F900}-\u{FAFF}\u{FB1D}-\u{FBB1}\u{FBD3}-\u{FD3D}\u{FD50}-\u{FDC7}\u{FDF0}-\u{FDFB}\u{FE30}-\u{FE4F}\u{FE70}-\u{FEFC}\u{1EE00}-\u{1EEBB}\u{1F200}-\u{1F2FF}";
/// Latin, Greek and Cyrillic letters that they know.
const CASED: &str = r"A-Za-zÀ-ÖØ-öø-\u{1BF}\u{1C4}-\u{2AF}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}\u{38F}\u{391}-\u{3A1}\u{3A3}-\u{3A9}\u{3AC}-\u{3AF}\u{3B1}-\u{3C9}\u{3CC}-\u{3CE}\u{400}\u{401}\u{403}-\u{40A}\u{40C}\u{40D}\u{410}-\u{451}\u{453}-\u{45A}\u{45C}\u{45D}\u{490}\u{491}\u{496}\u{497}\u{4A2}\u{4A3}\u{4AE}\u{4AF}\u{4BA}\u{4BB}\u{4D8}\u{4D9}\u{4E8}\u{4E9}\u{1D00}-\u{1D25}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1EFF}\u{2C60}-\u{2C7B}\u{2C7E}\u{2C7F}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{A790}-\u{A7B9}\u{A7FA}\u{AB30}-\u{AB5A}\u{AB60}-\u{AB64}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}";
/// Single characters cut off at both ends.
const EDGE: &str = r#"…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪'"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉\u{2329}\u{232A}⟦⟧—–"#;
const QUOTES: &str = r#"'"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉\u{2329}\u{232A}⟦⟧"#;
/// Symbols (category So) of Unicode 11, the version that the rules were written for.
const ICONS: &str = r"[\p{So}&&\p{Age=11.0}--\u{166D}]";
/// Sentence_Terminal without what came after datatrove's list.
const STERM: &str = r"[\p{Sentence_Terminal}--[\u{1B4E}\u{1B4F}\u{1B7F}\u{2024}\u{2CF9}-\u{2CFB}\u{2E60}\u{2E61}\u{FE12}\u{FE15}\u{FE16}\u{113D4}\u{113D5}\u{16D6E}\u{16D6F}]]";
/// Of them, what spaCy's sentencizer does not know.
const NO_STOP: &str = r"\u{61D}\u{61E}\u{837}\u{839}\u{83D}\u{83E}\u{17D4}\u{17D5}\u{1B7D}\u{1B7E}\u{2E53}\u{2E54}\u{10F55}-\u{10F59}\u{10F86}-\u{10F89}\u{11944}\u{11946}\u{11EF7}\u{11EF8}\u{11F43}\u{11F44}\u{16E98}";
const KHMER_TERMINALS: &str = r"\u{17D6}\u{17D9}\u{17DA}";

pub(crate) struct Classes {
    all: Vec<u16>,
    /// By byte; one that is not ASCII reads as a blank, so that a loop over ASCII ends there.
    ascii: [u16; 256],
}

/// The one table.
pub(crate) static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::new);

impl Classes {
    fn new() -> Self {
        let all: String = (0..END).filter_map(char::from_u32).collect();
        let mut table = vec![0u16; END as usize];
        for (class, pattern) in patterns() {
            // A test says that every pattern is one.
            let Ok(runs) = Regex::new(&format!("(?:{pattern})+")) else { continue };
            for c in runs.find_iter(&all).flat_map(|run| run.as_str().chars()) {
                table[c as usize] |= class;
            }
        }
        let mut ascii = [SPACE; 256];
        ascii[..128].copy_from_slice(&table[..128]);
        Self { all: table, ascii }
    }

    pub(crate) fn of(&self, c: char) -> u16 {
        self.all.get(c as usize).copied().unwrap_or_else(|| beyond(c))
    }

    /// Of an ASCII byte; [`SPACE`] of any other.
    pub(crate) fn of_ascii(&self, byte: u8) -> u16 {
        self.ascii[usize::from(byte)]
    }

    pub(crate) fn is(&self, c: Option<char>, class: u16) -> bool {
        c.is_some_and(|c| self.of(c) & class != 0)
    }

    /// Without blanks at both ends.
    pub(crate) fn trim<'t>(&self, text: &'t str) -> &'t str {
        text.trim_matches(|c| self.of(c) & SPACE != 0)
    }
}

fn patterns() -> Vec<(u16, String)> {
    let currency = r"$£€¥฿₽﷼₴\u{20A0}-\u{20BF}";
    vec![
        (LETTER, r"\p{L}".to_owned()),
        (
            SYMBOL,
            format!(
                r#"[!-/:-@\[-`{{-~—”％１〈（━【「」，】；“《„’∶´．–？！：～«〉》）。…►»、\x00-\x08\x0B-\x1F\x7F-\u{{9F}}{KHMER_TERMINALS}]|{STERM}"#
            ),
        ),
        (PUNCTUATION, r"\p{P}".to_owned()),
        (STOP, format!("[{STERM}--[{NO_STOP}]]")),
        (TERMINAL, format!("[{KHMER_TERMINALS}]|{STERM}")),
        (LOWER, format!(r"[{CASELESS}\u{{294}}[{CASED}&&\p{{Lowercase}}]]")),
        (UPPER, format!(r"[{CASELESS}[{CASED}&&\p{{Uppercase}}]]")),
        (ALPHA, format!("[{CASELESS}{CASED}]")),
        (PREFIX, format!("[§%={EDGE}{currency}]|{ICONS}")),
        (SUFFIX, format!("[{EDGE}]|{ICONS}")),
        // The alternatives of the punctuation stand inside a class there, so the bar counts too.
        (
            BEFORE_STOP,
            format!(r"[0-9%²+|…,:;!?¿؟¡()\[\]{{}}<>_\#*&。？！，、；：～·।،۔؛٪{QUOTES}{CASELESS}\u{{294}}\-[{CASED}&&\p{{Lowercase}}]]"),
        ),
        (QUOTE, format!("[{QUOTES}]")),
        (ICON, ICONS.to_owned()),
        (SPACE, r"[\p{White_Space}\x1C-\x1F]".to_owned()),
        (INFIX, format!(r"[.…+*\^,–—\~:<>=/\-]|{ICONS}")),
        (DIGIT, "[0-9]".to_owned()),
    ]
}

fn beyond(c: char) -> u16 {
    let caseless = matches!(c, '\u{20000}'..='\u{2A6DF}' | '\u{2A700}'..='\u{2EBEF}' | '\u{2F800}'..='\u{2FA1F}');
    let letter = if c.is_alphabetic() { LETTER } else { 0 };
    letter | if caseless { LOWER | UPPER | ALPHA | BEFORE_STOP } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_a_pattern_and_has_characters() {
        for (class, pattern) in patterns() {
            assert!(Regex::new(&pattern).is_ok(), "{pattern}");
            assert!(CLASSES.all.iter().any(|found| found & class != 0), "{pattern}");
        }
    }

    #[test]
    fn characters_have_the_classes_that_the_rules_speak_of() {
        for (c, with, without) in [
            ('a', LETTER | LOWER | ALPHA | BEFORE_STOP, UPPER | SYMBOL | PREFIX | SUFFIX | INFIX | SPACE),
            ('É', LETTER | UPPER | ALPHA, LOWER | BEFORE_STOP),
            ('中', LETTER | LOWER | UPPER | ALPHA, PUNCTUATION),
            ('\u{20001}', LETTER | LOWER | UPPER | ALPHA, PUNCTUATION),
            ('.', SYMBOL | PUNCTUATION | STOP | TERMINAL | INFIX, PREFIX | SUFFIX | BEFORE_STOP),
            ('。', SYMBOL | PUNCTUATION | STOP | TERMINAL | PREFIX | SUFFIX | BEFORE_STOP | ALPHA, LETTER),
            ('-', SYMBOL | PUNCTUATION | INFIX | BEFORE_STOP, PREFIX | SUFFIX),
            ('%', SYMBOL | PREFIX | BEFORE_STOP, SUFFIX),
            ('$', SYMBOL | PREFIX, PUNCTUATION | SUFFIX),
            ('☃', ICON | PREFIX | SUFFIX | INFIX, SYMBOL | PUNCTUATION),
            ('\u{1C}', SPACE, LETTER),
            ('\u{A0}', SPACE, SYMBOL),
            ('7', DIGIT | BEFORE_STOP, SYMBOL | LETTER),
        ] {
            assert_eq!(CLASSES.of(c) & with, with, "{c:?}");
            assert_eq!(CLASSES.of(c) & without, 0, "{c:?}");
        }
    }
}
