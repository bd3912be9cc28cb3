//! The check of a sample's row: a hash of what is fed of it, written beside it and compared when it is read.
//!
//! Neither Lance nor a range of a Parquet file says when a byte of it has changed. The hash is XXH3 with 64 bits (Collet
//! 2019), over memory as it is on little-endian machines. Promises: whatever byte of a table changes, a row is either
//! read as it was written or does not fit its check, but for a chance of 2⁻⁶⁴.
//! Deliberately absent: protection from whoever means harm; the columns that are not fed (ids, sides of pictures).

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use twox_hash::XxHash3_64;

use crate::ids::TokenIds;

/// Name of the column of checks.
pub const CHECK: &str = "check";

/// The schema with a column of checks, if it is one of samples (token sequences, documents, images); any other as it is.
pub fn checked(schema: SchemaRef) -> SchemaRef {
    if !is_fed(&schema) || schema.field_with_name(CHECK).is_ok() {
        return schema;
    }
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(CHECK, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// The rows with their checks, if they are samples; any others as they are.
pub fn with_checks(rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(checks) = checks(&rows).filter(|_| rows.column_by_name(CHECK).is_none()) else { return Ok(rows) };
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter(checks)));
    RecordBatch::try_new(checked(rows.schema()), columns)
}

/// The places of the rows that do not fit their checks; none where the rows have no checks.
pub fn unfit(rows: &RecordBatch) -> Option<Vec<usize>> {
    let written = rows.column_by_name(CHECK)?.as_primitive_opt::<UInt64Type>()?;
    let found = checks(rows)?;
    let fits = |(place, found): (usize, Option<u64>)| found.is_some() && written.is_valid(place) && Some(written.value(place)) == found;
    Some(found.into_iter().enumerate().filter(|row| !fits(*row)).map(|(place, _)| place).collect())
}

/// The check of a row of token sequences, from its ids and the places at which documents begin, as they are in memory.
pub fn of_sequence(ids: &[u8], starts: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(starts), ids)
}

fn is_fed(schema: &Schema) -> bool {
    let samples = [&["tokens", "starts"][..], &["text"], &["bytes", "label"]];
    samples.iter().any(|columns| columns.iter().all(|column| schema.field_with_name(column).is_ok()))
}

/// The check of every row, none for one that is null; none at all where these are no samples.
fn checks(rows: &RecordBatch) -> Option<Vec<Option<u64>>> {
    sequences(rows).or_else(|| documents(rows)).or_else(|| images(rows))
}

fn sequences(rows: &RecordBatch) -> Option<Vec<Option<u64>>> {
    let tokens = rows.column_by_name("tokens")?.as_fixed_size_list_opt()?;
    let starts = rows.column_by_name("starts")?.as_list_opt::<i32>()?;
    let ids = TokenIds::of(tokens.values())?;
    let places = starts.values().as_primitive_opt::<UInt32Type>()?.values().inner().as_slice();
    let width = tokens.value_length() as usize;
    let row = |row: usize| {
        if tokens.is_null(row) || starts.is_null(row) {
            return None;
        }
        let (from, to) = (starts.value_offsets()[row] as usize, starts.value_offsets()[row + 1] as usize);
        let first = tokens.value_offset(row) as usize;
        Some(of_sequence(ids.slice(first..first + width).bytes(), &places[4 * from..4 * to]))
    };
    Some((0..rows.num_rows()).map(row).collect())
}

fn documents(rows: &RecordBatch) -> Option<Vec<Option<u64>>> {
    let texts = rows.column_by_name("text")?.as_string_opt::<i64>()?;
    // As bytes: what a damaged file gives need not be text.
    let (bytes, offsets) = (texts.values().as_slice(), texts.value_offsets());
    let row = |row: usize| texts.is_valid(row).then(|| XxHash3_64::oneshot(&bytes[offsets[row] as usize..offsets[row + 1] as usize]));
    Some((0..rows.num_rows()).map(row).collect())
}

fn images(rows: &RecordBatch) -> Option<Vec<Option<u64>>> {
    let bytes = rows.column_by_name("bytes")?.as_binary_opt::<i64>()?;
    let labels = rows.column_by_name("label")?.as_primitive_opt::<UInt32Type>()?;
    let row = |row: usize| {
        let sound = bytes.is_valid(row) && labels.is_valid(row);
        sound.then(|| XxHash3_64::oneshot_with_seed(u64::from(labels.value(row)), bytes.value(row)))
    };
    Some((0..rows.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, FixedSizeListArray, LargeBinaryArray, LargeStringArray, ListArray, UInt16Array, UInt32Array};
    use arrow::buffer::OffsetBuffer;
    use proptest::prelude::*;

    use super::*;

    fn item() -> Arc<Field> {
        Arc::new(Field::new("item", DataType::UInt32, false))
    }

    fn tokens(rows: usize, ids: Vec<u32>, starts: Vec<u32>) -> RecordBatch {
        tokens_of(rows, (item(), Arc::new(UInt32Array::from(ids))), starts)
    }

    fn narrow_tokens(rows: usize, ids: Vec<u16>, starts: Vec<u32>) -> RecordBatch {
        let item = Arc::new(Field::new("item", DataType::UInt16, false));
        tokens_of(rows, (item, Arc::new(UInt16Array::from(ids))), starts)
    }

    fn tokens_of(rows: usize, (of, ids): (Arc<Field>, ArrayRef), starts: Vec<u32>) -> RecordBatch {
        let ids: ArrayRef = Arc::new(FixedSizeListArray::new(of, 4, ids, None));
        let lengths = OffsetBuffer::from_lengths(vec![starts.len() / rows; rows]);
        let starts: ArrayRef = Arc::new(ListArray::new(item(), lengths, Arc::new(UInt32Array::from(starts)), None));
        RecordBatch::try_from_iter([("tokens", ids), ("starts", starts)]).expect("rows")
    }

    fn pictures(bytes: &[Vec<u8>]) -> RecordBatch {
        let labels: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..bytes.len() as u32));
        let bytes: ArrayRef = Arc::new(LargeBinaryArray::from_iter_values(bytes));
        RecordBatch::try_from_iter([("bytes", bytes), ("label", labels)]).expect("rows")
    }

    fn texts(texts: &[String]) -> RecordBatch {
        let texts: ArrayRef = Arc::new(LargeStringArray::from_iter_values(texts));
        RecordBatch::try_from_iter([("text", texts)]).expect("rows")
    }

    /// The same rows with the checks of others.
    fn disguised(rows: RecordBatch, as_those_of: &RecordBatch) -> RecordBatch {
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::clone(as_those_of.column_by_name(CHECK).expect("checks")));
        RecordBatch::try_new(as_those_of.schema(), columns).expect("rows")
    }

    #[test]
    fn rows_fit_their_checks_also_in_slices_and_others_have_none() {
        let rows = with_checks(tokens(3, (0..12).collect(), vec![0, 1, 0, 2, 0, 3])).expect("rows");
        assert_eq!((rows.schema(), unfit(&rows)), (checked(rows.schema()), Some(vec![])));
        assert_eq!(unfit(&rows.slice(1, 2)), Some(vec![]));
        let rows = with_checks(narrow_tokens(3, (0..12).collect(), vec![0, 1, 0, 2, 0, 3])).expect("rows");
        assert_eq!((unfit(&rows), unfit(&rows.slice(1, 2))), (Some(vec![]), Some(vec![])));
        let rows = with_checks(pictures(&[vec![1, 2], vec![], vec![3]])).expect("rows");
        assert_eq!((unfit(&rows.slice(1, 2)), rows.num_columns()), (Some(vec![]), 3));
        let documents = with_checks(texts(&["a".to_owned(), String::new(), "größe".to_owned()])).expect("rows");
        assert_eq!((unfit(&documents.slice(1, 2)), documents.num_columns()), (Some(vec![]), 2));
        let labels = rows.project(&[1]).expect("labels");
        assert_eq!((with_checks(labels.clone()).expect("rows").num_columns(), unfit(&labels)), (1, None));
        assert_eq!(checked(labels.schema()), labels.schema());
    }

    #[test]
    fn a_check_is_what_it_always_was() {
        let of = |rows: RecordBatch| checks(&rows).expect("checks")[0];
        assert_eq!(of(tokens(1, vec![1, 2, 3, 4], vec![0])), Some(13_442_739_291_010_519_228));
        let memory: Vec<u8> = [1u16, 2, 3, 4].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(of(narrow_tokens(1, vec![1, 2, 3, 4], vec![0])), Some(of_sequence(&memory, &[0; 4])));
        assert_eq!(of(pictures(&[b"forebay".to_vec()])), Some(4_004_894_171_484_014_469));
        assert_eq!(of(texts(&["forebay".to_owned()])), Some(XxHash3_64::oneshot(b"forebay")));
    }

    proptest! {
        #[test]
        fn a_changed_row_does_not_fit(row in 0usize..3, place in 0usize..4, bit in 0u32..32) {
            let ids: Vec<u32> = (0..12).collect();
            let written = with_checks(tokens(3, ids.clone(), vec![0, 2, 1])).expect("rows");
            let mut changed = ids.clone();
            changed[row * 4 + place] ^= 1 << bit;
            prop_assert_eq!(unfit(&disguised(tokens(3, changed, vec![0, 2, 1]), &written)), Some(vec![row]));
            let narrow = |ids: &[u32]| narrow_tokens(3, ids.iter().map(|id| *id as u16).collect(), vec![0, 2, 1]);
            let narrow_written = with_checks(narrow(&ids)).expect("rows");
            let mut changed = ids.clone();
            changed[row * 4 + place] ^= 1 << (bit % 16);
            prop_assert_eq!(unfit(&disguised(narrow(&changed), &narrow_written)), Some(vec![row]));
            let mut starts = vec![0, 2, 1];
            starts[row] ^= 1 << bit;
            prop_assert_eq!(unfit(&disguised(tokens(3, ids, starts), &written)), Some(vec![row]));
            let written = with_checks(texts(&["abcd".to_owned(), "efgh".to_owned(), "ijkl".to_owned()])).expect("rows");
            let mut changed = ["abcd", "efgh", "ijkl"].map(|text| text.as_bytes().to_vec());
            changed[row][place] ^= 1 << (bit % 7);
            let changed = changed.map(|text| String::from_utf8(text).expect("ASCII"));
            prop_assert_eq!(unfit(&disguised(texts(&changed), &written)), Some(vec![row]));
            let bytes = vec![vec![7, 8, 9, 10], vec![1, 2, 3, 4], vec![5, 6, 7, 8]];
            let written = with_checks(pictures(&bytes)).expect("rows");
            let mut changed = bytes;
            changed[row][place] ^= 1 << (bit % 8);
            prop_assert_eq!(unfit(&disguised(pictures(&changed), &written)), Some(vec![row]));
        }
    }
}
