//! Who this member is, what others must know of it, and whom it speaks with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::peer::{Greeting, StreamKind, StreamOpening};
use quorate_tree::MemberId;
use tokio::sync::watch;
use tonic::{
    Status,
    metadata::{BinaryMetadataValue, MetadataMap},
};
use tracing::{info, warn};

use super::{command_codec, config::EnsembleConfig};

/// The version of what members say to each other. 2: the log and what goes to the leader are streams without HTTP/2.
const FORMAT: u32 = 2;

// Another format of batches is another format of what is said.
const _: () = assert!(command_codec::FORMAT == 1 && FORMAT == 2);

/// The metadata key that carries the greeting of the caller.
const GREETING_KEY: &str = "quorate-greeting-bin";

/// Who this member is, as far as it matters to the others.
#[derive(Debug)]
pub(crate) struct Standing {
    member: MemberId,
    disk_id: u64,
    incarnation: u64,
    list: String,
    list_hash: u64,
    peers: BTreeMap<MemberId, String>,
    zookeeper_address: String,
    joined: AtomicBool,
    ensemble_id: AtomicU64,
    may_vote: watch::Sender<bool>,
    /// Peers that were refused or that refuse, with the reason: each is told once.
    quarrels: Mutex<HashMap<(MemberId, Side), String>>,
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Us,
    Them,
}

/// What the identity file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials {
    pub(crate) disk_id: u64,
    pub(crate) incarnation: u64,
    pub(crate) joined: bool,
    /// 0 while the member belongs to no ensemble.
    pub(crate) ensemble_id: u64,
}

impl Standing {
    pub(crate) fn new(config: &EnsembleConfig, credentials: Credentials) -> Self {
        Self {
            member: config.member,
            disk_id: credentials.disk_id,
            incarnation: credentials.incarnation,
            list: config.list(),
            list_hash: config.list_hash(),
            peers: config.peers.clone(),
            zookeeper_address: config.zookeeper_address.clone().unwrap_or_default(),
            joined: AtomicBool::new(credentials.joined),
            ensemble_id: AtomicU64::new(credentials.ensemble_id),
            may_vote: watch::Sender::new(credentials.joined),
            quarrels: Mutex::default(),
        }
    }

    pub(crate) fn member(&self) -> MemberId {
        self.member
    }

    pub(crate) fn disk_id(&self) -> u64 {
        self.disk_id
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    pub(crate) fn ensemble_id(&self) -> u64 {
        self.ensemble_id.load(Ordering::Relaxed)
    }

    /// The configured members with their addresses.
    pub(crate) fn peers(&self) -> &BTreeMap<MemberId, String> {
        &self.peers
    }

    /// Where clients of ZooKeeper connect to this member; empty if they cannot.
    pub(crate) fn zookeeper_address(&self) -> &str {
        &self.zookeeper_address
    }

    /// The configured members as a text that is equal on members that agree.
    pub(crate) fn list(&self) -> &str {
        &self.list
    }

    /// How many members make a majority of those configured.
    pub(crate) fn majority(&self) -> usize {
        self.peers.len() / 2 + 1
    }

    /// The disk was accepted into an ensemble; the identity file says so already.
    pub(crate) fn set_joined(&self, ensemble_id: u64) {
        self.ensemble_id.store(ensemble_id, Ordering::Relaxed);
        self.joined.store(true, Ordering::Relaxed);
        self.may_vote.send_replace(true);
    }

    /// Nobody has joined anywhere: this member may help to found the ensemble.
    pub(crate) fn may_found(&self) {
        self.may_vote.send_replace(true);
    }

    /// Whether this disk may vote and campaign, now and from now on.
    pub(crate) fn may_vote(&self) -> watch::Receiver<bool> {
        self.may_vote.subscribe()
    }

    /// What this member says of itself.
    pub(crate) fn greeting(&self, leader: Option<MemberId>, to_disk_id: u64) -> Greeting {
        Greeting {
            format: FORMAT,
            member_id: self.member.0.into(),
            disk_id: self.disk_id,
            ensemble_id: self.ensemble_id(),
            list_hash: self.list_hash,
            list: self.list.clone(),
            incarnation: self.incarnation,
            joined: self.joined(),
            leader: leader.map_or(0, |leader| leader.0.into()),
            to_disk_id,
            zookeeper_address: self.zookeeper_address.clone(),
        }
    }

    /// The opening of a stream to the disk of a peer.
    pub(crate) fn opening(&self, kind: StreamKind, to_disk_id: u64) -> StreamOpening {
        StreamOpening { greeting: Some(self.greeting(None, to_disk_id)), kind: kind.into() }
    }

    /// A request to the disk of a peer.
    pub(crate) fn request<T>(&self, message: T, to_disk_id: u64) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let greeting = Bytes::from(self.greeting(None, to_disk_id).encode_to_vec());
        request.metadata_mut().insert_bin(GREETING_KEY, BinaryMetadataValue::from_bytes(&greeting));
        request
    }

    /// Who calls, if this member speaks with them.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> Result<(MemberId, Greeting), Status> {
        let bytes = metadata
            .get_bin(GREETING_KEY)
            .and_then(|value| value.to_bytes().ok())
            .ok_or_else(|| Status::invalid_argument("a member says who it is in quorate-greeting-bin"))?;
        let greeting = Greeting::decode(bytes)
            .map_err(|error| Status::invalid_argument(format!("a greeting that does not decode: {error}")))?;
        let peer = self.admit_greeted(&greeting)?;
        Ok((peer, greeting))
    }

    /// Who calls with this greeting, if this member speaks with them.
    pub(crate) fn admit_greeted(&self, greeting: &Greeting) -> Result<MemberId, Status> {
        self.note(greeting).map_err(Status::failed_precondition)
    }

    /// Finds out whether this member speaks with a peer that called, and tells the operator when that changes.
    pub(crate) fn note(&self, greeting: &Greeting) -> Result<MemberId, String> {
        let accepted = self.accept(greeting);
        match &accepted {
            Ok(peer) => self.reconciled(*peer, Side::Us),
            Err(reason) => {
                if let Ok(peer) = u8::try_from(greeting.member_id) {
                    self.quarrel(MemberId(peer), Side::Us, reason);
                }
            }
        }
        accepted
    }

    /// Whether this member speaks with a peer; the reason if it does not.
    pub(crate) fn accept(&self, greeting: &Greeting) -> Result<MemberId, String> {
        let me = self.member;
        if greeting.format != FORMAT {
            return Err(format!(
                "member {me} speaks format {FORMAT}, member {} speaks {}",
                greeting.member_id, greeting.format
            ));
        }
        let peer = u8::try_from(greeting.member_id).map(MemberId).ok().filter(|peer| self.peers.contains_key(peer));
        let Some(peer) = peer else {
            return Err(format!("member {} is not in the list of member {me}: {}", greeting.member_id, self.list));
        };
        if peer == me && greeting.disk_id != self.disk_id {
            return Err(format!("there are two members with the id {me}: give one of them another"));
        }
        if greeting.list_hash != self.list_hash {
            return Err(format!(
                "members {me} and {peer} are configured differently, so they do not speak with each other: member {me} \
                 has {} and member {peer} has {} (or their limits differ)",
                self.list, greeting.list
            ));
        }
        let (ours, theirs) = (self.ensemble_id(), greeting.ensemble_id);
        if ours != 0 && theirs != 0 && ours != theirs {
            return Err(format!(
                "member {me} has the data of ensemble {ours:016x}, member {peer} that of ensemble {theirs:016x}: one of them \
                 was started with a foreign data directory"
            ));
        }
        if greeting.to_disk_id != 0 && greeting.to_disk_id != self.disk_id {
            return Err(format!("member {me} has another disk than member {peer} believes"));
        }
        Ok(peer)
    }

    /// A peer said why it does not speak with this member, or this member found out by itself.
    pub(crate) fn refused_by(&self, peer: MemberId, reason: &str) {
        self.quarrel(peer, Side::Them, reason);
    }

    /// A peer answered.
    pub(crate) fn heard_from(&self, peer: MemberId) {
        self.reconciled(peer, Side::Them);
    }

    fn quarrel(&self, peer: MemberId, side: Side, reason: &str) {
        let mut quarrels = self.quarrels.lock();
        if quarrels.get(&(peer, side)).is_none_or(|known| known != reason) {
            quarrels.insert((peer, side), reason.to_owned());
            drop(quarrels);
            match side {
                Side::Us => warn!(member = %self.member, %peer, reason, "refuse to speak with a member"),
                Side::Them => warn!(member = %self.member, %peer, reason, "a member refuses to speak with this one"),
            }
        }
    }

    fn reconciled(&self, peer: MemberId, side: Side) {
        let mut quarrels = self.quarrels.lock();
        if !quarrels.is_empty() && quarrels.remove(&(peer, side)).is_some() {
            drop(quarrels);
            info!(member = %self.member, %peer, "speak with a member again");
        }
    }

    /// Who does not speak with whom, and why.
    pub(crate) fn quarrels(&self) -> Vec<String> {
        self.quarrels.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_tree::Limits;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn standing(member: u8, list: &[(u8, &str)], ensemble_id: u64) -> Standing {
        let config = EnsembleConfig {
            member: MemberId(member),
            peers: list.iter().map(|(member, address)| (MemberId(*member), (*address).to_owned())).collect(),
            zookeeper_address: None,
            election_timeout_ms: 600,
            limits: Limits::DEFAULT,
            reap_period: Duration::from_secs(60),
            snapshot_log_bytes_min: 1,
            faults: None,
            metrics: Metrics::new(MemberId(member)).ensemble,
        };
        let disk_id = 1000 + u64::from(member);
        Standing::new(&config, Credentials { disk_id, incarnation: 1, joined: false, ensemble_id })
    }

    const LIST: [(u8, &str); 3] = [(1, "a:1"), (2, "b:2"), (3, "c:3")];

    fn refusal(ours: &Standing, theirs: &Standing, to_disk_id: u64) -> Option<String> {
        let request = theirs.request((), to_disk_id);
        ours.admit(request.metadata()).err().map(|status| status.message().to_owned())
    }

    #[test]
    fn members_with_equal_lists_speak_with_each_other() {
        assert_eq!(refusal(&standing(1, &LIST, 0), &standing(2, &LIST, 0), 1001), None);
        assert_eq!(refusal(&standing(1, &LIST, 7), &standing(2, &LIST, 0), 1001), None, "it may join");
        assert_eq!(refusal(&standing(1, &LIST, 7), &standing(2, &LIST, 7), 0), None);
    }

    #[test]
    fn members_that_differ_refuse_each_other_and_say_so() {
        let ours = standing(1, &LIST, 7);
        let other_list = [(1, "a:1"), (2, "b:99"), (3, "c:3")];
        let fewer = [(2, "b:2"), (3, "c:3")];
        let cases = [
            (refusal(&ours, &standing(2, &other_list, 7), 1001), "b:99"),
            (refusal(&standing(3, &fewer, 0), &ours, 1003), "not in the list"),
            (refusal(&ours, &standing(2, &LIST, 8), 1001), "foreign data directory"),
            (refusal(&ours, &standing(2, &LIST, 7), 9), "another disk"),
        ];

        for (refusal, expected) in cases {
            let refusal = refusal.unwrap();
            assert!(refusal.contains(expected), "{refusal}");
        }
        assert_eq!(ours.quarrels().len(), 1, "the last reason of each peer is remembered");
    }

    #[test]
    fn call_without_a_greeting_is_refused() {
        let ours = standing(1, &LIST, 0);

        assert!(ours.admit(&MetadataMap::new()).is_err());
    }
}
