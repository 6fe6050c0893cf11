//! What one connection got of each publisher: whether once, and in order.

use std::collections::BTreeSet;

use crate::mark::Mark;

/// A connection's view of all publishers; equal if two got the same in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    publishers: Vec<Progress>,
    /// A hash over everything, in order.
    order: u64,
}

/// A connection's view of one publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The number after the highest that came.
    next: u32,
    /// The numbers below that which have not come.
    missing: BTreeSet<u32>,
    twice: u32,
    late: u32,
}

/// What a publisher knows of its publishes.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) name: String,
    pub(crate) sent: u32,
    pub(crate) refused: Refused,
}

impl Published {
    pub(crate) fn admitted(&self) -> u64 {
        let refused = match &self.refused {
            Refused::Exactly(refused) => refused.len() as u64,
            Refused::Some(refused) => u64::from(*refused),
        };
        u64::from(self.sent).saturating_sub(refused)
    }
}

/// Which publishes the server refused.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// These.
    Exactly(BTreeSet<u32>),
    /// So many; the protocol does not say which.
    Some(u32),
}

impl Trail {
    pub(crate) fn new(publishers: usize) -> Self {
        Self { publishers: vec![Progress::default(); publishers], order: 0 }
    }

    /// Takes note of a delivery.
    pub(crate) fn follow(&mut self, mark: Mark) {
        let Some(progress) = self.publishers.get_mut(usize::from(mark.publisher)) else { return };
        progress.follow(mark.sequence);
        let step = u64::from(mark.publisher) << 32 | u64::from(mark.sequence);
        self.order = (self.order ^ step).wrapping_mul(ODD).rotate_left(23);
    }

    /// A hash over everything, in order.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    /// Everything that is wrong with it, given what was published; so many may be missing.
    pub(crate) fn faults(&self, published: &[Published], mut forgiven: u64) -> Vec<String> {
        let mut faults = Vec::new();
        for (progress, published) in self.publishers.iter().zip(published) {
            let name = &published.name;
            faults.extend(
                progress
                    .faults(published, &mut forgiven)
                    .into_iter()
                    .map(|fault| format!("{name}: {fault}")),
            );
        }
        faults
    }
}

impl Progress {
    fn follow(&mut self, sequence: u32) {
        if sequence >= self.next {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            self.late += 1;
        } else {
            self.twice += 1;
        }
    }

    fn faults(&self, published: &Published, forgiven: &mut u64) -> Vec<String> {
        let mut missing = self.missing.clone();
        missing.extend(self.next..published.sent);
        let mut forgive = |lost: usize| {
            let pardoned = (*forgiven).min(lost as u64);
            *forgiven -= pardoned;
            lost - pardoned as usize
        };
        let mut faults = Vec::new();
        let mut fault = |count: usize, what: &str| {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        };
        fault(self.twice as usize, "came twice");
        fault(self.late as usize, "came out of order");
        match &published.refused {
            Refused::Exactly(refused) => {
                fault(forgive(missing.difference(refused).count()), "are lost");
                fault(refused.difference(&missing).count(), "came though refused");
            }
            Refused::Some(refused) => {
                let refused = *refused as usize;
                fault(forgive(missing.len().saturating_sub(refused)), "are lost");
                fault(refused.saturating_sub(missing.len()), "came though refused");
            }
        }
        faults
    }
}

/// Any odd number with bits all over.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(sequences: &[u32]) -> Trail {
        let mut trail = Trail::new(2);
        for &sequence in sequences {
            trail.follow(Mark { publisher: 1, sequence, due: 0 });
        }
        trail
    }

    fn faults(sequences: &[u32], sent: u32, refused: Refused) -> Vec<String> {
        let published = |sent, refused| Published { name: "it".to_owned(), sent, refused };
        let published = [published(0, Refused::Some(0)), published(sent, refused)];
        trail(sequences).faults(&published, 0)
    }

    #[test]
    fn all_once_and_in_order_is_no_fault() {
        assert!(faults(&[0, 1, 2], 3, Refused::Exactly(BTreeSet::new())).is_empty());
        assert!(faults(&[0, 2], 4, Refused::Exactly([1, 3].into())).is_empty());
        assert!(faults(&[1, 2], 4, Refused::Some(2)).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let none = || Refused::Exactly(BTreeSet::new());
        assert_eq!(faults(&[0, 2], 3, none()), ["it: 1 are lost"]);
        assert_eq!(faults(&[0, 1], 3, none()), ["it: 1 are lost"]);
        assert_eq!(faults(&[0, 1, 1, 0], 2, none()), ["it: 2 came twice"]);
        assert_eq!(faults(&[1, 0], 2, none()), ["it: 1 came out of order"]);
        assert_eq!(faults(&[0, 1], 2, Refused::Exactly([1].into())), ["it: 1 came though refused"]);
        assert_eq!(faults(&[0, 1], 2, Refused::Some(1)), ["it: 1 came though refused"]);
        assert_eq!(faults(&[0], 2, Refused::Exactly([0].into())).len(), 2);
    }

    #[test]
    fn order_between_publishers_counts() {
        let mark = |publisher| Mark { publisher, sequence: 0, due: 0 };
        let (mut one, mut other) = (Trail::new(2), Trail::new(2));
        [0, 1].into_iter().for_each(|publisher| one.follow(mark(publisher)));
        [1, 0].into_iter().for_each(|publisher| other.follow(mark(publisher)));
        assert_ne!(one, other);
    }
}
