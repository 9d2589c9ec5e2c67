//! What an instance carries beside its address, in the forms that Java readers can take.
//!
//! Java's serializer marks objects with their class (`"@class"`) and **casts** what it reads to the one class it
//! was set up with. One instance of another class makes a Java reader fail for the whole service. So the form is
//! a property of the registry, not of an instance: [`PayloadProfile`].

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

/// The class that Spring Cloud Zookeeper reads and writes.
pub(crate) const SPRING_CLASS: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
const CLASS: &str = "@class";

/// Which payload instances of a registry are written with. All who register below the same root must agree.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum PayloadProfile {
    /// What Spring Cloud Zookeeper writes: id, name, and a map of metadata.
    #[default]
    Spring,
    /// None. There is no place for metadata.
    None,
    /// An object of a Java class. There is no place for our metadata.
    Custom {
        /// The full name of the class.
        class: String,
        /// Its fields.
        value: Value,
    },
    /// Exactly this. There is no place for our metadata.
    Raw(Value),
}

/// What an instance carries beside its address.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Payload {
    /// Nothing.
    #[default]
    None,
    /// What Spring Cloud Zookeeper writes.
    Spring {
        /// The id of the application context; not the instance's.
        id: String,
        /// The name of the application.
        name: String,
        /// All else.
        metadata: BTreeMap<String, String>,
    },
    /// Of another sort.
    Other {
        /// The Java class it was marked with.
        class: Option<String>,
        /// It, without the mark.
        value: Value,
    },
}

impl Payload {
    /// Reads any shape.
    pub(crate) fn read(value: Value) -> Self {
        match value {
            Value::Null => Self::None,
            Value::Object(mut fields) => {
                let class = match fields.remove(CLASS) {
                    Some(Value::String(class)) => Some(class),
                    _ => None,
                };
                match class {
                    Some(class) if class == SPRING_CLASS => Self::spring(fields),
                    class => Self::Other { class, value: Value::Object(fields) },
                }
            }
            Value::Array(mut items) => match (items.len(), items.first()) {
                (2, Some(Value::String(class))) if looks_like_a_class(class) => {
                    let class = class.clone();
                    Self::Other { class: Some(class), value: items.pop().expect("there are two") }
                }
                _ => Self::Other { class: None, value: Value::Array(items) },
            },
            value => Self::Other { class: None, value },
        }
    }

    fn spring(mut fields: Map<String, Value>) -> Self {
        let mut text = |key: &str| match fields.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (id, name) = (text("id"), text("name"));
        let metadata = match fields.remove("metadata") {
            Some(Value::Object(entries)) => {
                entries.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect()
            }
            _ => BTreeMap::new(),
        };
        Self::Spring { id, name, metadata }
    }

    /// One entry of the metadata. Of a payload of another class too, if it has a map of that name.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Spring { metadata, .. } => metadata.get(key).map(String::as_str),
            Self::Other { value, .. } => value.get("metadata")?.get(key)?.as_str(),
        }
    }
}

/// As Java writes it, fields in its order.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_unit(),
            Self::Spring { id, name, metadata } => {
                let mut fields = serializer.serialize_map(Some(4))?;
                fields.serialize_entry(CLASS, SPRING_CLASS)?;
                fields.serialize_entry("id", id)?;
                fields.serialize_entry("name", name)?;
                fields.serialize_entry("metadata", metadata)?;
                fields.end()
            }
            Self::Other { class: None, value } => value.serialize(serializer),
            Self::Other { class: Some(class), value: Value::Object(fields) } => {
                let mut marked = serializer.serialize_map(Some(fields.len() + 1))?;
                marked.serialize_entry(CLASS, class)?;
                for (key, value) in fields {
                    marked.serialize_entry(key, value)?;
                }
                marked.end()
            }
            Self::Other { class: Some(class), value } => (class, value).serialize(serializer),
        }
    }
}

impl PayloadProfile {
    /// Whether instances can have metadata.
    pub(crate) fn has_metadata(&self) -> bool {
        matches!(self, Self::Spring)
    }

    pub(crate) fn payload(&self, id: &str, name: &str, metadata: BTreeMap<String, String>) -> Payload {
        match self {
            Self::Spring => Payload::Spring { id: id.to_owned(), name: name.to_owned(), metadata },
            Self::None => Payload::None,
            Self::Custom { class, value } => Payload::Other { class: Some(class.clone()), value: value.clone() },
            Self::Raw(value) => Payload::Other { class: None, value: value.clone() },
        }
    }
}

/// A scalar as text, as Jackson would make of it for a map of strings.
fn plain(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `java.util.ArrayList` and the like.
fn looks_like_a_class(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
    parts.len() > 1
        && parts.iter().all(|part| is_word(part))
        && parts.last().is_some_and(|last| last.starts_with(char::is_uppercase))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_that_java_writes_is_read_and_written_back() {
        for value in [
            json!(null),
            json!("plain"),
            json!(true),
            json!(42),
            json!(1.5),
            json!({"@class": "com.acme.Meta", "rack": "r1"}),
            json!({"rack": "r1"}),
            json!(["java.util.ArrayList", ["a", "b"]]),
            json!(["java.lang.Long", 5]),
            json!(["a", "b"]),
            json!({"@class": SPRING_CLASS, "id": "application-1", "name": "orders", "metadata": {"zone": "eu-1"}}),
        ] {
            assert_eq!(serde_json::to_value(Payload::read(value.clone())).unwrap(), value);
        }
    }

    #[test]
    fn class_marks_are_taken_off() {
        let list = Payload::read(json!(["java.util.ArrayList", ["a"]]));

        assert_eq!(list, Payload::Other { class: Some("java.util.ArrayList".into()), value: json!(["a"]) });
    }

    #[test]
    fn two_texts_that_name_no_class_are_a_list() {
        let list = Payload::read(json!(["zone.a", "b"]));

        assert_eq!(list, Payload::Other { class: None, value: json!(["zone.a", "b"]) });
    }

    #[test]
    fn metadata_is_found_in_payloads_of_other_classes_too() {
        let dubbo =
            Payload::read(json!({"@class": "org.apache.dubbo.ZookeeperInstance", "metadata": {"zone": "eu-1"}}));

        assert_eq!(dubbo.metadata("zone"), Some("eu-1"));
        assert_eq!(dubbo.metadata("rack"), None);
    }

    #[test]
    fn metadata_that_is_no_text_is_made_text_or_left_out() {
        let payload = Payload::read(json!({"@class": SPRING_CLASS, "metadata": {"weight": 5, "odd": [1]}}));

        assert_eq!(payload.metadata("weight"), Some("5"));
        assert_eq!(payload.metadata("odd"), None);
    }
}
