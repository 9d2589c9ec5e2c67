//! Java's properties format: `key=value` lines with comments, continuation and escapes.
//!
//! The rules are those of `java.util.Properties.load`. Text that is not UTF-8 is taken for Latin-1, which Java takes
//! all of it for. Keys and values are trimmed, as ZooKeeper does.

use std::{iter::Peekable, str::Chars};

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) key: String,
    pub(super) value: String,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

/// A `\u` that four hexadecimal digits do not follow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`\\u` must be followed by four hexadecimal digits of a character")]
pub(super) struct BadEscape {
    pub(super) line: usize,
}

/// Reads all properties, in their order, repeated ones included.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Property>, BadEscape> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    };
    logical_lines(&text).into_iter().map(|(line, text)| property(line, &text).ok_or(BadEscape { line })).collect()
}

/// Lines put together where a `\` continues them, without comments and empty ones.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    for (number, natural) in (1..).zip(unix.split('\n')) {
        let natural = natural.trim_start_matches(is_blank);
        if open.is_none() && (natural.is_empty() || natural.starts_with(['#', '!'])) {
            continue;
        }
        let (start, mut line) = open.take().unwrap_or((number, String::new()));
        // An even number of backslashes stands for half as many.
        let goes_on = natural.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        if goes_on {
            line.push_str(&natural[..natural.len() - 1]);
            open = Some((start, line));
        } else {
            line.push_str(natural);
            lines.push((start, line));
        }
    }
    lines.extend(open);
    lines
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// The key ends at the first `=`, `:` or blank that is not escaped.
fn property(line: usize, text: &str) -> Option<Property> {
    let mut rest = text.chars().peekable();
    let mut key = String::new();
    while let Some(c) = rest.next_if(|c| !is_blank(*c) && !matches!(c, '=' | ':')) {
        key.push(unescaped(c, &mut rest)?);
    }
    while rest.next_if(|c| is_blank(*c)).is_some() {}
    if rest.next_if(|c| matches!(c, '=' | ':')).is_some() {
        while rest.next_if(|c| is_blank(*c)).is_some() {}
    }
    let mut value = String::new();
    while let Some(c) = rest.next() {
        value.push(unescaped(c, &mut rest)?);
    }
    Some(Property { key: key.trim().to_owned(), value: value.trim().to_owned(), line })
}

/// The character that `first`, and what follows it if it is a backslash, stand for.
fn unescaped(first: char, rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    if first != '\\' {
        return Some(first);
    }
    Some(match rest.next() {
        Some('t') => '\t',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('f') => '\x0c',
        Some('u') => {
            let mut code = 0;
            for _ in 0..4 {
                code = code * 16 + rest.next()?.to_digit(16)?;
            }
            // Half of a surrogate pair is no character; nothing in a zoo.cfg needs one.
            char::from_u32(code)?
        }
        Some(other) => other,
        // At the end of the file.
        None => '\\',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str, usize)]) {
        let properties = parse(text.as_bytes()).unwrap();

        let got: Vec<_> = properties.iter().map(|p| (p.key.as_str(), p.value.as_str(), p.line)).collect();
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn a_property_is_a_key_and_a_value_however_they_are_separated() {
        check("tickTime=2000", &[("tickTime", "2000", 1)]);
        check("a = b\na:b\na b\n a\t=\tb \n", &[("a", "b", 1), ("a", "b", 2), ("a", "b", 3), ("a", "b", 4)]);
        check("server.1=h:2888:3888;2181", &[("server.1", "h:2888:3888;2181", 1)]);
        check("empty=\nalone", &[("empty", "", 1), ("alone", "", 2)]);
        check("a==b", &[("a", "=b", 1)]);
    }

    #[test]
    fn comments_and_empty_lines_are_left_out() {
        check("# a=1\n  ! b=2\n\n \t\nc=3 # not a comment\n", &[("c", "3 # not a comment", 5)]);
        check("", &[]);
    }

    #[test]
    fn a_backslash_at_the_end_continues_a_line_unless_it_is_escaped() {
        check("a=1,\\\n   2,\\\n3\nb=4", &[("a", "1,2,3", 1), ("b", "4", 4)]);
        check("a=x\\\\\nb=4", &[("a", "x\\", 1), ("b", "4", 2)]);
        check("a=1\\\n# goes on\nb=2", &[("a", "1# goes on", 1), ("b", "2", 3)]);
        check("a=1\\", &[("a", "1", 1)]);
    }

    #[test]
    fn all_line_ends_are_known() {
        check("a=1\r\nb=2\rc=3\n", &[("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]);
    }

    #[test]
    fn escapes_stand_for_characters() {
        check(r"dir=C\:\\data\tx\u00e9", &[("dir", "C:\\data\tx\u{e9}", 1)]);
        check(r"a\ b\=c=d", &[("a b=c", "d", 1)]);
        for text in ["a=\\u12", "a=\\u12g4", "a=\\ud800"] {
            assert_eq!(parse(format!("\n{text}").as_bytes()), Err(BadEscape { line: 2 }), "{text}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_latin1() {
        let properties = parse(b"dataDir=/donn\xe9es").unwrap();

        assert_eq!(properties[0].value, "/donn\u{e9}es");
    }
}
