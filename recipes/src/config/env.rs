//! Environment variables that override settings.

use std::{collections::BTreeMap, fmt};

use super::{
    ConfigSnapshot, Origin,
    key::{Key, Part},
    snapshot::Entry,
};

/// Environment variables with a common prefix. `ORDERS_DB_POOL_MAX_SIZE` overrides `db.pool.max-size` if that is
/// set, and is `db.pool.max.size` otherwise; where a struct is bound it finds the field `max_size` in either
/// case. A part that is a number is a place in a list: `ORDERS_HOSTS_0`.
#[derive(Clone)]
pub struct Env {
    variables: Vec<Variable>,
}

#[derive(Clone)]
struct Variable {
    name: String,
    /// The name without the prefix.
    rest: String,
    value: String,
}

// Values may be secret.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.variables.iter().map(|variable| &variable.name)).finish()
    }
}

impl Env {
    /// The variables of this process that start with `prefix`, as they are now. The rest of the name is the key.
    pub fn prefixed(prefix: &str) -> Self {
        let variables = std::env::vars_os();
        // What is no Unicode is nobody's setting.
        Self::of(
            prefix,
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The same from variables that are given.
    pub fn of(prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let taken = variables.into_iter().filter_map(|(name, value)| {
            let rest = name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?.to_owned();
            Some(Variable { name, rest, value })
        });
        let mut variables: Vec<_> = taken.collect();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        Self { variables }
    }

    /// What they set, on top of these settings.
    pub(super) fn layer(&self, below: &ConfigSnapshot) -> BTreeMap<Key, Entry> {
        let mut layer = BTreeMap::new();
        for Variable { name, rest, value } in &self.variables {
            let origin = Origin::Environment { variable: name.clone() };
            let entry =
                |written: &str| Entry { written: written.to_owned(), value: value.clone(), origin: origin.clone() };
            let squeezed = Key { parts: vec![Part::name(rest)] }.squeezed();
            let root = Key::default();
            let mut known = below.squeezed(&root, &squeezed).peekable();
            if known.peek().is_some() {
                layer.extend(known.map(|(key, below)| (key.clone(), entry(&below.written))));
                continue;
            }
            let written = spelled(rest);
            layer.insert(Key::parse(&written), entry(&written));
        }
        layer
    }
}

/// `HOSTS_0_NAME` as a key: `hosts[0].name`.
fn spelled(rest: &str) -> String {
    let mut key = String::new();
    for part in rest.split('_').filter(|part| !part.is_empty()) {
        match part.parse::<usize>() {
            Ok(place) => key.push_str(&format!("[{place}]")),
            Err(_) => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(&part.to_lowercase());
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::{super::snapshot::tests::nodes, *};

    fn merged(entries: &[(&str, &str)], variables: &[(&str, &str)]) -> ConfigSnapshot {
        let nodes = nodes(entries);
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        ConfigSnapshot::merge([("/config/a", &nodes)].into_iter(), &[Env::of("ORDERS_", variables)], 1)
    }

    #[test]
    fn a_variable_overrides_the_key_it_can_mean() {
        let snapshot = merged(&[("/config/a/db/pool/max-size", "10")], &[("ORDERS_DB_POOL_MAX_SIZE", "20")]);

        assert_eq!(snapshot.text("db.pool.max-size"), Some("20"));
        assert_eq!(snapshot.origin("db.pool.max-size").unwrap().to_string(), "$ORDERS_DB_POOL_MAX_SIZE");
        assert_eq!(snapshot.keys().count(), 1);
    }

    #[test]
    fn a_variable_of_an_unknown_key_has_a_part_for_each_word() {
        let snapshot =
            merged(&[], &[("ORDERS_DB_URL", "u"), ("ORDERS_HOSTS_0_NAME", "h"), ("OTHER", "x"), ("ORDERS_", "y")]);

        assert_eq!(snapshot.keys().collect::<Vec<_>>(), ["db.url", "hosts[0].name"]);
    }
}
