//! The `quorate` binary.

use std::process::ExitCode;

/// Nodes of all sizes come and go for as long as a member runs: the C library's allocator spent up to a third of the CPU
/// of creates on finding room among them. Without huge pages: they cost a sixth more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate_sidecar::cli::main()
}
