//! The C surface of the shim, declared as in `shim/c10d.h`, and how its messages become errors.

use std::ffi::{CStr, c_char, c_void};

use tch::Tensor;

use crate::error::{Error, Result};
use crate::store::StoreCalls;
use crate::update::Adamw;

unsafe extern "C" {
    pub(crate) fn forebay_c10d_string_assign(string: *mut c_void, bytes: *const u8, count: usize);
    fn forebay_c10d_text_free(text: *mut c_char);

    pub(crate) fn forebay_c10d_group_connect(
        store: StoreCalls,
        prefix: *const c_char,
        rank: i32,
        world: i32,
        hostname: *const c_char,
        timeout_ms: i64,
        silence_ms: i64,
        group: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn forebay_c10d_group_all_reduce_sum(group: *mut c_void, tensors: *const *mut c_void, count: usize) -> *mut c_char;
    pub(crate) fn forebay_c10d_group_broadcast(group: *mut c_void, tensors: *const *mut c_void, count: usize, root: i32) -> *mut c_char;
    pub(crate) fn forebay_c10d_group_all_to_all(
        group: *mut c_void,
        output: *mut c_void,
        input: *mut c_void,
        output_counts: *const i64,
        input_counts: *const i64,
        world: usize,
    ) -> *mut c_char;
    pub(crate) fn forebay_c10d_group_free(group: *mut c_void);

    pub(crate) fn forebay_c10d_abort_handle(group: *mut c_void) -> *mut c_void;
    pub(crate) fn forebay_c10d_abort(handle: *mut c_void, reason: *const c_char) -> *mut c_char;
    pub(crate) fn forebay_c10d_abort_handle_free(handle: *mut c_void);

    pub(crate) fn forebay_c10d_reducer_new(
        group: *mut c_void,
        parameters: *const *mut c_void,
        count: usize,
        first_bucket_bytes: i64,
        bucket_bytes: i64,
        reducer: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn forebay_c10d_reducer_prepare_for_forward(reducer: *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_reducer_prepare_for_backward(reducer: *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_reducer_finish(reducer: *mut c_void, exposed_seconds: *mut f64) -> *mut c_char;
    pub(crate) fn forebay_c10d_reducer_restore(reducer: *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_reducer_free(reducer: *mut c_void) -> *mut c_char;

    pub(crate) fn forebay_c10d_load_cuda() -> *mut c_char;
    pub(crate) fn forebay_c10d_deterministic() -> *mut c_char;

    pub(crate) fn forebay_c10d_bytes(tensor: *mut c_void, data: *mut *const c_void, bytes: *mut usize) -> *mut c_char;
    pub(crate) fn forebay_c10d_over(
        data: *mut c_void,
        shape: *const i64,
        dimensions: usize,
        kind: i8,
        owner: *mut c_void,
        drop: unsafe extern "C" fn(*mut c_void),
        tensor: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn forebay_c10d_pinned(bytes: usize, tensor: *mut *mut c_void, data: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_transfer_begin(
        from: *const *mut c_void,
        count: usize,
        device: i32,
        to: *mut *mut c_void,
        transfer: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn forebay_c10d_transfer_arrive(transfer: *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_transfer_free(transfer: *mut c_void);

    pub(crate) fn forebay_c10d_dlpack_of(tensor: *mut c_void, managed: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_dlpack_tensor(managed: *mut c_void, tensor: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn forebay_c10d_dlpack_free(managed: *mut c_void);

    pub(crate) fn forebay_c10d_norm(tensors: *const *mut c_void, count: usize, norm: *mut f64) -> *mut c_char;
    pub(crate) fn forebay_c10d_scale(tensors: *const *mut c_void, count: usize, factor: f64) -> *mut c_char;
    pub(crate) fn forebay_c10d_adamw(
        parameters: *const *mut c_void,
        gradients: *const *mut c_void,
        first: *const *mut c_void,
        second: *const *mut c_void,
        count: usize,
        settings: *const Adamw,
    ) -> *mut c_char;

    pub(crate) fn forebay_c10d_set_gradients(parameters: *const *mut c_void, gradients: *const *mut c_void, count: usize) -> *mut c_char;
    pub(crate) fn forebay_c10d_clear_gradients(parameters: *const *mut c_void, count: usize) -> *mut c_char;
}

/// Null is success; a message is taken over, freed, and returned as the error of `operation`.
pub(crate) fn outcome(operation: &str, message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message that is not null is a NUL-terminated string that the shim allocated for us.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is freed once.
    unsafe { forebay_c10d_text_free(message) };
    Err(Error::new(operation, text))
}

/// The C++ tensors behind `tensors`, valid as long as these are borrowed.
pub(crate) fn pointers(tensors: &[Tensor]) -> Vec<*mut c_void> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast::<c_void>().cast_mut()).collect()
}
