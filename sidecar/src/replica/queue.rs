//! What one attached session has in flight: slots in request order, and items ready to be sent.

/// The queue of one attached session, shared by its connection and the applier.
#[derive(Debug)]
pub(crate) struct SessionQueue {}

/// A request's place in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(pub(crate) u64);
