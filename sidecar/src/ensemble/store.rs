//! The log of `storage`, as the Raft crate wants to see it.
//!
//! Votes and entries go through the log's one order, and nothing is acknowledged before it is on disk. The committed
//! index is not saved: a restarted member applies its log again once a leader has confirmed how far it is committed
//! (so it must not resume leadership by itself: `enable_leader_restore` stays off).

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use futures_core::Stream;
use futures_util::stream;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    codec::{self, CodecError},
    types::{Entry, LogId, Types, Vote},
};
use crate::storage::{EntryId, Log, LogEntry};

/// What is read at once for replication and apply: this much, or one entry.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log, to read and to write. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    log: Log,
}

impl LogStore {
    pub(crate) fn new(log: Log) -> Self {
        Self { log }
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = self.log.read(range, bytes_max).await?;
        entries.into_iter().map(decode).collect()
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(indexes(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES_MAX).await
    }

    /// Piece by piece: a member that starts applies all of its log.
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let pieces = stream::try_unfold(indexes(&range), move |rest| {
            let store = store.clone();
            async move {
                let entries = store.read(rest.clone(), READ_BYTES_MAX).await?;
                let Some(last) = entries.last() else { return Ok(None) };
                let rest = last.log_id.index + 1..rest.end;
                Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), rest)))
            }
        });
        Box::pin(futures_util::TryStreamExt::try_flatten(pieces))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.log.state().vote.map(codec::decode_vote).transpose().map_err(invalid)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.log.state();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        // Whoever stopped waiting does not need to know.
        self.log.save_vote(codec::encode_vote(vote), |result| _ = done.send(result)).await;
        durable.await.expect("the log tells everybody")
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(encode).collect();
        Ok(self.log.append(entries, |result| callback.io_completed(result)).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        // Durable before whatever is appended next; a crash before that leaves what the leader replaces again.
        Ok(self.log.truncate_after(last_log_id.map(|log_id| log_id.index)).await?)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.log.purge(EntryId { index: log_id.index, term: log_id.leader_id.term }).await;
        Ok(())
    }
}

fn encode(entry: Entry) -> LogEntry {
    let id = EntryId { index: entry.log_id.index, term: entry.log_id.leader_id.term };
    LogEntry { id, payload: codec::encode_entry(&entry) }
}

fn decode(stored: LogEntry) -> io::Result<Entry> {
    let entry = codec::decode_entry(stored.payload).map_err(invalid)?;
    assert_eq!(entry.log_id, log_id(stored.id), "the log gave another entry than was asked for");
    Ok(entry)
}

fn log_id(id: EntryId) -> LogId {
    codec::log_id_of(id.term, id.index)
}

fn invalid(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use openraft::{EntryPayload, type_config::TypeConfigExt};
    use quorate_tree::MemberId;

    use super::*;
    use crate::{
        ensemble::types::BatchBytes,
        storage::{DataDir, LogOptions},
    };

    fn open(dir: &std::path::Path) -> (DataDir, LogStore) {
        let data = DataDir::open(dir, MemberId(1), false).unwrap();
        let options = LogOptions { segment_bytes: 4096, cache_bytes: 500, ..LogOptions::default() };
        let log = data.open_log(options).unwrap();
        (data, LogStore::new(log))
    }

    fn entry(term: u64, index: u64, payload_bytes: usize) -> Entry {
        let payload = EntryPayload::Normal(BatchBytes(vec![index as u8; payload_bytes].into()));
        Entry { log_id: codec::log_id_of(term, index), payload }
    }

    async fn append(store: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
        let (done, flushed) = Types::oneshot();
        store.append(entries, IOFlushed::signal(done)).await?;
        flushed.await.unwrap()
    }

    #[tokio::test]
    async fn vote_and_entries_are_there_after_the_process_died() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mut store) = open(dir.path());
        let vote = Vote::new_committed(3, 2);
        let entries = vec![entry(1, 0, 10), entry(3, 1, 2000), entry(3, 2, 0)];
        store.save_vote(&vote).await.unwrap();
        append(&mut store, entries.clone()).await.unwrap();
        store.log.abandon().await;
        drop((data, store));

        let (_data, mut store) = open(dir.path());

        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries);
    }

    #[tokio::test]
    async fn reads_for_replication_are_bounded_in_bytes_and_give_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (_data, mut store) = open(dir.path());
        let entries: Vec<_> = (0..6).map(|index| entry(1, index, 400 << 10)).collect();
        append(&mut store, [entries.clone(), vec![entry(1, 6, 3 << 20)]].concat()).await.unwrap();

        assert_eq!(store.limited_get_log_entries(0, 100).await.unwrap(), entries[..2]);
        assert_eq!(store.limited_get_log_entries(6, 100).await.unwrap().len(), 1);
        assert_eq!(store.limited_get_log_entries(1, 2).await.unwrap(), entries[1..2]);
    }

    #[tokio::test]
    async fn stream_gives_all_of_a_range_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let (_data, mut store) = open(dir.path());
        let entries: Vec<_> = (0..20).map(|index| entry(1, index, 400 << 10)).collect();
        append(&mut store, entries.clone()).await.unwrap();

        for range in [0..20, 3..19, 5..5, 18..100] {
            let streamed: Vec<_> = store.entries_stream(range.clone()).await.try_collect().await.unwrap();
            assert_eq!(streamed, store.try_get_log_entries(range).await.unwrap());
        }
    }
}
