//! Cleaning: every record gets a verdict, a reason and, where it could be decoded, an id.
//!
//! One file a rule; each rule is a pure function. They enter the plan as one scalar function a modality, from raw bytes
//! to a struct of columns. Deliberately absent: anything that looks at two records (that is `dedup`).

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, RecordBatch, StringBuilder, StructArray, UInt32Array, UInt32Builder,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{Expr, col};
use forebay_schemas::dataset::Modality;
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Pipeline;

use crate::error::{Error, Kind, Result};

pub(crate) mod alphanumerics;
pub(crate) mod bad_words;
pub(crate) mod blocklist;
pub(crate) mod decode;
pub(crate) mod decontaminate;
pub(crate) mod edits;
pub(crate) mod html;
pub(crate) mod image;
pub(crate) mod language;
pub(crate) mod length;
pub(crate) mod lines;
pub(crate) mod lists;
pub(crate) mod mojibake;
pub(crate) mod normalise;
pub(crate) mod personal;
pub(crate) mod picture;
pub(crate) mod quality;
pub(crate) mod rules;
mod scripts;
pub(crate) mod text;

/// Kept unless a duplicate.
pub(crate) const KEPT: &str = "kept";
/// A good record that a rule leaves out.
pub(crate) const REMOVED: &str = "removed";
/// A bad record.
pub(crate) const QUARANTINED: &str = "quarantined";

/// Why a rule leaves a record out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Name of the rule, as counted in the conservation table.
    pub(crate) reason: Cow<'static, str>,
    /// The value that was judged, for people.
    pub(crate) detail: String,
}

impl Rejection {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

/// What the rules say of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    Remove(Rejection),
    Quarantine(Rejection),
}

impl Verdict {
    /// `kept`, `removed` or `quarantined`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Keep => KEPT,
            Self::Remove(_) => REMOVED,
            Self::Quarantine(_) => QUARANTINED,
        }
    }

    /// Why, unless kept.
    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Keep => None,
            Self::Remove(rejection) | Self::Quarantine(rejection) => Some(rejection),
        }
    }
}

/// Columns of the verdict on every record.
///
/// - `key`: object key, and the place in it; `bytes`: size as read; `id`: digest of the cleaned content
/// - `verdict`, `reason`, `detail`: what the rules say
/// - `size`: characters of text, bytes of images, 0 unless kept; `rank`, `sketch`: see [`crate::dedup::minhash::Signed`]
/// - `class`: of an image; of text its language, where that is identified; `edits`: see [`edits`]
/// - `moments`: of a kept image, see [`picture::moments`]
pub(crate) fn verdict_schema() -> SchemaRef {
    let mut fields = vec![Field::new("key", DataType::Utf8, false), Field::new("bytes", DataType::UInt64, false)];
    fields.extend(verdict_fields());
    Arc::new(Schema::new(fields))
}

/// Columns of the contents of kept records: `row` of the verdict in its part, `id`, and what the modality needs.
pub(crate) fn content_schema(modality: Modality) -> SchemaRef {
    let mut fields = vec![Field::new("row", DataType::UInt32, false), Field::new("id", DataType::FixedSizeBinary(32), true)];
    fields.extend(payload(modality));
    Arc::new(Schema::new(fields))
}

fn verdict_fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::FixedSizeBinary(32), true),
        Field::new("verdict", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
        Field::new("size", DataType::UInt32, false),
        Field::new("rank", DataType::UInt32, false),
        Field::new("sketch", DataType::Binary, false),
        Field::new("class", DataType::Utf8, true),
        Field::new("edits", DataType::Utf8, true),
        Field::new("moments", DataType::Binary, true),
    ]
}

/// The columns of contents that only a modality has.
fn payload(modality: Modality) -> Vec<Field> {
    match modality {
        Modality::Text => text::payload(),
        Modality::Images => image::payload(),
    }
}

/// The projection that cleans raw records: their key and size and the struct that [`unnest`] opens.
pub(crate) fn projection(cleaner: &Arc<Cleaner>) -> Vec<Expr> {
    let columns = ["kind", "content", "charset", "url", "class", "reason", "detail"].map(col).to_vec();
    vec![col("key"), col("bytes"), function(Arc::clone(cleaner)).call(columns).alias("record")]
}

/// The verdicts of a batch, and the contents of the records that are kept; `first` is the row of the first verdict.
pub(crate) fn unnest(batch: &RecordBatch, first: usize, modality: Modality) -> Result<(RecordBatch, RecordBatch)> {
    let record = batch.column(2).as_struct_opt().ok_or_else(|| Error::new(Kind::Internal, "cleaning returned no struct"))?;
    let (verdict, payload) = record.columns().split_at(verdict_fields().len());
    let columns = batch.columns()[..2].iter().chain(verdict).cloned().collect();
    let verdicts = RecordBatch::try_new(verdict_schema(), columns)?;
    let rows: ArrayRef = Arc::new(UInt32Array::from_iter_values(first as u32..(first + batch.num_rows()) as u32));
    let columns = [rows, Arc::clone(&verdict[0])].iter().chain(payload).cloned().collect();
    let contents = RecordBatch::try_new(content_schema(modality), columns)?;
    // The first column of the payload is the content itself, null unless kept.
    let contents = match payload[0].null_count() {
        0 => contents,
        _ => filter_record_batch(&contents, &arrow::compute::is_not_null(&payload[0])?)?,
    };
    Ok((verdicts, contents))
}

/// What cleans records of one pipeline: its settings and what they name, loaded once.
pub(crate) struct Cleaner {
    pub(crate) pipeline: Pipeline,
    rules: rules::Rules,
    /// States that no thread uses right now.
    idle: Mutex<Vec<text::Worker>>,
}

impl Cleaner {
    /// Loads what the settings name; `read` fetches an object by its path or URL.
    pub(crate) fn load(pipeline: &Pipeline, read: lists::ReadObject<'_>) -> Result<Self> {
        let rules = match pipeline.source.modality {
            Modality::Text => rules::Rules::load(&pipeline.clean, read)?,
            Modality::Images => rules::Rules::default(),
        };
        Ok(Self { pipeline: pipeline.clone(), rules, idle: Mutex::default() })
    }

    /// Digest of everything that was loaded: it decides the rows as the settings do.
    pub(crate) fn digest(&self) -> Digest {
        self.rules.digest()
    }
}

fn function(cleaner: Arc<Cleaner>) -> ScalarUDF {
    let modality = cleaner.pipeline.source.modality;
    let fields: Vec<Field> = verdict_fields().into_iter().chain(payload(modality)).collect();
    use DataType::{LargeBinary, UInt8, Utf8};
    let inputs = vec![UInt8, LargeBinary, Utf8, Utf8, Utf8, Utf8, Utf8];
    let returns = DataType::Struct(fields.clone().into());
    create_udf(
        "clean",
        inputs,
        returns,
        Volatility::Immutable,
        Arc::new(move |arguments| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let columns = raw_columns(&arrays, &cleaner)?;
            let record = StructArray::try_new(fields.clone().into(), columns, None)?;
            Ok(ColumnarValue::Array(Arc::new(record)))
        }),
    )
}

/// A raw record.
pub(crate) struct Raw<'a> {
    /// What the content is, as in [`crate::source::read::kind`].
    pub(crate) kind: u8,
    /// The bytes, or why there are none.
    pub(crate) content: std::result::Result<&'a [u8], Rejection>,
    /// The character set that a protocol header claims.
    pub(crate) charset: Option<&'a str>,
    /// Where the content came from on the web.
    pub(crate) url: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
}

fn raw_columns(arrays: &[ArrayRef], cleaner: &Cleaner) -> Result<Vec<ArrayRef>> {
    let [kinds, contents, charsets, urls, classes, reasons, details] = arrays else {
        return Err(Error::new(Kind::Internal, format!("cleaning takes 7 columns, found {}", arrays.len())));
    };
    let (kinds, contents) = (kinds.as_primitive::<UInt8Type>(), contents.as_binary::<i64>());
    let text = |column: &'_ ArrayRef, row: usize| -> Option<String> { text_at(column, row).map(str::to_owned) };
    let raw = (0..kinds.len()).map(|row| Raw {
        kind: kinds.value(row),
        content: match contents.is_valid(row) {
            true => Ok(contents.value(row)),
            false => Err(Rejection::new(text(reasons, row).unwrap_or_default(), text(details, row).unwrap_or_default())),
        },
        charset: text_at(charsets, row),
        url: text_at(urls, row),
        class: text_at(classes, row),
    });
    match cleaner.pipeline.source.modality {
        Modality::Text => {
            let idle = cleaner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut worker = idle.unwrap_or_else(|| text::Worker::new(&cleaner.pipeline));
            let columns = text::columns(raw, cleaner, &mut worker);
            cleaner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
            columns
        }
        Modality::Images => image::columns(raw, &cleaner.pipeline),
    }
}

fn text_at(column: &ArrayRef, row: usize) -> Option<&str> {
    let column = column.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}

/// Builds the columns of verdicts.
#[derive(Default)]
struct Verdicts {
    ids: Option<FixedSizeBinaryBuilder>,
    verdicts: StringBuilder,
    reasons: StringBuilder,
    details: StringBuilder,
    sizes: UInt32Builder,
    ranks: UInt32Builder,
    sketches: BinaryBuilder,
    classes: StringBuilder,
    edits: StringBuilder,
    moments: BinaryBuilder,
}

/// What is known of a record beside the verdict.
#[derive(Default)]
struct Judged<'a> {
    id: Option<Digest>,
    size: u32,
    rank: u32,
    sketch: &'a [u8],
    class: Option<&'a str>,
    edits: Option<String>,
    moments: Option<[u8; picture::moments::MOMENTS_BYTES]>,
}

impl Verdicts {
    fn push(&mut self, verdict: &Verdict, judged: Judged<'_>) -> Result<()> {
        let ids = self.ids.get_or_insert_with(|| FixedSizeBinaryBuilder::new(32));
        match judged.id {
            Some(id) => ids.append_value(id.as_bytes())?,
            None => ids.append_null(),
        }
        self.verdicts.append_value(verdict.name());
        self.reasons.append_option(verdict.rejection().map(|rejection| rejection.reason.as_ref()));
        self.details.append_option(verdict.rejection().map(|rejection| rejection.detail.as_str()));
        self.sizes.append_value(judged.size);
        self.ranks.append_value(judged.rank);
        self.sketches.append_value(judged.sketch);
        self.classes.append_option(judged.class);
        self.edits.append_option(judged.edits);
        self.moments.append_option(judged.moments);
        Ok(())
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let mut ids = self.ids.unwrap_or_else(|| FixedSizeBinaryBuilder::new(32));
        vec![
            Arc::new(ids.finish()),
            Arc::new(self.verdicts.finish()),
            Arc::new(self.reasons.finish()),
            Arc::new(self.details.finish()),
            Arc::new(self.sizes.finish()),
            Arc::new(self.ranks.finish()),
            Arc::new(self.sketches.finish()),
            Arc::new(self.classes.finish()),
            Arc::new(self.edits.finish()),
            Arc::new(self.moments.finish()),
        ]
    }
}
