//! What the tree promises, through its public API alone.

mod driver;
mod sessions;
mod writes;
