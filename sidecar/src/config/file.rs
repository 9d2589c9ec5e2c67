//! The configuration file: TOML whose keys are the flags' long names with `_` for `-`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::layer::Layer;

/// Keys at least this much like a known one (Jaro-Winkler, 0 to 1) are taken for a misspelling of it.
const MISSPELLING_MIN: f64 = 0.75;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, or a value is not what its key wants.
    #[error("configuration file {}: {source}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// It has a key that does not exist.
    #[error("configuration file {}, line {line}: there is no key `{key}`{}", path.display(), meant(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// As it stands there.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
}

fn meant(nearest: Option<&str>) -> String {
    match nearest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; the keys are the flags of `quorate serve --help` with `_` for `-`".into(),
    }
}

/// Reads a layer from a file.
pub(super) fn read(path: &Path) -> Result<Layer, FileError> {
    let text = fs::read_to_string(path).map_err(|source| FileError::Read { path: path.into(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Layer, FileError> {
    let syntax = |source| FileError::Syntax { path: path.into(), source: Box::new(source) };
    let table = DeTable::parse(text).map_err(syntax)?;

    // Looked for before the values are: who misspells a key learns of that, not of what then is missing.
    let known = Layer::keys();
    let unknown = table.get_ref().keys().find(|key| !known.iter().any(|k| k == key.get_ref()));
    if let Some(key) = unknown {
        let line = text[..key.span().start].matches('\n').count() + 1;
        let key = key.get_ref().to_string();
        return Err(FileError::UnknownKey { path: path.into(), line, nearest: nearest(&key, known), key });
    }
    toml::from_str(text).map_err(syntax)
}

pub(super) fn nearest(key: &str, known: Vec<String>) -> Option<String> {
    let likeness = |known: &String| strsim::jaro_winkler(key, known);
    let nearest = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) >= MISSPELLING_MIN).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use quorate_tree::MemberId;

    use super::*;

    fn parsed(text: &str) -> Result<Layer, String> {
        parse(Path::new("q.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let layer = parsed(
            r#"
            id = 2
            data_dir = "/var/lib/quorate"
            client_addr = "[::1]:7101"
            insecure = true
            tick_ms = 500
            log_format = "json"

            [ensemble]
            1 = "a:7201"
            2 = "b:7201"
            "#,
        )
        .unwrap();

        assert_eq!(layer.id, Some(2));
        assert_eq!(layer.data_dir.unwrap(), Path::new("/var/lib/quorate"));
        assert_eq!(layer.client_addr.unwrap().to_string(), "[::1]:7101");
        assert_eq!((layer.insecure, layer.tick_ms), (Some(true), Some(500)));
        assert_eq!(layer.ensemble.unwrap().get(MemberId(2)).unwrap().host(), "b");
        assert_eq!(layer.peer_addr, None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_key_that_was_meant() {
        let error = parsed("id = 1\n\nelection_timeout = 600\n").unwrap_err();
        assert_eq!(
            error,
            "configuration file q.toml, line 3: there is no key `election_timeout`; did you mean `election_timeout_ms`?"
        );

        for (key, meant) in [("tick-ms", "tick_ms"), ("datadir", "data_dir"), ("Ensemble", "ensemble")] {
            let error = parsed(&format!("{key} = 1")).unwrap_err();
            assert!(error.ends_with(&format!("did you mean `{meant}`?")), "{error}");
        }
        let error = parsed("frobnicate = 1").unwrap_err();
        assert!(error.ends_with(
            "there is no key `frobnicate`; the keys are the flags of `quorate serve --help` with `_` for `-`"
        ));
    }

    #[test]
    fn a_wrong_value_is_shown_where_it_stands() {
        for (text, told) in [
            ("id = 1\ntick_ms = \"fast\"\n", "tick_ms = \"fast\""),
            ("[ensemble]\n1 = \"a\"\n", "`a` is not HOST:PORT"),
            ("[ensemble]\nx = \"a:1\"\n", "`x` is not a member id"),
            ("client_addr = 7101\n", "client_addr = 7101"),
            ("id = 1\nid = 2\n", "duplicate key"),
            ("id 1\n", "line 1"),
        ] {
            let error = parsed(text).unwrap_err();

            assert!(error.starts_with("configuration file q.toml: "), "{error}");
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/q.toml")).unwrap_err().to_string();

        assert!(error.starts_with("cannot read the configuration file /nowhere/q.toml: "), "{error}");
    }
}
