//! Columns of a Lance file on a local disk whose rows need no decoding.
//!
//! Lance writes a wide fixed-size list as it is in memory, row after row ("full zip" without levels or compression). Its own
//! reader still hands each row on through fresh memory, and fresh memory costs more than the copy. Here such rows are read
//! from the file straight into one buffer, which is used again once its arrays are dropped.
//! Promises: the arrays that Lance's reader gives. Deliberately absent: every other layout, and files that are not local.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayData;
use arrow::array::{ArrayRef, FixedSizeListArray, make_array};
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, FieldRef};
use bytes::Bytes;
use lance_encoding::decoder::{PageEncoding, PageInfo};
use lance_encoding::format::metadata::full_zip_layout::Details;
use lance_encoding::format::metadata::{CompressiveEncoding, FullZipLayout, compressive_encoding::Compression, page_layout::Layout};

/// A column of one file.
pub(super) struct Plain {
    file: Arc<File>,
    item: FieldRef,
    length: i32,
    /// Bytes of a row.
    width: u64,
    pages: Vec<Page>,
    pool: Pool,
}

/// Rows side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    rows: Range<u64>,
    /// Where the first is in the file.
    offset: u64,
}

impl Plain {
    /// A column of this type in these pages; none if its rows do not lie there as they are in memory.
    pub(super) fn new(file: Arc<File>, kind: &DataType, pages: &[PageInfo], pool: &Pool) -> Option<Self> {
        let DataType::FixedSizeList(item, length) = kind else { return None };
        let bits = 8 * item.data_type().primitive_width().filter(|_| !item.is_nullable())? as u64;
        let items = u64::try_from(*length).ok().filter(|items| *items > 0)?;
        let pages = places(pages, items, bits)?;
        let (item, width, pool) = (item.clone(), items * bits / 8, pool.clone());
        Some(Self { file, item, length: *length, width, pages, pool })
    }

    /// The rows of these ranges, which ascend. Blocks.
    pub(super) fn read(&self, ranges: &[Range<u64>]) -> io::Result<ArrayRef> {
        let rows: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let bytes = (rows * self.width) as usize;
        let mut buffer = self.pool.take(bytes);
        let mut left = &mut buffer.bytes.as_slice_mut()[..bytes];
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let page = self.pages.get(self.pages.partition_point(|page| page.rows.end <= at)).ok_or(io::ErrorKind::UnexpectedEof)?;
                let end = range.end.min(page.rows.end);
                let (out, rest) = left.split_at_mut(((end - at) * self.width) as usize);
                self.file.read_exact_at(out, page.offset + (at - page.rows.start) * self.width)?;
                (left, at) = (rest, end);
            }
        }
        let buffer = Buffer::from(Bytes::from_owner(buffer)).slice_with_length(0, bytes);
        let values = ArrayData::builder(self.item.data_type().clone()).len(rows as usize * self.length as usize).add_buffer(buffer).build();
        let list = values.and_then(|values| FixedSizeListArray::try_new(self.item.clone(), self.length, make_array(values), None));
        Ok(Arc::new(list.map_err(io::Error::other)?))
    }
}

/// Where rows of `items` numbers of `bits` each are; none if a page of them is laid out in another way.
fn places(pages: &[PageInfo], items: u64, bits: u64) -> Option<Vec<Page>> {
    let mut first = 0;
    let place = |page: &PageInfo| {
        let PageEncoding::Structural(layout) = &page.encoding else { return None };
        let Some(Layout::FullZipLayout(layout)) = &layout.layout else { return None };
        let (offset, size) = *page.buffer_offsets_and_sizes.first()?;
        if !is_plain(layout, items, bits) || size != page.num_rows * items * bits / 8 {
            return None;
        }
        let rows = first..first + page.num_rows;
        first = rows.end;
        Some(Page { rows, offset })
    };
    pages.iter().map(place).collect()
}

fn is_plain(layout: &FullZipLayout, items: u64, bits: u64) -> bool {
    let width = Details::BitsPerValue(u32::try_from(items * bits).unwrap_or(0));
    let Some(CompressiveEncoding { compression: Some(Compression::FixedSizeList(list)) }) = &layout.value_compression else { return false };
    let flat = match list.values.as_ref().and_then(|values| values.compression.as_ref()) {
        Some(Compression::Flat(flat)) => flat.bits_per_value == bits && flat.data.is_none(),
        _ => false,
    };
    let bare = layout.bits_rep == 0 && layout.bits_def == 0 && layout.details == Some(width);
    flat && bare && list.items_per_value == items && !list.has_validity
}

/// Memory that no array uses any more, to be used again: no more than was in use at a time.
#[derive(Clone, Default)]
pub(super) struct Pool {
    free: Arc<Mutex<Vec<MutableBuffer>>>,
}

impl Pool {
    /// At least so many bytes, of any value.
    fn take(&self, bytes: usize) -> Pooled {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().rposition(|buffer| buffer.len() >= bytes && buffer.len() / 2 <= bytes.max(1 << 16));
        let taken = fitting.map(|place| free.swap_remove(place));
        // One that fits nothing any more makes room for one that does.
        if taken.is_none() {
            free.pop();
        }
        drop(free);
        Pooled { bytes: taken.unwrap_or_else(|| MutableBuffer::from_len_zeroed(bytes)), pool: self.clone() }
    }
}

/// Memory that goes back to its pool.
struct Pooled {
    bytes: MutableBuffer,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.bytes));
    }
}
