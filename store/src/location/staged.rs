//! What a killed writer leaves of an object on a local disk.
//!
//! object_store writes a local object as `NAME#N` and renames it when it is whole; its listings leave such files out, and it
//! refuses to delete them. So they are found and deleted here as files. Other stores have nothing of the kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Location;
use crate::error::{Error, Kind, Result};

/// A file that was to become an object.
pub(crate) struct Staged {
    /// Below the location, as an object's would be.
    pub(crate) relative: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Location {
    /// The staged files below `relative`; none if this is not a local disk.
    pub(crate) fn staged(&self, relative: &str) -> Result<Vec<Staged>> {
        let mut found = Vec::new();
        if let Some(folder) = self.local() {
            let walked = walk(&folder.join(relative), relative, &mut found);
            walked.map_err(|error| Error::with_source(Kind::Unavailable, format!("{}: listing failed", self.named(relative)), error))?;
        }
        Ok(found)
    }

    /// Deletes a staged file; not an error if its writer has renamed it meanwhile.
    pub(crate) fn delete_staged(&self, staged: &str) -> Result<()> {
        match self.local().map(|folder| fs::remove_file(folder.join(staged))) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::with_source(Kind::Unavailable, format!("{}: deleting failed", self.named(staged)), error))
            }
            _ => Ok(()),
        }
    }

    fn local(&self) -> Option<PathBuf> {
        (self.url.scheme() == "file").then(|| self.url.to_file_path().ok()).flatten()
    }
}

/// Whether a name is that of a staged file: a `#` with digits behind it.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn walk(folder: &Path, relative: &str, found: &mut Vec<Staged>) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // Somebody else may have cleared up.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let relative = format!("{relative}/{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &relative, found)?;
        } else if is_staged(&name)
            && let Ok(meta) = entry.metadata()
        {
            found.push(Staged { relative, bytes: meta.len(), modified: meta.modified()? });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_behind_the_mark_is_staged() {
        for (name, expected) in [("1.manifest#1", true), ("a#12", true), ("a#", false), ("a#1b", false), ("a", false), ("#7", true)] {
            assert_eq!(is_staged(name), expected, "{name}");
        }
    }
}
