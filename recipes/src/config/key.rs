//! Keys, compared as Spring's relaxed binding does: `max-pool-size`, `maxPoolSize` and `MAX_POOL_SIZE` are one.

use std::fmt;

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// A place in a list: `[0]`.
    Index(usize),
    /// A name in lower case, without hyphens and underscores.
    Name(String),
}

impl Part {
    pub(super) fn name(written: &str) -> Self {
        let letters = written.chars().filter(|c| !matches!(c, '-' | '_'));
        Self::Name(letters.flat_map(char::to_lowercase).collect())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(place) => write!(f, "[{place}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A key as it is compared. What lies below a key follows it in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Key {
    pub(super) parts: Vec<Part>,
}

impl Key {
    /// Reads `db.hosts[0].max-size`. Nothing is malformed: brackets that hold no number are part of a name.
    pub(super) fn parse(written: &str) -> Self {
        Self { parts: spell(written).into_iter().map(|(part, _)| part).collect() }
    }

    pub(super) fn child(&self, part: Part) -> Self {
        let mut parts = self.parts.clone();
        parts.push(part);
        Self { parts }
    }

    pub(super) fn starts_with(&self, prefix: &Self) -> bool {
        self.parts.starts_with(&prefix.parts)
    }

    /// The key up to the first place in a list, if there is one.
    pub(super) fn list(&self) -> Option<Self> {
        let at = self.parts.iter().position(|part| matches!(part, Part::Index(_)))?;
        Some(Self { parts: self.parts[..at].to_vec() })
    }

    /// Without anything between the parts: what remains of a key in the name of an environment variable.
    pub(super) fn squeezed(&self) -> String {
        squeeze(&self.parts)
    }
}

pub(super) fn squeeze(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Index(place) => place.to_string(),
        Part::Name(name) => name.clone(),
    };
    parts.iter().map(text).collect()
}

/// The parts of a key, each with how it was written.
pub(super) fn spell(written: &str) -> Vec<(Part, String)> {
    let mut parts = Vec::new();
    if written.is_empty() {
        return parts;
    }
    for segment in written.split('.') {
        let mut name = segment;
        let mut places = Vec::new();
        while let Some((before, place)) = trailing_place(name) {
            places.push(place);
            name = before;
        }
        if !name.is_empty() || places.is_empty() {
            parts.push((Part::name(name), name.to_owned()));
        }
        parts.extend(places.into_iter().rev().map(|place| (Part::Index(place), format!("[{place}]"))));
    }
    parts
}

fn trailing_place(segment: &str) -> Option<(&str, usize)> {
    let (before, place) = segment.strip_suffix(']')?.rsplit_once('[')?;
    Some((before, place.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_can_be_written_in_many_ways() {
        for written in ["db.maxPoolSize", "db.max-pool-size", "DB.MAX_POOL_SIZE", "db.maxpoolsize"] {
            assert_eq!(Key::parse(written), Key::parse("db.max-pool-size"), "{written}");
        }
        assert_ne!(Key::parse("db.max.pool.size"), Key::parse("db.max-pool-size"));
    }

    #[test]
    fn places_in_lists_are_parts_in_the_order_of_numbers() {
        let key = Key::parse("hosts[10].ports[2]");

        assert_eq!(key.parts, [Part::name("hosts"), Part::Index(10), Part::name("ports"), Part::Index(2)]);
        assert!(Key::parse("hosts[2]") < Key::parse("hosts[10]"));
        assert_eq!(key.list(), Some(Key::parse("hosts")));
        assert_eq!(Key::parse("a[x]").parts, [Part::name("a[x]")]);
    }

    #[test]
    fn what_lies_below_a_key_starts_with_it() {
        assert!(Key::parse("db.pool.max").starts_with(&Key::parse("db.pool")));
        assert!(!Key::parse("db.pools").starts_with(&Key::parse("db.pool")));
        assert!(Key::parse("db").starts_with(&Key::default()));
        assert_eq!(Key::parse(""), Key::default());
    }
}
