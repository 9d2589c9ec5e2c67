//! Snapshots.
use crate::{Limits, Tree};
use bytes::Bytes;
impl Tree {
    /// Marks the state as it is now as the content of a snapshot, without copying it. Ends an earlier freeze.
    pub fn freeze(&mut self) {}

    /// The next part of the frozen state, visiting at most `nodes_max` nodes; `None` when all has been given out,
    /// which ends the freeze. Between calls, commands may be applied: the parts still show the frozen state.
    pub fn frozen_part(&mut self, nodes_max: usize) -> Option<Bytes> {
        let _ = nodes_max;
        None
    }

    /// Ends a freeze early.
    pub fn thaw(&mut self) {}
}
/// Builds a tree from the parts of a snapshot.
#[derive(Debug)]
pub struct TreeLoader {
    tree: Tree,
}

/// Why parts do not make a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A part does not decode.
    #[error("snapshot part {part} does not decode: {detail}")]
    Malformed {
        /// Counted from 0.
        part: u64,
        /// What is wrong.
        detail: String,
    },
    /// Written by a later version.
    #[error("snapshot format {found} is not known here (this version reads up to {known})")]
    Format {
        /// What the snapshot says.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Parts are missing.
    #[error("the snapshot ends before its last part")]
    Incomplete,
    /// The content is not what was written.
    #[error("the snapshot's digest is {expected:016x}, its content has {found:016x}")]
    Digest {
        /// What the snapshot says.
        expected: u64,
        /// What was computed.
        found: u64,
    },
}

impl TreeLoader {
    /// Starts with nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { tree: Tree::new(limits) }
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// The part does not decode, or its format is not known.
    pub fn add(&mut self, part: &[u8]) -> Result<(), LoadError> {
        let _ = part;
        Ok(())
    }

    /// The tree, if all parts were there and the digest is right.
    ///
    /// # Errors
    /// Parts are missing, or the content is not what was written.
    pub fn finish(self) -> Result<Tree, LoadError> {
        Ok(self.tree)
    }
}
