//! Memory of batches: aligned to 64 bytes, and used again.
//!
//! Fresh memory costs more than what is written to it: the system hands it out page by page, each cleared. So an arena goes
//! back to its pool when its batch is dropped, and the next batch of that size is made in it. Promises: a pool keeps no more
//! arenas than were in use at a time, and they go with the pool's last user. What is in an arena is not cleared.
//! Deliberately absent: memory that a GPU reads directly, which its library has to give out.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow::buffer::MutableBuffer;
use arrow::datatypes::ArrowNativeType;

/// Arenas that are free.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    free: Arc<Mutex<Vec<MutableBuffer>>>,
}

impl Pool {
    /// An arena of `length` numbers, of any value.
    pub(crate) fn take<T: ArrowNativeType>(&self, length: usize) -> Arena<T> {
        let bytes = length * size_of::<T>();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().rposition(|buffer| buffer.capacity() >= bytes && buffer.capacity() / 2 <= bytes.max(1024));
        let taken = fitting.map(|place| free.swap_remove(place));
        // One that fits no batch any more makes room for one that does.
        if taken.is_none() {
            free.pop();
        }
        drop(free);
        let mut buffer = taken.unwrap_or_else(|| MutableBuffer::with_capacity(bytes));
        buffer.resize(bytes, 0);
        Arena { buffer, pool: Some(self.clone()), out: None, kind: PhantomData }
    }
}

/// Numbers side by side, the first at a multiple of 64 bytes. A copy of it belongs to no pool.
pub struct Arena<T> {
    buffer: MutableBuffer,
    pool: Option<Pool>,
    out: Option<Arc<Out>>,
    kind: PhantomData<T>,
}

/// Bytes of arenas that are with the consumer, and who is told when one comes back.
#[derive(Default)]
pub(crate) struct Out {
    bytes: AtomicU64,
    back: Condvar,
}

impl Out {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notified when an arena comes back; without a lock, so whoever waits for it alone may miss it.
    pub(crate) fn back(&self) -> &Condvar {
        &self.back
    }
}

impl<T: ArrowNativeType> Arena<T> {
    /// The bytes of the numbers, as they are in memory.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_slice()
    }

    /// The same, to be written.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.as_slice_mut()
    }

    /// Counts it as one that is with the consumer, until it is dropped.
    pub(crate) fn hand_out(&mut self, out: &Arc<Out>) {
        out.bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.out = Some(Arc::clone(out));
    }
}

impl<T: ArrowNativeType> Deref for Arena<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.buffer.typed_data()
    }
}

impl<T: ArrowNativeType> DerefMut for Arena<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.buffer.typed_data_mut()
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            out.bytes.fetch_sub(self.buffer.len() as u64, Ordering::Relaxed);
            out.back.notify_all();
        }
        if let Some(pool) = self.pool.take() {
            let buffer = std::mem::take(&mut self.buffer);
            pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

impl<T: ArrowNativeType> Clone for Arena<T> {
    fn clone(&self) -> Self {
        let mut buffer = MutableBuffer::with_capacity(self.buffer.len());
        buffer.extend_from_slice(self.buffer.as_slice());
        Self { buffer, pool: None, out: None, kind: PhantomData }
    }
}

impl<T: ArrowNativeType> From<&[T]> for Arena<T> {
    fn from(numbers: &[T]) -> Self {
        let mut buffer = MutableBuffer::with_capacity(size_of_val(numbers));
        buffer.extend_from_slice(numbers);
        Self { buffer, pool: None, out: None, kind: PhantomData }
    }
}

impl<T: ArrowNativeType> PartialEq for Arena<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ArrowNativeType> fmt::Debug for Arena<T> {
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
}
