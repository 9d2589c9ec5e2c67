//! What a test may do to a member's traffic with its peers.

/// Cuts, pauses and kills the peer connections of one member.
#[derive(Debug, Default)]
pub(crate) struct Faults {}
