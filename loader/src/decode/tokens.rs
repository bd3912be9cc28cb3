//! Packed token sequences: 32-bit ids in a fixed-size list, widened to the 64 bits that embeddings take.

use arrow::array::{Array, FixedSizeListArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};

/// Number of ids in a row of the column `tokens`; the error says what the column is instead.
pub(crate) fn sequence_width(schema: &SchemaRef) -> Result<usize, String> {
    let expected = "expected a fixed-size list of at least 2 uint32";
    let field = schema.field_with_name("tokens").map_err(|_| format!("found no column `tokens`, {expected}"))?;
    match field.data_type() {
        DataType::FixedSizeList(item, width) if *item.data_type() == DataType::UInt32 && *width >= 2 => Ok(*width as usize),
        found => Err(format!("column `tokens`: found {found}, {expected}")),
    }
}

/// Appends the ids of row `row` to `ids`; false if they are not there.
pub(crate) fn widen(column: &FixedSizeListArray, row: usize, ids: &mut Vec<i64>) -> bool {
    let width = column.value_length() as usize;
    let start = column.value_offset(row) as usize;
    let Some(values) = column.values().as_any().downcast_ref::<UInt32Array>() else { return false };
    if column.is_null(row) || values.null_count() > 0 {
        return false;
    }
    ids.extend(values.values()[start..start + width].iter().map(|&id| i64::from(id)));
    true
}
