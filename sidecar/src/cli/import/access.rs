//! Access lists of ZooKeeper in ours.

use std::collections::HashSet;

use quorate::{Acl, Permissions};

/// Schemes under which a member knows clients.
const KNOWN: [&str; 3] = ["world", "digest", "ip"];

/// An access list that can be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) acl: Vec<Acl>,
    /// Schemes of the entries that were left out.
    pub(super) left_out: Vec<String>,
}

/// Whether the server keeps a digest from whoever may not change the list: it shows `user:x` then.
pub(super) fn is_hidden(acl: &[quorate_wire::Acl]) -> bool {
    acl.iter().any(|entry| entry.scheme == "digest" && entry.id.as_deref().is_some_and(|id| id.ends_with(":x")))
}

/// The list without entries of unknown schemes. It never allows more than the original: where nothing is left, it
/// allows nothing, to anybody but a super user.
pub(super) fn carried(acl: &[quorate_wire::Acl]) -> Carried {
    let (known, unknown): (Vec<_>, Vec<_>) = acl.iter().partition(|entry| KNOWN.contains(&entry.scheme.as_str()));
    let mut left_out: Vec<String> = unknown.into_iter().map(|entry| entry.scheme.clone()).collect();
    left_out.sort();
    left_out.dedup();
    let mut carried: Vec<Acl> = known
        .into_iter()
        .map(|entry| Acl {
            permissions: permissions(entry.permissions),
            scheme: entry.scheme.clone(),
            id: entry.id.clone().unwrap_or_default(),
        })
        .collect();
    // What `auth` stands for may repeat an entry in ZooKeeper, and is kept once here.
    let mut seen = HashSet::new();
    carried.retain(|entry| seen.insert(entry.clone()));
    // An empty list of a node that has been there for ever allows everything; one that has become empty must not.
    if carried.is_empty() {
        carried.push(Acl::world(if left_out.is_empty() { Permissions::ALL } else { permissions(0) }));
    }
    Carried { acl: carried, left_out }
}

fn permissions(bits: i32) -> Permissions {
    Permissions::from_bits(bits.cast_unsigned() & Permissions::ALL.bits())
}

/// Whether only users known by name may create nodes below. Whose address an entry means is not known here.
pub(super) fn guards(acl: &[Acl]) -> bool {
    !acl.iter().any(|entry| entry.scheme != "digest" && entry.permissions.contains(Permissions::CREATE))
}

/// Whether a node has this list already. Ours may hide digests from this client too; then the users are compared.
pub(super) fn is_same(wanted: &[Acl], there: &[Acl]) -> bool {
    let same = |wanted: &Acl, there: &Acl| {
        let user = |acl: &Acl| acl.id.split(':').next().unwrap_or_default().to_owned();
        let hidden = there.scheme == "digest" && there.id.ends_with(":x");
        wanted.permissions == there.permissions
            && wanted.scheme == there.scheme
            && (wanted.id == there.id || hidden && user(wanted) == user(there))
    };
    wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| same(wanted, there))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(permissions: i32, scheme: &str, id: &str) -> quorate_wire::Acl {
        quorate_wire::Acl { permissions, scheme: scheme.into(), id: Some(id.into()) }
    }

    #[test]
    fn entries_of_known_schemes_are_kept_as_they_are() {
        let carried = carried(&[entry(1, "world", "anyone"), entry(31, "digest", "u:h"), entry(0, "ip", "10.0.0.0/8")]);

        let kept: Vec<_> =
            carried.acl.iter().map(|acl| (acl.permissions.bits(), acl.scheme.as_str(), acl.id.as_str())).collect();
        assert_eq!(kept, [(1, "world", "anyone"), (31, "digest", "u:h"), (0, "ip", "10.0.0.0/8")]);
        assert!(carried.left_out.is_empty());
    }

    #[test]
    fn a_list_of_unknown_schemes_alone_allows_nothing_to_anybody() {
        let both = carried(&[entry(31, "sasl", "hdfs"), entry(1, "world", "anyone"), entry(31, "x509", "CN=a")]);
        assert_eq!(
            (both.acl, both.left_out),
            (vec![Acl::world(Permissions::READ)], vec!["sasl".into(), "x509".into()])
        );

        let none = carried(&[entry(31, "sasl", "hdfs")]);
        assert_eq!((none.acl[0].scheme.as_str(), none.acl[0].permissions.bits()), ("world", 0));
        assert_eq!(carried(&[]).acl, [Acl::world(Permissions::ALL)]);
    }

    #[test]
    fn what_a_list_repeats_is_kept_once() {
        let carried = carried(&[entry(31, "digest", "u:h"), entry(1, "world", "anyone"), entry(31, "digest", "u:h")]);

        let schemes: Vec<_> = carried.acl.iter().map(|acl| acl.scheme.as_str()).collect();
        assert_eq!(schemes, ["digest", "world"]);
    }

    #[test]
    fn a_list_guards_what_is_below_unless_a_stranger_may_create() {
        for (guarded, list) in [
            (false, vec![entry(31, "world", "anyone")]),
            (false, vec![entry(31, "digest", "u:h"), entry(4, "ip", "10.0.0.0/8")]),
            (true, vec![entry(31, "digest", "u:h"), entry(1, "world", "anyone")]),
            (true, vec![entry(31, "sasl", "hdfs")]),
        ] {
            assert_eq!(guards(&carried(&list).acl), guarded, "{list:?}");
        }
    }

    #[test]
    fn a_digest_that_is_not_shown_is_noticed() {
        assert!(is_hidden(&[entry(31, "digest", "u:x")]));
        assert!(!is_hidden(&[entry(31, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="), entry(31, "ip", "::1")]));
    }

    #[test]
    fn lists_are_the_same_where_what_is_shown_is() {
        let digest = |id: &str| vec![Acl { permissions: Permissions::ALL, scheme: "digest".into(), id: id.into() }];

        assert!(is_same(&digest("u:hash"), &digest("u:hash")));
        assert!(is_same(&digest("u:hash"), &digest("u:x")));
        assert!(!is_same(&digest("u:hash"), &digest("v:x")));
        assert!(!is_same(&digest("u:hash"), &digest("u:other")));
        assert!(!is_same(&digest("u:hash"), &[]));
    }
}
