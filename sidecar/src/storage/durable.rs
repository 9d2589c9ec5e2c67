//! The few file operations whose result must survive a power loss.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;

/// The ending of files that are still being written. Whatever bears it at a start is a leftover.
pub(super) const UNFINISHED: &str = "tmp";

/// Makes the directory's entries (files made, renamed, removed) durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory a file lies in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().expect("files of a data directory have a parent")
}

/// `path` with the ending of unfinished files added.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

/// Gives `path` new contents as a whole: whoever reads it, also after a crash, finds the old or the new.
pub(super) fn replace(path: &Path, contents: &[u8], sync: bool) -> io::Result<()> {
    let beside = unfinished(path);
    let mut file = File::create(&beside)?;
    file.write_all(contents)?;
    publish(&file, &beside, path, sync)
}

/// Gives the complete file `beside` its final name.
pub(super) fn publish(file: &File, beside: &Path, path: &Path, sync: bool) -> io::Result<()> {
    if sync {
        file.sync_all()?;
    }
    fs::rename(beside, path)?;
    if sync {
        sync_dir(parent(path))?;
    }
    Ok(())
}

/// Makes a file of `bytes` zeros whose blocks are there already, so that writing into it changes no metadata.
/// Without `sync` it is sparse.
pub(super) fn create_preallocated(path: &Path, bytes: u64, sync: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    if !sync {
        file.set_len(bytes)?;
        return Ok(file);
    }
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(file),
        // Some file systems cannot; zeros do the same, more slowly.
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(mut file: File, bytes: u64) -> io::Result<File> {
    let mut zeros = io::Read::take(io::repeat(0), bytes);
    io::copy(&mut zeros, &mut file)?;
    Ok(file)
}
