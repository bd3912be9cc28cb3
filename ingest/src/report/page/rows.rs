//! Rows of the ledger as records with types.
//!
//! Columns are found by name. A reader of tables may hand strings over in another of Arrow's layouts; they are cast.
//! Whatever cannot be such a column is `Corrupt`, named with what was found and expected.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::UInt64Type;
use forebay_schemas::id::Digest;
use forebay_schemas::record;

use crate::error::{Error, Kind, Result};

/// One row of the ledger.
pub(super) struct Record<'a> {
    pub(super) key: &'a str,
    pub(super) id: Option<Digest>,
    pub(super) verdict: Verdict,
    /// Empty for a kept record.
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
    pub(super) survivor: Option<Digest>,
    pub(super) split: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) tokens: Option<u64>,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Removed,
    Quarantined,
}

/// The columns of a batch.
pub(super) struct Rows {
    keys: StringArray,
    ids: FixedSizeBinaryArray,
    verdicts: StringArray,
    reasons: StringArray,
    details: StringArray,
    survivors: FixedSizeBinaryArray,
    splits: StringArray,
    bytes: UInt64Array,
    tokens: UInt64Array,
}

impl Rows {
    pub(super) fn of(batch: &RecordBatch) -> Result<Self> {
        let text = |name| Ok::<_, Error>(column(batch, name)?.as_string::<i32>().clone());
        let digests = |name| Ok::<_, Error>(column(batch, name)?.as_fixed_size_binary().clone());
        let numbers = |name| Ok::<_, Error>(column(batch, name)?.as_primitive::<UInt64Type>().clone());
        Ok(Self {
            keys: text("key")?,
            ids: digests("id")?,
            verdicts: text("verdict")?,
            reasons: text("reason")?,
            details: text("detail")?,
            survivors: digests("survivor")?,
            splits: text("split")?,
            bytes: numbers("bytes")?,
            tokens: numbers("tokens")?,
        })
    }

    pub(super) fn each(&self, mut visit: impl FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        for row in 0..self.keys.len() {
            visit(Record {
                key: text(&self.keys, row).unwrap_or_default(),
                id: digest(&self.ids, row),
                verdict: self.verdict(row)?,
                reason: text(&self.reasons, row).unwrap_or_default(),
                detail: text(&self.details, row).unwrap_or_default(),
                survivor: digest(&self.survivors, row),
                split: text(&self.splits, row),
                bytes: number(&self.bytes, row).unwrap_or(0),
                tokens: number(&self.tokens, row),
            })?;
        }
        Ok(())
    }

    fn verdict(&self, row: usize) -> Result<Verdict> {
        match text(&self.verdicts, row).unwrap_or_default() {
            "kept" => Ok(Verdict::Kept),
            "removed" => Ok(Verdict::Removed),
            "quarantined" => Ok(Verdict::Quarantined),
            other => {
                let key = text(&self.keys, row).unwrap_or_default();
                Err(corrupt(format!("verdict `{other}` of record `{key}`, expected kept, removed or quarantined")))
            }
        }
    }
}

fn column(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let schema = record::records();
    let expected = schema.field_with_name(name)?.data_type();
    let found = batch.column_by_name(name).ok_or_else(|| corrupt(format!("no column `{name}`, expected one of {expected}")))?;
    if found.data_type() == expected {
        return Ok(found.clone());
    }
    cast(found, expected).map_err(|error| {
        let message = format!("table `records`: column `{name}` of {}, expected {expected}", found.data_type());
        Error::with_source(Kind::Corrupt, message, error)
    })
}

fn corrupt(message: String) -> Error {
    Error::new(Kind::Corrupt, format!("table `records`: {message}"))
}

fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn number(column: &UInt64Array, row: usize) -> Option<u64> {
    column.is_valid(row).then(|| column.value(row))
}

fn digest(column: &FixedSizeBinaryArray, row: usize) -> Option<Digest> {
    let bytes = column.is_valid(row).then(|| column.value(row))?;
    bytes.try_into().ok().map(Digest::from_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, LargeStringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::report::page::tests::{Row, batch};

    fn with(name: &str, column: ArrayRef) -> RecordBatch {
        let whole = batch(&[Row::kept("a", "train", 3)]);
        let mut fields: Vec<Field> = whole.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let at = whole.schema().index_of(name).expect("column");
        fields[at] = Field::new(name, column.data_type().clone(), true);
        let mut columns = whole.columns().to_vec();
        columns[at] = column;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("batch")
    }

    #[test]
    fn another_layout_of_strings_is_the_same_key() {
        let rows = Rows::of(&with("key", Arc::new(LargeStringArray::from(vec!["other"])))).expect("rows");
        let mut keys = Vec::new();
        rows.each(|record| {
            keys.push(record.key.to_owned());
            Ok(())
        })
        .expect("records");
        assert_eq!(keys, ["other"]);
    }

    #[test]
    fn a_column_that_is_missing_or_of_another_kind_is_corrupt() {
        let without = batch(&[]).project(&[0, 1]).expect("batch");
        let error = Rows::of(&without).err().expect("an error");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Corrupt, "table `records`: no column `verdict`, expected one of Utf8")
        );
        let error = Rows::of(&with("survivor", Arc::new(Int32Array::from(vec![1])))).err().expect("an error");
        assert_eq!(error.to_string(), format!("table `records`: column `survivor` of Int32, expected {}", DataType::FixedSizeBinary(32)));
    }

    #[test]
    fn an_unknown_verdict_is_corrupt() {
        let rows = Rows::of(&with("verdict", Arc::new(StringArray::from(vec!["perhaps"])))).expect("rows");
        let error = rows.each(|_| Ok(())).expect_err("an error");
        assert_eq!(error.to_string(), "table `records`: verdict `perhaps` of record `a`, expected kept, removed or quarantined");
    }
}
