//! Token ids as they are stored and read: of 16 or of 32 bits, whatever column they are in.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema, ToByteSlice, UInt16Type, UInt32Type};

/// Ids that lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenIds<'a> {
    /// Of a vocabulary of at most 65,536.
    Narrow(&'a [u16]),
    /// Of any.
    Wide(&'a [u32]),
}

impl<'a> TokenIds<'a> {
    /// Those of a column; none if it has other values, or some are null.
    pub fn of(values: &'a ArrayRef) -> Option<Self> {
        let narrow = values.as_primitive_opt::<UInt16Type>().map(|ids| Self::Narrow(ids.values()));
        let ids = narrow.or_else(|| values.as_primitive_opt::<UInt32Type>().map(|ids| Self::Wide(ids.values())));
        ids.filter(|_| values.null_count() == 0)
    }

    /// Those at these places.
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Narrow(ids) => Self::Narrow(&ids[range]),
            Self::Wide(ids) => Self::Wide(&ids[range]),
        }
    }

    /// The same as they are in memory.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Narrow(ids) => ids.to_byte_slice(),
            Self::Wide(ids) => ids.to_byte_slice(),
        }
    }

    /// Copies them to a place for as many.
    pub fn copy_to(self, place: &mut [u32]) {
        match self {
            Self::Narrow(ids) => place.iter_mut().zip(ids).for_each(|(place, id)| *place = u32::from(*id)),
            Self::Wide(ids) => place.copy_from_slice(ids),
        }
    }
}

/// Ids of a row of the column `tokens`, and the bytes of one; none if there is no such column.
pub fn width(schema: &Schema) -> Option<(usize, usize)> {
    match schema.field_with_name("tokens").ok()?.data_type() {
        DataType::FixedSizeList(item, length) if matches!(item.data_type(), DataType::UInt16 | DataType::UInt32) => {
            Some((usize::try_from(*length).ok()?, item.data_type().primitive_width()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{UInt16Array, UInt32Array, UInt64Array};

    use super::*;
    use crate::record;

    #[test]
    fn ids_of_both_widths_are_the_same_numbers() {
        let (narrow, wide): (ArrayRef, ArrayRef) =
            (Arc::new(UInt16Array::from(vec![1, 2, 65_535])), Arc::new(UInt32Array::from(vec![1, 2, 65_535])));
        for (column, bytes) in [(&narrow, 2), (&wide, 4)] {
            let ids = TokenIds::of(column).expect("ids").slice(1..3);
            let mut copied = [0; 2];
            ids.copy_to(&mut copied);
            assert_eq!((copied, ids.bytes().len()), ([2, 65_535], 2 * bytes));
        }
        let (other, null): (ArrayRef, ArrayRef) = (Arc::new(UInt64Array::from(vec![1])), Arc::new(UInt16Array::from(vec![Some(1), None])));
        assert_eq!((TokenIds::of(&other), TokenIds::of(&null)), (None, None));
    }

    #[test]
    fn the_width_is_that_of_the_column() {
        assert_eq!((width(&record::sequences(8, 2)), width(&record::sequences(8, 4))), (Some((9, 2)), Some((9, 4))));
        assert_eq!(width(&record::documents()), None);
    }
}
