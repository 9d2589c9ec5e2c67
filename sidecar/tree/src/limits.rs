//! The bounds that all replicas must agree on.

/// What the tree refuses to grow beyond, with `LimitExceeded` unless said otherwise. Part of the greeting of members:
/// they must be equal everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Data of one node: as much as fits into a frame of ZooKeeper's clients.
    pub node_bytes_max: usize,
    /// Length of the path of a new node in UTF-8, its sequence number included.
    pub path_bytes_max: usize,
    /// Operations of one multi.
    pub multi_ops_max: usize,
    /// Live sessions.
    pub sessions_max: usize,
    /// Outcomes kept for one session until its client has seen them. A write beyond does not use up its number.
    pub session_outcomes_max: usize,
    /// Memory of them. A write beyond is refused for good, as any other refused write is.
    pub session_outcome_bytes_max: usize,
    /// Entries of one access control list, those put in for `auth` included.
    pub acl_entries_max: usize,
    /// The name a client gives itself; a longer one is cut.
    pub client_name_bytes_max: usize,
}

impl Limits {
    /// The limits of every ensemble, until one needs others.
    pub const DEFAULT: Self = Self {
        node_bytes_max: 1024 * 1024,
        path_bytes_max: 64 * 1024,
        multi_ops_max: 16 * 1024,
        sessions_max: 1_000_000,
        session_outcomes_max: 4096,
        session_outcome_bytes_max: 8 * 1024 * 1024,
        acl_entries_max: 1024,
        client_name_bytes_max: 256,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
