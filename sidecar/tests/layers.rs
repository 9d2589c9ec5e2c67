//! Each layer imports only downwards. Read from the sources, so that a wrong `use` fails here with its file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Top to bottom. A layer may name those below it and itself.
const LAYERS: [&str; 5] = ["front", "session", "ensemble", "replica", "storage"];
/// Only these folders may name these crates.
const ONLY_IN: [(&str, &str); 2] = [("openraft", "ensemble"), ("tonic::transport::Channel", "ensemble")];

#[test]
fn layers_import_only_downwards() {
    let mut wrong = Vec::new();
    for (height, layer) in LAYERS.iter().enumerate() {
        for (file, line, text) in lines_below(layer) {
            for above in &LAYERS[..height] {
                if text.contains(&format!("crate::{above}")) || text.trim_start().starts_with(&format!("{above}::")) {
                    wrong.push(format!("{}:{line}: {layer} names {above}: {text}", file.display()));
                }
            }
            for root in ["crate::sidecar", "crate::testing", "crate::cli"] {
                if text.contains(root) {
                    wrong.push(format!("{}:{line}: {layer} names {root}: {text}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go upwards:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_ensemble_names_the_raft_crate() {
    let mut wrong = Vec::new();
    for (name, home) in ONLY_IN {
        for (file, line, text) in lines_below("") {
            let at_home = file.components().any(|part| part.as_os_str() == home);
            // A log filter names the crate in a string, and uses nothing of it.
            let in_a_filter = file.ends_with("telemetry/logging.rs") && text.contains(&format!("\"{name}="));
            if text.contains(name) && !at_home && !in_a_filter {
                wrong.push(format!("{}:{line}: {text}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "names that belong elsewhere:\n{}", wrong.join("\n"));
}

/// Code lines of a folder of `src`; comments are left out.
fn lines_below(folder: &str) -> Vec<(PathBuf, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
                found.extend(code.map(|(nth, line)| (path.clone(), nth + 1, line.to_owned())));
            }
        }
    }
    found
}
