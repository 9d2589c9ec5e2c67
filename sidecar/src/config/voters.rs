//! The first voters of an ensemble and where each is found by the others.

use std::{collections::BTreeMap, fmt, str::FromStr};

use quorate_tree::MemberId;
use serde::{Deserialize, Deserializer, de};

use super::address::{Address, NotAnAddress};

/// Member ids and their peer addresses. The same list is given to every member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters(BTreeMap<MemberId, Address>);

/// Text that is not a list of voters.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVoters {
    /// An item that is not `ID=HOST:PORT`.
    #[error("`{item}` is not ID=HOST:PORT (the list reads 1=HOST:PORT,2=HOST:PORT,...)")]
    Item {
        /// As it was given.
        item: String,
    },
    /// An id that is not a number from 1 to 254.
    #[error("`{id}` is not a member id: they go from 1 to 254")]
    Id {
        /// As it was given.
        id: String,
    },
    /// An address that is none.
    #[error("member {id}: {source}")]
    Address {
        /// Whose address.
        id: MemberId,
        /// What is wrong with it.
        source: NotAnAddress,
    },
    /// One id, two addresses.
    #[error("member {id} stands in the list twice")]
    Twice {
        /// Which one.
        id: MemberId,
    },
}

impl Voters {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where `id` is found, if it is one of them.
    #[must_use]
    pub fn get(&self, id: MemberId) -> Option<&Address> {
        self.0.get(&id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (MemberId, &Address)> {
        self.0.iter().map(|(id, address)| (*id, address))
    }

    fn add(&mut self, id: &str, address: Result<Address, NotAnAddress>) -> Result<(), NotVoters> {
        let number = id.trim().parse().ok().filter(|id| (1..=254).contains(id));
        let id = MemberId(number.ok_or_else(|| NotVoters::Id { id: id.into() })?);
        let address = address.map_err(|source| NotVoters::Address { id, source })?;
        match self.0.insert(id, address) {
            None => Ok(()),
            Some(_) => Err(NotVoters::Twice { id }),
        }
    }
}

impl FromIterator<(MemberId, Address)> for Voters {
    fn from_iter<I: IntoIterator<Item = (MemberId, Address)>>(voters: I) -> Self {
        Self(voters.into_iter().collect())
    }
}

impl FromStr for Voters {
    type Err = NotVoters;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut voters = Self::default();
        for item in text.split(',').map(str::trim) {
            let (id, address) = item.split_once('=').ok_or_else(|| NotVoters::Item { item: item.into() })?;
            voters.add(id, address.trim().parse())?;
        }
        Ok(voters)
    }
}

impl fmt::Display for Voters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (id, address)) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(f, "{comma}{id}={address}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Voters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut voters = Self::default();
        for (id, address) in BTreeMap::<String, Address>::deserialize(deserializer)? {
            voters.add(&id, Ok(address)).map_err(de::Error::custom)?;
        }
        Ok(voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_ids_and_addresses_in_any_order() {
        let voters: Voters = "2=b:7201, 1=[::1]:7201,3=10.0.0.3:7201".parse().unwrap();

        assert_eq!(voters.to_string(), "1=[::1]:7201,2=b:7201,3=10.0.0.3:7201");
        assert_eq!(voters.get(MemberId(2)).unwrap().host(), "b");
        assert_eq!(voters.get(MemberId(4)), None);
    }

    #[test]
    fn a_bad_list_is_refused_with_the_part_that_is_bad() {
        for (text, told) in [
            ("", "`` is not ID=HOST:PORT"),
            ("1=a:1,", "`` is not ID=HOST:PORT"),
            ("a:1", "`a:1` is not ID=HOST:PORT"),
            ("0=a:1", "`0` is not a member id"),
            ("255=a:1", "`255` is not a member id"),
            ("one=a:1", "`one` is not a member id"),
            ("1=a", "member 1: `a` is not HOST:PORT"),
            ("1=a:1,1=b:1", "member 1 stands in the list twice"),
        ] {
            let error = text.parse::<Voters>().unwrap_err().to_string();

            assert!(error.starts_with(told), "{text}: {error}");
        }
    }
}
