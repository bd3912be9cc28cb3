//! Rows read from local files straight to where they are wanted.
//!
//! Where the rows of a column lie in a file as they are in memory, nothing has to be between them. Rows that lie side by side
//! are one read, which the system deals to as many places as there are rows (`preadv`). Promises: the bytes that are stored; a
//! file that is cut short or a disk that fails is an error.
//! Deliberately absent: mapped files. A copy from one costs as much, but where its file is cut short or its disk fails the
//! process is killed (SIGBUS), and its pages count as memory of the process.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::sync::Arc;

use crate::cause::from_io;
use crate::error::Result;

/// Most bytes that are read at once: they are to be in the processor's cache for whoever looks at them next.
const RUN_BYTES: usize = 256 << 10;
/// Most places that the system takes at once (`IOV_MAX`).
const RUN_ROWS: usize = 1024;

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
        let most = (RUN_BYTES / self.width).clamp(1, RUN_ROWS);
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

    /// Reads the rows, each to its place: `places` has one of [`Self::width`] bytes a row. After each read `seen` is given those
    /// that were filled, and the number of the first. Blocks. What is in the places after an error is not said.
    pub fn read(&self, mut places: &mut [&mut [u8]], mut seen: impl FnMut(usize, &[&mut [u8]])) -> Result<()> {
        let mut first = 0;
        for run in &self.runs {
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("expected a place of {} bytes for each row", self.width));
            let (filled, rest) = places.split_at_mut_checked(run.rows).ok_or_else(wrong).map_err(|error| from_io(&self.name, &error))?;
            run.read(filled).map_err(|error| from_io(&self.name, &error))?;
            seen(first, filled);
            (places, first) = (rest, first + run.rows);
        }
        Ok(())
    }
}

impl Run {
    fn read(&self, places: &mut [&mut [u8]]) -> io::Result<()> {
        let mut at = self.offset;
        let mut slices: Vec<IoSliceMut<'_>> = places.iter_mut().map(|place| IoSliceMut::new(place)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match rustix::io::preadv(&self.file, left, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    at += read as u64;
                    IoSliceMut::advance_slices(&mut left, read);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
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
        let mut memory = vec![[255; WIDTH]; direct.rows()];
        let mut places: Vec<&mut [u8]> = memory.iter_mut().map(|row| row.as_mut_slice()).collect();
        let mut next = 0;
        direct.read(&mut places, |first, filled| {
            assert_eq!(first, next);
            next += filled.len();
        })?;
        assert_eq!(next, memory.len());
        Ok(memory)
    }

    proptest! {
        #[test]
        fn each_row_comes_to_its_place_and_neighbours_in_one_read(rows in prop::collection::vec((any::<bool>(), 0u8..40), 0..60)) {
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
    fn a_file_that_is_cut_short_and_a_place_too_few_are_errors() {
        let mut direct = Direct::new("table `t`", WIDTH as u64);
        let file = file(40);
        (30..40).for_each(|row| direct.push(&file, row * WIDTH as u64));
        assert_eq!(
            direct.read(&mut [], |_, _| ()).expect_err("places").to_string(),
            "table `t`: expected a place of 12 bytes for each row"
        );
        file.set_len(35 * WIDTH as u64 + 5).expect("cut");
        let error = read(&direct).expect_err("short");
        assert!(error.to_string().starts_with("table `t`: ") && error.kind() != Kind::Invalid, "{error}");
    }

    #[test]
    fn a_long_run_is_cut() {
        let mut direct = Direct::new("table `t`", 4);
        let file = file(255);
        (0..700).for_each(|row| direct.push(&file, row * 4));
        assert_eq!((direct.rows(), direct.reads()), (700, 1));
        (700..1030).for_each(|row| direct.push(&file, row * 4));
        assert_eq!((direct.rows(), direct.reads()), (1030, 2));
    }
}
