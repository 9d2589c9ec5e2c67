//! Votes, log ids, memberships and entries to and from `quorate_proto::peer`.
//!
//! The same encoding stands on the wire between members and in the log, so it never depends on how the Raft crate
//! would serialize its own types. Decoding refuses what is incomplete or unknown: nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{BasicNode, EntryPayload, vote::RaftLeaderId};
use prost::Message;
use quorate_proto::peer;

use super::types::{BatchBytes, Entry, LeaderId, LogId, Membership, Vote};

/// Bytes from another member or from the disk do not say what they must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("a {message} without its {field}")]
    Missing { message: &'static str, field: &'static str },
    #[error("an entry whose payload this version does not know")]
    UnknownPayload,
    #[error("a membership that cannot be: {0}")]
    Membership(String),
    #[error("bytes that are no {message}")]
    Garbled {
        message: &'static str,
        #[source]
        source: prost::DecodeError,
    },
}

pub(crate) fn vote_to_proto(vote: &Vote) -> peer::Vote {
    let leader = peer::LeaderId { term: vote.leader_id.term, node: vote.leader_id.voted_for };
    peer::Vote { leader: Some(leader), committed: vote.committed }
}

pub(crate) fn vote_from_proto(vote: &peer::Vote) -> Result<Vote, CodecError> {
    let leader = vote.leader.as_ref().ok_or(CodecError::Missing { message: "vote", field: "leader" })?;
    Ok(Vote { leader_id: LeaderId::new(leader.term, leader.node), committed: vote.committed })
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    vote_to_proto(vote).encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, CodecError> {
    let vote = peer::Vote::decode(bytes).map_err(|source| CodecError::Garbled { message: "vote", source })?;
    vote_from_proto(&vote)
}

/// A term has one leader at most, so a log id needs only the term: the leader's node stays 0.
pub(crate) fn log_id_to_proto(log_id: &LogId) -> peer::LogId {
    let leader = peer::LeaderId { term: log_id.leader_id.term, node: 0 };
    peer::LogId { leader: Some(leader), index: log_id.index }
}

pub(crate) fn log_id_from_proto(log_id: &peer::LogId) -> Result<LogId, CodecError> {
    let leader = log_id.leader.as_ref().ok_or(CodecError::Missing { message: "log id", field: "leader" })?;
    Ok(log_id_of(leader.term, log_id.index))
}

/// An absent message is "nothing yet", as in an empty log.
pub(crate) fn optional_log_id_from_proto(log_id: Option<&peer::LogId>) -> Result<Option<LogId>, CodecError> {
    log_id.map(log_id_from_proto).transpose()
}

/// The log id of `index` in `term`.
pub(crate) fn log_id_of(term: u64, index: u64) -> LogId {
    // The node does not count: see `log_id_to_proto`.
    LogId { leader_id: LeaderId::new(term, 0).to_committed(), index }
}

pub(crate) fn membership_to_proto(membership: &Membership) -> peer::Membership {
    let configs = membership.get_joint_config().iter();
    let members = membership.nodes();
    peer::Membership {
        configs: configs.map(|voters| peer::VoterSet { ids: voters.iter().copied().collect() }).collect(),
        members: members.map(|(&id, node)| peer::MemberAddress { id, peer_address: node.addr.clone() }).collect(),
    }
}

pub(crate) fn membership_from_proto(membership: &peer::Membership) -> Result<Membership, CodecError> {
    let configs: Vec<BTreeSet<u64>> = membership.configs.iter().map(|set| set.ids.iter().copied().collect()).collect();
    let mut members = BTreeMap::new();
    for member in &membership.members {
        if members.insert(member.id, BasicNode::new(&member.peer_address)).is_some() {
            return Err(CodecError::Membership(format!("member {} is named twice", member.id)));
        }
    }
    Membership::new(configs, members).map_err(|error| CodecError::Membership(error.to_string()))
}

pub(crate) fn entry_to_proto(entry: &Entry) -> peer::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => peer::entry::Payload::Blank(peer::Blank {}),
        EntryPayload::Normal(batch) => peer::entry::Payload::Batch(batch.0.clone()),
        EntryPayload::Membership(membership) => peer::entry::Payload::Membership(membership_to_proto(membership)),
    };
    peer::Entry { log_id: Some(log_id_to_proto(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_proto(entry: peer::Entry) -> Result<Entry, CodecError> {
    let log_id = entry.log_id.ok_or(CodecError::Missing { message: "entry", field: "log id" })?;
    let payload = match entry.payload.ok_or(CodecError::UnknownPayload)? {
        peer::entry::Payload::Blank(peer::Blank {}) => EntryPayload::Blank,
        peer::entry::Payload::Batch(batch) => EntryPayload::Normal(BatchBytes(batch)),
        peer::entry::Payload::Membership(membership) => EntryPayload::Membership(membership_from_proto(&membership)?),
    };
    Ok(Entry { log_id: log_id_from_proto(&log_id)?, payload })
}

pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    entry_to_proto(entry).encode_to_vec().into()
}

/// A batch inside shares the memory of `bytes`.
pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    let entry = peer::Entry::decode(bytes).map_err(|source| CodecError::Garbled { message: "entry", source })?;
    entry_from_proto(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> Membership {
        let nodes = [1, 2, 3, 4].map(|id| (id, BasicNode::new(format!("host{id}:7201"))));
        Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])], BTreeMap::from(nodes)).unwrap()
    }

    #[test]
    fn every_entry_comes_back_as_it_was() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(BatchBytes(Bytes::from_static(b"commands"))),
            EntryPayload::Normal(BatchBytes(Bytes::new())),
            EntryPayload::Membership(joint()),
            EntryPayload::Membership(Membership::default()),
        ];
        for (index, payload) in payloads.into_iter().enumerate() {
            let entry = Entry { log_id: log_id_of(7, index as u64), payload };

            let decoded = decode_entry(encode_entry(&entry)).unwrap();

            assert_eq!(decoded, entry);
        }
    }

    #[test]
    fn every_vote_comes_back_as_it_was() {
        for vote in [Vote::new(0, 0), Vote::new(3, 2), Vote::new_committed(u64::MAX, 254)] {
            assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
        }
    }

    #[test]
    fn absent_log_id_is_nothing_yet_but_one_without_leader_is_refused() {
        assert_eq!(optional_log_id_from_proto(None).unwrap(), None);
        assert!(log_id_from_proto(&peer::LogId { leader: None, index: 3 }).is_err());
    }

    #[test]
    fn payload_of_a_later_version_is_refused() {
        let entry = peer::Entry { log_id: Some(log_id_to_proto(&log_id_of(1, 1))), payload: None };

        assert!(matches!(entry_from_proto(entry), Err(CodecError::UnknownPayload)));
    }

    #[test]
    fn voter_without_an_address_is_refused() {
        let membership = peer::Membership { configs: vec![peer::VoterSet { ids: vec![1] }], members: vec![] };

        assert!(matches!(membership_from_proto(&membership), Err(CodecError::Membership(_))));
    }

    #[test]
    fn batch_shares_the_memory_it_was_decoded_from() {
        let entry =
            Entry { log_id: log_id_of(1, 1), payload: EntryPayload::Normal(BatchBytes(vec![7_u8; 100].into())) };
        let bytes = encode_entry(&entry);
        let range = bytes.as_ptr_range();

        let EntryPayload::Normal(BatchBytes(batch)) = decode_entry(bytes.clone()).unwrap().payload else { panic!() };

        assert!(range.contains(&batch.as_ptr()));
    }
}
