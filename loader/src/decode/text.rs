//! Documents: text in a column, made tokens on the way.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

/// Refuses a table without documents; the error says what it has instead.
pub(crate) fn check_documents(schema: &SchemaRef) -> Result<(), String> {
    let expected = "expected documents as large utf-8";
    match schema.field_with_name("text").map(|field| field.data_type()) {
        Ok(DataType::LargeUtf8) => Ok(()),
        Ok(found) => Err(format!("column `text`: found {found}, {expected}")),
        Err(_) => Err(format!("found no column `text`, {expected}")),
    }
}

/// The document of a row.
pub(crate) fn document(rows: &RecordBatch, row: usize) -> Result<&str, String> {
    let texts = rows.column_by_name("text").and_then(|texts| texts.as_string_opt::<i64>());
    let texts = texts.filter(|texts| row < texts.len() && texts.is_valid(row)).ok_or("text: found none, expected a document")?;
    // Not every reader looks whether bytes are text.
    let (from, to) = (texts.value_offsets()[row] as usize, texts.value_offsets()[row + 1] as usize);
    std::str::from_utf8(&texts.values()[from..to]).map_err(|_| "text: found bytes that are no UTF-8, expected a document".to_owned())
}
