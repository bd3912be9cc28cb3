//! Keeps a promise that Lance forgets: that the items of a fixed-size list are never null.
//!
//! Lance stores such a list without its item field. The promise travels as metadata of the column instead, and is put
//! back into the schema and the arrays when they are read; no value is copied.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

const KEY: &str = "forebay:items";
const NEVER_NULL: &str = "never null";

/// The schema that Lance is given.
pub(super) fn marked(schema: &Schema) -> SchemaRef {
    let mark = |field: &Field| match field.data_type() {
        DataType::FixedSizeList(item, _) if !item.is_nullable() => {
            let mut metadata = field.metadata().clone();
            metadata.insert(KEY.to_owned(), NEVER_NULL.to_owned());
            field.clone().with_metadata(metadata)
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(|field| mark(field)).collect::<Vec<_>>()))
}

/// The schema that was written, from the one that Lance gives.
pub(super) fn unmarked(schema: &Schema) -> SchemaRef {
    let unmark = |field: &Field| {
        let mut metadata = field.metadata().clone();
        let never_null = metadata.remove(KEY).is_some();
        let field = field.clone().with_metadata(metadata);
        match field.data_type() {
            DataType::FixedSizeList(item, length) if never_null => {
                let kind = DataType::FixedSizeList(Arc::new(item.as_ref().clone().with_nullable(false)), *length);
                field.with_data_type(kind)
            }
            _ => field,
        }
    };
    Arc::new(Schema::new(schema.fields().iter().map(|field| unmark(field)).collect::<Vec<_>>()))
}

/// The array with the item field that `kind` has; any other array as it is.
pub(super) fn restored(array: &ArrayRef, kind: &DataType) -> ArrayRef {
    match (array.data_type(), kind) {
        (DataType::FixedSizeList(found, _), DataType::FixedSizeList(item, length)) if found != item => {
            let list = array.as_fixed_size_list();
            let restored = FixedSizeListArray::try_new(item.clone(), *length, list.values().clone(), list.nulls().cloned());
            restored.map_or_else(|_| array.clone(), |list| Arc::new(list) as ArrayRef)
        }
        _ => array.clone(),
    }
}
