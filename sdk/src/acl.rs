//! Who may do what to a node.

use base64::Engine;
use quorate_proto::v1;
use sha1::{Digest, Sha1};

/// What an identity may do to a node; a set of the constants below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

impl Permissions {
    /// Read the data and list the children.
    pub const READ: Self = Self(1);
    /// Set the data.
    pub const WRITE: Self = Self(2);
    /// Create children.
    pub const CREATE: Self = Self(4);
    /// Delete children.
    pub const DELETE: Self = Self(8);
    /// Set the access control list.
    pub const ADMIN: Self = Self(16);
    /// Everything.
    pub const ALL: Self = Self(31);

    /// The bits, as they travel.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From bits as they travel; unknown ones are kept.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether everything in `other` is allowed.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acl {
    /// What is allowed.
    pub permissions: Permissions,
    /// How the identity is known: `world`, `digest`, `auth`.
    pub scheme: String,
    /// Who it is, in the words of the scheme.
    pub id: String,
}

impl Acl {
    /// Everybody.
    pub fn world(permissions: Permissions) -> Self {
        Self { permissions, scheme: "world".into(), id: "anyone".into() }
    }

    /// Whoever the client that sends this has authenticated as.
    pub fn creator(permissions: Permissions) -> Self {
        Self { permissions, scheme: "auth".into(), id: String::new() }
    }

    /// Whoever knows this user's password. Only a hash of it is sent and kept.
    pub fn digest(permissions: Permissions, user: &str, password: &str) -> Self {
        let hash = Sha1::digest(format!("{user}:{password}"));
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        Self { permissions, scheme: "digest".into(), id: format!("{user}:{hash}") }
    }
}

impl From<v1::Acl> for Acl {
    fn from(acl: v1::Acl) -> Self {
        Self { permissions: Permissions(acl.permissions), scheme: acl.scheme, id: acl.id }
    }
}

impl From<&Acl> for v1::Acl {
    fn from(acl: &Acl) -> Self {
        Self { permissions: acl.permissions.0, scheme: acl.scheme.clone(), id: acl.id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ids_are_zookeepers() {
        // From ZooKeeper's own documentation of DigestAuthenticationProvider.
        let acl = Acl::digest(Permissions::ALL, "super", "admin");

        assert_eq!(acl.id, "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
    }
}
