//! The key-value store through which the members of a group find each other.
//!
//! A [`Store`] lives in Rust and is called back from C++. Promises: an error from [`Store::wait`] or [`Store::get`] ends
//! a rendezvous at once; a panic in a store is an error, it does not unwind into C++.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ffi;

/// Keys and values shared by the members of a group.
pub trait Store: Send + Sync {
    /// Sets a key.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String>;

    /// The value of a key; blocks until it is set. An error cancels the rendezvous.
    fn get(&self, key: &str) -> Result<Vec<u8>, String>;

    /// Adds to the number in a key, 0 if it is not set, and returns the sum.
    fn add(&self, key: &str, amount: i64) -> Result<i64, String>;

    /// Whether a key is set.
    fn check(&self, key: &str) -> Result<bool, String>;

    /// Blocks until a key is set. An error, also one for the timeout, cancels the rendezvous.
    fn wait(&self, key: &str, timeout: Duration) -> Result<(), String>;

    /// Why the rendezvous is no longer wanted, once it is not. Asked every few milliseconds while a group connects, so
    /// it must not block: it covers the time in which the members open their sockets and ask the store nothing.
    fn cancelled(&self) -> Option<String>;
}

/// A store in memory, for groups within one process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    keys: Mutex<HashMap<String, Vec<u8>>>,
    changed: Condvar,
}

impl Store for MemoryStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), value.to_vec());
        self.changed.notify_all();
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.changed.wait_while(keys, |keys| !keys.contains_key(key)).unwrap_or_else(PoisonError::into_inner);
        Ok(keys.get(key).cloned().unwrap_or_default())
    }

    fn add(&self, key: &str, amount: i64) -> Result<i64, String> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let before = keys.get(key).and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok()).unwrap_or(0);
        let sum = before.checked_add(amount).ok_or_else(|| format!("key `{key}`: {before} + {amount} does not fit 64 bits"))?;
        keys.insert(key.to_owned(), sum.to_string().into_bytes());
        drop(keys);
        self.changed.notify_all();
        Ok(sum)
    }

    fn check(&self, key: &str) -> Result<bool, String> {
        Ok(self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key))
    }

    fn wait(&self, key: &str, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        while !keys.contains_key(key) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("key `{key}`: not set within {timeout:?}"));
            }
            keys = self.changed.wait_timeout(keys, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn cancelled(&self) -> Option<String> {
        None
    }
}

/// The store as C++ sees it, `ForebayStore` in `shim/c10d.h`.
#[repr(C)]
pub(crate) struct StoreCalls {
    context: *mut c_void,
    set: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const u8, usize, *mut c_void) -> bool,
    get: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut c_void, *mut c_void) -> bool,
    add: unsafe extern "C" fn(*mut c_void, *const c_char, usize, i64, *mut i64, *mut c_void) -> bool,
    check: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut bool, *mut c_void) -> bool,
    wait: unsafe extern "C" fn(*mut c_void, *const c_char, usize, i64, *mut c_void) -> bool,
    drop: unsafe extern "C" fn(*mut c_void),
}

impl StoreCalls {
    /// Hands a reference to `store` to C++, which gives it back through `drop`.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let context = Box::into_raw(Box::new(store)).cast();
        Self { context, set, get, add, check, wait, drop: drop_store }
    }
}

// SAFETY of all callbacks below: C++ passes the context that `StoreCalls::new` made and not yet dropped, keys and values
// as pointer and length valid for the call, and out-pointers to live objects; `value` and `error` point to std::strings.

unsafe extern "C" fn set(
    context: *mut c_void,
    key: *const c_char,
    key_bytes: usize,
    value: *const u8,
    value_bytes: usize,
    error: *mut c_void,
) -> bool {
    // SAFETY: see above.
    let value = unsafe { bytes(value, value_bytes) };
    // SAFETY: see above.
    unsafe { answer(context, key, key_bytes, error, |store, key| store.set(key, value)) }.is_some()
}

unsafe extern "C" fn get(context: *mut c_void, key: *const c_char, key_bytes: usize, value: *mut c_void, error: *mut c_void) -> bool {
    // SAFETY: see above.
    let Some(found) = (unsafe { answer(context, key, key_bytes, error, |store, key| store.get(key)) }) else { return false };
    // SAFETY: see above; the bytes are copied.
    unsafe { ffi::forebay_c10d_string_assign(value, found.as_ptr(), found.len()) };
    true
}

unsafe extern "C" fn add(
    context: *mut c_void,
    key: *const c_char,
    key_bytes: usize,
    amount: i64,
    sum: *mut i64,
    error: *mut c_void,
) -> bool {
    // SAFETY: see above.
    let found = unsafe { answer(context, key, key_bytes, error, |store, key| store.add(key, amount)) };
    // SAFETY: see above.
    found.map(|found| unsafe { sum.write(found) }).is_some()
}

unsafe extern "C" fn check(context: *mut c_void, key: *const c_char, key_bytes: usize, present: *mut bool, error: *mut c_void) -> bool {
    // SAFETY: see above.
    let found = unsafe { answer(context, key, key_bytes, error, |store, key| store.check(key)) };
    // SAFETY: see above.
    found.map(|found| unsafe { present.write(found) }).is_some()
}

unsafe extern "C" fn wait(context: *mut c_void, key: *const c_char, key_bytes: usize, timeout_ms: i64, error: *mut c_void) -> bool {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    // SAFETY: see above.
    unsafe { answer(context, key, key_bytes, error, |store, key| store.wait(key, timeout)) }.is_some()
}

unsafe extern "C" fn drop_store(context: *mut c_void) {
    // SAFETY: see above; C++ calls this once, last.
    let store = unsafe { Box::from_raw(context.cast::<Arc<dyn Store>>()) };
    // A panicking destructor must not unwind into C++, and has nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(store)));
}

/// Asks the store; on an error or a panic writes the message to `error` and returns nothing.
unsafe fn answer<T>(
    context: *mut c_void,
    key: *const c_char,
    key_bytes: usize,
    error: *mut c_void,
    ask: impl FnOnce(&dyn Store, &str) -> Result<T, String>,
) -> Option<T> {
    // SAFETY: the context is the boxed Arc of `StoreCalls::new`.
    let store = unsafe { &*context.cast::<Arc<dyn Store>>() };
    // SAFETY: pointer and length of a std::string.
    let key = String::from_utf8_lossy(unsafe { bytes(key.cast(), key_bytes) });
    let result =
        catch_unwind(AssertUnwindSafe(|| ask(store.as_ref(), &key))).unwrap_or_else(|_| Err(format!("key `{key}`: the store panicked")));
    match result {
        Ok(value) => Some(value),
        Err(message) => {
            // SAFETY: `error` points to a std::string, which copies the bytes.
            unsafe { ffi::forebay_c10d_string_assign(error, message.as_ptr(), message.len()) };
            None
        }
    }
}

/// The bytes behind a C++ pointer and length; an empty range may come with a null pointer.
unsafe fn bytes<'a>(start: *const u8, count: usize) -> &'a [u8] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller promises `count` bytes at `start`, alive while the result is used.
    unsafe { std::slice::from_raw_parts(start, count) }
}
