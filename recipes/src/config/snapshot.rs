//! All settings at one moment: from the contexts' nodes to merged keys and values.

use std::{collections::BTreeMap, fmt};

use super::{
    Env,
    key::{Key, Part, spell, squeeze},
};
use crate::mirror::{Mirrored, Nodes};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A node.
    Node {
        /// Its path.
        path: String,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { path } => f.write_str(path),
            Self::Environment { variable } => write!(f, "${variable}"),
        }
    }
}

/// All settings as they were at one moment.
#[derive(Debug, Clone, Default)]
pub struct ConfigSnapshot {
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) revision: u64,
}

/// Who set a key last in the layers, and to what.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key as it was written there.
    pub(super) written: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

// Values may be secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("written", &self.written).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Entry {
    /// A part of the key as it was written.
    pub(super) fn spelling(&self, depth: usize) -> String {
        spell(&self.written).into_iter().nth(depth).map_or_else(String::new, |(_, written)| written)
    }
}

/// How settings differ from an earlier moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigChange {
    /// Keys that were not set before.
    pub added: Vec<String>,
    /// Keys that have another value.
    pub changed: Vec<String>,
    /// Keys that are not set any more.
    pub removed: Vec<String>,
    /// The revision that has come about.
    pub revision: u64,
}

impl ConfigChange {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl ConfigSnapshot {
    /// Merges contexts, the strongest first, and what overrides them all. Each is given by its path and the
    /// nodes at and below it.
    pub(super) fn merge<'a>(
        contexts: impl DoubleEndedIterator<Item = (&'a str, &'a Nodes)>,
        env: &[Env],
        revision: u64,
    ) -> Self {
        let mut snapshot = Self { entries: BTreeMap::new(), revision };
        for (context, nodes) in contexts.rev() {
            snapshot.overlay(layer(context, nodes));
        }
        for env in env {
            let layer = env.layer(&snapshot);
            snapshot.overlay(layer);
        }
        snapshot
    }

    /// Puts a stronger layer on top. A list is replaced as a whole, or it would be a mixture of two.
    fn overlay(&mut self, layer: BTreeMap<Key, Entry>) {
        for key in layer.keys() {
            match key.list() {
                Some(list) => {
                    self.entries.remove(&list);
                    self.remove_places(&list);
                }
                None => self.remove_places(key),
            }
        }
        self.entries.extend(layer);
    }

    fn remove_places(&mut self, list: &Key) {
        // Places come before names, so they are next to each other.
        let first = list.child(Part::Index(0));
        let is_place = |key: &Key| key.starts_with(list) && matches!(key.parts[list.parts.len()], Part::Index(_));
        while let Some((key, _)) = self.entries.range(&first..).next().filter(|(key, _)| is_place(key)) {
            let key = key.clone();
            self.entries.remove(&key);
        }
    }

    /// No change later than this is in it, and every earlier one is. It is a zxid, so all processes count alike.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The text of a key, if it is set.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.entries.get(&Key::parse(key)).map(|entry| &*entry.value)
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.entries.get(&Key::parse(key)).map(|entry| &entry.origin)
    }

    /// All keys, as they were written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|entry| &*entry.written)
    }

    /// What is at and below a key.
    pub(super) fn below<'a>(&'a self, prefix: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Entry)> {
        self.entries.range(prefix..).take_while(|(key, _)| key.starts_with(prefix))
    }

    /// The values at and below a key.
    pub(super) fn values_below(&self, prefix: &Key) -> BTreeMap<Key, String> {
        self.below(prefix).map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }

    /// The keys that an environment variable names, which has nothing where keys have dots and hyphens.
    pub(super) fn squeezed<'a>(&'a self, below: &'a Key, name: &'a str) -> impl Iterator<Item = (&'a Key, &'a Entry)> {
        self.below(below).filter(move |(key, _)| squeeze(&key.parts[below.parts.len()..]) == name)
    }

    /// What has changed since an earlier one.
    pub(super) fn since(&self, before: &Self) -> ConfigChange {
        let mut change = ConfigChange { revision: self.revision, ..ConfigChange::default() };
        for (key, entry) in &self.entries {
            match before.entries.get(key) {
                None => change.added.push(entry.written.clone()),
                Some(earlier) if earlier.value != entry.value => change.changed.push(entry.written.clone()),
                Some(_) => {}
            }
        }
        let gone = before.entries.iter().filter(|(key, _)| !self.entries.contains_key(key));
        change.removed = gone.map(|(_, entry)| entry.written.clone()).collect();
        change
    }
}

/// Whether a node has children among these. Its stat may be older than they are.
pub(super) fn has_children(nodes: &Nodes, path: &str) -> bool {
    let below = format!("{path}/");
    nodes.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
}

/// Whether a node sets a key: not if it is empty and has children.
pub(super) fn has_value(nodes: &Nodes, path: &str, node: &Mirrored) -> bool {
    !node.data.is_empty() || !has_children(nodes, path)
}

/// The key of a node of a context, as it is written there; none for the context itself.
pub(super) fn key_of(context: &str, path: &str) -> Option<String> {
    let below = path.strip_prefix(context)?.strip_prefix('/')?;
    Some(below.replace('/', "."))
}

/// The settings of one context.
fn layer(context: &str, nodes: &Nodes) -> BTreeMap<Key, Entry> {
    let mut layer = BTreeMap::new();
    for (path, node) in nodes {
        let Some(written) = key_of(context, path) else { continue };
        if !has_value(nodes, path, node) {
            continue;
        }
        let key = Key::parse(&written);
        let origin = Origin::Node { path: path.clone() };
        let entry = Entry { written, value: String::from_utf8_lossy(&node.data).into_owned(), origin };
        if let Some(Entry { origin, .. }) = layer.insert(key, entry) {
            tracing::debug!(path, also = %origin, "two nodes set one key; the last one counts");
        }
    }
    layer
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Nodes as they would be read.
    pub(in crate::config) fn nodes(entries: &[(&str, &str)]) -> Nodes {
        entries.iter().map(|(path, data)| (path.to_string(), Mirrored::of(data))).collect()
    }

    pub(in crate::config) fn snapshot(entries: &[(&str, &str)]) -> ConfigSnapshot {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (format!("/config/a/{key}"), *value)).collect();
        let entries: Vec<_> = entries.iter().map(|(path, value)| (&**path, *value)).collect();
        let nodes = nodes(&entries);
        ConfigSnapshot::merge([("/config/a", &nodes)].into_iter(), &[], 1)
    }

    fn texts(snapshot: &ConfigSnapshot) -> Vec<(&str, &str)> {
        snapshot.entries.values().map(|entry| (&*entry.written, &*entry.value)).collect()
    }

    #[test]
    fn paths_become_keys() {
        let nodes = nodes(&[
            ("/config/a", "ignored"),
            ("/config/a/db", ""),
            ("/config/a/db/url", "u"),
            ("/config/a/db.user", "me"),
            ("/config/a/cache", "on"),
            ("/config/a/cache/size", "5"),
            ("/config/a/empty", ""),
        ]);

        let snapshot = ConfigSnapshot::merge([("/config/a", &nodes)].into_iter(), &[], 7);

        let expected = [("cache", "on"), ("cache.size", "5"), ("db.url", "u"), ("db.user", "me"), ("empty", "")];
        assert_eq!(texts(&snapshot), expected);
        assert_eq!(snapshot.revision(), 7);
    }

    #[test]
    fn stronger_contexts_win_however_the_key_is_written() {
        let strong = nodes(&[("/config/a/max-size", "1")]);
        let weak = nodes(&[("/config/z/maxSize", "2"), ("/config/z/other", "3")]);

        let snapshot = ConfigSnapshot::merge([("/config/a", &strong), ("/config/z", &weak)].into_iter(), &[], 1);

        assert_eq!(snapshot.text("max_size"), Some("1"));
        assert_eq!(snapshot.text("other"), Some("3"));
        assert_eq!(snapshot.origin("maxSize"), Some(&Origin::Node { path: "/config/a/max-size".into() }));
    }

    #[test]
    fn a_list_of_a_stronger_context_replaces_the_whole_list() {
        let strong = nodes(&[("/config/a/hosts[0]", "x"), ("/config/a/ports", "1,2")]);
        let weak = nodes(&[
            ("/config/z/hosts[0]", "y"),
            ("/config/z/hosts[1]", "z"),
            ("/config/z/ports[0]", "9"),
            ("/config/z/zones", "a,b"),
        ]);

        let snapshot = ConfigSnapshot::merge([("/config/a", &strong), ("/config/z", &weak)].into_iter(), &[], 1);

        assert_eq!(texts(&snapshot), [("hosts[0]", "x"), ("ports", "1,2"), ("zones", "a,b")]);
    }

    #[test]
    fn differences_are_by_value() {
        let before = snapshot(&[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let after = snapshot(&[("same", "1"), ("changed", "2"), ("new", "1")]);

        let change = after.since(&before);

        assert_eq!(
            (change.added, change.changed, change.removed),
            (vec!["new".into()], vec!["changed".into()], vec!["gone".into()])
        );
        assert!(after.since(&after).is_empty());
    }

    #[test]
    fn values_are_not_printed() {
        assert!(!format!("{:?}", snapshot(&[("password", "hunter2")])).contains("hunter2"));
    }
}
