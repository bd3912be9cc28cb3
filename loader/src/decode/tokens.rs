//! Packed token sequences: ids of 16 or 32 bits in a fixed-size list, and the places at which documents begin.

use arrow::array::{Array, AsArray, FixedSizeListArray, ListArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, ToByteSlice, UInt32Type};
use forebay_schemas::{TokenIds, ids};

/// Number of ids in a row of the column `tokens`; the error says what a column is instead.
pub(crate) fn sequence_width(schema: &SchemaRef) -> Result<usize, String> {
    let expected = "expected a fixed-size list of at least 2 uint16 or uint32";
    let kind = |column: &str, expected: &str| {
        schema.field_with_name(column).map(|field| field.data_type()).map_err(|_| format!("found no column `{column}`, {expected}"))
    };
    let found = kind("tokens", expected)?;
    let width = ids::width(schema).map(|(width, _)| width).filter(|width| *width >= 2);
    let width = width.ok_or_else(|| format!("column `tokens`: found {found}, {expected}"))?;
    let expected = "expected a list of uint32";
    match kind("starts", expected)? {
        DataType::List(item) if *item.data_type() == DataType::UInt32 => Ok(width),
        found => Err(format!("column `starts`: found {found}, {expected}")),
    }
}

/// The columns of rows that were read together.
pub(crate) struct Sequences<'a> {
    tokens: &'a FixedSizeListArray,
    ids: TokenIds<'a>,
    starts: Starts<'a>,
}

/// The places at which documents begin, of rows that were read together.
pub(crate) struct Starts<'a> {
    lists: &'a ListArray,
    places: &'a [u32],
}

impl<'a> Starts<'a> {
    /// None if they are not there.
    pub(crate) fn of(rows: &'a RecordBatch) -> Option<Self> {
        let lists = rows.column_by_name("starts")?.as_list_opt::<i32>()?;
        let places = lists.values().as_primitive_opt::<UInt32Type>()?;
        (places.null_count() == 0).then(|| Self { lists, places: places.values() })
    }

    /// Those of a row; none if it is null.
    pub(crate) fn row(&self, row: usize) -> Option<&'a [u32]> {
        let there = row < self.lists.len() && !self.lists.is_null(row);
        let offsets = there.then(|| &self.lists.value_offsets()[row..row + 2])?;
        Some(&self.places[offsets[0] as usize..offsets[1] as usize])
    }

    /// The same as they are in memory.
    pub(crate) fn bytes(&self, row: usize) -> Option<&'a [u8]> {
        self.row(row).map(ToByteSlice::to_byte_slice)
    }
}

impl<'a> Sequences<'a> {
    /// None if they are not there with `width` ids a row.
    pub(crate) fn of(rows: &'a RecordBatch, width: usize) -> Option<Self> {
        let tokens = rows.column_by_name("tokens")?.as_fixed_size_list_opt()?;
        let (ids, starts) = (TokenIds::of(tokens.values())?, Starts::of(rows)?);
        (tokens.value_length() as usize == width).then_some(Self { tokens, ids, starts })
    }

    /// The ids of a row and the places at which documents begin; none if it is null.
    pub(crate) fn row(&self, row: usize) -> Option<(TokenIds<'a>, &'a [u32])> {
        if row >= self.tokens.len() || self.tokens.is_null(row) {
            return None;
        }
        let first = self.tokens.value_offset(row) as usize;
        let ids = self.ids.slice(first..first + self.tokens.value_length() as usize);
        Some((ids, self.starts.row(row)?))
    }
}
