//! The bytes of a selection: a mark, the digest of what follows, and its chunks as they are in memory.
//!
//! Promises: any byte that is missing, added or flipped makes it none; numbers are little-endian on every machine.

use super::{CHUNK_ROWS, CHUNK_WORDS, LIST_MAX, Rows, Selection, SelectionBuilder};

const MARK: &[u8; 8] = b"rows   1";
const HEAD: usize = 40;
const ALL: u8 = 0;
const LIST: u8 = 1;
const BITMAP: u8 = 2;

impl Selection {
    /// The bytes from which [`Self::from_bytes`] makes the same selection.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        for chunk in &self.chunks {
            bytes.extend(chunk.number.to_le_bytes());
            match &chunk.rows {
                Rows::All => bytes.push(ALL),
                Rows::List(offsets) => {
                    bytes.push(LIST);
                    bytes.extend((offsets.len() as u16).to_le_bytes());
                    bytes.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
                }
                Rows::Bitmap { words, .. } => {
                    bytes.push(BITMAP);
                    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                }
            }
        }
        let digest = blake3::hash(&bytes[HEAD..]);
        bytes[..MARK.len()].copy_from_slice(MARK);
        bytes[MARK.len()..HEAD].copy_from_slice(digest.as_bytes());
        bytes
    }

    /// The selection of these bytes, of a table of so many rows; none if they are not whole or name other rows.
    pub(crate) fn from_bytes(bytes: &[u8], rows: u64) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(HEAD)?;
        if head[..MARK.len()] != MARK[..] || head[MARK.len()..] != blake3::hash(rest).as_bytes()[..] {
            return None;
        }
        let mut builder = SelectionBuilder::default();
        while let Some((number, more)) = rest.split_first_chunk::<8>() {
            let number = u64::from_le_bytes(*number);
            let first = number.checked_mul(CHUNK_ROWS)?;
            let (kind, more) = more.split_first()?;
            rest = match *kind {
                ALL => builder.add(first..first.checked_add(CHUNK_ROWS)?).then_some(more)?,
                LIST => {
                    let (count, more) = more.split_first_chunk::<2>()?;
                    let count = usize::from(u16::from_le_bytes(*count));
                    let (offsets, more) = more.split_at_checked(2 * count).filter(|_| count <= LIST_MAX)?;
                    for offset in offsets.as_chunks::<2>().0 {
                        let row = first + u64::from(u16::from_le_bytes(*offset));
                        builder.add(row..row + 1).then_some(())?;
                    }
                    more
                }
                BITMAP => {
                    let (words, more) = more.split_at_checked(8 * CHUNK_WORDS)?;
                    builder.add_chunk(number, words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))).then_some(())?;
                    more
                }
                _ => return None,
            };
        }
        (rest.is_empty() && builder.end <= rows).then(|| builder.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selection() -> Selection {
        let mut builder = SelectionBuilder::default();
        let third = (2 * CHUNK_ROWS..3 * CHUNK_ROWS).step_by(3).map(|row| row..row + 1);
        let few = [7 * CHUNK_ROWS + 5..7 * CHUNK_ROWS + 9, 1 << 40..(1 << 40) + 1];
        assert!(std::iter::once(0..CHUNK_ROWS + 70).chain(third).chain(few).all(|range| builder.add(range)));
        builder.finish()
    }

    #[test]
    fn a_selection_comes_back_as_small_as_it_is() {
        let selection = selection();
        let bytes = selection.to_bytes();
        assert_eq!(Selection::from_bytes(&bytes, u64::MAX), Some(selection));
        assert!(bytes.len() < 8_192 + 400, "{} bytes", bytes.len());
        let none = SelectionBuilder::default().finish();
        assert_eq!(Selection::from_bytes(&none.to_bytes(), 0), Some(none));
    }

    #[test]
    fn one_of_more_rows_than_the_table_has_is_refused() {
        assert!(Selection::from_bytes(&selection().to_bytes(), (1 << 40) + 1).is_some());
        assert_eq!(Selection::from_bytes(&selection().to_bytes(), 1 << 40), None);
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::btree_set(0u64..300_000, 0..300)) {
            let mut builder = SelectionBuilder::default();
            rows.iter().for_each(|row| assert!(builder.add(*row..row + 1)));
            let selection = builder.finish();
            prop_assert_eq!(Selection::from_bytes(&selection.to_bytes(), 300_000), Some(selection));
        }

        #[test]
        fn any_changed_byte_is_found(at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index) {
            let whole = selection().to_bytes();
            let mut changed = whole.clone();
            changed[at.index(whole.len())] ^= flip;
            prop_assert_eq!(Selection::from_bytes(&changed, u64::MAX), None);
            prop_assert_eq!(Selection::from_bytes(&whole[..cut.index(whole.len())], u64::MAX), None);
            prop_assert_eq!(Selection::from_bytes(&[&whole[..], &[flip]].concat(), u64::MAX), None);
        }
    }
}
