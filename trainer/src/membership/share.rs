//! Which rank computes which micro-batches: contiguous, as even as can be, a function of the numbers alone.

use std::ops::Range;

/// The micro-batches of `rank` in a generation of `world` members; empty for some ranks if there are more of them.
pub fn share(rank: u32, world: u32, micro_batches: u32) -> Range<u32> {
    let bound = |rank: u64| (rank * u64::from(micro_batches) / u64::from(world.max(1))).min(u64::from(micro_batches)) as u32;
    bound(u64::from(rank))..bound(u64::from(rank) + 1)
}

/// The rank whose [`share`] holds `micro_batch`.
pub fn owner(micro_batch: u32, micro_batches: u32, world: u32) -> u32 {
    let last = (u64::from(micro_batch) + 1) * u64::from(world.max(1)) - 1;
    (last / u64::from(micro_batches.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_micro_batch_has_one_owner_and_shares_are_even(world in 1u32..200, micro_batches in 1u32..200) {
            let all: Vec<u32> = (0..world).flat_map(|rank| share(rank, world, micro_batches)).collect();
            prop_assert_eq!(all, (0..micro_batches).collect::<Vec<_>>());
            for rank in 0..world {
                let mine = share(rank, world, micro_batches);
                prop_assert!((micro_batches / world..=micro_batches.div_ceil(world)).contains(&(mine.len() as u32)));
                for index in mine {
                    prop_assert_eq!(owner(index, micro_batches, world), rank);
                }
            }
        }
    }
}
