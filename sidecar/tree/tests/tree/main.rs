//! What the tree promises, through its public API alone.

mod driver;
mod model;
mod properties;
mod sessions;
mod writes;
