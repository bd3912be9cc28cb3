//! Tensors handed to other libraries, and taken from them, without a copy: by DLPack (dmlc/dlpack), which all frameworks speak.

use std::ffi::c_void;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::ffi::{self, outcome, pointers};

/// A `DLManagedTensor`. Its memory is that of the tensor that it was made of, and stays until both are gone.
#[derive(Debug)]
pub struct DlPack(NonNull<c_void>);

// SAFETY: whoever made it allows its deleter to be called on any thread, as DLPack asks.
unsafe impl Send for DlPack {}

impl DlPack {
    /// Of a tensor of any shape, strides and device; gradients are left behind. An error if DLPack has no such elements.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let mut managed = ptr::null_mut();
        // SAFETY: the tensor is borrowed, and the place outlives the call.
        let made = unsafe { ffi::forebay_c10d_dlpack_of(pointers(slice::from_ref(tensor))[0], &raw mut managed) };
        outcome("tensor to DLPack", made)?;
        NonNull::new(managed).map(Self).ok_or_else(|| Error::new("tensor to DLPack", "libtorch gave none"))
    }

    /// The tensor as libtorch's, over the same memory. An error if libtorch has no such elements or device.
    pub fn tensor(self) -> Result<Tensor> {
        let mut tensor = ptr::null_mut();
        // SAFETY: it is a managed tensor that nobody else has; libtorch takes it over, unless it fails.
        outcome("tensor of DLPack", unsafe { ffi::forebay_c10d_dlpack_tensor(self.0.as_ptr(), &raw mut tensor) })?;
        mem::forget(self);
        // SAFETY: a new tensor, which now belongs to tch.
        Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
    }

    /// The pointer to the `DLManagedTensor`, whose `deleter` whoever takes it has to call.
    pub fn into_raw(self) -> NonNull<c_void> {
        let raw = self.0;
        mem::forget(self);
        raw
    }

    /// Takes a managed tensor over.
    ///
    /// # Safety
    ///
    /// It points to a `DLManagedTensor` that is as it says, whose memory nobody writes to any more, and that nobody else will delete.
    pub unsafe fn from_raw(managed: NonNull<c_void>) -> Self {
        Self(managed)
    }
}

impl Drop for DlPack {
    fn drop(&mut self) {
        // SAFETY: owned, and deleted once.
        unsafe { ffi::forebay_c10d_dlpack_free(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tch::Kind;

    use super::*;
    use crate::memory::tests::owner;
    use crate::over;

    /// What another library sees, by DLPack's header (version 1, which has not changed the unversioned layout).
    #[repr(C)]
    struct Managed {
        data: *mut c_void,
        device_type: i32,
        device_id: i32,
        dimensions: i32,
        code: u8,
        bits: u8,
        lanes: u16,
        shape: *const i64,
        strides: *const i64,
        byte_offset: u64,
        manager: *mut c_void,
        deleter: Option<unsafe extern "C" fn(*mut Self)>,
    }

    fn pixels() -> (Tensor, Arc<AtomicBool>, *const u8) {
        let (owner, gone) = owner((0..24).collect());
        let place = owner.0.as_ptr();
        (over(owner, &[2, 3, 4], Kind::Uint8).expect("tensor"), gone, place)
    }

    #[test]
    fn another_library_sees_the_memory_and_frees_it() {
        let (tensor, gone, place) = pixels();
        let raw = DlPack::of(&tensor.transpose(1, 2)).expect("managed").into_raw().cast::<Managed>();
        drop(tensor);
        // SAFETY: it is what the header says, and here until its deleter is called.
        let seen = unsafe { raw.as_ref() };
        // SAFETY: as above: three of each.
        let (shape, strides) = unsafe { (slice::from_raw_parts(seen.shape, 3), slice::from_raw_parts(seen.strides, 3)) };
        assert_eq!((seen.data.cast_const().cast(), seen.byte_offset, shape, strides), (place, 0, &[2, 4, 3][..], &[12, 1, 4][..]));
        // kDLCPU; kDLUInt of 8 bits.
        assert_eq!((seen.device_type, seen.dimensions, seen.code, seen.bits, seen.lanes), (1, 3, 1, 8, 1));
        assert!(!gone.load(Ordering::SeqCst));
        // SAFETY: called once, by its owner.
        unsafe { seen.deleter.expect("a deleter")(raw.as_ptr()) };
        assert!(gone.load(Ordering::SeqCst));
    }

    #[test]
    fn a_tensor_comes_back_over_the_same_memory() {
        let (tensor, gone, place) = pixels();
        let managed = DlPack::of(&tensor).expect("managed").into_raw();
        drop(tensor);
        // SAFETY: it was just made and belongs to nobody else.
        let back = unsafe { DlPack::from_raw(managed) }.tensor().expect("tensor");
        assert_eq!((back.data_ptr().cast_const().cast(), back.size()), (place, vec![2, 3, 4]));
        assert!(!gone.load(Ordering::SeqCst));
        drop(back);
        assert!(gone.load(Ordering::SeqCst));
    }

    #[test]
    fn what_is_not_taken_is_freed() {
        let (tensor, gone, _) = pixels();
        drop(DlPack::of(&tensor).expect("managed"));
        assert!(!gone.load(Ordering::SeqCst));
        drop(tensor);
        assert!(gone.load(Ordering::SeqCst));
    }
}
