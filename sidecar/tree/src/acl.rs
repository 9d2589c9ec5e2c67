//! Who may do what with a node: a pure check.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use crate::Refusal;

/// One entry of a list: what an identity may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Acl {
    /// What is allowed.
    pub permissions: Permissions,
    /// Who.
    pub identity: Identity,
}

/// Somebody, as a scheme and a name within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `world`, `digest`, `ip`, `super`.
    pub scheme: String,
    /// `anyone` for world, `user:base64(sha1(user:password))` for digest.
    pub id: String,
}

/// The scheme of addresses, which are matched by their beginning.
const IP: &str = "ip";

/// A set of permissions, as ZooKeeper's bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permissions(pub u32);

impl Permissions {
    /// Read data, stat and children.
    pub const READ: Self = Self(1);
    /// Set the data.
    pub const WRITE: Self = Self(2);
    /// Create a child.
    pub const CREATE: Self = Self(4);
    /// Delete a child.
    pub const DELETE: Self = Self(8);
    /// Set the ACL.
    pub const ADMIN: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// Whether any of `wanted` is in this set.
    #[must_use]
    pub fn any_of(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// The permissions that are in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Identity {
    /// The identity that bypasses every list.
    #[must_use]
    pub fn superuser() -> Self {
        Self { scheme: "super".into(), id: String::new() }
    }

    /// Everybody.
    #[must_use]
    pub fn anyone() -> Self {
        Self { scheme: "world".into(), id: "anyone".into() }
    }
}

impl Acl {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self { permissions: Permissions::ALL, identity: Identity::anyone() }
    }
}

/// Whether one of `identities` has any of the `wanted` permissions.
#[must_use]
pub fn allows(list: &[Acl], wanted: Permissions, identities: &[Identity]) -> bool {
    if identities.iter().any(|identity| identity.scheme == "super") {
        return true;
    }
    let mut granting = list.iter().filter(|entry| entry.permissions.any_of(wanted)).map(|entry| &entry.identity);
    if !is_costly(list, identities) {
        return granting.any(|named| names_one_of(named, identities));
    }
    // Both are chosen by clients: comparing each with each would hold up the whole ensemble.
    let addresses: Vec<IpAddr> = addresses(identities).collect();
    let others: HashSet<&Identity> = identities.iter().filter(|identity| identity.scheme != IP).collect();
    granting.any(|named| match named.scheme.as_str() {
        IP => Network::parse(&named.id).is_some_and(|network| addresses.iter().any(|one| network.contains(*one))),
        _ => is_anyone(named) || others.contains(named),
    })
}

/// Whether a check of these takes long enough to avoid doing it twice.
pub(crate) fn is_costly(list: &[Acl], identities: &[Identity]) -> bool {
    list.len() * identities.len().max(1) > 64
}

/// [`allows`] as a refusal.
pub(crate) fn check(list: &[Acl], wanted: Permissions, identities: &[Identity]) -> Result<(), Refusal> {
    if allows(list, wanted, identities) { Ok(()) } else { Err(Refusal::NoAuth) }
}

fn names_one_of(named: &Identity, identities: &[Identity]) -> bool {
    match named.scheme.as_str() {
        IP => Network::parse(&named.id).is_some_and(|network| addresses(identities).any(|one| network.contains(one))),
        _ => is_anyone(named) || identities.contains(named),
    }
}

fn is_anyone(named: &Identity) -> bool {
    named.scheme == "world" && named.id == "anyone"
}

fn addresses(identities: &[Identity]) -> impl Iterator<Item = IpAddr> + '_ {
    identities.iter().filter(|identity| identity.scheme == IP).filter_map(|identity| identity.id.parse().ok())
}

/// The list as it is stored: `auth` replaced by what the author has authenticated as, repetitions left out.
///
/// # Errors
/// `InvalidAcl` if it is empty, names an unknown scheme or a malformed id, or says `auth` for an author that has not
/// authenticated; `LimitExceeded` if it gets longer than `entries_max`.
pub(crate) fn normalize<'a>(
    list: &'a [Acl],
    author: &[Identity],
    entries_max: usize,
) -> Result<Cow<'a, [Acl]>, Refusal> {
    match list {
        [] => return Err(Refusal::InvalidAcl),
        // By far the most frequent, and nothing to compare it with.
        [only] if only.identity.scheme != "auth" => {
            return if is_valid(&only.identity) { Ok(list.into()) } else { Err(Refusal::InvalidAcl) };
        }
        _ => {}
    }
    let mut normal = Vec::with_capacity(list.len().min(entries_max));
    let mut seen = HashSet::new();
    // What `auth` stands for is the same each time: saying it again must not cost as much as the first time.
    let mut seen_auth = HashSet::new();
    let mut push = |entry: Acl| {
        if !seen.insert(entry.clone()) {
            return Ok(());
        }
        if normal.len() == entries_max {
            return Err(Refusal::LimitExceeded);
        }
        normal.push(entry);
        Ok(())
    };
    for entry in list {
        if entry.identity.scheme != "auth" {
            if !is_valid(&entry.identity) {
                return Err(Refusal::InvalidAcl);
            }
            push(entry.clone())?;
            continue;
        }
        let mut authenticated = author.iter().filter(|identity| is_authenticated(identity)).peekable();
        if authenticated.peek().is_none() {
            return Err(Refusal::InvalidAcl);
        }
        if !seen_auth.insert(entry.permissions) {
            continue;
        }
        for identity in authenticated {
            push(Acl { permissions: entry.permissions, identity: identity.clone() })?;
        }
    }
    Ok(normal.into())
}

/// Whether having this identity took a proof. An address is only where somebody comes from.
fn is_authenticated(identity: &Identity) -> bool {
    !matches!(identity.scheme.as_str(), "world" | "ip" | "super" | "auth")
}

fn is_valid(identity: &Identity) -> bool {
    match identity.scheme.as_str() {
        "world" => identity.id == "anyone",
        // Two parts, as Java splits: empty parts at the end do not count.
        "digest" => identity.id.trim_end_matches(':').split(':').count() == 2,
        IP => Network::parse(&identity.id).is_some(),
        _ => false,
    }
}

/// An address with the number of its bits that count.
#[derive(Clone, Copy)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= bits_max)?,
            None => bits_max,
        };
        Some(Self { address, bits })
    }

    /// Families never match each other.
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scheme: &str, id: &str) -> Identity {
        Identity { scheme: scheme.into(), id: id.into() }
    }

    fn entry(permissions: Permissions, scheme: &str, id: &str) -> Acl {
        Acl { permissions, identity: identity(scheme, id) }
    }

    #[test]
    fn an_entry_allows_whom_it_names_and_nobody_else() {
        #[track_caller]
        fn check(expected: bool, named: (&str, &str), somebody: &[Identity]) {
            let list = [entry(Permissions::WRITE, named.0, named.1)];
            assert_eq!(allows(&list, Permissions::WRITE, somebody), expected, "{named:?} {somebody:?}");
            assert_eq!(
                allows(&list, Permissions::READ, somebody),
                somebody.contains(&Identity::superuser()),
                "only what is listed"
            );
        }

        check(true, ("world", "anyone"), &[]);
        check(true, ("digest", "u:p"), &[identity("ip", "1.2.3.4"), identity("digest", "u:p")]);
        check(false, ("digest", "u:p"), &[identity("digest", "u:q")]);
        check(false, ("digest", "u:p"), &[identity("sasl", "u:p")]);
        check(false, ("digest", "u:p"), &[]);
        check(true, ("digest", "u:p"), &[Identity::superuser()]);
        check(true, ("ip", "10.1.2.3"), &[identity("ip", "10.1.2.3")]);
        check(false, ("ip", "10.1.2.3"), &[identity("ip", "10.1.2.4")]);
        check(true, ("ip", "10.1.0.0/16"), &[identity("ip", "10.1.255.4")]);
        check(false, ("ip", "10.1.0.0/16"), &[identity("ip", "10.2.0.4")]);
        check(true, ("ip", "0.0.0.0/0"), &[identity("ip", "10.2.0.4")]);
        check(false, ("ip", "0.0.0.0/0"), &[identity("ip", "::1")]);
        check(true, ("ip", "fe80::/10"), &[identity("ip", "fe80::1")]);
        check(false, ("ip", "::/0"), &[identity("ip", "127.0.0.1")]);
    }

    #[test]
    fn no_permissions_deny_everything_and_one_of_several_wanted_suffices() {
        let nothing = [entry(Permissions(0), "world", "anyone")];
        let admin = [entry(Permissions::ADMIN, "world", "anyone")];

        assert!(!allows(&nothing, Permissions::ALL, &[]));
        assert!(allows(&admin, Permissions::READ.or(Permissions::ADMIN), &[]));
    }

    #[test]
    fn long_lists_and_many_identities_are_matched_like_short_ones() {
        let mut list: Vec<Acl> = (0..100).map(|n| entry(Permissions::READ, "digest", &format!("u{n}:p"))).collect();
        list.extend((0..100).map(|n| entry(Permissions::READ, "ip", &format!("10.{n}.0.0/16"))));
        list.push(entry(Permissions::WRITE, "world", "anyone"));
        let others: Vec<Identity> = (0..50).map(|n| identity("digest", &format!("v{n}:p"))).collect();
        let with = |one: Identity| [&others[..], &[one]].concat();

        for (expected, who) in [
            (false, others.clone()),
            (true, with(identity("digest", "u99:p"))),
            (false, with(identity("sasl", "u99:p"))),
            (true, with(identity("ip", "10.99.1.2"))),
            (false, with(identity("ip", "10.100.1.2"))),
            (false, with(identity("digest", "10.99.0.0/16"))),
            (true, with(Identity::superuser())),
        ] {
            assert_eq!(allows(&list, Permissions::READ, &who), expected, "{:?}", who.last());
            assert!(allows(&list, Permissions::WRITE, &who));
        }
    }

    #[test]
    fn auth_said_many_times_is_put_in_once_for_each_permission() {
        let author = [identity("digest", "a:1"), identity("digest", "b:2")];
        let mut list = vec![entry(Permissions::READ, "auth", ""); 1000];
        list.extend(vec![entry(Permissions::ALL, "auth", "x"); 1000]);

        let normal = normalize(&list, &author, 4).unwrap();

        let of = |permissions| ["a:1", "b:2"].map(|id| entry(permissions, "digest", id));
        assert_eq!(normal, [of(Permissions::READ), of(Permissions::ALL)].concat());
    }

    #[test]
    fn ids_are_valid_by_the_rules_of_their_scheme() {
        #[track_caller]
        fn check(expected: bool, scheme: &str, id: &str) {
            assert_eq!(is_valid(&identity(scheme, id)), expected, "{scheme}:{id}");
        }

        check(true, "world", "anyone");
        check(false, "world", "");
        check(false, "world", "someone");
        check(true, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        check(true, "digest", ":p");
        check(false, "digest", "u:");
        check(false, "digest", "u");
        check(false, "digest", "");
        check(false, "digest", "u:p:q");
        check(true, "ip", "10.0.0.1");
        check(true, "ip", "10.0.0.1/32");
        check(true, "ip", "::/0");
        check(false, "ip", "10.0.0.1/33");
        check(false, "ip", "10.0.0.1/-1");
        check(false, "ip", "10.0.0");
        check(false, "ip", "");
        check(false, "super", "");
        check(false, "nosuch", "x");
    }

    #[test]
    fn auth_becomes_what_the_author_has_proved_and_repetitions_go() {
        let author = [identity("ip", "10.0.0.1"), identity("digest", "a:1"), identity("digest", "b:2")];
        let list = [
            entry(Permissions::READ, "world", "anyone"),
            entry(Permissions::ALL, "digest", "b:2"),
            entry(Permissions::ALL, "auth", ""),
            entry(Permissions::READ, "world", "anyone"),
        ];

        let normal = normalize(&list, &author, 10).unwrap();

        assert_eq!(
            *normal,
            [
                entry(Permissions::READ, "world", "anyone"),
                entry(Permissions::ALL, "digest", "b:2"),
                entry(Permissions::ALL, "digest", "a:1"),
            ]
        );
        assert_eq!(normalize(&list, &author[..1], 10), Err(Refusal::InvalidAcl));
        assert_eq!(normalize(&list, &author, 2), Err(Refusal::LimitExceeded));
        assert_eq!(normalize(&[], &author, 10), Err(Refusal::InvalidAcl));
    }
}
