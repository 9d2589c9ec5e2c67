//! What became of an import, node by node in sum.

use std::fmt::Write;

use serde::Serialize;

/// Paths of one sort that are kept for the report; further ones are counted.
const LISTED_MAX: usize = 10_000;
/// Paths of one sort that are printed for people.
const SHOWN_MAX: usize = 20;

/// The sum of an import. The names are part of the command's JSON.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) source: String,
    pub(super) dry_run: bool,
    pub(super) seconds: f64,
    /// Nodes created, or that would be.
    pub(super) created: u64,
    /// Nodes that were there and equal.
    pub(super) equal: u64,
    /// Nodes that differed and were replaced, or would be.
    pub(super) replaced: u64,
    /// Nodes that belong to sessions, so that they cannot be carried.
    pub(super) ephemeral: Listed<String>,
    /// Nodes that were deleted while the import ran.
    pub(super) gone: u64,
    /// Parents whose sequence numbers were made to go on where they were.
    pub(super) counters: u64,
    /// Quotas of what was copied: whoever wants them here sets them.
    pub(super) quotas: Listed<Quota>,
    /// What should have been carried and was not.
    pub(super) not_carried: Listed<NotCarried>,
}

/// A quota as ZooKeeper keeps it.
#[derive(Debug, Serialize)]
pub(super) struct Quota {
    /// Of the node that it is for.
    pub(super) path: String,
    pub(super) limits: String,
}

/// Up to so many, and how many there are.
#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    pub(super) count: u64,
    listed: Vec<T>,
}

/// A node that lacks something, or is lacking.
#[derive(Debug, Serialize)]
pub(super) struct NotCarried {
    pub(super) path: String,
    pub(super) reason: String,
    #[serde(skip)]
    pub(super) permission: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { count: 0, listed: Vec::new() }
    }
}

impl<T> Listed<T> {
    pub(super) fn add(&mut self, one: T) {
        self.count += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(one);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.listed.iter()
    }

    fn show(&self, text: &mut String, title: &str, line: impl Fn(&T) -> String) {
        if self.count == 0 {
            return;
        }
        let _ = write!(text, "\n{title}:");
        for one in self.listed.iter().take(SHOWN_MAX) {
            let _ = write!(text, "\n  {}", line(one));
        }
        let more = self.count - self.listed.len().min(SHOWN_MAX) as u64;
        if more > 0 {
            let _ = write!(text, "\n  and {more} more (-o json lists them)");
        }
    }
}

impl Report {
    /// Nodes that were looked at.
    pub(super) fn done(&self) -> u64 {
        self.created + self.equal + self.replaced + self.gone + self.ephemeral.count + self.not_carried.count
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let (made, replaced) = if self.dry_run { ("to create", "to replace") } else { ("created", "replaced") };
        let mut text = String::new();
        let mut row = |count: u64, what: &str| {
            let _ = writeln!(text, "{count:>10}  {what}");
        };
        row(self.created, made);
        row(self.equal, "there already, and equal");
        if self.replaced > 0 {
            row(self.replaced, replaced);
        }
        if self.counters > 0 {
            row(self.counters, "parents whose sequence numbers go on where they were");
        }
        if self.gone > 0 {
            row(self.gone, "deleted while this ran");
        }
        row(self.ephemeral.count, "ephemeral, not carried: they belong to sessions");
        if self.quotas.count > 0 {
            row(self.quotas.count, "quotas, not carried: set them again");
        }
        row(self.not_carried.count, "not carried for another reason");
        text.truncate(text.trim_end().len());
        self.ephemeral.show(&mut text, "ephemeral", Clone::clone);
        self.quotas.show(&mut text, "quotas", |quota| format!("{}: {}", quota.path, quota.limits));
        self.not_carried.show(&mut text, "not carried", |node| format!("{}: {}", node.path, node.reason));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_sums_and_the_first_paths() {
        let mut report = Report { created: 3, equal: 1, ..Report::default() };
        for nth in 0..22 {
            report.ephemeral.add(format!("/e{nth}"));
        }
        report.not_carried.add(NotCarried { path: "/a".into(), reason: "different data".into(), permission: false });

        let text = report.text();

        assert!(
            text.starts_with("         3  created\n         1  there already, and equal\n        22  ephemeral, "),
            "{text}"
        );
        assert!(
            text.contains("\nephemeral:\n  /e0\n") && text.contains("\n  and 2 more (-o json lists them)\n"),
            "{text}"
        );
        assert!(text.ends_with("\nnot carried:\n  /a: different data"), "{text}");
        assert_eq!(report.done(), 27);
    }
}
