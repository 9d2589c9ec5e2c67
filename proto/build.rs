//! Generates the messages and services with protox: no protoc is needed.

use std::{env, fs, path::PathBuf};

use prost::Message;

const PUBLIC: [&str; 3] = ["quorate/v1/tree.proto", "quorate/v1/session.proto", "quorate/v1/admin.proto"];
const PEER: [&str; 2] = ["quorate/peer/v1/command.proto", "quorate/peer/v1/peer.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(PUBLIC)?;
    // Reflection serves what clients may call, so the members' protocol stays out of it.
    fs::write(out.join("quorate_v1.bin"), compiler.file_descriptor_set().encode_to_vec())?;
    compiler.open_files(PEER)?;
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
