//! Memory of the host that tensors lie in, and its way to a GPU.
//!
//! A batch that was made in memory of Rust becomes a tensor as it is. Where a GPU computes, that memory is pinned, so that the GPU
//! reads it by itself, and it does so beside whatever it computes: on a stream for copies.
//! Promises: memory is used again only after nothing refers to it and no copy reads it any more.

use std::ffi::c_void;
use std::{ptr, slice};

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::ffi::{self, outcome, pointers};

/// A tensor over the bytes of `owner`, without a copy: of this shape, row-major. `owner` is dropped with the last tensor that refers
/// to it, on whatever thread that is.
pub fn over<O: AsMut<[u8]> + Send + 'static>(owner: O, shape: &[i64], kind: Kind) -> Result<Tensor> {
    let owner = Box::into_raw(Box::new(owner));
    // SAFETY: it was just made and belongs to nobody else.
    let bytes = unsafe { &mut *owner }.as_mut();
    let expected = shape.iter().try_fold(kind.elt_size_in_bytes(), |product, &side| product.checked_mul(usize::try_from(side).ok()?));
    let (data, found, aligned) = (bytes.as_mut_ptr(), bytes.len(), bytes.as_ptr().align_offset(kind.elt_size_in_bytes()) == 0);
    let scalar = scalar_type(kind).filter(|_| aligned && expected == Some(found));
    let Some(scalar) = scalar else {
        // SAFETY: as above; nothing refers to it yet.
        drop(unsafe { Box::from_raw(owner) });
        let message = format!("found {found} bytes, expected those of {kind:?} {shape:?}, which begin at a multiple of an element's size");
        return Err(Error::new("tensor over memory", message));
    };
    let mut tensor = ptr::null_mut();
    // SAFETY: the bytes belong to `owner`, which does not move and is touched by nobody until `free` drops it; that happens once,
    // when the last tensor is gone, or in the call if it fails. They are as long as the shape says.
    let made =
        unsafe { ffi::forebay_c10d_over(data.cast(), shape.as_ptr(), shape.len(), scalar, owner.cast(), free::<O>, &raw mut tensor) };
    outcome("tensor over memory", made)?;
    // SAFETY: a new tensor, which now belongs to tch.
    Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
}

/// Shows the bytes of a contiguous tensor as they lie in memory; those of one that is elsewhere are copied here first.
///
/// `see` must not compute with tensors: one of them may be this one by another name.
pub fn read<T>(tensor: &Tensor, see: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let here = tensor.to_device(Device::Cpu);
    let (raw, mut data, mut bytes) = (pointers(slice::from_ref(&here))[0], ptr::null(), 0);
    // SAFETY: the tensor is borrowed, and both places outlive the call.
    outcome("bytes of a tensor", unsafe { ffi::forebay_c10d_bytes(raw, &raw mut data, &raw mut bytes) })?;
    if bytes == 0 {
        return Ok(see(&[]));
    }
    // SAFETY: so many bytes belong to the tensor, which is held until `see` has returned; it does not write to them.
    Ok(see(unsafe { slice::from_raw_parts(data.cast(), bytes) }))
}

unsafe extern "C" fn free<O>(owner: *mut c_void) {
    // SAFETY: `over` made it of a box of this type, and libtorch calls this once.
    drop(unsafe { Box::from_raw(owner.cast::<O>()) });
}

/// libtorch's number of an element type, where batches have it.
fn scalar_type(kind: Kind) -> Option<i8> {
    match kind {
        Kind::Uint8 => Some(0),
        Kind::Int => Some(3),
        Kind::Half => Some(5),
        Kind::Float => Some(6),
        Kind::BFloat16 => Some(15),
        _ => None,
    }
}

/// Memory of the host that GPUs read by themselves. libtorch keeps what was freed for the next one of its size.
pub struct Pinned {
    /// Holds the memory.
    _tensor: Tensor,
    data: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to it alone, and libtorch frees it on any thread.
unsafe impl Send for Pinned {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// So many bytes, at least one, of any content; an error where there is no GPU or no memory left.
    pub fn new(bytes: usize) -> Result<Self> {
        let bytes = bytes.max(1);
        let (mut tensor, mut data) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: both places outlive the call.
        outcome("pinned memory", unsafe { ffi::forebay_c10d_pinned(bytes, &raw mut tensor, &raw mut data) })?;
        // SAFETY: a new tensor, which now belongs to tch.
        let tensor = unsafe { Tensor::from_ptr(tensor.cast()) };
        // SAFETY: so many bytes belong to the tensor; they may hold what another batch left, or nothing that was ever written.
        unsafe { ptr::write_bytes(data.cast::<u8>(), 0, bytes) };
        Ok(Self { _tensor: tensor, data: data.cast(), bytes })
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as long as the tensor is there, which nobody else refers to; the bytes were written when it was made.
        unsafe { slice::from_raw_parts(self.data, self.bytes) }
    }
}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.data, self.bytes) }
    }
}

/// Tensors on their way to a device.
///
/// Dropping it waits for the copies, so that what they read is not written to before.
#[derive(Debug)]
pub struct Transfer {
    /// None where nothing has to be copied.
    raw: Option<*mut c_void>,
}

impl Transfer {
    /// Begins to copy tensors of the host to `device`. To a GPU that happens beside what it computes, without waiting if their
    /// memory is pinned; those that are returned are to be used after [`Self::arrive`].
    pub fn begin(tensors: &[Tensor], device: Device) -> Result<(Vec<Tensor>, Self)> {
        let Device::Cuda(number) = device else {
            return Ok((tensors.iter().map(|tensor| tensor.to_device(device)).collect(), Self { raw: None }));
        };
        let (from, mut to, mut raw) = (pointers(tensors), vec![ptr::null_mut(); tensors.len()], ptr::null_mut());
        // SAFETY: there is a place for each tensor; the transfer holds those that it copies from until it is freed.
        let begun = unsafe { ffi::forebay_c10d_transfer_begin(from.as_ptr(), from.len(), number as i32, to.as_mut_ptr(), &raw mut raw) };
        outcome("copy to a GPU", begun)?;
        // SAFETY: new tensors, which now belong to tch.
        let to = to.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor.cast()) }).collect();
        Ok((to, Self { raw: Some(raw) }))
    }

    /// What this thread computes from now on finds the copies there. The device waits for them, this thread does not.
    pub fn arrive(&self) -> Result<()> {
        // SAFETY: it is freed only when it is dropped.
        self.raw.map_or(Ok(()), |raw| outcome("copy to a GPU", unsafe { ffi::forebay_c10d_transfer_arrive(raw) }))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(raw) = self.raw {
            // SAFETY: freed once.
            unsafe { ffi::forebay_c10d_transfer_free(raw) };
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    pub(crate) struct Owner(pub(crate) Vec<u8>, Arc<AtomicBool>);

    impl AsMut<[u8]> for Owner {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    /// An owner of bytes, and whether it was dropped.
    pub(crate) fn owner(bytes: Vec<u8>) -> (Owner, Arc<AtomicBool>) {
        let gone = Arc::new(AtomicBool::new(false));
        (Owner(bytes, Arc::clone(&gone)), gone)
    }

    #[test]
    fn a_tensor_is_over_the_memory_and_frees_it_when_the_last_one_is_gone() {
        let (owner, gone) = owner((0..12).collect());
        let place = owner.0.as_ptr();
        let tensor = over(owner, &[3, 4], Kind::Uint8).expect("tensor");
        assert_eq!(tensor.data_ptr().cast_const().cast(), place);
        let row = tensor.narrow(0, 1, 1);
        drop(tensor);
        assert_eq!(Vec::<u8>::try_from(row.reshape([-1])).expect("values"), [4, 5, 6, 7]);
        assert!(!gone.load(Ordering::SeqCst));
        drop(row);
        assert!(gone.load(Ordering::SeqCst));
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_refused_and_freed() {
        for (bytes, shape, kind) in [(12, [3, 4], Kind::Float), (12, [-3, 4], Kind::Uint8), (16, [1, 4], Kind::Double)] {
            let (owner, gone) = owner(vec![0; bytes]);
            assert!(over(owner, &shape, kind).is_err());
            assert!(gone.load(Ordering::SeqCst));
        }
    }

    #[test]
    fn bytes_are_shown_where_they_lie() {
        let tensor = Tensor::from_slice(&[1i32, 2, 3, 4]).view([2, 2]);
        let seen = read(&tensor.narrow(0, 1, 1), |bytes| (bytes.as_ptr(), bytes.to_vec())).expect("contiguous");
        assert_eq!(seen.1, [3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(seen.0 as usize, tensor.data_ptr() as usize + 8);
        assert!(read(&tensor.transpose(0, 1), <[u8]>::len).is_err());
        assert_eq!(read(&tensor.narrow(0, 0, 0), <[u8]>::len).ok(), Some(0));
    }

    #[test]
    fn there_is_no_pinned_memory_without_a_gpu() {
        // With one, the tests of the trainer use it.
        if !tch::Cuda::is_available() {
            assert!(Pinned::new(64).is_err());
        }
    }
}
