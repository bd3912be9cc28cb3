//! Cleaning: every record gets a verdict, a reason and, where it could be decoded, an id.
//!
//! One file a rule; each rule is a pure function. They enter the plan as one scalar function a modality, from raw bytes
//! to a struct of columns. Deliberately absent: anything that looks at two records (that is `dedup`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{Expr, col};
use forebay_schemas::dataset::Modality;
use forebay_schemas::pipeline::Pipeline;

use crate::error::{Error, Kind, Result};

pub(crate) mod alphanumerics;
pub(crate) mod decode;
pub(crate) mod image;
pub(crate) mod length;
pub(crate) mod lines;
pub(crate) mod normalise;
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
    pub(crate) reason: &'static str,
    /// The value that was judged, for people.
    pub(crate) detail: String,
}

impl Rejection {
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
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

/// The columns that a modality's function adds to those of every record.
fn payload(modality: Modality) -> Vec<Field> {
    match modality {
        Modality::Text => text::payload(),
        Modality::Images => image::payload(),
    }
}

/// Columns of a cleaned record: `ordinal`, `key`, `bytes`, then the verdict, then what the modality needs.
pub(crate) fn schema(modality: Modality) -> SchemaRef {
    let mut fields = vec![
        Field::new("ordinal", DataType::UInt64, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("bytes", DataType::UInt64, false),
    ];
    fields.extend(verdict_fields());
    fields.extend(payload(modality));
    Arc::new(Schema::new(fields))
}

/// The projection that cleans raw records: their columns and the struct that [`unnest`] opens.
pub(crate) fn projection(pipeline: &Pipeline) -> Vec<Expr> {
    let clean = function(pipeline).call(vec![col("key"), col("content"), col("reason"), col("detail")]);
    vec![col("ordinal"), col("key"), col("bytes"), clean.alias("record")]
}

/// The columns of the struct beside those of the raw record, as [`schema`] says.
pub(crate) fn unnest(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let record = batch.column(3).as_struct_opt().ok_or_else(|| Error::new(Kind::Internal, "cleaning returned no struct"))?;
    let columns = batch.columns()[..3].iter().chain(record.columns()).cloned().collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn verdict_fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::FixedSizeBinary(32), true),
        Field::new("verdict", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ]
}

fn function(pipeline: &Pipeline) -> ScalarUDF {
    let modality = pipeline.source.modality;
    let fields: Vec<Field> = verdict_fields().into_iter().chain(payload(modality)).collect();
    let inputs = vec![DataType::Utf8, DataType::LargeBinary, DataType::Utf8, DataType::Utf8];
    let returns = DataType::Struct(fields.clone().into());
    let pipeline = pipeline.clone();
    create_udf(
        "clean",
        inputs,
        returns,
        Volatility::Immutable,
        Arc::new(move |arguments| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let columns = raw_columns(&arrays, &pipeline)?;
            let record = StructArray::try_new(fields.clone().into(), columns, None)?;
            Ok(ColumnarValue::Array(Arc::new(record)))
        }),
    )
}

/// A raw record: the bytes, or why there are none.
type Raw<'a> = std::result::Result<&'a [u8], Rejection>;

fn raw_columns(arrays: &[ArrayRef], pipeline: &Pipeline) -> Result<Vec<ArrayRef>> {
    let [keys, contents, reasons, details] = arrays else {
        return Err(Error::new(Kind::Internal, format!("cleaning takes 4 columns, found {}", arrays.len())));
    };
    let (keys, contents) = (keys.as_string::<i32>(), contents.as_binary::<i64>());
    let (reasons, details) = (reasons.as_string::<i32>(), details.as_string::<i32>());
    let raw = (0..keys.len()).map(|row| {
        let content: Raw<'_> = if contents.is_valid(row) {
            Ok(contents.value(row))
        } else {
            Err(Rejection::new(crate::source::known_reason(reasons.value(row)), details.value(row)))
        };
        (keys.value(row), content)
    });
    match pipeline.source.modality {
        Modality::Text => text::columns(raw, pipeline),
        Modality::Images => image::columns(raw, pipeline),
    }
}
