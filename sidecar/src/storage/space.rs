//! How much room the data directory's disk has left.
//!
//! A full disk ends a member, so it is met earlier: below the reserve the ensemble refuses writes. The reserve is
//! what votes, entries already in flight and the next snapshot's first bytes may still need; it is an amount, not a
//! ratio, because they do not grow with the disk. Nobody is told: whoever decides measures.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The disk under one data directory.
#[derive(Clone, Debug)]
pub(crate) struct DiskSpace {
    dir: PathBuf,
    reserve_bytes: u64,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// What this process may still write.
    pub(crate) free_bytes: u64,
    /// Free space is below the reserve.
    pub(crate) low: bool,
}

impl DiskSpace {
    /// Four log segments of the default size.
    pub(crate) const RESERVE_BYTES_DEFAULT: u64 = 64 << 20;

    pub(crate) fn new(dir: &Path, reserve_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), reserve_bytes }
    }

    /// One system call that does not wait for the disk.
    pub(crate) fn measure(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        // "Available" leaves out what only root may use.
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(Space { free_bytes, low: free_bytes < self.reserve_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_low_exactly_below_the_reserve() {
        let dir = tempfile::tempdir().unwrap();

        assert!(!DiskSpace::new(dir.path(), 0).measure().unwrap().low);
        assert!(DiskSpace::new(dir.path(), u64::MAX).measure().unwrap().low);
    }

    #[test]
    fn missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();

        assert!(DiskSpace::new(&dir.path().join("gone"), 0).measure().is_err());
    }
}
