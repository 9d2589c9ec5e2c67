//! What one copy that nobody shares would answer: the yardstick of histories.
//!
//! Pure and small on purpose. A model is not the tree: it knows only what the tests ask, and each is written from
//! the promises, not from the code it judges.

use std::{fmt::Debug, hash::Hash};

use crate::history::ClientId;

/// One object as a sequential machine.
pub trait Model {
    /// What the object is between two operations.
    type State: Clone + Eq + Hash + Debug;
    /// What can be asked of it.
    type Call: Clone + Debug;
    /// What it can answer.
    type Reply: Clone + Debug;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `call` took effect at `state` and answered `reply`; `None` if it would answer otherwise there.
    fn step(&self, state: &Self::State, call: &Self::Call, reply: &Self::Reply) -> Option<Self::State>;

    /// The state after `call` took effect at `state` and nobody saw the answer; `None` if it changes nothing there.
    fn step_unseen(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// One node with its data and version.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeModel;

/// What a client asks of a node. Values are told apart by the test: each write has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCall {
    /// Make it.
    Create {
        /// Its data.
        value: u64,
    },
    /// Replace its data.
    Set {
        /// By this.
        value: u64,
        /// If it has this version.
        version: Option<i32>,
    },
    /// Take it away.
    Delete {
        /// If it has this version.
        version: Option<i32>,
    },
    /// Read its data.
    Get,
    /// Read whether it exists.
    Exists,
}

/// What a client is told of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeReply {
    /// It was made.
    Created,
    /// Its data were replaced.
    Set {
        /// It has this version now.
        version: i32,
    },
    /// It was taken away.
    Deleted,
    /// To get: what it holds.
    Got {
        /// Its data.
        value: u64,
        /// Their version.
        version: i32,
    },
    /// To exists: its version, if it exists.
    Exists {
        /// The version.
        version: Option<i32>,
    },
    /// There is no such node.
    NoNode,
    /// To create: it is there already.
    NodeExists,
    /// It has another version.
    BadVersion,
}

/// A node that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeState {
    /// Its data.
    pub value: u64,
    /// How often they were replaced.
    pub version: i32,
}

impl NodeModel {
    /// What the node answers to `call`, and what it is afterwards.
    pub fn execute(state: Option<NodeState>, call: NodeCall) -> (Option<NodeState>, NodeReply) {
        let fits = |wanted: Option<i32>, node: NodeState| wanted.is_none_or(|version| version == node.version);
        match (call, state) {
            (NodeCall::Create { value }, None) => (Some(NodeState { value, version: 0 }), NodeReply::Created),
            (NodeCall::Create { .. }, Some(_)) => (state, NodeReply::NodeExists),
            (NodeCall::Exists, _) => (state, NodeReply::Exists { version: state.map(|node| node.version) }),
            (_, None) => (None, NodeReply::NoNode),
            (NodeCall::Get, Some(NodeState { value, version })) => (state, NodeReply::Got { value, version }),
            (NodeCall::Set { version, .. } | NodeCall::Delete { version }, Some(node)) if !fits(version, node) => {
                (state, NodeReply::BadVersion)
            }
            (NodeCall::Set { value, .. }, Some(node)) => {
                let version = node.version + 1;
                (Some(NodeState { value, version }), NodeReply::Set { version })
            }
            (NodeCall::Delete { .. }, Some(_)) => (None, NodeReply::Deleted),
        }
    }
}

impl Model for NodeModel {
    type State = Option<NodeState>;
    type Call = NodeCall;
    type Reply = NodeReply;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, call: &NodeCall, reply: &NodeReply) -> Option<Self::State> {
        let (after, answer) = Self::execute(*state, *call);
        (answer == *reply).then_some(after)
    }

    fn step_unseen(&self, state: &Self::State, call: &NodeCall) -> Option<Self::State> {
        let (after, _) = Self::execute(*state, *call);
        (after != *state).then_some(after)
    }
}

/// A lock with fencing tokens: at most one holder, and each gets a greater token than all before it.
///
/// A holder whose end the test does not see (its session expires, its process dies) is recorded as a release that is
/// never answered, invoked after the last moment at which the holder knew that it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct LockModel;

/// What a contender does with a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockCall {
    /// Wants it.
    Acquire {
        /// Who it is.
        owner: ClientId,
    },
    /// Looks whether it still holds it.
    Check {
        /// Who it is.
        owner: ClientId,
        /// What it was given.
        token: u64,
    },
    /// Gives it back.
    Release {
        /// Who it is.
        owner: ClientId,
    },
}

/// What a contender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// To acquire: it holds the lock from now on.
    Acquired {
        /// Greater than every earlier one.
        token: u64,
    },
    /// To acquire: it did not get the lock and will not.
    NotAcquired,
    /// To check: it holds the lock.
    Held,
    /// To check: it does not, or cannot be sure. May be said too early, for that is safe.
    Lost,
    /// To release: nobody holds the lock for it any more.
    Released,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockState {
    /// The holder and its token, which nobody knows if the answer was not seen.
    pub holder: Option<(ClientId, Option<u64>)>,
    /// The greatest token seen.
    pub token_max: u64,
}

impl LockState {
    fn is_held_by(&self, owner: ClientId) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == owner)
    }
}

impl Model for LockModel {
    type State = LockState;
    type Call = LockCall;
    type Reply = LockReply;

    fn initial(&self) -> LockState {
        LockState::default()
    }

    fn step(&self, state: &LockState, call: &LockCall, reply: &LockReply) -> Option<LockState> {
        match (*call, *reply) {
            (LockCall::Acquire { owner }, LockReply::Acquired { token }) => {
                let legal = state.holder.is_none() && token > state.token_max;
                legal.then_some(LockState { holder: Some((owner, Some(token))), token_max: token })
            }
            (LockCall::Acquire { .. }, LockReply::NotAcquired) => Some(*state),
            (LockCall::Check { owner, token }, LockReply::Held) => {
                (state.holder == Some((owner, Some(token)))).then_some(*state)
            }
            (LockCall::Check { .. }, LockReply::Lost) => Some(*state),
            (LockCall::Release { owner }, LockReply::Released) => {
                state.is_held_by(owner).then_some(LockState { holder: None, ..*state })
            }
            _ => None,
        }
    }

    fn step_unseen(&self, state: &LockState, call: &LockCall) -> Option<LockState> {
        match *call {
            LockCall::Acquire { owner } if state.holder.is_none() => {
                Some(LockState { holder: Some((owner, None)), ..*state })
            }
            LockCall::Release { owner } if state.is_held_by(owner) => Some(LockState { holder: None, ..*state }),
            _ => None,
        }
    }
}

/// The counter of a parent, as sequential creations see it: every number is greater than all before it.
///
/// Numbers may be left out: creations that nobody saw answered took some.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceModel;

/// A sequential creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw;

/// The number in the name it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn(pub u64);

impl Model for SequenceModel {
    type State = Option<u64>;
    type Call = Draw;
    type Reply = Drawn;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, _: &Draw, reply: &Drawn) -> Option<Self::State> {
        state.is_none_or(|last| reply.0 > last).then_some(Some(reply.0))
    }

    fn step_unseen(&self, _: &Self::State, _: &Draw) -> Option<Self::State> {
        // It takes a number that nobody knows, and so forbids nothing that was not forbidden.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_answers_as_zookeeper_would() {
        let mut node = None;
        let mut check = |call, expected| {
            let (after, reply) = NodeModel::execute(node, call);
            assert_eq!(reply, expected, "{call:?} at {node:?}");
            node = after;
        };

        check(NodeCall::Get, NodeReply::NoNode);
        check(NodeCall::Exists, NodeReply::Exists { version: None });
        check(NodeCall::Set { value: 1, version: None }, NodeReply::NoNode);
        check(NodeCall::Create { value: 1 }, NodeReply::Created);
        check(NodeCall::Create { value: 2 }, NodeReply::NodeExists);
        check(NodeCall::Set { value: 3, version: Some(1) }, NodeReply::BadVersion);
        check(NodeCall::Set { value: 3, version: Some(0) }, NodeReply::Set { version: 1 });
        check(NodeCall::Get, NodeReply::Got { value: 3, version: 1 });
        check(NodeCall::Exists, NodeReply::Exists { version: Some(1) });
        check(NodeCall::Delete { version: Some(0) }, NodeReply::BadVersion);
        check(NodeCall::Delete { version: Some(1) }, NodeReply::Deleted);
        check(NodeCall::Delete { version: None }, NodeReply::NoNode);
        check(NodeCall::Create { value: 4 }, NodeReply::Created);
        check(NodeCall::Get, NodeReply::Got { value: 4, version: 0 });
    }

    #[test]
    fn a_lock_that_is_held_is_not_given_and_a_token_never_comes_back() {
        let (one, two) = (ClientId(1), ClientId(2));
        let free = LockModel.initial();
        let acquire = |state: &LockState, owner, token| {
            LockModel.step(state, &LockCall::Acquire { owner }, &LockReply::Acquired { token })
        };

        let held = acquire(&free, one, 7).expect("it is free");
        assert_eq!(acquire(&held, two, 8), None);
        let free = LockModel.step(&held, &LockCall::Release { owner: one }, &LockReply::Released).expect("it is held");
        assert_eq!(acquire(&free, two, 7), None);
        assert!(acquire(&free, two, 8).is_some());
    }

    #[test]
    fn a_number_that_is_drawn_twice_is_refused() {
        let first = SequenceModel.step(&None, &Draw, &Drawn(0)).expect("nothing was drawn");

        assert_eq!(SequenceModel.step(&first, &Draw, &Drawn(0)), None);
        assert!(SequenceModel.step(&first, &Draw, &Drawn(5)).is_some());
    }
}
