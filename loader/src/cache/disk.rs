//! The disk of a cache: whole files by name, and claims that end with their process.
//!
//! Promises: a file is there with all of its bytes or not at all; what a killed writer left is removed by the next process;
//! a claim is a lock of the operating system on a file that always exists, so a dead process holds none.
//! Deliberately absent: waiting for the disk to have written. A file that a power cut spoils is found when it is read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Files of blocks, and who reads which from storage.
pub(crate) trait Disk: Send + Sync {
    /// All files: name and size.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// A file's bytes; none if it is not there.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Writes a file, in place of one that is there.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file; not an error if it is not there.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Claims one of a few things to be done, by any number that names it; none if another process has it.
    fn claim(&self, number: u64) -> Option<Box<dyn Claim>>;
}

/// Given up when it is dropped, and when its process ends.
pub(crate) trait Claim: Send {}

/// Claims that there are.
const CLAIMS: u64 = 64;

/// A folder of the file system: `blocks/`, `claims/`, and `writing/` for files that are not whole yet.
pub(crate) struct Folder {
    root: PathBuf,
    written: AtomicU64,
}

impl Folder {
    /// Opens or makes a folder, and removes what killed writers left.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for part in ["blocks", "claims", "writing"] {
            fs::create_dir_all(root.join(part))?;
        }
        for left in fs::read_dir(root.join("writing"))?.flatten() {
            // A writer holds the lock of its file.
            if File::open(left.path()).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(left.path());
            }
        }
        Ok(Self { root: root.to_owned(), written: AtomicU64::new(0) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("blocks").join(name)
    }
}

impl Claim for File {}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.root.join("blocks"))? {
            let entry = entry?;
            // Another process may remove it just now.
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("writing").join(format!("{}-{number}", std::process::id()));
        let mut file = File::create(&path)?;
        let written =
            file.try_lock().map_err(io::Error::from).and_then(|()| file.write_all(bytes)).and_then(|()| fs::rename(&path, self.path(name)));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn claim(&self, number: u64) -> Option<Box<dyn Claim>> {
        let path = self.root.join("claims").join((number % CLAIMS).to_string());
        let file = File::options().create(true).append(true).open(path).ok()?;
        file.try_lock().is_ok().then(|| Box::new(file) as Box<dyn Claim>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_and_leftovers_go() {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Folder::open(folder.path()).expect("cache");
        disk.write("a-1", b"one").expect("write");
        disk.write("a-1", b"other").expect("write");
        assert_eq!(disk.read("a-1").expect("read").as_deref(), Some(&b"other"[..]));
        assert_eq!(disk.list().expect("list"), [("a-1".to_owned(), 5)]);
        // A writer that was killed, and one that is at work.
        fs::write(folder.path().join("writing/99-0"), b"half").expect("leftover");
        let at_work = File::create(folder.path().join("writing/98-0")).expect("file");
        at_work.try_lock().expect("lock");
        let again = Folder::open(folder.path()).expect("cache");
        assert!(!folder.path().join("writing/99-0").exists() && folder.path().join("writing/98-0").exists());
        again.remove("a-1").expect("remove");
        again.remove("a-1").expect("remove again");
        assert_eq!(disk.read("a-1").expect("read"), None);
    }

    #[test]
    fn a_claim_excludes_until_it_is_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let (one, other) = (Folder::open(folder.path()).expect("cache"), Folder::open(folder.path()).expect("cache"));
        let claim = one.claim(7).expect("claim");
        assert!(other.claim(7 + CLAIMS).is_none() && other.claim(8).is_some());
        drop(claim);
        assert!(other.claim(7).is_some());
    }
}
