//! The checker against histories whose answer is known: by hand, and from a machine that is linearizable by
//! construction.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;
use crate::{
    history::ClientId,
    model::{Draw, Drawn, LockCall, LockModel, LockReply, NodeCall, NodeModel, NodeReply, NodeState, SequenceModel},
};

/// An operation of a client on "/k", from one time to another; without an end it is never answered.
fn operation<C, R>(client: u32, times: (u64, Option<u64>), call: C, reply: Option<R>) -> Operation<C, R> {
    let outcome = match (times.1, reply) {
        (Some(at), Some(reply)) => Outcome::Returned { at: Stamp(at), reply },
        _ => Outcome::Unknown,
    };
    Operation { client: ClientId(client), key: Arc::from("/k"), call, invoked: Stamp(times.0), outcome }
}

fn returned<C, R>(client: u32, from: u64, to: u64, call: C, reply: R) -> Operation<C, R> {
    operation(client, (from, Some(to)), call, Some(reply))
}

fn unknown<C, R>(client: u32, from: u64, call: C) -> Operation<C, R> {
    operation(client, (from, None), call, None)
}

fn verdict<M: Model>(model: &M, operations: Vec<Operation<M::Call, M::Reply>>) -> Verdict {
    check(model, &History::new(operations), Bounds::default())
}

#[track_caller]
fn assert_valid<M: Model>(model: &M, operations: Vec<Operation<M::Call, M::Reply>>) {
    assert_eq!(verdict(model, operations), Verdict::Linearizable);
}

#[track_caller]
fn assert_violation<M: Model>(model: &M, operations: Vec<Operation<M::Call, M::Reply>>) {
    let verdict = verdict(model, operations);
    assert!(matches!(verdict, Verdict::Violation { .. }), "{verdict}");
}

const CREATE: NodeCall = NodeCall::Create { value: 0 };

fn set(value: u64) -> NodeCall {
    NodeCall::Set { value, version: None }
}

fn got(value: u64, version: i32) -> NodeReply {
    NodeReply::Got { value, version }
}

#[test]
fn an_empty_history_is_linearizable() {
    assert_valid(&NodeModel, Vec::new());
}

#[test]
fn reads_beside_a_write_may_see_either_value() {
    for seen in [got(0, 0), got(1, 1)] {
        assert_valid(
            &NodeModel,
            vec![
                returned(1, 0, 10, CREATE, NodeReply::Created),
                returned(1, 20, 40, set(1), NodeReply::Set { version: 1 }),
                returned(2, 25, 35, NodeCall::Get, seen),
            ],
        );
    }
}

#[test]
fn a_stale_read_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(1, 20, 40, set(1), NodeReply::Set { version: 1 }),
            returned(2, 41, 50, NodeCall::Get, got(0, 0)),
        ],
    );
}

#[test]
fn a_read_that_goes_back_behind_another_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(1, 20, 90, set(1), NodeReply::Set { version: 1 }),
            returned(2, 30, 40, NodeCall::Get, got(1, 1)),
            returned(3, 50, 60, NodeCall::Get, got(0, 0)),
        ],
    );
}

#[test]
fn a_lost_update_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(1, 20, 40, set(1), NodeReply::Set { version: 1 }),
            returned(2, 25, 45, set(2), NodeReply::Set { version: 1 }),
        ],
    );
}

#[test]
fn an_acknowledged_write_that_nobody_sees_again_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(2, 50, 60, NodeCall::Exists, NodeReply::Exists { version: None }),
        ],
    );
}

#[test]
fn a_write_that_is_applied_twice_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(1, 20, 40, set(1), NodeReply::Set { version: 1 }),
            returned(1, 50, 60, NodeCall::Get, got(1, 2)),
        ],
    );
}

#[test]
fn a_delete_that_is_applied_again_later_is_a_violation() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(1, 20, 40, NodeCall::Delete { version: None }, NodeReply::Deleted),
            returned(1, 50, 60, CREATE, NodeReply::Created),
            returned(2, 70, 80, NodeCall::Get, NodeReply::NoNode),
        ],
    );
}

#[test]
fn a_write_that_was_never_answered_may_take_effect_late_or_never() {
    let with = |seen| {
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            unknown(1, 20, set(1)),
            returned(2, 100, 110, NodeCall::Get, got(0, 0)),
            returned(2, 1000, 1010, NodeCall::Get, seen),
        ]
    };

    assert_valid(&NodeModel, with(got(1, 1)));
    assert_valid(&NodeModel, with(got(0, 0)));
}

#[test]
fn a_write_that_was_never_answered_takes_effect_once_at_most_and_not_before_it_was_asked() {
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            unknown(1, 20, set(1)),
            returned(2, 100, 110, set(2), NodeReply::Set { version: 2 }),
            returned(2, 200, 210, NodeCall::Get, got(1, 3)),
        ],
    );
    assert_violation(
        &NodeModel,
        vec![
            returned(1, 0, 10, CREATE, NodeReply::Created),
            returned(2, 11, 19, NodeCall::Get, got(1, 1)),
            unknown(1, 20, set(1)),
        ],
    );
}

#[test]
fn objects_are_judged_one_by_one_and_the_bad_one_is_named() {
    let mut bad = returned(2, 41, 50, NodeCall::Get, got(9, 0));
    bad.key = Arc::from("/other");
    let history = vec![returned(1, 0, 10, CREATE, NodeReply::Created), bad];

    let Verdict::Violation { key, explanation } = verdict(&NodeModel, history) else {
        panic!("it is not linearizable")
    };

    assert_eq!(&*key, "/other");
    assert!(explanation.contains("none of these can follow"), "{explanation}");
    assert!(explanation.contains("Got { value: 9"), "{explanation}");
}

fn acquire(owner: u32, from: u64, to: u64, token: u64) -> Operation<LockCall, LockReply> {
    returned(owner, from, to, LockCall::Acquire { owner: ClientId(owner) }, LockReply::Acquired { token })
}

fn release(owner: u32, from: u64, to: u64) -> Operation<LockCall, LockReply> {
    returned(owner, from, to, LockCall::Release { owner: ClientId(owner) }, LockReply::Released)
}

#[test]
fn holders_one_after_another_are_fine() {
    assert_valid(
        &LockModel,
        vec![acquire(1, 0, 10, 1), acquire(2, 5, 40, 2), release(1, 20, 30), release(2, 50, 60), acquire(1, 55, 70, 9)],
    );
}

#[test]
fn two_holders_at_once_are_a_violation() {
    assert_violation(&LockModel, vec![acquire(1, 0, 10, 1), acquire(2, 5, 15, 2), release(1, 20, 30)]);
}

#[test]
fn a_token_that_goes_back_is_a_violation() {
    assert_violation(&LockModel, vec![acquire(1, 0, 10, 7), release(1, 20, 30), acquire(2, 40, 50, 6)]);
}

#[test]
fn a_holder_that_believes_to_hold_after_another_got_the_lock_is_a_violation() {
    let check = LockCall::Check { owner: ClientId(1), token: 1 };
    let expired = unknown(1, 70, LockCall::Release { owner: ClientId(1) });
    let with = |looked, reply| {
        vec![acquire(1, 0, 10, 1), acquire(2, 5, 40, 2), returned(1, looked, looked + 5, check, reply), expired.clone()]
    };

    assert_violation(&LockModel, with(50, LockReply::Held));
    // Lost was said, but only after the other had it: the end of the hold is what was known last.
    assert_violation(&LockModel, with(50, LockReply::Lost));
}

#[test]
fn a_lock_passes_on_from_a_holder_that_died() {
    assert_valid(
        &LockModel,
        vec![
            acquire(1, 0, 10, 1),
            unknown(1, 20, LockCall::Release { owner: ClientId(1) }),
            unknown(3, 21, LockCall::Acquire { owner: ClientId(3) }),
            unknown(3, 22, LockCall::Release { owner: ClientId(3) }),
            acquire(2, 30, 500, 2),
        ],
    );
}

#[test]
fn numbers_drawn_at_the_same_time_may_come_in_any_order_but_only_once() {
    let draw = |client, from, to, number| returned(client, from, to, Draw, Drawn(number));

    assert_valid(&SequenceModel, vec![draw(1, 0, 10, 1), draw(2, 0, 10, 0), draw(3, 20, 30, 5)]);
    assert_violation(&SequenceModel, vec![draw(1, 0, 10, 1), draw(2, 0, 10, 1)]);
    assert_violation(&SequenceModel, vec![draw(1, 0, 10, 1), draw(2, 20, 30, 0)]);
}

#[test]
fn a_search_that_meets_its_bounds_says_so() {
    // Many writes at once whose order nothing tells, and a read that none of them explains.
    let mut history = vec![returned(0, 0, 1, CREATE, NodeReply::Created)];
    history.extend((1..=24).map(|client| unknown(client, 2, set(u64::from(client)))));
    history.push(returned(30, 10, 11, NodeCall::Get, got(99, 24)));

    let bounds = Bounds { steps_max: 10_000, configurations_max: 10_000 };

    let verdict = check(&NodeModel, &History::new(history), bounds);
    assert_eq!(verdict, Verdict::TooBig { key: Arc::from("/k") });
}

type NodeOperation = Operation<NodeCall, NodeReply>;

/// What a simulated client is about.
#[derive(Clone, Copy)]
enum Doing {
    Nothing,
    /// Asked, and not yet taken effect.
    Asked {
        index: usize,
    },
    /// Taken effect, and not yet answered.
    Settled {
        index: usize,
        reply: NodeReply,
    },
}

/// A history of a node that is linearizable by construction: each operation takes effect at one moment while it is
/// open. Some clients give up on what they asked, before or after it took effect, or it takes effect after that.
fn simulate(random: &mut StdRng, clients: usize, operations: usize) -> Vec<NodeOperation> {
    let mut node: Option<NodeState> = None;
    let mut history: Vec<NodeOperation> = Vec::new();
    let mut doing = vec![Doing::Nothing; clients];
    let mut given_up: Vec<NodeCall> = Vec::new();
    let mut now = 0;

    while history.len() < operations || doing.iter().any(|doing| !matches!(doing, Doing::Nothing)) {
        now += 1;
        if !given_up.is_empty() && random.random_bool(0.05) {
            let late = given_up.swap_remove(random.random_range(0..given_up.len()));
            node = NodeModel::execute(node, late).0;
        }
        let client = random.random_range(0..clients);
        doing[client] = match doing[client] {
            Doing::Nothing if history.len() < operations => {
                let version = node.map(|node| node.version).filter(|_| random.random_bool(0.3));
                let value = history.len() as u64;
                let call = match random.random_range(0..10) {
                    0 => NodeCall::Create { value },
                    1 => NodeCall::Delete { version },
                    2..=5 => NodeCall::Set { value, version },
                    6 => NodeCall::Exists,
                    _ => NodeCall::Get,
                };
                history.push(unknown(client as u32, now, call));
                Doing::Asked { index: history.len() - 1 }
            }
            Doing::Nothing => Doing::Nothing,
            Doing::Asked { index } if random.random_bool(0.02) => {
                if random.random_bool(0.5) {
                    given_up.push(history[index].call);
                }
                Doing::Nothing
            }
            Doing::Asked { index } => {
                let (after, reply) = NodeModel::execute(node, history[index].call);
                node = after;
                Doing::Settled { index, reply }
            }
            Doing::Settled { .. } if random.random_bool(0.02) => Doing::Nothing,
            Doing::Settled { index, reply } => {
                history[index].outcome = Outcome::Returned { at: Stamp(now), reply };
                Doing::Nothing
            }
        };
    }
    history
}

#[test]
fn what_a_linearizable_machine_answers_is_accepted() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (clients, operations) = (random.random_range(1..=8), random.random_range(1..=400));

        let history = simulate(&mut random, clients, operations);

        let verdict = verdict(&NodeModel, history);
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}");
    }
}

/// Spoils one answer: a read of an earlier value, a version that is one off, a refusal that was none.
fn spoil(random: &mut StdRng, history: &mut [NodeOperation]) {
    let values: Vec<u64> = (0..history.len() as u64).collect();
    loop {
        let operation = history.choose_mut_by(random);
        let Outcome::Returned { reply, .. } = &mut operation.outcome else { continue };
        let spoilt = match *reply {
            NodeReply::Got { value, version } if random.random_bool(0.5) => {
                let other = *values.choose(random).expect("there are operations");
                if other == value { NodeReply::Got { value, version: version + 1 } } else { got(other, version) }
            }
            NodeReply::Got { value, version } => got(value, version + 1),
            NodeReply::Set { version } => NodeReply::Set { version: version + random.random_range(1..3) },
            NodeReply::Exists { version: Some(version) } => NodeReply::Exists { version: Some(version + 1) },
            NodeReply::Created => NodeReply::NodeExists,
            NodeReply::NodeExists => NodeReply::Created,
            _ => continue,
        };
        *reply = spoilt;
        return;
    }
}

/// Picks an element to change.
trait ChooseMut<T> {
    fn choose_mut_by(&mut self, random: &mut StdRng) -> &mut T;
}

impl<T> ChooseMut<T> for [T] {
    fn choose_mut_by(&mut self, random: &mut StdRng) -> &mut T {
        &mut self[random.random_range(0..self.len())]
    }
}

#[test]
fn most_spoilt_histories_are_found() {
    let (mut found, mut missed, mut undecided) = (0, 0, 0);
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = simulate(&mut random, 4, 100);

        spoil(&mut random, &mut history);

        match verdict(&NodeModel, history) {
            Verdict::Violation { .. } => found += 1,
            Verdict::Linearizable => missed += 1,
            Verdict::TooBig { .. } => undecided += 1,
        }
    }
    // Some spoilt answers are explained by an operation that was open at the same time.
    assert!(found >= 160, "found {found}, explained {missed}, undecided {undecided}");
}

/// Whether some order explains the operations, found by trying every one.
fn some_order_explains(state: Option<NodeState>, open: &[NodeOperation]) -> bool {
    if open.iter().all(|operation| operation.outcome.is_unknown()) {
        return true;
    }
    let returned_at = |operation: &NodeOperation| match operation.outcome {
        Outcome::Returned { at, .. } => at,
        Outcome::Unknown => Stamp(u64::MAX),
    };
    open.iter().enumerate().any(|(index, next)| {
        let (after, answer) = NodeModel::execute(state, next.call);
        let explains = match &next.outcome {
            Outcome::Returned { reply, .. } => *reply == answer,
            Outcome::Unknown => true,
        };
        let mut rest = open.to_vec();
        rest.remove(index);
        explains && rest.iter().all(|other| returned_at(other) >= next.invoked) && some_order_explains(after, &rest)
    })
}

#[test]
fn the_verdict_is_that_of_trying_every_order() {
    let (mut valid, mut violations) = (0, 0);
    for seed in 0..2000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut history = simulate(&mut random, 4, 7);
        if random.random_bool(0.7) && history.iter().any(|operation| !operation.outcome.is_unknown()) {
            for operation in &mut history {
                // Answers of a tiny world, so that some fit by chance.
                if let Outcome::Returned { reply, .. } = &mut operation.outcome
                    && random.random_bool(0.2)
                {
                    let state = [None, Some(NodeState { value: 1, version: 1 })];
                    *reply = NodeModel::execute(*state.choose(&mut random).expect("two"), operation.call).1;
                }
            }
        }

        let expected = some_order_explains(None, &history);

        match verdict(&NodeModel, history) {
            Verdict::Linearizable => assert!(expected, "seed {seed}: no order explains it"),
            Verdict::Violation { explanation, .. } => assert!(!expected, "seed {seed}: {explanation}"),
            Verdict::TooBig { .. } => panic!("seed {seed}: seven operations are not too many"),
        }
        *if expected { &mut valid } else { &mut violations } += 1;
    }
    assert!(valid > 200 && violations > 200, "{valid} valid, {violations} violations: both sorts must be there");
}
