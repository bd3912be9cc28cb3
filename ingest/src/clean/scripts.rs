//! Scripts that write words without spaces between them: where the end of a word must not be asked for.

/// Whether a character belongs to a script without spaces: Han, Kana, Thai, Lao, Myanmar, Khmer, Tibetan.
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
    fn scripts_with_spaces_are_left_alone() {
        assert!("漢かカไລຂ𠀀々".chars().all(is_unspaced));
        assert!(!"aäжيहक한ע1 。，".chars().any(is_unspaced));
    }
}
