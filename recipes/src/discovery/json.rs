//! The bytes of an instance's node: one JSON object, fields in Curator's order.
//!
//! Written: nulls are, `enabled` only if it is false, as old Java readers do not know it. Read: every field may
//! be missing, unknown ones are ignored, the payload may have any shape.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Instance, Payload, ServiceType, UriSpec};

/// Why the data of a node is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadInstance {
    #[error("it is no JSON object: {0}")]
    Json(String),
    #[error("field {0} has a value that cannot be meant")]
    Field(&'static str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    name: &'a str,
    id: &'a str,
    address: Option<&'a str>,
    port: Option<u16>,
    ssl_port: Option<u16>,
    payload: &'a Payload,
    #[serde(rename = "registrationTimeUTC")]
    registration_time_utc: i64,
    service_type: ServiceType,
    uri_spec: Option<&'a UriSpec>,
    #[serde(skip_serializing_if = "is_true")]
    enabled: bool,
}

fn is_true(flag: &bool) -> bool {
    *flag
}

impl Serialize for ServiceType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

pub(crate) fn write(instance: &Instance) -> Vec<u8> {
    let written = Written {
        name: &instance.name,
        id: &instance.id,
        address: instance.address.as_deref(),
        port: instance.port,
        ssl_port: instance.tls_port,
        payload: &instance.payload,
        registration_time_utc: instance.registered_at_ms,
        service_type: instance.service_type,
        uri_spec: instance.uri_spec.as_ref(),
        enabled: instance.enabled,
    };
    serde_json::to_vec(&written).expect("keys are text, and nothing here fails")
}

/// Reads a node of this service and of this name, which stand in for what is missing.
pub(crate) fn read(service: &str, node: &str, data: &[u8]) -> Result<Instance, BadInstance> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(data).map_err(|error| BadInstance::Json(error.to_string()))?;
    let mut take = |key: &'static str| fields.remove(key).filter(|value| !value.is_null());
    Ok(Instance {
        name: text("name", take("name"))?.unwrap_or_else(|| service.to_owned()),
        id: text("id", take("id"))?.unwrap_or_else(|| node.to_owned()),
        address: text("address", take("address"))?,
        port: port("port", take("port"))?,
        tls_port: port("sslPort", take("sslPort"))?,
        payload: Payload::read(take("payload").unwrap_or(Value::Null)),
        registered_at_ms: take("registrationTimeUTC").and_then(|value| value.as_i64()).unwrap_or(0),
        service_type: take("serviceType").and_then(|value| ServiceType::read(value.as_str()?)).unwrap_or_default(),
        uri_spec: take("uriSpec").and_then(|value| serde_json::from_value(value).ok()),
        enabled: match take("enabled") {
            None => true,
            Some(Value::Bool(enabled)) => enabled,
            Some(_) => return Err(BadInstance::Field("enabled")),
        },
    })
}

fn text(key: &'static str, value: Option<Value>) -> Result<Option<String>, BadInstance> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadInstance::Field(key)),
    }
}

/// Java takes a number in quotes too.
fn port(key: &'static str, value: Option<Value>) -> Result<Option<u16>, BadInstance> {
    let port = match value {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    port.map(Some).ok_or(BadInstance::Field(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Spring application wrote.
    const SPRING: &str = r#"{"name":"cloud-provider-payment","id":"6d4e5121-6c17-4023-8f7b-8922f8b70cae","address":"DESKTOP-26GC398","port":8005,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"application-1","name":"cloud-provider-payment","metadata":{"instance_status":"UP"}},"registrationTimeUTC":1610116500446,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;

    #[test]
    fn what_spring_wrote_is_read_and_written_back_byte_for_byte() {
        let instance = read("cloud-provider-payment", "6d4e5121", SPRING.as_bytes()).unwrap();

        assert_eq!(instance.uri(), "http://DESKTOP-26GC398:8005");
        assert!(instance.is_up());
        assert_eq!(String::from_utf8(write(&instance)).unwrap(), SPRING);
    }

    #[test]
    fn what_we_build_is_what_spring_would_write() {
        let built = Instance::builder("cloud-provider-payment")
            .id("6d4e5121-6c17-4023-8f7b-8922f8b70cae")
            .address("DESKTOP-26GC398")
            .port(8005)
            .registered_at_ms(1_610_116_500_446)
            .build()
            .unwrap();

        // The id of an application context is Spring's alone; ours is the instance's.
        let expected = SPRING.replace("application-1", "6d4e5121-6c17-4023-8f7b-8922f8b70cae");
        assert_eq!(String::from_utf8(write(&built)).unwrap(), expected);
    }

    #[test]
    fn only_an_instance_that_is_switched_off_says_so() {
        let off = Instance::builder("a").id("1").address("h").port(1).registered_at_ms(0).enabled(false);
        let off = off.build_for(&super::super::PayloadProfile::None).unwrap();

        let json = String::from_utf8(write(&off)).unwrap();

        assert!(
            json.starts_with(r#"{"name":"a","id":"1","address":"h","port":1,"sslPort":null,"payload":null,"#),
            "{json}"
        );
        assert!(json.ends_with(r#","enabled":false}"#), "{json}");
    }

    #[test]
    fn every_field_may_be_missing() {
        let instance = read("orders", "a1", b"{}").unwrap();

        assert_eq!((instance.name(), instance.id()), ("orders", "a1"));
        assert_eq!((instance.address(), instance.port()), (None, None));
        assert!(instance.is_up());
    }

    #[test]
    fn unknown_fields_and_types_are_taken_lightly() {
        let json = br#"{"id":"a1","port":"8080","serviceType":"NEW","uriSpec":7,"payload":[1],"since":3}"#;

        let instance = read("orders", "a1", json).unwrap();

        assert_eq!(instance.port(), Some(8080));
        assert_eq!(instance.service_type(), ServiceType::Dynamic);
        assert_eq!(instance.uri_spec(), None);
    }

    #[test]
    fn what_cannot_be_meant_is_no_instance() {
        for data in
            [&b""[..], b"null", b"[]", b"{", b"\x1f\x8b", br#"{"port":70000}"#, br#"{"port":-1}"#, br#"{"id":5}"#]
        {
            assert!(read("orders", "a1", data).is_err(), "{data:?}");
        }
    }
}
