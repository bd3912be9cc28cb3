//! Rows for which a predicate is true, as ascending ranges: how a filter becomes a list of rows, once a version.
//!
//! A predicate is an SQL expression over the table's columns, parsed here whatever the format. Only the columns it names
//! are read. Promises: the same rows for the same predicate and rows; a predicate whose value could change (`now()`,
//! `random()`) is refused, and one that is null for a row leaves the row out.
//! Deliberately absent: subqueries and aggregates; a row is judged alone.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Table;
use crate::error::{Error, Kind, Result};

/// Ascending ranges of rows.
pub type RowRanges = Vec<Range<u64>>;

/// A checked predicate.
pub(super) struct Predicate {
    text: String,
    name: String,
    pub(super) expression: Expr,
    /// The columns it names, or one of the table if it names none.
    pub(super) columns: Vec<String>,
    physical: Arc<dyn PhysicalExpr>,
}

impl Predicate {
    /// Parses `text` for a table of this schema; `name` is what messages call the table.
    pub(super) fn parse(name: &str, schema: &SchemaRef, text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::new(Kind::Invalid, format!("{name}: filter `{text}`: {reason}"));
        let bad = |error: datafusion::error::DataFusionError| invalid(error.strip_backtrace().lines().collect::<Vec<_>>().join(" "));
        let context = SessionContext::new();
        let whole = DFSchema::try_from(schema.as_ref().clone()).map_err(bad)?;
        let expression = context.parse_sql_expr(text, &whole).map_err(bad)?;
        if expression.is_volatile() {
            return Err(invalid(
                "its value changes from one evaluation to the next, expected one that depends on the row alone".to_owned(),
            ));
        }
        let named: Vec<&str> = expression.column_refs().into_iter().map(|column| column.name.as_str()).collect();
        // In the order of the table, so that the expression's indices are those of what is read.
        let mut columns: Vec<String> =
            schema.fields().iter().map(|field| field.name().clone()).filter(|field| named.contains(&field.as_str())).collect();
        if columns.is_empty() {
            columns.extend(schema.fields().first().map(|field| field.name().clone()));
        }
        let fields: Vec<_> = schema.fields().iter().filter(|field| columns.contains(field.name())).cloned().collect();
        let read = Schema::new(fields);
        let physical =
            DFSchema::try_from(read.clone()).and_then(|read| context.create_physical_expr(expression.clone(), &read)).map_err(bad)?;
        match physical.data_type(&read).map_err(bad)? {
            DataType::Boolean => Ok(Self { text: text.to_owned(), name: name.to_owned(), expression, columns, physical }),
            other => Err(invalid(format!("found a value of type {other}, expected true or false"))),
        }
    }

    /// Reads the columns of all rows and judges each.
    pub(super) async fn scan(self, table: &dyn Table) -> Result<BoxStream<'static, Result<RowRanges>>> {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let rows = table.scan(&columns).await?;
        let mut first = 0;
        Ok(rows
            .map(move |batch| {
                let batch = batch?;
                let value = self.physical.evaluate(&batch).and_then(|value| value.into_array(batch.num_rows()));
                let value = value.map_err(|error| {
                    let reason = error.strip_backtrace();
                    Error::new(Kind::Invalid, format!("{}: filter `{}`: cannot be evaluated: {reason}", self.name, self.text))
                })?;
                let ranges = value.as_boolean_opt().map_or_else(Vec::new, |value| ranges_of(value, first));
                first += batch.num_rows() as u64;
                Ok(ranges)
            })
            .boxed())
    }
}

/// The rows at which the array is true, counted from `first`.
fn ranges_of(value: &BooleanArray, first: u64) -> RowRanges {
    let mut ranges = RowRanges::new();
    for row in (0..value.len()).filter(|row| value.is_valid(*row) && value.value(*row)) {
        push(&mut ranges, first + row as u64);
    }
    ranges
}

/// Adds a row after those that are there.
pub(super) fn push(ranges: &mut RowRanges, row: u64) {
    match ranges.last_mut().filter(|last| last.end == row) {
        Some(last) => last.end += 1,
        None => ranges.push(row..row + 1),
    }
}
