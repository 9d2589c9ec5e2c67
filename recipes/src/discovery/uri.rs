//! Templates of addresses, as Curator stores them with an instance: `{scheme}://{address}:{port}`.

use std::{borrow::Cow, fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Instance;

/// A template of an instance's address.
///
/// Variables are `scheme` (`https` if the instance has a TLS port, otherwise `http`), `name`, `id`, `address`,
/// `port`, `ssl-port`, `registration-time-utc` and `service-type`; `{[}` and `{]}` stand for braces. What an
/// instance does not have is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriSpec {
    parts: Vec<UriPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UriPart {
    value: String,
    variable: bool,
}

/// A template that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{template:?} is no address template: {reason}")]
#[non_exhaustive]
pub struct UriSpecError {
    /// What was given.
    pub template: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl UriSpec {
    /// Spring's default, for services without TLS.
    pub fn plain() -> Self {
        "{scheme}://{address}:{port}".parse().expect("this template is legal")
    }

    /// For services with TLS. Spring's default would pair `https` with the plain port.
    pub fn tls() -> Self {
        "{scheme}://{address}:{ssl-port}".parse().expect("this template is legal")
    }

    /// The address of an instance.
    pub fn render(&self, instance: &Instance) -> String {
        self.render_with(instance, |_| None)
    }

    /// The address of an instance, where `variable` may know better than the instance, or know more.
    pub fn render_with<'a>(&self, instance: &'a Instance, variable: impl Fn(&str) -> Option<Cow<'a, str>>) -> String {
        let mut uri = String::new();
        for part in &self.parts {
            if !part.variable {
                uri.push_str(&part.value);
            } else if let Some(value) = variable(&part.value).or_else(|| value_of(instance, &part.value)) {
                uri.push_str(&value);
            }
        }
        uri
    }
}

fn value_of<'a>(instance: &'a Instance, variable: &str) -> Option<Cow<'a, str>> {
    let number = |port: u16| Cow::from(port.to_string());
    match variable {
        "scheme" => Some(if instance.tls_port().is_some() { "https" } else { "http" }.into()),
        "name" => Some(instance.name().into()),
        "id" => Some(instance.id().into()),
        // Java would leave the brackets out, and what comes of that is no address.
        "address" => instance.address().map(|address| match address.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{address}]").into(),
            Err(_) => address.into(),
        }),
        "port" => instance.port().map(number),
        "ssl-port" => instance.tls_port().map(number),
        "registration-time-utc" => Some(instance.registered_at_ms().to_string().into()),
        "service-type" => Some(instance.service_type().as_str().to_ascii_lowercase().into()),
        "[" => Some("{".into()),
        "]" => Some("}".into()),
        _ => None,
    }
}

impl FromStr for UriSpec {
    type Err = UriSpecError;

    fn from_str(template: &str) -> Result<Self, UriSpecError> {
        let refuse = |reason| UriSpecError { template: template.to_owned(), reason };
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            if rest[at..].starts_with('}') {
                return Err(refuse("a brace is closed that was not opened"));
            }
            if at > 0 {
                parts.push(UriPart { value: rest[..at].to_owned(), variable: false });
            }
            let inside = &rest[at + 1..];
            let end = inside.find(['{', '}']).ok_or_else(|| refuse("a brace is not closed"))?;
            if inside[end..].starts_with('{') {
                return Err(refuse("a brace is opened within braces"));
            }
            parts.push(UriPart { value: inside[..end].trim().to_owned(), variable: true });
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(UriPart { value: rest.to_owned(), variable: false });
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for UriSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part.variable {
            true => write!(f, "{{{}}}", part.value),
            false => f.write_str(&part.value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let builder = Instance::builder("orders").id("a1").address("10.0.0.7").port(8080);
        builder.registered_at_ms(1_610_116_500_446).build().unwrap()
    }

    #[test]
    fn a_template_is_split_at_its_braces_and_printed_back() {
        let template = "{scheme}://{ address }:{port}/v1";

        let spec: UriSpec = template.parse().unwrap();

        assert_eq!(spec.to_string(), "{scheme}://{address}:{port}/v1");
        assert_eq!(spec.render(&instance()), "http://10.0.0.7:8080/v1");
    }

    #[test]
    fn every_variable_has_its_value_and_what_is_missing_is_left_out() {
        let spec: UriSpec =
            "{name}|{id}|{ssl-port}|{registration-time-utc}|{service-type}|{[}x{]}|{none}".parse().unwrap();

        assert_eq!(spec.render(&instance()), "orders|a1||1610116500446|dynamic|{x}|");
    }

    #[test]
    fn what_the_caller_knows_goes_first() {
        let spec: UriSpec = "{address}:{port}{path}".parse().unwrap();

        let uri = spec.render_with(&instance(), |variable| match variable {
            "address" => Some("localhost".into()),
            "path" => Some("/x".into()),
            _ => None,
        });

        assert_eq!(uri, "localhost:8080/x");
    }

    #[test]
    fn braces_that_do_not_pair_are_refused() {
        for template in ["{scheme", "a}b", "{a{b}}", "{"] {
            assert!(template.parse::<UriSpec>().is_err(), "{template:?}");
        }
    }

    #[test]
    fn an_ip6_address_is_put_into_brackets() {
        let at: std::net::SocketAddr = "[fd00::7]:8080".parse().unwrap();

        assert_eq!(Instance::builder("orders").http(at).build().unwrap().uri(), "http://[fd00::7]:8080");
    }

    #[test]
    fn the_template_for_tls_names_the_tls_port() {
        let secure = Instance::builder("orders").address("10.0.0.7").tls_port(8443).build().unwrap();

        assert_eq!(UriSpec::tls().render(&secure), "https://10.0.0.7:8443");
    }
}
