//! `quorate tree`: a node and everything below it.

use std::{fmt::Write, process::ExitCode};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use quorate::{Client, Error, Stat};
use serde::Serialize;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    output::{self, Format},
};

/// Requests under way at a time.
const CONCURRENCY_MAX: usize = 64;

/// Show a node and everything below it
#[derive(Args, Debug)]
pub(super) struct Tree {
    /// The node
    #[arg(default_value = "/")]
    path: String,

    /// How many levels below it
    #[arg(short = 'L', long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    levels: usize,

    #[command(flatten)]
    ensemble: Ensemble,
}

/// A node and what is below it.
#[derive(Debug, Serialize)]
struct Branch {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ephemeral_owner: Option<String>,
    data_length: u32,
    num_children: u32,
    /// Empty where the level was not asked for.
    children: Vec<Branch>,
}

impl Tree {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let read = self.ensemble.with_client(async |client| Ok(read(client, &self.path, self.levels).await?));
        let branch = read.await?;
        match self.ensemble.output {
            Format::Json => output::json(&branch)?,
            Format::Table => output::line(&drawn(&branch))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads level by level. A node that goes away meanwhile is left out; the first one must be there.
async fn read(client: &Client, path: &str, levels: usize) -> Result<Branch, Error> {
    let mut found: Vec<Found> = Vec::new();
    let mut level = vec![(path.to_owned(), None)];
    for depth in 0..=levels {
        let listed: Vec<_> = stream::iter(level)
            .map(|(path, parent)| async move {
                let list = client.children(&path).opt().await?;
                Ok::<_, Error>((path, parent, list))
            })
            .buffered(CONCURRENCY_MAX)
            .try_collect()
            .await?;
        level = Vec::new();
        for (path, parent, list) in listed {
            match list {
                Some(list) => {
                    let nth = found.len();
                    if depth < levels {
                        level.extend(list.names.iter().map(|name| (below(&path, name), Some(nth))));
                    }
                    found.push(Found { path, parent, stat: list.stat });
                }
                None if parent.is_none() => return Err(Error::NoNode { path }),
                None => {}
            }
        }
        if level.is_empty() {
            break;
        }
    }
    Ok(assemble(found))
}

/// A node that was read, and the place of its parent in the list of those that were.
struct Found {
    path: String,
    parent: Option<usize>,
    stat: Stat,
}

/// Hangs each node below its parent. Parents stand before their children, so going backwards every node is whole
/// before it is hung up.
fn assemble(found: Vec<Found>) -> Branch {
    let mut branches: Vec<_> = found.iter().map(|found| Some(branch(found))).collect();
    for (nth, Found { parent, .. }) in found.iter().enumerate().rev() {
        let Some(parent) = parent else { continue };
        let child = branches[nth].take().expect("each node is hung up once");
        branches[*parent].as_mut().expect("a parent is hung up after its children").children.push(child);
    }
    let mut root = branches.swap_remove(0).expect("the first node has no parent");
    root.restore_order();
    root
}

fn branch(Found { path, parent, stat }: &Found) -> Branch {
    let name = match parent {
        Some(_) => path.rsplit('/').next().unwrap_or(path),
        None => path,
    };
    Branch {
        name: name.to_owned(),
        ephemeral_owner: stat.ephemeral_owner.map(|session| session.to_string()),
        data_length: stat.data_length,
        num_children: stat.num_children,
        children: Vec::new(),
    }
}

impl Branch {
    /// Children were hung up last first.
    fn restore_order(&mut self) {
        self.children.reverse();
        self.children.iter_mut().for_each(Self::restore_order);
    }

    fn label(&self) -> String {
        let mut label = self.name.clone();
        if self.data_length > 0 {
            let _ = write!(label, "  [{} B]", self.data_length);
        }
        if let Some(owner) = &self.ephemeral_owner {
            let _ = write!(label, "  (ephemeral, session {owner})");
        }
        if self.children.is_empty() && self.num_children > 0 {
            let _ = write!(label, "  ({} below)", self.num_children);
        }
        label
    }
}

fn below(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

fn drawn(root: &Branch) -> String {
    let mut lines = vec![root.label()];
    draw(&root.children, "", &mut lines);
    lines.join("\n")
}

fn draw(children: &[Branch], margin: &str, lines: &mut Vec<String>) {
    for (nth, child) in children.iter().enumerate() {
        let last = nth + 1 == children.len();
        let (turn, further) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        lines.push(format!("{margin}{turn}{}", child.label()));
        draw(&child.children, &format!("{margin}{further}"), lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, parent: Option<usize>, num_children: u32) -> Found {
        let mut stat = Stat::default();
        stat.num_children = num_children;
        stat.data_length = if path.ends_with('x') { 3 } else { 0 };
        Found { path: path.into(), parent, stat }
    }

    #[test]
    fn a_tree_is_drawn_in_the_order_it_was_listed() {
        let nodes = vec![
            found("/", None, 2),
            found("/a", Some(0), 2),
            found("/b", Some(0), 1),
            found("/a/x", Some(1), 0),
            found("/a/y", Some(1), 7),
            found("/b/z", Some(2), 0),
        ];

        let text = drawn(&assemble(nodes));

        let expected = "/\n├── a\n│   ├── x  [3 B]\n│   └── y  (7 below)\n└── b\n    └── z";
        assert_eq!(text, expected);
    }

    #[test]
    fn paths_below_the_root_have_one_slash() {
        assert_eq!(below("/", "a"), "/a");
        assert_eq!(below("/a", "b"), "/a/b");
    }
}
