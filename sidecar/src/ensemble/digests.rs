//! Compares this member's state with the others', to find a replica that went another way.
//!
//! At every mark (`replica::DIGEST_MARK_EVERY`) each member tells all others the digest of its tree. The digests of one
//! mark belong to one zxid, so on equal replicas they are equal. A member that a larger group contradicts is wrong: it
//! stops, and its directory is marked so that it cannot start on it again. Where equally many stand against each other,
//! nobody knows who is right: this member stops serving and says so, until another one decides.
//!
//! Bounds: the last [`MARKS_MAX`] marks; one call to each peer at a time, skipping marks that came meanwhile.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use quorate_proto::peer;
use quorate_tree::{MemberId, Zxid};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{EnsembleError, Failure, config::Timing, network::Links};
use crate::storage::DataDir;

/// Marks that are remembered, for members that are behind.
const MARKS_MAX: usize = 16;

/// The digests of the last marks, this member's and the others'.
#[derive(Debug)]
pub(crate) struct DigestMarks {
    me: MemberId,
    marks: Mutex<BTreeMap<Zxid, HashMap<MemberId, u64>>>,
    /// Whether equally many members contradict this one.
    disputed: watch::Sender<bool>,
    /// Rung when this member has reached a mark.
    reached: Notify,
    /// Rung when this member was found to be wrong.
    wrong: Mutex<Option<Zxid>>,
    found: Notify,
}

/// What the digests of one mark say of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody contradicts, or this member has not been there.
    Agreed,
    /// Fewer members contradict than agree.
    OthersDiffer,
    /// As many contradict as agree.
    Disputed,
    /// More contradict than agree.
    Wrong,
}

impl DigestMarks {
    pub(crate) fn new(me: MemberId) -> Self {
        let disputed = watch::Sender::new(false);
        Self {
            me,
            marks: Mutex::default(),
            disputed,
            reached: Notify::new(),
            wrong: Mutex::default(),
            found: Notify::new(),
        }
    }

    /// This member has reached marks. Called by the applier: never waits.
    pub(crate) fn reached(&self, marks: &[(Zxid, u64)]) {
        for (zxid, digest) in marks {
            self.note(self.me, *zxid, *digest);
        }
        if !marks.is_empty() {
            self.reached.notify_one();
        }
    }

    /// Another member has reached a mark. Says what this one has there, if it has been there lately.
    pub(crate) fn told(&self, member: MemberId, zxid: Zxid, digest: u64) -> Option<u64> {
        self.note(member, zxid, digest);
        self.marks.lock().get(&zxid)?.get(&self.me).copied()
    }

    /// The copy was replaced: what it had before says nothing of what it has now.
    pub(crate) fn forget_own(&self) {
        for digests in self.marks.lock().values_mut() {
            digests.remove(&self.me);
        }
        self.disputed.send_if_modified(std::mem::take);
    }

    /// Whether equally many members contradict this one, now and from now on.
    pub(crate) fn disputed(&self) -> watch::Receiver<bool> {
        self.disputed.subscribe()
    }

    fn note(&self, member: MemberId, zxid: Zxid, digest: u64) {
        let mut marks = self.marks.lock();
        marks.entry(zxid).or_default().insert(member, digest);
        while marks.len() > MARKS_MAX {
            marks.pop_first();
        }
        let Some(digests) = marks.get(&zxid) else { return };
        let verdict = judge(self.me, digests);
        if verdict != Verdict::Agreed {
            let told: Vec<String> = digests.iter().map(|(member, digest)| format!("{member}: {digest:016x}")).collect();
            error!(me = %self.me, %zxid, digests = told.join(", "), ?verdict, "the states of members differ");
        }
        drop(marks);
        match verdict {
            Verdict::Agreed | Verdict::OthersDiffer => self.set_disputed(false),
            Verdict::Disputed => self.set_disputed(true),
            Verdict::Wrong => {
                self.set_disputed(true);
                self.wrong.lock().get_or_insert(zxid);
                self.found.notify_one();
            }
        }
    }

    fn set_disputed(&self, now: bool) {
        self.disputed.send_if_modified(|disputed| std::mem::replace(disputed, now) != now);
    }

    fn newest_own(&self) -> Option<(Zxid, u64)> {
        let marks = self.marks.lock();
        marks.iter().rev().find_map(|(zxid, digests)| Some((*zxid, *digests.get(&self.me)?)))
    }
}

fn judge(me: MemberId, digests: &HashMap<MemberId, u64>) -> Verdict {
    let Some(mine) = digests.get(&me) else { return Verdict::Agreed };
    let mut groups: HashMap<u64, usize> = HashMap::new();
    for digest in digests.values() {
        *groups.entry(*digest).or_default() += 1;
    }
    let agree = groups.remove(mine).unwrap_or_default();
    match groups.into_values().max() {
        None => Verdict::Agreed,
        Some(contradict) if contradict < agree => Verdict::OthersDiffer,
        Some(contradict) if contradict == agree => Verdict::Disputed,
        Some(_) => Verdict::Wrong,
    }
}

/// Tells the others this member's digests, and ends it when it is wrong.
pub(crate) struct DigestExchange {
    pub(crate) marks: Arc<DigestMarks>,
    pub(crate) links: Links,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) timing: Timing,
}

impl DigestExchange {
    /// Runs until stopped, or until this member is found to be wrong.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.marks.found.notified() => return self.end().await,
                () = self.marks.reached.notified() => {
                    if let Some((zxid, digest)) = self.marks.newest_own() {
                        self.tell(zxid, digest).await;
                    }
                }
            }
        }
    }

    async fn tell(&self, zxid: Zxid, digest: u64) {
        let told = self.links.values().map(|link| async move {
            let disk_id = link.disk_id().await.ok()?;
            let mark = peer::DigestMark { zxid: zxid.0, digest, known: true };
            let mut request = link.standing().request(mark, disk_id);
            request.set_timeout(self.timing.call_timeout());
            let answer = link.prompt().compare_digest(request).await.map_err(|status| link.failed(status)).ok()?;
            Some((link.peer(), answer.into_inner()))
        });
        for (member, theirs) in join_all(told).await.into_iter().flatten() {
            // One that is behind tells when it gets there.
            if theirs.known {
                self.marks.note(member, zxid, theirs.digest);
            } else {
                debug!(%member, %zxid, "has not been at this mark");
            }
        }
    }

    async fn end(self) {
        let zxid = self.marks.wrong.lock().unwrap_or_default();
        let reason = format!("at change {zxid} a majority of members had another state");
        let (dir, written) = (self.dir.clone(), reason.clone());
        let marked = tokio::task::spawn_blocking(move || dir.mark_diverged(&written)).await;
        if let Ok(Err(error)) = marked {
            warn!(%error, "the data directory could not be marked as diverged");
        }
        self.failure.fail(EnsembleError::Failed(format!(
            "the state of this member differs from that of the others: {reason}; move its data directory away and start \
             with an empty one, the member then joins again"
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(digests: &[(u8, u64)]) -> Verdict {
        judge(MemberId(1), &digests.iter().map(|(member, digest)| (MemberId(*member), *digest)).collect())
    }

    #[test]
    fn member_that_a_larger_group_contradicts_is_wrong() {
        assert_eq!(verdict(&[(1, 7)]), Verdict::Agreed);
        assert_eq!(verdict(&[(2, 7), (3, 8)]), Verdict::Agreed, "it has not been there");
        assert_eq!(verdict(&[(1, 7), (2, 7), (3, 7)]), Verdict::Agreed);
        assert_eq!(verdict(&[(1, 7), (2, 8)]), Verdict::Disputed);
        assert_eq!(verdict(&[(1, 7), (2, 7), (3, 8)]), Verdict::OthersDiffer);
        assert_eq!(verdict(&[(1, 7), (2, 8), (3, 8)]), Verdict::Wrong);
        assert_eq!(verdict(&[(1, 7), (2, 8), (3, 9)]), Verdict::Disputed);
        assert_eq!(verdict(&[(1, 7), (2, 7), (3, 8), (4, 8)]), Verdict::Disputed);
    }

    #[test]
    fn dispute_ends_when_a_third_agrees() {
        let marks = DigestMarks::new(MemberId(1));
        let disputed = marks.disputed();

        marks.reached(&[(Zxid(4096), 7)]);
        assert_eq!(marks.told(MemberId(2), Zxid(4096), 8), Some(7));
        assert!(*disputed.borrow());
        marks.told(MemberId(3), Zxid(4096), 7);

        assert!(!*disputed.borrow());
    }

    #[test]
    fn only_the_last_marks_are_kept() {
        let marks = DigestMarks::new(MemberId(1));

        for mark in 1..=100 {
            marks.reached(&[(Zxid(mark * 4096), mark)]);
        }

        assert_eq!(marks.told(MemberId(2), Zxid(4096), 1), None);
        assert_eq!(marks.told(MemberId(2), Zxid(99 * 4096), 99), Some(99));
        assert_eq!(marks.marks.lock().len(), MARKS_MAX);
    }
}
