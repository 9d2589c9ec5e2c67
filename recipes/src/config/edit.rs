//! Changing settings: several keys in one step, or none.

use std::collections::{BTreeMap, BTreeSet};

use quorate::{Error, TxnOp};

use super::{
    Config, ConfigError,
    key::Key,
    snapshot::{has_children, has_value, key_of},
};
use crate::mirror::{Mirrored, Nodes, join, parent};

/// So much fits into one request with room to spare.
const BYTES_MAX: usize = 900 * 1024;
/// So often a context that vanishes while it is written to is created again.
const ROUNDS_MAX: usize = 8;

/// A change to be made; from [`Config::edit`].
///
/// It starts from the settings as this [`Config`] knows them, and fails with [`ConfigError::Conflict`] if
/// somebody else has changed one of its keys since.
#[derive(Debug)]
#[must_use = "nothing is changed before it is committed"]
pub struct Edit {
    config: Config,
    profile: Option<String>,
    shared: bool,
    nodes: BTreeMap<String, std::sync::Arc<Nodes>>,
    /// By key: how it was written, and the value, or none to remove it.
    changes: BTreeMap<Key, (String, Option<String>)>,
}

impl Edit {
    pub(super) fn new(config: Config, nodes: BTreeMap<String, std::sync::Arc<Nodes>>) -> Self {
        Self { config, profile: None, shared: false, nodes, changes: BTreeMap::new() }
    }

    /// Changes the settings for one of the active profiles, in place of those for all.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// Changes the settings of all applications, in place of this one's.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Sets a key. Where it is set already its node is kept, however its name is written.
    pub fn set(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        let key = key.into();
        self.changes.insert(Key::parse(&key), (key, Some(value.to_string())));
        self
    }

    /// Removes a key. One that is not set is no error.
    pub fn remove(mut self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.changes.insert(Key::parse(&key), (key, None));
        self
    }

    /// Makes all the changes in one step. When it returns, this [`Config`] and its live values show them. The
    /// revision that has come about.
    ///
    /// # Errors
    /// A key was changed by somebody else meanwhile, is set twice, or is none; the edit is too large; or the
    /// client could not do it. Nothing was changed then, unless the error says that this is unknown
    /// ([`quorate::Error::is_unknown_outcome`]).
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropped after it was first polled, it may or may not take effect, as a whole.
    pub async fn commit(self) -> Result<u64, ConfigError> {
        let contexts = self.config.contexts();
        let name = if self.shared { &contexts.default_context } else { &contexts.application };
        let context = contexts.path(name, self.profile.as_deref());
        let Some(nodes) = self.nodes.get(&context) else {
            return Err(ConfigError::Profile { profile: self.profile.unwrap_or_default() });
        };
        let steps = plan(&context, nodes, &self.changes)?;
        if steps.is_empty() {
            return Ok(self.config.revision());
        }
        let client = self.config.client();
        for _ in 0..ROUNDS_MAX {
            if nodes.is_empty() {
                match client.create(&context).parents().await {
                    Ok(_) | Err(Error::NodeExists { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let txn = steps.iter().fold(client.txn(), |txn, step| txn.op(step.op()));
            match txn.commit().await {
                Ok(results) => {
                    // It is done; that it cannot be read back now is no failure of it.
                    let _ = self.config.refresh().await;
                    return Ok(results.zxid());
                }
                // The context has vanished since it was created or read.
                Err(Error::Txn { index, source })
                    if nodes.is_empty()
                        && matches!(*source, Error::NoNode { .. })
                        && matches!(steps[index].action, Action::Create(_)) => {}
                Err(Error::Txn { index, source }) if is_conflict(&source) => {
                    // The next edit starts from what is there now.
                    let _ = self.config.refresh().await;
                    return Err(ConfigError::Conflict { key: steps[index].key.clone() });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ConfigError::Conflict { key: steps[0].key.clone() })
    }
}

fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::BadVersion { .. } | Error::NoNode { .. } | Error::NodeExists { .. } | Error::NotEmpty { .. })
}

/// One operation of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    key: String,
    path: String,
    action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Create(String),
    Set { value: String, version: i32 },
    Delete { version: i32 },
}

impl Step {
    fn op(&self) -> TxnOp {
        let path = &*self.path;
        match &self.action {
            Action::Create(value) => TxnOp::create(path, value.clone()),
            Action::Set { value, version } => TxnOp::set(path, value.clone()).version(*version),
            Action::Delete { version } => TxnOp::delete(path).version(*version),
        }
    }
}

/// What to do to the nodes of a context.
fn plan(
    context: &str,
    nodes: &Nodes,
    changes: &BTreeMap<Key, (String, Option<String>)>,
) -> Result<Vec<Step>, ConfigError> {
    let mut by_key: BTreeMap<Key, Vec<(&String, &Mirrored)>> = BTreeMap::new();
    for (path, node) in nodes {
        if let Some(written) = key_of(context, path) {
            by_key.entry(Key::parse(&written)).or_default().push((path, node));
        }
    }
    let mut steps = Vec::new();
    let mut deleted = BTreeSet::new();
    let mut bytes = 0;
    for (key, (written, value)) in changes {
        check(written)?;
        bytes += context.len() + written.len() + value.as_ref().map_or(0, String::len);
        let at = by_key.get(key).map_or(&[][..], Vec::as_slice);
        let step = |path: &str, action| Step { key: written.clone(), path: path.to_owned(), action };
        let mut setting = at.iter().filter(|(path, node)| has_value(nodes, path, node));
        match value {
            Some(value) => match (setting.next(), setting.next(), at.first()) {
                (Some((first, _)), Some((second, _)), _) => {
                    let (first, second) = (first.to_string(), second.to_string());
                    return Err(ConfigError::Duplicate { key: written.clone(), first, second });
                }
                (Some((_, node)), None, _) if node.data == value.as_bytes() => {}
                (Some((path, node)), None, _) | (None, None, Some((path, node))) => {
                    if value.is_empty() && has_children(nodes, path) {
                        let reason = "it has others below it in the tree, so it cannot be set to nothing";
                        return Err(ConfigError::Key { key: written.clone(), reason });
                    }
                    steps.push(step(path, Action::Set { value: value.clone(), version: node.version }));
                }
                (None, ..) => steps.push(step(&join(context, written), Action::Create(value.clone()))),
            },
            None => {
                for (path, node) in setting {
                    if has_children(nodes, path) {
                        steps.push(step(path, Action::Set { value: String::new(), version: node.version }));
                    } else {
                        steps.push(step(path, Action::Delete { version: node.version }));
                        deleted.insert(path.to_string());
                    }
                }
            }
        }
    }
    steps.extend(husks(context, nodes, deleted));
    if bytes > BYTES_MAX {
        return Err(ConfigError::TooLarge { bytes, bytes_max: BYTES_MAX });
    }
    Ok(steps)
}

/// What is left of empty nodes whose last children go: they would be read as keys.
fn husks(context: &str, nodes: &Nodes, mut deleted: BTreeSet<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest: Vec<String> = deleted.iter().cloned().collect();
    while let Some(path) = rest.pop() {
        let above = parent(&path);
        let Some(node) = nodes.get(above).filter(|node| above != context && node.data.is_empty()) else { continue };
        let below = format!("{above}/");
        let mut children = nodes.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
        if !deleted.contains(above) && children.all(|(path, _)| deleted.contains(path)) {
            let key = key_of(context, above).expect("it is below the context");
            steps.push(Step { key, path: above.to_owned(), action: Action::Delete { version: node.version } });
            deleted.insert(above.to_owned());
            rest.push(above.to_owned());
        }
    }
    steps
}

fn check(key: &str) -> Result<(), ConfigError> {
    let refuse = |reason| Err(ConfigError::Key { key: key.to_owned(), reason });
    if key.contains('/') {
        return refuse("it has a slash");
    }
    if key.split('.').any(str::is_empty) {
        return refuse("a part of it is empty");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::snapshot::tests::nodes, *};

    fn planned(
        entries: &[(&str, &str)],
        changes: &[(&str, Option<&str>)],
    ) -> Result<Vec<(String, Action)>, ConfigError> {
        let changes = changes.iter().map(|(key, value)| (Key::parse(key), (key.to_string(), value.map(str::to_owned))));
        let steps = plan("/config/a", &nodes(entries), &changes.collect())?;
        Ok(steps.into_iter().map(|step| (step.path, step.action)).collect())
    }

    fn set(path: &str, value: &str) -> (String, Action) {
        (path.into(), Action::Set { value: value.into(), version: 0 })
    }

    fn delete(path: &str) -> (String, Action) {
        (path.into(), Action::Delete { version: 0 })
    }

    fn create(path: &str, value: &str) -> (String, Action) {
        (path.into(), Action::Create(value.into()))
    }

    #[test]
    fn a_new_key_is_one_node() {
        let steps = planned(&[("/config/a", "")], &[("db.pool.max", Some("1"))]).unwrap();

        assert_eq!(steps, [create("/config/a/db.pool.max", "1")]);
    }

    #[test]
    fn a_key_that_is_set_keeps_its_node() {
        let nested = [("/config/a/db", ""), ("/config/a/db/maxSize", "1")];

        assert_eq!(planned(&nested, &[("db.max-size", Some("2"))]).unwrap(), [set("/config/a/db/maxSize", "2")]);
        assert!(planned(&nested, &[("db.max-size", Some("1"))]).unwrap().is_empty());
        assert_eq!(planned(&nested, &[("db", Some("x"))]).unwrap(), [set("/config/a/db", "x")]);
    }

    #[test]
    fn a_removed_key_leaves_no_empty_nodes_that_would_be_keys() {
        let nested =
            [("/config/a", ""), ("/config/a/db", ""), ("/config/a/db/pool", ""), ("/config/a/db/pool/max", "1")];
        let expected = [delete("/config/a/db/pool/max"), delete("/config/a/db/pool"), delete("/config/a/db")];
        assert_eq!(planned(&nested, &[("db.pool.max", None)]).unwrap(), expected);

        let beside = [&nested[..], &[("/config/a/db/url", "u")]].concat();
        assert_eq!(planned(&beside, &[("db.pool.max", None)]).unwrap(), expected[..2]);
    }

    #[test]
    fn a_removed_key_with_others_below_is_emptied() {
        let nested = [("/config/a/cache", "on"), ("/config/a/cache/size", "1")];

        assert_eq!(planned(&nested, &[("cache", None)]).unwrap(), [set("/config/a/cache", "")]);
    }

    #[test]
    fn both_nodes_of_a_key_that_is_set_twice_are_removed() {
        let twice = [("/config/a/db", ""), ("/config/a/db.url", "1"), ("/config/a/db/url", "2")];

        assert!(matches!(planned(&twice, &[("db.url", Some("3"))]), Err(ConfigError::Duplicate { .. })));
        let expected = [delete("/config/a/db.url"), delete("/config/a/db/url"), delete("/config/a/db")];
        assert_eq!(planned(&twice, &[("db.url", None)]).unwrap(), expected);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for key in ["a/b", "", "a..b", ".a"] {
            assert!(matches!(planned(&[], &[(key, Some("1"))]), Err(ConfigError::Key { .. })), "{key:?}");
        }
        let nested = [("/config/a/cache", ""), ("/config/a/cache/size", "1")];
        assert!(matches!(planned(&nested, &[("cache", Some(""))]), Err(ConfigError::Key { .. })));
    }

    #[test]
    fn an_edit_that_does_not_fit_is_refused() {
        let large = "x".repeat(BYTES_MAX);

        assert!(matches!(planned(&[], &[("a", Some(&large))]), Err(ConfigError::TooLarge { .. })));
    }
}
