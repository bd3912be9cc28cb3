//! Letters and digits of any script, by a table: the search of the standard library is asked of every character of a corpus.

use std::sync::LazyLock;

/// A bit a character of the basic plane, which has nearly all that is written.
static BASIC_PLANE: LazyLock<Box<[u64; 1024]>> = LazyLock::new(|| {
    let mut bits = Box::new([0; 1024]);
    for c in (0..=u16::MAX).filter_map(|unit| char::from_u32(unit.into())).filter(|c| c.is_alphanumeric()) {
        bits[c as usize / 64] |= 1 << (c as u32 % 64);
    }
    bits
});

/// What [`char::is_alphanumeric`] says.
pub(crate) fn is_alphanumeric(c: char) -> bool {
    match BASIC_PLANE.get(c as usize / 64) {
        Some(bits) => bits >> (c as u32 % 64) & 1 == 1,
        None => c.is_alphanumeric(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_what_the_standard_library_says() {
        assert!(('\0'..=char::MAX).all(|c| is_alphanumeric(c) == c.is_alphanumeric()));
    }
}
