//! Tells the binary when it was built: at `SOURCE_DATE_EPOCH` where whoever builds wants equal builds of one source, and
//! now otherwise.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    for source in ["Cargo.toml", "build.rs", "src", "tree/src", "wire/src"] {
        println!("cargo::rerun-if-changed={source}");
    }
    let built_s: u64 = match env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given.parse().expect("SOURCE_DATE_EPOCH holds the seconds since 1970"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    println!("cargo::rustc-env=QUORATE_BUILT_UNIX_S={built_s}");
}
