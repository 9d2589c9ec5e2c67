//! The identity that passes every ACL, as ZooKeeper's `superDigest`.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, de};

/// `USER:base64(sha1(USER:PASSWORD))`: whoever gives that user and password on a stream passes every ACL.
#[derive(Clone, PartialEq, Eq)]
pub struct SuperDigest(String);

/// Text that is no such identity. It may be a password, so it is not repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a super digest is USER:BASE64, where BASE64 is that of the 20 bytes of sha1(USER:PASSWORD)")]
pub struct NotADigest;

impl SuperDigest {
    /// The identity as ACLs write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SuperDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let (user, digest) = text.split_once(':').ok_or(NotADigest)?;
        let sha1 = BASE64_STANDARD.decode(digest).map_err(|_| NotADigest)?;
        if user.is_empty() || sha1.len() != 20 { Err(NotADigest) } else { Ok(Self(text.into())) }
    }
}

/// Not the digest: settings are logged.
impl fmt::Debug for SuperDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.0.split(':').next().unwrap_or_default();
        write!(f, "SuperDigest({user}:...)")
    }
}

impl<'de> Deserialize<'de> for SuperDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_digest_is_a_user_and_a_sha1_and_is_shown_to_nobody() {
        let digest: SuperDigest = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=".parse().unwrap();

        assert_eq!(digest.as_str(), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(format!("{digest:?}"), "SuperDigest(super:...)");
        for text in ["", "super", "super:", "super:secret", ":D/InIHSb7yEEbrWz8b9l71RjZJU=", "super:c2hvcnQ="] {
            assert_eq!(text.parse::<SuperDigest>(), Err(NotADigest), "{text}");
        }
    }
}
