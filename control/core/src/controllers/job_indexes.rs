//! Sets of completion indexes as a Job's status and its success policy write them: `1,3-5,7`.

use std::fmt;

/// Completion indexes: intervals that rise and do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a set, as far as it is below `completions`; what is malformed is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut read = Self::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                let last = last.min(completions.saturating_sub(1));
                if first >= 0 && first <= last {
                    read.0.push((first, last));
                }
            }
        }
        read.normalize();
        read
    }

    /// Adds single indexes.
    pub fn extend(&mut self, indexes: impl IntoIterator<Item = i32>) {
        self.0.extend(indexes.into_iter().map(|i| (i, i)));
        self.normalize();
    }

    /// Adds another set's indexes.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
        self.normalize();
    }

    fn normalize(&mut self) {
        self.0.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0.drain(..) {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        self.0 = joined;
    }

    /// Whether an index is in the set.
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes there are.
    pub fn total(&self) -> i32 {
        self.0.iter().fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many indexes are in both sets.
    pub fn overlap(&self, other: &Self) -> i32 {
        self.common(other).fold(0, |sum: i32, (first, last)| sum.saturating_add(last - first + 1))
    }

    /// The lowest index that is in both sets.
    pub fn first_common(&self, other: &Self) -> Option<i32> {
        self.common(other).next().map(|(first, _)| first)
    }

    /// The intervals that both sets have, rising.
    fn common(&self, other: &Self) -> impl Iterator<Item = (i32, i32)> {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let ((a, b), (c, d)) = (**ours.peek()?, **theirs.peek()?);
                if b <= d {
                    ours.next()
                } else {
                    theirs.next()
                };
                if a.max(c) <= b.min(d) {
                    return Some((a.max(c), b.min(d)));
                }
            }
        })
    }

    /// The indexes below `completions` that are not in the set, rising.
    pub fn missing(&self, completions: i32) -> impl Iterator<Item = i32> {
        let ends = self.0.iter().map(|(_, last)| last.saturating_add(1));
        let starts = self.0.iter().map(|(first, _)| *first).chain([completions]);
        std::iter::once(0).chain(ends).zip(starts).flat_map(move |(from, to)| from..to.min(completions))
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn read_and_written() {
        for (text, completions, written) in [
            ("", 10, ""),
            ("1,3-5,7", 10, "1,3-5,7"),
            ("1-2", 10, "1,2"),
            ("1,2,3", 10, "1-3"),
            ("0-20", 10, "0-9"),
            ("5,12", 10, "5"),
            ("x,3,4-y,-2,9-5", 10, "3"),
        ] {
            assert_eq!(Indexes::parse(text, completions).to_string(), written, "{text}");
        }
    }

    proptest! {
        #[test]
        fn like_a_set(a in proptest::collection::btree_set(0..40_i32, 0..20), b in proptest::collection::btree_set(0..40_i32, 0..20)) {
            let of = |set: &BTreeSet<i32>| { let mut i = Indexes::default(); i.extend(set.iter().copied()); i };
            let (mut x, y) = (of(&a), of(&b));
            prop_assert_eq!(&Indexes::parse(&x.to_string(), 40), &x);
            prop_assert_eq!(x.overlap(&y), i32::try_from(a.intersection(&b).count()).unwrap());
            prop_assert_eq!(x.first_common(&y), a.intersection(&b).min().copied());
            x.merge(&y);
            let union: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(x.total(), i32::try_from(union.len()).unwrap());
            for i in 0..40 { prop_assert_eq!(x.has(i), union.contains(&i)); }
            let missing: Vec<i32> = (0..40).filter(|i| !union.contains(i)).collect();
            prop_assert_eq!(x.missing(40).collect::<Vec<_>>(), missing);
            let few: Vec<i32> = (0..10).filter(|i| !union.contains(i)).collect();
            prop_assert_eq!(x.missing(10).collect::<Vec<_>>(), few);
        }
    }
}
