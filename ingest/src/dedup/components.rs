//! Connected components of records that share band keys (union-find with path halving, Tarjan and van Leeuwen 1984).
//!
//! What lies in different components shares no key, so each can be judged alone. Memory: 4 bytes a record.

/// Records by number, and which are connected.
pub(crate) struct Components {
    parents: Vec<u32>,
}

impl Components {
    /// `records` records, none connected.
    pub(crate) fn new(records: usize) -> Self {
        Self { parents: (0..records as u32).collect() }
    }

    /// Connects two records; the smaller number stays the root, so that roots do not depend on the order of calls.
    pub(crate) fn connect(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parents[high as usize] = low;
    }

    /// The least record of the component.
    pub(crate) fn root(&mut self, mut record: u32) -> u32 {
        while self.parents[record as usize] != record {
            let above = self.parents[self.parents[record as usize] as usize];
            self.parents[record as usize] = above;
            record = above;
        }
        record
    }

    /// The component of every record that is connected to another or that `is_wanted` anyway; [`ALONE`] for the others.
    pub(crate) fn labels(mut self, is_wanted: impl Fn(u32) -> bool) -> Vec<u32> {
        let records = self.parents.len() as u32;
        let mut is_connected = vec![false; records as usize];
        for record in 0..records {
            let root = self.root(record);
            if root != record {
                is_connected[root as usize] = true;
                is_connected[record as usize] = true;
            }
        }
        let mut labels = self.parents;
        for record in 0..records {
            // Roots are smaller than their members, so a member's root has been labelled with itself, or is alone.
            if !is_connected[record as usize] && !is_wanted(record) {
                labels[record as usize] = ALONE;
            }
        }
        labels
    }
}

/// Label of a record without a component.
pub(crate) const ALONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_are_the_least_members_whatever_the_order(edges in prop::collection::vec((0u32..30, 0u32..30), 0..30), turn in 0usize..30) {
            let label = |edges: &[(u32, u32)]| {
                let mut components = Components::new(30);
                edges.iter().for_each(|(a, b)| components.connect(*a, *b));
                components.labels(|record| record == 7)
            };
            let mut turned = edges.clone();
            turned.rotate_left(turn.min(edges.len()));
            let labels = label(&edges);
            prop_assert_eq!(&labels, &label(&turned));
            for (a, b) in edges.iter().filter(|(a, b)| a != b) {
                prop_assert_eq!(labels[*a as usize], labels[*b as usize]);
            }
            for (record, label) in labels.iter().enumerate() {
                prop_assert!(*label == ALONE || (*label as usize <= record && labels[*label as usize] == *label));
            }
            prop_assert_ne!(labels[7], ALONE);
        }
    }
}
