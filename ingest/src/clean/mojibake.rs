//! Mojibake: UTF-8 that was read as windows-1252 or Latin-1, once or several times, and is now `FranÃ§ois` or `itâ€™s`.
//!
//! Repaired only where it is certain: the characters must be the bytes of valid UTF-8 in windows-1252, and their
//! neighbours must show that nobody writes them so, or the rest of the line that nothing in it is right. A line that has
//! proper accents too keeps all that is doubtful. Idempotent; text without such pairs of characters costs one search.
//! After the idea of ftfy (Speer, 2019), with rules of our own; ftfy repairs more, since it also guesses.
//! Deliberately absent: other pairs of encodings, and bytes that were lost on the way.

use std::borrow::Cow;

/// The text with what is certainly mojibake repaired.
pub(crate) fn repair(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut repaired, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(suspect) = suspect(bytes, at) {
        let start = memchr::memrchr(b'\n', &bytes[at..suspect]).map_or(at, |end| at + end + 1);
        let end = memchr::memchr(b'\n', &bytes[suspect..]).map_or(bytes.len(), |end| suspect + end);
        if let Some(line) = repaired_line(&text[start..end]) {
            repaired.push_str(&text[copied..start]);
            repaired.push_str(&line);
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    repaired.push_str(&text[copied..]);
    Cow::Owned(repaired)
}

/// The next character that can be a first byte, `Â` to `ô`, with one behind it that can be a second byte.
fn suspect(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(0xC3, &bytes[from..]).map(|at| from + at).find(|at| {
        let pair = (bytes.get(at + 1), bytes.get(at + 2));
        matches!(pair, (Some(0x82..=0xB4), Some(0xC2 | 0xC5 | 0xC6 | 0xCB | 0xE2)))
    })
}

/// The line after as many rounds as change it; each makes it shorter.
fn repaired_line(line: &str) -> Option<String> {
    let mut current = round(line)?;
    while let Some(next) = round(&current) {
        current = next;
    }
    Some(current)
}

/// How sure it is that a sequence is mojibake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    Certain,
    /// Odd, and possible.
    Likely,
    /// As people write: a letter with punctuation behind it.
    Great,
}

/// Characters that are the bytes of one character.
struct Sequence {
    start: usize,
    end: usize,
    lead: char,
    decoded: char,
    doubt: Doubt,
}

fn round(line: &str) -> Option<String> {
    let (mut sequences, others) = sequences(line);
    if sequences.is_empty() || is_mangled(line) {
        return None;
    }
    trust_runs(line, &mut sequences);
    let certain = sequences.iter().any(|sequence| sequence.doubt == Doubt::Certain);
    let likely: Vec<char> = sequences.iter().filter(|sequence| sequence.doubt == Doubt::Likely).map(|sequence| sequence.lead).collect();
    // Nothing else in the line is a proper letter: then the line went through as a whole.
    let whole = others == 0 && (certain || likely.iter().any(|lead| *lead != likely[0]));
    let limit = if whole { Doubt::Great } else { Doubt::Certain };
    let (mut repaired, mut copied) = (String::with_capacity(line.len()), 0);
    for sequence in sequences.iter().filter(|sequence| sequence.doubt <= limit) {
        repaired.push_str(&line[copied..sequence.start]);
        repaired.push(sequence.decoded);
        copied = sequence.end;
    }
    repaired.push_str(&line[copied..]);
    (copied > 0).then_some(repaired)
}

/// The sequences of a line, and how many characters beyond ASCII are in none.
fn sequences(line: &str) -> (Vec<Sequence>, usize) {
    let (mut sequences, mut others) = (Vec::new(), 0);
    let mut previous = ' ';
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let start = line.len() - rest.len();
        let sequence = if c.is_ascii() { None } else { sequence(rest, previous, start) };
        match sequence {
            Some(sequence) => {
                rest = &line[sequence.end..];
                previous = sequence.decoded;
                sequences.push(sequence);
            }
            None => {
                others += usize::from(!c.is_ascii());
                previous = c;
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    (sequences, others)
}

/// Whether the letters were made lower case after they were misread, `Ã†` to `ã†`: then no sequence can be trusted.
fn is_mangled(line: &str) -> bool {
    line.match_indices('ã').any(|(at, lead)| {
        let mut behind = line[at + lead.len()..].chars().map(is_behind);
        behind.next() == Some(true) && behind.next() == Some(false)
    })
}

/// Whether a character can be a byte behind the first one.
fn is_behind(c: char) -> bool {
    byte(c).is_some_and(|byte| (0x80..0xC0).contains(&byte))
}

fn sequence(rest: &str, previous: char, start: usize) -> Option<Sequence> {
    let mut chars = rest.chars();
    let lead = chars.next().filter(|lead| ('\u{C2}'..='\u{F4}').contains(lead))?;
    let count = match lead {
        '\u{C2}'..='\u{DF}' => 1,
        '\u{E0}'..='\u{EF}' => 2,
        _ => 3,
    };
    let (mut bytes, mut behind) = ([0; 6], ['\0'; 5]);
    bytes[0] = byte(lead)?;
    let mut length = 1;
    for _ in 0..count {
        behind[length - 1] = chars.next()?;
        bytes[length] = byte(behind[length - 1]).filter(|byte| (0x80..0xC0).contains(byte))?;
        length += 1;
    }
    let decoded = match std::str::from_utf8(&bytes[..length]) {
        Ok(decoded) => decoded.chars().next()?,
        // Java and others write a character beyond the first plane as two surrogates of three bytes each.
        Err(_) if lead == '\u{ED}' => {
            for _ in 0..3 {
                bytes[length] = byte(chars.next()?)?;
                length += 1;
            }
            from_surrogates(bytes)?
        }
        Err(_) => return None,
    };
    let doubt = doubt(lead, &behind[..count], previous, chars.clone().next().unwrap_or(' '), decoded);
    Some(Sequence { start, end: start + rest.len() - chars.as_str().len(), lead, decoded, doubt })
}

fn from_surrogates(bytes: [u8; 6]) -> Option<char> {
    let unit = |[lead, high, low]: [u8; 3]| {
        let low = low.wrapping_sub(0x80);
        (lead == 0xED && (0xA0..0xC0).contains(&high) && low < 0x40).then(|| 0xD000 | u16::from(high - 0x80) << 6 | u16::from(low))
    };
    let [a, b, c, d, e, f] = bytes;
    char::decode_utf16([unit([a, b, c])?, unit([d, e, f])?]).next()?.ok()
}

/// The byte that windows-1252 or Latin-1 has for a character.
fn byte(c: char) -> Option<u8> {
    const UPPER: [char; 27] = [
        '€', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 'Ž', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 'ž',
        'Ÿ',
    ];
    const BYTES: [u8; 27] = [
        0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x8E, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
        0x9A, 0x9B, 0x9C, 0x9E, 0x9F,
    ];
    match c {
        '\u{80}'..='\u{FF}' => u8::try_from(u32::from(c)).ok(),
        _ => UPPER.iter().position(|upper| *upper == c).map(|at| BYTES[at]),
    }
}

/// What a character behind a letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A control of Latin-1, which nobody types; but for those that are quotes and dashes of windows-1252 misread.
    Control,
    /// Punctuation that stands behind letters everywhere.
    Punctuation,
    /// A sign that stands behind a word now and then: marks, degrees, footnotes.
    Sign,
    /// What nobody writes behind a letter.
    Odd,
}

fn behind(c: char) -> Behind {
    match c {
        '\u{85}' | '\u{91}'..='\u{97}' => Behind::Punctuation,
        '\u{80}'..='\u{9F}' => Behind::Control,
        '…' | '‘' | '’' | '“' | '”' | '–' | '—' | '•' | '‚' | '„' | '‹' | '›' | '\u{A0}' | '\u{AD}' => {
            Behind::Punctuation
        }
        '™' | '€' | '«' | '»' | '·' | '¡' | '¿' | '°' | '´' | '¨' | '©' | '®' | '¹' | '²' | '³' | 'ª' | 'º' | '†' | '‡' => {
            Behind::Sign
        }
        _ => Behind::Odd,
    }
}

fn doubt(lead: char, behinds: &[char], previous: char, next: char, decoded: char) -> Doubt {
    let certain_if = |certain: bool, otherwise: Doubt| if certain { Doubt::Certain } else { otherwise };
    let &[second] = behinds else {
        let told = |c: &char| matches!(behind(*c), Behind::Control | Behind::Odd) || (lead == 'â' && matches!(c, '€' | '™'));
        // A letter, a space that does not break and a sign is French; a byte order mark is nobody's.
        let odd = behinds.iter().any(told) && behinds[0] != '\u{A0}';
        return certain_if(odd || decoded == '\u{FEFF}' || u32::from(decoded) > 0xFFFF && lead == 'í', Doubt::Great);
    };
    let kind = behind(second);
    let in_word = previous.is_lowercase() || next.is_ascii_lowercase();
    match (lead, kind) {
        ('×' | 'ß', Behind::Control | Behind::Odd) => Doubt::Likely,
        ('×' | 'ß', _) => Doubt::Great,
        (_, Behind::Control) => Doubt::Certain,
        ('Â' | 'Ã', Behind::Punctuation) if ('\u{80}'..'\u{A0}').contains(&second) => Doubt::Certain,
        ('Â', _) if !('\u{A0}'..='\u{FF}').contains(&second) => Doubt::Great,
        ('Â', _) => certain_if(!matches!(second, '\u{A0}' | '\u{AD}') && !previous.is_uppercase(), Doubt::Likely),
        ('Ã', Behind::Odd) => certain_if(second != '¥', Doubt::Likely),
        ('Ã', Behind::Sign) if second == '€' => certain_if(!previous.is_alphabetic(), Doubt::Likely),
        ('Ã', Behind::Sign) if second == '™' => certain_if(previous.is_ascii_alphabetic() && next.is_ascii_alphabetic(), Doubt::Likely),
        ('Ã', Behind::Sign) => certain_if(!previous.is_uppercase() || next.is_lowercase(), Doubt::Likely),
        ('Ã', Behind::Punctuation) if matches!(second, '‘' | '“' | '”') => {
            certain_if(previous.is_ascii_alphabetic() && next.is_ascii_alphabetic(), Doubt::Great)
        }
        ('Ã', Behind::Punctuation) if second == '\u{AD}' => certain_if(previous.is_lowercase() && next.is_lowercase(), Doubt::Likely),
        ('Ã', Behind::Punctuation) if second == '\u{A0}' => Doubt::Likely,
        (_, Behind::Odd) => certain_if(in_word, Doubt::Likely),
        (_, Behind::Sign) => certain_if(next.is_ascii_lowercase(), Doubt::Great),
        (_, Behind::Punctuation) => Doubt::Great,
    }
}

/// Sequences in a row are words of another script: nobody writes letter, sign, letter, sign. Another character beyond
/// ASCII next to them says that windows-1252 is the wrong guess.
fn trust_runs(line: &str, sequences: &mut [Sequence]) {
    let mut start = 0;
    while start < sequences.len() {
        let mut end = start + 1;
        while end < sequences.len() && sequences[end].start == sequences[end - 1].end {
            end += 1;
        }
        let run = &mut sequences[start..end];
        let (before, after) = (line[..run[0].start].chars().next_back(), line[run[run.len() - 1].end..].chars().next());
        let alone = [before, after].iter().flatten().all(char::is_ascii);
        let varied = run.iter().any(|sequence| sequence.decoded != run[0].decoded);
        if alone && varied && (run.len() > 2 || run.len() == 2 && run.iter().all(|sequence| sequence.doubt <= Doubt::Likely)) {
            run.iter_mut().for_each(|sequence| sequence.doubt = Doubt::Certain);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests;
