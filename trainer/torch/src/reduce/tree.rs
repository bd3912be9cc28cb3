//! The fixed tree in which the gradients of K micro-batches are added, whoever has them.
//!
//! Node `(level, index)` stands for the micro-batches from `index · 2^level` on, `2^level` of them or as many as there are; its
//! value is that of its left child plus that of its right one, or that of its only child. So the value of the root is a
//! function of the leaves: which sums were made first, where and by whom, does not show in a single bit.

use std::collections::BTreeMap;

/// A node: its level, 0 for a leaf, and its index in the level.
pub type Node = (u32, u32);

/// Values of some nodes, none of which lies below another; two siblings are merged at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree<T> {
    leaves: u32,
    nodes: BTreeMap<Node, T>,
}

/// The level of the root over so many leaves.
pub fn height(leaves: u32) -> u32 {
    leaves.max(1).next_power_of_two().trailing_zeros()
}

/// The nodes that hold exactly these leaves when everything that can be merged is, in order.
pub fn cover(leaves: u32, held: impl IntoIterator<Item = u32>) -> Vec<Node> {
    let mut tree = Tree::new(leaves);
    for leaf in held {
        // Nothing is added, so nothing can fail.
        tree.insert((0, leaf), (), &mut |(), ()| {});
    }
    tree.nodes.into_keys().collect()
}

impl<T> Tree<T> {
    /// An empty tree over `leaves` leaves.
    pub fn new(leaves: u32) -> Self {
        Self { leaves, nodes: BTreeMap::new() }
    }

    /// Puts in the value of a node and merges as far as it goes; `add` adds the right value to the left one.
    pub fn insert(&mut self, node: Node, value: T, add: &mut impl FnMut(&mut T, T)) {
        let ((mut level, mut index), mut value) = (node, value);
        while level < height(self.leaves) {
            let right = index | 1;
            let has_right = u64::from(right) << level < u64::from(self.leaves);
            if has_right {
                let Some(sibling) = self.nodes.remove(&(level, index ^ 1)) else { break };
                let (mut left, right) = if index == right { (sibling, value) } else { (value, sibling) };
                add(&mut left, right);
                value = left;
            }
            (level, index) = (level + 1, index / 2);
        }
        self.nodes.insert((level, index), value);
    }

    /// The nodes and their values, in the order of [`cover`].
    pub fn nodes(&self) -> impl Iterator<Item = (&Node, &T)> {
        self.nodes.iter()
    }

    /// The value of the root, once all leaves are in.
    pub fn root(&self) -> Option<&T> {
        self.nodes.get(&(height(self.leaves), 0))
    }

    /// Takes all values out.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum as brackets: what was added to what.
    fn join(left: &mut String, right: String) {
        *left = format!("({left}+{right})");
    }

    fn alone(leaves: u32) -> String {
        let mut tree = Tree::new(leaves);
        (0..leaves).for_each(|leaf| tree.insert((0, leaf), leaf.to_string(), &mut join));
        tree.root().expect("all leaves").clone()
    }

    #[test]
    fn the_tree_is_the_one_that_is_described() {
        assert_eq!(alone(1), "0");
        assert_eq!(alone(4), "((0+1)+(2+3))");
        assert_eq!(alone(7), "(((0+1)+(2+3))+((4+5)+6))");
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_who_has_what_and_what_comes_first(owners in prop::collection::vec(0usize..5, 1..40), order in any::<u64>()) {
            let leaves = owners.len() as u32;
            let mut sequence: Vec<u32> = (0..leaves).collect();
            sequence.sort_by_key(|&leaf| (u64::from(leaf) + 1).wrapping_mul(order | 1));
            let mut parts = vec![Tree::new(leaves); 5];
            for leaf in sequence {
                parts[owners[leaf as usize]].insert((0, leaf), leaf.to_string(), &mut join);
            }
            let mut whole = Tree::new(leaves);
            for (owner, part) in parts.into_iter().enumerate() {
                let held = (0..leaves).filter(|&leaf| owners[leaf as usize] == owner);
                prop_assert_eq!(part.nodes().map(|(&node, _)| node).collect::<Vec<_>>(), cover(leaves, held));
                part.nodes.into_iter().for_each(|(node, value)| whole.insert(node, value, &mut join));
            }
            prop_assert_eq!(whole.root(), Some(&alone(leaves)));
        }
    }
}
