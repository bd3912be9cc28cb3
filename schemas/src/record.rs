//! Arrow schemas of the tables of a dataset version.
//!
//! Three tables, whatever the modality: `train` and `validation` hold *samples' bytes* in their committed order, and
//! `records` is the ledger: one row for every record that was read, with its verdict. Column order is part of the
//! contract; a reader selects by name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// Name of the table of training rows.
pub const TRAIN: &str = "train";
/// Name of the table of validation rows.
pub const VALIDATION: &str = "validation";
/// Name of the ledger of all records read.
pub const RECORDS: &str = "records";
/// Name of the index that later versions deduplicate against.
pub const INDEX: &str = "index";

/// Packed token sequences, one row a sample.
///
/// - `tokens`: `length` + 1 token ids (inputs are the first `length`, targets the last `length`), shape `[length + 1]`, uint16
///   of 2 `id_bytes` and uint32 of 4
/// - `documents`: the ids (first 8 bytes of the digest, little-endian) of the documents whose tokens the row holds, in order
/// - `starts`: offsets in `tokens` at which a document starts, strictly increasing; 0 is absent where the row continues one
pub fn sequences(length: usize, id_bytes: usize) -> SchemaRef {
    let id = if id_bytes == 2 { DataType::UInt16 } else { DataType::UInt32 };
    let item = |name: &str, kind| Arc::new(Field::new(name, kind, false));
    Arc::new(Schema::new(vec![
        Field::new("tokens", DataType::FixedSizeList(item("item", id), length as i32 + 1), false),
        Field::new("documents", DataType::List(item("item", DataType::UInt64)), false),
        Field::new("starts", DataType::List(item("item", DataType::UInt32)), false),
    ]))
}

/// Bytes of a stored token id where there are so many ids: 2 if that is enough, else 4.
pub fn id_bytes(vocabulary: u32) -> usize {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

/// Documents, one row a sample.
///
/// - `id`: digest of the cleaned text, 32 bytes; `text`: the cleaned text
/// - `url`, `title`: of a page, null where the source says nothing; `language`: null unless it was identified
pub fn documents() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("text", DataType::LargeUtf8, false),
        Field::new("url", DataType::Utf8, true),
        Field::new("title", DataType::Utf8, true),
        Field::new("language", DataType::Utf8, true),
    ]))
}

/// The index that later versions deduplicate against: one row a distinct record that the rules kept, duplicates of it left out.
///
/// - `id`: digest of the cleaned content, 32 bytes
/// - `sketch`: what the near-duplicate search compares: the keys of the bands for text (8 bytes each), hashes for images;
///   empty where there is no near-duplicate search
/// - `survivor`: for a near duplicate, the id of the record kept instead; null for a kept record
/// - `task`, `part`, `row`: where the content of a text is among the stage objects of cleaning, `task` counted over the list
///   that the manifest names
/// - `size`: characters of text, bytes of an image; `class`: of an image; of text its language, where it was identified
/// - `validation`: whether it belongs to that split while it is kept
/// - `moments`: of an image its pixels, the sums of their channels and of the squares of these, `u64`s, little-endian
pub fn index() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("sketch", DataType::Binary, false),
        Field::new("survivor", DataType::FixedSizeBinary(32), true),
        Field::new("task", DataType::UInt32, false),
        Field::new("part", DataType::UInt32, false),
        Field::new("row", DataType::UInt32, false),
        Field::new("size", DataType::UInt32, false),
        Field::new("class", DataType::Utf8, true),
        Field::new("validation", DataType::Boolean, false),
        Field::new("moments", DataType::Binary, true),
    ]))
}

/// Encoded images, one row a sample.
///
/// - `id`: digest of the encoded bytes, 32 bytes; `bytes`: JPEG or PNG as read
/// - `label`: index into the manifest's sorted class names; `width`, `height`: pixels, after EXIF orientation
pub fn images() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("bytes", DataType::LargeBinary, false),
        Field::new("label", DataType::UInt32, false),
        Field::new("width", DataType::UInt32, false),
        Field::new("height", DataType::UInt32, false),
    ]))
}

/// The ledger: one row a record read, so that `read = kept + removed + quarantined` can be counted again at any time.
///
/// - `key`: where the record came from: object key below the source, `#member` for a member of an archive
/// - `id`: digest of the cleaned content, 32 bytes; null where it could not be decoded, or was not for a blocked address
/// - `verdict`: `kept`, `removed` or `quarantined`; `reason`: the rule, null for kept
/// - `detail`: the value that the rule judged, for people; `survivor`: for a duplicate, the id of the record kept instead
/// - `split`: `train` or `validation`, null unless kept; `bytes`: size of the raw record; `tokens`: null unless kept text
pub fn records() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("id", DataType::FixedSizeBinary(32), true),
        Field::new("verdict", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("survivor", DataType::FixedSizeBinary(32), true),
        Field::new("split", DataType::Utf8, true),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("tokens", DataType::UInt64, true),
    ]))
}
