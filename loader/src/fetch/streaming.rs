//! Copies that go past the processor's cache.
//!
//! Rows are put into batches long before these are used, in an order that no cache can foresee. A plain store first fetches the
//! line that it writes to, only to write over it, and pushes out what is needed sooner. Streaming stores (MOVNTDQ, which all
//! x86-64 processors have) write whole lines to memory and fetch nothing. Elsewhere this is a plain copy.

#![expect(unsafe_code, reason = "half of what reading tokens costs is the copy, and streaming stores take a third off it")]

/// Says that these places will be written to: a first and last line that rows share is fetched meanwhile.
pub(super) fn announce(places: &[&mut [u8]]) {
    #[cfg(target_arch = "x86_64")]
    for place in places {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        if let [first, .., last] = &**place {
            // SAFETY: a hint about bytes that are there.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(first).cast());
                _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(last).cast());
            }
        }
    }
}

/// Copies each row to its place, of the same length.
pub(super) fn copy<'a>(rows: impl Iterator<Item = &'a [u8]>, places: &mut [&mut [u8]]) {
    let rows = rows.zip(places);
    #[cfg(target_arch = "x86_64")]
    {
        rows.for_each(|(row, place)| stream(row, place));
        // SAFETY: every x86-64 processor has it. Whoever looks at the rows after this sees them.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    rows.for_each(|(row, place)| place.copy_from_slice(row));
}

/// Copies one row by streaming stores. They have to be fenced before anybody else may look.
#[cfg(target_arch = "x86_64")]
fn stream(row: &[u8], place: &mut [u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

    /// What a processor has in its cache or not.
    #[repr(C, align(64))]
    struct Line([__m128i; 4]);

    // SAFETY: a line is made of bytes of any value, without padding.
    let (head, lines, tail) = unsafe { place.align_to_mut::<Line>() };
    let (first, rest) = row.split_at(head.len());
    let (middle, last) = rest.split_at(size_of_val(lines));
    head.copy_from_slice(first);
    for (line, from) in lines.iter_mut().zip(middle.chunks_exact(size_of::<Line>())) {
        for (to, from) in line.0.iter_mut().zip(from.chunks_exact(size_of::<__m128i>())) {
            // SAFETY: `from` has the 16 bytes that are read, and `to` those that are written, at a multiple of 16.
            unsafe { _mm_stream_si128(to, _mm_loadu_si128(from.as_ptr().cast())) };
        }
    }
    tail.copy_from_slice(last);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_of_any_length_come_to_places_anywhere(lengths in prop::collection::vec((0usize..300, 0usize..70), 1..6)) {
            let rows: Vec<Vec<u8>> = (1u8..).zip(&lengths).map(|(number, (length, _))| (0..*length).map(|at| at as u8 ^ number).collect()).collect();
            let mut memory = vec![0xa5; lengths.iter().map(|(length, gap)| length + gap).sum()];
            let (mut places, mut left, mut expected) = (Vec::new(), memory.as_mut_slice(), Vec::new());
            for (row, (length, gap)) in rows.iter().zip(&lengths) {
                let (before, rest) = left.split_at_mut(*gap);
                let (place, rest) = rest.split_at_mut(*length);
                expected.extend_from_slice(before);
                expected.extend_from_slice(row);
                places.push(place);
                left = rest;
            }
            announce(&places);
            copy(rows.iter().map(Vec::as_slice), &mut places);
            prop_assert_eq!(memory, expected);
        }
    }
}
