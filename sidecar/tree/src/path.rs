//! Paths: validated once, then trusted.

use std::fmt;

/// An absolute, valid path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Box<str>);

/// Why a text is not a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("a path must not be empty")]
    Empty,
    /// Relative.
    #[error("a path must start with '/'")]
    NotAbsolute,
    /// `/a/`.
    #[error("a path must not end with '/'")]
    TrailingSlash,
    /// `/a//b`.
    #[error("a path must not have an empty component")]
    EmptyComponent,
    /// `/a/./b` or `/a/../b`.
    #[error("a path must not have a component '.' or '..'")]
    RelativeComponent,
    /// Control characters, surrogates, private use, and all beyond the basic plane.
    #[error("a path must not contain the character U+{0:04X}")]
    Character(u32),
}

impl Path {
    /// Validates a path by ZooKeeper's rules.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// [`Path::parse`] without keeping the text.
pub(crate) fn check(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(PathError::NotAbsolute);
    };
    if rest.is_empty() || is_plain(rest) {
        return Ok(());
    }
    if rest.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    for component in rest.split('/') {
        match component {
            "" => return Err(PathError::EmptyComponent),
            "." | ".." => return Err(PathError::RelativeComponent),
            _ => {}
        }
    }
    match rest.chars().find(|c| !is_allowed(*c)) {
        Some(c) => Err(PathError::Character(c.into())),
        None => Ok(()),
    }
}

/// Whether one look at each byte finds nothing that could be wrong: nearly all paths are plain ASCII.
fn is_plain(rest: &str) -> bool {
    let mut before = b'/';
    for byte in rest.bytes() {
        let begins = before == b'/';
        if !matches!(byte, b' '..=b'~') || (begins && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    before != b'/'
}

fn is_allowed(c: char) -> bool {
    !matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_valid_by_zookeepers_rules() {
        #[track_caller]
        fn check(text: &str, expected: Result<(), PathError>) {
            assert_eq!(Path::parse(text).map(|path| assert_eq!(path.as_str(), text)), expected, "{text:?}");
        }

        for text in
            ["/", "/a", "/a/b", "/...", "/.a", "/a..b", "/a b:c=d", "/žluťoučký/kůň", "/\u{d7ff}\u{f900}\u{ffef}"]
        {
            check(text, Ok(()));
        }
        check("", Err(PathError::Empty));
        check("a", Err(PathError::NotAbsolute));
        check("a/b", Err(PathError::NotAbsolute));
        check("/a/", Err(PathError::TrailingSlash));
        check("//", Err(PathError::TrailingSlash));
        check("//a", Err(PathError::EmptyComponent));
        check("/a//b", Err(PathError::EmptyComponent));
        check("/.", Err(PathError::RelativeComponent));
        check("/a/./b", Err(PathError::RelativeComponent));
        check("/a/..", Err(PathError::RelativeComponent));
        for character in
            ['\0', '\u{1}', '\u{1f}', '\u{7f}', '\u{9f}', '\u{e000}', '\u{f8ff}', '\u{fff0}', '\u{ffff}', '\u{1f600}']
        {
            check(&format!("/a{character}b"), Err(PathError::Character(character.into())));
        }
    }
}
