//! Columns of a Lance file on a local disk whose rows need no decoding.
//!
//! Lance writes a wide fixed-size list as it is in memory, row after row ("full zip" without levels or compression). Its own
//! reader hands each row on through fresh memory, which costs more than the copy; what lies so is read straight to where it is
//! wanted instead. Deliberately absent: every other layout, and files that are not local.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::DataType;
use lance_encoding::decoder::{PageEncoding, PageInfo};
use lance_encoding::format::metadata::full_zip_layout::Details;
use lance_encoding::format::metadata::{CompressiveEncoding, FullZipLayout, compressive_encoding::Compression, page_layout::Layout};

use crate::table::direct::Direct;

/// A column of one file.
pub(super) struct Plain {
    file: Arc<File>,
    /// Bytes of a row.
    width: u64,
    pages: Vec<Page>,
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
    pub(super) fn new(file: File, kind: &DataType, pages: &[PageInfo]) -> Option<Self> {
        let DataType::FixedSizeList(item, length) = kind else { return None };
        let bits = 8 * item.data_type().primitive_width().filter(|_| !item.is_nullable())? as u64;
        let items = u64::try_from(*length).ok().filter(|items| *items > 0)?;
        let pages = places(pages, items, bits)?;
        Some(Self { file: Arc::new(file), width: items * bits / 8, pages })
    }

    /// Bytes of a row.
    pub(super) fn width(&self) -> u64 {
        self.width
    }

    /// Adds where these rows are, which ascend; false if one is not in the file.
    pub(super) fn locate(&self, rows: impl Iterator<Item = u64>, direct: &mut Direct) -> bool {
        let mut pages = self.pages.as_slice();
        for row in rows {
            while pages.first().is_some_and(|page| page.rows.end <= row) {
                pages = &pages[1..];
            }
            let Some(page) = pages.first().filter(|page| page.rows.contains(&row)) else { return false };
            direct.push(&self.file, page.offset + (row - page.rows.start) * self.width);
        }
        true
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
