//! Memory for small arenas, cut from large pieces.
//!
//! A group of token rows is dealt to hundreds of arenas in an order that no cache can foresee, so on pages of 4 KiB nearly every
//! row costs its own address translations, and fresh memory two page faults. In pieces of many MiB the system can use pages of
//! 2 MiB instead, if it is told so. What is never written to takes no memory; a piece goes when its last arena is dropped.
//! Deliberately absent: arenas of some MiB, as of pictures, which the system gives large pages by themselves or needs none.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

use super::Memory;

/// Pages of this size are what pieces are made for.
const LARGE_PAGE: usize = 2 << 20;
/// Bytes of a piece: more than the system's allocator ever takes from memory that was used before.
const SLAB_BYTES: usize = 64 << 20;
/// Larger arenas are not cut from a piece.
const MOST_BYTES: usize = LARGE_PAGE;
/// Arenas begin at multiples of so many bytes.
const ALIGNMENT: usize = 64;

/// Memory for arenas, of which there will be more than one large page; it is the system's for any other.
pub(crate) fn memory() -> Memory {
    let left = Mutex::new(BytesMut::new());
    Arc::new(move |bytes| {
        if bytes > MOST_BYTES {
            return None;
        }
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let size = bytes.next_multiple_of(ALIGNMENT);
        if left.len() < size {
            *left = slab();
        }
        Some(Box::new(left.split_to(size)))
    })
}

/// A piece of memory, cleared, from an aligned place on.
fn slab() -> BytesMut {
    let mut slab = BytesMut::zeroed(SLAB_BYTES);
    let _ = slab.split_to(slab.as_ptr().align_offset(ALIGNMENT).min(SLAB_BYTES));
    advise(&mut slab);
    slab
}

/// Tells the system that large pages are welcome.
#[expect(unsafe_code, reason = "large pages take a fifth off what reading tokens costs, and have to be asked for")]
fn advise(memory: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let skipped = memory.as_ptr().align_offset(LARGE_PAGE);
        let Some(pages) = memory.get_mut(skipped..) else { return };
        // SAFETY: the pages are ours, and the advice changes nothing of what is in them. Where the system has no large pages, or
        // gives none, nothing is lost.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_HUGEPAGE) };
    }
}
