//! Cuts a chunk between blanks into words, as spaCy's English tokenizer does (Honnibal and Montani 2017).
//!
//! Prefixes and suffixes come off one by one unless what is left is an exception or an address, then infixes cut the
//! middle, then exceptions that were cut by it are put together. Only that last step differs: spaCy does it over the whole
//! text, we within a chunk.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use twox_hash::XxHash3_64;

use super::classes::{ALPHA, BEFORE_STOP, CLASSES, DIGIT, ICON, INFIX, LOWER, PREFIX, QUOTE, SUFFIX, UPPER};
use super::exceptions::exceptions;
use super::url::is_url;

/// Bytes from and to, in the chunk.
pub(super) type Piece = (usize, usize);

/// The one set of rules.
pub(super) static RULES: LazyLock<Rules> = LazyLock::new(Rules::new);

pub(super) struct Rules {
    short: Vec<Short>,
    long: HashMap<String, Vec<usize>>,
    /// Whether an exception can have such ends and such a length: nearly no word has. Small enough for the nearest cache.
    ends: Vec<bool>,
    /// By the hash of the first piece.
    phrases: HashMap<u64, Vec<Phrase>>,
    /// Whether a phrase can begin with two such hashes.
    starts: Vec<bool>,
}

/// An exception of at most 16 bytes, in an open hash table.
#[derive(Clone, Copy, Default)]
struct Short {
    key: u128,
    bytes: u8,
    pieces: [u8; 3],
}

/// An exception that affixes and infixes cut.
struct Phrase {
    hashes: Vec<u64>,
    pieces: Vec<usize>,
}

/// Buffers of one caller.
#[derive(Default)]
pub(super) struct Cuts {
    /// The result.
    pub(super) pieces: Vec<Piece>,
    /// Of the pieces.
    pub(super) hashes: Vec<u64>,
    suffixes: Vec<Piece>,
}

const SLOTS: usize = 4096;

/// What is cut off after a digit.
const UNITS: &str = "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB \
                     gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб \
                     Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ كوب اكواب \
                     + $ £ € ¥ ฿ US$ C$ A$ ₽ ﷼ ₴ ₠ ₡ ₢ ₣ ₤ ₥ ₦ ₧ ₨ ₩ ₪ ₫ ₭ ₮ ₯ ₰ ₱ ₲ ₳ ₵ ₶ ₷ ₸ ₹ ₺ ₻ ₼ ₾ ₿";

impl Rules {
    fn new() -> Self {
        let mut rules = Self {
            short: vec![Short::default(); SLOTS],
            long: HashMap::new(),
            ends: vec![false; 2 * SLOTS],
            phrases: HashMap::new(),
            starts: vec![false; SLOTS],
        };
        let all = exceptions();
        let mut cuts = Cuts::default();
        let mut phrases = HashMap::<u64, Vec<Phrase>>::new();
        for (word, pieces) in &all {
            // Without exceptions and phrases in the tables yet, this is how the affixes alone cut it.
            rules.cut(word, &mut cuts);
            let hashes = cuts.hashes.clone();
            if let [first, ..] = hashes[..]
                && hashes.len() > 1
            {
                phrases.entry(first).or_default().push(Phrase { hashes, pieces: pieces.clone() });
            }
        }
        for phrase in phrases.values().flatten() {
            rules.starts[start(phrase.hashes[0], phrase.hashes[1])] = true;
        }
        all.into_iter().for_each(|(word, pieces)| rules.insert(word, pieces));
        Self { phrases, ..rules }
    }

    fn insert(&mut self, word: String, pieces: Vec<usize>) {
        self.ends[ends(word.as_bytes())] = true;
        match pack(&word, 0, word.len()) {
            Some(key) => {
                let mut slot = slot(key);
                while self.short[slot].bytes > 0 {
                    slot = (slot + 1) % SLOTS;
                }
                let mut short = Short { key, bytes: word.len() as u8, pieces: [0; 3] };
                short.pieces.iter_mut().zip(&pieces).for_each(|(stored, bytes)| *stored = *bytes as u8);
                self.short[slot] = short;
            }
            None => {
                self.long.insert(word, pieces);
            }
        }
    }

    /// The piece lengths of an exception, zero beyond the last.
    pub(super) fn exception(&self, text: &str, start: usize, end: usize) -> Option<[usize; 3]> {
        if !self.ends[ends(&text.as_bytes()[start..end])] {
            return None;
        }
        let Some(key) = pack(text, start, end) else {
            let pieces = self.long.get(&text[start..end])?;
            return Some([0, 1, 2].map(|at| pieces.get(at).copied().unwrap_or(0)));
        };
        let mut slot = slot(key);
        loop {
            let short = &self.short[slot];
            if short.bytes == 0 {
                return None;
            }
            if short.key == key && usize::from(short.bytes) == end - start {
                return Some(short.pieces.map(usize::from));
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// Cuts a chunk without blanks into `cuts.pieces`.
    pub(super) fn cut(&self, chunk: &str, cuts: &mut Cuts) {
        cuts.pieces.clear();
        cuts.suffixes.clear();
        let (start, end) = self.cut_affixes(chunk, cuts);
        if start < end {
            self.cut_middle(chunk, start, end, cuts);
        }
        cuts.pieces.extend(cuts.suffixes.iter().rev());
        cuts.hash(chunk);
        if cuts.pieces.len() > 1 && self.join_phrases(cuts) {
            cuts.hash(chunk);
        }
    }

    /// Takes prefixes and suffixes off; what is left.
    fn cut_affixes(&self, chunk: &str, cuts: &mut Cuts) -> Piece {
        let (mut start, mut end) = (0, chunk.len());
        while start < end && self.exception(chunk, start, end).is_none() {
            let prefix = prefix(&chunk[start..end]);
            if prefix > 0 && start + prefix < end && self.exception(chunk, start + prefix, end).is_some() {
                cuts.pieces.push((start, start + prefix));
                return (start + prefix, end);
            }
            let suffix = suffix(&chunk[start + prefix..end]);
            if suffix > 0 && start < end - suffix && self.exception(chunk, start, end - suffix).is_some() {
                cuts.suffixes.push((end - suffix, end));
                return (start, end - suffix);
            }
            if prefix + suffix == 0 {
                break;
            }
            if prefix > 0 {
                cuts.pieces.push((start, start + prefix));
            }
            if suffix > 0 {
                cuts.suffixes.push((end - suffix, end));
            }
            (start, end) = (start + prefix, end - suffix);
        }
        (start, end)
    }

    fn cut_middle(&self, chunk: &str, start: usize, end: usize, cuts: &mut Cuts) {
        if let Some(lengths) = self.exception(chunk, start, end) {
            push_lengths(&mut cuts.pieces, start, &lengths);
            return;
        }
        let middle = &chunk[start..end];
        if is_url(middle) {
            cuts.pieces.push((start, end));
            return;
        }
        let mut from = start;
        let mut at = 0;
        while let Some((infix, length)) = next_infix(middle, at) {
            at = infix + length;
            // An infix cannot be the beginning.
            if infix == 0 {
                continue;
            }
            if from < start + infix {
                cuts.pieces.push((from, start + infix));
            }
            cuts.pieces.push((start + infix, start + at));
            from = start + at;
        }
        if from < end {
            cuts.pieces.push((from, end));
        }
    }

    /// Puts exceptions together that were cut, the longest first, then the leftmost; whether there are any.
    fn join_phrases(&self, cuts: &mut Cuts) -> bool {
        if !cuts.hashes.windows(2).any(|pair| self.starts[start(pair[0], pair[1])]) {
            return false;
        }
        let mut matches: Vec<(usize, &Phrase)> = Vec::new();
        for (at, hash) in cuts.hashes.iter().enumerate() {
            let phrases = self.phrases.get(hash).map_or(&[][..], Vec::as_slice);
            matches.extend(phrases.iter().filter(|phrase| cuts.hashes[at..].starts_with(&phrase.hashes)).map(|phrase| (at, phrase)));
        }
        matches.sort_by_key(|(at, phrase)| (usize::MAX - phrase.hashes.len(), *at));
        let mut taken = vec![false; cuts.pieces.len()];
        let mut chosen: Vec<(usize, &Phrase)> = Vec::new();
        for (at, phrase) in matches {
            let span = at..at + phrase.hashes.len();
            if !taken[span.start] && !taken[span.end - 1] {
                chosen.push((at, phrase));
            }
            taken[span].fill(true);
        }
        chosen.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let joined = !chosen.is_empty();
        for (at, phrase) in chosen {
            let mut whole = Vec::with_capacity(phrase.pieces.len());
            push_lengths(&mut whole, cuts.pieces[at].0, &phrase.pieces);
            cuts.pieces.splice(at..at + phrase.hashes.len(), whole);
        }
        joined
    }
}

impl Cuts {
    fn hash(&mut self, chunk: &str) {
        self.hashes.clear();
        self.hashes.extend(self.pieces.iter().map(|(from, to)| XxHash3_64::oneshot(&chunk.as_bytes()[*from..*to])));
    }
}

fn push_lengths(pieces: &mut Vec<Piece>, mut start: usize, lengths: &[usize]) {
    for length in lengths.iter().take_while(|length| **length > 0) {
        pieces.push((start, start + length));
        start += length;
    }
}

/// At most 16 bytes as a number.
fn pack(text: &str, start: usize, end: usize) -> Option<u128> {
    let length = end - start;
    if length > 16 || length == 0 {
        return None;
    }
    let bytes = text.as_bytes();
    if let Some(Ok(block)) = bytes.get(start..start + 16).map(<[u8; 16]>::try_from) {
        return Some(u128::from_le_bytes(block) & (u128::MAX >> (128 - 8 * length)));
    }
    let mut block = [0u8; 16];
    block[..length].copy_from_slice(&bytes[start..end]);
    Some(u128::from_le_bytes(block))
}

/// Where [`Rules::ends`] speaks of words with these ends and this length.
fn ends(word: &[u8]) -> usize {
    let [first, last] = [word.first(), word.last()].map(|byte| u32::from(byte.copied().unwrap_or(0)));
    ((first | last << 8 | (word.len() as u32) << 16).wrapping_mul(0x9E37_79B1) >> 19) as usize
}

/// Where [`Rules::starts`] speaks of two pieces.
fn start(first: u64, second: u64) -> usize {
    (first ^ second.rotate_left(1)) as usize % SLOTS
}

fn slot(key: u128) -> usize {
    let folded = (key as u64) ^ ((key >> 64) as u64).rotate_left(29);
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52) as usize
}

/// Bytes of the prefix to cut off.
fn prefix(text: &str) -> usize {
    let Some(first) = text.chars().next() else { return 0 };
    match first {
        '.' => dots(text),
        '+' => usize::from(!text.as_bytes().get(1).is_some_and(u8::is_ascii_digit)),
        'U' if text.starts_with("US$") => 3,
        'C' | 'A' if text[1..].starts_with('$') => 2,
        _ if CLASSES.of(first) & PREFIX != 0 => first.len_utf8(),
        _ => 0,
    }
}

/// Dots at the start, if two or more.
fn dots(text: &str) -> usize {
    let dots = text.bytes().take_while(|byte| *byte == b'.').count();
    if dots > 1 { dots } else { 0 }
}

/// Bytes of the suffix to cut off: the longest of those that fit.
fn suffix(text: &str) -> usize {
    let mut back = text.chars().rev();
    let Some(last) = back.next() else { return 0 };
    let before = back.next();
    let single = if CLASSES.of(last) & SUFFIX != 0 { last.len_utf8() } else { 0 };
    match last {
        '.' => full_stop(text, before, back.next()),
        '…' if before == Some('…') => 2 * single,
        's' | 'S' if matches!(before, Some('\'' | '’')) => 1 + before.map_or(0, char::len_utf8),
        // None of the units ends with a character that is cut off anyway.
        _ if single > 0 => single,
        _ => unit(text),
    }
}

fn full_stop(text: &str, before: Option<char>, second: Option<char>) -> usize {
    let dots = text.bytes().rev().take_while(|byte| *byte == b'.').count();
    if dots > 1 {
        return dots;
    }
    let abbreviation = CLASSES.is(before, UPPER) && CLASSES.is(second, UPPER);
    let degrees = matches!(before, Some('F' | 'C' | 'K')) && second == Some('°');
    usize::from(CLASSES.is(before, BEFORE_STOP) || abbreviation || degrees)
}

/// A unit, a currency or a plus sign right after a digit.
fn unit(text: &str) -> usize {
    static LIST: LazyLock<HashSet<&str>> = LazyLock::new(|| UNITS.split_whitespace().collect());
    let longest = 12;
    match text.bytes().rev().take(longest + 1).position(|byte| byte.is_ascii_digit()) {
        Some(length) if length > 0 && LIST.contains(&text[text.len() - length..]) => length,
        _ => 0,
    }
}

/// Where from `at` on the next infix is, and its bytes.
fn next_infix(text: &str, at: usize) -> Option<(usize, usize)> {
    let mut before = text[..at].chars().next_back();
    for (offset, c) in text[at..].char_indices() {
        if CLASSES.of(c) & INFIX != 0 {
            let length = infix(c, before, &text[at + offset..]);
            if length > 0 {
                return Some((at + offset, length));
            }
        }
        before = Some(c);
    }
    None
}

/// Bytes of the infix that `rest` begins with.
fn infix(c: char, before: Option<char>, rest: &str) -> usize {
    let length = c.len_utf8();
    let after = rest[length..].chars().next();
    let between = |left: u16, right: u16| CLASSES.is(before, left) && CLASSES.is(after, right);
    let holds = match c {
        '…' => true,
        '.' if after == Some('.') => return dots(rest),
        '.' => between(LOWER | QUOTE, UPPER | QUOTE),
        '+' | '*' | '^' => CLASSES.is(before, DIGIT) && matches!(after, Some('0'..='9' | '-')),
        ',' => between(ALPHA, ALPHA),
        '-' if CLASSES.is(before, DIGIT) && matches!(after, Some('0'..='9' | '-')) => true,
        '-' | '—' => return if CLASSES.is(before, ALPHA | DIGIT) { dashes(c, rest) } else { 0 },
        '–' | '~' | ':' | '<' | '>' | '=' | '/' => between(ALPHA | DIGIT, ALPHA),
        _ => CLASSES.of(c) & ICON != 0,
    };
    if holds { length } else { 0 }
}

/// Up to three hyphens or two em dashes before a letter.
fn dashes(dash: char, rest: &str) -> usize {
    let after = rest.trim_start_matches(dash);
    let length = rest.len() - after.len();
    let limit = if dash == '-' { 3 } else { 2 * dash.len_utf8() };
    if length <= limit && CLASSES.is(after.chars().next(), ALPHA) { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunk: &str) -> Vec<&str> {
        let mut cuts = Cuts::default();
        RULES.cut(chunk, &mut cuts);
        cuts.pieces.iter().map(|(from, to)| &chunk[*from..*to]).collect()
    }

    #[test]
    fn chunks_are_cut_as_spacy_cuts_them() {
        // Golden: what spaCy 3.8.18 answers.
        for (chunk, expected) in [
            ("(hello)", "( hello )"),
            ("can't.", "ca n't ."),
            ("\"They’ll,", "\" They ’ll ,"),
            ("U.S.", "U.S."),
            ("end.", "end ."),
            ("NASA.", "NASA ."),
            ("20°C.", "20 ° C ."),
            ("10km", "10 km"),
            ("5%,", "5 % ,"),
            ("US$30", "US$ 30"),
            ("well-known", "well - known"),
            ("x--y", "x -- y"),
            ("3-4", "3 - 4"),
            ("a/b", "a / b"),
            ("and/or", "and/or"),
            ("wait...what", "wait ... what"),
            ("end.Next", "end . Next"),
            ("example.com,", "example.com ,"),
            ("hello:)", "hello :)"),
            ("(10a.m.)", "( 10 a.m. )"),
            ("id", "i d"),
            ("John's", "John 's"),
            ("......", "......"),
            ("+5", "+5"),
            ("18+", "18 +"),
            ("@:))#", "@ :)) #"),
            ("你好。世界", "你好。世界"),
        ] {
            assert_eq!(cut(chunk).join(" "), expected, "{chunk}");
        }
    }

    #[test]
    fn an_exception_of_more_than_sixteen_bytes_is_one_too() {
        assert_eq!(cut("(╯°□°）╯︵┻━┻"), ["(╯°□°）╯︵┻━┻"]);
    }

    proptest! {
        #[test]
        fn pieces_are_the_chunk(chunk in r#"[a-cA-C0-9.,:;'"’()\[\]<>=+*^~…–—$%°éЖ中。☃\-/_@#ks]{1,30}"#) {
            prop_assert_eq!(cut(&chunk).concat(), chunk.clone());
            prop_assert!(cut(&chunk).iter().all(|piece| !piece.is_empty()));
        }

        #[test]
        fn any_text_is_cut_without_panic(chunk in any::<String>()) {
            prop_assert_eq!(cut(&chunk).concat(), chunk);
        }
    }
}
