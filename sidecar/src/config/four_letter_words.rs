//! The plain-text questions that the ZooKeeper door answers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

/// One of ZooKeeper's four-letter words that has a meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are ZooKeeper's")]
pub enum FourLetterWord {
    Ruok,
    Srvr,
    Stat,
    Mntr,
    Isro,
    Conf,
    Cons,
    Dump,
    Wchs,
    Wchc,
    Wchp,
    Envi,
    Dirs,
    Crst,
    Srst,
    Gtmk,
    Hash,
}

impl FourLetterWord {
    const ALL: [(Self, &str); 17] = [
        (Self::Ruok, "ruok"),
        (Self::Srvr, "srvr"),
        (Self::Stat, "stat"),
        (Self::Mntr, "mntr"),
        (Self::Isro, "isro"),
        (Self::Conf, "conf"),
        (Self::Cons, "cons"),
        (Self::Dump, "dump"),
        (Self::Wchs, "wchs"),
        (Self::Wchc, "wchc"),
        (Self::Wchp, "wchp"),
        (Self::Envi, "envi"),
        (Self::Dirs, "dirs"),
        (Self::Crst, "crst"),
        (Self::Srst, "srst"),
        (Self::Gtmk, "gtmk"),
        (Self::Hash, "hash"),
    ];

    /// The word of this spelling.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(word, _)| *word)
    }
}

impl fmt::Display for FourLetterWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::ALL.iter().find(|(word, _)| word == self).expect("every word stands in the list");
        f.write_str(name)
    }
}

/// The words that are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FourLetterWords(Vec<FourLetterWord>);

/// A word that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no four-letter word of this door; there are {}, and * for all", all_names())]
pub struct NotAWord {
    word: String,
}

fn all_names() -> String {
    FourLetterWord::ALL.map(|(_, name)| name).join(",")
}

impl FourLetterWords {
    /// Whether this one is answered.
    #[must_use]
    pub fn allow(&self, word: FourLetterWord) -> bool {
        self.0.contains(&word)
    }
}

impl Default for FourLetterWords {
    /// Those that cost next to nothing and tell nothing about clients.
    fn default() -> Self {
        use FourLetterWord::{Conf, Isro, Mntr, Ruok, Srvr, Stat};

        Self(vec![Ruok, Srvr, Stat, Mntr, Isro, Conf])
    }
}

impl FromStr for FourLetterWords {
    type Err = NotAWord;

    fn from_str(text: &str) -> Result<Self, NotAWord> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut allowed = Vec::new();
        for word in words {
            if word == "*" {
                return Ok(Self(FourLetterWord::ALL.map(|(word, _)| word).into()));
            }
            allowed.push(FourLetterWord::of(word).ok_or_else(|| NotAWord { word: word.into() })?);
        }
        Ok(Self(allowed))
    }
}

impl<'de> Deserialize<'de> for FourLetterWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_allows_what_it_names_and_a_star_everything() {
        let two: FourLetterWords = "ruok, dump".parse().unwrap();

        assert!(two.allow(FourLetterWord::Dump) && !two.allow(FourLetterWord::Srvr));
        assert!("*".parse::<FourLetterWords>().unwrap().allow(FourLetterWord::Wchp));
        assert_eq!("".parse::<FourLetterWords>().unwrap(), FourLetterWords(Vec::new()));
    }

    #[test]
    fn a_word_that_is_none_is_named_with_those_there_are() {
        let told = "ruok,rouk".parse::<FourLetterWords>().unwrap_err().to_string();

        assert!(told.starts_with("`rouk` is no four-letter word of this door; there are ruok,srvr,"), "{told}");
    }
}
