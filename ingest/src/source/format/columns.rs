//! The columns of a table that a record is made of: text and address, or picture and class.
//!
//! Deliberately absent: how the table is stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use forebay_schemas::dataset::Modality;
use forebay_schemas::pipeline::Formats;

use crate::clean::Rejection;
use crate::source::fault;
use crate::source::raw::{Content, RawRecord};

/// The columns of one batch.
pub(in crate::source) struct Columns<'a> {
    content: &'a ArrayRef,
    note: Option<&'a ArrayRef>,
    path: &'a str,
    modality: Modality,
}

impl<'a> Columns<'a> {
    /// By their dotted paths: the content, and the address or class, which may be missing.
    pub(in crate::source) fn of(batch: &'a RecordBatch, paths: &'a [String; 2], modality: Modality) -> Result<Self, Rejection> {
        let missing = |found: &str| Rejection::new(reason(modality), format!("column `{}`: found {found}", paths[0]));
        let content = column(batch, &paths[0]).ok_or_else(|| missing("none"))?;
        let content = match (modality, content.as_struct_opt()) {
            (Modality::Images, Some(picture)) => picture.column_by_name("bytes").ok_or_else(|| missing("a struct without `bytes`"))?,
            _ => content,
        };
        match content.data_type() {
            DataType::BinaryView => {}
            DataType::Utf8View if modality == Modality::Text => {}
            other => return Err(missing(&other.to_string())),
        }
        let note = column(batch, &paths[1]).filter(|note| !note.data_type().is_nested());
        Ok(Self { content, note, path: &paths[0], modality })
    }

    /// The record in `row`.
    pub(in crate::source) fn record(&self, row: usize, place: String, max_record_bytes: u64, class_names: &[String]) -> RawRecord {
        let value = match self.content.data_type() {
            _ if self.content.is_null(row) => None,
            DataType::Utf8View => Some(self.content.as_string_view().value(row).as_bytes()),
            _ => Some(self.content.as_binary_view().value(row)),
        };
        let bytes = value.map_or(0, |value| value.len() as u64);
        let content = match value {
            None => Err(Rejection::new(reason(self.modality), format!("column `{}`: found null", self.path))),
            Some(_) if bytes > max_record_bytes => {
                Err(Rejection::new(fault::TOO_LARGE, format!("{bytes} bytes, expected at most {max_record_bytes}")))
            }
            Some(value) if self.modality == Modality::Images => Ok(Content::Image(Bytes::copy_from_slice(value))),
            Some(value) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Content::Text(text.to_owned())),
                Err(_) => Ok(Content::Plain { bytes: Bytes::copy_from_slice(value), charset: None }),
            },
        };
        let note = self.note.filter(|note| note.is_valid(row)).and_then(|note| array_value_to_string(note, row).ok());
        let note = note.filter(|note| !note.is_empty());
        let (url, class) = match self.modality {
            Modality::Text => (note, None),
            Modality::Images => (None, note.map(|class| named(class, class_names))),
        };
        RawRecord { place, bytes, content, url, class }
    }
}

/// A field with text and bytes as views, as [`Columns`] takes them.
pub(in crate::source) fn as_view(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(as_view).collect()),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}

/// Paths of the columns that hold the content, and the address or class.
pub(in crate::source) fn wanted(formats: &Formats, modality: Modality) -> [String; 2] {
    match modality {
        Modality::Text => [formats.text_field.clone(), formats.url_field.clone()],
        Modality::Images => [formats.image_field.clone(), formats.class_field.clone()],
    }
}

/// The reason of a record without content.
pub(in crate::source) fn reason(modality: Modality) -> &'static str {
    match modality {
        Modality::Text => fault::NO_TEXT_FIELD,
        Modality::Images => fault::NO_IMAGE_FIELD,
    }
}

/// The name of a class that is a number.
fn named(class: String, names: &[String]) -> String {
    class.parse::<usize>().ok().and_then(|number| names.get(number)).cloned().unwrap_or(class)
}

/// A column by its path.
fn column<'a>(batch: &'a RecordBatch, path: &str) -> Option<&'a ArrayRef> {
    let mut parts = path.split('.');
    let first = batch.column_by_name(parts.next()?)?;
    parts.try_fold(first, |column, part| column.as_any().downcast_ref::<StructArray>()?.column_by_name(part))
}
