//! What a command prints on standard output: a table for people or JSON for scripts, and nothing else.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// Prints one line.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value).expect("our answers have string keys and finite numbers"))
}

/// Prints a value as one line of JSON: for streams of values.
pub(super) fn json_line(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value).expect("our answers have string keys and finite numbers"))
}

/// A table without frames, as wide as its content: every row is one line, so that `grep` and `awk` can read it.
pub(super) fn table<const N: usize>(head: [&str; N], right: [bool; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head).add_rows(rows.into_iter().map(|row| row.map(plain)));
    for (column, right) in table.column_iter_mut().zip(right) {
        column.set_padding((0, 2));
        if right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Text of others, as one line of it that a terminal only shows: a client says its name itself.
fn plain(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_plain_line_a_row() {
        let rows = vec![["1".to_owned(), "leader".to_owned()], ["2".to_owned(), String::new()]];

        let text = table(["MEMBER", "ROLE"], [true, false], rows);

        assert_eq!(text, "MEMBER  ROLE\n     1  leader\n     2");
    }

    #[test]
    fn text_of_others_does_not_command_the_terminal() {
        let rows = vec![["\u{1b}[2Jb\u{e4}r\n9  forged".to_owned()]];

        let text = table(["CLIENT"], [false], rows);

        assert_eq!(text, "CLIENT\n\\u{1b}[2Jb\u{e4}r\\n9  forged");
    }
}
