//! How a batch holds its numbers: a row of 32-bit floats becomes one of a batch's.
//!
//! Promises: the same bits on every machine; what is rounded goes to the nearest, ties to even (IEEE 754).

use arrow::datatypes::ArrowNativeType;
use half::bf16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

/// A format of numbers.
pub(crate) trait Format {
    /// One number.
    type Bits: ArrowNativeType;

    /// Writes a row.
    fn put(values: &[f32], row: &mut [Self::Bits]);

    /// The row itself, if it holds 32-bit floats and so need not be written by [`Self::put`].
    fn floats(row: &mut [Self::Bits]) -> Result<&mut [f32], &mut [Self::Bits]> {
        Err(row)
    }
}

/// IEEE single.
pub(crate) struct Single;

/// The upper half of an IEEE single.
pub(crate) struct Brain;

/// IEEE half.
pub(crate) struct Half;

/// Whole numbers from 0 to 255.
pub(crate) struct Byte;

impl Format for Single {
    type Bits = f32;

    fn put(values: &[f32], row: &mut [f32]) {
        row.copy_from_slice(values);
    }

    fn floats(row: &mut [f32]) -> Result<&mut [f32], &mut [f32]> {
        Ok(row)
    }
}

impl Format for Brain {
    type Bits = u16;

    fn put(values: &[f32], row: &mut [u16]) {
        row.iter_mut().zip(values).for_each(|(place, value)| *place = bf16::from_f32(*value).to_bits());
    }
}

impl Format for Half {
    type Bits = u16;

    fn put(values: &[f32], row: &mut [u16]) {
        row.reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(values);
    }
}

impl Format for Byte {
    type Bits = u8;

    fn put(values: &[f32], row: &mut [u8]) {
        // The cast cuts off, and keeps what is out of range at its end.
        row.iter_mut().zip(values).for_each(|(place, value)| *place = (*value + 0.5) as u8);
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    fn put<F: Format>(values: &[f32]) -> Vec<F::Bits> {
        let mut row = vec![F::Bits::default(); values.len()];
        F::put(values, &mut row);
        row
    }

    #[test]
    fn numbers_are_those_of_their_formats() {
        let values = [0.0, 1.0, -2.0, 0.333_333_34, 257.0 / 256.0, 65_504.0, 1e-7];
        assert_eq!(put::<Single>(&values), values);
        assert_eq!(put::<Brain>(&values)[..5], [0, 0x3f80, 0xc000, 0x3eab, 0x3f80]);
        assert_eq!(put::<Half>(&values), [0, 0x3c00, 0xc000, 0x3555, 0x3c04, 0x7bff, 0x0002]);
        assert_eq!(put::<Byte>(&[0.0, 0.49, 0.5, 254.6, 255.0, -3.0, 300.0]), [0, 0, 1, 255, 255, 0, 255]);
    }

    proptest! {
        #[test]
        fn a_row_is_rounded_as_each_number_is(values in prop::collection::vec(-300.0f32..300.0, 0..40)) {
            let each = |value: &f32| f16::from_f32_const(*value).to_bits();
            prop_assert_eq!(put::<Half>(&values), values.iter().map(each).collect::<Vec<_>>());
        }
    }
}
