//! Copies that go past the processor's cache.
//!
//! Rows of token ids, of two or four bytes each, become ids of four bytes. They are put into batches long before these are used, in
//! an order that no cache can foresee. A plain store first fetches the line that it writes to, only to write over it, and pushes out
//! what is needed sooner. Streaming stores (MOVNTDQ, which all x86-64 processors have) write whole lines to memory and fetch
//! nothing. Elsewhere this is a plain copy.

#![expect(unsafe_code, reason = "half of what reading tokens costs is the copy, and streaming stores take a third off it")]

/// Bytes of the ids of stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    /// That of rows of so many bytes in which there are so many ids; none if there is no such.
    pub(super) fn of(row_bytes: usize, ids: usize) -> Option<Self> {
        [Self::Two, Self::Four].into_iter().find(|width| row_bytes == width.bytes() * ids)
    }

    fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Says that these places will be written to: a first and last line that rows share is fetched meanwhile.
pub(super) fn announce(places: &[&mut [u32]]) {
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

/// Copies the ids of each row, as they are in memory, to its place for as many.
pub(super) fn copy<'a>(width: Width, rows: impl Iterator<Item = &'a [u8]>, places: &mut [&mut [u32]]) {
    let rows = rows.zip(places);
    #[cfg(target_arch = "x86_64")]
    {
        match width {
            Width::Two => rows.for_each(|(row, place)| x86::stream(row, place, x86::widened)),
            Width::Four => rows.for_each(|(row, place)| x86::stream(row, place, x86::as_they_are)),
        }
        x86::fence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    rows.for_each(|(row, place)| one_by_one(width, row, place));
}

fn one_by_one(width: Width, row: &[u8], place: &mut [u32]) {
    let ids = place.iter_mut().zip(row.chunks_exact(width.bytes()));
    ids.for_each(|(place, id)| match *id {
        [a, b] => *place = u32::from(u16::from_ne_bytes([a, b])),
        [a, b, c, d] => *place = u32::from_ne_bytes([a, b, c, d]),
        _ => {}
    });
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_setzero_si128, _mm_sfence, _mm_stream_si128, _mm_unpackhi_epi16, _mm_unpacklo_epi16,
    };

    use super::{Width, one_by_one};

    /// What a processor has in its cache or not: sixteen ids.
    #[repr(C, align(64))]
    pub(super) struct Line([__m128i; 4]);

    /// Copies one row by streaming stores; `line` makes a line of `BYTES` stored ones. They have to be fenced before anybody else
    /// may look.
    pub(super) fn stream<const BYTES: usize>(row: &[u8], place: &mut [u32], line: impl Fn(&[u8; BYTES]) -> Line) {
        let width = if BYTES == 32 { Width::Two } else { Width::Four };
        // SAFETY: a line is made of bytes of any value, without padding.
        let (head, lines, tail) = unsafe { place.align_to_mut::<Line>() };
        let (first, rest) = row.split_at(width.bytes() * head.len());
        let (middle, last) = rest.split_at(BYTES * lines.len());
        one_by_one(width, first, head);
        for (to, from) in lines.iter_mut().zip(middle.as_chunks::<BYTES>().0) {
            for (to, ids) in to.0.iter_mut().zip(line(from).0) {
                // SAFETY: `to` has the 16 bytes that are written, at a multiple of 16.
                unsafe { _mm_stream_si128(to, ids) };
            }
        }
        one_by_one(width, last, tail);
    }

    pub(super) fn as_they_are(stored: &[u8; 64]) -> Line {
        // SAFETY: 64 bytes are 4 times the 16 that are read.
        Line([0, 1, 2, 3].map(|at| unsafe { _mm_loadu_si128(stored.as_ptr().cast::<__m128i>().add(at)) }))
    }

    pub(super) fn widened(stored: &[u8; 32]) -> Line {
        // SAFETY: 32 bytes are 2 times the 16 that are read; every x86-64 processor has the rest.
        unsafe {
            let (zero, from) = (_mm_setzero_si128(), stored.as_ptr().cast::<__m128i>());
            let [low, high] = [_mm_loadu_si128(from), _mm_loadu_si128(from.add(1))];
            Line([
                _mm_unpacklo_epi16(low, zero),
                _mm_unpackhi_epi16(low, zero),
                _mm_unpacklo_epi16(high, zero),
                _mm_unpackhi_epi16(high, zero),
            ])
        }
    }

    /// Whoever looks after this sees what was streamed.
    pub(super) fn fence() {
        // SAFETY: every x86-64 processor has it.
        unsafe { _mm_sfence() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_of_any_length_come_to_places_anywhere(
            narrow in any::<bool>(),
            lengths in prop::collection::vec((0usize..300, 0usize..70), 1..6),
        ) {
            let most = if narrow { 65_536 } else { u32::MAX };
            let id = |number: u32, at: usize| ((at as u32).wrapping_mul(2_654_435_761) % most) ^ number;
            let rows: Vec<Vec<u32>> = (1u32..).zip(&lengths).map(|(number, (length, _))| (0..*length).map(|at| id(number, at)).collect()).collect();
            let stored = |ids: &Vec<u32>| -> Vec<u8> {
                ids.iter().flat_map(|id| if narrow { (*id as u16).to_ne_bytes().to_vec() } else { id.to_ne_bytes().to_vec() }).collect()
            };
            let stored: Vec<Vec<u8>> = rows.iter().map(stored).collect();
            let mut memory = vec![0xa5a5_a5a5; lengths.iter().map(|(length, gap)| length + gap).sum()];
            let (mut places, mut left, mut expected) = (Vec::new(), memory.as_mut_slice(), Vec::new());
            for (row, (length, gap)) in rows.iter().zip(&lengths) {
                let (before, rest) = left.split_at_mut(*gap);
                let (place, rest) = rest.split_at_mut(*length);
                expected.extend_from_slice(before);
                expected.extend_from_slice(row);
                places.push(place);
                left = rest;
            }
            let width = if narrow { Width::Two } else { Width::Four };
            announce(&places);
            copy(width, stored.iter().map(Vec::as_slice), &mut places);
            prop_assert_eq!(memory, expected);
        }
    }

    #[test]
    fn the_width_of_ids_follows_from_that_of_rows() {
        assert_eq!([514, 1028, 771, 0].map(|bytes| Width::of(bytes, 257)), [Some(Width::Two), Some(Width::Four), None, None]);
    }
}
