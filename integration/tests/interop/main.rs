//! Other people's ZooKeeper clients on a real ensemble of three, alone and together with ours.
//!
//! `.ci/peers` fetches them; where one is missing, its tests say that they were skipped.

mod kazoo;
mod program;

use quorate_integration::cluster::Options;

/// An ensemble that answers all four-letter words.
fn options() -> Options {
    Options { arguments: vec!["--four-letter-words".into(), "*".into()], ..Options::default() }
}
