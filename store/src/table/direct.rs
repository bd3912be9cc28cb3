//! Rows of local files as they are in memory.
//!
//! Where the rows of a column lie in a file as they are in memory, nothing has to be decoded. Rows that lie side by side are
//! one read, into memory that is used again for the next: it stays in the processor's cache, where whoever wants the rows
//! compares and copies them. Promises: the bytes that are stored; a file that is cut short or a disk that fails is an error.
//! Deliberately absent: reads to the places where rows are wanted at last (`preadv`), since these are in no cache, and to have
//! them fetched there before they are written over costs more than the copy; and mapped files, since where one is cut short or
//! its disk fails the process is killed (SIGBUS), and its pages count as memory of the process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::cause::from_io;
use crate::error::Result;

/// Most bytes that are read at once: they are to stay in the processor's cache.
const RUN_BYTES: usize = 256 << 10;

/// Where rows of a column are.
#[derive(Debug)]
pub struct Direct {
    name: String,
    width: usize,
    runs: Vec<Run>,
}

/// Rows side by side in a file.
#[derive(Debug)]
struct Run {
    file: Arc<File>,
    offset: u64,
    rows: usize,
}

impl Direct {
    /// No rows yet; `name` is what messages call their table, `width` the bytes of a row.
    pub(super) fn new(name: &str, width: u64) -> Self {
        Self { name: name.to_owned(), width: width as usize, runs: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, file: &Arc<File>, offset: u64) {
        let most = (RUN_BYTES / self.width).max(1);
        let width = self.width;
        let follows = |run: &&mut Run| run.rows < most && run.offset + (run.rows * width) as u64 == offset && Arc::ptr_eq(&run.file, file);
        match self.runs.last_mut().filter(follows) {
            Some(run) => run.rows += 1,
            None => self.runs.push(Run { file: Arc::clone(file), offset, rows: 1 }),
        }
    }

    /// Adds the rows of another one; false if they are of another width.
    pub(super) fn append(&mut self, mut other: Self) -> bool {
        self.runs.append(&mut other.runs);
        self.width == other.width
    }

    /// Bytes of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(|run| run.rows).sum()
    }

    /// Number of reads that this takes.
    pub fn reads(&self) -> usize {
        self.runs.len()
    }

    /// Reads the rows, run by run. Of each run `seen` is given the number of its first row, and its rows side by side. Blocks.
    pub fn read(&self, mut seen: impl FnMut(usize, &[u8])) -> Result<()> {
        let longest = self.runs.iter().map(|run| run.rows).max().unwrap_or(0);
        let (mut memory, mut first) = (vec![0; longest * self.width], 0);
        for run in &self.runs {
            let rows = &mut memory[..run.rows * self.width];
            run.file.read_exact_at(rows, run.offset).map_err(|error| from_io(&self.name, &error))?;
            seen(first, rows);
            first += run.rows;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    const WIDTH: usize = 12;

    fn file(rows: u8) -> Arc<File> {
        let mut file = tempfile::tempfile().expect("file");
        (0..rows).for_each(|row| file.write_all(&[row; WIDTH]).expect("write"));
        Arc::new(file)
    }

    fn read(direct: &Direct) -> Result<Vec<[u8; WIDTH]>> {
        let mut found: Vec<[u8; WIDTH]> = Vec::new();
        direct.read(|first, rows| {
            assert_eq!(first, found.len());
            found.extend(rows.chunks_exact(WIDTH).map(|row| <[u8; WIDTH]>::try_from(row).expect("a row")));
        })?;
        Ok(found)
    }

    proptest! {
        #[test]
        fn rows_come_in_their_order_and_neighbours_in_one_read(rows in prop::collection::vec((any::<bool>(), 0u8..40), 0..60)) {
            let files = [file(40), file(40)];
            let mut direct = Direct::new("table `t`", WIDTH as u64);
            rows.iter().for_each(|(which, row)| direct.push(&files[usize::from(*which)], u64::from(*row) * WIDTH as u64));
            let expected: Vec<[u8; WIDTH]> = rows.iter().map(|(_, row)| [*row; WIDTH]).collect();
            prop_assert_eq!(read(&direct).expect("rows"), expected);
            let breaks = rows.windows(2).filter(|pair| (pair[0].0, pair[0].1 + 1) != pair[1]).count();
            prop_assert_eq!(direct.reads(), if rows.is_empty() { 0 } else { breaks + 1 });
        }
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let mut direct = Direct::new("table `t`", WIDTH as u64);
        let file = file(40);
        (30..40).for_each(|row| direct.push(&file, row * WIDTH as u64));
        file.set_len(35 * WIDTH as u64 + 5).expect("cut");
        let error = read(&direct).expect_err("short");
        assert!(error.to_string().starts_with("table `t`: ") && error.kind() != Kind::Invalid, "{error}");
    }

    #[test]
    fn a_long_run_is_cut() {
        let mut direct = Direct::new("table `t`", 4);
        let file = file(255);
        (0..65_536).for_each(|row| direct.push(&file, row * 4));
        assert_eq!((direct.rows(), direct.reads()), (65_536, 1));
        direct.push(&file, 65_536 * 4);
        assert_eq!((direct.rows(), direct.reads()), (65_537, 2));
    }
}
