# Shortcuts; each is one command that works without `just` too.

# What a change must pass before it is sent.
verify:
    .ci/run

# Everything, the slow suites included.
verify-slow:
    CI_SLOW=1 .ci/run

# The quick half of `verify`: formatting, lints and unit tests.
quick:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace --lib --bins

# Three members in one process, on loopback, with data that goes away.
dev *ARGS:
    cargo run --release --bin quorate -- dev {{ARGS}}

# The main job from end to end.
tour:
    cargo run --release --example tour

# The documentation of the crates, opened.
doc:
    cargo doc --workspace --no-deps --open

# The micro benches, next to what they were when last recorded; `just micro --record` records them.
micro *ARGS:
    .ci/micro {{ARGS}}
