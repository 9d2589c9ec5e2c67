//! Who may do what with a node: a pure check.

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
}

impl Acl {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self { permissions: Permissions::ALL, identity: Identity { scheme: "world".into(), id: "anyone".into() } }
    }
}
