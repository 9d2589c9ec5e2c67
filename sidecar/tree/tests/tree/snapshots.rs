//! Snapshots, and what is made of damaged ones.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_tree::{Acl, Create, CreateMode, Limits, LoadError, MemberId, MultiOp, Op, Permissions, Tree, TreeLoader};

use crate::driver::{Driver, create, delete, entry, numbered, set};
use crate::model::dump;

/// Something of everything.
fn populated() -> Driver {
    let mut driver = Driver::new();
    let register = Op::RegisterMember { member: MemberId(2), disk_id: u64::MAX, ensemble_id: 42 };
    driver.own(register);
    let (alice, bob) = (driver.open(), driver.open());
    driver.create(&alice, "/a", CreateMode::Persistent);
    driver.create(&alice, "/a/gone", CreateMode::Persistent);
    driver.create(&bob, "/a/e-", CreateMode::EphemeralSequential);
    driver.create(&bob, "/c", CreateMode::Container);
    driver.create(&bob, "/t", CreateMode::PersistentWithTtl { ttl_ms: 500 });
    driver.accepted(&alice, Op::Delete(delete("/a/gone", -1)));
    driver.create(&alice, "/a/a-name-too-long-to-lie-in-the-node", CreateMode::Persistent);
    let guarded = vec![entry(Permissions::READ, "world", "anyone"), entry(Permissions::ALL, "digest", "u:p")];
    let data = Some(Bytes::from_static(b"some data"));
    driver.accepted(&alice, Op::Create(Create { path: "/g".into(), data, mode: CreateMode::Persistent, acl: guarded }));
    driver.accepted(&numbered(&alice, 1, 0), Op::SetData(set("/a", "x", -1)));
    driver.apply(&numbered(&alice, 2, 0), Op::Delete(delete("/no", -1)));
    let multi = vec![MultiOp::Create(create("/m", CreateMode::Persistent)), MultiOp::Delete(delete("/m", -1))];
    driver.accepted(&numbered(&alice, 3, 0), Op::Multi(multi));
    driver
}

fn parts(tree: &mut Tree, nodes_max: usize) -> Vec<Bytes> {
    tree.freeze();
    std::iter::from_fn(|| tree.frozen_part(nodes_max)).collect()
}

fn load<'a>(parts: impl IntoIterator<Item = &'a Bytes>) -> Result<Tree, LoadError> {
    let mut loader = TreeLoader::new(Limits::DEFAULT);
    for part in parts {
        loader.add(part)?;
    }
    loader.finish()
}

#[test]
fn a_tree_comes_back_whole_whatever_the_size_of_the_parts() {
    for nodes_max in [0, 1, 2, 5, usize::MAX] {
        let mut driver = populated();

        let loaded = load(&parts(&mut driver.tree, nodes_max)).unwrap();

        assert_eq!(loaded.digest(), driver.tree.digest());
        assert_eq!(dump(&loaded), dump(&driver.tree));
    }
}

#[test]
fn children_that_lie_before_their_parents_come_back() {
    let mut driver = Driver::new();
    let alice = driver.open();
    for path in ["/early", "/p", "/p/q", "/p/q/r"] {
        driver.create(&alice, path, CreateMode::Persistent);
    }
    // Its place is the next one's.
    driver.accepted(&alice, Op::Delete(delete("/early", -1)));
    driver.create(&alice, "/p/q/r/leaf", CreateMode::Persistent);
    driver.create(&alice, "/zookeeper/quota/p", CreateMode::Persistent);
    driver.create(&alice, "/zookeeper/quota/p/zookeeper_limits", CreateMode::Persistent);

    let loaded = load(&parts(&mut driver.tree, 2)).unwrap();

    assert_eq!(dump(&loaded), dump(&driver.tree));
    assert_eq!(loaded.digest_recomputed(), driver.tree.digest());
    let usage = |tree: &Tree| tree.quotas().map(|quota| (quota.nodes, quota.bytes)).collect::<Vec<_>>();
    assert_eq!(usage(&loaded), usage(&driver.tree));
    assert_eq!(usage(&loaded)[0].0, 4);
}

#[test]
fn stored_outcomes_come_back() {
    let mut driver = populated();
    let alice = driver.tree.sessions().next().unwrap();
    let author = crate::driver::author(alice.session, 1);

    driver.tree = load(&parts(&mut driver.tree, 3)).unwrap();

    let ops = [Op::SetData(set("/a", "x", -1)), Op::Delete(delete("/no", -1)), Op::Multi(vec![])];
    let mut original = populated();
    for (number, op) in (1..).zip(ops) {
        let expected = original.apply(&numbered(&author, number, 0), op.clone());
        let found = driver.apply(&numbered(&author, number, 0), op);
        assert_eq!((found.zxid, found.outcome), (expected.zxid, expected.outcome));
    }
    assert_eq!(driver.tree.digest(), original.tree.digest());
}

#[test]
fn a_new_freeze_ends_the_one_before_and_a_thaw_ends_all() {
    let mut driver = populated();
    assert_eq!(driver.tree.frozen_part(1), None);
    driver.tree.freeze();
    driver.tree.frozen_part(3).unwrap();
    let alice = crate::driver::author(driver.tree.sessions().next().unwrap().session, 1);
    driver.accepted(&alice, Op::SetData(set("/a", "later", -1)));

    let loaded = load(&parts(&mut driver.tree, 2)).unwrap();
    assert_eq!(dump(&loaded), dump(&driver.tree));

    driver.tree.freeze();
    driver.tree.thaw();
    assert_eq!(driver.tree.frozen_part(1), None);
}

#[test]
fn large_nodes_make_a_part_end_early() {
    let mut driver = Driver::new();
    let alice = driver.open();
    for index in 0..8 {
        let data = Some(Bytes::from(vec![index; 200 * 1024]));
        let acl = vec![Acl::open()];
        driver.accepted(
            &alice,
            Op::Create(Create { path: format!("/{index}"), data, mode: CreateMode::Persistent, acl }),
        );
    }

    let parts = parts(&mut driver.tree, usize::MAX);

    assert!(parts.iter().all(|part| part.len() < 512 * 1024));
    assert_eq!(load(&parts).unwrap().digest(), driver.tree.digest());
}

#[test]
fn a_snapshot_with_a_part_missing_twice_or_out_of_place_is_refused() {
    let parts = parts(&mut populated().tree, 4);
    let last = parts.len() - 1;

    assert_eq!(load(&parts[..last]).unwrap_err(), LoadError::Incomplete);
    assert_eq!(load([]).unwrap_err(), LoadError::Incomplete);
    for index in 0..last {
        let without = parts.iter().take(index).chain(&parts[index + 1..]);
        load(without).unwrap_err();
        let doubled = parts.iter().take(index + 1).chain(&parts[index..]);
        load(doubled).unwrap_err();
        let mut swapped = parts.clone();
        swapped.swap(index, index + 1);
        load(&swapped).unwrap_err();
    }
}

/// What was written once must be readable for ever. If this fails, the format has changed: give it a new number.
#[test]
fn a_snapshot_in_the_first_format_still_loads() {
    let golden = Bytes::from_static(include_bytes!("../golden/format-1.snapshot"));

    let mut loaded = load([&golden]).unwrap();

    assert_eq!(loaded.digest(), 0x7892f2ae65cd4072);
    assert_eq!(parts(&mut loaded, usize::MAX), [golden]);
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: prop::sample::Index, bit: u8 },
    Cut { at: prop::sample::Index },
    Insert { at: prop::sample::Index, byte: u8 },
    Remove { at: prop::sample::Index },
    Repeat { from: prop::sample::Index, to: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        1 => any::<prop::sample::Index>().prop_map(|at| Damage::Cut { at }),
        1 => any::<(prop::sample::Index, u8)>().prop_map(|(at, byte)| Damage::Insert { at, byte }),
        1 => any::<prop::sample::Index>().prop_map(|at| Damage::Remove { at }),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Damage::Repeat { from, to }),
    ]
}

fn inflict(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match damage {
        Damage::Flip { at, bit } => bytes[at.index(length)] ^= 1 << bit,
        Damage::Cut { at } => bytes.truncate(at.index(length)),
        Damage::Insert { at, byte } => bytes.insert(at.index(length), *byte),
        Damage::Remove { at } => {
            bytes.remove(at.index(length));
        }
        Damage::Repeat { from, to } => {
            let (from, to) = (from.index(length), to.index(length));
            bytes.extend_from_within(from.min(to)..from.max(to));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// If something loads in spite of the damage, it is a tree that holds together.
    #[test]
    fn damaged_parts_are_refused_or_harmless_and_never_fatal(
        nodes_max in prop_oneof![Just(3_usize), Just(usize::MAX)],
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let mut original = populated();
        let mut parts = parts(&mut original.tree, nodes_max);
        let which = which.index(parts.len());
        let mut damaged = parts[which].to_vec();
        for damage in &damages {
            inflict(&mut damaged, damage);
        }
        parts[which] = damaged.into();

        if let Ok(tree) = load(&parts) {
            prop_assert_eq!(tree.digest(), tree.digest_recomputed());
            prop_assert_eq!(tree.digest(), original.tree.digest());
        }
    }

    #[test]
    fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(load([&Bytes::from(garbage)]).is_err());
    }
}
