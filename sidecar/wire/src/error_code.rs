//! What a refused request is answered with.

use std::fmt;

/// ZooKeeper's error code. Clients cannot map a code they do not know, so a server never sends another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        impl ErrorCode {
            $($(#[doc = $doc])+ pub const $name: Self = Self($code);)+

            /// Its name, which without underscores is the one ZooKeeper gives it; `None` for an unknown code.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// No error.
    OK = 0;
    /// An operation of a multi that came after the one that failed.
    RUNTIME_INCONSISTENCY = -2;
    /// The body could not be decoded.
    MARSHALLING_ERROR = -5;
    /// An unknown operation; the connection is closed.
    UNIMPLEMENTED = -6;
    /// A bad path, bad flags, or a reserved node.
    BAD_ARGUMENTS = -8;
    /// A reconfiguration that has no quorum.
    NEW_CONFIG_NO_QUORUM = -13;
    /// Another reconfiguration is going on.
    RECONFIG_IN_PROGRESS = -14;
    /// No such node.
    NO_NODE = -101;
    /// The access control list denies it.
    NO_AUTH = -102;
    /// The version is another one.
    BAD_VERSION = -103;
    /// The parent is ephemeral.
    NO_CHILDREN_FOR_EPHEMERALS = -108;
    /// There is such a node already.
    NODE_EXISTS = -110;
    /// The node has children.
    NOT_EMPTY = -111;
    /// The session has expired.
    SESSION_EXPIRED = -112;
    /// An access control list that is empty or malformed.
    INVALID_ACL = -114;
    /// A credential was not accepted; the connection is closed.
    AUTH_FAILED = -115;
    /// The session was attached to another server. Never sent: the connection is closed.
    SESSION_MOVED = -118;
    /// The server has no quorum and only reads.
    NOT_READ_ONLY = -119;
    /// A session that only this server knows cannot own ephemeral nodes.
    EPHEMERAL_ON_LOCAL_SESSION = -120;
    /// No such watch.
    NO_WATCHER = -121;
    /// Reconfiguration is switched off.
    RECONFIG_DISABLED = -123;
    /// A scheme is enforced that the connection has not used; it is closed.
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124;
    /// A hard quota would be exceeded.
    QUOTA_EXCEEDED = -125;
    /// The request waited too long and was not done.
    THROTTLED_OP = -127;
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name}({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
