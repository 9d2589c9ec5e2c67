//! Other people's ZooKeeper clients on a real ensemble of three, alone and together with ours.
//!
//! `.ci/peers` fetches them; where one is missing, its tests say that they were skipped.

mod java;
mod kazoo;
mod program;
mod rust_client;

use quorate_integration::cluster::Options;

/// An ensemble that answers all four-letter words.
fn options() -> Options {
    Options { arguments: vec!["--four-letter-words".into(), "*".into()], ..Options::default() }
}
