//! Paths: checked once, before anything is sent, and seen through the client's namespace.

use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest path that is sent. The ensemble has its own bound, which may be lower.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// What is put before every path of a client; empty for none.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    prefix: Arc<str>,
}

impl Default for Namespace {
    fn default() -> Self {
        Self { prefix: "".into() }
    }
}

impl Namespace {
    /// One below this one. Takes `orders`, `/orders` and `/teams/orders`.
    pub(crate) fn below(&self, name: &str) -> Result<Self> {
        let path = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        check(&path)?;
        if path == "/" {
            return Ok(self.clone());
        }
        Ok(Self { prefix: format!("{}{path}", self.prefix).into() })
    }

    /// The path as the ensemble knows it.
    pub(crate) fn full(&self, path: &str) -> Result<String> {
        check(path)?;
        Ok(self.join(path))
    }

    /// The same for a node whose name the server completes: the name given may be empty.
    pub(crate) fn full_sequential(&self, path: &str) -> Result<String> {
        match path.strip_suffix('/') {
            Some("") | None => check(path)?,
            Some(parent) => check(parent)?,
        }
        Ok(if path == "/" && !self.prefix.is_empty() { format!("{}/", self.prefix) } else { self.join(path) })
    }

    fn join(&self, path: &str) -> String {
        match (&*self.prefix, path) {
            ("", path) => path.to_owned(),
            (prefix, "/") => prefix.to_owned(),
            (prefix, path) => {
                let mut full = String::with_capacity(prefix.len() + path.len());
                full.push_str(prefix);
                full.push_str(path);
                full
            }
        }
    }

    /// The path as the caller knows it. A path outside of the namespace stays as it is.
    pub(crate) fn strip<'a>(&self, full: &'a str) -> &'a str {
        match full.strip_prefix(&*self.prefix) {
            Some("") => "/",
            Some(path) if path.starts_with('/') => path,
            _ => full,
        }
    }

    /// [`Namespace::strip`] without a copy where there is no namespace.
    pub(crate) fn strip_owned(&self, full: String) -> String {
        if self.prefix.is_empty() { full } else { self.strip(&full).to_owned() }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The node above, or `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// The last part.
pub(crate) fn name(path: &str) -> &str {
    &path[path.rfind('/').map_or(0, |at| at + 1)..]
}

/// A child of a node.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// ZooKeeper's rules.
fn check(path: &str) -> Result<()> {
    let refuse = |reason| Err(Error::InvalidPath { path: path.to_owned(), reason });
    if path == "/" {
        return Ok(());
    }
    if path.len() > PATH_BYTES_MAX {
        return refuse("it is longer than 64 KiB");
    }
    let Some(rest) = path.strip_prefix('/') else { return refuse("it does not start with a slash") };
    for part in rest.split('/') {
        match part {
            "" => return refuse("a part of it is empty"),
            "." | ".." => return refuse("it is relative"),
            _ => {}
        }
    }
    // Plain names are nearly all there are, and are settled by one pass over the bytes.
    if path.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let illegal = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if path.chars().any(illegal) {
        return refuse("a character of it is not allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked_by_zookeepers_rules() {
        for path in ["/", "/a", "/a/b", "/a/.b", "/a/...", "/größe"] {
            assert!(check(path).is_ok(), "{path:?}");
        }
        for path in ["", "a", "//", "/a/", "/a//b", "/.", "/a/../b", "/a\0", "/a\u{1}", "/\u{e000}", "/\u{ffff}"] {
            assert!(matches!(check(path), Err(Error::InvalidPath { .. })), "{path:?}");
        }
    }

    #[test]
    fn a_namespace_is_put_before_and_taken_off() {
        let ns = Namespace::default().below("teams").unwrap().below("/orders").unwrap();

        assert_eq!(ns.full("/a").unwrap(), "/teams/orders/a");
        assert_eq!(ns.full("/").unwrap(), "/teams/orders");
        assert_eq!(ns.strip("/teams/orders/a"), "/a");
        assert_eq!(ns.strip("/teams/orders"), "/");
        assert_eq!(ns.strip("/teams/orders2"), "/teams/orders2");
    }

    #[test]
    fn a_sequential_name_may_be_empty() {
        let root = Namespace::default();
        let ns = root.below("app").unwrap();

        assert_eq!(root.full_sequential("/q/").unwrap(), "/q/");
        assert_eq!(root.full_sequential("/").unwrap(), "/");
        assert_eq!(ns.full_sequential("/").unwrap(), "/app/");
        assert_eq!(ns.full_sequential("/q/item-").unwrap(), "/app/q/item-");
        assert!(root.full_sequential("/q//").is_err());
    }

    #[test]
    fn parents_and_names() {
        assert_eq!(parent("/"), None);
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(name("/a/b"), "b");
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
    }
}
