//! Credentials to identities: what a connection may call itself.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use quorate_tree::Identity;
use sha1::{Digest as _, Sha1};

/// The digest identity that bypasses every ACL, as `user:base64(sha1(user:password))`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SuperDigest(pub(crate) String);

impl std::fmt::Debug for SuperDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SuperDigest(..)")
    }
}

/// All that a connection may be, in bytes: it travels with each of its writes, to the leader and into the log, so it is
/// no more than what a permit stands for.
pub(super) const IDENTITIES_BYTES_MAX: usize = super::weight::BYTES_PER_PERMIT;

/// How much of [`IDENTITIES_BYTES_MAX`] these take.
pub(super) fn bytes(identities: &[Identity]) -> usize {
    identities.iter().map(|identity| size_of::<Identity>() + identity.scheme.len() + identity.id.len()).sum()
}

/// Of what a connection is by where it comes from.
pub(super) const ADDRESS_SCHEME: &str = "ip";

/// What a connection is by where it comes from.
pub(super) fn of_address(address: IpAddr) -> Identity {
    Identity { scheme: ADDRESS_SCHEME.into(), id: address.to_canonical().to_string() }
}

/// What a credential makes a connection, or `None` where it is not accepted.
pub(crate) fn of_credential(scheme: &str, credential: &[u8], superuser: Option<&SuperDigest>) -> Option<Vec<Identity>> {
    if scheme != "digest" {
        return None;
    }
    let user = credential.split(|byte| *byte == b':').next()?;
    let user = std::str::from_utf8(user).ok()?;
    let id = format!("{user}:{}", STANDARD.encode(Sha1::digest(credential)));
    let mut identities = Vec::with_capacity(2);
    if superuser.is_some_and(|wanted| constant_time_eq(wanted.0.as_bytes(), id.as_bytes())) {
        identities.push(Identity { scheme: "super".into(), id: String::new() });
    }
    identities.push(Identity { scheme: "digest".into(), id });
    Some(identities)
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_zookeepers() {
        let identities = of_credential("digest", b"u:p", None).unwrap();

        assert_eq!(identities, [Identity { scheme: "digest".into(), id: "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=".into() }]);
    }

    #[test]
    fn super_digest_gives_the_super_identity_too() {
        let superuser = SuperDigest("u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=".into());

        let identities = of_credential("digest", b"u:p", Some(&superuser)).unwrap();

        assert_eq!(identities[0].scheme, "super");
        assert_eq!(of_credential("digest", b"u:q", Some(&superuser)).unwrap().len(), 1);
    }

    #[test]
    fn unknown_schemes_are_not_accepted() {
        assert_eq!(of_credential("sasl", b"x", None), None);
        assert_eq!(of_credential("world", b"anyone", None), None);
    }
}
