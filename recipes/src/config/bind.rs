//! From keys and texts to typed values, through serde.
//!
//! Every value is text, and becomes what the type asks for: numbers, truth values (`true`, `on`, `yes`, `1` and
//! their opposites, as Spring has them), lists (`hosts[0]`, `hosts[1]`, or one text with commas), maps, structs
//! (fields found by relaxed names), enums (variants likewise). Where a type does not say what it wants
//! (`#[serde(flatten)]`, untagged enums) it is given text.

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
        value::{StrDeserializer, StringDeserializer},
    },
};

use super::{
    BindError, ConfigSnapshot,
    key::{Key, Part},
    snapshot::Entry,
};

impl ConfigSnapshot {
    /// The value of a key. `Option` tells whether it is set.
    ///
    /// # Errors
    /// It is not set, or of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, BindError> {
        self.bind(key)
    }

    /// The values below a key; an empty one stands for all.
    ///
    /// # Errors
    /// One that is needed is not set, or of another type. The error names it.
    pub fn bind<T: DeserializeOwned>(&self, prefix: &str) -> Result<T, BindError> {
        let branch = Branch { snapshot: self, key: Key::parse(prefix), name: prefix.to_owned() };
        T::deserialize(branch.clone()).map_err(|error| error.at(&branch))
    }
}

/// An error that may not know its key yet.
#[derive(Debug)]
pub(super) struct Unplaced {
    placed: Option<BindError>,
    message: String,
    missing: Option<&'static str>,
}

impl Unplaced {
    fn new(message: impl Into<String>) -> Self {
        Self { placed: None, message: message.into(), missing: None }
    }

    /// It was met here, if not further below.
    fn at(self, branch: &Branch<'_>) -> BindError {
        if let Some(placed) = self.placed {
            return placed;
        }
        match self.missing {
            Some(field) => BindError { key: branch.name_below(field), message: NOT_SET.into(), origin: None },
            None => {
                let origin = branch.entry().map(|entry| entry.origin.clone());
                BindError { key: branch.name.clone(), message: self.message, origin }
            }
        }
    }

    fn placed_at(self, branch: &Branch<'_>) -> Self {
        let placed = Some(self.at(branch));
        Self { placed, message: String::new(), missing: None }
    }
}

const NOT_SET: &str = "is not set";

impl std::fmt::Display for Unplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unplaced {}

// What serde would say of a wrong value has the value in it.
impl de::Error for Unplaced {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("is not {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("is not {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("is none of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::new(NOT_SET) }
    }
}

/// A key and what is below it.
#[derive(Clone)]
struct Branch<'a> {
    snapshot: &'a ConfigSnapshot,
    key: Key,
    /// The key as whoever asks would write it.
    name: String,
}

impl<'a> Branch<'a> {
    fn entry(&self) -> Option<&'a Entry> {
        self.snapshot.entries.get(&self.key)
    }

    fn name_below(&self, part: &str) -> String {
        match part {
            part if self.name.is_empty() || part.starts_with('[') => format!("{}{part}", self.name),
            part => format!("{}.{part}", self.name),
        }
    }

    /// The parts below, in order, each with how it was written.
    fn parts(&self) -> Vec<(Part, String)> {
        let depth = self.key.parts.len();
        let mut parts: Vec<(Part, String)> = Vec::new();
        for (key, entry) in self.snapshot.below(&self.key) {
            if let Some(part) = key.parts.get(depth)
                && parts.last().is_none_or(|(last, _)| last != part)
            {
                parts.push((part.clone(), entry.spelling(depth)));
            }
        }
        parts
    }

    fn has_children(&self) -> bool {
        self.snapshot.below(&self.key).any(|(key, _)| key != &self.key)
    }

    fn is_missing(&self) -> bool {
        self.snapshot.below(&self.key).next().is_none()
    }

    fn child(&self, part: Part, written: &str) -> Self {
        Self { snapshot: self.snapshot, key: self.key.child(part), name: self.name_below(written) }
    }

    /// A field by its relaxed name; if there is none, what an environment variable with as many words means.
    fn field(&self, name: &str) -> Option<Self> {
        let child = self.child(Part::name(name), name);
        if !child.is_missing() {
            return Some(child);
        }
        let Part::Name(squeezed) = Part::name(name) else { unreachable!("a name is one") };
        let (key, _) = self.snapshot.squeezed(&self.key, &squeezed).next()?;
        Some(Self { key: key.clone(), ..child })
    }

    fn text(&self) -> Result<&'a str, Unplaced> {
        match self.entry() {
            Some(entry) => Ok(&entry.value),
            None if self.is_missing() => Err(Unplaced::new(NOT_SET)),
            None => Err(Unplaced::new("has no value of its own, only some below it")),
        }
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self) -> Result<T, Unplaced> {
        let parsed = self.text()?.trim().parse();
        parsed.map_err(|error| Unplaced::new(format!("is no {}: {error}", std::any::type_name::<T>())))
    }
}

macro_rules! parsed {
    ($($deserialize:ident $visit:ident)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
            visitor.$visit(self.parse()?)
        })*
    };
}

impl<'de> Deserializer<'de> for Branch<'_> {
    type Error = Unplaced;

    parsed! {
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32 deserialize_i64 visit_i64
        deserialize_i128 visit_i128 deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
        deserialize_u64 visit_u64 deserialize_u128 visit_u128 deserialize_f32 visit_f32 deserialize_f64 visit_f64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        match self.parts().first() {
            None => visitor.visit_str(self.text()?),
            Some((Part::Index(_), _)) => self.deserialize_seq(visitor),
            Some((Part::Name(_), _)) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        match self.text()?.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => visitor.visit_bool(true),
            "false" | "off" | "no" | "0" => visitor.visit_bool(false),
            _ => Err(Unplaced::new("is neither true nor false")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_bytes(self.text()?.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_bytes(self.text()?.as_bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        if self.is_missing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        let places: Vec<_> = self.parts().into_iter().filter(|(part, _)| matches!(part, Part::Index(_))).collect();
        if places.is_empty() {
            let text = self.text()?.trim();
            let items: Vec<_> = if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() };
            return visitor.visit_seq(Items { list: self, items: items.into_iter() });
        }
        for (place, (part, _)) in places.iter().enumerate() {
            if *part != Part::Index(place) {
                return Err(Unplaced::new(format!("has no [{place}], and more after it")));
            }
        }
        visitor.visit_seq(Elements { branch: self, places: places.into_iter() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unplaced> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unplaced> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        let fields: Vec<_> =
            self.parts().into_iter().map(|(part, written)| (written.clone(), self.child(part, &written))).collect();
        visitor.visit_map(Fields { fields: fields.into_iter(), next: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unplaced> {
        // A field and its alias may be the same relaxed name.
        let mut taken = Vec::new();
        let mut found = Vec::new();
        for name in fields {
            let part = Part::name(name);
            if !taken.contains(&part)
                && let Some(branch) = self.field(name)
            {
                taken.push(part);
                found.push(((*name).to_owned(), branch));
            }
        }
        visitor.visit_map(Fields { fields: found.into_iter(), next: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unplaced> {
        let same = |written: &str| variants.iter().find(|variant| Part::name(variant) == Part::name(written));
        if self.has_children() {
            for (part, written) in self.parts() {
                if let Some(variant) = same(&written) {
                    let content = self.child(part, &written);
                    return visitor.visit_enum(Variant { name: variant, content: Some(content) });
                }
            }
            return Err(Unplaced::new(format!("is none of {}", variants.join(", "))));
        }
        match same(self.text()?.trim()) {
            Some(variant) => visitor.visit_enum(Variant { name: variant, content: None }),
            None => Err(de::Error::unknown_variant("", variants)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unplaced> {
        visitor.visit_unit()
    }
}

/// A struct or a map.
struct Fields<'a> {
    fields: std::vec::IntoIter<(String, Branch<'a>)>,
    next: Option<Branch<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Unplaced;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unplaced> {
        let Some((name, branch)) = self.fields.next() else { return Ok(None) };
        let key: StringDeserializer<Unplaced> = name.into_deserializer();
        let key = seed.deserialize(key).map_err(|error| error.placed_at(&branch))?;
        self.next = Some(branch);
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unplaced> {
        let branch = self.next.take().expect("a value is asked for after its key");
        seed.deserialize(branch.clone()).map_err(|error| error.placed_at(&branch))
    }
}

/// A list with places.
struct Elements<'a> {
    branch: Branch<'a>,
    places: std::vec::IntoIter<(Part, String)>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Unplaced;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unplaced> {
        let Some((part, written)) = self.places.next() else { return Ok(None) };
        let element = self.branch.child(part, &written);
        seed.deserialize(element.clone()).map(Some).map_err(|error| error.placed_at(&element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.places.len())
    }
}

/// A list in one text.
struct Items<'a> {
    list: Branch<'a>,
    items: std::vec::IntoIter<&'a str>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Unplaced;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unplaced> {
        let Some(item) = self.items.next() else { return Ok(None) };
        // An item is a value without a key of its own.
        let entry = self.list.entry().expect("the text of a list is there");
        let key = Key::default().child(Part::name("item"));
        let alone = ConfigSnapshot {
            entries: [(key.clone(), Entry { value: item.to_owned(), ..entry.clone() })].into(),
            revision: 0,
        };
        let item = Branch { snapshot: &alone, key, name: self.list.name.clone() };
        seed.deserialize(item.clone()).map(Some).map_err(|error| error.placed_at(&item))
    }
}

struct Variant<'a> {
    name: &'static str,
    content: Option<Branch<'a>>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Unplaced;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'a>), Unplaced> {
        let name: StrDeserializer<'_, Unplaced> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content { branch: self.content }))
    }
}

struct Content<'a> {
    branch: Option<Branch<'a>>,
}

impl<'a> Content<'a> {
    fn branch(self) -> Result<Branch<'a>, Unplaced> {
        self.branch.ok_or_else(|| Unplaced::new("is a variant with values, and has none"))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Unplaced;

    fn unit_variant(self) -> Result<(), Unplaced> {
        match self.branch {
            None => Ok(()),
            Some(_) => Err(Unplaced::new("is a variant without values, and has some")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unplaced> {
        let branch = self.branch()?;
        seed.deserialize(branch.clone()).map_err(|error| error.placed_at(&branch))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unplaced> {
        let branch = self.branch()?;
        branch.clone().deserialize_seq(visitor).map_err(|error| error.placed_at(&branch))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unplaced> {
        let branch = self.branch()?;
        branch.clone().deserialize_struct("", fields, visitor).map_err(|error| error.placed_at(&branch))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;

    use super::super::snapshot::tests::snapshot;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pool {
        max_size: u32,
        #[serde(default = "ten")]
        min: i64,
        ratio: Option<f64>,
        mode: Mode,
        hosts: Vec<Host>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Host {
        name: String,
        port: u16,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        FailFast,
        Backoff { base_ms: u64 },
    }

    fn ten() -> i64 {
        10
    }

    #[test]
    fn a_struct_is_bound_from_texts() {
        let settings = snapshot(&[
            ("db.pool.maxSize", " 20 "),
            ("db.pool.mode", "FAIL_FAST"),
            ("db.pool.hosts[0].name", "a"),
            ("db.pool.hosts[0].port", "1"),
            ("db.pool.hosts[1]", ""),
            ("db.pool.hosts[1].name", "b"),
            ("db.pool.hosts[1].port", "2"),
        ]);

        let pool: Pool = settings.bind("db.pool").unwrap();

        let host = |name: &str, port| Host { name: name.into(), port };
        let expected =
            Pool { max_size: 20, min: 10, ratio: None, mode: Mode::FailFast, hosts: vec![host("a", 1), host("b", 2)] };
        assert_eq!(pool, expected);
    }

    #[test]
    fn a_field_is_found_by_the_words_of_an_environment_variable() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Sizes {
            max_pool_size: u8,
        }

        let sizes: Sizes = snapshot(&[("db.max.pool.size", "3")]).bind("db").unwrap();

        assert_eq!(sizes, Sizes { max_pool_size: 3 });
    }

    #[test]
    fn scalars_are_what_their_type_wants() {
        let settings =
            snapshot(&[("n", "42"), ("flag", "On"), ("off", "no"), ("list", "a, b ,c"), ("none", ""), ("c", "x")]);

        assert_eq!(settings.get::<u16>("n").unwrap(), 42);
        assert_eq!(settings.get::<String>("N").unwrap(), "42");
        assert!(settings.get::<bool>("flag").unwrap());
        assert!(!settings.get::<bool>("off").unwrap());
        assert_eq!(settings.get::<Vec<String>>("list").unwrap(), ["a", "b", "c"]);
        assert_eq!(settings.get::<Vec<u8>>("n").unwrap(), [42]);
        assert!(settings.get::<Vec<u8>>("none").unwrap().is_empty());
        assert_eq!(settings.get::<Option<u8>>("missing").unwrap(), None);
        assert_eq!(settings.get::<Option<u8>>("n").unwrap(), Some(42));
        assert_eq!(settings.get::<char>("c").unwrap(), 'x');
    }

    #[test]
    fn maps_keep_their_keys_as_they_were_written() {
        let settings = snapshot(&[("headers.X-Trace", "1"), ("headers.accept", "2")]);

        let headers: HashMap<String, u8> = settings.bind("headers").unwrap();

        assert_eq!(headers, HashMap::from([("X-Trace".into(), 1), ("accept".into(), 2)]));
    }

    #[test]
    fn a_variant_with_values_is_the_key_above_them() {
        let mode: Mode = snapshot(&[("mode.backoff.base-ms", "50")]).bind("mode").unwrap();

        assert_eq!(mode, Mode::Backoff { base_ms: 50 });
    }

    #[test]
    fn errors_name_the_key_and_the_node_and_not_the_value() {
        let hosts = [("p.hosts[0].name", "a"), ("p.hosts[0].port", "hunter2")];
        let with = |more: &[(&'static str, &'static str)]| snapshot(&[&hosts[..], more].concat());

        let error = with(&[]).bind::<Vec<Host>>("p.hosts").unwrap_err();
        let expected = "p.hosts[0].port: is no u16: invalid digit found in string (from /config/a/p.hosts[0].port)";
        assert_eq!(error.to_string(), expected);

        let error = snapshot(&[("p.max-size", "1")]).bind::<Pool>("p").unwrap_err();
        assert_eq!(error.to_string(), "p.mode: is not set");

        let error = snapshot(&[("mode", "hunter2")]).get::<Mode>("mode").unwrap_err();
        assert_eq!(error.to_string(), "mode: is none of fail-fast, backoff (from /config/a/mode)");

        let error = snapshot(&[("a.b", "hunter2")]).get::<String>("a").unwrap_err();
        assert_eq!(error.to_string(), "a: has no value of its own, only some below it");

        let error = snapshot(&[]).get::<u8>("a").unwrap_err();
        assert_eq!(error.to_string(), "a: is not set");

        let error = snapshot(&[("a[1]", "1")]).get::<Vec<u8>>("a").unwrap_err();
        assert_eq!(error.to_string(), "a: has no [0], and more after it");

        let error = snapshot(&[("list", "1,hunter2")]).get::<Vec<u8>>("list").unwrap_err();
        assert_eq!(error.to_string(), "list: is no u8: invalid digit found in string (from /config/a/list)");

        let error = snapshot(&[("c", "hunter2")]).get::<char>("c").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn all_settings_can_be_bound_at_once() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct All {
            name: String,
        }

        assert_eq!(snapshot(&[("name", "x")]).bind::<All>("").unwrap(), All { name: "x".into() });
    }
}
