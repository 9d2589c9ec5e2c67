//! What is known of the members: the lane each of them proposes in, and the disk that is registered for it.

use std::collections::BTreeMap;

use crate::digest::{Digest, disk_item, ensemble_item, lane_item};
use crate::{Lane, MemberId};

/// At most 255 of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    lanes: BTreeMap<MemberId, LaneState>,
    disks: BTreeMap<MemberId, u64>,
    ensemble_id: Option<u64>,
}

/// How far the newest lane of a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneState {
    pub(crate) incarnation: u64,
    pub(crate) next_seq: u64,
}

/// Whether it is a proposal's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    Past,
    NotYet,
}

impl Members {
    /// Takes the turn of a proposal, if it has come.
    pub(crate) fn take_turn(&mut self, lane: &Lane, digest: &mut Digest) -> Turn {
        let known = self.lanes.get(&lane.member).copied();
        let next_seq = match known {
            Some(known) if lane.incarnation < known.incarnation => return Turn::Past,
            Some(known) if lane.incarnation == known.incarnation => known.next_seq,
            Some(_) | None => 1,
        };
        if lane.seq < next_seq {
            return Turn::Past;
        }
        if lane.seq > next_seq {
            return Turn::NotYet;
        }
        self.set_lane(lane.member, LaneState { incarnation: lane.incarnation, next_seq: next_seq + 1 }, digest);
        Turn::Now
    }

    pub(crate) fn set_lane(&mut self, member: MemberId, state: LaneState, digest: &mut Digest) {
        if let Some(old) = self.lanes.insert(member, state) {
            digest.remove(lane_item(member, old.incarnation, old.next_seq));
        }
        digest.add(lane_item(member, state.incarnation, state.next_seq));
    }

    /// The seq expected next of a start of a member; `None` if a later start has been heard of.
    pub(crate) fn next_seq(&self, member: MemberId, incarnation: u64) -> Option<u64> {
        match self.lanes.get(&member) {
            Some(known) if incarnation < known.incarnation => None,
            Some(known) if incarnation == known.incarnation => Some(known.next_seq),
            Some(_) | None => Some(1),
        }
    }

    /// A new disk counts the starts of its member from the beginning: its lane begins anew too, or all it proposes
    /// would be taken for repeats of what the old disk's member proposed.
    pub(crate) fn register(&mut self, member: MemberId, disk_id: u64, digest: &mut Digest) {
        let old = self.disks.insert(member, disk_id);
        if let Some(old) = old {
            digest.remove(disk_item(member, old));
        }
        digest.add(disk_item(member, disk_id));
        if old.is_some_and(|old| old != disk_id)
            && let Some(lane) = self.lanes.remove(&member)
        {
            digest.remove(lane_item(member, lane.incarnation, lane.next_seq));
        }
    }

    /// An ensemble that has a name keeps it.
    pub(crate) fn name_ensemble(&mut self, ensemble_id: u64, digest: &mut Digest) {
        if self.ensemble_id.is_none() {
            self.ensemble_id = Some(ensemble_id);
            digest.add(ensemble_item(ensemble_id));
        }
    }

    pub(crate) fn ensemble_id(&self) -> Option<u64> {
        self.ensemble_id
    }

    pub(crate) fn disk_of(&self, member: MemberId) -> Option<u64> {
        self.disks.get(&member).copied()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (MemberId, LaneState)> + '_ {
        self.lanes.iter().map(|(member, state)| (*member, *state))
    }

    pub(crate) fn disks(&self) -> impl Iterator<Item = (MemberId, u64)> + '_ {
        self.disks.iter().map(|(member, disk_id)| (*member, *disk_id))
    }

    /// Adds all of this to a digest that is made from scratch.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        for (member, lane) in self.lanes() {
            digest.add(lane_item(member, lane.incarnation, lane.next_seq));
        }
        for (member, disk_id) in self.disks() {
            digest.add(disk_item(member, disk_id));
        }
        if let Some(ensemble_id) = self.ensemble_id {
            digest.add(ensemble_item(ensemble_id));
        }
    }
}
