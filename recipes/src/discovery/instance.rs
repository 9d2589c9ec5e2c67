//! One instance of a service: where it is, and what is said of it.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr};

use uuid::Uuid;

use super::{Payload, PayloadProfile, UriSpec};

/// The names of the metadata we know. `zone`, `weight` and `hint` are what Spring's balancer reads.
pub(crate) mod key {
    pub(crate) const STATUS: &str = "instance_status";
    pub(crate) const ZONE: &str = "zone";
    pub(crate) const REGION: &str = "region";
    pub(crate) const WEIGHT: &str = "weight";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const TAGS: &str = "tags";
    pub(crate) const PROTOCOL: &str = "protocol";
    pub(crate) const NONCE: &str = "nonce";
}

/// One instance of a service.
///
/// Made by [`Instance::builder`] to be registered, or read by a [`ServiceView`](super::ServiceView).
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) address: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) tls_port: Option<u16>,
    pub(crate) payload: Payload,
    pub(crate) registered_at_ms: i64,
    pub(crate) service_type: ServiceType,
    pub(crate) uri_spec: Option<UriSpec>,
    pub(crate) enabled: bool,
}

/// How long the node of an instance lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ServiceType {
    /// As long as the session of whoever registered it. The only type that is registered here.
    #[default]
    Dynamic,
    /// Until it is found to be too old.
    Static,
    /// Until somebody removes it.
    Permanent,
    /// As dynamic, with a number after its name.
    DynamicSequential,
}

impl ServiceType {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dynamic => "DYNAMIC",
            Self::Static => "STATIC",
            Self::Permanent => "PERMANENT",
            Self::DynamicSequential => "DYNAMIC_SEQUENTIAL",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Dynamic, Self::Static, Self::Permanent, Self::DynamicSequential].into_iter().find(|t| t.as_str() == text)
    }
}

/// Whether an instance takes requests. Balancers, Spring's too, leave out all that are not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Status {
    /// It takes requests.
    #[default]
    Up,
    /// It takes none: it is about to end, or somebody took it out.
    OutOfService,
    /// It takes none yet.
    Starting,
    /// It cannot take any.
    Down,
}

impl Status {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Starting => "STARTING",
            Self::Down => "DOWN",
        }
    }
}

/// What an instance lacks to be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A part of the name, or the id, is empty; or the id has a slash.
    #[error("{what} {value:?} cannot be part of a path")]
    Name {
        /// Which of the two.
        what: &'static str,
        /// What was given.
        value: String,
    },
    /// Nobody could reach it.
    #[error("an instance needs an address")]
    NoAddress,
    /// This address means «here» to whoever reads it.
    #[error("{address} is an address to listen on; others need one to connect to")]
    Unspecified {
        /// What was given.
        address: String,
    },
    /// Every reader in Java fails on an instance without any.
    #[error("an instance needs a port, or a port for TLS")]
    NoPort,
    /// Tags are kept as a list with commas.
    #[error("tag {tag:?} is empty, or has a comma")]
    Tag {
        /// What was given.
        tag: String,
    },
    /// The registry's payload has no place for metadata.
    #[error("this registry's payload has no metadata, so {key} has no place")]
    NoMetadata {
        /// What was to be said.
        key: String,
    },
    /// Name and id are the path of the node, and stay.
    #[error("an update cannot change the name or the id of an instance")]
    Renamed,
}

impl Instance {
    /// Starts one, of the service of this name. Names are case-sensitive; lower case and hyphens suit everybody,
    /// as Spring puts them into host names. A slash makes levels.
    pub fn builder(service: impl Into<String>) -> InstanceBuilder {
        let service = service.into();
        InstanceBuilder {
            name: service.trim_start_matches('/').to_owned(),
            id: None,
            address: None,
            port: None,
            tls_port: None,
            metadata: BTreeMap::new(),
            registered_at_ms: None,
            uri_spec: None,
            enabled: true,
            misfit: None,
        }
    }

    /// The service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which one of the service.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Host name or address.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The port. Of an instance with nothing but TLS it is the port for TLS.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port for TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// What else it carries.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// When it was registered first, by its own clock, in milliseconds since 1970.
    pub fn registered_at_ms(&self) -> i64 {
        self.registered_at_ms
    }

    /// How long its node lives.
    pub fn service_type(&self) -> ServiceType {
        self.service_type
    }

    /// The template of its address, if it has one.
    pub fn uri_spec(&self) -> Option<&UriSpec> {
        self.uri_spec.as_ref()
    }

    /// Whether nobody has switched it off.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// One entry of its metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.payload.metadata(key)
    }

    /// The status it is registered with, in its own words. None is as good as `UP`.
    pub fn status(&self) -> Option<&str> {
        self.metadata(key::STATUS).filter(|status| !status.is_empty())
    }

    /// Whether it takes requests: it is enabled, and its status, if it has one, is `UP`.
    pub fn is_up(&self) -> bool {
        self.enabled && self.status().is_none_or(|status| status.eq_ignore_ascii_case(Status::Up.as_str()))
    }

    /// The zone it is in.
    pub fn zone(&self) -> Option<&str> {
        self.metadata(key::ZONE)
    }

    /// Its share of requests, relative to others. 1 if it says nothing that makes sense.
    pub fn weight(&self) -> u32 {
        self.metadata(key::WEIGHT).and_then(|weight| weight.trim().parse().ok()).unwrap_or(1)
    }

    /// Its version.
    pub fn version(&self) -> Option<&str> {
        self.metadata(key::VERSION)
    }

    /// Its tags.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let tags = self.metadata(key::TAGS).unwrap_or_default();
        tags.split(',').map(str::trim).filter(|tag| !tag.is_empty())
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|has| has == tag)
    }

    /// Where to reach it, by its template, or by Spring's if it has none.
    pub fn uri(&self) -> String {
        match &self.uri_spec {
            Some(spec) => spec.render(self),
            None if self.tls_port.is_some() => UriSpec::tls().render(self),
            None => UriSpec::plain().render(self),
        }
    }

    pub(crate) fn set_metadata(&mut self, key: &str, value: Option<&str>) {
        if let Payload::Spring { metadata, .. } = &mut self.payload {
            match value {
                Some(value) => metadata.insert(key.to_owned(), value.to_owned()),
                None => metadata.remove(key),
            };
        }
    }

    /// By the metadata, or, where the payload has none, by switching it off and on.
    pub(crate) fn set_status(&mut self, status: Status) {
        match &self.payload {
            Payload::Spring { .. } => self.set_metadata(key::STATUS, Some(status.as_str())),
            _ => self.enabled = status == Status::Up,
        }
    }
}

/// Makes an [`Instance`].
#[derive(Debug, Clone)]
#[must_use]
pub struct InstanceBuilder {
    name: String,
    id: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    tls_port: Option<u16>,
    metadata: BTreeMap<String, String>,
    registered_at_ms: Option<i64>,
    uri_spec: Option<UriSpec>,
    enabled: bool,
    misfit: Option<InstanceError>,
}

impl InstanceBuilder {
    /// Which one of the service it is. Default: a random UUID. With an id of your own, the node of a run that
    /// died may stand in the way of the next until its session has expired.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// It speaks HTTP at this address. Not the one it listens on, if that is `0.0.0.0`.
    pub fn http(self, at: impl Into<SocketAddr>) -> Self {
        self.socket(at).protocol("http")
    }

    /// It speaks gRPC at this address.
    pub fn grpc(self, at: impl Into<SocketAddr>) -> Self {
        self.socket(at).protocol("grpc")
    }

    fn socket(self, at: impl Into<SocketAddr>) -> Self {
        let at = at.into();
        self.address(at.ip().to_string()).port(at.port())
    }

    /// The host name or address by which others reach it.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Its port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Its port for TLS.
    pub fn tls_port(mut self, port: u16) -> Self {
        self.tls_port = Some(port);
        self
    }

    /// The template of its address. Default: `{scheme}://{address}:{port}`, with `ssl-port` if there is one.
    pub fn uri_spec(mut self, spec: UriSpec) -> Self {
        self.uri_spec = Some(spec);
        self
    }

    /// What it speaks.
    pub fn protocol(self, protocol: impl Into<String>) -> Self {
        self.meta(key::PROTOCOL, protocol)
    }

    /// The zone it is in.
    pub fn zone(self, zone: impl Into<String>) -> Self {
        self.meta(key::ZONE, zone)
    }

    /// The region it is in.
    pub fn region(self, region: impl Into<String>) -> Self {
        self.meta(key::REGION, region)
    }

    /// Its share of requests, relative to others.
    pub fn weight(self, weight: u32) -> Self {
        self.meta(key::WEIGHT, weight.to_string())
    }

    /// Its version.
    pub fn version(self, version: impl Into<String>) -> Self {
        self.meta(key::VERSION, version)
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        let tag = tag.into();
        if tag.trim().is_empty() || tag.contains(',') {
            self.misfit.get_or_insert(InstanceError::Tag { tag });
            return self;
        }
        let tags = self.metadata.entry(key::TAGS.to_owned()).or_default();
        if !tags.is_empty() {
            tags.push(',');
        }
        tags.push_str(tag.trim());
        self
    }

    /// The status it starts with. Default: up.
    pub fn status(self, status: Status) -> Self {
        self.meta(key::STATUS, status.as_str())
    }

    /// Sets an entry of the metadata.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Removes an entry of the metadata.
    pub fn without_meta(mut self, key: &str) -> Self {
        self.metadata.remove(key);
        self
    }

    /// Whether it is switched on. Default: it is.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// When it was registered first, in milliseconds since 1970. Default: now.
    pub fn registered_at_ms(mut self, at_ms: i64) -> Self {
        self.registered_at_ms = Some(at_ms);
        self
    }

    /// The instance as Spring's registry has it.
    pub fn build(self) -> Result<Instance, InstanceError> {
        self.build_for(&PayloadProfile::Spring)
    }

    /// The instance as a registry of this profile has it.
    pub fn build_for(self, profile: &PayloadProfile) -> Result<Instance, InstanceError> {
        if let Some(misfit) = self.misfit {
            return Err(misfit);
        }
        let id = self.id.unwrap_or_else(|| Uuid::new_v4().to_string());
        if self.name.split('/').any(str::is_empty) {
            return Err(InstanceError::Name { what: "service", value: self.name });
        }
        if id.is_empty() || id.contains('/') {
            return Err(InstanceError::Name { what: "id", value: id });
        }
        let address = self.address.filter(|address| !address.is_empty()).ok_or(InstanceError::NoAddress)?;
        if matches!(&*address, "0.0.0.0" | "::" | "[::]") {
            return Err(InstanceError::Unspecified { address });
        }
        let named = |port: Option<u16>| port.filter(|port| *port != 0);
        let (port, tls_port) = (named(self.port), named(self.tls_port));
        // Spring reads the plain port in any case, and fails where it is missing.
        let port = port.or(tls_port).ok_or(InstanceError::NoPort)?;
        let mut metadata = self.metadata;
        if profile.has_metadata() {
            metadata.entry(key::STATUS.to_owned()).or_insert_with(|| Status::Up.as_str().to_owned());
        } else if let Some(key) = metadata.into_keys().find(|key| key != key::PROTOCOL) {
            return Err(InstanceError::NoMetadata { key });
        } else {
            metadata = BTreeMap::new();
        }
        let uri_spec = self.uri_spec.unwrap_or_else(|| match tls_port {
            Some(_) => UriSpec::tls(),
            None => UriSpec::plain(),
        });
        Ok(Instance {
            payload: profile.payload(&id, &self.name, metadata),
            name: self.name,
            id,
            address: Some(address),
            port: Some(port),
            tls_port,
            registered_at_ms: self.registered_at_ms.unwrap_or_else(now_ms),
            service_type: ServiceType::Dynamic,
            uri_spec: Some(uri_spec),
            enabled: self.enabled,
        })
    }
}

/// To change what was built.
impl From<Instance> for InstanceBuilder {
    fn from(instance: Instance) -> Self {
        // The port of an instance with nothing but TLS is filled in, so that it follows a change.
        let port = instance.port.filter(|port| instance.tls_port != Some(*port));
        let metadata = match instance.payload {
            Payload::Spring { metadata, .. } => metadata,
            _ => BTreeMap::new(),
        };
        Self {
            name: instance.name,
            id: Some(instance.id),
            address: instance.address,
            port,
            tls_port: instance.tls_port,
            metadata,
            registered_at_ms: Some(instance.registered_at_ms),
            uri_spec: instance.uri_spec,
            enabled: instance.enabled,
            misfit: None,
        }
    }
}

/// Every instance of this process is marked with it, so that the node of its own last session is recognized.
pub(crate) fn process_nonce() -> Cow<'static, str> {
    static NONCE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| Uuid::new_v4().to_string());
    Cow::Borrowed(&NONCE)
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> InstanceBuilder {
        Instance::builder("orders").address("10.0.0.7").port(8080)
    }

    #[test]
    fn an_instance_without_any_port_is_refused() {
        assert_eq!(Instance::builder("orders").address("10.0.0.7").build(), Err(InstanceError::NoPort));
        assert_eq!(orders().port(0).build(), Err(InstanceError::NoPort));
    }

    #[test]
    fn an_address_to_listen_on_is_refused() {
        let any: SocketAddr = "0.0.0.0:8080".parse().unwrap();

        let refused = Instance::builder("orders").http(any).build();

        assert_eq!(refused, Err(InstanceError::Unspecified { address: "0.0.0.0".into() }));
    }

    #[test]
    fn names_that_are_no_part_of_a_path_are_refused() {
        assert!(matches!(Instance::builder("").address("a").port(1).build(), Err(InstanceError::Name { .. })));
        assert!(matches!(Instance::builder("a//b").address("a").port(1).build(), Err(InstanceError::Name { .. })));
        assert!(matches!(orders().id("a/b").build(), Err(InstanceError::Name { .. })));
        assert_eq!(Instance::builder("/shop/orders").address("a").port(1).build().unwrap().name(), "shop/orders");
    }

    #[test]
    fn with_nothing_but_tls_the_plain_port_is_the_same() {
        let secure = Instance::builder("orders").address("10.0.0.7").tls_port(8443).build().unwrap();

        assert_eq!((secure.port(), secure.tls_port()), (Some(8443), Some(8443)));
        assert_eq!(secure.uri(), "https://10.0.0.7:8443");
    }

    #[test]
    fn with_both_ports_the_address_is_the_secure_one() {
        let secure = orders().tls_port(8443).build().unwrap();

        assert_eq!((secure.port(), secure.tls_port()), (Some(8080), Some(8443)));
        assert_eq!(secure.uri(), "https://10.0.0.7:8443");
    }

    #[test]
    fn what_is_said_can_be_asked() {
        let at: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        let instance = Instance::builder("orders")
            .http(at)
            .zone("eu-1")
            .weight(10)
            .tag("canary")
            .tag("blue")
            .version("1.4")
            .build()
            .unwrap();

        assert_eq!(instance.zone(), Some("eu-1"));
        assert_eq!(instance.weight(), 10);
        assert_eq!(instance.tags().collect::<Vec<_>>(), ["canary", "blue"]);
        assert!(instance.has_tag("blue") && !instance.has_tag("green"));
        assert_eq!(instance.version(), Some("1.4"));
        assert_eq!(instance.metadata("protocol"), Some("http"));
        assert_eq!(instance.status(), Some("UP"));
        assert!(instance.is_up());
    }

    #[test]
    fn a_tag_with_a_comma_is_refused() {
        assert_eq!(orders().tag("a,b").build(), Err(InstanceError::Tag { tag: "a,b".into() }));
    }

    #[test]
    fn metadata_without_a_place_for_it_is_refused() {
        let refused = orders().zone("eu-1").build_for(&PayloadProfile::None);

        assert_eq!(refused, Err(InstanceError::NoMetadata { key: "zone".into() }));
    }

    #[test]
    fn without_metadata_an_instance_is_taken_out_by_switching_it_off() {
        let mut instance = orders().build_for(&PayloadProfile::None).unwrap();

        instance.set_status(Status::OutOfService);
        assert!(!instance.is_up());

        instance.set_status(Status::Up);
        assert!(instance.is_up());
    }

    #[test]
    fn only_up_and_enabled_instances_are_up() {
        assert!(!orders().status(Status::Starting).build().unwrap().is_up());
        assert!(!orders().enabled(false).build().unwrap().is_up());
        assert!(orders().meta("instance_status", "up").build().unwrap().is_up());
        assert!(orders().meta("instance_status", "").build().unwrap().is_up());
    }

    #[test]
    fn an_instance_made_into_a_builder_is_built_the_same() {
        for instance in [orders().tag("a").build().unwrap(), orders().tls_port(8443).build().unwrap()] {
            assert_eq!(InstanceBuilder::from(instance.clone()).build().unwrap(), instance);
        }
    }
}
