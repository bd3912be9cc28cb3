//! A block's file: a mark, the digest of what follows, and the rows as an Arrow IPC stream, which is read without a copy.
//!
//! Promises: any byte that is missing, added or flipped makes it no entry.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

const MARK: &[u8; 8] = b"forebay1";
/// Mark and digest; a multiple of what arrays are aligned to.
const HEAD: usize = 64;
const DIGEST: std::ops::Range<usize> = 8..40;

/// The bytes of a file; none if the rows have no such form.
pub(crate) fn encode(rows: &RecordBatch) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    bytes.reserve(rows.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).ok()?;
    writer.write(rows).ok()?;
    writer.finish().ok()?;
    drop(writer);
    let digest = blake3::hash(&bytes[HEAD..]);
    bytes[..MARK.len()].copy_from_slice(MARK);
    bytes[DIGEST].copy_from_slice(digest.as_bytes());
    Some(bytes)
}

/// The rows of a file; none if it is not whole.
pub(crate) fn decode(bytes: Vec<u8>) -> Option<RecordBatch> {
    let sound = bytes.len() > HEAD
        && bytes[..MARK.len()] == MARK[..]
        && bytes[DIGEST] == blake3::hash(&bytes[HEAD..]).as_bytes()[..]
        && bytes[DIGEST.end..HEAD].iter().all(|byte| *byte == 0);
    if !sound {
        return None;
    }
    let mut buffer = Buffer::from_vec(bytes).slice(HEAD);
    let mut decoder = StreamDecoder::new();
    decoder.decode(&mut buffer).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{LargeBinaryArray, UInt32Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn rows(count: u32) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("bytes", DataType::LargeBinary, false), Field::new("label", DataType::UInt32, true)]);
        let bytes = LargeBinaryArray::from_iter_values((0..count).map(|row| vec![row as u8; row as usize % 7]));
        let labels: UInt32Array = (0..count).map(|row| (row % 3 > 0).then_some(row)).collect();
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(bytes), Arc::new(labels)]).expect("rows")
    }

    #[test]
    fn rows_come_back() {
        for count in [0, 1, 5, 1000] {
            let whole = rows(count + 10);
            for rows in [rows(count), whole.slice(7, count as usize)] {
                assert_eq!(decode(encode(&rows).expect("bytes")), Some(rows));
            }
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_found(at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index) {
            let whole = encode(&rows(40)).expect("bytes");
            let mut changed = whole.clone();
            changed[at.index(whole.len())] ^= flip;
            prop_assert_eq!(decode(changed), None);
            prop_assert_eq!(decode(whole[..cut.index(whole.len())].to_vec()), None);
            prop_assert_eq!(decode([&whole[..], &[flip]].concat()), None);
        }
    }
}
