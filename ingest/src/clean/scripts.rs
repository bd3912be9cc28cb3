//! What kind of character a character is, where the standard library does not know or takes long to find out.

/// Whether a character is one of the Han characters that most texts are made of.
pub(crate) fn is_han(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}

/// [`char::is_alphanumeric`], faster for Chinese.
pub(crate) fn is_alphanumeric(c: char) -> bool {
    is_han(c) || c.is_alphanumeric()
}

/// Whether a character belongs to a script that writes words without spaces, where the end of a word must not be asked for:
/// Han, Kana, Thai, Lao, Myanmar, Khmer, Tibetan.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0FFF // Thai, Lao, Tibetan
        | 0x1000..=0x109F // Myanmar
        | 0x1780..=0x17FF // Khmer
        | 0x3005..=0x3007 | 0x3021..=0x3029 | 0x3031..=0x3035 // Han iteration marks and numerals
        | 0x3040..=0x30FF | 0x31F0..=0x31FF | 0xFF66..=0xFF9D // Kana
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF // Han
        | 0x20000..=0x3FFFD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_digits_are_those_of_the_standard_library() {
        assert!(('\0'..=char::MAX).all(|c| is_alphanumeric(c) == c.is_alphanumeric()));
    }

    #[test]
    fn scripts_with_spaces_are_left_alone() {
        assert!("漢かカไລຂ𠀀々".chars().all(is_unspaced));
        assert!(!"aäжيहक한ע1 。，".chars().any(is_unspaced));
    }
}
