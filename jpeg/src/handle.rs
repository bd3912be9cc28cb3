//! An instance of the library: owned, destroyed when dropped, its messages as [`Error`]s.

use std::ffi::{CStr, c_int};

use turbojpeg_sys as sys;

use crate::error::{Error, Result};

pub(crate) struct Handle(sys::tjhandle);

// SAFETY: an instance has no ties to the thread that made it; it is not `Sync`, so one thread uses it at a time.
unsafe impl Send for Handle {}

/// How a call ended that may warn.
pub(crate) enum Outcome {
    Clean,
    /// It did its work, and found damage: the first message.
    Warned(String),
}

impl Handle {
    pub(crate) fn new(kind: sys::TJINIT) -> Result<Self> {
        // SAFETY: takes no pointers; null is told apart below.
        let handle = unsafe { sys::tj3Init(kind as c_int) };
        if handle.is_null() {
            return Err(Error::Limit("no memory for another instance of libjpeg-turbo".into()));
        }
        Ok(Self(handle))
    }

    pub(crate) fn raw(&self) -> sys::tjhandle {
        self.0
    }

    pub(crate) fn get(&self, parameter: sys::TJPARAM) -> c_int {
        // SAFETY: the instance lives, and an unknown parameter is answered with -1.
        unsafe { sys::tj3Get(self.0, parameter as c_int) }
    }

    pub(crate) fn set(&mut self, parameter: sys::TJPARAM, value: c_int) -> Result<()> {
        // SAFETY: the instance lives; values out of range are refused by the library.
        let code = unsafe { sys::tj3Set(self.0, parameter as c_int, value) };
        self.must(code)
    }

    /// What a call means that returned `code`.
    pub(crate) fn outcome(&self, code: c_int) -> Result<Outcome> {
        if code == 0 {
            return Ok(Outcome::Clean);
        }
        // SAFETY: the instance lives; the message is its own, ends with a zero, and is copied before the next call.
        let message = unsafe { CStr::from_ptr(sys::tj3GetErrorStr(self.0)) }.to_string_lossy().into_owned();
        // SAFETY: the instance lives.
        match unsafe { sys::tj3GetErrorCode(self.0) } {
            code if code == sys::TJERR_TJERR_WARNING as c_int => Ok(Outcome::Warned(message)),
            _ => Err(Error::of_message(&message)),
        }
    }

    /// The same where a warning is a failure too.
    pub(crate) fn must(&self, code: c_int) -> Result<()> {
        match self.outcome(code)? {
            Outcome::Clean => Ok(()),
            Outcome::Warned(message) => Err(Error::of_message(&message)),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the instance lives and nobody else has it.
        unsafe { sys::tj3Destroy(self.0) }
    }
}
