//! Reads one snapshot, chunk by chunk, and checks each.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    EntryId, SnapshotError, SnapshotInfo,
    format::{CHUNK_BYTES_MAX, CHUNK_HEAD_BYTES, ChunkHead, END_BYTES, End, HEAD_BYTES, Head, HeadError},
    io_error,
};

/// Enough for heads: chunks, which are larger, go past it.
const BUFFER_BYTES: usize = 4 << 10;

/// An open snapshot whose head and end are in order.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    path: PathBuf,
    file: BufReader<File>,
    info: SnapshotInfo,
    /// What the file says it has.
    end: End,
    /// What has been read.
    read: End,
    /// Where chunks are read to: its memory is used again once nobody holds the chunk before.
    chunk: BytesMut,
}

impl SnapshotReader {
    pub(super) fn open(path: &Path, id: EntryId) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(io_error("opening", path))?;
        let length = file.metadata().map_err(io_error("opening", path))?.len();
        let info = SnapshotInfo { id, meta: Bytes::new(), bytes: 0 };
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let (end, read) = (End::default(), End::default());
        let mut reader = Self { path: path.to_owned(), file, info, end, read, chunk: BytesMut::new() };
        reader.check_head_and_end(length)?;
        Ok(reader)
    }

    /// Leaves the file at its first chunk.
    fn check_head_and_end(&mut self, length: u64) -> Result<(), SnapshotError> {
        if length < (HEAD_BYTES + 4 + END_BYTES) as u64 {
            return Err(self.damaged("it was cut"));
        }
        let head = Head::decode(&self.take()?).map_err(|error| match error {
            HeadError::UnknownFormat(found) => SnapshotError::UnknownFormat { file: self.path.clone(), found },
            HeadError::Damaged => self.damaged("its head does not match its checksum"),
        })?;
        if head.id != self.info.id {
            return Err(self.damaged("it is another snapshot by its head"));
        }
        self.file.seek(SeekFrom::End(-(END_BYTES as i64))).map_err(io_error("reading", &self.path))?;
        let end = End::decode(&self.take()?);
        let whole = end.filter(|end| end.file_bytes(head.meta_bytes) == Some(length));
        self.end = whole.ok_or_else(|| self.damaged("its end is not where it should be"))?;
        self.file.seek(SeekFrom::Start(HEAD_BYTES as u64)).map_err(io_error("reading", &self.path))?;
        let meta = self.take_bytes(head.meta_bytes as usize)?;
        if u32::from_le_bytes(self.take()?) != crc32fast::hash(&meta) {
            return Err(self.damaged("its meta does not match its checksum"));
        }
        self.info.meta = meta.into();
        self.info.bytes = self.end.bytes;
        Ok(())
    }

    pub(crate) fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next chunk as it was written, or `None` once all were given.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.read == self.end {
            return Ok(None);
        }
        let head = ChunkHead::decode(&self.take::<CHUNK_HEAD_BYTES>()?);
        let left = self.end.bytes - self.read.bytes;
        // Before the allocation: the length has not been checked yet.
        if head.bytes == 0 || head.bytes as usize > CHUNK_BYTES_MAX || u64::from(head.bytes) > left {
            return Err(self.damaged(&format!("chunk {} cannot be {} bytes long", self.read.chunks, head.bytes)));
        }
        self.chunk.resize(head.bytes as usize, 0);
        self.file.read_exact(&mut self.chunk).map_err(io_error("reading", &self.path))?;
        let chunk = self.chunk.split().freeze();
        if head != ChunkHead::of(self.read.chunks, &chunk) {
            return Err(self.damaged(&format!("chunk {} does not match its checksum", self.read.chunks)));
        }
        self.read.chunks += 1;
        self.read.bytes += u64::from(head.bytes);
        if (self.read.chunks == self.end.chunks) != (self.read.bytes == self.end.bytes) {
            return Err(self.damaged("its chunks are not as many as its end says"));
        }
        Ok(Some(chunk))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(io_error("reading", &self.path))?;
        Ok(bytes)
    }

    fn take_bytes(&mut self, count: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(io_error("reading", &self.path))?;
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> SnapshotError {
        SnapshotError::Damaged { file: self.path.clone(), what: what.to_owned() }
    }
}
