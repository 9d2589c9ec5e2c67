//! Many names, or paths, in few pieces of memory: taking them from the tree copies bytes and allocates next to nothing,
//! and what takes longer, bringing them in order, is left to whoever has time.

/// Names as they were found, in no order that could be told to anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// One behind the other.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

/// A name's place, led by what tells most names apart.
#[derive(Clone, Copy)]
struct Placed {
    key: u64,
    start: usize,
    end: usize,
}

impl Names {
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    pub(crate) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    fn iter(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied())
    }

    /// Each by itself, in byte order.
    #[must_use]
    pub fn into_sorted(self) -> Vec<String> {
        let text = self.text.as_bytes();
        let common = self.common_prefix();
        let place = |(start, end)| Placed { key: key(&text[start + common..end]), start, end };
        let mut placed: Vec<Placed> = self.iter().map(place).collect();
        placed.sort_unstable_by(|a, b| a.key.cmp(&b.key).then_with(|| text[a.start..a.end].cmp(&text[b.start..b.end])));
        placed.into_iter().map(|Placed { start, end, .. }| self.text[start..end].to_owned()).collect()
    }

    /// How many bytes all of them begin with alike.
    fn common_prefix(&self) -> usize {
        let text = self.text.as_bytes();
        let first = &text[..self.ends.first().copied().unwrap_or(0)];
        self.iter().fold(first.len(), |common, (start, end)| {
            let alike = first[..common].iter().zip(&text[start..end]).take_while(|(a, b)| a == b);
            alike.count()
        })
    }
}

/// The first eight bytes as a number of the same order.
fn key(name: &[u8]) -> u64 {
    let mut key = [0; 8];
    let length = name.len().min(8);
    key[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Vec<String> {
        let mut packed = Names::default();
        names.iter().for_each(|name| packed.push(name));
        assert_eq!((packed.len(), packed.bytes()), (names.len(), names.concat().len()));
        packed.into_sorted()
    }

    #[test]
    fn names_come_in_byte_order_however_they_begin() {
        for names in [
            &[][..],
            &["only"],
            &["n-0000000002", "n-0000000010", "n-0000000001"],
            &["same-beginning-and-long-enough-b", "same-beginning-and-long-enough-a", "same-beginning"],
            &["12345678b", "12345678a", "12345678", "1234567", ""],
            &["ž", "z", "z\u{1}", "žž", "žluť"],
        ] {
            let mut expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            expected.sort();
            assert_eq!(sorted(names), expected);
        }
    }
}
