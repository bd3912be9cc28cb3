//! Memory of batches: aligned to 64 bytes, and used again.
//!
//! Fresh memory costs more than what is written to it: the system hands it out page by page, each cleared. So an arena goes
//! back to its pool when its batch is dropped, and the next batch of that size is made in it. Promises: a pool keeps no more
//! arenas than were in use at a time, and they go with the pool's last user. What is in an arena is not cleared.
//! Deliberately absent: memory that a GPU reads by itself. Whoever has one gives it out ([`Memory`]).

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow::buffer::MutableBuffer;
use bytemuck::Pod;

/// Memory at a multiple of 64 bytes, which stays where it is and is of the same size as long as it is there.
pub trait Block: AsRef<[u8]> + AsMut<[u8]> + Send + Sync {}

impl<T: AsRef<[u8]> + AsMut<[u8]> + Send + Sync> Block for T {}

/// Gives out blocks of so many bytes, of any content; none where it has no more: then the system's memory is used.
pub type Memory = Arc<dyn Fn(usize) -> Option<Box<dyn Block>> + Send + Sync>;

/// Memory of the system.
struct System(MutableBuffer);

impl System {
    fn block(bytes: usize) -> Box<dyn Block> {
        // Cleared by the system, page by page, when it is first written to.
        Box::new(Self(MutableBuffer::from_len_zeroed(bytes)))
    }
}

impl AsRef<[u8]> for System {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl AsMut<[u8]> for System {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_slice_mut()
    }
}

/// Arenas that are free, and where more come from.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    free: Arc<Mutex<Vec<Box<dyn Block>>>>,
    memory: Option<Memory>,
}

impl Pool {
    /// One whose arenas are of this memory; without any, of the system's.
    pub(crate) fn of(memory: Option<Memory>) -> Self {
        Self { free: Arc::default(), memory }
    }

    /// An arena of `length` numbers, of any value.
    pub(crate) fn take<T: Pod>(&self, length: usize) -> Arena<T> {
        let bytes = length * size_of::<T>();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |size: usize| size >= bytes && size / 2 <= bytes.max(1024);
        let taken = free.iter().rposition(|block| fits((**block).as_ref().len())).map(|place| free.swap_remove(place));
        // One that fits no batch any more makes room for one that does.
        if taken.is_none() {
            free.pop();
        }
        drop(free);
        let given = || self.memory.as_ref().and_then(|memory| memory(bytes)).filter(|block| (**block).as_ref().len() >= bytes);
        let block = taken.or_else(given).unwrap_or_else(|| System::block(bytes));
        Arena { block: Some(block), bytes, pool: Some(self.clone()), out: None, kind: PhantomData }
    }
}

/// Numbers side by side, the first at a multiple of 64 bytes. A copy of it belongs to no pool.
pub struct Arena<T> {
    // An option only so that it can go back to its pool when the arena is dropped.
    block: Option<Box<dyn Block>>,
    bytes: usize,
    pool: Option<Pool>,
    out: Option<Arc<Out>>,
    kind: PhantomData<T>,
}

/// Bytes of arenas that are with the consumer, and who is told when enough have come back.
pub(crate) struct Out {
    bytes: AtomicU64,
    enough: AtomicU64,
    back: Condvar,
}

impl Default for Out {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(0), enough: AtomicU64::new(Self::NEVER), back: Condvar::new() }
    }
}

impl Out {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nobody waits for arenas to come back.
    pub(crate) const NEVER: u64 = u64::MAX;

    /// From now on [`Self::back`] is notified when no more than so many bytes are left with the consumer.
    pub(crate) fn wait_for(&self, enough: u64) {
        self.enough.store(enough, Ordering::Relaxed);
    }

    /// Notified when enough arenas have come back; without a lock, so whoever waits for it alone may miss it.
    pub(crate) fn back(&self) -> &Condvar {
        &self.back
    }
}

impl<T: Pod> Arena<T> {
    /// The bytes of the numbers, as they are in memory.
    pub fn as_bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &(**block).as_ref()[..self.bytes])
    }

    /// The same, to be written.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.bytes;
        self.block.as_mut().map_or(&mut [], |block| &mut (**block).as_mut()[..bytes])
    }

    /// Counts it as one that is with the consumer, until it is dropped.
    pub(crate) fn hand_out(&mut self, out: &Arc<Out>) {
        out.bytes.fetch_add(self.bytes as u64, Ordering::Relaxed);
        self.out = Some(Arc::clone(out));
    }
}

impl<T: Pod> Deref for Arena<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.as_bytes())
    }
}

impl<T: Pod> DerefMut for Arena<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.as_bytes_mut())
    }
}

/// For whoever takes the memory over as it is.
impl<T: Pod> AsMut<[u8]> for Arena<T> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.as_bytes_mut()
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            let (own, enough) = (self.bytes as u64, out.enough.load(Ordering::Relaxed));
            let before = out.bytes.fetch_sub(own, Ordering::Relaxed);
            if before > enough && before - own <= enough {
                out.back.notify_all();
            }
        }
        if let Some((pool, block)) = self.pool.take().zip(self.block.take()) {
            pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        }
    }
}

impl<T: Pod> Clone for Arena<T> {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl<T: Pod> From<&[T]> for Arena<T> {
    fn from(numbers: &[T]) -> Self {
        let bytes = size_of_val(numbers);
        let mut arena = Self { block: Some(System::block(bytes)), bytes, pool: None, out: None, kind: PhantomData };
        arena.copy_from_slice(numbers);
        arena
    }
}

impl<T: Pod + PartialEq> PartialEq for Arena<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Arena<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_aligned_and_comes_back() {
        let pool = Pool::default();
        let mut one = pool.take::<f32>(1000);
        one.fill(7.0);
        let (place, copy) = (one.as_ptr() as usize, one.clone());
        assert_eq!((one.len(), one.as_bytes().len(), place % 64), (1000, 4000, 0));
        let other = pool.take::<f32>(1000);
        assert_ne!(other.as_ptr() as usize, place);
        drop(one);
        assert_eq!(copy[999], 7.0);
        drop(copy);
        let again = pool.take::<u16>(1999);
        assert_eq!((again.as_ptr() as usize, again.len()), (place, 1999));
    }

    #[test]
    fn a_pool_keeps_what_was_in_use_at_a_time_and_no_more() {
        let pool = Pool::default();
        let kept = || pool.free.lock().expect("pool").len();
        for length in [100, 100, 5000, 100, 90_000, 3] {
            drop((pool.take::<u32>(length), pool.take::<u32>(length)));
            assert!(kept() <= 2, "{} kept after one of {length}", kept());
        }
    }

    #[test]
    fn arenas_are_of_the_memory_that_is_given() {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let pool = Pool::of(Some(Arc::new(move |bytes| {
            count.fetch_add(1, Ordering::Relaxed);
            (bytes <= 4096).then(|| System::block(4096))
        })));
        let one = pool.take::<u32>(1000);
        assert_eq!((one.len(), one.as_bytes().len()), (1000, 4000));
        drop(one);
        drop(pool.take::<u32>(1024));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "one that came back is used again");
        let large = pool.take::<f32>(5000);
        assert_eq!((large.len(), asked.load(Ordering::Relaxed)), (5000, 2), "where there is no more it is the system's");
    }
}
