//! The names of places, and the order they stand in. It must be Curator's to the letter: two clients that order
//! the same names differently both believe to be first.

/// What stands before the number in a name: Curator's lock name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(&'static str);

impl Label {
    /// Curator's `InterProcessMutex` and `LeaderSelector`.
    pub(crate) const LOCK: Self = Self("lock-");
    /// Curator's `LeaderLatch`.
    pub(crate) const LATCH: Self = Self("latch-");

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    /// What names are ordered by, byte by byte: all after the last label. So numbers that have wrapped around
    /// come first, and the newest of them first of all; it is no sensible order, but everybody's.
    fn key(self, name: &str) -> &str {
        name.rfind(self.0).map_or(name, |at| &name[at + self.0.len()..])
    }

    /// Whether it is a place at all. Other children of the node are none of ours.
    fn is_place(self, name: &str) -> bool {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        digits >= 10 && name.contains(self.0)
    }

    /// The places among these names, in the order of the line.
    pub(crate) fn in_order(self, mut names: Vec<String>) -> Vec<String> {
        names.retain(|name| self.is_place(name));
        // Stable, as Java's.
        names.sort_by(|a, b| self.key(a).cmp(self.key(b)));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(label: Label, names: &[&str]) -> Vec<String> {
        label.in_order(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn names_stand_in_curators_order_also_after_the_counter_has_wrapped() {
        let names = ["_c_b-lock-2147483647", "_c_c-lock-0000000003", "_c_a-lock--2147483648", "_c_d-lock--2147483647"];

        assert_eq!(
            ordered(Label::LOCK, &names),
            ["_c_d-lock--2147483647", "_c_a-lock--2147483648", "_c_c-lock-0000000003", "_c_b-lock-2147483647"]
        );
    }

    #[test]
    fn the_mark_before_the_label_has_no_say_in_the_order() {
        let names = [
            "_c_ffffffff-ffff-4fff-8fff-ffffffffffff-lock-0000000001",
            "_c_00000000-0000-4000-8000-000000000000-lock-0000000002",
        ];

        assert_eq!(ordered(Label::LOCK, &names), names);
    }

    #[test]
    fn the_last_label_counts() {
        assert_eq!(Label::LOCK.key("_c_x-lock-lock-0000000007"), "0000000007");
        assert_eq!(Label::LATCH.key("no label"), "no label");
    }

    #[test]
    fn foreign_children_are_no_places() {
        let names = ["stray", "lock-", "lock-123", "_c_x-latch-0000000001", "0000000001", "_c_x-lock-0000000002"];

        assert_eq!(ordered(Label::LOCK, &names), ["_c_x-lock-0000000002"]);
        assert_eq!(ordered(Label::LATCH, &names), ["_c_x-latch-0000000001"]);
    }

    #[test]
    fn unprotected_places_are_places() {
        assert_eq!(
            ordered(Label::LOCK, &["lock-0000000002", "lock-0000000001"]),
            ["lock-0000000001", "lock-0000000002"]
        );
    }
}
